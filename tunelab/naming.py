"""What a run is called, and where it lies: a folder, a URL, or both."""

from __future__ import annotations

import re
from datetime import datetime
from pathlib import Path

from tunelab.errors import UsageError
from tunelab.s3 import parse_s3

LOCAL_FOLDER = Path("runs")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


def run_name(given: str | None, space: str) -> str:
    """What a new run is called.

    Args:
        given: by the user; None: the space's name and the time.
        space: name of the space.

    Raises:
        UsageError: no run can be called so.
    """
    name = given if given is not None else f"{_word(space)}-{datetime.now():%Y%m%d-%H%M%S}"
    check_name(name)
    return name


def _word(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-._")[:60] or "run"


def place_of(run: str) -> tuple[Path, str]:
    """A run's local folder, and its URL when it was named by that.

    Args:
        run: a folder, or ``s3://bucket/prefix/name``; the local copy of that is ``runs/name``.

    Raises:
        UsageError: it names no run.
    """
    if not run.strip():
        raise UsageError("RUN: empty; name the folder of a run, or its s3:// URL")
    if not run.startswith("s3:"):
        return Path(run).expanduser().absolute(), ""
    bucket, prefix = parse_s3(run, "RUN")
    if not prefix:
        raise UsageError(f"RUN: {run}: names a bucket, not a run in it; list its runs with: tunelab list {run}")
    name = prefix.rpartition("/")[2]
    check_name(name)
    return (LOCAL_FOLDER / name).absolute(), f"s3://{bucket}/{prefix}"


def places(storage: str, name: str) -> tuple[Path, str]:
    """The run's local folder, and its URL when the storage is S3."""
    if storage.startswith("s3:"):
        bucket, prefix = parse_s3(storage)
        return (LOCAL_FOLDER / name).absolute(), "/".join(["s3:/", bucket, *filter(None, [prefix.strip("/")]), name])
    if "://" in storage:
        raise UsageError(f"--storage: {storage}: write a folder or s3://bucket/prefix")
    return (Path(storage).expanduser() / name).absolute(), ""


def check_name(name: str) -> None:
    """Refuse a name of a run that is more than a word: it becomes part of paths and keys.

    Raises:
        UsageError: says what a name may be.
    """
    if not _NAME.fullmatch(name):
        raise UsageError(f"--name: {name[:60]!r} must be 1 to 100 letters, digits, dots, dashes or underscores")
