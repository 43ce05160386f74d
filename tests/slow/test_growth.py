"""A driver that has seen many trials is hardly larger than one that has seen few: what a week of trials would add."""

from __future__ import annotations

from pathlib import Path

import pytest
from quick_run import QuickRun, check_run

pytestmark = [pytest.mark.slow, pytest.mark.ray]

SPACE = """
name: quick
epochs: {max: 2, patience: 9}
early_stopping: {grace: 2, reduction: 2}
shared: {learning_rate: {loguniform: [1e-3, 1.0]}, batch_size: 4, dropout: {uniform: [0, 0.4]}, l2: 0}
families: {simple_rnn: {units: [6]}}
"""
TRIALS, SETTLED = 200, 40
MOST = 0.2
"""Megabytes a trial."""


def test_a_driver_grows_by_little_a_trial(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    quick = QuickRun(folder=tmp_path, environment={"TUNELAB_QUICK_SECONDS": "0"})
    quick.search("--trials", str(TRIALS), space=SPACE)
    held: dict[int, float] = {}

    def watch(records: list[dict[str, object]]) -> bool:
        ended = sum(record["kind"] == "end" for record in records)
        assert quick.process is not None
        try:
            pages = int(Path(f"/proc/{quick.process.pid}/statm").read_text().split()[1])
        except (OSError, IndexError):
            return True
        if pages:
            held[ended] = pages * 4096 / 1e6
        return ended >= TRIALS

    quick.wait_for(watch, seconds=1200)
    assert quick.end() == 0, quick.said
    assert check_run(quick.run).trials == TRIALS
    first = min(ended for ended in held if ended >= SETTLED)
    last = max(ended for ended in held if ended < TRIALS)
    grown = (held[last] - held[first]) / (last - first)
    with capsys.disabled():
        sizes = f"{held[first]:.0f} MB after {first} trials, {held[last]:.0f} MB after {last}"
        print(f"\ndriver: {sizes}: {grown:.3f} MB a trial")
    assert grown < MOST
