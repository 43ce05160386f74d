"""Disks that are full or read-only under a run's results: nothing is torn, and the run goes on once there is room."""

from __future__ import annotations

import contextlib
import errno
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from quick_run import QuickRun, check_run

from tunelab.cli import main

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small file system needs root")

FULL = os.strerror(errno.ENOSPC)
READ_ONLY = os.strerror(errno.EROFS)


@contextlib.contextmanager
def mounted(place: Path, options: str) -> Iterator[None]:
    """A small file system of its own at a place; whatever still holds it does not keep it."""
    place.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        pytest.skip(f"no mounting here: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


@pytest.fixture
def small(tmp_path: Path) -> Iterator[QuickRun]:
    """A run whose results have 32 MB, while Ray and data sets have theirs elsewhere."""
    with mounted(tmp_path / "runs", "size=32m"):
        run = QuickRun(folder=tmp_path)
        yield run
        if run.process is not None and run.process.poll() is None:
            run.kill()


def fill(path: Path) -> None:
    """Take all the room that is left."""
    with path.open("wb", buffering=0) as file:
        for size in (1 << 20, 1 << 12, 1):
            with contextlib.suppress(OSError):
                while True:
                    file.write(bytes(size))


def results(run: QuickRun) -> int:
    return run.count("result")


@pytest.mark.ray
def test_a_run_ends_whole_when_its_disk_does_not_and_goes_on_later(
    small: QuickRun, capsys: pytest.CaptureFixture[str]
) -> None:
    filler = small.folder / "runs" / "filler"
    small.environment["TUNELAB_QUICK_SECONDS"] = "0.2"
    small.search("--trials", "6", "--sync-every", "1s")
    small.wait_for(lambda records: sum(r["kind"] == "result" for r in records) >= 3)
    fill(filler)
    assert small.end(90) == 5, small.said
    _said(small, FULL)
    check_run(small.run, said=small.said, done=False)
    known = small.journal.read_bytes()
    for word, code in (("resume", 5), ("report", 5), ("status", 0)):
        assert main([word, str(small.run), *(["--local"] if word == "resume" else [])]) == code
        told = capsys.readouterr()
        assert (f"{small.run}/" in told.err and FULL in told.err) == (code == 5), told.err
    assert small.journal.read_bytes() == known

    # room again, and a part of it that cannot be written: the kernel keeps the whole writable while a file is open
    filler.unlink()
    small.resume()
    small.wait_for(lambda records: sum(r["kind"] == "session" for r in records) == 2)
    with mounted(small.run / "weights", "ro"):
        assert small.end(90) == 5, small.said
    _said(small, READ_ONLY)
    check_run(small.run, before=known, said=small.said, done=False)

    known = small.journal.read_bytes()
    subprocess.run(["mount", "-o", "remount,ro", str(small.folder / "runs")], check=True)
    assert main(["resume", str(small.run), "--local"]) == 5
    told = capsys.readouterr().err
    assert told.startswith(f"tunelab: {small.run}/")
    assert READ_ONLY in told
    assert main(["status", str(small.run)]) == 0
    subprocess.run(["mount", "-o", "remount,rw", str(small.folder / "runs")], check=True)
    assert small.journal.read_bytes() == known

    small.environment["TUNELAB_QUICK_SECONDS"] = "0"
    assert small.resume().end() == 0, small.said
    assert check_run(small.run, before=known, said=small.said).trials == 6
    assert not list(small.run.rglob("*.tmp"))


def _said(run: QuickRun, why: str) -> None:
    """The place, the reason and what to do; no more."""
    assert "Traceback" not in run.said
    (line,) = [line for line in run.output if line.startswith("tunelab: ")]
    assert f"{run.run}/" in line
    assert why in line
    assert "free space" in line
