"""The run's record: an append-only file of JSON lines, each on disk (fsync) before what it says counts.

A line holds ``seq`` (0, 1, 2, ...), ``time`` (seconds since the epoch, for people; the order is that of ``seq``),
``clock`` (seconds since this process opened the journal, which no change of the system's time moves), ``kind``, the
fields of that kind, and ``digest`` (the first 16 hexadecimal digits of the SHA-256 of the line without it). NaN and
infinities are written as ``null``. One process writes, guarded by a lease (:mod:`tunelab.lease`) beside the journal.

The kinds, each written by the one place that knows:

========== ============================================ ==================================================
kind       written by                                   fields
========== ============================================ ==================================================
run        the search, first line                       name, version, format, seed, options, identity
session    the search and each resume, then             by, fence, owner, version, versions, cut
change     a resume that accepts changes                changes
suggestion the searcher, before a trial may start       trial, name, seed, family, params, point
resumed    the searcher, before a trial goes on         trial, epoch
start      the search, when a trial has got a place     trial, gpus
result     the scheduler, before it decides             trial, epoch, seconds, parameters, weights, checkpoint,
                                                        ended, metrics
fold       the scheduler, as it does a result           trial, fold, epoch, seconds, weights, checkpoint, metrics
pooled     the scheduler, when all folds are done       trial, metrics, thresholds, scans
failure    the scheduler, when a process was lost       trial, cause, counts
note       the scheduler, of a damaged checkpoint       trial, text
decision   the scheduler, when a trial is not to go on  trial, epoch, action, by, status, cause
wait       the scheduler, when a trial waits at a rung  trial, epoch
end        the searcher, when a trial is over           trial, status, cause
final      the search, once                             trial, chosen, test, validation
close      the search, last line of a session           status, reason, seconds
========== ============================================ ==================================================

The journal knows nothing of what its lines mean; :mod:`tunelab.ranking` and
:mod:`tunelab.spending` read them.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from io import FileIO
from pathlib import Path
from typing import Any

from tunelab.errors import StateError, StorageError
from tunelab.lease import FolderLease

Record = dict[str, Any]

_END_OF_TIME = 1e11  # seconds since the epoch; in the year 5138


class Journal:
    """An open journal. Use :meth:`open`; one per run at a time."""

    def __init__(self, file: FileIO, lease: FolderLease, records: list[Record], size: int, cut: int) -> None:
        self._file = file
        self._size = size
        self._next = len(records)
        self._opened = time.monotonic()
        self.lease = lease
        """Whose this run is."""
        self.records = records
        """Everything written so far, oldest first."""
        self.cut = cut
        """Bytes of a torn last line that were cut off when the journal was opened."""
        self.seconds = 0.0
        """Spent on writing, and on waiting for the disk."""

    @classmethod
    def open(cls, path: Path, *, above: int = 0) -> Journal:
        """Take the lease, read what is there, cut off a torn last line.

        Args:
            path: of the journal.
            above: the lease's fence is greater than this.

        Raises:
            RunBusyError: another process holds the journal.
            StateError: a line that is not the last one is damaged.
            StorageError: the file cannot be opened for writing.
        """
        with ExitStack() as opened:
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                lease = opened.enter_context(FolderLease.take(path.with_name("run.lock"), above=above))
                file = opened.enter_context(path.open("ab", buffering=0))
                _sync_folder(path.parent)  # the new file's name, too, is on disk before what it says counts
                raw = path.read_bytes()
                records, good = parse(raw, path)
                if good < len(raw):
                    file.truncate(good)
            except OSError as error:
                raise StorageError(f"{path}: cannot be written: {error.strerror}; choose another --storage") from error
            opened.pop_all()
        return cls(file, lease, records, good, len(raw) - good)

    def append(self, kind: str, **fields: object) -> Record:
        """Write one line and wait until it is on disk.

        Raises:
            StorageError: it could not be written; the journal holds what was acknowledged before.
        """
        began = time.monotonic()
        record: Record = {"seq": self._next, "time": round(time.time(), 3), "clock": round(self.clock, 3)}
        record |= {"kind": kind, **_plain(fields)}
        record["digest"] = _digest(record)
        line = _line(record)
        try:
            written = 0
            while written < len(line):
                written += self._file.write(line[written:])
            os.fsync(self._file.fileno())
        except OSError as error:
            with suppress(OSError):  # what it left is cut off now, or else when the journal is opened again
                self._file.truncate(self._size)
            where = str(self._file.name)
            raise StorageError(f"{where}: cannot be written: {error.strerror}; free space and run again") from error
        self._size += len(line)
        self._next += 1
        self.records.append(record)
        self.seconds += time.monotonic() - began
        return record

    @property
    def clock(self) -> float:
        """Seconds since this process opened the journal."""
        return time.monotonic() - self._opened

    def close(self) -> None:
        """Give the lease back."""
        self._file.close()
        self.lease.release()


def read(path: Path) -> list[Record]:
    """The records of a journal, a torn last line left out; takes no lock.

    Raises:
        StateError: there is no journal, or a line that is not the last one is damaged.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise StateError(f"{path}: no journal ({error.strerror}); name the folder of a run") from error
    return parse(raw, path)[0]


def parse(raw: bytes, path: Path | str, known: int = 0) -> tuple[list[Record], int]:
    """The records and the number of bytes they take; only the last line may be torn.

    Args:
        raw: of a journal; where some records are known, what comes after them.
        path: for messages.
        known: how many.

    Raises:
        StateError: a line that is not the last one is damaged.
    """
    records: list[Record] = []
    good = 0
    for number, line in enumerate(raw.splitlines(keepends=True), start=known + 1):
        fault = _fault(line, number - 1)
        if fault is None:
            records.append(json.loads(line, object_pairs_hook=_named))
            good += len(line)
        elif good + len(line) == len(raw) and not line.endswith(b"\n"):
            break
        else:
            raise StateError(f"{path}: line {number}: {fault}; restore the file from a copy")
    return records, good


def _fault(line: bytes, seq: int) -> str | None:
    try:
        record = json.loads(line, parse_constant=_refuse)
        right = isinstance(record, dict) and record.pop("digest", None) == _digest(record)
    except (ValueError, RecursionError):  # of the digest, too: 1e999 is read as an infinity
        return "is no JSON"
    if not line.endswith(b"\n"):
        return "is cut off"
    if not right:
        return "does not match its digest"
    if record.get("seq") != seq:
        return f"has sequence number {record.get('seq')!r:.40}, not {seq}"
    if not isinstance(record.get("kind"), str):
        return "has no kind"
    if not all(_is_time(record.get(name, 0)) for name in ("time", "clock")):
        return "has a time or clock that is no number of seconds"
    return None


def _named(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A part of a record: the names are the same few in all records, and one text of each will do."""
    return {sys.intern(name): value for name, value in pairs}


def _is_time(value: object) -> bool:
    return isinstance(value, int | float) and 0 <= value < _END_OF_TIME


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")


def _sync_folder(folder: Path) -> None:
    number = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def _digest(record: Mapping[str, object]) -> str:
    return hashlib.sha256(_line(record)).hexdigest()[:16]


def _line(record: Mapping[str, object]) -> bytes:
    return json.dumps(record, separators=(",", ":"), allow_nan=False).encode() + b"\n"


def _plain(value: Any) -> Any:
    """Plain JSON types: numpy numbers become Python's, NaN and infinities None."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
