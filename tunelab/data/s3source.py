"""A set of scans on S3, brought to a local folder: listed, fetched by s3transfer, compared, resumed. Reads no scan.

s3transfer reads several files at once and each in parallel ranges, of the bytes that the listing told of and no
others, and asks again for bodies that break off; botocore sends requests again that fail for a passing reason. The
rest is done here: an arrived file is compared with what S3 tells of it (``s3checks``), comes to its name by a rename,
and is noted, so that the same call after a failure fetches only what is missing. The unit of that is the file, since
scans are a few MB: of one that had not arrived whole nothing is kept.

Everything that is not a finished file lies in a hidden folder of its own, ``.tunelab-download``: files on their way,
and ``finished.jsonl`` with a line for each finished one.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, CancelledError, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from s3transfer.manager import TransferConfig, TransferManager
from s3transfer.subscribers import BaseSubscriber

from tunelab.data.s3checks import Outcome, RemoteFile, compare
from tunelab.data.s3pace import Pace
from tunelab.data.tables import first_five
from tunelab.errors import DataError, StorageError
from tunelab.files import fault_of_key, write_file
from tunelab.s3 import FAILURES, S3Prefix, parse_s3

__all__ = ["Limits", "RemoteFile", "download", "list_files"]

STATE = ".tunelab-download"
_TICK = 0.2  # seconds between two looks at the progress


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How long is tried, and from when on a link is slow."""

    part_bytes: int = 8 << 20
    """Size of a range; larger files are read in several at once."""
    timeout: float = 20.0
    """Seconds without a byte until a request has failed; a quarter of them for a connection."""
    attempts: int = 5
    """How often a request is sent, and how often a body that breaks off is asked for."""
    slow_rate: float = 200e3
    """Bytes a second, all connections together, below which a link is called slow."""
    slow_seconds: float = 30.0
    """Seconds over which the rate is taken."""


DEFAULT = Limits()


def list_files(url: str, suffixes: Collection[str], *, limits: Limits = DEFAULT) -> list[RemoteFile]:
    """The objects below a prefix that may be scans or tables, sorted by key.

    Args:
        url: ``s3://bucket/prefix``.
        suffixes: of the keys that are wanted, in lower case, with their dot; upper case in a key counts as lower.
        limits: how long is tried.

    Raises:
        UsageError: the URL means nothing.
        StorageError: the bucket could not be read.
        DataError: a key that is wanted cannot be a file's name below a folder.
    """
    place = S3Prefix(*parse_s3(url, "data"), timeout=limits.timeout, attempts=limits.attempts, use="data")
    found = [
        RemoteFile(key=key, size=int(facts["Size"]), etag=str(facts["ETag"]).strip('"'))
        for key, facts in place.objects()
        if PurePosixPath(key.lower()).suffix in suffixes and not key.endswith("/")
    ]
    _check_keys(place.url, found)
    return sorted(found, key=lambda file: file.key)


def download(
    url: str,
    files: Sequence[RemoteFile],
    folder: Path,
    *,
    connections: int = 8,
    progress: Callable[[int], None] | None = None,
    warn: Callable[[str], None] | None = None,
    limits: Limits = DEFAULT,
) -> None:
    """Bring files to ``folder/key``, each whole and compared, or not at all.

    Files that an earlier call finished are recognised by their ETag, size and time of change, and not fetched again.

    Args:
        url: ``s3://bucket/prefix``, as given to :func:`list_files`.
        files: from :func:`list_files`.
        folder: made where it is absent, and for one process at a time; files there that have the name of a key and
            were not downloaded are replaced. Nothing is written outside.
        connections: requests for bytes at once.
        progress: told, in this thread, by how many bytes what is there has grown; what was there before counts. Less
            than zero where bytes turned out wrong, or a body broke off, and they are fetched again.
        warn: told, in this thread, once when the link is slow, and of files of which S3 tells nothing but the size.
        limits: how long is tried.

    Raises:
        UsageError: the URL means nothing.
        StorageError: S3 could not be read, or the folder not be written; finished files are kept.
        DataError: an object was replaced or removed since it was listed, or arrives with wrong bytes, twice.
    """
    place = S3Prefix(
        *parse_s3(url, "data"),
        timeout=limits.timeout,
        attempts=limits.attempts,
        connections=2 * connections,  # as many again ask for checksums
        use="data",
    )
    _check_keys(place.url, files)
    work = _Download(place, folder, limits, progress or (lambda _: None), warn or (lambda _: None))
    try:
        work.run(files, connections)
    except StorageError as error:
        kept = f"what has arrived is kept in {folder}; the same command goes on from there"
        raise StorageError(f"{error}\n{kept}") from error


