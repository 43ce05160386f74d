"""Recorders on real journals, closed when the test is over."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tunelab.journal import Journal
from tunelab.tuning.record import Recorder


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
