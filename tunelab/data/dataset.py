"""A data set: labels, lengths and splits in memory, samples wherever they are. Reading and generating are elsewhere.

Shapes are (trace, sample) for a scan. Scans differ in length, and ``lengths``, never zeros, says where one ends.
Scans lie in the order of their ids; which shard, group and split each belongs to is told by a column, so that another
seed, or another fold, deals the same scans anew without touching a sample.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from tunelab.data.folds import places_of, splits_of_fold
from tunelab.data.samples import InMemory, Samples, digest_of, read_only, silent_traces
from tunelab.errors import UsageError, did_you_mean

SPLITS = ("train", "tune", "validation", "test")
"""train: weights; tune: threshold, early stopping, sampler; validation: ranking; test: once, for the finalists."""

SHARDS = 8
"""Shards of a data set that is not told its own, where it has as many scans and needs no more for its size."""
SHARD_BYTES = 2**28
"""Bytes of samples that such a shard holds at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """The scans of one split."""

    samples: Samples
    """Of the whole data set."""
    positions: NDArray[np.intp]
    """Of this part's scans in the data set, shape (scan,)."""
    labels: NDArray[np.int8]
    """0 or 1, the scans one after another, shape (trace,)."""
    lengths: NDArray[np.int64]
    """Traces of each scan, shape (scan,)."""
    starts: NDArray[np.int64]
    """First row of each scan in ``labels``, shape (scan,)."""
    scans: tuple[str, ...]
    """Ids of the scans, in order."""
    shards: NDArray[np.int64]
    """The shard of each scan, shape (scan,)."""
    channels: int = 1
    """As of :attr:`Dataset.channels`."""

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

    def read(self, scan: int) -> NDArray[np.float32]:
        """The samples of the part's scan of this number, shape (trace, sample); not to be written to."""
        return self.samples.read(int(self.positions[scan]))

    def labels_of(self, scan: int) -> NDArray[np.int8]:
        """The labels of the part's scan of this number, shape (trace,)."""
        return self.labels[self.starts[scan] : self.starts[scan] + self.lengths[scan]]

    def scan_of_trace(self) -> NDArray[np.int64]:
        """Index into ``scans`` of each trace, shape (trace,)."""
        return np.repeat(np.arange(self.n_scans, dtype=np.int64), self.lengths)


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """Scans with labels and splits."""

    samples: Samples
    labels: NDArray[np.int8]
    """0 or 1, the scans one after another, shape (trace,)."""
    lengths: NDArray[np.int64]
    """Traces of each scan, shape (scan,)."""
    scans: tuple[str, ...]
    """Ids of the scans, sorted."""
    groups: tuple[str, ...]
    """Scans of one group are not independent and never parted."""
    shards: NDArray[np.int64]
    """The shard of each scan, shape (scan,)."""
    splits: tuple[str, ...]
    """The split of each scan, one of :data:`SPLITS`; empty: in none (:mod:`tunelab.data.shares`)."""
    digests: tuple[str, ...]
    """:func:`digest_of` the samples of each scan, as recorded: before any preprocessing."""
    silent: NDArray[np.int64]
    """Traces of each scan that hold one value only, shape (scan,)."""
    dt: float | None
    """Seconds between samples; None when unknown or mixed."""
    source: str
    """What it was read from, as given."""
    notes: tuple[str, ...]
    """Messages for people: what was left out, and why."""
    folds: tuple[int, ...] = ()
    """The fold of each scan, from 0, and -1 for test scans; ``splits`` are then those of fold 0. Empty: four splits."""
    channels: int = 1
    """Joined along the samples of each trace, all of one length."""

    def __post_init__(self) -> None:
        n = len(self.scans)
        for name in ("lengths", "groups", "shards", "splits", "digests", "silent"):
            if len(getattr(self, name)) != n:
                raise ValueError(f"{n} scans, but {len(getattr(self, name))} {name}")
        if self.labels.shape != (int(self.lengths.sum()),):
            raise ValueError(f"{int(self.lengths.sum())} traces, but {self.labels.size} labels")
        if list(self.scans) != sorted(set(self.scans)):
            raise ValueError("scans are not sorted by id, or one stands twice")
        if self.folds and (len(self.folds) != n or self.splits != splits_of_fold(self.folds, 0)):
            raise ValueError(f"{n} scans, but {len(self.folds)} folds, or splits that are not those of fold 0")
        if self.n_samples % self.channels:
            raise ValueError(f"{self.n_samples} samples are not {self.channels} channels of one length")

    @property
    def n_samples(self) -> int:
        """Samples of every trace."""
        return self.samples.n_samples

    @property
    def n_scans(self) -> int:
        """Number of scans."""
        return len(self.scans)

    @property
    def n_traces(self) -> int:
        """Number of traces of all scans together."""
        return int(self.labels.size)

    @property
    def fingerprint(self) -> str:
        """SHA-256, in hex, over id, length, labels and recorded samples of every scan.

        The same for any splits, shards and preprocessing. Numbers are hashed as little-endian int64, int8 and float32,
        so that every machine finds the same value.
        """
        digest = hashlib.sha256(b"tunelab data set 2\n")
        ends = np.cumsum(self.lengths)
        for i, scan in enumerate(self.scans):
            name = scan.encode()
            digest.update(np.array([len(name), self.lengths[i]], dtype="<i8").tobytes())
            digest.update(name)
            digest.update(np.ascontiguousarray(self.labels[ends[i] - self.lengths[i] : ends[i]]).data)
            digest.update(bytes.fromhex(self.digests[i]))
        return digest.hexdigest()

    def with_splits(self, splits: Sequence[str]) -> Dataset:
        """The same scans, dealt in another way."""
        return replace(self, splits=tuple(splits), folds=())

    def with_folds(self, folds: Sequence[int]) -> Dataset:
        """The same scans, dealt to folds; the splits are then those of fold 0.

        Args:
            folds: of each scan, from 0 without a gap, and -1 for test scans; three at least.
        """
        return replace(self, splits=splits_of_fold(folds, 0), folds=tuple(folds))

    @property
    def n_folds(self) -> int:
        """Number of folds; 0 where there are the four splits alone."""
        return max(self.folds, default=-1) + 1

    def fold(self, k: int) -> Dataset:
        """The same scans with the four splits of fold ``k``; not cross-fitted itself.

        Raises:
            ValueError: there is no such fold.
        """
        return self.with_splits(splits_of_fold(self.folds, k))

    def judged(self) -> Part:
        """The scans that trials are ranked on: those of all folds, or else of the validation split."""
        return self._part([fold >= 0 for fold in self.folds]) if self.folds else self.part("validation")

    @property
    def dealt(self) -> str:
        """For people: ``cross-fitted over 5 folds of 43 scans, 8 test scans``, or the size of each of four splits."""
        if self.folds:
            test = self.folds.count(-1)
            return f"cross-fitted over {self.n_folds} folds of {self.n_scans - test} scans, {test} test scans"
        return "four splits: " + ", ".join(f"{split} {self.splits.count(split)}" for split in SPLITS)

    @property
    def places(self) -> tuple[str, ...]:
        """Where each scan was dealt: ``train``, or ``fold 3``."""
        return places_of(self.splits, self.folds)

    def positives_of_scans(self) -> NDArray[np.int64]:
        """Traces labelled 1 of each scan, shape (scan,)."""
        return np.add.reduceat(self.labels, np.cumsum(self.lengths) - self.lengths, dtype=np.int64)

    def part(self, split: str) -> Part:
        """The scans of one split, in order.

        Args:
            split: one of :data:`SPLITS`.

        Raises:
            UsageError: for another word.
        """
        if split not in SPLITS:
            raise UsageError(f"{split!r} is no split{did_you_mean(split, SPLITS)}")
        return self._part([name == split for name in self.splits])

    def _part(self, wanted: Sequence[bool]) -> Part:
        """The scans that are wanted, in order."""
        member = np.array(wanted, dtype=bool)
        chosen = np.flatnonzero(member)
        lengths = self.lengths[chosen]
        return Part(
            samples=self.samples,
            positions=chosen,
            labels=read_only(self.labels[np.repeat(member, self.lengths)]),
            lengths=lengths,
            starts=np.cumsum(lengths) - lengths,
            scans=tuple(self.scans[i] for i in chosen),
            shards=self.shards[chosen],
            channels=self.channels,
        )