class _Download:
    """One call of :func:`download`."""

    def __init__(
        self, place: S3Prefix, root: Path, limits: Limits, progress: Callable[[int], None], warn: Callable[[str], None]
    ) -> None:
        self._place = place
        self._root = root
        self._state = root / STATE
        self._log = self._state / "finished.jsonl"
        self._limits = limits
        self._progress = progress
        self._warn = warn
        self._turn = threading.Lock()
        self._stopped = False
        self._there = 0
        self._received = 0
        self._by_size_only: list[str] = []

    def _look(self, files: Sequence[RemoteFile]) -> list[RemoteFile]:
        """The files that are not finished; removes what earlier calls left on its way."""
        with _told(self._root):
            self._root.mkdir(parents=True, exist_ok=True)
            if self._state.is_symlink():
                raise StorageError(f"{self._state}: a link is in the way; remove it, or choose another folder")
            self._state.mkdir(exist_ok=True)
            for left in set(self._state.iterdir()) - {self._log}:
                left.unlink()
            lines = set(self._log.read_bytes().splitlines(keepends=True) if self._log.exists() else [])
        finished = {_line(file, self._changed(file)): file for file in files}
        kept = [line for line in finished if line in lines]  # not what a kill cut short: that file is fetched again
        write_file(self._log, b"".join(kept))
        return [file for line, file in finished.items() if line not in lines]

    def _changed(self, file: RemoteFile) -> int:
        """When the file at the place of a key changed, 0 where it is not there or not complete."""
        path = self._root
        for part in file.key.split("/"):
            path = path / part
            with _told(path):
                try:
                    found = path.lstat()
                except FileNotFoundError:
                    return 0
            if stat.S_ISLNK(found.st_mode):  # it could lead out of the folder
                raise StorageError(f"{path}: a link is in the way; remove it, or choose another folder")
        if not stat.S_ISREG(found.st_mode):
            raise StorageError(f"{path}: is no file; move it away, or choose another folder")
        return found.st_mtime_ns if found.st_size == file.size else 0

    def run(self, files: Sequence[RemoteFile], connections: int) -> None:
        """Bring all files; raises the first failure."""
        missing, total = self._look(files), sum(file.size for file in files)
        self._there = total - sum(file.size for file in missing)
        self._progress(self._there)
        config = TransferConfig(
            multipart_threshold=self._limits.part_bytes,
            multipart_chunksize=self._limits.part_bytes,
            max_request_concurrency=connections,
            max_io_queue_size=100,  # chunks of 256 KiB that wait for the disk
            num_download_attempts=self._limits.attempts,
        )
        client = self._place.client
        client.meta.events.register("request-created.s3", self._let_pass)
        pace, said = Pace(self._limits.slow_rate, self._limits.slow_seconds), self._there
        with ThreadPoolExecutor(connections, "s3") as pool, TransferManager(client, config) as manager:
            try:
                running = {pool.submit(self._bring, manager, file) for file in missing}
                while running:
                    done, running = wait(running, _TICK, FIRST_EXCEPTION)
                    there = self._there
                    self._progress(there - said)
                    said = there
                    for job in done:
                        job.result()
                    if slow := pace.slow(time.monotonic(), self._received, total - there):
                        self._warn(f"{self._place.url}: {slow}")
            except BaseException:  # then leaving the block cancels the transfers
                with self._turn:
                    self._stopped = True
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        if self._by_size_only:
            self._warn(
                f"{self._place.url}: of {len(self._by_size_only)} files ({first_five(sorted(self._by_size_only))}) S3 "
                "tells no checksum that can be computed here; only their size was compared"
            )

    def _let_pass(self, **_: Any) -> None:
        if self._stopped:  # botocore would go on to try again
            raise CancelledError

    def _count(self, grown: int) -> None:
        with self._turn:
            self._there += grown
            self._received += max(0, grown)

    def _bring(self, manager: TransferManager, file: RemoteFile) -> None:
        # A digest, because keys are longer than names may be, and have folders.
        arrived = self._state / hashlib.sha256(file.key.encode()).hexdigest()[:32]
        outcome = self._fetch(manager, file, arrived)
        if outcome.fault:
            outcome = self._fetch(manager, file, arrived)
        if outcome.fault:
            say = f"the bytes that arrive differ from the {outcome.fault} that S3 tells, twice; the object was stored"
            remedy = "damaged, or something on the way changes it: put it again, or leave it out"
            raise DataError(f"{self._place.url}/{file.key}: {say} {remedy}")
        path = self._root / file.key
        with _told(path):
            with arrived.open("rb") as data:
                os.fsync(data.fileno())
            mtime_ns = arrived.stat().st_mtime_ns
            path.parent.mkdir(parents=True, exist_ok=True)
            arrived.replace(path)
        with self._turn, _told(self._log), self._log.open("ab") as log:
            log.write(_line(file, mtime_ns))
            if outcome.by_size_only:
                self._by_size_only.append(file.key)

    def _fetch(self, manager: TransferManager, file: RemoteFile, arrived: Path) -> Outcome:
        """Fetch a file to where it is compared, and compare it."""
        key, listed = self._place.whole(file.key), _Listed(file, self._count)
        with self._turn:
            if self._stopped:
                raise CancelledError
            transfer = manager.download(self._place.bucket, key, str(arrived), subscribers=[listed])
        try:
            with _told(arrived):
                transfer.result()
                outcome = compare(arrived, file, self._place.bucket, partial(self._place.ask, "head_object", key=key))
        except FAILURES as error:
            raise self._place.explained(error, key) from error
        if outcome.fault:
            self._count(-listed.received)
        return outcome


