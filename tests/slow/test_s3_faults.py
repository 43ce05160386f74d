"""Whole runs whose bucket fails at random, or whose machine is lost: what was sent is whole, the rest comes later."""

from __future__ import annotations

import contextlib
import io
import random
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3
import damage
import pytest
from evidence import Loop
from fault_proxy import Asked, FaultProxy
from quick_run import PATIENT, QuickRun
from reference import differences
from runs import Scans, broken, live, lost_lines, unlike, whole_lines

import tunelab.resume
import tunelab.trial
from tunelab.cli import main

pytestmark = [
    pytest.mark.slow,
    # Ray warns of its own future when it is imported
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::FutureWarning", "ignore::DeprecationWarning"),
]

BUCKET = "faults"
KINDS = ("busy", "hang", "reset", "lose", "slow", "cut", "down", "down at the end")


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch, s3_port: int, tmp_path: Path) -> Iterator[Any]:
    """A client that is led past all faults; the environment has what others need."""
    for name, value in {
        "AWS_ACCESS_KEY_ID": "slow",
        "AWS_SECRET_ACCESS_KEY": "slow",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(tunelab.resume, "run_search", damage.run_in_turns)
    monkeypatch.setattr(tunelab.trial, "CHECKPOINT_SHARE", 0)
    client = boto3.client("s3", endpoint_url=f"http://127.0.0.1:{s3_port}")
    client.create_bucket(Bucket=BUCKET)
    yield client
    client.close()


def is_put(asked: Asked) -> bool:
    return asked.method == "PUT"


class Weather:
    """What goes wrong between a driver and its bucket: each fault at its time, all over when the driver is."""

    def __init__(self, proxy: FaultProxy, rng: random.Random) -> None:
        self.kinds = sorted(rng.sample(KINDS, rng.randint(1, 3)))
        self._proxy = proxy
        self._rng = rng
        self._over = threading.Event()

    @contextmanager
    def over(self, run: QuickRun) -> Iterator[None]:
        """From the first result on."""
        thread = threading.Thread(target=self._come, args=(run,), daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._over.set()
            thread.join()
            self._proxy.down = False
            self._proxy.release()
            self._proxy.clear()

    def _come(self, run: QuickRun) -> None:
        while not run.count("result"):
            if self._over.wait(0.02):
                return
        for kind in self.kinds:
            self._fault(kind)
            if self._over.wait(self._rng.uniform(0.1, 1.5)):
                return

    def _fault(self, kind: str) -> None:
        proxy, times = self._proxy, self._rng.randint(1, 8)
        if kind == "busy":
            proxy.answer(503, "SlowDown", times=times)
        elif kind == "hang":
            proxy.hang(times=2)
            self._over.wait(self._rng.uniform(1, 4))
            proxy.release()
        elif kind == "reset":
            proxy.reset(after=self._rng.randrange(3000), when=is_put, times=times)
        elif kind == "lose":
            proxy.lose(when=is_put, times=times)
        elif kind == "slow":
            proxy.slow(50_000, times=10 * times)
        elif kind == "cut":
            proxy.cut(after=self._rng.randrange(200), times=times)
        else:
            proxy.down = True
            if kind == "down":
                self._over.wait(self._rng.uniform(0.5, 6))
                proxy.down = False


def command(*words: str) -> tuple[int, str]:
    """A command of tunelab in this process."""
    told = io.StringIO()
    with contextlib.redirect_stdout(told), contextlib.redirect_stderr(told):
        code = main(list(words))
    return code, told.getvalue()


def elsewhere(
    url: str, acknowledged: bytes, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[str, dict[str, object]]:
    """Go on from the bucket in another folder; what is wrong, and what was compared."""
    folder.mkdir()
    monkeypatch.chdir(folder)
    code, said = command("resume", url, "--local")
    if code:
        return f"elsewhere: exit code {code}: {said[-1500:]}", {}
    run = folder / "runs" / "run"
    fault, results, twice = broken(run, before=acknowledged, said=said, done=True)
    compared, different = differences(run, "quick_trainer")
    facts = {"results": results, "duplicated": twice, "compared": compared, "different": different[:5]}
    return fault and f"elsewhere: {fault}", facts


def test_a_bucket_that_fails_loses_nothing(
    loop: Callable[[str, int, int], Loop], scans: Scans, bucket: Any, s3_port: int, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """In a third of the rounds the machine is lost as well, with all that was not sent."""
    faults = loop("S3 faults", 2, 40)
    for number in faults.numbers():
        rng = faults.draw(number)
        proxy = FaultProxy(s3_port)
        proxy.start()
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        facts = one_round(rng, f"{tmp_path.name}-{number}", proxy, scans, bucket, tmp_path, monkeypatch)
        proxy.close()
        faults.write(number, **facts)
        monkeypatch.chdir(tmp_path)
        for folder in (tmp_path / "here", tmp_path / "elsewhere"):
            shutil.rmtree(folder, ignore_errors=True)
    faults.end()


def one_round(
    rng: random.Random, name: str, proxy: FaultProxy, scans: Scans, client: Any, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> dict[str, object]:  # fmt: skip
    (tmp_path / "here").mkdir()
    run = QuickRun(folder=tmp_path / "here")
    run.environment |= {"TUNELAB_QUICK_SECONDS": rng.choice(["0.02", "0.2"]), "TUNELAB_QUICK_SHARE": "0"}
    url, prefix = f"s3://{BUCKET}/{name}/run", f"{name}/run/"
    data, lost_after = str(scans.dealt if rng.random() < 0.5 else scans.undealt), rng.randint(4, 40)
    machine_lost = rng.random() < 1 / 3
    weather = Weather(proxy, rng)
    run.search("--trials", "3", "--data", data, "--sync-every", "0.3s", "--storage", f"s3://{BUCKET}/{name}")
    with weather.over(run):
        drive = live(
            run,
            lambda new, seconds: machine_lost and len(new) >= lost_after,
            everything=True,
            patience=PATIENT,
        )
    facts: dict[str, object] = {"weather": weather.kinds, "code": drive.code, "hangs": int(drive.hung)}
    if drive.code is None:
        return facts | _machine_lost(run, drive.journal, client, url, prefix, tmp_path, monkeypatch)
    acknowledged = whole_lines(drive.journal)
    fault, _, _ = broken(run.run, before=acknowledged, said=drive.said, done=True)
    if drive.code not in (0, 5) or (drive.code == 5 and "tunelab sync" not in drive.said):
        fault = fault or f"exit code {drive.code}: {drive.said[-1500:]}"
    code, said = command("sync", str(run.run))
    odd = unlike(run.run, client, BUCKET, prefix) if code == 0 else []
    fault = fault or (f"sync: exit code {code}: {said}" if code else f"the bucket differs in {odd[:5]}" if odd else "")
    there = client.get_object(Bucket=BUCKET, Key=f"{prefix}journal.jsonl")["Body"].read() if code == 0 else b""
    other, compared = elsewhere(url, acknowledged, tmp_path / "elsewhere", monkeypatch) if code == 0 else ("", {})
    outcome = "all sent" if drive.code == 0 else "sent later"
    return facts | compared | {
        "outcome": outcome, "acknowledged": acknowledged.count(b"\n"), "lost": lost_lines(acknowledged, there),
        "broken": fault or other,
    }  # fmt: skip


def _machine_lost(
    run: QuickRun, left: bytes, client: Any, url: str, prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> dict[str, object]:
    """The folder is gone: what the bucket has is the beginning of what was, and is gone on with."""
    shutil.rmtree(run.folder)
    listed = client.list_objects_v2(Bucket=BUCKET, Prefix=prefix).get("Contents", [])
    if not any(one["Key"] == f"{prefix}manifest.json" for one in listed):
        return {"kills": 1, "outcome": "machine lost before anything was sent"}
    there = client.get_object(Bucket=BUCKET, Key=f"{prefix}journal.jsonl")["Body"].read()
    fault, compared = elsewhere(url, there, tmp_path / "elsewhere", monkeypatch)
    fault = fault or ("" if left.startswith(there) else "the bucket's journal is not the beginning of the folder's")
    sent = {"unsent": left.count(b"\n") - there.count(b"\n"), "acknowledged": there.count(b"\n")}
    return compared | sent | {"kills": 1, "outcome": "machine lost", "broken": fault}
