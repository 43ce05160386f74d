"""SEG-Y (``.sgy``, ``.segy``) as radar software exports it, through segyio, which is an extra.

The header of the file is checked here first against the file's size, so that segyio only sees what it can read: format
code and samples a trace (binary header, bytes 3225 and 3221; 3269 where the latter is 0), extended text headers (3505),
either byte order, every trace as long as the first. The sample interval is defined in us, which radar cannot use;
exporters write ps, ns or us / 1,000 there without saying which, so the interval counts as unknown. Geometry is ignored.

Layout: SEG Technical Standards Committee, SEG-Y_r2.0, 2017; github.com/equinor/segyio.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tunelab.data.formats.guard import check_size, whole_traces
from tunelab.data.formats.reader import Header, make_header
from tunelab.errors import DataError

_TEXT, _BINARY, _TRACE_HEADER = 3200, 400, 240
_WIDTHS = {1: 4, 2: 4, 3: 2, 5: 4, 6: 8, 8: 1, 10: 4, 11: 2, 16: 1}
"""Format code -> bytes of a sample; the codes that segyio reads."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Layout:
    order: str
    n_traces: int
    n_samples: int


def header(path: Path, components: tuple[str, ...]) -> Header:
    """Shape; the interval is unknown."""
    _segyio(path)
    layout = _layout(path)
    return make_header(path, (layout.n_traces, layout.n_samples), "samples")


def traces(path: Path, components: tuple[str, ...]) -> NDArray[Any]:
    """The samples, of whatever number type."""
    header(path, components)
    layout = _layout(path)
    with _segyio(path).open(path, ignore_geometry=True, endian=layout.order) as file:
        if (file.tracecount, len(file.samples)) != (layout.n_traces, layout.n_samples):
            raise DataError(
                f"{path}: segyio finds {file.tracecount} traces of {len(file.samples)} samples, its header "
                f"{layout.n_traces} of {layout.n_samples}; export the file again"
            )
        return np.asarray(file.trace.raw[:])


def _segyio(path: Path) -> Any:
    try:
        import segyio
    except ImportError:
        raise DataError(f"{path}: SEG-Y needs segyio, which is not installed; pip install 'tunelab[segy]'") from None
    return segyio


def _layout(path: Path) -> _Layout:
    """What the header says, once it was found to agree with the size of the file."""
    with path.open("rb") as file:
        binary = file.read(_TEXT + _BINARY)[_TEXT:]
    if len(binary) < _BINARY:
        raise DataError(f"{path}: ends inside its header of {_TEXT + _BINARY:,} bytes; copy it again or leave it out")
    code, sign, order = struct.unpack_from(">h", binary, 24)[0], ">", "big"
    if code not in _WIDTHS:  # what is a code in one order of bytes is none in the other
        code, sign, order = struct.unpack_from("<h", binary, 24)[0], "<", "little"
    if code not in _WIDTHS:
        raise DataError(
            f"{path}: format code {binary[24:26].hex()} (bytes 3225 and 3226) is none of "
            f"{', '.join(map(str, _WIDTHS))}; export the file as IEEE float (5)"
        )
    (n_samples,) = struct.unpack_from(f"{sign}H", binary, 20)
    if n_samples == 0:
        (n_samples,) = struct.unpack_from(f"{sign}i", binary, 68)
    (extended,) = struct.unpack_from(f"{sign}h", binary, 304)
    if n_samples < 1 or extended < 0:
        raise DataError(
            f"{path}: {n_samples} samples a trace (byte 3221) and {extended} extended text headers (byte 3505) cannot "
            "be; export the file again, with both numbers written"
        )
    check_size(path, "a trace claims", (n_samples,), _WIDTHS[code])
    start = _TEXT + _BINARY + extended * _TEXT
    n_traces = whole_traces(path, start, _TRACE_HEADER + n_samples * _WIDTHS[code])
    return _Layout(order=order, n_traces=n_traces, n_samples=n_samples)
