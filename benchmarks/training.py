"""Timesteps a second: tunelab's training against plain Keras as a competent user writes it, in alternating rounds.

The structures, l2 and dropout are those of the log that tunelab replaces, on 100 traces of 10,057 samples. Plain Keras
is ``fit(numpy, batch_size=..., shuffle=True)`` on Masking, BatchNormalization and the recurrent layers; for conv_rnn
the traces are folded into the batch by a reshape, which is far faster than TimeDistributed. A round of each side is an
epoch over the same scans; the first, which compiles, is left out and reported as bring-up.

The limit is the arithmetic of matrix products alone (forwards, gradients of kernels, and of inputs but the data), at
the rate of this machine's product of two square matrices on the same threads.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median
from typing import Any

import keras
import numpy as np
from keras import layers as kl

from benchmarks.sources import alternate
from tunelab.backend import configure
from tunelab.compiled import clear, compiled_for, train
from tunelab.data.batches import Batches, Feed
from tunelab.data.dataset import Dataset, make_dataset
from tunelab.models import starts
from tunelab.models.layers import wants_moments
from tunelab.space import load_space, shipped

TRACES, SAMPLES = 100, 10_057
POSITIVE = 0.12
SEED = {start.name: params for start, params in starts(load_space(shipped("seed.yaml")))}
VARIANTS = {
    "rnn1": SEED["lstm6"],
    "dense1": SEED["rnn5"],
    "dense3": SEED["rnn4"],
    "lstm4": SEED["lstm1"],
    "lstm8": SEED["lstm3"],
    "convrnn5": SEED["convrnn5"],
}
"""By structure; the log's own names of runs are others."""
GOALS = {("rnn1", 32): 5.0, ("rnn1", 8): 4.0, ("dense3", 32): 3.0, ("lstm4", 8): 3.0, ("lstm8", 8): 3.0} | {
    ("convrnn5", batch): 1.5 for batch in (8, 32)
}
MATRIX = 2048
"""Rows and columns of the product that the limit is measured with."""


def plain(params: Mapping[str, Any]) -> keras.Model:
    """What one writes with Keras alone."""

    def l2(factor: float) -> keras.regularizers.Regularizer:
        return keras.regularizers.L2(factor)

    if params["family"] == "conv_rnn":
        return _plain_convolutions(params, l2)
    inputs = keras.Input((TRACES, SAMPLES))
    x = kl.Masking(0.0)(inputs)
    if params["family"] != "lstm":
        x = kl.BatchNormalization()(x)
    dense = params.get("dense", ())
    for units, dropout in zip(dense, params["dropout"], strict=False):
        x = kl.Dense(units, kernel_regularizer=l2(params["l2"]))(x)
        x = kl.BatchNormalization()(kl.Dropout(dropout)(x))
    for units, dropout in zip(params["units"], params["dropout"][len(dense) :], strict=True):
        if params["family"] == "lstm":
            x = kl.BatchNormalization()(x)
        layer = kl.LSTM if params["family"] == "lstm" else kl.SimpleRNN
        x = layer(units, return_sequences=True, dropout=dropout, kernel_regularizer=l2(params["l2"]))(x)
    return keras.Model(inputs, kl.Dense(2, activation="softmax")(x))


def _plain_convolutions(params: Mapping[str, Any], l2: Callable[[float], Any]) -> keras.Model:
    inputs = keras.Input((TRACES, SAMPLES, 1))
    x = keras.ops.reshape(kl.BatchNormalization()(inputs), (-1, SAMPLES, 1))
    for block in params["convolutions"]:
        x = kl.Conv1D(
            block["filters"],
            block["kernel"],
            strides=block["stride"],
            activation=block["activation"],
            kernel_regularizer=l2(params["l2"]["convolution"]),
        )(x)
        x = kl.MaxPooling1D(block["pool"]["size"], block["pool"]["stride"])(x)
        x = kl.BatchNormalization()(x) if block["batch_norm"] == "after_pool" else x
        x = kl.Dropout(block["dropout"])(x) if block["dropout"] else x
    x = kl.Flatten()(x)
    x = kl.BatchNormalization()(keras.ops.reshape(x, (-1, TRACES, x.shape[-1])))
    rest = l2(params["l2"]["rest"])
    x = kl.Dense(params["dense"]["units"], activation=params["dense"]["activation"], kernel_regularizer=rest)(x)
    for units, dropout in zip(params["units"], params["dropout"], strict=True):
        x = kl.SimpleRNN(units, return_sequences=True, dropout=dropout, kernel_regularizer=rest)(x)
    return keras.Model(inputs, kl.Dense(2, activation="softmax")(x))


def work(params: Mapping[str, Any]) -> float:
    """Floating-point operations of matrix products for one trace: two a weight forwards, two or four backwards."""
    total = 0.0
    width = SAMPLES
    data = True  # no gradient is needed with respect to the data

    def product(rows: float, inner: int, out: int) -> None:
        nonlocal total, data
        total += 2 * rows * inner * out * (2 if data else 3)
        data = False

    if params["family"] == "conv_rnn":
        positions, channels = SAMPLES, 1
        for block in params["convolutions"]:
            positions = (positions - block["kernel"]) // block["stride"] + 1
            product(positions, block["kernel"] * channels, block["filters"])
            channels = block["filters"]
            if block["pool"] is not None:
                positions = (positions - block["pool"]["size"]) // block["pool"]["stride"] + 1
        width = positions * channels if params["reduce"] == "flatten" else channels
        product(1, width, params["dense"]["units"])
        width = params["dense"]["units"]
    for units in params["dense"] if params["family"] == "dense_rnn" else ():
        product(1, width, units)
        width = units
    gates = 4 if params["family"] == "lstm" else 1
    for units in params["units"]:
        product(1, width, gates * units)
        product(1, units, gates * units)
        width = units
    product(1, width, 2)
    return total


