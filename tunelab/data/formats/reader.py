"""What a reader of a format offers, and what it tells of a scan: two verbs and a header. No format is read here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from tunelab.data.formats.guard import check_size
from tunelab.errors import DataError


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
    channels: int = 1
    """Recordings of one trace that follow each other along its samples, equally long."""


class Reader(Protocol):
    """A format: a module with these two functions. Both may raise what a damaged file makes libraries raise."""

    def header(self, path: Path, components: tuple[str, ...]) -> Header:
        """Shape, interval and labels, without the samples."""

    def traces(self, path: Path, components: tuple[str, ...]) -> NDArray[Any]:
        """The samples, shape (trace, sample), of any number type."""


def make_header(
    path: Path,
    shape: tuple[int, ...],
    field: str,
    *,
    dt: float | None = None,
    labels: NDArray[np.int8] | None = None,
) -> Header:
    """A header, once its shape was found to be that of a scan.

    Args:
        path: the file, for messages.
        shape: (trace, sample).
        field: where the samples lie.
        dt: seconds between samples.
        labels: shape (trace,).

    Raises:
        DataError: for a shape that is none, or too large.
    """
    if len(shape) != 2 or 0 in shape:
        raise DataError(f"{path}: {field} has shape {shape}; a scan has traces and samples, and at least one each")
    if shape[1] < 2:
        raise DataError(f"{path}: {field} has {shape[1]} sample a trace; at least 2 are needed")
    check_size(path, f"{field} claims", shape, 4)
    return Header(n_traces=int(shape[0]), n_samples=int(shape[1]), dt=dt, labels=labels, field=field)
