"""What ends a search before its trials: told from a real journal, while it grows."""

from __future__ import annotations

import pickle
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ray.tune.experiment import Trial

from tunelab.journal import Journal
from tunelab.spending import HOUR
from tunelab.tuning import interrupt
from tunelab.tuning.budget import ALL_OVER, Budget
from tunelab.tuning.hooks import BudgetStopper, Places
from tunelab.tuning.in_vain import LEAST
from tunelab.tuning.record import Recorder

pytestmark = pytest.mark.ray


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    with_it = Journal.open(tmp_path / "journal.jsonl")
    with_it.append("session")
    yield with_it
    with_it.close()


@pytest.fixture
def budget(journal: Journal) -> Callable[..., Budget]:
    def make(**given: Any) -> Budget:
        limits = {"trials": None, "seconds": None, "gpu_hours": None, "begun": time.monotonic()}
        return Budget(journal, **{**limits, **given})

    return make


def suggest(recorder: Recorder, *trials: str) -> None:
    for trial in trials:
        recorder.suggestion(trial, "", 0, {"family": "lstm"}, {})


def test_gpu_hours_grow_while_a_trial_has_its_place_and_stay_used(
    journal: Journal, budget: Callable[..., Budget]
) -> None:
    recorder = Recorder(journal)
    suggest(recorder, "0001")
    one, stopper = budget(gpu_hours=0.05 * 1000 / HOUR), BudgetStopper(budget(gpu_hours=0.05 * 1000 / HOUR))
    assert (one.spent(), one.used(), stopper.stop_all()) == (0.0, False, False)
    Places(recorder, 1000.0).on_trial_start(0, [], _Tried("0001"))
    deadline = time.monotonic() + 30
    while not one.used():
        assert time.monotonic() < deadline
    assert one.spent() >= 0.05 * 1000 / HOUR
    assert stopper.stop_all()
    recorder.end("0001", "interrupted", one.cause())
    spent = one.spent()
    assert (one.used(), one.spent()) == (True, spent), "nothing counts any more"
    assert recorder.board.trials["0001"].cause == "the GPU-hours were used"
    assert one.reason(recorder.board) == "the GPU-hours were used"
    assert one.left() is None


def test_without_a_limit_nothing_is_ever_used(journal: Journal, budget: Callable[..., Budget]) -> None:
    recorder = Recorder(journal)
    suggest(recorder, "0001")
    recorder.started("0001", 1e9)
    assert not budget().used()
    assert not BudgetStopper(budget()).stop_all()


def test_the_time_of_earlier_sessions_counts(tmp_path: Path) -> None:
    first = Journal.open(tmp_path / "journal.jsonl")
    first.append("session")
    first._opened -= 50
    first.append("note")
    first.close()
    second = Journal.open(tmp_path / "journal.jsonl")
    second.append("session")
    begun = time.monotonic()
    left = Budget(second, trials=None, seconds=60.0, gpu_hours=None, begun=begun).left()
    second.close()
    assert left is not None
    assert 0 < left <= 10
    assert left == pytest.approx(10 - (time.monotonic() - begun), abs=1)


def test_why_a_search_ended(journal: Journal, budget: Callable[..., Budget], monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = Recorder(journal)
    suggest(recorder, "0001", "0002")
    recorder.end("0001", "finished")
    assert budget(trials=2).reason(recorder.board) == "the time was over", "a trial is unfinished"
    recorder.end("0002", "stopped")
    assert budget(trials=3).reason(recorder.board) == "the time was over"
    assert budget(trials=2).reason(recorder.board) == ALL_OVER
    assert budget(trials=1).reason(recorder.board) == ALL_OVER
    assert budget().reason(recorder.board) == "the time was over"
    monkeypatch.setattr(interrupt, "_received", [15])
    assert budget(trials=2).reason(recorder.board) == "ended by the user"
    assert BudgetStopper(budget()).stop_all()


def test_trials_that_all_fail_alike_end_a_search(journal: Journal, budget: Callable[..., Budget]) -> None:
    recorder, one = Recorder(journal), budget(trials=40)
    trials = [f"{number:04d}" for number in range(1, LEAST + 2)]
    *others, slow = trials
    suggest(recorder, *trials)
    recorder.started(slow, 1.0)
    for trial in others:
        recorder.started(trial, 1.0)
        assert (one.doubtful(), one.used()) == (False, False)
        recorder.end(trial, "failed", "ValueError: no GPU")
    assert (one.doubtful(), one.used(), one.vain) == (True, False, 0), "one trains, and no other is begun"
    recorder.end(slow, "failed", "ValueError: no GPU")
    assert (one.used(), one.vain) == (True, LEAST + 1)
    assert BudgetStopper(budget()).stop_all()
    said = f"{LEAST + 1} trials in a row failed for the same cause"
    assert (one.cause(), one.reason(recorder.board)) == (said, said)
    assert budget(trials=LEAST + 1).reason(recorder.board) == ALL_OVER
    journal.append("session")
    assert not budget(trials=40).used(), "a new session counts anew"


def test_what_ray_pickles_holds_nothing(journal: Journal, budget: Callable[..., Budget]) -> None:
    for one in (budget(), BudgetStopper(budget()), Places(Recorder(journal), 1.0)):
        assert pickle.loads(pickle.dumps(one)).__dict__ == {}


def test_what_ray_keeps_of_a_trials_metrics_goes_with_it(journal: Journal) -> None:
    place = Places(Recorder(journal), 1.0)
    for leave in (place.on_trial_complete, place.on_trial_error):
        trial = Trial("none", config={"trial": "0001"}, stub=True)
        for epoch in (1, 2):
            trial.update_last_result({"training_iteration": epoch, "time_total_s": 1.0, "metrics/loss": 0.5})
        assert trial.metric_analysis["metrics/loss"]["last"] == 0.5
        before = trial.get_json_state()
        leave(0, [trial], trial)
        assert not trial.metric_analysis
        assert trial.last_result["metrics/loss"] == 0.5
        assert len(str(trial.get_json_state())) < len(str(before))


class _Tried:
    def __init__(self, trial: str) -> None:
        self.config = {"trial": trial}
