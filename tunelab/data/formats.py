"""One scan from one file: gprMax output, other HDF5, npz. A file is data to judge: nothing in it is trusted.

* gprMax (``.out``, ``.h5``): ``rxs/rx1/Ez`` of shape (sample, trace), or (sample,) for a single trace; root attribute
  ``dt``, seconds. That is what gprMax 3.x and its merge tool write; other receivers and components are not read.
* plain HDF5 (``.h5``): datasets ``x`` (trace, sample), ``y`` (trace,) optional, ``dt`` optional (dataset or attribute).
* ``.npz``: arrays ``x``, ``y``, ``dt`` likewise.

h5py follows external links and external raw storage, and both h5py and numpy believe a header that claims terabytes:
so links must be hard, storage inside the file, filters known, and sizes are compared before memory is asked for.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from tunelab.errors import DataError

SUFFIXES = (".out", ".h5", ".npz")
MAX_SCAN_BYTES = 2**28
"""Most bytes of one scan in memory: 67 million float32 samples, some 60 times 100 traces of 10,057 samples."""

_FILTERS = {
    h5py.h5z.FILTER_DEFLATE,
    h5py.h5z.FILTER_SHUFFLE,
    h5py.h5z.FILTER_FLETCHER32,
    h5py.h5z.FILTER_SZIP,
    h5py.h5z.FILTER_SCALEOFFSET,
    h5py.h5z.FILTER_LZF,
}
# What h5py, zipfile and numpy raise on damaged files.
_DAMAGE = (
    OSError, RuntimeError, ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError, MemoryError,
    SystemError, EOFError, NotImplementedError, zipfile.BadZipFile, zlib.error, SyntaxError,
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """What a file says of its scan before the samples are read."""

    n_traces: int
    n_samples: int
    dt: float | None
    """Seconds between samples; None when the file does not say."""
    labels: NDArray[np.int8] | None
    """``y``, 0 or 1, shape (trace,); None when the file holds none."""
    field: str
    """Where the samples lie, for messages."""


def scan_id(path: Path) -> str:
    """The id of the scan in a file: its name without suffix and without gprMax's ``_merged``."""
    return path.stem.removesuffix("_merged")


def read_header(path: Path) -> Header:
    """Shape, interval and labels of the scan in a file, without its samples.

    Raises:
        DataError: for a file that is missing, damaged, hostile, or does not hold a scan; names file and field.
    """
    with _damage(path):
        if path.suffix == ".npz":
            with zipfile.ZipFile(path) as archive:
                shape = _npz_shape(path, archive, "x")
                y = _npz_array(path, archive, "y") if "y.npy" in archive.namelist() else None
                dt = _npz_array(path, archive, "dt") if "dt.npy" in archive.namelist() else None
            field = "x"
        else:
            with h5py.File(path, "r", locking=False) as file:
                dataset, field = _samples(path, file)
                shape = dataset.shape if field == "x" else (dataset.shape[1:] or (1,)) + dataset.shape[:1]
                y = _hdf5(path, file, "y")[...] if field == "x" and _has(file, "y") else None
                dt = _interval(path, file)
        if len(shape) != 2 or 0 in shape:
            raise DataError(f"{path}: {field} has shape {shape}; a scan has traces and samples, and at least one each")
        if shape[1] < 2:
            raise DataError(f"{path}: {field} has {shape[1]} sample a trace; at least 2 are needed")
        return Header(
            n_traces=int(shape[0]),
            n_samples=int(shape[1]),
            dt=_seconds(path, dt),
            labels=None if y is None else _checked_labels(path, y, int(shape[0])),
            field=field,
        )


def read_traces(path: Path) -> NDArray[np.float32]:
    """The samples of the scan in a file.

    Returns:
        Shape (trace, sample), float32, contiguous.

    Raises:
        DataError: as :func:`read_header`, and for samples that are NaN or infinite.
    """
    with _damage(path), np.errstate(over="ignore"):  # float64 beyond float32 becomes Inf, and is told below
        if path.suffix == ".npz":
            field = "x"
            with zipfile.ZipFile(path) as archive:
                raw = _npz_array(path, archive, "x")
        else:
            with h5py.File(path, "r", locking=False) as file:
                dataset, field = _samples(path, file)
                raw = dataset.astype(np.float32)[...]
            if field != "x":
                raw = raw.T if raw.ndim == 2 else raw[None, :]
        traces = np.ascontiguousarray(raw, dtype=np.float32)
    finite = np.isfinite(traces)
    if not finite.all():
        bad = np.argwhere(~finite)
        raise DataError(
            f"{path}: {field} holds {len(bad):,} samples that are NaN, infinite or beyond float32, first at trace "
            f"{bad[0][0]}, sample {bad[0][1]}; correct them, or leave the scan out"
        )
    return traces


@contextmanager
def _damage(path: Path) -> Iterator[None]:
    """Turns what libraries raise on damaged files into one error that names the file."""
    if not path.is_file():  # opening a pipe would wait for ever
        raise DataError(f"{path}: {'no plain' if path.exists() else 'no such'} file; correct the name, or put it there")
    try:
        yield
    except _DAMAGE as error:
        cause = " ".join(str(error).split())[:160] or type(error).__name__
        raise DataError(
            f"{path}: cannot be read ({cause}); the file is damaged or of another format: copy it again or leave it out"
        ) from error


