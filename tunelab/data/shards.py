"""The samples of a prepared data set: shards on disk, mapped into memory, each verified at its first use in a process.

Mapped pages belong to the page cache, so all processes of a node share them and none owns a copy. Opening touches no
shard. A holder is pickled as a path and a few columns.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from tunelab.data.manifest import Manifest, check_digest, moments_name, shard_name
from tunelab.data.samples import Moments, read_only
from tunelab.errors import StateError

DType = Literal["float32", "float16"]
STORED: dict[DType, np.dtype[Any]] = {"float32": np.dtype("<f4"), "float16": np.dtype("<f2")}
_MOMENTS = np.dtype("<f4")

# path and digest -> the array: what this process has verified and mapped
_verified: dict[tuple[str, str], NDArray[Any]] = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Sharded:
    """Samples in shards; a :class:`~tunelab.data.samples.Samples`."""

    folder: Path
    dtype: DType
    width: int
    """Samples of every trace."""
    shards: NDArray[np.int64]
    """The shard of each scan, shape (scan,)."""
    rows: NDArray[np.int64]
    """The scan's first trace within its shard, shape (scan,)."""
    ranks: NDArray[np.int64]
    """The scan's place among the scans of its shard, shape (scan,)."""
    lengths: NDArray[np.int64]
    """Traces, shape (scan,)."""
    exponents: NDArray[np.int32]
    """Stored samples times two to this power are the samples, shape (scan,)."""
    digests: dict[str, str]
    """SHA-256 by file."""

    @property
    def n_samples(self) -> int:
        """See :class:`~tunelab.data.samples.Samples`."""
        return self.width

    def read(self, scan: int) -> NDArray[np.float32]:
        """See :class:`~tunelab.data.samples.Samples`; a view of the shard in float32, a new array in float16.

        Raises:
            StateError: the shard is not the one that was written.
        """
        shard = self._map(shard_name(int(self.shards[scan])), STORED[self.dtype]).reshape(-1, self.width)
        stored: NDArray[np.float32] = shard[self.rows[scan] : self.rows[scan] + self.lengths[scan]]
        if self.dtype == "float32":
            return stored
        widened: NDArray[np.float32] = np.ldexp(stored.astype(np.float32), self.exponents[scan])
        return widened

    def moments(self, scans: NDArray[np.intp]) -> Moments:
        """See :class:`~tunelab.data.samples.Samples`; read from disk, not computed."""
        return np.stack(
            [
                self._map(moments_name(int(self.shards[scan])), _MOMENTS).reshape(-1, 2, self.width)[self.ranks[scan]]
                for scan in scans
            ]
        )

    def verify(self) -> None:
        """Compare every file with its digest, also those that this process has verified before.

        Raises:
            StateError: one is not what was written.
        """
        for name, digest in self.digests.items():
            check_digest(self.folder / name, digest)

    def _map(self, name: str, dtype: np.dtype[Any]) -> NDArray[Any]:
        path, digest = self.folder / name, self.digests[name]
        key = (str(path), digest)
        if key not in _verified:
            # mapped first: what is verified is what is used, also when the entry is removed in between
            try:
                mapped = np.memmap(path, dtype, "r").view(np.ndarray)
            except (OSError, ValueError) as error:
                raise StateError(f"{path}: cannot be mapped: {error}; prepare the data set again") from error
            check_digest(path, digest)
            _verified[key] = read_only(mapped)
        return _verified[key]


def open_samples(folder: Path, manifest: Manifest) -> Sharded:
    """The samples that a manifest describes; no shard is touched."""
    shards = np.array(manifest.scans.shard, dtype=np.int64)
    # scans lie by id, shards may be any runs of them: a scan's rank is how many of its shard came before
    order = np.argsort(shards, kind="stable")
    first = np.searchsorted(shards[order], shards[order])
    ranks = np.empty_like(shards)
    ranks[order] = np.arange(len(shards)) - first
    return Sharded(
        folder=folder,
        dtype=manifest.dtype,
        width=manifest.samples,
        shards=shards,
        rows=np.array(manifest.scans.row, dtype=np.int64),
        ranks=ranks,
        lengths=np.array(manifest.scans.traces, dtype=np.int64),
        exponents=np.array(manifest.scans.exponent, dtype=np.int32),
        digests={name: facts.sha256 for name, facts in manifest.files.items()},
    )
