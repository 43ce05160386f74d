"""A searcher with steps of fidelity: who goes on, what the sampler is told, and the same again after a kill."""

from __future__ import annotations

import dataclasses
import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ray.tune.search import Searcher

from tunelab.fidelity import Fidelity
from tunelab.models import chains, starts
from tunelab.preprocessing import Preprocessing, thinned
from tunelab.sections import EarlyStopping, Sampler
from tunelab.space import Space, load_space, shipped
from tunelab.tuning.observations import BEST, Observations, reached_by
from tunelab.tuning.record import Recorder
from tunelab.tuning.scheduler import RecordingScheduler
from tunelab.tuning.searcher import SpaceSearcher, fitting

pytestmark = pytest.mark.ray

Open = Callable[[Path], Recorder]
LOW, MIDDLE = {"data": 0.1}, {"data": 0.3}


def stepped(sampler: Sampler = "tpe", *, first: bool = False) -> Space:
    space = load_space(shipped("quick.yaml"))
    return dataclasses.replace(
        space,
        sampler=sampler,
        fidelity=Fidelity(data=(0.1, 0.3)),
        early_stopping=EarlyStopping(reduction=2),
        start_from=space.start_from if first else (),
    )


def searching(space: Space, recorder: Recorder, trials: int | None = None) -> SpaceSearcher:
    scheduler = RecordingScheduler(space.over_epochs, space.epochs.max, recorder)
    fit = fitting(space, dict.fromkeys(chains(space), 160))
    made = SpaceSearcher(space, starts(space), recorder, scheduler, fit=fit, seed=3, trials=trials)
    recorder.replay([scheduler.replayed, made.replayed])
    made.go_on()
    return made


def begin(search: SpaceSearcher, key: str) -> dict[str, Any]:
    config = search.suggest(key)
    assert isinstance(config, dict)
    return config


def finish(search: SpaceSearcher, recorder: Recorder, key: str, trial: str, dense: float, lift: float = 9.0) -> None:
    told = {"fold": 0, "epoch": 1, "seconds": 1.0, "parameters": 7, "weights": "", "checkpoint": "", "ended": ""}
    recorder.result(trial, {**told, "metrics": {"tune_average_precision": dense, "tune_lift": lift}})
    recorder.decision(trial, epoch=1, by="patience", status="finished", cause="")
    search.on_trial_complete(key)


def value(number: int) -> float:
    return (number * 7 % 11) / 20


def follow(search: SpaceSearcher, recorder: Recorder, values: Callable[[int], float] = value) -> list[dict[str, Any]]:
    """One trial after another, to the end."""
    configs = []
    while isinstance(config := search.suggest(f"k{len(configs)}"), dict):
        configs.append(config)
        finish(search, recorder, f"k{len(configs) - 1}", config["trial"], values(int(config["trial"])))
    assert config == Searcher.FINISHED
    return configs


def test_a_proposal_begins_at_the_lowest_step_and_the_best_go_on_before_new_ones(
    tmp_path: Path, recorder_in: Open
) -> None:
    recorder = recorder_in(tmp_path)
    search = searching(stepped(), recorder, trials=4)
    values = {1: 0.2, 2: 0.5, 3: 0.4, 4: 0.3}  # the second goes on at once, as 1 of 2
    configs = follow(search, recorder, lambda number: values.get(number, 0.1 * number))
    board = recorder.board
    told = [(t.trial, dict(t.fidelity), t.of) for t in board.snapshot()]
    assert told == [
        ("0001", LOW, ""),
        ("0002", LOW, ""),
        ("0003", MIDDLE, "0002"),
        ("0004", LOW, ""),
        ("0005", LOW, ""),
        ("0006", MIDDLE, "0005"),
        ("0007", {}, "0005"),
    ]
    assert [dict(config["fidelity"]) for config in configs] == [at for _, at, _ in told]
    assert len({config["seed"] for config in configs}) == 7
    for trial in board.snapshot():
        first = board.trials[trial.configuration]
        assert (trial.params, trial.point, trial.name) == (first.params, first.point, "")
    assert len({str(t.params) for t in board.configurations}) == 4


