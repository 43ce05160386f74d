"""Recorders on real journals, closed when the test is over, and results as trials tell them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tunelab.journal import Journal
from tunelab.tuning.record import Recorder


@pytest.fixture
def told() -> Callable[..., dict[str, Any]]:
    """A result of a trial, as its process tells it; metrics by name."""

    def tell(epoch: int, *, fold: int = 0, weights: str = "", ended: str = "", **metrics: float) -> dict[str, Any]:
        fixed = {"seconds": 1.0, "parameters": 7, "checkpoint": ""}
        return {**fixed, "fold": fold, "epoch": epoch, "weights": weights, "ended": ended, "metrics": metrics}

    return tell


@pytest.fixture
def recorder_in() -> Iterator[Callable[[Path], Recorder]]:
    """Opens a recorder whose journal is ``journal.jsonl`` in a folder."""
    opened: list[Journal] = []

    def make(folder: Path) -> Recorder:
        opened.append(Journal.open(folder / "journal.jsonl"))
        return Recorder(opened[-1])

    yield make
    for journal in opened:
        journal.close()
