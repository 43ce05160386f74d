"""Preparing a data set: one process that reads, checks, sums, writes and hashes scan by scan, against two workers.

The one-process loop calls the same function for every shard, without a pool. Both sides write a new entry each time,
to disk with fsync, and end with the same bytes. Sources lie in the page cache. Compressed scans, as most recordings
are, keep a core busy; plain ones are a test of the disk as well.
"""

from __future__ import annotations

import argparse
import shutil

import numpy as np

from benchmarks.sources import access, alternate, noise_folder, scratch, show
from tunelab.data.request import Progress


def main() -> None:
    """Print both sides for compressed and for plain scans."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scans", type=int, default=400, help="how many (default: %(default)s)")
    parser.add_argument("--traces", type=int, default=100, help="of each (default: %(default)s)")
    parser.add_argument("--samples", type=int, default=10_057, help="of each trace (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="times that each side runs (default: %(default)s)")
    args = parser.parse_args()
    for compressed in (True, False):
        folder = scratch() / f"scans-{args.scans}x{args.traces}x{args.samples}{'-gzip' if compressed else ''}"
        noise_folder(folder, args.scans, args.traces, args.samples, compressed=compressed)
        for path in folder.iterdir():
            path.read_bytes()
        cache = scratch() / "cache-prepare"

        def side(workers: int, folder=folder, cache=cache) -> None:
            shutil.rmtree(cache, ignore_errors=True)
            access(folder, cache, workers).ready(Progress())

        size = args.scans * args.traces * args.samples * np.dtype(np.float32).itemsize
        print(f"{'compressed' if compressed else 'plain'} scans, {size / 1e9:.2f} GB of samples")
        show(
            alternate(
                {"one process, a plain loop": lambda s=side: s(1), "two workers": lambda s=side: s(2)}, args.rounds
            )
        )
        shutil.rmtree(cache)


if __name__ == "__main__":  # workers import this file again
    main()