def make_dataset(
    *,
    scans: Mapping[str, NDArray[np.float32]],
    labels: Mapping[str, NDArray[np.int8]],
    splits: Mapping[str, str],
    dt: float | None,
    source: str,
    groups: Mapping[str, str] | None = None,
    notes: Sequence[str] = (),
) -> Dataset:
    """A data set in memory.

    Args:
        scans: samples by id, each (trace, sample).
        labels: 0 or 1 by id, each (trace,).
        splits: by id.
        dt: seconds between samples, if known.
        source: what to call its origin.
        groups: by id; None: each scan alone.
        notes: messages for people.
    """
    ids = sorted(scans)
    lengths = np.array([len(scans[i]) for i in ids], dtype=np.int64)
    traces = np.concatenate([scans[i] for i in ids])
    return Dataset(
        samples=InMemory(traces=read_only(traces), lengths=read_only(lengths)),
        labels=read_only(np.concatenate([labels[i] for i in ids])),
        lengths=read_only(lengths),
        scans=tuple(ids),
        groups=tuple(groups[i] if groups else i for i in ids),
        shards=read_only(deal_shards(lengths * traces.shape[1] * traces.itemsize)),
        splits=tuple(splits[i] for i in ids),
        digests=tuple(digest_of(scans[i]) for i in ids),
        silent=np.array([silent_traces(scans[i]) for i in ids], dtype=np.int64),
        dt=dt,
        source=source,
        notes=tuple(notes),
    )


def deal_shards(sizes: NDArray[np.int64]) -> NDArray[np.int64]:
    """The shard of each scan: runs of neighbours, about equally large.

    Args:
        sizes: bytes of each scan, shape (scan,), at least 1.

    Returns:
        From 0 without a gap, shape (scan,): :data:`SHARDS` of them, more where they would exceed
        :data:`SHARD_BYTES`, never more than scans.
    """
    count = min(len(sizes), max(SHARDS, math.ceil(int(sizes.sum()) / SHARD_BYTES)))
    middle = np.cumsum(sizes) - sizes / 2
    _, shards = np.unique((middle * count // sizes.sum()).astype(np.int64), return_inverse=True)
    return shards.astype(np.int64)