def peak() -> float:
    """Operations a second of a product of square matrices, the best of many: noise only ever takes away."""
    a, b = (np.random.default_rng(i).random((MATRIX, MATRIX), np.float32) for i in range(2))
    left, right = keras.ops.convert_to_tensor(a), keras.ops.convert_to_tensor(b)
    best = np.inf
    for _ in range(12):
        begun = time.perf_counter()
        keras.ops.convert_to_numpy(keras.ops.matmul(left, right)[0, 0])
        best = min(best, time.perf_counter() - begun)
    return float(2 * MATRIX**3 / best)


def noise(scans: int) -> Dataset:
    """Labelled scans of noise, all of them to train on."""
    rng = np.random.default_rng(0)
    made = {f"{i:04}": rng.standard_normal((TRACES, SAMPLES), np.float32) for i in range(scans)}
    labels = {name: (rng.random(TRACES) < POSITIVE).astype(np.int8) for name in made}
    return make_dataset(scans=made, labels=labels, splits=dict.fromkeys(made, "train"), dt=None, source="noise")


class Owner:
    """What a compiled model is lent to."""


def measure(variant: str, batch: int, steps: int, rounds: int, rate: float) -> dict[str, Any]:
    """Both sides of one structure, printed; a record of the file."""
    params = {**VARIANTS[variant], "batch_size": batch, "protocol": "pooled"}
    scans = noise(batch * steps)
    part = scans.part("train")
    x = np.concatenate([part.read(i)[None] for i in range(part.n_scans)])
    x = x[..., None] if params["family"] == "conv_rnn" else x
    y = part.labels.reshape(part.n_scans, TRACES).astype(np.int32)
    keras.backend.clear_session()
    clear()
    keras.utils.set_random_seed(0)
    begun = time.perf_counter()
    model = plain(params)
    model.compile(optimizer=keras.optimizers.Adam(params["learning_rate"]), loss="sparse_categorical_crossentropy")
    model.fit(x[:batch], y[:batch], batch_size=batch, verbose=0)
    bring_up = {"plain": time.perf_counter() - begun}
    feed, batches = Feed(), None
    for name in ("first", "second"):
        owner = None  # the first trial is over, and its model is kept
        gc.collect()
        begun = time.perf_counter()
        owner = Owner()
        fast = compiled_for(owner, params, SAMPLES, None, 1)
        numbers = np.arange(part.n_scans)
        groups = [numbers[i : i + batch] for i in range(0, part.n_scans, batch)]
        batches = Batches(part, groups, longest=TRACES, moments=wants_moments(fast))
        train(fast, next(feed.of(batches)))
        bring_up[name] = time.perf_counter() - begun
    assert batches is not None
    assert fast.count_params() == model.count_params()
    sides = {
        "plain": lambda: model.fit(x, y, batch_size=batch, shuffle=True, verbose=0),
        "tunelab": lambda: [train(fast, one) for one in feed.of(batches)],
    }
    for run in sides.values():
        run()
    times = alternate(sides, rounds)
    speed = {name: part.n_traces / median(values) for name, values in times.items()}
    ratio, limit = speed["tunelab"] / speed["plain"], rate / work(params)
    goal = GOALS.get((variant, batch))
    print(
        f"{params['family']:<11}{variant:<9} batch {batch:>2}: plain {speed['plain']:>8,.0f}, tunelab "
        f"{speed['tunelab']:>8,.0f} timesteps/s, ratio {ratio:5.2f}{f' (goal {goal:g})' if goal else '':<11}; limit "
        f"{limit:>8,.0f}, share {speed['tunelab'] / limit:4.0%}; bring-up plain {bring_up['plain']:.2f} s, first "
        f"{bring_up['first']:.2f}, second {bring_up['second']:.2f}",
        flush=True,
    )
    del owner
    return {
        "family": params["family"],
        "variant": variant,
        "batch": batch,
        "timesteps_per_s": speed["tunelab"],
        "ratio": ratio,
        "share_of_limit": speed["tunelab"] / limit,
        "plain_timesteps_per_s": speed["plain"],
        "bring_up_s": bring_up,
        "rounds": times,
    }


def main() -> None:
    """Print a line a structure and batch size, and write the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the results there")
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS), help="(default: all)")
    parser.add_argument("--batches", nargs="+", type=int, default=[8, 32], help="scans (default: 8 32)")
    parser.add_argument("--rounds", type=int, default=5, help="epochs of each side (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="cores, which the process keeps to (default: 1)")
    args = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: args.threads])
    configure(args.threads, 0)
    rate = peak()
    print(f"{args.threads} thread(s), matrix product {rate / 1e9:.0f} GFLOP/s, float32", flush=True)
    results = []
    for variant in args.variants:
        for batch in args.batches:
            results.append(measure(variant, batch, max(2, 32 // batch), args.rounds, rate))
            if args.json:
                args.json.write_text(json.dumps({"results": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
