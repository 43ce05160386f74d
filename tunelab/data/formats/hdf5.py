"""Guards for HDF5 files, whatever they hold: links stay in the file, storage too, filters are known, sizes believable.

h5py follows external links and external raw storage, and believes a header that claims terabytes. No format is read
here; ``gprmax`` and ``plain`` do.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py

from tunelab.data.formats.guard import check_size
from tunelab.errors import DataError

_FILTERS = {
    h5py.h5z.FILTER_DEFLATE,
    h5py.h5z.FILTER_SHUFFLE,
    h5py.h5z.FILTER_FLETCHER32,
    h5py.h5z.FILTER_SZIP,
    h5py.h5z.FILTER_SCALEOFFSET,
    h5py.h5z.FILTER_LZF,
}


def open_file(path: Path) -> Any:
    """The file, to be read only; it is not locked, as data may lie on a disk that is only readable."""
    return h5py.File(path, "r", locking=False)


def has(group: Any, name: str) -> bool:
    """Whether there is a link of this name; ``name in group`` would follow it out of the file to see."""
    return bool(group.id.links.exists(name.encode()))


def inside(group: Any, name: str) -> Any:
    """The group or dataset behind a hard link, or None: other links lead elsewhere and are not followed."""
    return group[name] if isinstance(group.get(name, getlink=True), h5py.HardLink) else None


def is_group(node: Any) -> bool:
    """Whether a node is a group."""
    return isinstance(node, h5py.Group)


def dataset(path: Path, file: Any, name: str) -> Any:
    """The dataset of this name, once every link on the way and its storage were found to stay inside the file.

    Args:
        path: the file, for messages.
        file: the open file.
        name: steps parted by ``/``.

    Raises:
        DataError: for anything that is missing, leads out of the file, or claims more than is stored.
    """
    node: Any = file
    for step in name.split("/"):
        if not is_group(node) or not has(node, step):
            there = ", ".join(repr(k) for k in list(node.keys())[:8]) if is_group(node) else "no group"
            raise DataError(f"{path}: no {name} ({step!r} is missing; there is {there or 'nothing'})")
        node = inside(node, step)
        if node is None:
            raise DataError(
                f"{path}: {name} is a soft or external link; copy the data into the file (h5repack, h5copy)"
            )
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
        check_size(path, f"{name} {what}", shape, max(4, node.dtype.itemsize))
    stored, claimed = int(node.id.get_storage_size()), int(node.size or 0) * int(node.dtype.itemsize)
    if claimed > 1100 * stored:  # deflate shrinks by 1,032 at most; the rest was never written
        raise DataError(f"{path}: {name} claims {claimed:,} bytes, but {stored:,} are stored; write the file again")
    return node


def interval(path: Path, file: Any) -> Any:
    """``dt`` as it stands in the file, attribute before dataset; None where there is neither."""
    if "dt" in file.attrs:
        if file.attrs.get_id("dt").shape not in ((), (1,)):
            raise DataError(f"{path}: dt is no single number; write the seconds between samples, or leave it out")
        return file.attrs["dt"]
    if has(file, "dt"):
        return dataset(path, file, "dt")[...]
    return None
