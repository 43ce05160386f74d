"""Whole runs with the quick trainer, each driver a process of its own that can be killed; and what must hold of a run.

As a script it is the command line of tunelab with that trainer, or with the one that ``TUNELAB_QUICK_TRAINER`` names:
``python tests/quick_run.py search SPACE ...``.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
SPACE = """
name: quick
epochs: {max: 6, patience: 9}
early_stopping: {grace: 2, reduction: 2, collapse: 1}
shared:
  learning_rate: {loguniform: [1e-3, 1.0]}
  batch_size: 4
  dropout: {uniform: [0, 0.4]}
  l2: {loguniform: [1e-6, 1e-3]}
families:
  simple_rnn: {units: {choice: [[6], [8]]}}
  dense_rnn: {dense: {choice: [[6], [8, 6]]}, units: [6]}
"""
PATIENT = 240.0
"""Seconds after which a driver is taken for hung, whatever else this machine does."""


@dataclass(kw_only=True)
class QuickRun:
    """One run, and the drivers that are started on it one after another."""

    folder: Path
    """Where drivers are started; the run is ``runs/NAME`` in it."""
    name: str = "run"
    environment: dict[str, str] = field(default_factory=dict)
    output: list[str] = field(default_factory=list)
    """Lines of the newest driver, both streams."""
    process: subprocess.Popen[str] | None = None

    @property
    def run(self) -> Path:
        return self.folder / "runs" / self.name

    @property
    def journal(self) -> Path:
        return self.run / "journal.jsonl"

    def search(self, *options: str, space: str = SPACE) -> QuickRun:
        """Start ``tunelab search``."""
        path = self.folder / "space.yaml"
        if not path.exists():
            path.write_text(space)
        return self.start("search", str(path), "--name", self.name, "--local", *options)

    def resume(self, *options: str, run: str = "") -> QuickRun:
        """Start ``tunelab resume``."""
        return self.start("resume", run or str(self.run), "--local", *options)

    def start(self, *words: str) -> QuickRun:
        self.output = []
        path = os.pathsep.join(filter(None, [str(HERE), os.environ.get("PYTHONPATH")]))
        self.process = subprocess.Popen(
            [sys.executable, str(HERE / "quick_run.py"), *words],
            cwd=self.folder,
            env={**os.environ, "PYTHONPATH": path, "TUNELAB_QUICK_SECONDS": "0.05", **self.environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, args=(self.process, self.output), daemon=True)
        self._reader.start()
        return self

    def end(self, seconds: float = PATIENT) -> int:
        """Wait for the driver and give its exit code; what it said is in ``output``."""
        assert self.process is not None
        code = self.process.wait(timeout=seconds)
        self._reader.join(timeout=30)
        return code

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Send the driver a signal; after SIGKILL, wait until it is gone."""
        assert self.process is not None
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.process.pid, number)
        if number == signal.SIGKILL:
            self.end()

    def kill_all(self) -> None:
        """Kill the driver, and wait until the trials' processes have noticed."""
        left = workers(self)
        self.kill()
        deadline = time.monotonic() + PATIENT
        while any(command_of(pid) for pid in left):
            assert time.monotonic() < deadline, "trials go on without their driver"
            time.sleep(0.05)

    def wait_for(self, what: Callable[[list[dict[str, Any]]], bool], seconds: float = PATIENT) -> None:
        """Until the journal on disk says so, or the driver ended."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if what(self.records()):
                return
            assert self.process is not None
            if self.process.poll() is not None:
                assert what(self.records()), "\n".join(self.output)
                return
            time.sleep(0.02)
        raise AssertionError(f"nothing after {seconds} s:\n" + "\n".join(self.output))

    def records(self) -> list[dict[str, Any]]:
        """The whole lines of the journal, without a look at their digests."""
        if not self.journal.exists():
            return []
        whole = self.journal.read_bytes().rpartition(b"\n")[0]
        return [json.loads(line) for line in whole.splitlines()]

    def count(self, kind: str) -> int:
        return sum(record["kind"] == kind for record in self.records())

    @property
    def said(self) -> str:
        return "\n".join(self.output)

    @staticmethod
    def _read(process: subprocess.Popen[str], lines: list[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            lines.append(line.rstrip("\n"))
        process.stdout.close()


@dataclass(frozen=True, kw_only=True)
class Checked:
    """What was counted while a run's journal was checked."""

    results: int
    trials: int
    duplicated: int


