"""Memory of processes that read one prepared data set side by side: mapped shards, against arrays of their own.

Every reader goes over all scans twice in a random order, batch by batch, and once all have done so says what memory
is its alone (unique set size: private pages, clean and dirty) and what it holds in proportion, pages that n processes
share counted 1/n. A single reader of mapped shards has all their pages to itself, clean ones that the kernel may drop;
from two on they are shared, and each further reader costs what is its own. No TensorFlow anywhere.
"""

from __future__ import annotations

import argparse
import subprocess
import sys

import numpy as np

from benchmarks.sources import access, memory, noise_folder, scratch
from tunelab.data.dataset import Dataset
from tunelab.data.prepared import AS_RECORDED, Prepared
from tunelab.data.request import Progress

BATCH, TRACES, SAMPLES = 8, 100, 10_057


def read(dataset: Dataset, *, own: bool) -> None:
    """Go over the data set as a trial would, and say what memory is private once all readers have."""
    longest = int(dataset.lengths.max())
    batch = np.zeros((BATCH, longest, dataset.n_samples), np.float32)
    held = [dataset.samples.read(i).copy() for i in range(dataset.n_scans)] if own else []
    rng = np.random.default_rng()
    for _ in range(2):
        for place, scan in enumerate(rng.permutation(dataset.n_scans)):
            traces = held[scan] if own else dataset.samples.read(int(scan))
            batch[place % BATCH, : len(traces)] = traces
    print("read", flush=True)
    sys.stdin.readline()
    print(*memory(), flush=True)
    sys.stdin.readline()


def main() -> None:
    """Print the private memory of readers, or be one of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scans", type=int, default=1_100, help="1,100 are 4.4 GB (default: %(default)s)")
    parser.add_argument("--copied", type=int, default=200, help="scans of the readers that copy (default: %(default)s)")
    parser.add_argument("--reader", choices=("mapped", "own"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.reader:
        read(prepared_noise(args.scans).open(AS_RECORDED), own=args.reader == "own")
        return
    buffer = BATCH * TRACES * SAMPLES * 4
    print(f"batch buffer of a reader: {buffer / 1e6:.0f} MB")
    for kind, scans in (("mapped", args.scans), ("own", args.copied)):
        prepared_noise(scans).ready(Progress())
        print(f"{kind}: data set of {scans * TRACES * SAMPLES * 4 / 1e9:.2f} GB")
        before = 0.0
        for count in (1, 2, 4):
            found = together(kind, count, scans)
            mine, all_of_them = sum(one for one, _ in found) / count, sum(share for _, share in found)
            further = (
                "" if count == 1 else f"; each further one {(all_of_them - before) / (count - count // 2) / 1e6:.0f} MB"
            )
            before = all_of_them
            print(
                f"  {count} readers: unique {mine / 1e6:,.0f} MB each, in proportion {all_of_them / 1e6:,.0f} MB "
                f"together{further}"
            )


def prepared_noise(scans: int) -> Prepared:
    """Access to so many scans of noise."""
    folder = scratch() / f"scans-{scans}x{TRACES}x{SAMPLES}"
    noise_folder(folder, scans, TRACES, SAMPLES)
    return access(folder, scratch() / "cache-readers")


def together(kind: str, count: int, scans: int) -> list[tuple[int, int]]:
    """What so many readers say of their memory while all of them have read everything."""
    command = [sys.executable, __file__, "--reader", kind, "--scans", str(scans)]
    readers = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(count)
    ]
    try:
        for reader in readers:
            said(reader)
        answers = []
        for reader in readers:
            unique, share = said(reader, "measure").split()
            answers.append((int(unique), int(share)))
    finally:
        for reader in readers:
            reader.communicate("end\n")
    return answers


def said(reader: subprocess.Popen[str], word: str = "") -> str:
    """The next line of a reader, once it was told a word."""
    if reader.stdin is None or reader.stdout is None:
        raise RuntimeError("a reader without pipes")
    if word:
        reader.stdin.write(f"{word}\n")
        reader.stdin.flush()
    line = reader.stdout.readline()
    if not line:
        raise RuntimeError(f"a reader ended early, with {reader.wait()}")
    return line


if __name__ == "__main__":
    main()
