"""The files of a run's folder, with digests: read again only when they were touched since. Knows of no store."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

from tunelab.archive import JOURNAL, MOST_OF_A_FILE, FileFacts
from tunelab.errors import StorageError
from tunelab.files import size_text

_SETTLED = 2.0  # seconds; a younger file can change and look the same: file systems keep time that coarsely

Stat = tuple[int, int, int]


@dataclass(frozen=True, kw_only=True, slots=True)
class Reading:
    """A file of the folder as it was read."""

    data: bytes
    """Of a journal the whole lines, so that what is copied of it is only ever added to."""
    facts: FileFacts


class Readings:
    """What was read of a folder.

    Args:
        folder: it may not exist yet.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._seen: dict[str, tuple[Stat, FileFacts]] = {}

    def untouched(self, key: str) -> FileFacts | None:
        """The facts of a file whose size, time and inode are as when it was read; None when they are not."""
        seen = self._seen.get(key)
        try:
            return seen[1] if seen and _stat((self._folder / key).stat()) == seen[0] else None
        except OSError:
            return None

    def size(self, key: str) -> int:
        """Bytes of a file now; 0 when it is not there."""
        try:
            return (self._folder / key).stat().st_size
        except OSError:
            return 0

    def read(self, key: str) -> Reading | None:
        """A file, now; None when it is not there, as it was renamed or removed since it was listed.

        Raises:
            StorageError: it cannot be read, or is too large.
        """
        path = self._folder / key
        try:
            with path.open("rb") as file:
                before = os.fstat(file.fileno())
                data = file.read(MOST_OF_A_FILE + 1) if before.st_size <= MOST_OF_A_FILE else None
                after = os.fstat(file.fileno())
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StorageError(f"{path}: cannot be read: {error.strerror}; check its permissions") from error
        if data is None or len(data) > MOST_OF_A_FILE:  # or it grew while it was read
            most = size_text(MOST_OF_A_FILE)
            raise StorageError(f"{path}: has more than {most}, the most that is copied of one file; copy it yourself")
        if key == JOURNAL:
            data = data[: data.rfind(b"\n") + 1]
        facts = FileFacts.of(data)
        if _stat(before) == _stat(after) and time.time() - after.st_mtime > _SETTLED:
            self._seen[key] = _stat(after), facts
        else:
            self._seen.pop(key, None)
        return Reading(data=data, facts=facts)

    def begins_with(self, key: str, facts: FileFacts) -> bool:
        """Whether the first bytes of a file are those of these facts.

        Raises:
            StorageError: it cannot be read.
        """
        path = self._folder / key
        try:
            with path.open("rb") as file:
                return FileFacts.of(file.read(facts.size)) == facts
        except FileNotFoundError:
            return False
        except OSError as error:
            raise StorageError(f"{path}: cannot be read: {error.strerror}; check its permissions") from error


def _stat(told: os.stat_result) -> Stat:
    return told.st_size, told.st_mtime_ns, told.st_ino
