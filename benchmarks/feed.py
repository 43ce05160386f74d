"""Epochs fed from the cache's mapped shards, against the same epochs fed from arrays in memory.

The same model, seed and order on both sides, so that every epoch computes the same numbers; they take turns. The
first epoch of each, which compiles and which verifies the shards, is left out.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import Any

import numpy as np

from benchmarks.sources import access, alternate, noise_folder, scratch, show
from tunelab.backend import configure
from tunelab.data.dataset import Dataset
from tunelab.data.prepared import AS_RECORDED
from tunelab.data.request import Progress
from tunelab.data.samples import InMemory
from tunelab.models import normalise
from tunelab.training import Schedule, Training

MODELS: dict[str, dict[str, Any]] = {
    "dense_rnn": {"dense": [32], "units": [32], "dropout": 0.1, "l2": 1e-4},
    "lstm": {"units": [32], "dropout": 0.1, "l2": 1e-4},
}


def in_memory(dataset: Dataset) -> Dataset:
    """The same data set with its samples in an array."""
    traces = np.concatenate([dataset.samples.read(i) for i in range(dataset.n_scans)])
    return replace(dataset, samples=InMemory(traces=traces, lengths=dataset.lengths))


def main() -> None:
    """Print both sides for two families."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scans", type=int, default=100, help="how many (default: %(default)s)")
    parser.add_argument("--samples", type=int, default=10_057, help="of each trace (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=7, help="epochs of each side (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="cores of a trial (default: %(default)s)")
    args = parser.parse_args()
    configure(args.threads, 0)
    folder = scratch() / f"scans-{args.scans}x100x{args.samples}"
    noise_folder(folder, args.scans, 100, args.samples)
    mapped = access(folder, scratch() / "cache-feed").ready(Progress()).datasets[AS_RECORDED]
    for family, params in MODELS.items():
        full = normalise({"family": family, **params, "batch_size": 8})
        schedule = Schedule(max_epochs=1_000, patience=1_000, seed=0)
        sides = {"cache": Training(full, mapped, schedule), "memory": Training(full, in_memory(mapped), schedule)}
        first = [training.run_epoch().metrics["loss"] for training in sides.values()]
        print(f"{family}, {args.scans} scans x 100 x {args.samples:,}; first losses {first[0]:.6f}, {first[1]:.6f}")
        show(alternate({name: training.run_epoch for name, training in sides.items()}, args.rounds))


if __name__ == "__main__":
    main()
