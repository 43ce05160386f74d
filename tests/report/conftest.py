"""Runs to report on: a run's folder written as a search writes it, through the real journal."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from tunelab.journal import Journal
from tunelab.metrics import always_positive_f1
from tunelab.ranking import Leaderboard

DIMENSIONS = [
    "decimate",
    "learning_rate",
    "class_weight",
    "units",
    "l2",
    "dropout",
    "dense",
    "convolutions.0.filters",
    "convolutions.0.kernel",
]
VALIDATION, POSITIVES = 4000, 480


def run_file(**changes: Any) -> dict[str, Any]:
    scans = {"train": 240, "tune": 40, "validation": 40, "test": 80}
    return {
        "name": "field-7",
        "version": "0.1.0",
        "created": "2026-11-23T20:15:04+00:00",
        "versions": {
            "python": "3.11.14",
            "ray": "2.60.0",
            "optuna": "5.0.0",
            "keras": "3.15.0",
            "tensorflow": "2.21.0",
            "numpy": "2.4.1",
        },
        "seed": 7,
        "command": "python -m tunelab.search search_spaces/gpr.yaml --data field --name field-7 --trials 22 --seed 7",
        "space": {"name": "gpr", "shared": {"learning_rate": {"low": 1e-4, "high": 1e-2, "log": True}}},
        "dimensions": DIMENSIONS,
        "data": {
            "source": "field/prepared",
            "fingerprint": "sha256:4f1c0e5b9a7d2368",
            "scans": 400,
            "traces": 100,
            "samples": [212, 10057],
            "dt": 1.1795e-11,
            "options": {"resample": 512},
            "chains": ["as recorded", "212 samples, background scan"],
            "positives": {"train": 2870, "tune": 470, "validation": POSITIVES, "test": 951},
            "traces_by_split": {"train": 24_000, "tune": 4000, "validation": VALIDATION, "test": 8000},
            "splits": {split: [f"{split}-{n:03}" for n in range(count)] for split, count in scans.items()},
            "notes": ["scans of one survey line are kept in one split"],
        },
        "always_positive_f1": round(always_positive_f1(POSITIVES, VALIDATION), 6),
        "positives": POSITIVES,
        "validation_traces": VALIDATION,
        "epochs": {"max": 30, "patience": 10},
        **changes,
    }


def metrics(f1: float, dense: float, *, tune_f1: float | None = None) -> dict[str, float]:
    """An epoch's metrics that fit together: counts are chosen so that their F1 is close to ``f1``."""
    if math.isnan(f1):
        tp, fp, fn = 0, 0, 0
    elif f1 == 0:
        tp, fp, fn = 0, 12, POSITIVES
    else:
        tp = round(POSITIVES * min(0.95, 0.25 + f1))
        fn = POSITIVES - tp
        fp = max(0, round(2 * tp / f1 - 2 * tp - fn))
    exact = 2 * tp / (2 * tp + fp + fn) if tp + fp + fn else math.nan
    return {
        "loss": 0.9 - dense / 2,
        "tune_loss": 0.95 - dense / 2,
        "tune_average_precision": dense,
        "tune_f1": exact if tune_f1 is None else tune_f1,
        "threshold": 0.31,
        "val_loss": 0.97 - dense / 2,
        "val_f1": exact,
        "val_f1_at_half": exact * 0.7,
        "val_average_precision": dense * 0.96,
        "precision": tp / (tp + fp) if tp + fp else math.nan,
        "recall": tp / POSITIVES if tp + fn else math.nan,
        "tp": tp,
        "fp": fp,
        "fn": fn,
        "tn": VALIDATION - tp - fp - fn,
        "mean_jaccard": exact / (2 - exact),
    }


def judged(split: str, f1: float) -> dict[str, Any]:
    scans, traces, positives = {"validation": (40, 4000, 480), "test": (80, 8000, 951)}[split]
    return {
        "scans": scans, "traces": traces, "positives": positives,
        "f1": f1, "f1_low": f1 - 0.07, "f1_high": f1 + 0.06,
        "average_precision": f1 + 0.02, "average_precision_low": f1 - 0.05, "average_precision_high": f1 + 0.08,
        "f1_at_half": f1 - 0.1, "precision": f1 - 0.03, "recall": f1 + 0.04,
        "tp": 250, "fp": 300, "fn": 230, "tn": traces - 780, "mean_jaccard": f1 / 2, "threshold": 0.31,
    }  # fmt: skip


