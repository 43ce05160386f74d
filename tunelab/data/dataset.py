"""A data set in memory: scans, labels, lengths and the split of each scan. Reading and generating are elsewhere.

Shapes are (trace, sample) with the scans one after another; scans differ in length, and ``lengths``, never zeros,
says where one ends. Scans lie in the order of :data:`SPLITS`, so the part of each split is a slice and costs no copy.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from tunelab.errors import UsageError, did_you_mean

Number = TypeVar("Number", bound=np.generic)

SPLITS = ("train", "tune", "validation", "test")
"""train: weights; tune: threshold, early stopping, sampler; validation: ranking; test: once, for the finalists."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """The scans of one split; arrays are read-only views wherever the scans lie together."""

    traces: NDArray[np.float32]
    """Shape (trace, sample), the scans one after another."""
    labels: NDArray[np.int8]
    """0 or 1, shape (trace,)."""
    lengths: NDArray[np.int64]
    """Traces of each scan, shape (scan,)."""
    starts: NDArray[np.int64]
    """First row of each scan in ``traces``, shape (scan,)."""
    scans: tuple[str, ...]
    """Ids of the scans, in order."""

    @property
    def n_scans(self) -> int:
        """Number of scans."""
        return len(self.scans)

    @property
    def n_traces(self) -> int:
        """Number of traces of all scans together."""
        return int(self.labels.size)

    @property
    def positives(self) -> int:
        """Number of traces labelled 1."""
        return int(np.count_nonzero(self.labels))

    def scan_of_trace(self) -> NDArray[np.int64]:
        """Index into ``scans`` of each trace, shape (trace,)."""
        return np.repeat(np.arange(self.n_scans, dtype=np.int64), self.lengths)


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """Scans with labels and splits. Picklable; its arrays may be read-only views of shared memory."""

    traces: NDArray[np.float32]
    """Shape (trace, sample), the scans one after another."""
    labels: NDArray[np.int8]
    """0 or 1, shape (trace,)."""
    lengths: NDArray[np.int64]
    """Traces of each scan, shape (scan,)."""
    scans: tuple[str, ...]
    """Ids of the scans."""
    splits: tuple[str, ...]
    """The split of each scan, one of :data:`SPLITS`."""
    dt: float | None
    """Seconds between samples; None when unknown or mixed."""
    fingerprint: str
    """:func:`fingerprint_of` the scans: the same for any splits and any order."""
    source: str
    """What it was read from, as given."""
    notes: tuple[str, ...]
    """Messages for people: what was left out, and why."""

    def __post_init__(self) -> None:
        n = int(self.lengths.sum())
        if self.traces.ndim != 2 or self.traces.shape[0] != n or self.labels.shape != (n,):
            raise ValueError(f"{n} traces, but samples {self.traces.shape} and labels {self.labels.shape}")
        if not self.lengths.shape == (len(self.scans),) == (len(self.splits),):
            raise ValueError(f"{len(self.lengths)} lengths, {len(self.scans)} scans, {len(self.splits)} splits")

    @property
    def n_samples(self) -> int:
        """Samples of every trace."""
        return int(self.traces.shape[1])

    @property
    def n_scans(self) -> int:
        """Number of scans."""
        return len(self.scans)

    @property
    def n_traces(self) -> int:
        """Number of traces of all scans together."""
        return int(self.traces.shape[0])

    def part(self, split: str) -> Part:
        """The scans of one split, in order.

        Args:
            split: one of :data:`SPLITS`.

        Raises:
            UsageError: for another word.
        """
        if split not in SPLITS:
            raise UsageError(f"{split!r} is no split{did_you_mean(split, SPLITS)}")
        chosen = np.flatnonzero(np.array([name == split for name in self.splits], dtype=bool))
        ends = np.cumsum(self.lengths)
        begins = ends - self.lengths
        lengths = self.lengths[chosen]
        rows: slice | NDArray[np.intp]
        if chosen.size == 0:
            rows = slice(0, 0)
        elif chosen[-1] - chosen[0] + 1 == chosen.size:
            rows = slice(int(begins[chosen[0]]), int(ends[chosen[-1]]))
        else:
            rows = np.concatenate([np.arange(begins[i], ends[i]) for i in chosen])
        return Part(
            traces=self.traces[rows],
            labels=self.labels[rows],
            lengths=lengths,
            starts=np.cumsum(lengths) - lengths,
            scans=tuple(self.scans[i] for i in chosen),
        )


def split_order(scans: Sequence[str], splits: Sequence[str]) -> list[int]:
    """Positions of the scans ordered by split, then by id: the order in which a data set keeps them."""
    return sorted(range(len(scans)), key=lambda i: (SPLITS.index(splits[i]), scans[i]))


def make_dataset(
    *,
    traces: NDArray[np.float32],
    labels: NDArray[np.int8],
    lengths: NDArray[np.int64],
    scans: Sequence[str],
    splits: Sequence[str],
    dt: float | None,
    source: str,
    notes: Sequence[str] = (),
) -> Dataset:
    """A data set of arrays that are in :func:`split_order` already; takes read-only views of them, and no copy."""
    return Dataset(
        traces=_read_only(traces),
        labels=_read_only(labels),
        lengths=_read_only(lengths),
        scans=tuple(scans),
        splits=tuple(splits),
        dt=dt,
        fingerprint=fingerprint_of(scans, lengths, labels, traces),
        source=source,
        notes=tuple(notes),
    )


def fingerprint_of(
    scans: Sequence[str], lengths: NDArray[np.int64], labels: NDArray[np.int8], traces: NDArray[np.float32]
) -> str:
    """SHA-256, in hex, over id, length, labels and samples of every scan, the scans taken by id.

    Numbers are hashed as little-endian int64, int8 and float32, so that every machine finds the same value.

    Args:
        scans: ids, in the order of the arrays.
        lengths: traces of each scan, shape (scan,).
        labels: shape (trace,).
        traces: shape (trace, sample).
    """
    digest = hashlib.sha256(b"tunelab data set 1\n")
    ends = np.cumsum(lengths)
    for i in sorted(range(len(scans)), key=lambda k: scans[k]):
        rows = slice(int(ends[i] - lengths[i]), int(ends[i]))
        name = scans[i].encode()
        digest.update(np.array([len(name), lengths[i], traces.shape[1]], dtype="<i8").tobytes())
        digest.update(name)
        digest.update(np.ascontiguousarray(labels[rows], dtype=np.int8).data)
        digest.update(np.ascontiguousarray(traces[rows], dtype="<f4").data)
    return digest.hexdigest()


def _read_only(array: NDArray[Number]) -> NDArray[Number]:
    view = array.view()
    view.flags.writeable = False
    return view
