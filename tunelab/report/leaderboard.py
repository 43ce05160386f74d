"""``leaderboard.csv``: every trial, best first, its chosen epoch's measures, and a column for each dimension."""

from __future__ import annotations

from typing import Any

import pandas as pd

from tunelab.fidelity import words
from tunelab.ranking import Trial
from tunelab.report.facts import Facts
from tunelab.report.words import cell, clean, finite

BASE = (
    "rank",
    "trial",
    "name",
    "family",
    "status",
    "epochs",
    "seconds",
    "parameters",
    "val_f1",
    "threshold",
    "val_f1_at_half",
    "val_average_precision",
    "precision",
    "recall",
    "tp",
    "fp",
    "fn",
    "mean_jaccard",
)
"""The columns that others may rely on, in this order; those of :data:`MORE` and the dimensions follow."""
MORE = (
    *("chosen_epoch", "tn", "tune_average_precision", "cause", "judged_on", "predict_ms", "breaks", "front"),
    *("fidelity", "of"),
)
_MEASURES = ("threshold", "val_f1_at_half", "val_average_precision", "precision", "recall", "mean_jaccard")
_COUNTS = ("tp", "fp", "fn", "tn")


def leaderboard_csv(facts: Facts) -> bytes:
    """The table as a CSV file in UTF-8; what is undefined is an empty cell.

    Ranked trials come first, by rank; then the others, oldest first, without one. Lists are JSON. A dimension that is
    named like another column gets the suffix ``_param``.
    """
    columns = {dimension: _column(dimension) for dimension in facts.run.dimensions}
    front = {trial.trial for trial in facts.front} if facts.board.aims.several else None
    ranks = [*((rank, trial) for rank, trial in enumerate(facts.ranked, start=1)), *((None, t) for t in facts.unranked)]
    rows = [_row(trial, rank, columns) | _judgement(facts, trial, front) for rank, trial in ranks]
    table = pd.DataFrame(rows, columns=[*BASE, *MORE, *columns.values()], dtype=object)
    return table.to_csv(index=False).encode()


def _column(dimension: str) -> str:
    return f"{dimension}_param" if dimension in BASE or dimension in MORE else clean(dimension)


def _judged_on(facts: Facts, trial: Trial) -> str:
    if not facts.folds:
        return "validation"
    return "first fold" if facts.on_first(trial) else f"{facts.folds} folds"


def _judgement(facts: Facts, trial: Trial, front: set[str] | None) -> dict[str, Any]:
    """On what it was judged, and how it stands to the aims; nothing without a chosen epoch."""
    if not trial.chosen:
        return {}
    return {
        "judged_on": _judged_on(facts, trial),
        "breaks": "; ".join(map(str, facts.board.aims.broken(trial))),
        "front": None if front is None else trial.trial in front,
    }


def _row(trial: Trial, rank: int | None, columns: dict[str, str]) -> dict[str, Any]:
    chosen = trial.chosen
    row: dict[str, Any] = {
        "rank": rank,
        "trial": clean(trial.trial),
        "name": clean(trial.name),
        "family": clean(trial.family),
        "status": trial.status,
        "cause": clean(trial.cause),
        "parameters": trial.parameters or None,
        "fidelity": words(trial.fidelity) or "full",
        "of": clean(trial.of),
    }
    if trial.epochs:
        row |= {"epochs": trial.epochs[-1].epoch, "seconds": finite(trial.epochs[-1].seconds)}
    if chosen:
        row |= {"chosen_epoch": chosen.epoch, "val_f1": finite(trial.val_f1)}
        row |= {name: finite(trial.measured(name)) for name in (*_MEASURES, "tune_average_precision")}
        row |= {name: _count(trial.measured(name)) for name in _COUNTS}
        row["predict_ms"] = finite(trial.predict_ms)
    return row | {column: cell(trial.point.get(name)) for name, column in columns.items()}


def _count(value: float) -> int | None:
    number = finite(value)
    return None if number is None else round(number)
