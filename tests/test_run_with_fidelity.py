"""Whole searches that go from step to step: the journal shows the ladder, and who was trained in full wins."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import Any

import pytest
import yaml
from quick_run import SPACE, QuickRun, check_run

from tunelab.fidelity import words
from tunelab.ladder import Ladder
from tunelab.overview import look
from tunelab.ranking import Leaderboard
from tunelab.storage import open_store

pytestmark = pytest.mark.ray

RULES = "early_stopping: {grace: 2, reduction: 2, collapse: 1}"


def space_of(fidelity: str, more: str = "") -> str:
    assert RULES in SPACE
    return SPACE.replace(RULES, f"early_stopping: {{reduction: 2}}\nfidelity: {fidelity}\n") + more


def status(run: Path) -> list[str]:
    """What ``tunelab status`` says."""
    return look(open_store(str(run))).lines()


def check_ladder(records: list[dict[str, Any]], steps: list[dict[str, float]]) -> Leaderboard:
    """Each trial that went on was the one whose turn it was when it was suggested, and nothing went on out of turn."""
    every, ladder, board = [*steps, {}], Ladder(len(steps), 2), Leaderboard()
    for record in records:
        board.apply(record)
        if record["kind"] not in ("suggestion", "end") or record.get("status") == "interrupted":
            continue
        trial = board.trials[record["trial"]]
        step = every.index(dict(trial.fidelity))
        if trial.name:
            assert not trial.fidelity
            assert not trial.of
        elif record["kind"] == "end":
            value = trial.chosen["tune_average_precision"] if trial.chosen else math.nan
            floored = trial.chosen is not None and trial.chosen["tune_lift"] <= 2
            ladder.told(trial.configuration, step, value, floored=floored)
        elif trial.of:
            first = board.trials[trial.of]
            assert trial.params == first.params
            assert trial.seed != first.seed
            assert not first.of
            assert (trial.of, step) in (ladder.promotable(), ladder.promotable(last=True))
            ladder.begun(trial.of, step)
        else:
            assert step == 0
            assert ladder.promotable() is None
            ladder.begun(trial.trial, step)
    assert ladder.promotable(last=True) is None, "somebody was to go on"
    return board


@pytest.mark.parametrize(
    ("fidelity", "steps", "word"),
    [
        ("{data: [0.2, 0.5]}", [{"data": 0.2}, {"data": 0.5}], "at 20 % of the data"),
        ("{decimation: [4, 2]}", [{"decimation": 4}, {"decimation": 2}], "at 1/4 of the samples"),
    ],
)
def test_the_best_of_each_step_go_on_and_one_in_full_wins(
    tmp_path: Path, fidelity: str, steps: list[dict[str, float]], word: str
) -> None:
    start = "start_from: [{name: known, family: simple_rnn, units: [6], learning_rate: 0.01, dropout: 0.1, l2: 1e-5}]\n"
    run = QuickRun(folder=tmp_path)
    assert run.search("--trials", "6", "--concurrent", "2", space=space_of(fidelity, start)).end() == 0, run.said
    check_run(run.run)
    board = check_ladder(run.records(), steps)
    trials = board.trials.values()
    assert len(board.configurations) == 6
    counts = [sum(dict(trial.fidelity) == at for trial in trials) for at in (*steps, {})]
    assert counts[0] == 5
    assert counts[1] >= 2
    assert counts[2] >= 2, "one of them the configuration to try first"
    assert not {trial.status for trial in trials} - {"finished"}
    (final,) = [r for r in run.records() if r["kind"] == "final"]
    assert board.best is not None
    assert final["trial"] == board.best.trial
    assert not board.best.fidelity
    assert word in run.said
    assert "~ at a lower fidelity" in run.said
    assert "Fidelity: each first " + word in run.said.replace("\n", " ")
    report = json.loads((run.run / "report.json").read_text())
    assert report["best"]["trial"] == board.best.trial
    assert report["configurations"] == 6
    rows = list(csv.DictReader((run.run / "leaderboard.csv").read_text().splitlines()))
    ranks = {row["trial"]: int(row["rank"]) for row in rows if row["rank"]}
    assert {row["trial"]: row["of"] for row in rows} == {trial.trial: trial.of for trial in trials}
    assert {row["trial"]: row["fidelity"] for row in rows} == {t.trial: words(t.fidelity) or "full" for t in trials}
    full = [ranks[t.trial] for t in trials if not t.fidelity and t.trial in ranks]
    assert max(full) < min(ranks[t.trial] for t in trials if t.fidelity)
    again = len(trials) - 6
    assert f"Trials: 6 of 6 and {again} again at a higher fidelity, {counts[2]} in full: " in str(status(run.run))
    page = (run.run / "report.html").read_text()
    assert page.count("not comparable with those above") == 2
    assert f"{word}, not comparable" in page


def test_a_search_that_was_killed_goes_on_from_its_step(tmp_path: Path) -> None:
    run = QuickRun(folder=tmp_path).search("--trials", "5", space=space_of("{data: [0.3]}"))
    run.wait_for(lambda records: any(r["kind"] == "suggestion" and r["of"] for r in records))
    run.kill_all()
    before = run.journal.read_bytes()
    assert run.resume().end() == 0, run.said
    check_run(run.run, before=before)
    board = check_ladder(run.records(), [{"data": 0.3}])
    assert len(board.configurations) == 5
    assert board.best is not None
    assert board.best.of


def test_another_fidelity_is_another_space(tmp_path: Path) -> None:
    run = QuickRun(folder=tmp_path)
    assert run.search("--trials", "2", "--max-epochs", "1", space=space_of("{data: [0.3]}")).end() == 0, run.said
    path = tmp_path / "space.yaml"
    document = yaml.safe_load(path.read_text())
    path.write_text(yaml.safe_dump({**document, "fidelity": {"data": [0.4]}}))
    assert run.resume().end() != 0
    assert 'space: fidelity: {"data": [0.3]} -> {"data": [0.4]}' in run.said


def test_time_that_ends_before_a_trial_in_full_is_said_and_more_time_brings_one(tmp_path: Path) -> None:
    run = QuickRun(folder=tmp_path, environment={"TUNELAB_QUICK_SECONDS": "20"})
    options = ("--trials", "2", "--max-epochs", "2", "--time-budget", "25s")
    assert run.search(*options, space=space_of("{data: [0.3]}")).end() == 4, run.said
    assert "none was trained in full; allow more: tunelab resume" in run.said
    run.environment["TUNELAB_QUICK_SECONDS"] = "0"
    assert run.resume("--time-budget", "10m").end() == 0, run.said
    assert check_ladder(run.records(), [{"data": 0.3}]).best is not None