class Writer:
    """Writes a run's folder."""

    def __init__(self, folder: Path, **changes: Any) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        (folder / "run.yaml").write_text(yaml.safe_dump(run_file(**changes), sort_keys=False), encoding="utf-8")
        self.journal = Journal.open(folder / "journal.jsonl")
        self.journal.append("run", name="field-7", version="0.1.0", seed=7)

    def begin(self, trial: str, family: str, point: Mapping[str, Any], *, name: str = "", **params: Any) -> None:
        """Params are the point with its nested places filled in, and what the space fixes."""
        flat = {key: value for key, value in point.items() if "." not in key}
        every = {"family": family, "batch_size": 32, "batch_norm_momentum": 0.99, **flat, **params}
        nested = {key.split(".")[-1]: value for key, value in point.items() if key.startswith("convolutions.0.")}
        if nested:
            pool = {"size": 5, "stride": 2}
            every["convolutions"] = [{**nested, "stride": 4, "activation": "relu", "pool": pool}]
        self.journal.append("suggestion", trial=trial, name=name, family=family, params=every, point=point)

    def epoch(self, trial: str, epoch: int, measured: Mapping[str, float], *, parameters: int = 52_000) -> None:
        fields = {"trial": trial, "epoch": epoch, "seconds": 11.5 * epoch, "parameters": parameters}
        self.journal.append("result", **fields, metrics=measured)

    def end(self, trial: str, status: str = "finished", cause: str | None = None) -> None:
        self.journal.append("end", trial=trial, status=status, cause=cause)

    def final(self, trial: str, epoch: int, *, validation: float = 0.51, test: float = 0.47) -> None:
        fields = {"test": judged("test", test), "validation": judged("validation", validation)}
        self.journal.append("final", trial=trial, epoch=epoch, **fields)

    def close(self) -> Path:
        self.journal.append("close", status="finished", reason="all trials are over")
        return self.stop()

    def stop(self) -> Path:
        """As a killed search leaves it."""
        self.journal.close()
        return self.folder


def realistic(folder: Path, **changes: Any) -> Path:
    """A run of 22 trials over four families: leaders, collapsed ones, failures, an interrupted one."""
    rng, run = random.Random(5), Writer(folder, **changes)
    known = {1: "rnn5", 2: "convrnn5", 3: "lstm1"}
    for number in range(1, 23):
        trial = f"{number:04}"
        family = ["dense_rnn", "conv_rnn", "lstm", "conv_rnn", "simple_rnn", "conv_rnn"][(number - 1) % 6]
        point = _point(family, rng)
        run.begin(trial, family, point, name=known.get(number, ""))
        if number in {5, 11, 17}:
            run.end(trial, "failed", f"ResourceExhaustedError: OOM when allocating tensor with shape[32,{number},512]")
            continue
        quality = {"conv_rnn": 0.55, "dense_rnn": 0.38, "lstm": 0.24, "simple_rnn": 0.3}[family] * rng.uniform(0.5, 1)
        collapsed, last = rng.random() < 0.25, rng.choice([3, 9, 14, 22, 30])
        peak = rng.randint(3, 26)
        for epoch in range(1, last + 1):
            rise = 1 - math.exp(-epoch / 5) - max(0, epoch - peak) * 0.012
            dense = 0.118 + rng.uniform(0, 0.004) if collapsed else max(0.1, quality * rise + rng.gauss(0, 0.012))
            f1 = 0.214 if collapsed and number % 2 else 0.0 if collapsed else max(0.0, dense + rng.gauss(-0.01, 0.02))
            run.epoch(trial, epoch, metrics(f1, dense), parameters=rng.choice([52_000, 161_204, 1_066_730]))
        if number == 22:
            run.end(trial, "interrupted", "the time budget was used up")
        elif last < 30 and (collapsed or last == 3):
            run.end(trial, "stopped", f"average precision below the best third at epoch {last}")
        else:
            run.end(trial)
    best = Leaderboard(run.journal.records).best
    assert best
    assert best.chosen
    run.final(best.trial, best.chosen.epoch, validation=best.val_f1, test=best.val_f1 - 0.04)
    return run.close()


def _point(family: str, rng: random.Random) -> dict[str, Any]:
    point: dict[str, Any] = {
        "decimate": rng.choice([1, 4, 16]),
        "learning_rate": 10 ** rng.uniform(-4, -2),
        "class_weight": rng.choice([1, 4, 8]),
        "units": rng.choice([[100], [64, 64], [100, 200, 200, 100]]) if family == "lstm" else [rng.choice([64, 100])],
        "l2": 10 ** rng.uniform(-5, -1),
        "dropout": [rng.choice([0.2, 0.5])],
    }
    if family == "dense_rnn":
        point["dense"] = rng.choice([[100], [100, 200]])
    if family == "conv_rnn":
        point |= {"convolutions.0.filters": rng.choice([20, 50]), "convolutions.0.kernel": rng.choice([5, 10, 12])}
    return point


@pytest.fixture
def begin_run(tmp_path: Path) -> Iterator[Callable[..., Writer]]:
    """Begin a run in a fresh folder; what is given changes its run.yaml."""
    begun: list[Writer] = []

    def begin(**changes: Any) -> Writer:
        begun.append(Writer(tmp_path / f"run-{len(begun)}", **changes))
        return begun[-1]

    yield begin
    for run in begun:
        run.stop()


@pytest.fixture
def realistic_run(tmp_path: Path) -> Path:
    return realistic(tmp_path / "field-7")


@pytest.fixture(scope="session")
def measured() -> Callable[..., dict[str, float]]:
    """:func:`metrics`, for tests."""
    return metrics
