"""MALA (RAMAC, ProEx, GX): ``line.rd3`` or ``line.rd7`` with ``line.rad``.

``.rad`` is text, ``KEY:value``: ``SAMPLES`` a trace, ``LAST TRACE`` the number of traces, ``FREQUENCY`` of sampling in
MHz, ``TIMEWINDOW`` in ns. The other file holds the traces one after the other without a header, little-endian: int16
(``.rd3``) or int32 (``.rd7``; float32 keeps 24 of its bits). The interval is 1 / ``FREQUENCY``, and ``TIMEWINDOW`` over
``SAMPLES`` where that is missing or 0.

Layout: the keys as github.com/NSGeophysics/GPRPy and github.com/emanuelhuber/RGPR read them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tunelab.data.formats.companion import read_companion
from tunelab.data.formats.guard import radar_interval
from tunelab.data.formats.reader import Header, make_header
from tunelab.errors import DataError

_TYPES = {".rd3": "<i2", ".rd7": "<i4"}


def header(path: Path, components: tuple[str, ...]) -> Header:
    """Counts and interval of the ``.rad``, once they were found to agree with the size of the other file."""
    rad = read_companion(path, ":")
    shape = (rad.count("LAST TRACE"), rad.count("SAMPLES"))
    megahertz, window = rad.positive("FREQUENCY"), rad.positive("TIMEWINDOW")
    dt = None
    if megahertz is not None:
        dt = radar_interval(rad.path, "FREQUENCY", 1e-6 / megahertz)
    elif window is not None:
        dt = radar_interval(rad.path, "TIMEWINDOW", window * 1e-9 / shape[1])
    made = make_header(path, shape, "samples", dt=dt)
    size, width = path.stat().st_size, np.dtype(_TYPES[path.suffix.lower()]).itemsize
    if size != shape[0] * shape[1] * width:
        raise DataError(
            f"{path}: holds {size:,} bytes, but {rad.path.name} tells of {shape[0]:,} traces x {shape[1]:,} samples x "
            f"{width} bytes = {shape[0] * shape[1] * width:,}; copy both files again, or correct LAST TRACE there"
        )
    return made


def traces(path: Path, components: tuple[str, ...]) -> NDArray[Any]:
    """The samples as they are stored."""
    made = header(path, components)
    return np.fromfile(path, _TYPES[path.suffix.lower()]).reshape(made.n_traces, made.n_samples)
