"""Processes of trials, and Ray's that hold them, killed at random times: at most one checkpoint interval is lost."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from evidence import Loop
from quick_run import QuickRun, actors, workers
from reference import differences
from runs import Scans, broken

pytestmark = pytest.mark.slow

SPACE = """
name: quick
epochs: {max: 8, patience: 9}
early_stopping: {grace: 8, reduction: 2}
shared: {learning_rate: {loguniform: [1e-3, 1.0]}, batch_size: 4, dropout: 0, l2: 0}
families: {simple_rnn: {units: [6]}}
"""
OF_A_RUN = 8
"""Kills, at most."""
Place = tuple[int, int]
"""Fold and epoch."""


def trained(path: Path) -> list[tuple[str, Place]]:
    """What was begun, in order."""
    found = []
    for line in path.read_text().splitlines() if path.exists() else []:
        trial, fold, epoch = line.split()
        found.append((trial, (int(fold), int(epoch))))
    return found


def kept(run: QuickRun) -> dict[str, Place]:
    """Trial -> the newest result told with a checkpoint: what is before it need not be trained again."""
    records = [r for r in run.records() if r["kind"] in ("result", "fold") and r["checkpoint"]]
    return {r["trial"]: (r.get("fold", 0), r["epoch"]) for r in records}


class Watched:
    """A run whose processes are killed now and then."""

    def __init__(self, loop: Loop, folder: Path, first: int, scans: Scans) -> None:
        rng = loop.draw(f"run of {first}")
        data = rng.choice(["dealt", "undealt"])
        share = rng.choice(["0", ""])
        self.told = f"data {data}, share {share or 'default'}"
        self.loop = loop
        self.log = folder / "trained"
        self.run = QuickRun(folder=folder)
        self.run.environment |= {
            "TUNELAB_QUICK_SECONDS": rng.choice(["0.3", "0.6"]),
            "TUNELAB_QUICK_SHARE": share,
            "TUNELAB_QUICK_TRAINED": str(self.log),
        }
        trials = "3" if data == "dealt" else "1"
        words = ["--trials", trials, "--max-failures", "1000", "--data", str(getattr(scans, data))]
        self.run.search(*words, "--concurrent", str(rng.choice([1, 2])), space=SPACE)
        self.kills: list[tuple[int, str, int, dict[str, Place]]] = []

    def kill(self, number: int) -> bool:
        """Kill one process; False when the run came to its end before."""
        rng = self.loop.draw(number)
        due = time.monotonic() + rng.uniform(0.1, 3.0)
        begun = len(trained(self.log))
        while time.monotonic() < due or len(trained(self.log)) == begun == 0 or not self._struck(rng, number):
            try:
                assert self.run.process is not None
                self.run.process.wait(0.02)
                return False
            except subprocess.TimeoutExpired:
                if time.monotonic() > due + 120:
                    self.loop.write(number, hangs=1, run=self.told, said=self.run.said[-2000:])
                    return True
        return True

    def _struck(self, rng: random.Random, number: int) -> bool:
        which = rng.choice(["trial", "actor"])
        found = sorted((workers if which == "trial" else actors)(self.run))
        if not found:
            return False
        with contextlib.suppress(ProcessLookupError):
            os.kill(rng.choice(found), signal.SIGKILL)
        self.kills.append((number, which, len(trained(self.log)), kept(self.run)))
        return True

    def end(self) -> None:
        """Let the run come to its end, and see what each kill cost."""
        try:
            code = self.run.end()
        except subprocess.TimeoutExpired:
            self.run.kill_all()
            code = -1
        fault, results, twice = broken(self.run.run, before=b"", said=self.run.said, done=True)
        compared, different = differences(self.run.run, "quick_trainer")
        fault = fault or ("" if code == 0 else f"exit code {code}: {self.run.said[-2000:]}")
        told = {
            (r["trial"], r.get("fold", 0), r["epoch"]) for r in self.run.records() if r["kind"] in ("result", "fold")
        }
        log = trained(self.log)
        self.loop.write(
            None, run=self.told, compared=compared, different=different[:5], duplicated=twice, hangs=int(code == -1),
            trained=len(log), told=len(told), broken=fault, folder=str(self.run.folder) if fault else "",
        )  # fmt: skip
        for number, which, begun, safe in self.kills:
            costs = [self._cost(log, begun, trial, place) for trial, place in safe.items()]
            early = [text for text, _ in costs if text]
            self.loop.write(
                number, kills=1, which=which, run=self.told, acknowledged=results, lost=0,
                again=sum(count for _, count in costs), broken="; ".join(early),
            )  # fmt: skip
        if not (fault or different):
            shutil.rmtree(self.run.folder, ignore_errors=True)

    @staticmethod
    def _cost(log: list[tuple[str, Place]], begun: int, trial: str, safe: Place) -> tuple[str, int]:
        """Whether a trial went back behind its newest checkpoint after a kill, and how many epochs were begun again."""
        before = {place for one, place in log[:begun] if one == trial}
        after = [place for one, place in log[begun:] if one == trial]
        if not after:
            return "", 0
        back = f"{trial} had a checkpoint of {safe} and was trained again from {after[0]}" if after[0] <= safe else ""
        return back, sum(place in before for place in after)


def test_a_killed_process_of_a_trial_costs_a_checkpoint_interval_at_most(
    loop: Callable[[str, int, int], Loop], scans: Scans, tmp_path: Path
) -> None:
    kills = loop("worker kills", 1, 50)
    watched: Watched | None = None
    for number in kills.numbers():
        while watched is None or len(watched.kills) >= OF_A_RUN or not watched.kill(number):
            if watched is not None:
                watched.end()
            folder = tmp_path / f"{number}-{time.monotonic_ns()}"
            folder.mkdir()
            watched = Watched(kills, folder, number, scans)
    if watched is not None:
        watched.end()
    kills.end()
