"""What S3 tells of an object's bytes, compared with the bytes that arrived. Not who fetches either.

boto3 compares checksums of whole answers only: S3 sends none with a range, so files that are read in ranges are
compared here, once all their bytes are on disk. In this order of preference:

1. Checksums of the whole object that S3 keeps beside it: MD5, SHA-1, SHA-256, SHA-512, CRC32, and where the package
   ``awscrt`` is installed CRC32C and CRC64NVME. All that are there must hold. Checksums of the parts' checksums (type
   COMPOSITE) are not used.
2. The ETag of an object that was put in one request: its MD5, also beside the checksums above. Not where S3 says that
   the ETag is something else: encryption with KMS or the customer's own key, directory buckets.
3. The ETag of an object that was put in several, where there is nothing else: the MD5 of the MD5s of its parts. Their
   sizes are asked for.

Where none of these is there, only the size can be compared; the caller is told.
"""

from __future__ import annotations

import base64
import hashlib
import importlib
import re
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

try:
    _crt: Any = importlib.import_module("awscrt.checksums")
except ImportError:
    _crt = None

_ONE = re.compile(r"[0-9a-f]{32}")
_SEVERAL = re.compile(r"[0-9a-f]{32}-([1-9][0-9]{0,4})")
_DIRECTORY_BUCKET = "--x-s3"


class Check(Protocol):
    """One comparison: fed with the bytes from first to last."""

    name: str
    """As a message names it."""

    def update(self, data: bytes) -> None:
        """The next bytes."""

    def holds(self) -> bool:
        """Whether the bytes so far are those that S3 tells of."""


class _Hash:
    def __init__(self, name: str, algorithm: str, expected: bytes) -> None:
        self.name = name
        self._expected = expected
        self._hash = hashlib.new(algorithm, usedforsecurity=False)
        self.update = self._hash.update

    def holds(self) -> bool:
        return self._hash.digest() == self._expected


class _Crc:
    def __init__(self, name: str, function: Callable[[bytes, int], int], expected: bytes) -> None:
        self.name = name
        self._expected = int.from_bytes(expected, "big")
        self._function = function
        self._value = 0

    def update(self, data: bytes) -> None:
        self._value = self._function(data, self._value)

    def holds(self) -> bool:
        return self._value == self._expected


class PartsCheck:
    """The ETag of an object that was put in several parts.

    Args:
        etag: ``<32 hexadecimal digits>-<number of parts>``.
        sizes: of its parts, in bytes; their sum is the object's size.
    """

    name = "ETag (MD5 of its parts' MD5s)"

    def __init__(self, etag: str, sizes: Sequence[int]) -> None:
        self._etag = etag
        self._sizes = sizes
        self._done: list[bytes] = []
        self._hash = hashlib.md5(usedforsecurity=False)
        self._left = sizes[0]
        self._too_much = False
        self._end_parts()

    def update(self, data: bytes) -> None:
        """See :class:`Check`."""
        while data:
            if len(self._done) == len(self._sizes):
                self._too_much = True
                return
            piece, data = data[: self._left], data[self._left :]
            self._hash.update(piece)
            self._left -= len(piece)
            self._end_parts()

    def _end_parts(self) -> None:
        while self._left == 0 and len(self._done) < len(self._sizes):  # one of no bytes ends where it begins
            self._done.append(self._hash.digest())
            self._hash = hashlib.md5(usedforsecurity=False)
            self._left = self._sizes[len(self._done)] if len(self._done) < len(self._sizes) else 0

    def holds(self) -> bool:
        """See :class:`Check`."""
        whole = hashlib.md5(b"".join(self._done), usedforsecurity=False).hexdigest()
        return not self._too_much and f"{whole}-{len(self._done)}" == self._etag


_WHOLE: dict[str, Callable[[bytes], Check]] = {
    "ChecksumSHA512": lambda expected: _Hash("SHA-512", "sha512", expected),
    "ChecksumSHA256": lambda expected: _Hash("SHA-256", "sha256", expected),
    "ChecksumSHA1": lambda expected: _Hash("SHA-1", "sha1", expected),
    "ChecksumMD5": lambda expected: _Hash("MD5", "md5", expected),
    "ChecksumCRC32": lambda expected: _Crc("CRC32", zlib.crc32, expected),
}
if _crt is not None:
    _WHOLE["ChecksumCRC32C"] = lambda expected: _Crc("CRC32C", _crt.crc32c, expected)
    _WHOLE["ChecksumCRC64NVME"] = lambda expected: _Crc("CRC64NVME", _crt.crc64nvme, expected)


def whole_checks(head: Mapping[str, Any], etag: str, bucket: str) -> list[Check]:
    """The comparisons that need nothing but the bytes.

    Args:
        head: boto3's answer to ``head_object`` with ``ChecksumMode="ENABLED"``.
        etag: without quotes.
        bucket: its name tells what its ETags are.

    Returns:
        None, one or several; all of them must hold.
    """
    checks: list[Check] = []
    # Servers that are not Amazon's may leave the type out; then the checksum of an object of several parts is unclear.
    if head.get("ChecksumType", "COMPOSITE" if "-" in etag else "FULL_OBJECT") == "FULL_OBJECT":
        checks = [make(_decoded(head[field])) for field, make in _WHOLE.items() if field in head]
    if _ONE.fullmatch(etag) and _etag_is_md5(head, bucket):
        checks.append(_Hash("ETag (MD5)", "md5", bytes.fromhex(etag)))
    return checks


def parts_of(head: Mapping[str, Any], etag: str, bucket: str) -> int:
    """How many parts the object was put in, where its ETag tells of their bytes; otherwise 0."""
    several = _SEVERAL.fullmatch(etag)
    return int(several[1]) if several and _etag_is_md5(head, bucket) else 0


def equal_parts(size: int, first: int, count: int) -> list[int]:
    """The sizes of parts that are all as large as the first, but for the last; empty when that cannot be.

    Args:
        size: of the object, in bytes.
        first: size of its first part.
        count: of parts.
    """
    last = size - first * (count - 1)
    return [first] * (count - 1) + [last] if 0 < last <= first or (count == 1 and last == first) else []


def first_that_fails(data: Iterable[bytes], checks: Sequence[Check]) -> str | None:
    """The name of the first comparison that does not hold; None when all do. Reads ``data`` once."""
    for block in data:
        for check in checks:
            check.update(block)
    return next((check.name for check in checks if not check.holds()), None)


def _decoded(checksum: str) -> bytes:
    try:
        return base64.b64decode(checksum)
    except ValueError:
        return b""  # garbled on its way: holds for nothing, and is asked for again


def _etag_is_md5(head: Mapping[str, Any], bucket: str) -> bool:
    own_key = "SSECustomerAlgorithm" in head
    return (
        head.get("ServerSideEncryption", "AES256") == "AES256"
        and not own_key
        and not bucket.endswith(_DIRECTORY_BUCKET)
    )
