"""Time of a trial beyond its training: tunelab against a plain Ray Tune function trainable, 40 short trials of each.

Both sides train the same model for as many epochs on the same scans, as many trials at a time as there are cores, and
search the same numbers (learning rate, l2, dropout, weight of positives). The plain side is what Ray's and Keras'
guides show: a function that imports TensorFlow, builds the model, fits an epoch at a time and reports; its model is of
plain Keras layers. Each side is a process of its own.

An epoch's training is the median of all epochs but a trial's first, which traces the step. What is left of the
places' time, divided by trials, is the overhead. Two times are taken: from the first trial's assignment to the last
one's end, which is what trials cost (processes, imports, building, tracing, reporting); and the whole process, with
Ray's start and, on tunelab's side alone, the winner's answers on the test split and the report.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

UNITS = 64
BATCH = 8
EPOCHS = 3
SPACE = f"""
name: overhead
epochs: {{max: {EPOCHS}, patience: {EPOCHS}}}
early_stopping: {{grace: {EPOCHS}, reduction: 3}}
shared:
  learning_rate: {{loguniform: [1e-3, 1e-2]}}
  class_weight: {{uniform: [1, 6]}}
  batch_size: {BATCH}
  batch_norm_momentum: 0.9
  l2: {{loguniform: [1e-6, 1e-3]}}
  dropout: {{uniform: [0.01, 0.4]}}
families:
  lstm: {{units: [{UNITS}]}}
"""


def scans() -> dict[str, Any]:
    """The embedded scans of two splits as padded arrays."""
    from tunelab.data.synthetic import SyntheticSettings, synthesize

    data = synthesize(SyntheticSettings())
    found = {}
    for split in ("train", "tune"):
        part = data.part(split)
        x = np.zeros((part.n_scans, int(data.lengths.max()), data.n_samples), np.float32)
        y, weight = np.zeros(x.shape[:2], np.int32), np.zeros(x.shape[:2], np.float32)
        for i in range(part.n_scans):
            length = part.lengths[i]
            x[i, :length], y[i, :length], weight[i, :length] = part.read(i), part.labels_of(i), 1
        found[split] = (x, y, weight)
    return found


def function(config: dict[str, Any], data: dict[str, Any]) -> None:
    """A trial as the guides write it."""
    import keras
    from ray import tune
    from sklearn.metrics import average_precision_score

    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        tf.config.threading.set_intra_op_parallelism_threads(1)
        tf.config.threading.set_inter_op_parallelism_threads(1)
    x, y, weight = data["train"]
    weight = weight * np.where(y == 1, config["class_weight"], 1).astype(np.float32)
    model = keras.Sequential(
        [
            keras.Input(x.shape[1:]),
            keras.layers.Masking(0.0),
            keras.layers.BatchNormalization(momentum=0.9),
            keras.layers.LSTM(
                UNITS,
                return_sequences=True,
                dropout=config["dropout"],
                kernel_regularizer=keras.regularizers.L2(config["l2"]),
            ),
            keras.layers.Dense(2, activation="softmax"),
        ]
    )
    model.compile(keras.optimizers.Adam(config["learning_rate"]), "sparse_categorical_crossentropy")
    for _ in range(EPOCHS):
        begun = time.perf_counter()
        model.fit(x, y, sample_weight=weight, batch_size=BATCH, verbose=0)
        tune_x, tune_y, valid = data["tune"]
        scores = model.predict(tune_x, verbose=0)[..., 1]
        dense = average_precision_score(tune_y[valid > 0], scores[valid > 0])
        tune.report({"average_precision": dense, "epoch_s": time.perf_counter() - begun})


def plain(trials: int, folder: Path) -> tuple[float, list[list[float]]]:
    """Seconds from the first trial to the last one's end, and the epochs' seconds of every trial."""
    import ray
    from ray import tune

    ray.init(include_dashboard=False, log_to_driver=False)
    trainable = tune.with_resources(tune.with_parameters(function, data=scans()), {"cpu": 1})
    space = {
        "learning_rate": tune.loguniform(1e-3, 1e-2),
        "class_weight": tune.uniform(1, 6),
        "l2": tune.loguniform(1e-6, 1e-3),
        "dropout": tune.uniform(0.01, 0.4),
    }
    tuner = tune.Tuner(
        trainable,
        param_space=space,
        tune_config=tune.TuneConfig(num_samples=trials),
        run_config=tune.RunConfig(storage_path=str(folder), name="plain", verbose=0),
    )
    begun = time.perf_counter()
    results = tuner.fit()
    span = time.perf_counter() - begun
    if results.errors:
        raise SystemExit(f"{len(results.errors)} plain trials failed: {results.errors[0]}")
    return span, [one.metrics_dataframe["epoch_s"].tolist() for one in results]


def ours(trials: int, folder: Path) -> tuple[float, list[list[float]]]:
    """The same of tunelab."""
    from tunelab.journal import read
    from tunelab.search import search

    (folder / "space.yaml").write_text(SPACE)
    found = search(folder / "space.yaml", trials=trials, storage=folder, name="ours")
    until: dict[str, list[float]] = {}
    records = read(found.folder / "journal.jsonl")
    for record in records:
        if record["kind"] == "result":
            until.setdefault(record["trial"], [0.0]).append(record["seconds"])
    clocks = {kind: [r["clock"] for r in records if r["kind"] == kind] for kind in ("suggestion", "end")}
    return max(clocks["end"]) - min(clocks["suggestion"]), [np.diff(times).tolist() for times in until.values()]


def main() -> None:
    """Print both sides and the ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=40, help="of each side (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=1, help="of both sides (default: %(default)s)")
    parser.add_argument("--side", choices=("plain", "tunelab"), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.side:
        measured = (plain if args.side == "plain" else ours)(args.trials, args.folder)
        (args.folder / "measured.json").write_text(json.dumps(measured))
        return
    places = len(os.sched_getaffinity(0))
    over: dict[str, list[float]] = {"plain": [], "tunelab": []}
    in_all: dict[str, list[float]] = {"plain": [], "tunelab": []}
    for turn in range(args.rounds):
        for side in list(over)[:: 1 if turn % 2 == 0 else -1]:
            with tempfile.TemporaryDirectory(prefix="tunelab-overhead-") as folder:
                command = [sys.executable, "-m", "benchmarks.overhead", "--side", side, "--folder", folder]
                begun = time.perf_counter()
                subprocess.run(
                    [*command, "--trials", str(args.trials)], check=True, stdout=subprocess.DEVNULL, timeout=3600
                )
                wall = time.perf_counter() - begun
                span, trials = json.loads(Path(folder, "measured.json").read_text())
            epoch = median(seconds for trial in trials for seconds in trial[1:])
            trained = epoch * sum(map(len, trials))
            over[side].append((span * places - trained) / len(trials))
            in_all[side].append((wall * places - trained) / len(trials))
            print(
                f"{side:<8} {len(trials)} trials of {EPOCHS} epochs, {places} at a time: {span:6.1f} s ({wall:.1f} s "
                f"with the session); an epoch {epoch:.3f} s; beyond training {over[side][-1]:.2f} s of a place a "
                f"trial ({in_all[side][-1]:.2f} s)",
                flush=True,
            )
    for words, found in (("of trials", over), ("of whole sessions", in_all)):
        print(f"ratio of the medians {words}: {median(found['plain']) / median(found['tunelab']):.1f}")


if __name__ == "__main__":
    main()
