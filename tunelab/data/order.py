"""In which order scans are read, and which of them share a batch. Numpy only; no sample is read here.

A scan is named by its number in a part. Scans of about one length share a batch, so that little of it is padding;
shards are read a window of them at a time, so that a data set larger than memory is never jumped about in.
Everything random comes from the seed that is given: the same on every machine.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tunelab.data.dataset import Part

Scans = NDArray[np.intp]
"""Numbers of scans in a part, shape (scan,)."""

WINDOW_BYTES = 2**31
"""Bytes of samples among which scans are shuffled; a part below it is shuffled as a whole. A constant, not a share of
the machine's memory, which would make results depend on the machine."""
POOL_BATCHES = 32
"""Batches, about, whose scans are sorted by length together: more would tie scans of one length to each other for all
epochs, fewer would pad more."""
LENGTHS = 25
"""Lengths that batches of one data set may have, at most: a framework that compiles shapes (XLA) compiles each anew."""


def padded_lengths(lengths: NDArray[np.int64], longest: int) -> NDArray[np.int64]:
    """What scans are padded to at least: one of :data:`LENGTHS` lengths, evenly apart.

    Args:
        lengths: traces of each scan, shape (scan,).
        longest: traces of the longest scan of the data set; nothing is padded further.
    """
    step = math.ceil(longest / LENGTHS)
    return np.minimum(-(-lengths // step) * step, longest)


def training_batches(
    part: Part, scans: Scans, *, size: int, longest: int, seed: Sequence[int], window_bytes: int = WINDOW_BYTES
) -> list[Scans]:
    """Each scan once, shuffled: the shards, the scans of as many of them as a window holds, and their batches.

    Within a window the shuffled scans are parted into pools of about :data:`POOL_BATCHES` batches; each pool is
    sorted by padded length (so scans that would be padded alike stay shuffled) and cut into batches, and the batches
    are shuffled. A batch never reaches across two windows; the last one cut of a window may hold fewer scans, and it
    may be of any length.

    Args:
        part: what the scans are of.
        scans: those to train on.
        size: scans in a batch.
        longest: traces of the longest scan of the data set.
        seed: fixes everything random here.
        window_bytes: bytes of samples that a window holds at most, unless one shard alone holds more.
    """
    rng = np.random.default_rng(list(seed))
    shards = rng.permutation(np.unique(part.shards[scans]))
    batches: list[Scans] = []
    for window in windows(part, scans, shards, window_bytes):
        cut: list[Scans] = []
        for pool in _pools(rng.permutation(window), size):
            by_length = pool[np.argsort(padded_lengths(part.lengths[pool], longest), kind="stable")]
            cut += _cut(by_length, size, short=int(rng.integers(math.ceil(len(pool) / size))))
        batches += [cut[i] for i in rng.permutation(len(cut))]
    return batches


def reading_batches(part: Part, *, size: int, longest: int, window_bytes: int = WINDOW_BYTES) -> list[Scans]:
    """Each scan of a part once, with the least padding: the same windows, their shards in order, sorted by length.

    Args:
        part: of which scans.
        size: scans in a batch.
        longest: traces of the longest scan of the data set.
        window_bytes: as in :func:`training_batches`.
    """
    everything = np.arange(part.n_scans)
    batches: list[Scans] = []
    for window in windows(part, everything, np.unique(part.shards), window_bytes):
        # the longest first: what does not fit into memory fails at once
        by_length = window[np.argsort(-padded_lengths(part.lengths[window], longest), kind="stable")]
        batches += _cut(by_length, size, short=len(by_length) // size)
    return batches


def windows(part: Part, scans: Scans, shards: NDArray[np.int64], window_bytes: int) -> list[Scans]:
    """The scans of as many shards at a time as fit, at least one, the shards in the order given.

    Args:
        part: what the scans are of.
        scans: which of them.
        shards: every shard of theirs once, shape (shard,).
        window_bytes: bytes of samples that a window holds at most, unless one shard alone holds more.
    """
    found: list[list[Scans]] = []
    left = 0
    # sorted once, so that shards of a scan each are not searched for in all scans
    of = part.shards[scans]
    by_shard = np.argsort(of, kind="stable")
    scans, of = scans[by_shard], of[by_shard]
    ends = np.append(0, np.cumsum(part.lengths[scans])) * part.samples.n_samples * np.dtype(np.float32).itemsize
    for first, last in zip(np.searchsorted(of, shards), np.searchsorted(of, shards, "right"), strict=True):
        size = int(ends[last] - ends[first])
        if not found or size > left:
            found.append([])
            left = window_bytes
        found[-1].append(scans[first:last])
        left -= size
    return [np.concatenate(window) for window in found]


def _pools(scans: Scans, size: int) -> list[Scans]:
    """Equal shares of about :data:`POOL_BATCHES` batches, so that no pool is too small to sort."""
    batches = math.ceil(len(scans) / size)
    pools = max(1, round(batches / POOL_BATCHES))
    return np.split(scans, [size * (batches * i // pools) for i in range(1, pools)])


def _cut(scans: Scans, size: int, *, short: int) -> list[Scans]:
    """Batches of neighbours; number ``short`` is the one that holds fewer scans, where they do not divide.

    Its place decides where all others are cut, so where it is drawn anew the same neighbours do not meet every epoch.
    """
    rest = len(scans) % size
    sizes = [size] * (len(scans) // size)
    if rest:
        sizes.insert(short, rest)
    return np.split(scans, np.cumsum(sizes)[:-1])
