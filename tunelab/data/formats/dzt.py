"""GSSI RADAN files (``.DZT``) of SIR systems.

The first 1,024 bytes are a header, little-endian: ``rh_tag`` (low byte 0xff), ``rh_data``, ``rh_nsamp``, ``rh_bits``,
``rh_zero`` (16 bits each), five float32 of which the last is the range in ns (byte 26), and at byte 52 ``rh_nchan``.
The traces start at 1,024 x ``rh_data`` when that is below 1,024, otherwise at 1,024 x ``rh_nchan``. Samples of 8 and
16 bits are unsigned around the middle of their range, which is subtracted (``rh_zero`` means something else on newer
systems); those of 32 bits are signed.

Decided here: the first two samples of a trace hold marks in most files, before the pulse in all, so both get the value
of the third. The channels of a trace follow each other, and stay joined along its samples. The interval is the range
over the samples of a channel. A header does not count traces: a file cut between two of them looks whole.

Layout: RADAN DZT File Format, Geophysical Survey Systems, 14 June 2016; the marks as github.com/emanuelhuber/RGPR
reads them.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tunelab.data.formats.guard import radar_interval, whole_traces
from tunelab.data.formats.reader import Header, make_header
from tunelab.errors import DataError

_BLOCK = 1024
_MARKS = 2
_TYPES = {8: "<u1", 16: "<u2", 32: "<i4"}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Layout:
    start: int
    """Bytes before the first trace."""
    n_traces: int
    channels: int
    n_samples: int
    """Of one channel."""
    bits: int
    range_ns: float


def header(path: Path, components: tuple[str, ...]) -> Header:
    """Shape and interval."""
    layout = _layout(path)
    dt = None
    if layout.range_ns != 0:
        dt = radar_interval(path, "rhf_range", layout.range_ns * 1e-9 / layout.n_samples)
    one = make_header(path, (layout.n_traces, layout.channels * layout.n_samples), "samples", dt=dt)
    return replace(one, channels=layout.channels)


def traces(path: Path, components: tuple[str, ...]) -> NDArray[Any]:
    """The samples around 0, the marks replaced."""
    header(path, components)
    layout = _layout(path)
    count = layout.n_traces * layout.channels * layout.n_samples
    stored = np.fromfile(path, _TYPES[layout.bits], count=count, offset=layout.start)
    samples = stored.reshape(layout.n_traces, layout.channels, layout.n_samples).astype(np.float32)
    if layout.bits != 32:
        samples -= np.float32(2 ** (layout.bits - 1))
    samples[..., :_MARKS] = samples[..., _MARKS : _MARKS + 1]
    return samples.reshape(layout.n_traces, -1)


def _layout(path: Path) -> _Layout:
    with path.open("rb") as file:
        block = file.read(_BLOCK)
    if len(block) < _BLOCK:
        raise DataError(f"{path}: ends inside its header of {_BLOCK:,} bytes; copy it again or leave it out")
    tag, data, n_samples, bits = struct.unpack_from("<4H", block)
    (range_ns,) = struct.unpack_from("<f", block, 26)
    (channels,) = struct.unpack_from("<H", block, 52)
    if tag & 0xFF != 0xFF or bits not in _TYPES or channels < 1 or n_samples <= _MARKS or data < 1:
        raise DataError(
            f"{path}: rh_tag {tag:#06x}, rh_data {data}, rh_nsamp {n_samples}, rh_bits {bits}, rh_nchan {channels} are "
            f"no header of a DZT file (tag 0x..ff, 8, 16 or 32 bits, a channel, over {_MARKS} samples); copy it again"
        )
    start = _BLOCK * (data if data < _BLOCK else channels)
    n_traces = whole_traces(path, start, channels * n_samples * bits // 8)
    return _Layout(start=start, n_traces=n_traces, channels=channels, n_samples=n_samples, bits=bits, range_ns=range_ns)
