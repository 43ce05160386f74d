"""HDF5 that anyone can write: ``x`` (trace, sample), and ``y`` (trace,) and ``dt`` (dataset or attribute) if wanted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tunelab.data.formats import hdf5
from tunelab.data.formats.guard import checked_labels, seconds
from tunelab.data.formats.reader import Header, make_header


def header(path: Path, components: tuple[str, ...]) -> Header:
    """Shape of ``x``, and ``y`` and ``dt`` where they are."""
    with hdf5.open_file(path) as file:
        shape = hdf5.dataset(path, file, "x").shape
        y = hdf5.dataset(path, file, "y")[...] if hdf5.has(file, "y") else None
        dt = seconds(path, hdf5.interval(path, file))
    bare = make_header(path, shape, "x", dt=dt)
    return bare if y is None else make_header(path, shape, "x", dt=dt, labels=checked_labels(path, y, bare.n_traces))


def traces(path: Path, components: tuple[str, ...]) -> NDArray[Any]:
    """``x`` as float32."""
    with hdf5.open_file(path) as file:
        return np.asarray(hdf5.dataset(path, file, "x").astype(np.float32)[...])
