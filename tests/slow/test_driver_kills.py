"""Drivers that are killed at random points, again and again, until their runs are done all the same."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pytest
from evidence import Loop
from quick_run import PATIENT, SPACE, QuickRun
from reference import differences
from runs import Drive, Scans, broken, journal_of, left_alive, live, lost_lines, moment_of, unlike, whole_lines

pytestmark = pytest.mark.slow

SPANS = {
    "start": 3.0,
    "opening": 1.5,
    "life": 12.0,
    "trials": 2.5,
    "record": 0.003,
    "ends": 1.0,
    "judgement": 1.5,
    "report": 2.0,
}
"""Phase -> seconds after its beginning within which a kill comes."""
MOST_DRIVERS = 60
"""Of one run; after them it is taken for one that never ends."""


@dataclass(kw_only=True)
class Case:
    """A run as it was drawn."""

    options: list[str]
    environment: dict[str, str]
    space: str = SPACE
    trainer: str = "quick_trainer"
    url: str = ""
    told: str = ""
    """In words."""


def quick_case(rng: random.Random, scans: Scans, s3: dict[str, str]) -> Case:
    data, share, concurrent = rng.choice(["", "dealt", "undealt"]), rng.choice(["0", ""]), rng.choice([1, 2])
    url = f"s3://slow/{uuid.UUID(int=rng.getrandbits(128))}" if rng.random() < 0.25 else ""
    trials = rng.randint(2, 5) if data == "undealt" else rng.randint(3, 7)
    options = ["--trials", str(trials), "--concurrent", str(concurrent), "--seed", str(rng.randrange(1000))]
    options += ["--data", str(getattr(scans, data))] if data else []
    options += ["--storage", url, "--sync-every", "0.3s"] if url else ["--sync-every", rng.choice(["1s", "60s"])]
    environment = {"TUNELAB_QUICK_SHARE": share, "TUNELAB_QUICK_SECONDS": rng.choice(["0", "0.05", "0.3"])}
    return Case(
        options=options,
        environment=environment | (s3 if url else {}),
        url=f"{url}/run" if url else "",
        told=f"{trials} trials, {concurrent} at once, data {data or 'embedded'}, share {share or 'default'}"
        + (", S3" if url else ""),
    )


@pytest.fixture
def s3(s3_port: int) -> dict[str, str]:
    """The environment of drivers whose runs go to a bucket, and the bucket."""
    found = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{s3_port}",
        "AWS_ACCESS_KEY_ID": "slow",
        "AWS_SECRET_ACCESS_KEY": "slow",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    client = boto3.client(
        "s3", endpoint_url=found["AWS_ENDPOINT_URL"], aws_access_key_id="slow", aws_secret_access_key="slow",
        region_name="us-east-1",
    )  # fmt: skip
    client.create_bucket(Bucket="slow")
    client.close()
    return found


@dataclass(kw_only=True)
class Struck:
    """A kill whose consequences show with the next driver."""

    number: int
    facts: dict[str, Any]
    drive: Drive


class Runs:
    """One run after another, each killed until it is done."""

    def __init__(
        self, loop: Loop, folder: Path, draw: Callable[[random.Random], Case], spans: dict[str, float]
    ) -> None:
        self.loop = loop
        self.folder = folder
        self._draw = draw
        self._spans = spans
        self._run: QuickRun | None = None
        self._case = Case(options=[], environment={})
        self._acknowledged = b""
        self._pending: Struck | None = None
        self._drivers = 0
        self._kills: list[Drive] = []
        self._old: list[Drive] = []

    def kill(self, number: int) -> None:
        """One kill; runs that come to their end before it are checked, and others begun."""
        rng = self.loop.draw(number)
        everything = rng.random() < 1 / 3
        while True:
            phase = rng.choice(sorted(self._spans))
            drive = self._live(number, moment_of(phase, rng, self._spans), everything=everything)
            if drive.code is None:
                break
        facts = {"phase": phase, "everything": everything, "run": self._case.told}
        self._pending = Struck(number=number, facts=facts, drive=drive)
        if drive.hung:
            self._settle(drive.journal)
            self._leave("hung: " + self._run.said[-2000:] if self._run else "")

    def finish(self) -> None:
        """Let the last run come to its end."""
        while self._run is not None:
            self._live(-1, lambda new, seconds: False, everything=False)
        if left := [line for kill in self._old for line in left_alive(kill, 120, trials=False)]:
            self.loop.write(None, hangs=len(left), left=left[:5])

    def _live(self, number: int, moment: Callable[..., bool], *, everything: bool) -> Drive:
        """Start the next driver of the run and see what becomes of it."""
        run = self._run or self._begin(number)
        self._drivers += 1
        if whole_lines(journal_of(run)):
            run.resume(*(["--data", self._data] if self._data and self._drivers % 7 == 0 else []))
        else:
            run.search(*self._case.options, space=self._case.space)
        drive = live(run, moment, everything=everything, patience=PATIENT)
        self._settle(drive.journal, drive.seconds)
        if drive.code is None:
            self._kills.append(drive)
        elif drive.code == 0:
            self._check_done(run, drive)
        else:
            self.loop.write(None, broken=f"a driver ended with {drive.code}: {run.said[-2000:]}", run=self._case.told)
            self._leave("")
        if self._run is not None and self._drivers > MOST_DRIVERS:
            self._leave("it never ends")
        return drive

    @property
    def _data(self) -> str:
        options = self._case.options
        return options[options.index("--data") + 1] if "--data" in options else ""

    def _begin(self, number: int) -> QuickRun:
        self._case = self._draw(self.loop.draw(f"run of {number} {self._drivers}"))
        folder = self.folder / uuid.uuid4().hex[:8]
        folder.mkdir()
        environment = {**self._case.environment, "TUNELAB_QUICK_TRAINER": self._case.trainer}
        self._run = QuickRun(folder=folder, environment=environment)
        self._acknowledged, self._drivers, self._kills = b"", 0, []
        return self._run

    def _settle(self, now: bytes, seconds: float | None = None) -> None:
        """Write down the kill before, now that another driver has opened what it left."""
        struck, self._pending = self._pending, None
        if struck is None or self._run is None:
            return
        drive = struck.drive
        self._acknowledged = max(self._acknowledged, drive.acknowledged, whole_lines(drive.journal), key=len)
        fault, results, twice = broken(self._run.run, before=b"", said=drive.said, done=False) if now else ("", 0, 0)
        self.loop.write(
            struck.number,
            **struck.facts,
            kills=1,
            acknowledged=self._acknowledged.count(b"\n"),
            results=results,
            lost=lost_lines(self._acknowledged, now),
            duplicated=twice,
            hangs=int(drive.hung),
            broken=fault,
            seconds=None if seconds is None else round(seconds, 2),
        )

    def _check_done(self, run: QuickRun, drive: Drive) -> None:
        fault, _, twice = broken(run.run, before=self._acknowledged, said=run.said, done=True)
        compared, different = self._compared(run.run)
        left = [line for kill in self._kills for line in left_alive(kill, 60, trials=True)]
        self._old += self._kills
        if self._case.url and not fault:
            fault = self._unlike(run.run)
        self.loop.write(
            None, run=self._case.told, kills=0, drivers=self._drivers, compared=compared, different=different[:5],
            duplicated=twice, broken=fault, hangs=len(left), left=left[:3], folder=str(run.folder) if fault else "",
        )  # fmt: skip
        if fault or different or left:
            self._leave("")
        else:
            self._run = None
            shutil.rmtree(run.folder, ignore_errors=True)

    def _compared(self, run: Path) -> tuple[int, list[str]]:
        if self._case.trainer == "quick_trainer":
            return differences(run, "quick_trainer")
        words = [sys.executable, str(Path(__file__).with_name("reference.py")), str(run)]
        done = subprocess.run(words, capture_output=True, text=True, timeout=600, check=True)
        compared, different = json.loads(done.stdout.splitlines()[-1])
        return compared, different

    def _unlike(self, run: Path) -> str:
        """Where the run's copy in the bucket is not what the folder holds."""
        environment = self._case.environment
        client = boto3.client(
            "s3", endpoint_url=environment["AWS_ENDPOINT_URL"], aws_access_key_id="slow", aws_secret_access_key="slow",
            region_name="us-east-1",
        )  # fmt: skip
        odd = unlike(run, client, "slow", self._case.url.removeprefix("s3://slow/") + "/")
        client.close()
        return f"the bucket differs from the folder in {odd[:5]}" if odd else ""

    def _leave(self, why: str) -> None:
        """Give a run up, and keep its folder for who looks into it."""
        if why:
            folder = str(self._run.folder) if self._run else ""
            self.loop.write(None, broken=f"given up: {why}", run=self._case.told, folder=folder)
        self._run, self._pending = None, None


