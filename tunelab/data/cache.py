"""The folder of prepared data sets on this machine: what is in it, what fits, what may go.

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
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tunelab.data.manifest import FORMAT, SUM, Manifest, read_manifest
from tunelab.errors import DataError, StateError, StorageError, UsageError
from tunelab.files import size_text
from tunelab.preprocessing import Preprocessing
from tunelab.space import DataOptions

BUILDING = ".building"
DOWNLOADS = ".downloads"
_LOCKS = ".locks"
_REMOVED = ".removed"
_NAME = re.compile(r"[A-Za-z0-9-]+-[0-9a-f]{16}")
"""What :func:`entry_name` makes; a folder of another name is somebody's own, and ``--cache`` names the wrong place."""

# entry -> descriptor of a shared lock, held until the process ends
_in_use: dict[Path, int] = {}


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
        for name in (BUILDING, DOWNLOADS, _LOCKS):
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
    descriptor = os.open(cache / _LOCKS / name, os.O_RDWR | os.O_CREAT, 0o644)
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


def entries(cache: Path) -> list[Entry]:
    """Everything in the cache, the longest unused first; what no preparation has made is none of it.

    Raises:
        StorageError: the folder cannot be read.
    """
    found = []
    try:
        places = [path for path in cache.iterdir() if _NAME.fullmatch(path.name) and path.is_dir()]
        hidden = [p for name in (BUILDING, DOWNLOADS) if (cache / name).is_dir() for p in (cache / name).iterdir()]
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
    for path in cache.glob(f"{_REMOVED}-*"):  # of a removal that was killed
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
    return path.parent.parent / _LOCKS / path.name if hidden else path / SUM


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
