"""Proposals: configurations to try first, then the space, each recorded; what the sampler is told at the end."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.tune.search import Searcher

from tunelab.aims import Aims
from tunelab.errors import SpaceError
from tunelab.journal import read
from tunelab.models import chains, cost_of, locate, starts
from tunelab.preprocessing import Preprocessing, chain_of
from tunelab.space import Space, load_space, shipped
from tunelab.tuning.record import Recorder
from tunelab.tuning.scheduler import RecordingScheduler
from tunelab.tuning.searcher import SpaceSearcher, fitting

pytestmark = pytest.mark.ray


Open = Callable[[Path], Recorder]


def searcher(
    space: Space,
    folder: Path,
    opened: Open,
    samples: dict[Preprocessing, int] | None = None,
    seed: int = 0,
    trials: int | None = None,
) -> tuple[SpaceSearcher, Recorder]:
    recorder = opened(folder)
    fit = fitting(space, samples or dict.fromkeys(chains(space), 160))
    scheduler = RecordingScheduler(space.early_stopping, space.epochs.max, recorder)
    return SpaceSearcher(space, starts(space), recorder, scheduler, fit=fit, seed=seed, trials=trials), recorder


def suggested(search: SpaceSearcher, key: str) -> dict[str, Any]:
    config = search.suggest(key)
    assert isinstance(config, dict)
    return config


def finish(search: SpaceSearcher, recorder: Recorder, key: str, trial: str, dense: float) -> None:
    metrics = {"tune_average_precision": dense}
    told = {"fold": 0, "epoch": 1, "seconds": 1.0, "parameters": 5, "weights": "", "checkpoint": "", "ended": ""}
    recorder.result(trial, {**told, "metrics": metrics})
    recorder.decision(trial, epoch=1, by="epochs", status="finished", cause="")
    search.on_trial_complete(key, {})


def test_configurations_to_try_first_come_first_and_then_the_space(tmp_path: Path, recorder_in: Open) -> None:
    space = load_space(shipped("quick.yaml"))
    search, recorder = searcher(space, tmp_path, recorder_in, samples=dict.fromkeys(chains(space), 160))
    configs = []
    for i in range(14):
        configs.append(suggested(search, f"k{i}"))
        finish(search, recorder, f"k{i}", configs[-1]["trial"], 0.1 * (i % 7))
    assert [c["trial"] for c in configs] == [f"{i:04d}" for i in range(1, 15)]
    assert [recorder.board.trials[c["trial"]].name for c in configs] == ["conv2d", "birnn", "tcn", "lstm", *[""] * 10]
    assert [c["params"] for c in configs[:4]] == [params for _, params in starts(space)]
    assert len({c["seed"] for c in configs}) == 14
    for config in configs:
        locate(space, config["params"])  # raises when outside
        point = recorder.board.trials[config["trial"]].point
        assert ("traces" in point) == (config["params"]["family"] == "conv2d_rnn")
        assert ("bidirectional" in point) == (config["params"]["family"] == "lstm")
    assert [r["kind"] for r in read(tmp_path / "journal.jsonl")][:4] == ["suggestion", "result", "decision", "end"]


def test_nothing_is_handed_out_while_it_is_held_but_to_a_search_without_trials(
    tmp_path: Path, recorder_in: Open
) -> None:
    space, held = load_space(shipped("quick.yaml")), False
    recorder = recorder_in(tmp_path)
    fit = fitting(space, dict.fromkeys(chains(space), 160))
    scheduler = RecordingScheduler(space.early_stopping, space.epochs.max, recorder)
    search = SpaceSearcher(space, starts(space), recorder, scheduler, fit=fit, seed=0, held=lambda: held)
    first = suggested(search, "k0")["trial"]
    held = True
    assert search.suggest("k1") is None
    assert list(recorder.board.trials) == [first], "nor is anything recorded"
    finish(search, recorder, "k0", first, 0.1)
    assert suggested(search, "k1")["trial"] == "0002", "nothing would ever be told otherwise"
    held = False
    assert suggested(search, "k2")["trial"] == "0003"


def test_the_sampler_is_told_the_best_value_and_failures_as_such(
    tmp_path: Path, recorder_in: Open, told: Callable[..., dict[str, Any]]
) -> None:
    search, recorder = searcher(load_space(shipped("quick.yaml")), tmp_path, recorder_in)
    for i, dense in enumerate((0.3, math.nan, 0.0)):
        finish(search, recorder, f"k{i}", suggested(search, f"k{i}")["trial"], dense)
    suggested(search, "k3")
    search.on_trial_complete("k3", error=True)
    for i, (kind, dense) in enumerate([("stopped", 0.7), ("waiting", 0.6), ("running", 0.5)], 4):
        trial = suggested(search, f"k{i}")["trial"]
        for epoch in (1, 2):
            recorder.result(trial, told(epoch, tune_average_precision=dense / epoch))
        if kind == "stopped":
            recorder.decision(trial, epoch=2, by="asha", status="stopped", cause="not among the best")
        elif kind == "waiting":
            recorder.wait(trial, 2)
        if kind != "running":
            search.on_trial_complete(f"k{i}")
    assert search._proposals is not None
    there = search._proposals.history().trials
    assert [(t.state.name, t.values, t.intermediate_values) for t in there] == [
        ("COMPLETE", [0.3], {}),
        ("FAIL", None, {}),
        ("COMPLETE", [0.0], {}),
        ("FAIL", None, {}),
        ("PRUNED", None, {2: 0.7}),
        ("PRUNED", None, {2: 0.6}),
        ("PRUNED", None, {2: 0.5}),
    ]
    assert recorder.board.trials["0004"].status == "failed"


def test_a_trial_that_ended_as_too_many_wait_ends_once(
    tmp_path: Path, recorder_in: Open, told: Callable[..., dict[str, Any]]
) -> None:
    search, recorder = searcher(load_space(shipped("quick.yaml")), tmp_path, recorder_in)
    trial = suggested(search, "k0")["trial"]
    recorder.result(trial, told(1, tune_average_precision=0.1))
    recorder.wait(trial, 1)
    recorder.end(trial, "stopped", "not among the best at epoch 1")  # the scheduler's doing, before Ray hears of it
    search.on_trial_complete("k0")
    assert [r["status"] for r in recorder.records if r["kind"] == "end"] == ["stopped"]
    assert recorder.board.trials[trial].status == "stopped"


def test_a_trial_that_waits_has_no_end_and_goes_on_before_new_ones(
    tmp_path: Path, recorder_in: Open, told: Any
) -> None:
    search, recorder = searcher(load_space(shipped("quick.yaml")), tmp_path, recorder_in, trials=8)
    scheduler = search._waiting
    assert isinstance(scheduler, RecordingScheduler)
    configs = [suggested(search, f"k{i}") for i in range(8)]
    assert search.suggest("k8") is None, "one that runs may come to wait, and go on"
    for i, config in enumerate(configs[4:], 4):
        dense = 1 - 0.1 * i
        metrics = {"tune_average_precision": dense, "tune_lift": 9.0}
        assert scheduler.stopping.tell(config["trial"], 6, dense, floored=False) == "wait"
        recorder.result(config["trial"], told(6, **metrics))
        recorder.wait(config["trial"], 6)
        search.on_trial_complete(f"k{i}")
    assert [r["kind"] for r in read(tmp_path / "journal.jsonl")].count("end") == 0
    again = suggested(search, "k9")
    assert again == configs[4]
    assert recorder.board.trials["0005"].status == "running"
    assert search.suggest("k10") is None
    for i in range(4):
        finish(search, recorder, f"k{i}", configs[i]["trial"], 0.1)
    assert search.suggest("k11") is None
    finish(search, recorder, "k9", "0005", 0.9)
    assert search.suggest("k12") == Searcher.FINISHED
    scheduler.give_up()
    assert {t.status for t in recorder.board.snapshot()} == {"finished", "stopped"}


def test_no_two_proposals_are_equal_and_a_space_without_more_ends_the_search(tmp_path: Path, recorder_in: Open) -> None:
    path = tmp_path / "small.yaml"
    path.write_text("families:\n  lstm: {units: {choice: [[4], [8]]}, dropout: {choice: [0, 0.1]}, l2: 0}\n")
    search, recorder = searcher(load_space(path), tmp_path, recorder_in)
    proposed = []
    for i in range(4):
        proposed.append(suggested(search, f"k{i}"))
        finish(search, recorder, f"k{i}", proposed[-1]["trial"], 0.1)
    assert len({str(config["params"]) for config in proposed}) == 4
    assert search.suggest("k4") == Searcher.FINISHED
    assert search.exhausted


def test_fixed_configurations_end_the_search(tmp_path: Path, recorder_in: Open) -> None:
    search, recorder = searcher(
        load_space(shipped("seed.yaml")), tmp_path, recorder_in, samples={Preprocessing(): 10057}
    )
    names = []
    for i in range(16):
        trial = suggested(search, f"k{i}")["trial"]
        names.append(recorder.board.trials[trial].name)
    assert search.suggest("k16") is None, "one that runs may come to wait"
    for i in range(16):
        finish(search, recorder, f"k{i}", f"{i + 1:04d}", 0.1)
    assert names[0] == "lstm1"
    assert names[-1] == "convrnn6"
    assert search.suggest("k16") == Searcher.FINISHED


def test_the_same_seed_proposes_the_same(tmp_path: Path, recorder_in: Open) -> None:
    space = load_space(shipped("families.yaml"))
    proposals = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        (tmp_path / name).mkdir()
        search, recorder = searcher(space, tmp_path / name, recorder_in, dict.fromkeys(chains(space), 1700), seed=seed)
        made = []
        for i in range(15):
            made.append(suggested(search, f"k{i}"))
            finish(search, recorder, f"k{i}", made[-1]["trial"], 0.05 * ((i * 7) % 11))
        proposals.append(made)
    assert proposals[0] == proposals[1]
    assert proposals[0] != proposals[2]


def test_proposals_that_do_not_fit_the_samples_are_replaced(tmp_path: Path, recorder_in: Open) -> None:
    path = tmp_path / "wide.yaml"
    path.write_text(
        "families:\n"
        "  conv_rnn:\n"
        "    convolutions: [{filters: 4, kernel: 3, stride: 1}]\n"
        "    reduce: flatten\n    dense: {units: 4, activation: relu}\n    units: [4]\n"
        "    dropout: 0\n    l2: {uniform: [0, 1]}\n"
    )
    fixed = path.read_text()
    path.write_text(fixed.replace("[{filters: 4, kernel: 3, stride: 1}]", CONVOLUTIONS))
    search, _ = searcher(load_space(path), tmp_path, recorder_in, samples={Preprocessing(): 20})
    kernels = {suggested(search, f"k{i}")["params"]["convolutions"][0]["kernel"] for i in range(12)}
    assert kernels == {3}
    short = Preprocessing(samples=20)
    chain = "    preprocessing: {choice: [{}, {samples: 20}]}\n"
    path.write_text(fixed.replace("[{filters: 4, kernel: 3, stride: 1}]", CONVOLUTIONS) + chain)
    (tmp_path / "chains").mkdir()
    search, _ = searcher(
        load_space(path), tmp_path / "chains", recorder_in, samples={Preprocessing(): 160, short: 20}, seed=1
    )
    proposed = [suggested(search, f"k{i}")["params"] for i in range(40)]
    kernels = {(chain_of(params) == short, params["convolutions"][0]["kernel"]) for params in proposed}
    assert kernels == {(False, 3), (False, 64), (True, 3)}  # what fits depends on the chain
    path.write_text(fixed.replace("kernel: 3", "kernel: 64"))
    (tmp_path / "none").mkdir()
    search, _ = searcher(load_space(path), tmp_path / "none", recorder_in, samples={Preprocessing(): 20})
    with pytest.raises(SpaceError, match=r"1010 proposals in a row do not fit the data; the last: convolutions\.0"):
        search.suggest("k0")


CONVOLUTIONS = "{repeat: 1, of: {filters: 4, kernel: {choice: [3, 64]}, stride: 1}}"


def test_with_several_objectives_the_sampler_sees_tune_and_what_breaks_a_constraint(
    tmp_path: Path, recorder_in: Open, told: Callable[..., dict[str, Any]]
) -> None:
    document = yaml.safe_load(shipped("quick.yaml").read_text())
    path = tmp_path / "aims.yaml"
    aims = {"objectives": ["f1", "-parameters"], "constraints": ["parameters <= 6e4", "recall >= 0.5"]}
    path.write_text(yaml.safe_dump({**document, **aims, "start_from": []}))
    space = load_space(path)
    search, recorder = searcher(space, tmp_path, recorder_in)
    for i in range(3):
        config = suggested(search, f"k{i}")
        cost = cost_of(config["params"], 160)
        assert cost is None or cost.parameters <= 60_000, "known before it is trained"
        metrics = {
            "tune_average_precision": 0.3,
            "tune_f1": 0.1 * i,
            "val_f1": 0.9,
            "recall": 0.9,
            "tune_recall": 0.2 * i,
        }
        recorder.result(config["trial"], told(1, **metrics))
        recorder.decision(config["trial"], epoch=1, by="asha", status="stopped", cause="not among the best")
        search.on_trial_complete(f"k{i}")
    assert search._proposals is not None
    there = search._proposals.history().trials
    assert [(t.state.name, t.values) for t in there] == [("COMPLETE", [pytest.approx(0.1 * i), -7.0]) for i in range(3)]
    assert [t.constraints["recall >= 0.5"] for t in there] == pytest.approx([1.0, 0.6, 0.2])
    assert {t.constraints["parameters <= 60000"] for t in there} == {0.0}
    suggested(search, "k3")


@pytest.mark.parametrize("sampler", ["tpe", "nsga2", "random", "qmc"])
def test_every_sampler_that_may_takes_several_objectives(
    tmp_path: Path, recorder_in: Open, told: Callable[..., dict[str, Any]], sampler: Any
) -> None:
    aims = Aims.of({"objectives": ["f1", "-parameters"], "constraints": ["recall >= 0.5"]})
    space = dataclasses.replace(load_space(shipped("quick.yaml")), sampler=sampler, aims=aims)
    search, recorder = searcher(space, tmp_path, recorder_in)
    for i in range(70 if sampler == "nsga2" else 16):
        config = suggested(search, f"k{i}")
        metrics = {"tune_average_precision": 0.3, "tune_f1": 0.01 * i, "tune_recall": 0.1 * (i % 9)}
        recorder.result(config["trial"], told(1, **metrics))
        recorder.decision(config["trial"], epoch=1, by="epochs", status="finished", cause="")
        search.on_trial_complete(f"k{i}")
    assert len({str(t.params) for t in recorder.board.snapshot()}) == len(recorder.board.trials)
