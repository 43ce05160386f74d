"""numpy archives: arrays ``x`` (trace, sample), ``y`` (trace,) optional, ``dt`` optional. Nothing is ever unpickled.

numpy believes a header that claims terabytes, so the header of a member is compared with its size first; zip states
that size, and a member that unpacks to more ends there.
"""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tunelab.data.formats.guard import check_size, checked_labels, seconds
from tunelab.data.formats.reader import Header, make_header
from tunelab.errors import DataError


def header(path: Path, components: tuple[str, ...]) -> Header:
    """Shape of ``x``, and ``y`` and ``dt`` where they are."""
    with zipfile.ZipFile(path) as archive:
        shape = _shape(path, archive, "x")
        y = _array(path, archive, "y") if "y.npy" in archive.namelist() else None
        dt = seconds(path, _array(path, archive, "dt") if "dt.npy" in archive.namelist() else None)
    bare = make_header(path, shape, "x", dt=dt)
    return bare if y is None else make_header(path, shape, "x", dt=dt, labels=checked_labels(path, y, bare.n_traces))


def traces(path: Path, components: tuple[str, ...]) -> NDArray[Any]:
    """``x``."""
    with zipfile.ZipFile(path) as archive:
        return _array(path, archive, "x")


def _shape(path: Path, archive: zipfile.ZipFile, name: str) -> tuple[int, ...]:
    """Shape of a member, once its header was found to agree with its size."""
    try:
        info = archive.getinfo(f"{name}.npy")
    except KeyError:
        there = ", ".join(repr(n) for n in archive.namelist()[:8]) or "nothing"
        raise DataError(f"{path}: no array {name!r} (there is {there})") from None
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise DataError(f"{path}: {name} is packed in a way that numpy does not write; write it with numpy.savez")
    with archive.open(info) as member:
        version = np.lib.format.read_magic(member)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(member)
        start = member.tell()
    if dtype.kind not in "fiub":
        raise DataError(f"{path}: {name} has dtype {dtype}; numbers are needed (float32), objects are never unpickled")
    check_size(path, f"{name} claims", shape, max(4, dtype.itemsize))
    claimed = int(np.prod(shape, dtype=object)) * dtype.itemsize
    if claimed != info.file_size - start:
        raise DataError(
            f"{path}: {name} claims {claimed:,} bytes, but {info.file_size - start:,} are stored; write the file again"
        )
    return tuple(int(n) for n in shape)


def _array(path: Path, archive: zipfile.ZipFile, name: str) -> NDArray[Any]:
    _shape(path, archive, name)
    with archive.open(f"{name}.npy") as member:
        array = np.lib.format.read_array(member, allow_pickle=False)
        member.read(1)  # the end of the member is where zipfile compares its checksum
    return np.asarray(array)
