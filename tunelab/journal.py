"""The run's record: an append-only file of JSON lines, each on disk (fsync) before what it says counts.

A line holds ``seq`` (0, 1, 2, ...), ``time`` (seconds since the epoch, for people; the order is that of ``seq``),
``kind``, the fields of that kind, and ``digest`` (the first 16 hexadecimal digits of the SHA-256 of the line without
it). NaN and infinities are written as ``null``. One process writes, guarded by a lock on a file beside the journal.

The kinds, each written by the one place that knows:

========== ============================================ ==================================================
kind       written by                                   fields
========== ============================================ ==================================================
run        the search, first line                       name, version, seed
suggestion the searcher, before a trial may start       trial, name, seed, family, params, point
result     the scheduler, before it decides             trial, epoch, seconds, parameters, weights, metrics
fold       the scheduler, as it does a result           trial, fold, epoch, seconds, weights, metrics
pooled     the scheduler, when all folds are done       trial, metrics, thresholds, scans
decision   the scheduler, when a trial is not to go on  trial, epoch, action, by
end        the searcher, when a trial is over           trial, status, cause
final      the search, once                             trial, chosen, test, validation
close      the search, last line                        status, reason
========== ============================================ ==================================================

The journal knows nothing of what its lines mean; :mod:`tunelab.ranking` reads them.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import math
import os
import socket
import time
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from io import FileIO
from pathlib import Path
from typing import IO, Any

from tunelab.errors import RunBusyError, StateError, StorageError

Record = dict[str, Any]


class Journal:
    """An open journal. Use :meth:`open`; one per run at a time."""

    def __init__(self, file: FileIO, lock: IO[str], records: list[Record], size: int) -> None:
        self._file = file
        self._lock = lock
        self._size = size
        self._next = len(records)
        self.records = records
        """Everything written so far, oldest first."""

    @classmethod
    def open(cls, path: Path) -> Journal:
        """Take the lock, read what is there, cut off a torn last line.

        Raises:
            RunBusyError: another process holds the journal.
            StateError: a line that is not the last one is damaged.
            StorageError: the file cannot be opened for writing.
        """
        with ExitStack() as opened:
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                lock = opened.enter_context(path.with_suffix(".lock").open("a+", encoding="utf-8"))
                _take(lock, path)
                file = opened.enter_context(path.open("ab", buffering=0))
                _sync_folder(path.parent)  # the new file's name, too, is on disk before what it says counts
                raw = path.read_bytes()
                records, good = _parse(raw, path)
                if good < len(raw):
                    file.truncate(good)
            except OSError as error:
                raise StorageError(f"{path}: cannot be written: {error.strerror}; choose another --storage") from error
            opened.pop_all()
        return cls(file, lock, records, good)

    def append(self, kind: str, **fields: object) -> Record:
        """Write one line and wait until it is on disk.

        Raises:
            StorageError: it could not be written; the journal holds what was acknowledged before.
        """
        record: Record = {"seq": self._next, "time": round(time.time(), 3), "kind": kind, **_plain(fields)}
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
        return record

    def close(self) -> None:
        """Give the lock back."""
        self._file.close()
        self._lock.close()


def read(path: Path) -> list[Record]:
    """The records of a journal, a torn last line left out; takes no lock.

    Raises:
        StateError: there is no journal, or a line that is not the last one is damaged.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise StateError(f"{path}: no journal ({error.strerror}); name the folder of a run") from error
    return _parse(raw, path)[0]


def _take(lock: IO[str], path: Path) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.seek(0)
        owner = lock.read().strip() or "another process"
        raise RunBusyError(f"{path.parent}: held by {owner}; wait for it, or give another --name") from None
    lock.truncate(0)
    lock.write(f"process {os.getpid()} on {socket.gethostname()}")
    lock.flush()


def _parse(raw: bytes, path: Path) -> tuple[list[Record], int]:
    """The records and the number of bytes they take; only the last line may be torn."""
    records: list[Record] = []
    good = 0
    for number, line in enumerate(raw.splitlines(keepends=True), start=1):
        fault = _fault(line, len(records))
        if fault is None:
            records.append(json.loads(line))
            good += len(line)
        elif good + len(line) == len(raw) and not line.endswith(b"\n"):
            break
        else:
            raise StateError(f"{path}: line {number}: {fault}; restore the file from a copy")
    return records, good


def _fault(line: bytes, seq: int) -> str | None:
    try:
        record = json.loads(line, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return "is no JSON"
    if not line.endswith(b"\n"):
        return "is cut off"
    if not isinstance(record, dict) or record.pop("digest", None) != _digest(record):
        return "does not match its digest"
    if record.get("seq") != seq:
        return f"has sequence number {record.get('seq')}, not {seq}"
    return None


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
