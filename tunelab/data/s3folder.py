"""The folder that S3 objects are brought to: what is finished there, and who may write. Knows nothing of S3.

Everything that is not a finished file lies in a hidden folder of its own, ``.tunelab-download``::

    lock                             held by the process that downloads
    finished.jsonl                   a line for each finished file: key, ETag, size, and its time of change
    <digest>.part, <digest>.parts    a file on its way and its record, see tunelab.data.s3partial

A file comes to its name by a rename, once all its bytes are on disk and were compared.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import stat
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from pydantic import BaseModel, ConfigDict, ValidationError

from tunelab.data.s3partial import PartialFile, RemoteFile, open_file, sync_folder, told, write_all
from tunelab.data.tables import first_five
from tunelab.errors import DataError, StorageError
from tunelab.files import fault_of_key

STATE = ".tunelab-download"


class _Finished(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)
    key: str
    etag: str
    size: int
    changed: int  # nanoseconds, as the file system tells


class DownloadFolder:
    """The folder, held by this process. Make one with :func:`opened`."""

    def __init__(self, root: Path, finished: dict[str, _Finished], log: int) -> None:
        self.root = root
        self._finished = finished
        self._log = log
        self._turn = threading.Lock()

    def place(self, key: str) -> Path:
        """Where the file of a key belongs.

        Raises:
            StorageError: the key leads out of the folder, or a link, a file or a folder is in the way.
        """
        if fault := _fault_here(key):
            raise StorageError(f"{self.root}: the key {key!r} {fault}; leave it out")
        path = self.root
        for part in key.split("/"):
            path = path / part
            with told(path):
                mode = _mode(path)
            if stat.S_ISLNK(mode):
                raise StorageError(f"{path}: a link is in the way; remove it, or choose another folder")
        if mode and not stat.S_ISREG(mode):
            raise StorageError(f"{path}: is no file; move it away, or choose another folder")
        return path

    def is_finished(self, file: RemoteFile) -> bool:
        """Whether the file is there and unchanged since it was finished; ends a rename that a kill cut off."""
        record = self._finished.get(file.key)
        if record is None or (record.etag, record.size) != (file.etag, file.size):
            return False
        path, part = self.place(file.key), self._state(file.key, "part")
        with told(path):
            if _is_as(path, record):
                return True
            if not _is_as(part, record):
                return False
            path.parent.mkdir(parents=True, exist_ok=True)
            part.replace(path)
            sync_folder(path.parent)
            self._state(file.key, "parts").unlink(missing_ok=True)
            return True

    def is_ours(self, key: str) -> bool:
        """Whether the file of this key was brought here, now or earlier."""
        return key in self._finished

    def missing(self, file: RemoteFile) -> int:
        """Bytes that a file not finished will still take on the disk."""
        try:
            return max(0, file.size - self._state(file.key, "part").lstat().st_blocks * 512)
        except OSError:
            return file.size

    def note_finished(self, file: RemoteFile, path: Path) -> None:
        """Remember that the file at ``path`` is complete and compared, whatever name it has yet."""
        with told(path), self._turn:
            changed = path.stat().st_mtime_ns
            record = _Finished(key=file.key, etag=file.etag, size=file.size, changed=changed)
            write_all(self._log, record.model_dump_json().encode() + b"\n")
            self._finished[file.key] = record

    def finish(self, partial: PartialFile) -> None:
        """Bring a complete file to its name.

        Raises:
            StorageError: it cannot be brought there; it stays on its way.
        """
        partial.finish(self.place(partial.file.key), lambda data: self.note_finished(partial.file, data))

    def begin(self, file: RemoteFile, part_bytes: int) -> PartialFile:
        """Open the file on its way, or begin it; parts that are there and good are kept.

        Raises:
            StorageError: it cannot be written.
        """
        return PartialFile.open(file, part_bytes, self._state(file.key, "part"), self._state(file.key, "parts"))

    def _state(self, key: str, suffix: str) -> Path:
        # A digest, because keys are longer than names may be, and have folders.
        return self.root / STATE / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.{suffix}"


@contextmanager
def opened(root: Path) -> Iterator[DownloadFolder]:
    """Hold a folder for a download; it is made where it is absent.

    Raises:
        StorageError: it cannot be written, or another process downloads to it.
    """
    with told(root):
        root.mkdir(parents=True, exist_ok=True)
        state = root / STATE
        if state.is_symlink():
            raise StorageError(f"{state}: a link is in the way; remove it, or choose another folder")
        state.mkdir(exist_ok=True)
        lock = open_file(state / "lock", os.O_RDWR)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say = "another process downloads to this folder; wait for it, or choose another folder"
            raise StorageError(f"{root}: {say}") from None
        with told(state):
            log = open_file(state / "finished.jsonl", os.O_RDWR | os.O_APPEND)
        try:
            with told(state):
                finished = _read_finished(log)
            yield DownloadFolder(root, finished, log)
        finally:
            os.close(log)
    finally:
        os.close(lock)


def check_keys(url: str, files: Sequence[RemoteFile]) -> None:
    """Refuse keys that cannot be the names of files below one folder.

    Raises:
        DataError: says which, and why.
    """
    faults = [f"{file.key!r} {fault}" for file in files if (fault := _fault_here(file.key))]
    if faults:
        raise DataError(
            f"{url}: {len(faults)} keys cannot be names of files below a folder ({first_five(faults)}); rename them, "
            "or choose another prefix"
        )
    keys = {file.key for file in files}
    both = sorted(
        {above.as_posix() for key in keys for above in PurePosixPath(key).parents if above.as_posix() in keys}
    )
    if both:
        raise DataError(f"{url}: {len(both)} keys would be file and folder at once ({first_five(both)}); rename them")


def _fault_here(key: str) -> str | None:
    if key.split("/")[0] == STATE:
        return f"is in {STATE}, where downloads keep their own records"
    return fault_of_key(key)


def _read_finished(log: int) -> dict[str, _Finished]:
    data = os.pread(log, os.fstat(log).st_size, 0)
    if data and not data.endswith(b"\n"):  # a kill cut the last line short
        write_all(log, b"\n")
    records = {}
    for line in data.splitlines():
        try:
            record = _Finished.model_validate_json(line)
        except ValidationError:
            continue  # the file will be compared with S3, or fetched again
        records[record.key] = record
    return records


def _mode(path: Path) -> int:
    try:
        return path.lstat().st_mode
    except FileNotFoundError:
        return 0


def _is_as(path: Path, record: _Finished) -> bool:
    try:
        found = path.lstat()
    except FileNotFoundError:
        return False
    return stat.S_ISREG(found.st_mode) and (found.st_size, found.st_mtime_ns) == (record.size, record.changed)
