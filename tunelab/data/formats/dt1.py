"""Sensors & Software pulseEKKO and Noggin: ``line.DT1`` with ``line.HD``.

``.HD`` is text: ``NUMBER OF TRACES``, ``NUMBER OF PTS/TRC``, ``TOTAL TIME WINDOW`` in ns, in newer ones ``DATA TYPE``.
``.DT1`` holds for each trace 128 bytes (25 float32 and a comment of 28 characters) and its samples, little-endian:
int16, or float32 as newer systems write. Nothing of the 128 bytes is needed. Where ``DATA TYPE`` is missing, the size
of the file tells the two apart. Samples stay the numbers that are stored; they are not scaled to mV. The interval is
the window over the number of points.

Layout: pulseEKKO PRO user's manual, appendix A; github.com/emanuelhuber/RGPR, issue 67, on float32; a ``.HD`` of
pulseEKKO 1.8.1423 with ``DATA TYPE = I*2``, 1,625 points and 650 ns, in the tests of github.com/erikmannerfelt/ridal.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tunelab.data.formats.companion import Companion, read_companion
from tunelab.data.formats.guard import radar_interval
from tunelab.data.formats.reader import Header, make_header
from tunelab.errors import DataError

_TRACE_HEADER = 128
_TYPES = {"I*2": "<i2", "I*4": "<i4", "R*4": "<f4", "F*4": "<f4"}


def header(path: Path, components: tuple[str, ...]) -> Header:
    """Counts and window of the ``.HD``, once they were found to agree with the size of the ``.DT1``."""
    hd = read_companion(path, "=")
    shape = (hd.count("NUMBER OF TRACES"), hd.count("NUMBER OF PTS/TRC"))
    window = hd.positive("TOTAL TIME WINDOW")
    dt = None if window is None else radar_interval(hd.path, "TOTAL TIME WINDOW", window * 1e-9 / shape[1])
    made = make_header(path, shape, "samples", dt=dt)
    _sample_type(path, hd, made)
    return made


def traces(path: Path, components: tuple[str, ...]) -> NDArray[Any]:
    """The samples as they are stored."""
    made = header(path, components)
    kind = _sample_type(path, read_companion(path, "="), made)
    record = np.dtype([("header", f"V{_TRACE_HEADER}"), ("samples", kind, (made.n_samples,))])
    return np.asarray(np.fromfile(path, record, count=made.n_traces)["samples"])


def _sample_type(path: Path, hd: Companion, made: Header) -> str:
    """How a sample is stored, the only way that fits the size of the file."""
    size = path.stat().st_size
    word = "".join(hd.fields.get("DATA TYPE", "").upper().split())
    if word and word not in _TYPES:
        raise DataError(f"{hd.path}: DATA TYPE is {word[:40]!r}; {', '.join(_TYPES)} are read: export the line again")
    for kind in [_TYPES[word]] if word else ["<i2", "<f4"]:
        if size == made.n_traces * (_TRACE_HEADER + made.n_samples * np.dtype(kind).itemsize):
            return kind
    raise DataError(
        f"{path}: holds {size:,} bytes, but {hd.path.name} tells of {made.n_traces:,} traces of {_TRACE_HEADER} bytes "
        f"and {made.n_samples:,} samples of {np.dtype(_TYPES[word]).itemsize if word else '2 or 4'} bytes; copy both "
        "files again, or correct the counts"
    )
