"""What every reader holds against a file before it believes it: damage becomes one error, sizes stay within bounds.

A claim of a file (shape, count, interval) is compared with the bytes that are there before memory is asked for. This
module knows no format; the guards of HDF5 are in ``hdf5``, those of companions in ``companion``.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tunelab.errors import DataError
from tunelab.npy import DAMAGE

MAX_SCAN_BYTES = 2**28
"""Most bytes of one scan in memory: 67 million float32 samples, some 60 times 100 traces of 10,057 samples."""


@contextmanager
def damage(path: Path) -> Iterator[None]:
    """Turns what libraries raise on damaged files into one error that names the file.

    Raises:
        DataError: also for what is no plain file: opening a pipe would wait for ever.
    """
    if not path.is_file():
        raise DataError(f"{path}: {'no plain' if path.exists() else 'no such'} file; correct the name, or put it there")
    try:
        yield
    except DAMAGE as error:
        cause = " ".join(str(error).split())[:160] or type(error).__name__
        raise DataError(
            f"{path}: cannot be read ({cause}); the file is damaged or of another format: copy it again or leave it out"
        ) from error


def check_size(path: Path, what: str, shape: tuple[int, ...], itemsize: int) -> None:
    """Refuses what would not fit into ``MAX_SCAN_BYTES``.

    Args:
        path: the file, for the message.
        what: what claims the shape, with its verb.
        shape: the claim.
        itemsize: bytes of one value.
    """
    if min(shape, default=0) < 0:
        raise DataError(f"{path}: {what} {shape} values, and none can be negative; write the file again")
    size = int(np.prod(shape, dtype=object)) * itemsize
    if size > MAX_SCAN_BYTES:
        raise DataError(
            f"{path}: {what} {' x '.join(f'{n:,}' for n in shape)} x {itemsize} bytes = {size:,}, more than the "
            f"{MAX_SCAN_BYTES:,} of one scan; cut the recording into several scans"
        )


def whole_traces(path: Path, start: int, trace: int) -> int:
    """How many traces lie between ``start`` and the end of a file whose header does not count them.

    Args:
        path: the file.
        start: bytes before the first trace.
        trace: bytes of one trace.

    Raises:
        DataError: when there is none, or when the file ends inside a trace.
    """
    size = path.stat().st_size
    traces, rest = divmod(size - start, trace)
    if traces < 1 or rest:
        raise DataError(
            f"{path}: holds {size:,} bytes, and {start:,} + a whole number of traces of {trace:,} bytes are expected; "
            "the file was cut or its header is damaged: copy it again or leave it out"
        )
    return traces


def seconds(path: Path, dt: Any) -> float | None:
    """The interval that a file of arrays gives, as a positive number; None stays None."""
    if dt is None:
        return None
    value = np.asarray(dt)
    if value.size != 1 or value.dtype.kind not in "fiu" or not np.isfinite(value).all() or value.item() <= 0:
        raise DataError(f"{path}: dt is no positive number of seconds; correct it, or leave it out")
    return float(value.item())


def radar_interval(path: Path, field: str, dt: float) -> float:
    """The interval that an instrument gives, once it is one that a radar can have.

    Radars sample every 1 ps to 100 ns; three orders of magnitude either way are let through, damage is not.
    """
    if not 1e-15 <= dt <= 1e-4:
        raise DataError(
            f"{path}: {field} makes {dt:.3g} s between samples, and a radar's lie between 1e-15 and 1e-4; "
            "correct the header, or copy the file again"
        )
    return dt


def checked_labels(path: Path, y: NDArray[Any], n_traces: int) -> NDArray[np.int8]:
    """The labels of a file as 0 and 1, shape (trace,)."""
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


def check_finite(path: Path, field: str, traces: NDArray[np.float32]) -> None:
    """Refuses samples that are NaN or infinite, and says where the first is."""
    finite = np.isfinite(traces)
    if not finite.all():
        bad = np.argwhere(~finite)
        raise DataError(
            f"{path}: {field} holds {len(bad):,} samples that are NaN, infinite or beyond float32, first at trace "
            f"{bad[0][0]}, sample {bad[0][1]}; correct them, or leave the scan out"
        )