def test_configurations_to_try_first_are_trained_in_full(tmp_path: Path, recorder_in: Open) -> None:
    recorder = recorder_in(tmp_path)
    search = searching(stepped(first=True), recorder, trials=6)
    configs = follow(search, recorder)
    assert [config["fidelity"] for config in configs[:4]] == [{}] * 4
    assert configs[4]["fidelity"] == LOW
    assert len(recorder.board.configurations) == 6
    assert {t.of for t in recorder.board.snapshot() if t.of} <= {"0005", "0006"}


def test_on_the_floor_the_higher_value_goes_on_and_one_that_failed_is_taken_the_place_of(
    tmp_path: Path, recorder_in: Open
) -> None:
    recorder = recorder_in(tmp_path)
    search = searching(stepped(), recorder, trials=2)
    for number, dense in enumerate((0.1, 0.3)):
        finish(search, recorder, f"k{number}", begin(search, f"k{number}")["trial"], dense, lift=1.0)
    risen = begin(search, "k2")
    assert recorder.board.trials[risen["trial"]].of == "0002", "the better one of two on the floor"
    search.on_trial_complete("k2", error=True)
    other = begin(search, "k3")
    assert (recorder.board.trials[other["trial"]].of, other["fidelity"]) == ("0001", MIDDLE)
    assert search.suggest("k4") is None, "it may go on"
    finish(search, recorder, "k3", other["trial"], 0.2)
    assert begin(search, "k5")["fidelity"] == {}


@pytest.mark.parametrize("sampler", ["tpe", "random", "cmaes"])
@pytest.mark.parametrize("seed", [0, 1])
def test_a_killed_search_goes_on_as_it_would_have(
    tmp_path: Path, recorder_in: Open, sampler: Sampler, seed: int
) -> None:
    kills = set(random.Random(seed).sample(range(22), 4))
    made: dict[str, list[dict[str, Any]]] = {"whole": [], "killed": []}
    for name, configs in made.items():
        (tmp_path / name).mkdir()
        recorder = recorder_in(tmp_path / name)
        search = searching(stepped(sampler), recorder, trials=9)
        for number in range(100):
            if name == "killed" and number in kills:
                recorder._journal.close()
                recorder = recorder_in(tmp_path / name)
                search = searching(stepped(sampler), recorder, trials=9)
            config = search.suggest(f"k{number}")
            if not isinstance(config, dict):
                break
            configs.append(config)
            finish(search, recorder, f"k{number}", config["trial"], value(number))
    assert made["killed"] == made["whole"]
    assert [config["fidelity"] for config in made["whole"]].count(LOW) == 9
    assert {} in [config["fidelity"] for config in made["whole"]]


def test_the_sampler_is_told_each_configuration_once_at_its_highest_fidelity(tmp_path: Path, recorder_in: Open) -> None:
    recorder = recorder_in(tmp_path)
    search = searching(stepped(), recorder, trials=6)
    values = {1: 0.6, 2: 0.5, 3: 0.2, 4: 0.1}
    for number in range(4):
        config = begin(search, f"k{number}")
        finish(search, recorder, f"k{number}", config["trial"], values[number + 1])
    board = recorder.board
    assert [(t.fidelity, t.of) for t in board.snapshot()] == [(LOW, ""), (LOW, ""), (MIDDLE, "0001"), (LOW, "")]
    running = begin(search, "k4")
    assert running["fidelity"] == LOW
    assert search._proposals is not None

    def history() -> list[Any]:
        there = search._proposals.history().trials
        return [(t.state.name, t.values, t.intermediate_values) for t in there]

    lower = ("PRUNED", None, {1: 0.1})
    assert history() == [("PRUNED", None, {2: 0.2}), ("PRUNED", None, {1: 0.5}), lower, ("RUNNING", None, {})]
    finish(search, recorder, "k4", running["trial"], 0.9)
    last = begin(search, "k5")
    assert (last["fidelity"], board.trials[last["trial"]].of) == (MIDDLE, "0005")
    assert history()[3] == ("PRUNED", None, {1: 0.9}), "what it came to stays true while it goes on"
    finish(search, recorder, "k5", last["trial"], 0.8)
    full = begin(search, "k6")
    assert full["fidelity"] == {}
    finish(search, recorder, "k6", full["trial"], 0.7)
    assert history()[3] == ("COMPLETE", [0.7], {})
    best = sorted(search._proposals.history().trials, key=lambda t: t.state.name != "COMPLETE")[0]
    assert best.params == search._proposals._places["0005"][0]


