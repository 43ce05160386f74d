"""Arrays in npy and npz bytes: what a header claims is compared with the bytes that are there before it is believed.

numpy takes the word of a header that claims terabytes, and unpickles objects where it is let to; nothing here is. What
an array means, and in which file it lies, is not known here.
"""

from __future__ import annotations

import io
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Mapping
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

DAMAGE = (
    OSError, RuntimeError, ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError, MemoryError,
    SystemError, EOFError, NotImplementedError, zipfile.BadZipFile, zlib.error, SyntaxError, struct.error,
    tokenize.TokenError,  # numpy takes headers apart as Python's own source
)  # fmt: skip
"""What zipfile, numpy, struct and the libraries of file formats raise on damaged files."""


def read_header(member: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and dtype, as the header claims them; ``member`` stands at the first value afterwards.

    Raises:
        ValueError: the values are no numbers. Damage: one of :data:`DAMAGE`.
    """
    version = np.lib.format.read_magic(member)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(member)
    if dtype.kind not in "fiub":
        raise ValueError(f"has dtype {dtype}; numbers are needed (float32), objects are never unpickled")
    return tuple(int(n) for n in shape), dtype


def check_stored(shape: tuple[int, ...], dtype: np.dtype[Any], stored: int) -> None:
    """Refuse a claim that is not the size of what is stored.

    Args:
        shape: as claimed.
        dtype: as claimed.
        stored: bytes after the header.

    Raises:
        ValueError: they differ.
    """
    claimed = int(np.prod(shape, dtype=object)) * dtype.itemsize
    if min(shape, default=0) < 0 or claimed != stored:
        raise ValueError(f"claims {claimed:,} bytes, but {stored:,} are stored")


def read_values(member: IO[bytes]) -> NDArray[Any]:
    """The array of a member whose header was found to agree with its size.

    Raises:
        Exception: one of :data:`DAMAGE`; also when zip's checksum does not match.
    """
    array = np.lib.format.read_array(member, allow_pickle=False)
    member.read(1)  # the end of the member is where zipfile compares its checksum
    return np.asarray(array)


def write_npz(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """The bytes of an npz file, not compressed.

    Raises:
        ValueError: an array holds objects, which only a pickle can store.
    """
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.asanyarray(array), allow_pickle=False)
    return buffer.getvalue()


def read_npz(raw: bytes) -> dict[str, NDArray[Any]]:
    """What :func:`write_npz` was given. Takes memory for what is there, whatever is claimed.

    Raises:
        ValueError: the bytes are damaged, or not such a file.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(raw)) as archive:
            members = archive.infolist()
            if any(m.compress_type != zipfile.ZIP_STORED or m.compress_size != m.file_size for m in members):
                raise ValueError("holds compressed arrays, which are never written")
            if (claimed := sum(member.file_size for member in members)) > len(raw):
                raise ValueError(f"claims {claimed:,} bytes, but {len(raw):,} are there")
            return {member.filename.removesuffix(".npy"): _array(archive, member) for member in members}
    except DAMAGE as error:
        raise ValueError(" ".join(str(error).split())[:160] or type(error).__name__) from error


def _array(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> NDArray[Any]:
    with archive.open(info) as member:
        shape, dtype = read_header(member)
        check_stored(shape, dtype, info.file_size - member.tell())
    with archive.open(info) as member:
        return read_values(member)
