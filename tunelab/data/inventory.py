"""What is in the cache, and what of it may go. Entries that a process has open, or makes, stay."""

from __future__ import annotations

import fcntl
import os
import shutil
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tunelab.data.cache import BUILDING, DOWNLOADS, LOCKS, NAME, bytes_below
from tunelab.data.manifest import SUM, Manifest, read_manifest
from tunelab.errors import DataError, StateError, StorageError, UsageError

_REMOVED = ".removed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A folder of the cache."""

    path: Path
    bytes: int
    used: float
    """When it was opened last, seconds since 1970."""
    manifest: Manifest | None
    """None: damaged, or not finished."""
    state: str
    """``ready``, ``in use``, ``damaged``, ``unfinished`` or ``in work``."""

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.path.name


def entries(cache: Path) -> list[Entry]:
    """Everything in the cache, the longest unused first; what no preparation has made is none of it.

    Raises:
        StorageError: the folder cannot be read.
    """
    found = []
    try:
        places = [path for path in cache.iterdir() if NAME.fullmatch(path.name) and path.is_dir()]
        made = [path for name in (BUILDING, DOWNLOADS) if (cache / name).is_dir() for path in (cache / name).iterdir()]
        hidden = [path for path in made if NAME.fullmatch(path.name)]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise StorageError(f"{cache}: cannot be read: {error.strerror}; choose another --cache") from error
    for path in [*places, *hidden]:
        manifest = None
        if path in hidden:
            state = "in work" if _held(path) else "unfinished"
        else:
            try:
                manifest = read_manifest(path)
                state = "in use" if _held(path) else "ready"
            except StateError:
                state = "damaged"
        try:
            used = path.stat().st_mtime
        except FileNotFoundError:  # finished, or removed, since the folder was listed
            continue
        found.append(Entry(path=path, bytes=bytes_below(path), used=used, manifest=manifest, state=state))
    return sorted(found, key=lambda entry: entry.used)


def prune(
    cache: Path,
    *,
    names: Collection[str] = (),
    everything: bool = False,
    older_than: float | None = None,
    keep: int | None = None,
) -> list[Entry]:
    """Remove entries; what is in use or in work stays.

    Args:
        cache: the folder.
        names: entries to remove, whole names or beginnings that mean one.
        everything: remove all.
        older_than: remove what was not used for so many seconds.
        keep: remove the longest unused until this many bytes are left.

    Returns:
        What was removed.

    Raises:
        UsageError: a name that means no entry, or several.
        DataError: a named entry is in use.
        StorageError: an entry cannot be removed.
    """
    for path in (*cache.glob(f"{_REMOVED}-*"), *cache.glob(f".*/{_REMOVED}-*")):  # of a removal that was killed
        if NAME.fullmatch(path.name.removeprefix(f"{_REMOVED}-").rpartition("-")[0]):
            shutil.rmtree(path, ignore_errors=True)
    there = entries(cache)
    chosen = list({entry.path: entry for name in names for entry in _named(name, there)}.values())
    for entry in chosen:
        if entry.state in ("in use", "in work"):
            raise DataError(f"{entry.path}: is {entry.state}; end the process that uses it first")
    idle = [entry for entry in there if entry.state not in ("in use", "in work") and entry not in chosen]
    if everything:
        chosen += idle
    elif older_than is not None:
        chosen += [entry for entry in idle if time.time() - entry.used > older_than]
    if keep is not None:
        left = sum(entry.bytes for entry in there if entry not in chosen)
        for entry in idle:
            if left > keep and entry not in chosen:
                chosen.append(entry)
                left -= entry.bytes
    gone = []
    for entry in chosen:
        with _claimed(_lock_of(entry.path)) as free:  # nobody can begin to use it while it goes
            if free:
                remove(entry.path)
                gone.append(entry)
    return gone


def remove(path: Path) -> None:
    """Remove a folder of the cache; it is gone at once under its name.

    Raises:
        StorageError: it cannot be removed.
    """
    hidden = path.with_name(f"{_REMOVED}-{path.name}-{os.getpid()}")
    try:
        path.rename(hidden)
        shutil.rmtree(hidden)
    except OSError as error:
        raise StorageError(f"{path}: cannot be removed: {error.strerror}; remove the folder yourself") from error


def _named(name: str, there: Sequence[Entry]) -> list[Entry]:
    """What has this name, finished or not; or else the one thing whose name begins so."""
    exact = [entry for entry in there if entry.name == name]
    matching = {entry.name for entry in there if entry.name.startswith(name)}
    if not exact and len(matching) != 1:
        what = "no entry" if not matching else f"{len(matching)} entries"
        raise UsageError(f"{name!r} means {what} of the cache; tunelab data list shows their names")
    return exact or [entry for entry in there if entry.name in matching]


def _lock_of(path: Path) -> Path:
    """What those who use an entry hold, or those who make what is not finished."""
    hidden = path.parent.name in (BUILDING, DOWNLOADS)
    return path.parent.parent / LOCKS / path.name if hidden else path / SUM


@contextmanager
def _claimed(lock: Path) -> Iterator[bool]:
    """Hold a lock alone if nobody holds it; whether that is so. A lock that is not there is nobody's."""
    try:
        descriptor = os.open(lock, os.O_RDWR)  # NFS gives an exclusive lock to those alone who could write
    except FileNotFoundError:
        yield True
        return
    except OSError:  # somebody else's cache
        yield False
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        free = True
    except OSError:
        free = False
    try:
        yield free
    finally:
        os.close(descriptor)


def _held(path: Path) -> bool:
    """Whether a process uses an entry, or makes what is not finished."""
    with _claimed(_lock_of(path)) as free:
        return not free
