"""Runs that are killed, and what must then hold: nothing acknowledged is lost, told twice or otherwise than it was."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from quick_run import QuickRun, check_run, children, command_of

from tunelab.archive import NAMED, is_of_a_run
from tunelab.data.synthetic import SyntheticSettings, synthesize, write_folder
from tunelab.files import files_below

SETTINGS = SyntheticSettings(scans=24, traces=20, samples=64, shortest=0.6, seed=3)


@dataclass(frozen=True, kw_only=True)
class Scans:
    """Two folders of the same scans."""

    dealt: Path
    """With splits."""
    undealt: Path
    """Without: few enough to be dealt to folds."""

    @classmethod
    def write(cls, folder: Path) -> Self:
        made = cls(dealt=folder / "dealt", undealt=folder / "undealt")
        for one in (made.dealt, made.undealt):
            write_folder(SETTINGS, one)
        known = synthesize(SETTINGS)
        rows = [f"{scan},{split}\n" for scan, split in zip(known.scans, known.splits, strict=True)]
        (made.dealt / "scans.csv").write_text("scan,split\n" + "".join(rows))
        return made


def whole_lines(raw: bytes) -> bytes:
    """What of a journal is acknowledged."""
    return raw[: raw.rfind(b"\n") + 1]


def lost_lines(acknowledged: bytes, now: bytes) -> int:
    """How many acknowledged lines are gone or changed."""
    before, after = acknowledged.splitlines(keepends=True), now.splitlines(keepends=True)
    return sum(i >= len(after) or after[i] != line for i, line in enumerate(before))


@dataclass(kw_only=True)
class Drive:
    """One driver's life from its start to its kill or its end."""

    run: QuickRun
    acknowledged: bytes
    """What the journal held before."""
    code: int | None = None
    """Its exit code if it ended by itself; None: it was killed."""
    hung: bool = False
    seconds: float | None = None
    """Until it wrote what no earlier driver had: a trial that goes on, or begins, or what comes after trials."""
    everything: bool = False
    """Whether all its processes were killed with it."""
    alive: dict[int, bytes] = field(default_factory=dict)
    """Its processes at the kill, by their numbers, with the times at which they began."""
    trials: set[int] = field(default_factory=set)
    """Those of them in which trials were trained."""
    journal: bytes = b""
    """What the journal held when the driver was gone."""
    said: str = ""
    """What it had printed."""


def journal_of(run: QuickRun) -> bytes:
    """What is on disk now; nothing before there is a journal."""
    with contextlib.suppress(FileNotFoundError):
        return run.journal.read_bytes()
    return b""


Moment = Callable[[list[dict[str, Any]], float], bool]
"""Of the new records, and the seconds since the start: whether to strike now."""


def live(run: QuickRun, moment: Moment, *, everything: bool, patience: float) -> Drive:
    """Watch a driver that was just started, and kill it at a moment, if it does not end before."""
    before = whole_lines(journal_of(run))
    drive = Drive(run=run, acknowledged=before, everything=everything)
    assert run.process is not None
    begun, size, new = time.monotonic(), -1, list[dict[str, Any]]()
    while run.process.poll() is None:
        now = run.journal.stat().st_size if run.journal.exists() else 0
        if now != size:
            size = now
            new = [json.loads(line) for line in whole_lines(journal_of(run))[len(before) :].splitlines()]
            if drive.seconds is None and any(r["kind"] not in ("run", "session", "change") for r in new):
                drive.seconds = time.monotonic() - begun
        if moment(new, time.monotonic() - begun):
            break
        if time.monotonic() - begun > patience:
            drive.hung = True
            break
        time.sleep(0.001)
    if run.process.poll() is None:
        _kill(drive)
    else:
        drive.code = run.end()
    drive.journal, drive.said = journal_of(run), run.said
    return drive


def _kill(drive: Drive) -> None:
    process = drive.run.process
    assert process is not None
    below = children(process.pid)
    drive.alive = {pid: began(pid) for pid in below}
    drive.trials = {pid for pid in below if b"tunelab.worker" in command_of(pid)}
    for pid in [process.pid, *(below if drive.everything else ())]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    drive.run.end()


def began(pid: int) -> bytes:
    """When a process began, in the kernel's own count; nothing for one that is gone, or a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return b""
    return b"" if fields[0] == b"Z" else fields[19]


def left_alive(drive: Drive, seconds: float, *, trials: bool) -> list[str]:
    """Processes of a killed driver that do not end by themselves: those of its trials, or all."""
    some = {pid: since for pid, since in drive.alive.items() if since and (pid in drive.trials or not trials)}
    deadline = time.monotonic() + seconds
    while left := [pid for pid, since in some.items() if began(pid) == since]:
        if time.monotonic() > deadline:
            return [command_of(pid).replace(b"\0", b" ").decode(errors="replace")[:200] for pid in left]
        time.sleep(0.1)
    return []


def broken(run: Path, *, before: bytes, said: str, done: bool) -> tuple[str, int, int]:
    """What does not hold of a run, or nothing; how many results it has; how many were told twice."""
    try:
        counted = check_run(run, before=before, said=said, done=done)
    except AssertionError as error:
        return f"{error}"[:2000] or "an invariant", 0, 0
    return "", counted.results, counted.duplicated


def unlike(run: Path, client: Any, bucket: str, prefix: str) -> list[str]:
    """Where a run's copy in a bucket does not hold what its folder holds.

    Checkpoints and weights that the folder has no more may be there: a mirror removes only what it has seen itself.
    """
    manifest = json.loads(client.get_object(Bucket=bucket, Key=f"{prefix}manifest.json")["Body"].read())["files"]
    here = {key for key in files_below(run) if is_of_a_run(key)}
    extra = {key for key in manifest.keys() - here if not key.startswith(NAMED)}
    return sorted((here - manifest.keys()) | extra) + [
        key
        for key in sorted(here & manifest.keys())
        if client.get_object(Bucket=bucket, Key=prefix + key)["Body"].read() != (run / key).read_bytes()
    ]


def moment_of(phase: str, rng: random.Random, spans: Mapping[str, float]) -> Moment:
    """When to strike: so many seconds, or so many records, after a phase of a driver's life has begun."""
    delay, count = rng.uniform(0, spans[phase]), rng.randint(1, 12)
    since: list[float] = []

    def due(new: list[dict[str, Any]], seconds: float) -> bool:
        kinds = [r["kind"] for r in new]
        if not since and (
            phase in ("start", "life")
            or (phase == "opening" and kinds)
            or (phase == "trials" and any(k in ("suggestion", "resumed", "result") for k in kinds))
            or (phase == "record" and len(kinds) >= count)
            or (phase == "ends" and "end" in kinds)
            or (phase == "judgement" and _over(new))
            or (phase == "report" and "close" in kinds)
        ):
            since.append(seconds)
        return bool(since) and seconds >= since[0] + delay

    return due


def _over(new: list[dict[str, Any]]) -> bool:
    """Whether the driver has no trial under way, as far as its own records tell."""
    begun = {r["trial"] for r in new if r["kind"] in ("suggestion", "resumed")}
    ended = {r["trial"] for r in new if r["kind"] == "end"}
    return bool(ended) and begun <= ended
