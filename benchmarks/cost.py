"""What a model costs by its params, against the time that its training takes: ``python -m benchmarks.cost``.

For each family, small and large, the multiplications that :func:`tunelab.models.cost_of` tells, and the median time of
a training step on one core, the models in turns. Multiplications a second say how far the number can be relied on: it
counts products with kernels alone, so recurrent layers, whose products are small and one after another, take longer.
"""

from __future__ import annotations

import argparse
import time
from statistics import median
from typing import Any

import numpy as np
from scipy.stats import spearmanr

from tunelab import backend
from tunelab.compiled import compiled_for, train
from tunelab.models import cost_of, normalise, outline
from tunelab.models.layers import wants_moments

FRONT = {"kind": "convolution", "filters": [16, 24, 32], "traces": 3, "units": 64}
REST = {"dropout": 0.2, "l2": 1e-5}


class Owner:
    """Whoever holds a model."""


MODELS: tuple[dict[str, Any], ...] = (
    {"family": "simple_rnn", "units": [100]},
    {"family": "dense_rnn", "dense": [200, 100], "units": [100]},
    {"family": "lstm", "units": [64]},
    {"family": "lstm", "units": [200, 200]},
    {"family": "birnn", "front": {"kind": "dense", "units": 64}, "units": [48]},
    {"family": "birnn", "front": FRONT, "units": [48]},
    {"family": "conv2d_rnn", "filters": [8, 16, 24], "pool": 2, "units": [32]},
    {"family": "conv2d_rnn", "filters": [16, 24, 32, 32], "pool": 2, "units": [48]},
    {"family": "tcn", "front": FRONT, "filters": 48, "blocks": 3},
    {"family": "unet1d", "front": FRONT, "filters": [32, 48, 64]},
    {"family": "transformer", "front": FRONT, "blocks": 2},
    {"family": "transformer", "front": {**FRONT, "traces": 1}, "blocks": 1},
)


def main() -> None:
    """Print the table and the rank correlation of multiplications and time."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scans", type=int, default=8, help="of a batch")
    parser.add_argument("--traces", type=int, default=50)
    parser.add_argument("--samples", type=int, default=212)
    parser.add_argument("--rounds", type=int, default=9)
    args = parser.parse_args()
    backend.configure(1, 0)
    rng = np.random.default_rng(0)
    traces = rng.normal(size=(args.scans, args.traces, args.samples)).astype(np.float32)
    labels = (rng.random(traces.shape[:2]) < 0.12).astype(np.int32)
    inputs = {"traces": traces, "lengths": np.full(args.scans, args.traces, np.int32)}
    moments = np.stack((traces.mean(axis=1), traces.std(axis=1)), axis=1)
    held = []
    for raw in MODELS:
        params = normalise({**raw, **REST})
        owner = Owner()
        model = compiled_for(owner, params, args.samples, None, 0)
        batch = (
            {**inputs, "moments": moments} if wants_moments(model) else inputs,
            labels,
            np.ones(labels.shape, "f4"),
        )
        train(model, batch)
        held.append((params, owner, model, batch, []))
    for turn in range(args.rounds):
        for _, _, model, batch, times in held[:: 1 if turn % 2 == 0 else -1]:
            begun = time.perf_counter()
            train(model, batch)
            times.append(time.perf_counter() - begun)
    print("| family | layers | parameters | multiplications a trace | recurrences | step, ms | 10^9 a second |")
    print("|---|---|---|---|---|---|---|")
    costs, steps = [], []
    for params, _, _, _, times in held:
        cost = cost_of(params, args.samples)
        assert cost is not None
        step = median(times)
        costs.append(cost.multiplications)
        steps.append(step)
        rate = 3 * cost.multiplications * labels.size / step / 1e9
        print(
            f"| {params['family']} | {outline(params)} | {cost.parameters:,} | {cost.multiplications:,} | "
            f"{cost.recurrences} | {1e3 * step:.1f} | {rate:.1f} |"
        )
    print(f"Spearman of multiplications and time: {spearmanr(costs, steps).statistic:.2f}")


if __name__ == "__main__":
    main()
