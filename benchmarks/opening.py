"""Opening a prepared data set, small and large: nothing of its samples is read, so size must not matter.

Measured in a process that has imported everything but opened nothing: the whole way of a search, from the source's
stamps to a data set with its splits. Two sizes of samples and two numbers of scans.
"""

from __future__ import annotations

import argparse

from benchmarks.sources import access, alternate, noise_folder, scratch, show
from tunelab.data import prepared
from tunelab.data.prepared import AS_RECORDED, Prepared
from tunelab.data.request import Progress


def main() -> None:
    """Print the time of opening each set."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scans", type=int, default=400, help="of the large set (default: %(default)s)")
    parser.add_argument("--many", type=int, default=20_000, help="scans of the set of many (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=9, help="times that each is opened (default: %(default)s)")
    args = parser.parse_args()
    sizes = {"large": (args.scans, 100, 10_057), "small": (args.scans, 100, 64), "many scans": (args.many, 4, 8)}
    sides = {}
    for name, (scans, traces, samples) in sizes.items():
        folder = scratch() / f"scans-{scans}x{traces}x{samples}"
        noise_folder(folder, scans, traces, samples)
        made = access(folder, scratch() / "cache-opening")
        made.ready(Progress())

        def opened(made: Prepared = made) -> None:
            prepared._opened.clear()
            made.open(AS_RECORDED)

        sides[f"{name}: {scans} x {traces} x {samples:,}"] = opened
    show(alternate(sides, args.rounds))


if __name__ == "__main__":
    main()
