"""One scan from one file, whatever its format. A file is data to judge: nothing in it is trusted.

A format is a module here with the two functions of :class:`~tunelab.data.formats.reader.Reader`: ``gprmax``, ``plain``
(HDF5), ``npz``, ``dt1`` (Sensors & Software), ``mala``, ``dzt`` (GSSI), ``segy``. The suffix chooses it; only HDF5 is
looked into. ``guard``, ``hdf5`` and ``companion`` hold what the formats share. Folders, tables and labels.csv are
elsewhere (:mod:`tunelab.data.listing`).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tunelab.data.formats import dt1, dzt, gprmax, mala, npz, plain, segy
from tunelab.data.formats.companion import COMPANIONS, companions
from tunelab.data.formats.gprmax import check_components
from tunelab.data.formats.guard import MAX_SCAN_BYTES, check_finite, damage
from tunelab.data.formats.reader import Header, Reader
from tunelab.errors import DataError

__all__ = [
    "COMPANIONS",
    "MAX_SCAN_BYTES",
    "SUFFIXES",
    "WANTED_SUFFIXES",
    "Header",
    "Reader",
    "check_components",
    "companions",
    "read_header",
    "read_traces",
    "scan_id",
]

_READERS: dict[str, tuple[Reader, ...]] = {
    ".out": (gprmax, plain),
    ".h5": (gprmax, plain),
    ".npz": (npz,),
    ".dt1": (dt1,),
    ".rd3": (mala,),
    ".rd7": (mala,),
    ".dzt": (dzt,),
    ".sgy": (segy,),
    ".segy": (segy,),
}
SUFFIXES = tuple(_READERS)
"""Suffixes of scan files, in lower case; instruments write either case."""
WANTED_SUFFIXES = SUFFIXES + tuple(sorted({beside for besides in COMPANIONS.values() for beside in besides}))
"""Suffixes of scan files and of their companions: all that has to be fetched to read a folder of scans."""


def scan_id(path: Path) -> str:
    """The id of the scan in a file: its name without suffix and without gprMax's ``_merged``."""
    return path.stem.removesuffix("_merged")


def read_header(path: Path, components: tuple[str, ...] = ()) -> Header:
    """Shape, interval and labels of the scan in a file, without its samples.

    Args:
        path: the file; its suffix tells the format.
        components: of a gprMax file, such as ``("rx1/Ez", "rx2/Hx")``, whose samples are joined; empty: ``rx1/Ez``.

    Raises:
        DataError: for a file that is missing, damaged, hostile, or does not hold a scan; names file and field.
        UsageError: for words that are no components.
    """
    check_components(components)
    with damage(path):
        return _reader(path, components).header(path, components)


def read_traces(path: Path, components: tuple[str, ...] = ()) -> NDArray[np.float32]:
    """The samples of the scan in a file.

    Args:
        path: the file.
        components: as in :func:`read_header`.

    Returns:
        Shape (trace, sample), float32, contiguous, finite. Several components follow each other along the samples.

    Raises:
        DataError: as :func:`read_header`, and for samples that are NaN or infinite.
        UsageError: as :func:`read_header`.
    """
    check_components(components)
    with damage(path), np.errstate(over="ignore"):  # float64 beyond float32 becomes Inf, and is told below
        reader = _reader(path, components)
        header = reader.header(path, components)
        traces = np.ascontiguousarray(reader.traces(path, components), dtype=np.float32)
    if traces.shape != (header.n_traces, header.n_samples):
        raise DataError(f"{path}: changed while it was read; read again once nothing writes to it")
    check_finite(path, header.field, traces)
    return traces


def _reader(path: Path, components: tuple[str, ...]) -> Reader:
    readers = _READERS.get(path.suffix.lower())
    if readers is None:
        raise DataError(f"{path}: {path.suffix or 'no suffix'} is no format of scans; {', '.join(SUFFIXES)} are")
    reader = readers[0] if len(readers) == 1 or gprmax.recognised(path) else readers[1]
    if components and reader is not gprmax:
        raise DataError(
            f"{path}: only gprMax files have components, not {', '.join(components)}; leave components, or the file, "
            "out"
        )
    return reader
