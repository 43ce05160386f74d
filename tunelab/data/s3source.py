"""A set of scans on S3, brought to a local folder: listed, read in parallel ranges, compared, resumed. Reads no scan.

Every file is read in parts, each with a ranged request (``s3read``): one that fails for a passing reason (5xx, timeout,
broken connection) is sent again for the bytes that are still missing, refusals (403, 404, 412) are final at once. Once
all parts are there the bytes are compared with what S3 tells of them (``s3checks`` says what that is), and the file
comes to its name. What has arrived stays there (``s3folder``): the same call goes on after any failure.
"""

from __future__ import annotations

import threading
import time
import zlib
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from functools import partial
from pathlib import Path, PurePosixPath
from shutil import disk_usage

from tunelab.data.s3folder import DownloadFolder, check_keys, opened
from tunelab.data.s3pace import Pace, amount
from tunelab.data.s3partial import BLOCK, PartialFile, RemoteFile, told
from tunelab.data.s3read import Limits, Reader, Stopped
from tunelab.data.tables import first_five
from tunelab.errors import DataError, StorageError
from tunelab.s3 import S3Prefix, parse_s3

__all__ = ["Limits", "RemoteFile", "download", "list_files"]

_TICK = 0.2  # seconds between two looks at the progress

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
    check_keys(place.url, found)
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

    Files that an earlier call finished are recognised by their size, time of change and ETag, and not read again; of a
    file that an earlier call did not finish the missing parts are read. A file that is there, but that no call
    brought, is taken when its bytes are those of the object, and is never overwritten.

    Args:
        url: ``s3://bucket/prefix``, as given to :func:`list_files`.
        files: from :func:`list_files`.
        folder: made where it is absent; nothing is written outside.
        connections: requests at once.
        progress: told, in this thread, by how many bytes what is there has grown; what was there before counts. Less
            than zero where bytes turned out wrong and are read again.
        warn: told, in this thread, once when the link is slow, and of files of which S3 tells nothing but the size.
        limits: how long is tried.

    Raises:
        UsageError: the URL means nothing.
        StorageError: S3 could not be read, or the folder not be written; what has arrived is kept.
        DataError: an object was replaced or removed since it was listed, or arrives with wrong bytes, twice.
    """
    place = S3Prefix(*parse_s3(url, "data"), timeout=limits.timeout, attempts=1, connections=connections, use="data")
    check_keys(place.url, files)
    with opened(folder) as here:
        work = _Download(place, here, list({file.key: file for file in files}.values()), limits)
        try:
            work.run(connections, progress or _silent, warn or _silent)
        except StorageError as error:
            kept = f"what has arrived is kept in {folder}; the same command goes on from there"
            raise StorageError(f"{error}\n{kept}") from error


class _Download:
    """One call of :func:`download`: threads that take parts, and files when there is no part to take."""

    def __init__(self, place: S3Prefix, here: DownloadFolder, files: Sequence[RemoteFile], limits: Limits) -> None:
        self._place = place
        self._here = here
        self._limits = limits
        self._stop = threading.Event()
        self._reader = Reader(place, limits, self._stop)
        self._all = sum(file.size for file in files)
        self._waiting = deque(files)
        self._parts: deque[tuple[PartialFile, int]] = deque()
        self._begun: set[PartialFile] = set()
        self._again: set[str] = set()
        self._by_size_only: list[str] = []
        self._busy = 0
        self._there = 0
        self._received = 0
        self._failed: list[BaseException] = []
        self._turn = threading.Condition()

    def run(self, connections: int, progress: Callable[[int], None], warn: Callable[[str], None]) -> None:
        """Bring all files; raises the first failure of any thread."""
        self._look()
        try:
            self._run(connections, progress, warn)
        finally:
            for file in self._begun:
                file.close()
        if self._failed:
            raise self._failed[0]
        if self._by_size_only:
            warn(
                f"{self._place.url}: of {len(self._by_size_only)} files ({first_five(sorted(self._by_size_only))}) S3 "
                "tells no checksum that can be computed here; only their size was compared"
            )

    def _run(self, connections: int, progress: Callable[[int], None], warn: Callable[[str], None]) -> None:
        self._place.client  # noqa: B018 - made here, because threads may share a client but not make it
        pace, said = Pace(self._limits.slow_rate, self._limits.slow_seconds), 0
        with ThreadPoolExecutor(connections, "s3") as pool:
            try:
                threads = [pool.submit(self._work) for _ in range(connections)]
                running = True
                while running:
                    running = bool(wait(threads, timeout=_TICK).not_done)
                    there = self._there
                    if there != said:
                        progress(there - said)
                        said = there
                    slow = pace.slow(time.monotonic(), self._received, self._all - there)
                    if slow:
                        warn(f"{self._place.url}: {slow}")
            finally:
                self._halt()

    def _look(self) -> None:
        """Leave out what is finished, and refuse early what cannot end well."""
        waiting, missing = [], 0
        for file in self._waiting:
            path = self._here.place(file.key)
            if self._here.is_finished(file):
                self._there += file.size
                continue
            waiting.append(file)
            if path.exists() and not self._here.is_ours(file.key):
                if path.stat().st_size != file.size:
                    raise self._in_the_way(file, path)
            else:
                missing += self._here.missing(file)
        self._waiting = deque(waiting)
        space = disk_usage(self._here.root)
        if space.total and missing > space.free:  # some network file systems tell of no space at all
            raise StorageError(
                f"{self._here.root}: {amount(missing)} are still to come, {amount(space.free)} are free; free space, "
                "or choose another folder"
            )

    def _in_the_way(self, file: RemoteFile, path: Path) -> StorageError:
        object_ = f"{self._place.url}/{file.key}"
        return StorageError(
            f"{path}: is there, was not downloaded, and is not {object_}; move it away, or choose another folder"
        )

    def _halt(self) -> None:
        with self._turn:
            self._stop.set()
            self._turn.notify_all()

    def _work(self) -> None:
        while (job := self._next()) is not None:
            try:
                job()
            except Stopped:
                pass
            except BaseException as error:  # noqa: BLE001 - raised again in the thread that waits
                self._failed.append(error)
                self._halt()
            finally:
                with self._turn:
                    self._busy -= 1
                    self._turn.notify_all()

    def _next(self) -> Callable[[], None] | None:
        with self._turn:
            while not self._stop.is_set():
                if self._parts:
                    self._busy += 1
                    return partial(self._read_part, *self._parts.popleft())
                if self._waiting:
                    self._busy += 1
                    return partial(self._begin, self._waiting.popleft())
                if not self._busy:  # nothing is left, and nobody is at work who could bring more
                    break
                self._turn.wait()
            return None

    def _count(self, there: int, received: int = 0) -> None:
        with self._turn:
            self._there += there
            self._received += received

    def _begin(self, file: RemoteFile) -> None:
        if self._adopted(file):
            self._count(file.size)
            return
        begun = self._here.begin(file, self._limits.part_bytes)
        self._begun.add(begun)
        self._queue(begun)

    def _queue(self, file: PartialFile) -> None:
        spans = {number: file.span(number) for number in range(file.count)}
        self._count(sum(spans[number][1] - spans[number][0] for number in file.done))
        missing = [(file, number) for number in spans if number not in file.done]
        if not missing:
            self._complete(file)
            return
        with self._turn:
            self._parts.extend(missing)
            self._turn.notify_all()

    def _adopted(self, file: RemoteFile) -> bool:
        """Whether a file that is there already, and of which no record tells, has the object's bytes."""
        path = self._here.place(file.key)
        if not path.exists():
            return False
        same = False
        if path.stat().st_size == file.size:
            fault, compared = self._reader.compare(file, lambda: _blocks(path))
            same = fault is None and compared
        if same:
            self._here.note_finished(file, path)
        elif not self._here.is_ours(file.key):
            raise self._in_the_way(file, path)
        return same

    def _read_part(self, file: PartialFile, number: int) -> None:
        at, end = file.span(number)
        crc = 0

        def take(at: int, data: bytes) -> None:
            nonlocal crc
            file.write(at, data)
            crc = zlib.crc32(data, crc)
            self._count(len(data), len(data))

        self._reader.read(file.file, at, end, take)
        if file.note(number, crc):
            self._complete(file)

    def _complete(self, file: PartialFile) -> None:
        fault, compared = self._reader.compare(file.file, file.blocks)
        if fault is None:
            self._here.finish(file)
            self._begun.remove(file)
            file.close()
            if not compared:
                self._by_size_only.append(file.file.key)
            return
        key = file.file.key
        file.forget()
        if key in self._again:
            raise DataError(
                f"{self._place.url}/{key}: the bytes that arrive differ from the {fault} that S3 tells, twice; the "
                "object was stored damaged, or something on the way changes it: put it again, or leave it out"
            )
        self._again.add(key)
        self._count(-file.file.size)
        self._queue(file)


def _blocks(path: Path) -> Iterator[bytes]:
    with told(path), path.open("rb") as file:
        while block := file.read(BLOCK):
            yield block


def _silent(_: object) -> None:
    pass