class _Listed(BaseSubscriber):  # type: ignore[misc]
    """Tells s3transfer which bytes are meant, and counts those that arrive."""

    def __init__(self, file: RemoteFile, count: Callable[[int], None]) -> None:
        self.received = 0
        self._file = file
        self._count = count

    def on_queued(self, future: Any, **_: Any) -> None:
        future.meta.provide_transfer_size(self._file.size)
        future.meta.provide_object_etag(f'"{self._file.etag}"')

    def on_progress(self, future: Any, bytes_transferred: int, **_: Any) -> None:
        self._count(bytes_transferred)
        self.received += bytes_transferred


def _check_keys(url: str, files: Sequence[RemoteFile]) -> None:
    reserved = f"is in {STATE}, where downloads keep their own records"
    why = {file.key: reserved if file.key.split("/")[0] == STATE else fault_of_key(file.key) for file in files}
    faults = [f"{key!r} {fault}" for key, fault in why.items() if fault]
    if faults:
        raise DataError(
            f"{url}: {len(faults)} keys cannot be names of files below a folder ({first_five(faults)}); rename them, "
            "or choose another prefix"
        )
    both = sorted({str(above) for key in why for above in PurePosixPath(key).parents if str(above) in why})
    if both:
        raise DataError(f"{url}: {len(both)} keys would be file and folder at once ({first_five(both)}); rename them")


def _line(file: RemoteFile, mtime_ns: int) -> bytes:
    return json.dumps({**asdict(file), "mtime_ns": mtime_ns}).encode() + b"\n"


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """Turn what the disk refuses into a message that names the place and the remedy."""
    try:
        yield
    except OSError as error:
        say = f"cannot be written: {error.strerror or error}; free space, or choose another folder that can be written"
        raise StorageError(f"{path}: {say}") from error
