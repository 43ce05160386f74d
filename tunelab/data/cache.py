"""The folder of prepared data sets on this machine: the names of entries, their locks, and what fits.

An entry is a folder named after its source and a key of everything its content depends on. It appears whole or not at
all. Entries that a process has open are locked against removal; hidden folders hold what is being made.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tunelab.data.manifest import FORMAT, SUM
from tunelab.errors import StateError, StorageError
from tunelab.files import size_text
from tunelab.preprocessing import Preprocessing
from tunelab.sections import DataOptions

BUILDING = ".building"
DOWNLOADS = ".downloads"
LOCKS = ".locks"
NAME = re.compile(r"[A-Za-z0-9-]+-[0-9a-f]{16}")
"""What :func:`entry_name` makes; a folder of another name is somebody's own, and ``--cache`` names the wrong place."""

# entry -> descriptor of a shared lock, held until the process ends
_in_use: dict[Path, int] = {}


def default_cache() -> Path:
    """``$TUNELAB_CACHE``, else ``tunelab`` in the user's cache folder."""
    if told := os.environ.get("TUNELAB_CACHE"):
        return Path(told).expanduser().absolute()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "tunelab"


def stamp_of(facts: Sequence[Sequence[object]]) -> str:
    """SHA-256 over what tells one state of a source from another: names, sizes, times or tags of its files."""
    return hashlib.sha256(json.dumps([list(one) for one in facts]).encode()).hexdigest()


def entry_name(source: str, stamp: str, options: DataOptions, chain: Preprocessing) -> str:
    """The name of an entry: a word of the source, and a key of source, options and chain."""
    key = json.dumps([FORMAT, stamp, options.model_dump(mode="json"), chain.canonical()], sort_keys=True)
    word = re.sub(r"[^A-Za-z0-9]+", "-", source.rstrip("/").rsplit("/", 1)[-1]).strip("-")[:40] or "data"
    return f"{word}-{hashlib.sha256(key.encode()).hexdigest()[:16]}"


def make_cache(cache: Path) -> None:
    """Make the folder.

    Raises:
        StorageError: it cannot be made or written to.
    """
    try:
        for name in (BUILDING, DOWNLOADS, LOCKS):
            (cache / name).mkdir(parents=True, exist_ok=True)
        if not os.access(cache, os.W_OK):
            raise PermissionError(13, os.strerror(13))
    except OSError as error:
        raise StorageError(f"{cache}: cannot be written: {error.strerror}; choose another --cache") from error


@contextmanager
def alone(cache: Path, name: str, waiting: Callable[[], None]) -> Iterator[None]:
    """Hold the lock of this name; one process at a time does.

    Args:
        cache: the folder.
        name: of what is being made.
        waiting: called once when another process holds it.
    """
    descriptor = os.open(cache / LOCKS / name, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waiting()
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def mark_used(path: Path) -> None:
    """Lock an entry against removal for as long as this process lives, and note that it was used.

    Raises:
        StateError: it was removed in this moment.
    """
    if path not in _in_use:
        try:
            descriptor = os.open(path / SUM, os.O_RDONLY)
        except OSError as error:
            raise StateError(f"{path}: was removed while it was opened: {error.strerror}; try again") from error
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        _in_use[path] = descriptor
    try:
        os.utime(path)
    except OSError:  # somebody else's cache, which may well be read from
        pass


def bytes_below(folder: Path) -> int:
    """Bytes of all files below a folder; what goes away meanwhile does not count, and an absent folder has none."""
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(f"{place}/{name}").st_size
            except FileNotFoundError:
                continue
    return total


def check_room(cache: Path, needed: Sequence[tuple[str, int]], done: int, limit: int | None) -> str:
    """Whether data sets of these sizes fit.

    Args:
        cache: the folder, which exists.
        needed: what bytes are for, and how many.
        done: bytes of them that lie there already, from an earlier attempt.
        limit: bytes that the whole cache may hold.

    Returns:
        The arithmetic in a line.

    Raises:
        StorageError: they do not; shows the arithmetic and the remedies.
    """
    total, free = sum(size for _, size in needed), shutil.disk_usage(cache).free
    held = bytes_below(cache)
    sizes = " + ".join(f"{size_text(size)} ({what})" for what, size in needed)
    line = f"{sizes} = {size_text(total)} to write, {size_text(free)} free in {cache}, which holds {size_text(held)}"
    remedy = (
        "tunelab data list and prune make room, dtype: float16 halves it, decimation (preprocessing) shrinks it, and "
        "fewer preprocessing choices in the space need less"
    )
    if total - done > free:
        raise StorageError(f"{line}: more than is free; {remedy}, or choose another --cache")
    if limit is not None and held + total - done > limit:
        raise StorageError(
            f"{line}: {size_text(held)} + {size_text(total - done)} is more than the limit of {size_text(limit)}; "
            f"{remedy}, or raise --cache-limit"
        )
    return line
