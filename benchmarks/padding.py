"""How much of a batch is padding: all batches of one length, as before, and batches of the length of their scans.

Prints the share of padded traces in an epoch for scans of uniformly drawn lengths, as mean and range over seeds. It is
arithmetic on the batches that training makes; nothing is timed and no sample exists. Every padded trace is computed
like a valid one, so one length for all costs up to the share shown more than it must.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tunelab.data.dataset import Part
from tunelab.data.order import padded_lengths, training_batches
from tunelab.data.samples import Moments


@dataclass(frozen=True, slots=True, kw_only=True)
class Unread:
    """Samples that are only counted."""

    n_samples: int = 1

    def read(self, scan: int) -> NDArray[np.float32]:
        """Never called: which scans share a batch is decided by their lengths."""
        raise LookupError(f"scan {scan} has no samples")

    def moments(self, scans: NDArray[np.intp]) -> Moments:
        """Never called either."""
        raise LookupError(f"scans {scans} have no samples")


def part_of(lengths: NDArray[np.int64]) -> Part:
    """Scans of these lengths, all in one shard."""
    return Part(
        samples=Unread(),
        positions=np.arange(len(lengths)),
        labels=np.zeros(int(lengths.sum()), np.int8),
        lengths=lengths,
        starts=np.cumsum(lengths) - lengths,
        scans=tuple(f"{i:06}" for i in range(len(lengths))),
        shards=np.zeros(len(lengths), np.int64),
    )


def wastes(lengths: NDArray[np.int64], size: int, seed: int, longest: int) -> tuple[float, float]:
    """Shares of padded traces in an epoch: one length for all, and length-aware."""
    part = part_of(lengths)
    batches = training_batches(part, np.arange(len(lengths)), size=size, longest=longest, seed=(seed, 0))
    computed = sum(len(scans) * int(padded_lengths(lengths[scans], longest).max()) for scans in batches)
    return 1 - part.n_traces / (len(lengths) * longest), 1 - part.n_traces / computed


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scans", type=int, default=640, help="training scans (default: %(default)s)")
    parser.add_argument("--shortest", type=int, default=30, help="traces of the shortest scan (default: %(default)s)")
    parser.add_argument("--longest", type=int, default=100, help="traces of the longest scan (default: %(default)s)")
    parser.add_argument("--seeds", type=int, default=5, help="draws of lengths and orders (default: %(default)s)")
    parser.add_argument("--sizes", type=int, nargs="+", default=[8, 16, 32], help="batch sizes (default: 8 16 32)")
    args = parser.parse_args()
    print(f"{args.scans} scans of {args.shortest} to {args.longest} traces, {args.seeds} seeds; padding of an epoch:")
    print(f"batch size   {'one length for all':23}   length-aware")
    for size in args.sizes:
        found = []
        for seed in range(args.seeds):
            drawn = np.random.default_rng(seed).integers(args.shortest, args.longest + 1, args.scans)
            found.append(wastes(drawn, size, seed, args.longest))
        before, after = (
            f"{np.mean(side):6.1%} ({min(side):.1%} to {max(side):.1%})" for side in zip(*found, strict=True)
        )
        print(f"{size:10}   {before}   {after}")


if __name__ == "__main__":
    main()