def test_books_are_told_the_lowest_step_alone(tmp_path: Path, recorder_in: Open) -> None:
    recorder = recorder_in(tmp_path)
    search = searching(stepped("nsga2", first=True), recorder, trials=7)
    follow(search, recorder)
    assert search._proposals is not None
    assert search._proposals._books is not None
    told = [(t.state.name, t.value) for t in search._proposals._books.trials if t.state.name in ("COMPLETE", "FAIL")]
    lowest = [value(int(t.trial)) for t in recorder.board.snapshot() if t.fidelity == LOW]
    assert [v for state, v in told if state == "COMPLETE"] == lowest
    assert [state for state, _ in told].count("FAIL") == 4, "the configurations to try first"


def test_of_many_the_best_are_those_that_came_furthest(tmp_path: Path, recorder_in: Open) -> None:
    recorder = recorder_in(tmp_path)
    search = searching(stepped("random"), recorder, trials=130)
    follow(search, recorder, lambda number: number * 37 % 101 / 101)
    values = lambda trial: [recorder.best_dense(trial.trial)]  # noqa: E731
    reached = reached_by(stepped().fidelity, lambda _: False)
    observations = Observations(values, reached)
    for trial in recorder.board.snapshot():
        observations.changed(trial)
    there, kept = observations.kept(130), observations.kept(60)
    assert len(there) == 130
    assert len(kept) == 60
    full = [t.trial for t in there if not t.fidelity]
    assert 20 < len(full) <= BEST
    assert set(full) <= {t.trial for t in kept}
    assert {reached(t) for t in there} == {1, 2, None}


def test_trials_at_a_fidelity_that_is_no_step_any_more_are_left_aside(tmp_path: Path, recorder_in: Open) -> None:
    recorder = recorder_in(tmp_path)
    follow(searching(stepped(), recorder, trials=4), recorder)
    recorder._journal.close()
    recorder = recorder_in(tmp_path)
    other = dataclasses.replace(stepped(), fidelity=Fidelity(data=(0.2,)))
    search = searching(other, recorder, trials=6)
    assert search._proposals is not None
    known = search._proposals.history().trials
    assert [t.state.name for t in known] == ["COMPLETE"], "the one that was trained in full"
    assert begin(search, "k0")["fidelity"] == {"data": 0.2}


def test_what_fits_is_asked_at_every_step(tmp_path: Path, recorder_in: Open) -> None:
    path = tmp_path / "wide.yaml"
    path.write_text(
        "fidelity: {decimation: [4]}\nfamilies:\n  conv_rnn:\n    convolutions: {repeat: 1, of: {filters: 4, kernel: "
        "{choice: [3, 32]}, stride: 1}}\n    reduce: flatten\n    dense: {units: 4, activation: relu}\n"
        "    units: [4]\n    dropout: 0\n    l2: {uniform: [0, 1]}\n"
    )
    space, plain = load_space(path), Preprocessing()
    fit = fitting(space, {plain: 64, thinned(plain, 4): 16})
    scheduler = RecordingScheduler(space.over_epochs, 3, recorder := recorder_in(tmp_path))
    search = SpaceSearcher(space, [], recorder, scheduler, fit=fit, seed=0)
    for number in range(8):
        config = begin(search, f"k{number}")
        assert config["params"]["convolutions"][0]["kernel"] == 3
        assert config["params"]["preprocessing"] == plain.model_dump(mode="json"), "params stay those of the space"
        assert config["fidelity"] == {"decimation": 4}


def test_a_value_that_is_undefined_goes_nowhere(tmp_path: Path, recorder_in: Open) -> None:
    recorder = recorder_in(tmp_path)
    configs = follow(searching(stepped(), recorder, trials=3), recorder, lambda number: math.nan)
    assert [config["fidelity"] for config in configs] == [LOW] * 3
