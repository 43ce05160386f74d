"""The benchmark of scale: its small versions run, go on where they were killed, and tell sane numbers."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks import scale, scale_nodes
from benchmarks.lines import lines_of
from benchmarks.scale_nodes import grown, idle
from benchmarks.simulated import EPOCHS

pytestmark = pytest.mark.ray


def run(monkeypatch: pytest.MonkeyPatch, *words: str) -> None:
    monkeypatch.setattr(sys, "argv", ["scale", *words])
    scale.main()


def test_the_driver_alone_is_measured_and_a_killed_benchmark_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--space", "quick.yaml", "--workers", "5", "--file", str(tmp_path / "scale.jsonl"), "--listeners")
    run(monkeypatch, *words, "--trials", "10")
    run(monkeypatch, *words, "--trials", "10", "25")
    first, second = lines_of(tmp_path / "scale.jsonl")
    assert [first["trials"], second["trials"]] == [10, 25]
    for line in (first, second):
        assert 0 < line["epochs per trial"] <= EPOCHS
        assert line["records per trial"] > line["epochs per trial"]
        for name in ("proposal ms", "result ms", "tpe ms", "disk ms", "retention ms", "reporter ms", "rss MB"):
            assert 0 < line[name] < 10_000, name
    (journal,) = tmp_path.glob("scale.run/*/journal.jsonl")
    records = [json.loads(text) for text in journal.read_text().splitlines()]
    assert sum(record["kind"] == "suggestion" for record in records) == 25
    ends = [record["trial"] for record in records if record["kind"] == "end"]
    assert len(ends) == len(set(ends))
    said = capsys.readouterr().out.splitlines()
    assert said[-1].startswith("after 25 trials, epochs of one second, tpe: the driver of so many workers is busy 10: ")


def test_the_busy_share_is_that_of_trials_a_second_and_what_each_takes() -> None:
    line = {"epochs per trial": 2.0, "records per trial": 6.0, "proposal ms": 10.0, "tpe ms": 110.0}
    line |= {"start ms": 1.0, "end ms": 1.0, "taken up ms": 1.0, "result ms": 2.0, "disk ms": 1.0}
    assert scale.busy(line, 10) == pytest.approx(10 / 2 * (10 + 2 + 2 * 2 + 6) / 1000)
    assert scale.busy(line, 10, 2.0, tpe=True) == pytest.approx(10 / 4 * (110 + 2 + 2 * 2 + 6) / 1000)


def record(kind: str, clock: float, trial: str, seconds: float = 0.0) -> dict[str, Any]:
    return {"kind": kind, "clock": clock, "trial": trial, "seconds": seconds}


def test_idle_is_what_epochs_leave_of_the_slots_between_start_and_tail() -> None:
    records = [
        record("start", 0, "0001"),
        record("start", 0, "0002"),
        record("result", 9, "0001", 1),
        record("result", 10, "0002", 1),
        record("result", 12, "0001", 3),
        record("result", 12, "0002", 2),
        record("start", 12, "0003"),
        record("result", 90, "0003", 1),
    ]
    told = idle(records, 2)
    assert (told["wall s"], told["trials"], told["epochs"]) == (2, 3, 5)
    assert told["idle"] == pytest.approx(1 - 3 / 4)
    assert told["gap s"] == 1


def test_the_slope_of_the_memory_is_that_after_the_beginning() -> None:
    samples = [(0.0, 1, 5e6, 0.0), *((float(n), 10 * n, 50e6 + 1e4 * n, n / 4) for n in range(2, 11))]
    assert grown(samples) == {"driver MB": 50.1, "MB per 1000 trials": 1.0, "driver busy": 0.25}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::FutureWarning", "ignore::DeprecationWarning")
def test_a_search_on_nodes_is_measured() -> None:
    told = scale_nodes.measured(trials=12, nodes=2, slots=1, space="quick.yaml", sampler="random")
    assert (told["slots"], told["trials"]) == (2, 12)
    assert told["epochs"] >= 12
    assert -0.05 < told["idle"] < 0.9
    assert told["driver MB"] > 50
