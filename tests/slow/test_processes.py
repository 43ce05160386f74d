"""What the processes of trials take over two hundred trials of real models, as Ray's actor holds them."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from held_trainable import hold, settings_in
from small_models import small

from tunelab.data.generated import Generated
from tunelab.data.synthetic import SyntheticSettings, synthesize
from tunelab.process import MAX_GROWTH

pytestmark = [pytest.mark.slow, pytest.mark.ray]

TRIALS = 200
ONE_TRIAL = 150 * 10**6
"""Bytes that one trial may add before the process is looked at."""


@pytest.mark.parametrize("structures", ["one", "many"])
def test_memory_is_bounded(structures: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    drawn = random.Random(0)
    settings = settings_in(tmp_path / "run", max_epochs=1)

    def config(number: int) -> dict[str, Any]:
        family = drawn.choice(["lstm", "simple_rnn", "dense_rnn", "conv_rnn"]) if structures == "many" else "lstm"
        numbers = {"l2": drawn.uniform(1e-5, 0.01), "dropout": drawn.uniform(0.05, 0.4)}
        units = {"units": [drawn.randint(4, 60)]} if structures == "many" else {}
        return {"trial": f"{number:04}", "seed": number, "params": small(family, **numbers, **units)}

    data = synthesize(SyntheticSettings(scans=24, traces=20, samples=64, shortest=0.6, seed=3))
    one = hold(config(0), Generated(dataset=data, chains=()), settings)
    held: list[int] = []
    processes: list[int] = []
    try:
        for number in range(TRIALS):
            if number:
                one.config = config(number)
                one.reset_config(one.config)
            result = one.step()
            assert result["ended"] == "epochs", result
            assert one._process is not None
            held.append(one._process.memory())
            processes.append(one._process.pid)
    finally:
        one.cleanup()
    first, last, most = held[0], held[-1], max(held)
    used = len(set(processes))
    with capsys.disabled():
        sizes = f"{first / 1e6:.0f} MB after the first trial, {last / 1e6:.0f} after the last, {most / 1e6:.0f} most"
        print(f"\n{structures} structure(s), {TRIALS} trials: {sizes}, {used} processes")
    assert most < first + MAX_GROWTH + ONE_TRIAL
    if structures == "one":
        assert used == -(-TRIALS // 100)  # replaced for the number of trials, never for their memory