def test_a_killed_driver_loses_nothing(
    loop: Callable[[str, int, int], Loop], scans: Scans, s3: dict[str, str], tmp_path: Path
) -> None:
    """At any point of start-up, replay, trials, journal, judgement, report and mirror."""
    kills = loop("driver kills", 2, 100)
    runs = Runs(kills, tmp_path, lambda rng: quick_case(rng, scans, s3), SPANS)
    for number in kills.numbers():
        runs.kill(number)
    runs.finish()
    kills.end()


KERAS_SPACE = SPACE.replace("{max: 6, patience: 9}", "{max: 3, patience: 9}")


def test_a_killed_driver_of_real_trainings_loses_nothing(
    loop: Callable[[str, int, int], Loop], scans: Scans, tmp_path: Path
) -> None:
    """Weights and metrics, too, are those of a training that nothing disturbed."""
    kills = loop("driver kills, Keras", 1, 10)

    def case(rng: random.Random) -> Case:
        data = rng.choice(["dealt", "undealt"])
        options = ["--trials", "2", "--concurrent", "1", "--seed", str(rng.randrange(1000)), "--data"]
        return Case(
            options=[*options, str(getattr(scans, data))],
            environment={"TUNELAB_QUICK_SHARE": "0"},
            space=KERAS_SPACE,
            trainer="tunelab.keras_trainer",
            told=f"2 trials, data {data}",
        )

    runs = Runs(kills, tmp_path, case, SPANS | {"start": 5.0, "life": 40.0, "trials": 15.0})
    for number in kills.numbers():
        runs.kill(number)
    runs.finish()
    kills.end()
