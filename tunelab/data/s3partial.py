"""A file on its way from S3 to its place: the parts that are there, and a record of them. Knows nothing of S3.

The bytes lie in one file that is as large as it will be from the first on; the record beside it is a line that says
what it will be, then a line for each of its parts that is there: number, CRC32. A kill at any moment loses the parts
that were being written, and no others: parts found later are compared with their CRC32 before they count, so that
nothing has to be forced to the disk until the file is complete.
"""

from __future__ import annotations

import os
import re
import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from tunelab.errors import StorageError

BLOCK = 1 << 20
"""Bytes read from the disk at once."""

_PART = re.compile(r"(\d{1,9}) ([0-9a-f]{8})")


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteFile:
    """An object of S3, as a listing told of it."""

    key: str
    """Relative to the prefix, parted by ``/``; never leads out of a folder."""
    size: int
    """Bytes."""
    etag: str
    """As S3 tells, without quotes; another one means other bytes."""


class _Begun(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)
    etag: str
    size: int
    part: int


class PartialFile:
    """A file on its way. Parts may be written by several threads; the rest is one thread's at a time."""

    def __init__(self, file: RemoteFile, part_bytes: int, data: Path, fd: int, record: Path, log: int) -> None:
        self.file = file
        self.count = -(-file.size // part_bytes)
        self.done: set[int] = set()
        """Numbers of the parts that are there."""
        self._part = part_bytes
        self._data, self._fd = data, fd
        self._record, self._log = record, log
        self._turn = threading.Lock()

    @classmethod
    def open(cls, file: RemoteFile, part_bytes: int, data: Path, record: Path) -> PartialFile:
        """Go on with a file, or begin it; parts that are there and good are kept, those of other bytes are not.

        Args:
            file: what it will be.
            part_bytes: size of a part.
            data: where the bytes are.
            record: where the parts are remembered.

        Raises:
            StorageError: it cannot be written.
        """
        with ExitStack() as opened, told(data):
            fd = open_file(data, os.O_RDWR)
            opened.callback(os.close, fd)
            os.ftruncate(fd, file.size)
            log = open_file(record, os.O_RDWR | os.O_APPEND)
            opened.callback(os.close, log)
            partial = cls(file, part_bytes, data, fd, record, log)
            partial.done = partial._found()
            opened.pop_all()
            return partial

    def span(self, number: int) -> tuple[int, int]:
        """First byte of a part, and the byte after its last."""
        return number * self._part, min(self.file.size, (number + 1) * self._part)

    def write(self, at: int, data: bytes) -> None:
        """Put bytes in their place.

        Raises:
            StorageError: the disk is full or fails.
        """
        with told(self._data):
            while data:
                written = os.pwrite(self._fd, data, at)
                at, data = at + written, data[written:]

    def note(self, number: int, crc: int) -> bool:
        """Remember that a part is there, with its CRC32; True when it was the last one that was missing."""
        with self._turn, told(self._record):
            write_all(self._log, f"{number} {crc:08x}\n".encode())
            self.done.add(number)
            return len(self.done) == self.count

    def blocks(self) -> Iterator[bytes]:
        """The bytes, from first to last."""
        yield from self._read(0, self.file.size)

    def finish(self, path: Path, note: Callable[[Path], None]) -> None:
        """Bring the complete file to its name.

        Args:
            path: its name.
            note: remembers that the file it is given is complete.

        Raises:
            StorageError: it cannot be brought there; it stays on its way.
        """
        with told(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            os.fsync(self._fd)
            # First the note, then the name: a kill between them costs nothing, the other way round a whole file.
            note(self._data)
            self._data.replace(path)
            sync_folder(path.parent)
            self._record.unlink(missing_ok=True)

    def forget(self) -> None:
        """Forget all parts: their bytes were not those that S3 tells of."""
        with told(self._record):
            os.ftruncate(self._log, 0)
            self._begin()
            self.done = set()

    def close(self) -> None:
        """Give the files back; what is there stays."""
        for fd in (self._fd, self._log):
            os.close(fd)

    def _found(self) -> set[int]:
        lines = os.pread(self._log, os.fstat(self._log).st_size, 0).decode("ascii", "replace").splitlines()
        try:
            begun = _Begun.model_validate_json(lines[0]) if lines else None
        except ValidationError:
            begun = None
        if begun != self._begun:
            os.ftruncate(self._log, 0)
            self._begin()
            return set()
        write_all(self._log, b"\n")  # a kill may have cut the last line short
        found = set()
        for number, crc in (line.groups() for line in map(_PART.fullmatch, lines[1:]) if line):
            if int(number) < self.count and self._crc(int(number)) == int(crc, 16):
                found.add(int(number))
        return found

    @property
    def _begun(self) -> _Begun:
        return _Begun(etag=self.file.etag, size=self.file.size, part=self._part)

    def _begin(self) -> None:
        write_all(self._log, self._begun.model_dump_json().encode() + b"\n")

    def _crc(self, number: int) -> int:
        crc = 0
        for block in self._read(*self.span(number)):
            crc = zlib.crc32(block, crc)
        return crc

    def _read(self, at: int, end: int) -> Iterator[bytes]:
        while at < end:
            with told(self._data):
                block = os.pread(self._fd, min(BLOCK, end - at), at)
            if not block:
                raise StorageError(f"{self._data}: was cut short by another process; run the same command again")
            yield block
            at += len(block)


@contextmanager
def told(path: Path) -> Iterator[None]:
    """Turn what the disk refuses into a message that names the place and the remedy.

    Raises:
        StorageError: for every OSError inside.
    """
    try:
        yield
    except OSError as error:
        say = f"cannot be written: {error.strerror}; free space, or choose another folder that can be written"
        raise StorageError(f"{path}: {say}") from error


def open_file(path: Path, flags: int) -> int:
    """Open or make a file, never through a link."""
    return os.open(path, flags | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)


def write_all(fd: int, data: bytes) -> None:
    """Write all of it, or raise OSError."""
    while data:
        data = data[os.write(fd, data) :]


def sync_folder(folder: Path) -> None:
    """Force the names in a folder to the disk."""
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
