"""numpy archives: arrays ``x`` (trace, sample), ``y`` (trace,) optional, ``dt`` optional. Nothing is ever unpickled.

numpy believes a header that claims terabytes, so the header of a member is compared with its size first; zip states
that size, and a member that unpacks to more ends there.
"""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from tunelab.data.formats.guard import check_size, checked_labels, seconds
from tunelab.data.formats.reader import Header, make_header
from tunelab.errors import DataError
from tunelab.npy import check_stored, read_header, read_values


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
    try:
        with archive.open(info) as member:
            shape, dtype = read_header(member)
            start = member.tell()
        check_size(path, f"{name} claims", shape, max(4, dtype.itemsize))
        check_stored(shape, dtype, info.file_size - start)
    except ValueError as error:
        raise DataError(f"{path}: {name} {error}; write the file again") from error
    return shape


def _array(path: Path, archive: zipfile.ZipFile, name: str) -> NDArray[Any]:
    _shape(path, archive, name)
    with archive.open(f"{name}.npy") as member:
        return read_values(member)
