"""A search that was killed and goes on: the same proposals, every trial once, unfinished ones first."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tunelab.models import chains, starts
from tunelab.space import Space, load_space, shipped
from tunelab.tuning.record import Recorder
from tunelab.tuning.scheduler import RecordingScheduler
from tunelab.tuning.searcher import SpaceSearcher, fitting

pytestmark = pytest.mark.ray

Open = Callable[[Path], Recorder]


def searcher(space: Space, recorder: Recorder, seed: int = 0) -> SpaceSearcher:
    samples = dict.fromkeys(chains(space), 1700)
    scheduler = RecordingScheduler(space.early_stopping, space.epochs.max, recorder)
    made = SpaceSearcher(space, starts(space), recorder, scheduler, fit=fitting(space, samples), seed=seed)
    recorder.replay([scheduler.replayed, made.replayed])
    return made


def history_of(search: SpaceSearcher, recorder: Recorder) -> list[Any]:
    assert search._proposals is not None
    return search._proposals.history().trials


def value(number: int) -> float:
    return (number * 7 % 11) / 20


def finish(search: SpaceSearcher, recorder: Recorder, key: str, trial: str, dense: float) -> None:
    told = {"fold": 0, "epoch": 1, "seconds": 1.0, "parameters": 7, "weights": "", "checkpoint": "", "ended": ""}
    recorder.result(trial, {**told, "metrics": {"tune_average_precision": dense}})
    recorder.decision(trial, epoch=1, by="patience", status="finished", cause="")
    search.on_trial_complete(key)


def propose(search: SpaceSearcher, key: str) -> dict[str, Any]:
    config = search.suggest(key)
    assert isinstance(config, dict)
    return config


@pytest.mark.parametrize(
    ("sampler", "kill_after"),
    [*(("tpe", number) for number in (0, 3, 9, 14)), ("random", 9), ("qmc", 12), ("cmaes", 14), ("nsga2", 14)],
)
def test_a_killed_search_proposes_what_it_would_have_proposed(
    tmp_path: Path, recorder_in: Open, sampler: Any, kill_after: int
) -> None:
    space = dataclasses.replace(load_space(shipped("families.yaml")), sampler=sampler)
    made: dict[str, list[Any]] = {"whole": [], "killed": []}
    for name, configs in made.items():
        (tmp_path / name).mkdir()
        recorder = recorder_in(tmp_path / name)
        search = searcher(space, recorder)
        for number in range(16):
            if name == "killed" and number == kill_after:
                recorder._journal.close()
                recorder = recorder_in(tmp_path / name)
                search = searcher(space, recorder)
                assert search.go_on() == 0
            configs.append(propose(search, f"k{number}"))
            finish(search, recorder, f"k{number}", configs[-1]["trial"], value(number))
    assert made["killed"] == made["whole"]
    assert len({str(c["params"]) for c in made["whole"]}) == 16


def test_unfinished_trials_come_first_as_they_were_and_then_new_ones(tmp_path: Path, recorder_in: Open) -> None:
    space = load_space(shipped("quick.yaml"))
    recorder = recorder_in(tmp_path)
    search = searcher(space, recorder)
    before = [propose(search, f"k{i}") for i in range(6)]
    finish(search, recorder, "k0", "0001", 0.3)
    search.on_trial_complete("k1")  # interrupted by the user, with no epoch
    told = {"fold": 0, "epoch": 1, "seconds": 1.0, "parameters": 7, "weights": "", "checkpoint": "", "ended": ""}
    recorder.result("0003", {**told, "metrics": {"tune_average_precision": 0.4}})
    recorder._journal.close()
    recorder = recorder_in(tmp_path)
    search = searcher(space, recorder)
    assert search.go_on() == 5
    again = [propose(search, f"n{i}") for i in range(6)]
    assert again[:5] == before[1:6]
    assert again[5]["trial"] == "0007"
    assert [(r["trial"], r["epoch"]) for r in recorder.records if r["kind"] == "resumed"] == [
        ("0002", 0),
        ("0003", 1),
        ("0004", 0),
        ("0005", 0),
        ("0006", 0),
    ]
    assert {t.status for t in recorder.board.snapshot()} == {"finished", "running"}
    suggested = [r["trial"] for r in recorder.records if r["kind"] == "suggestion"]
    assert suggested == [f"{i:04d}" for i in range(1, 8)], "every trial once"
    for number, config in enumerate(again):
        finish(search, recorder, f"n{number}", config["trial"], math.nan if number == 2 else 0.1 * number)
    states = [(t.state.name, t.value) for t in history_of(search, recorder)]
    assert [state for state, _ in states].count("COMPLETE") == 6
    assert [state for state, _ in states].count("FAIL") == 1
    assert [state for state, _ in states].count("RUNNING") == 0


def test_trials_outside_a_changed_space_are_kept_and_named(tmp_path: Path, recorder_in: Open) -> None:
    document = yaml.safe_load(shipped("quick.yaml").read_text())
    document["start_from"] = []
    (tmp_path / "space.yaml").write_text(yaml.safe_dump(document))
    recorder = recorder_in(tmp_path)
    search = searcher(load_space(tmp_path / "space.yaml"), recorder)
    for number in range(8):
        finish(search, recorder, f"k{number}", propose(search, f"k{number}")["trial"], 0.2)
    families = [t.family for t in recorder.board.snapshot()]
    recorder._journal.close()
    document["families"] = {"lstm": document["families"]["lstm"]}
    (tmp_path / "space.yaml").write_text(yaml.safe_dump(document))
    recorder = recorder_in(tmp_path)
    search = searcher(load_space(tmp_path / "space.yaml"), recorder)
    assert search.unknown == [t.trial for t in recorder.board.snapshot() if t.family != "lstm"]
    assert len(history_of(search, recorder)) == families.count("lstm")
    assert propose(search, "k9")["params"]["family"] == "lstm"
    assert len(recorder.board.trials) == 9
