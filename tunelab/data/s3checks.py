"""What S3 tells of an object's bytes, compared with a file. Not who fetches it.

boto3 compares checksums of whole answers only: S3 sends none with a range, so files that are read in ranges are
compared here, once all their bytes are on disk:

1. The ETag of an object that was put in one request is its MD5. Where it holds, nothing else is asked. It is another
   thing under encryption with KMS or the customer's own key, and in directory buckets.
2. SHA-256, SHA-1 and CRC32 of the whole object, where S3 keeps them. All that are there must hold. Checksums of the
   parts' checksums (type COMPOSITE) are not used.
3. The ETag of an object that was put in several parts, where there is nothing else: the MD5 of the MD5s of its parts.
   Their sizes are asked for.

Where none of these is there, only the size can be compared; the caller is told.
"""

from __future__ import annotations

import hashlib
import re
import zlib
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

_MD5: Callable[..., Any] = partial(hashlib.md5, usedforsecurity=False)
_ONE = re.compile(r"[0-9a-f]{32}")
_SEVERAL = re.compile(r"[0-9a-f]{32}-([1-9][0-9]{0,4})")
_DIRECTORY_BUCKET = "--x-s3"
_BLOCK = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteFile:
    """An object of S3, as a listing told of it."""

    key: str
    """Relative to the prefix, parted by ``/``; never leads out of a folder."""
    size: int
    """Bytes."""
    etag: str
    """As S3 tells, without quotes; another one means other bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """Of a comparison."""

    fault: str | None
    """What does not hold; None when all does."""
    by_size_only: bool = False
    """Whether there was nothing else to compare."""


def compare(path: Path, file: RemoteFile, bucket: str, head: Callable[..., Mapping[str, Any]]) -> Outcome:
    """Compare a file with what S3 tells of the object.

    Args:
        path: the file.
        file: the object.
        bucket: its name tells what its ETags are.
        head: boto3's answer to ``head_object`` about the object, with these fields.

    Raises:
        OSError: the file cannot be read.
    """
    size, etag = file.size, file.etag
    if path.stat().st_size != size:
        return Outcome(fault="size")
    plain = _ONE.fullmatch(etag) is not None
    if plain and _hashed(path, _MD5).hex() == etag:
        return Outcome(fault=None)
    told = head(ChecksumMode="ENABLED", IfMatch=f'"{etag}"')
    is_md5 = _etag_is_md5(told, bucket)
    if plain and is_md5:
        return Outcome(fault="ETag (MD5)")
    # Servers that are not Amazon's may leave the type out; then the checksum of an object of several parts is unclear.
    if told.get("ChecksumType", "COMPOSITE" if "-" in etag else "FULL_OBJECT") == "FULL_OBJECT":
        kept = [name for name in _WHOLE if f"Checksum{name}" in told]
        wrong = [name for name in kept if b64encode(_WHOLE[name](path)).decode() != told[f"Checksum{name}"]]
        if kept:
            return Outcome(fault=wrong[0] if wrong else None)
    several = _SEVERAL.fullmatch(etag)
    if several is None or not is_md5:
        return Outcome(fault=None, by_size_only=True)

    def part_size(number: int) -> int:
        # Without IfMatch: some servers compare it with the ETag of the part. Sizes of another object will not fit.
        return int(head(PartNumber=number)["ContentLength"])

    count = int(several[1])
    sizes = equal_parts(size, part_size(1), count)
    if sizes and etag_of_parts(path, sizes) == etag:
        return Outcome(fault=None)
    # The parts were not of one size, or the bytes are wrong: only their true sizes can tell.
    sizes = [part_size(number) for number in range(1, count + 1)]
    if sum(sizes) != size:  # a server that does not know of parts
        return Outcome(fault=None, by_size_only=True)
    return Outcome(fault=None if etag_of_parts(path, sizes) == etag else "ETag (MD5 of its parts' MD5s)")


def equal_parts(size: int, first: int, count: int) -> list[int]:
    """The sizes of parts that are all as large as the first, but for the last; empty when that cannot be.

    Args:
        size: of the object, in bytes.
        first: size of its first part.
        count: of parts.
    """
    last = size - first * (count - 1)
    return [first] * (count - 1) + [last] if 0 < last <= first or (count == 1 and last == first) else []


def etag_of_parts(path: Path, sizes: Sequence[int]) -> str:
    """The ETag of an object that was put in parts of these sizes, in bytes, which together are the file's."""
    done = []
    with path.open("rb") as file:
        for left in sizes:
            part = _MD5()
            while left and (block := file.read(min(_BLOCK, left))):
                part.update(block)
                left -= len(block)
            done.append(part.digest())
    return f"{_MD5(b''.join(done)).hexdigest()}-{len(done)}"


def _hashed(path: Path, make: Callable[[], Any]) -> bytes:
    with path.open("rb") as file:
        digest: bytes = hashlib.file_digest(file, make).digest()
    return digest


def _crc32(path: Path) -> bytes:
    crc = 0
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            crc = zlib.crc32(block, crc)
    return crc.to_bytes(4, "big")


_WHOLE: dict[str, Callable[[Path], bytes]] = {
    "SHA256": lambda path: _hashed(path, hashlib.sha256),
    "SHA1": lambda path: _hashed(path, partial(hashlib.sha1, usedforsecurity=False)),
    "CRC32": _crc32,
}


def _etag_is_md5(head: Mapping[str, Any], bucket: str) -> bool:
    plain = head.get("ServerSideEncryption", "AES256") == "AES256" and "SSECustomerAlgorithm" not in head
    return plain and not bucket.endswith(_DIRECTORY_BUCKET)