def _hdf5(path: Path, file: h5py.File, name: str) -> Any:
    """The dataset of this name, once every link on the way and its storage were found to stay inside the file."""
    node: Any = file
    for step in name.split("/"):
        if not isinstance(node, h5py.Group) or not _has(node, step):
            there = ", ".join(repr(k) for k in list(node.keys())[:8]) if isinstance(node, h5py.Group) else "no group"
            raise DataError(f"{path}: no {name} ({step!r} is missing; there is {there or 'nothing'})")
        if not isinstance(node.get(step, getlink=True), h5py.HardLink):
            raise DataError(
                f"{path}: {name} is a soft or external link; copy the data into the file (h5repack, h5copy)"
            )
        node = node[step]
    if not isinstance(node, h5py.Dataset):
        raise DataError(f"{path}: {name} is no dataset")
    if node.is_virtual or node.external:
        raise DataError(f"{path}: {name} keeps its data in other files; copy them into this one (h5repack)")
    if node.dtype.kind not in "fiu":
        raise DataError(f"{path}: {name} has dtype {node.dtype}; numbers are needed (float32)")
    properties = node.id.get_create_plist()
    filters = [properties.get_filter(i)[0] for i in range(properties.get_nfilters())]
    if not set(filters) <= _FILTERS or len(filters) != len(set(filters)):
        raise DataError(f"{path}: {name} uses HDF5 filters {filters}; write it with gzip or without compression")
    for what, shape in (("claims", node.shape or ()), ("has a chunk of", node.chunks or ())):
        _check_size(path, f"{name} {what}", shape, max(4, node.dtype.itemsize))
    stored, claimed = int(node.id.get_storage_size()), int(node.size or 0) * int(node.dtype.itemsize)
    if claimed > 1100 * stored:  # deflate shrinks by 1,032 at most; the rest was never written
        raise DataError(f"{path}: {name} claims {claimed:,} bytes, but {stored:,} are stored; write the file again")
    return node


def _has(group: h5py.Group, name: str) -> bool:
    """Whether there is a link of this name; ``name in group`` would follow it out of the file to see."""
    return bool(group.id.links.exists(name.encode()))


def _samples(path: Path, file: h5py.File) -> tuple[Any, str]:
    field = "x" if _has(file, "x") and not _has(file, "rxs") else "rxs/rx1/Ez"
    dataset = _hdf5(path, file, field)
    if field != "x" and dataset.ndim not in (1, 2):
        raise DataError(f"{path}: {field} has shape {dataset.shape}; gprMax writes (samples, traces) or (samples,)")
    return dataset, field


def _interval(path: Path, file: h5py.File) -> Any:
    if "dt" in file.attrs:
        if file.attrs.get_id("dt").shape not in ((), (1,)):
            raise DataError(f"{path}: dt is no single number; write the seconds between samples, or leave it out")
        return file.attrs["dt"]
    if _has(file, "dt"):
        return _hdf5(path, file, "dt")[...]
    return None


def _npz_shape(path: Path, archive: zipfile.ZipFile, name: str) -> tuple[int, ...]:
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
        header = member.tell()
    if dtype.kind not in "fiub":
        raise DataError(f"{path}: {name} has dtype {dtype}; numbers are needed (float32), objects are never unpickled")
    _check_size(path, f"{name} claims", shape, max(4, dtype.itemsize))
    claimed = int(np.prod(shape, dtype=object)) * dtype.itemsize
    if claimed != info.file_size - header:
        raise DataError(
            f"{path}: {name} claims {claimed:,} bytes, but {info.file_size - header:,} are stored; write the file again"
        )
    return tuple(int(n) for n in shape)


def _npz_array(path: Path, archive: zipfile.ZipFile, name: str) -> NDArray[Any]:
    _npz_shape(path, archive, name)
    with archive.open(f"{name}.npy") as member:
        array = np.lib.format.read_array(member, allow_pickle=False)
        member.read(1)  # the end of the member is where zipfile compares its checksum
    return np.asarray(array)


def _check_size(path: Path, what: str, shape: tuple[int, ...], itemsize: int) -> None:
    if min(shape, default=0) < 0:
        raise DataError(f"{path}: {what} {shape} values, and none can be negative; write the file again")
    size = int(np.prod(shape, dtype=object)) * itemsize
    if size > MAX_SCAN_BYTES:
        raise DataError(
            f"{path}: {what} {' x '.join(f'{n:,}' for n in shape)} x {itemsize} bytes = {size:,}, more than the "
            f"{MAX_SCAN_BYTES:,} of one scan; cut the recording into several scans"
        )


def _seconds(path: Path, dt: Any) -> float | None:
    if dt is None:
        return None
    value = np.asarray(dt)
    if value.size != 1 or value.dtype.kind not in "fiu" or not np.isfinite(value).all() or value.item() <= 0:
        raise DataError(f"{path}: dt is no positive number of seconds; correct it, or leave it out")
    return float(value.item())


def _checked_labels(path: Path, y: NDArray[Any], n_traces: int) -> NDArray[np.int8]:
    if y.shape != (n_traces,):
        raise DataError(f"{path}: y has shape {y.shape}, but x has {n_traces} traces; give a label for every trace")
    wrong = ~((y == 0) | (y == 1))
    if wrong.any():
        first = int(np.argmax(wrong))
        raise DataError(
            f"{path}: y holds {np.count_nonzero(wrong)} labels other than 0 and 1, first {y[first].item()!r} at trace "
            f"{first}; write 1 where the trace is positive, otherwise 0"
        )
    return y.astype(np.int8)