def check_run(run: Path, *, before: bytes = b"", said: str = "", done: bool = True) -> Checked:
    """What must hold of a run after whatever was done to it.

    Args:
        run: its folder.
        before: the journal as it was on disk at the kill; nothing acknowledged there may be lost.
        said: what the killed driver had printed; every end that it told of is in the journal.
        done: whether the run must have come to its end.
    """
    raw = (run / "journal.jsonl").read_bytes()
    whole = before.rpartition(b"\n")[0] + (b"\n" if b"\n" in before else b"")
    assert raw.startswith(whole), "an acknowledged line is gone or changed"
    records = [json.loads(line) for line in raw.splitlines()]
    assert [record["seq"] for record in records] == list(range(len(records)))
    suggested = Counter(r["trial"] for r in records if r["kind"] == "suggestion")
    assert set(suggested.values()) <= {1}, "a trial was suggested twice"
    assert sorted(suggested) == [f"{i:04d}" for i in range(1, len(suggested) + 1)]
    final = [r["trial"] for r in records if r["kind"] == "end" and r["status"] != "interrupted"]
    assert len(final) == len(set(final)), "a trial ended twice"
    told = Counter((r["trial"], r.get("fold", 0), r["epoch"]) for r in records if r["kind"] in ("result", "fold"))
    for trial in suggested:
        epochs = [r["epoch"] for r in records if r["kind"] == "result" and r["trial"] == trial]
        assert sorted(set(epochs)) == list(range(1, max(epochs, default=0) + 1)), f"{trial}: an epoch is missing"
    for trial in re.findall(r"\] (?:finished|stopped|failed): trial (\d+)", said):
        assert trial in final, f"{trial} was said to be over, and the journal knows nothing of it"
    if done:
        assert set(final) == set(suggested), "a trial is unfinished"
        assert records[-1]["kind"] == "close"
        assert sum(r["kind"] == "final" for r in records) == 1, "the test split answers once"
        _check_weights(run, records)
        assert not list((run / "checkpoints").glob("*/*"))
    return Checked(results=len(told), trials=len(suggested), duplicated=sum(told.values()) - len(told))


def _check_weights(run: Path, records: list[dict[str, Any]]) -> None:
    """The winner's weights are those that were told."""
    (final,) = [r for r in records if r["kind"] == "final"]
    told = [
        r for r in records if r["kind"] == "result" and r["trial"] == final["trial"] and r["epoch"] == final["epoch"]
    ]
    raw = (run / "weights" / f"{final['trial']}-e{final['epoch']:04d}.npz").read_bytes()
    assert hashlib.sha256(raw).hexdigest() == told[-1]["weights"]


def children(pid: int) -> list[int]:
    """All processes below one, the nearest first."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = stat.read_text().rpartition(")")[2].split()
            if int(fields[1]) == pid:
                found.append(int(stat.parent.name))
    return found + [below for one in found for below in children(one)]


def workers(run: QuickRun) -> list[int]:
    """The trials' processes of a running driver."""
    assert run.process is not None
    return [pid for pid in children(run.process.pid) if b"tunelab.worker" in command_of(pid)]


def actors(run: QuickRun) -> list[int]:
    """Ray's processes that hold trials."""
    assert run.process is not None
    return [pid for pid in children(run.process.pid) if b"Trainable" in command_of(pid)]


def command_of(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def random_moment(rng: random.Random, spans: Mapping[str, float]) -> tuple[str, float]:
    """A phase of a driver's life, and how long after its beginning to strike."""
    phase = rng.choice(sorted(spans))
    return phase, rng.uniform(0, spans[phase])


if __name__ == "__main__":
    import tunelab.tuning.run
    from tunelab.cli import main

    tunelab.tuning.run.TRAINER = os.environ.get("TUNELAB_QUICK_TRAINER", "quick_trainer")
    sys.exit(main(sys.argv[1:]))
