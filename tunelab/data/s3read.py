"""Reading one object of S3: ranges, tried again where that can help, and the comparison of its bytes. Writes nothing.

Every request names the ETag of the listing, so that an object that was replaced meanwhile is noticed and never mixed.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Any, TypeVar

from tunelab.data.s3checks import PartsCheck, equal_parts, first_that_fails, parts_of, whole_checks
from tunelab.data.s3pace import amount
from tunelab.data.s3partial import RemoteFile
from tunelab.errors import DataError, StorageError
from tunelab.s3 import FAILURES, S3Prefix, code_of, passes

_CHUNK = 1 << 16  # of an answer; what is lost when a connection breaks

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How long is tried, and from when on a link is slow."""

    part_bytes: int = 8 << 20
    """Size of a part: read with one request, and lost at most when a process is killed."""
    timeout: float = 20.0
    """Seconds without a byte until a request has failed; a quarter of them for a connection."""
    attempts: int = 8
    """How often a request is sent."""
    pause: float = 1.0
    """Seconds before the second attempt; doubled each time, and shortened by up to a half at random."""
    longest_pause: float = 20.0
    """Seconds between two attempts at most."""
    part_seconds: float = 1800.0
    """Seconds for one part, all its attempts together."""
    slow_rate: float = 200e3
    """Bytes a second, all connections together, below which a link is called slow."""
    slow_seconds: float = 30.0
    """Seconds over which the rate is taken."""


class Stopped(Exception):  # noqa: N818 - no error of its own
    """Another thread has failed, and this one gives up."""


class _Fault(Exception):  # noqa: N818 - stays inside
    """An answer that boto3 took, but that is no use."""


class Reader:
    """Reads objects below a prefix; threads may share one.

    Args:
        place: made with one attempt a request: trying again is done here.
        limits: how long is tried.
        stop: once it is set, whatever is at work raises :class:`Stopped`.
    """

    def __init__(self, place: S3Prefix, limits: Limits, stop: threading.Event) -> None:
        self._place = place
        self._limits = limits
        self._stop = stop

    def read(self, file: RemoteFile, first: int, end: int, take: Callable[[int, bytes], None]) -> None:
        """Read a range; after a failure only what is still missing.

        Args:
            file: the object.
            first: its first byte that is wanted.
            end: the byte after the last.
            take: given the bytes in order, each once, with their place in the object.

        Raises:
            StorageError: they could not be read.
            DataError: the object was replaced or removed.
        """
        at, began = first, time.monotonic()

        def rest() -> None:
            nonlocal at
            answer = self._send("get_object", file, Range=f"bytes={at}-{end - 1}")
            with closing(answer["Body"]) as body:
                if answer.get("ContentRange") != f"bytes {at}-{end - 1}/{file.size}":
                    raise _Fault("the server answered with other bytes than were asked for")
                while chunk := body.read(min(_CHUNK, end - at)):
                    take(at, chunk)
                    at += len(chunk)
                    if self._stop.is_set():
                        raise Stopped
                    if time.monotonic() - began > self._limits.part_seconds:
                        break
            if at < end:
                raise _Fault(f"only {amount(at - first)} of {amount(end - first)} arrived")

        self._persist(file, f"bytes {first} to {end - 1}", rest)

    def compare(self, file: RemoteFile, blocks: Callable[[], Iterable[bytes]]) -> tuple[str | None, bool]:
        """What does not hold for these bytes, None when all does; and whether there was anything to compare."""

        bucket = self._place.bucket
        head = self._persist(file, "its checksums", lambda: self._send("head_object", file, ChecksumMode="ENABLED"))
        checks = whole_checks(head, file.etag, bucket)
        if checks:
            return first_that_fails(blocks(), checks), True
        count = parts_of(head, file.etag, bucket)
        first = self._size_of_part(file, 1) if count else 0
        sizes = equal_parts(file.size, first, count)
        if sizes and first_that_fails(blocks(), [PartsCheck(file.etag, sizes)]) is None:
            return None, True
        if not count:
            return None, False
        # The parts were not of one size, or the bytes are wrong: only their true sizes can tell.
        sizes = [self._size_of_part(file, number) for number in range(1, count + 1)]
        if sum(sizes) != file.size:  # a server that does not know of parts
            return None, False
        return first_that_fails(blocks(), [PartsCheck(file.etag, sizes)]), True

    def _size_of_part(self, file: RemoteFile, number: int) -> int:
        # Without IfMatch: some servers compare it with the ETag of the part. Sizes of another object will not fit.
        key = self._place.whole(file.key)
        ask = lambda: self._place.send("head_object", key=key, PartNumber=number)  # noqa: E731
        return int(self._persist(file, "the sizes of its parts", ask)["ContentLength"])

    def _send(self, verb: str, file: RemoteFile, **fields: Any) -> Mapping[str, Any]:
        key = self._place.whole(file.key)
        answer: Mapping[str, Any] = self._place.send(verb, key=key, IfMatch=f'"{file.etag}"', **fields)
        if str(answer.get("ETag", "")).strip('"') != file.etag:  # a server that does not know of IfMatch
            raise self._replaced(file)
        return answer

    def _persist(self, file: RemoteFile, what: str, act: Callable[[], T]) -> T:
        """What ``act`` returns, tried again while it fails for a passing reason."""
        limits, key, began = self._limits, self._place.whole(file.key), time.monotonic()
        for attempt in range(1, limits.attempts + 1):
            if self._stop.is_set():
                raise Stopped
            try:
                return act()
            except (_Fault, *FAILURES) as error:
                if not isinstance(error, _Fault):
                    self._refuse(error, file)
                cause = str(error) if isinstance(error, _Fault) else code_of(error) or type(error).__name__
                last = error
            took = time.monotonic() - began
            if attempt == limits.attempts or took > limits.part_seconds:
                break
            pause = min(limits.longest_pause, limits.pause * 2 ** (attempt - 1))
            self._stop.wait(pause * random.uniform(0.5, 1))  # noqa: S311 - spreads the load, guards nothing
        raise StorageError(
            f"s3://{self._place.bucket}/{key}: {what} could not be read: {cause} ({attempt} attempts in {took:.0f} s); "
            "check the network and AWS_ENDPOINT_URL, and try again later"
        ) from last

    def _refuse(self, error: Exception, file: RemoteFile) -> None:
        """Raise where sending it again cannot help."""
        if passes(error):
            return
        where = f"{self._place.url}/{file.key}"
        code = code_of(error)
        if code in {"PreconditionFailed", "412"}:
            raise self._replaced(file)
        if code in {"NoSuchKey", "404"}:
            raise DataError(f"{where}: was removed since it was listed; start again, once nothing writes there")
        raise self._place.explained(error, self._place.whole(file.key)) from error

    def _replaced(self, file: RemoteFile) -> DataError:
        where = f"{self._place.url}/{file.key}"
        return DataError(f"{where}: was replaced since it was listed; start again, once nothing writes there")
