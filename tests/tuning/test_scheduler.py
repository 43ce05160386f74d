"""Decisions of the scheduler: recorded first, NaN worst, ends that the trial itself announced."""

from __future__ import annotations

import dataclasses
import json
import math
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ray.tune.schedulers import TrialScheduler

from tunelab.errors import StorageError
from tunelab.halving import Halving, Verdict
from tunelab.journal import Journal, read
from tunelab.sections import EarlyStopping
from tunelab.tuning import scheduler
from tunelab.tuning.record import Recorder
from tunelab.tuning.scheduler import RecordingScheduler

pytestmark = pytest.mark.ray

STOP, CONTINUE = TrialScheduler.STOP, TrialScheduler.CONTINUE


NOTHING = {
    "fold": 0,
    "seconds": 1.0,
    "parameters": 7,
    "weights": "",
    "checkpoint": "",
    "storage": "",
    "lost": "",
    "node": "",
}
NOTHING |= {"pooled": [], "notes": []}


class Bench:
    """A scheduler, its journal, and trials that report what they are told to."""

    def __init__(self, folder: Path, recorder: Recorder, **rules: Any) -> None:
        self.path = folder / "journal.jsonl"
        self.recorder = recorder
        asked = EarlyStopping(**{"grace": 2, "reduction": 2, "promote": False, "collapse": 0.25, **rules})
        self.scheduler = RecordingScheduler(asked, 8, recorder)
        self.trials: dict[str, Any] = {}

    def report(self, trial: str, epoch: int, dense: float, *, lift: float = 9.0, name: str = "", **said: Any) -> str:
        if trial not in self.trials:
            self.recorder.suggestion(trial, name, 0, {"family": "lstm"}, {})
            self.trials[trial] = SimpleNamespace(trial_id=f"ray-{trial}", config={"trial": trial})
            self.scheduler.on_trial_add(None, self.trials[trial])
        result = {**NOTHING, "epoch": epoch, "ended": "", "failed": "", **said}
        metrics = {"metrics/tune_average_precision": dense, "metrics/tune_lift": lift, "metrics/val_f1": 0.5}
        return self.scheduler.on_trial_result(None, self.trials[trial], result | metrics)


def rungs_of(bench: Bench) -> Any:
    assert isinstance(bench.scheduler.stopping, Halving)
    return bench.scheduler.stopping._rungs


@pytest.fixture
def bench(tmp_path: Path, recorder_in: Callable[[Path], Recorder]) -> Bench:
    return Bench(tmp_path, recorder_in(tmp_path))


def test_the_better_half_goes_on_at_a_rung_and_nobody_is_stopped_before(bench: Bench) -> None:
    for trial, dense in (("0001", 0.8), ("0002", 0.6), ("0003", 0.1)):
        assert bench.report(trial, 1, dense) == CONTINUE
    assert bench.report("0001", 2, 0.8) == CONTINUE
    assert bench.report("0002", 2, 0.6) == STOP
    assert bench.report("0003", 2, 0.1) == STOP
    bench.recorder.end("0003", "interrupted")
    ended = bench.recorder.board.trials["0003"]
    assert (ended.status, ended.cause) == ("stopped", "not among the best at epoch 2")


def test_nan_is_worst_and_is_stopped(bench: Bench) -> None:
    assert bench.report("0001", 2, 0.1) == CONTINUE
    assert bench.report("0002", 2, math.nan) == STOP
    assert bench.report("0003", 2, 0.2) == CONTINUE


def test_when_nearly_all_are_nan_the_rest_goes_on(bench: Bench) -> None:
    """Ray's own rule takes a percentile that leaves NaN out, and stops healthy trials instead."""
    for i in range(8):
        bench.report(f"{i:04d}", 2, math.nan)
    for i in range(8, 12):
        assert bench.report(f"{i:04d}", 2, 0.3) == CONTINUE
    assert bench.report("0099", 2, math.nan) == STOP


def test_a_trial_that_never_left_the_floor_ends_and_says_so(bench: Bench) -> None:
    """Whatever its average precision: it lies within two standard errors of chance."""
    assert bench.report("0001", 1, 0.4, lift=1.9) == CONTINUE
    assert bench.report("0001", 2, 0.4, lift=1.9) == STOP
    bench.recorder.end("0001", "interrupted")
    ended = bench.recorder.board.trials["0001"]
    said = "still on the floor at epoch 2: its average precision is that of chance"
    assert (ended.status, ended.cause) == ("stopped", said)
    assert [r["by"] for r in read(bench.path) if r["kind"] == "decision"] == ["collapse"]
    assert bench.report("0002", 1, 0.2, lift=2.1) == CONTINUE
    assert bench.report("0002", 2, 0.1, lift=0.0) == CONTINUE, "it left the floor"


def test_a_configuration_to_try_first_passes_the_early_rungs(bench: Bench) -> None:
    for epoch in (1, 2, 3):
        assert bench.report("0001", epoch, 0.5) == CONTINUE
        assert bench.report("0002", epoch, 0.1, lift=0.0, name="known") == CONTINUE
    assert bench.report("0001", 4, 0.5) == CONTINUE
    assert bench.report("0002", 4, 0.1, lift=0.0) == STOP
    bench.recorder.end("0002", "interrupted")
    assert bench.recorder.board.trials["0002"].cause == "not among the best at epoch 4"


def test_it_judges_the_best_so_far_not_the_last(bench: Bench) -> None:
    bench.report("0001", 2, 0.5)
    bench.report("0002", 1, 0.9)
    assert bench.report("0002", 2, 0.1) == CONTINUE


def test_a_result_is_on_disk_before_the_decision(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[str]] = []
    tell = Halving.tell

    def spy(self: Halving, *told: Any, **more: Any) -> Verdict:
        seen.append([record["kind"] for record in read(bench.path)])
        return tell(self, *told, **more)

    monkeypatch.setattr(Halving, "tell", spy)
    bench.report("0001", 1, 0.5)
    assert seen == [["suggestion", "result"]]


@pytest.mark.parametrize(
    ("said", "status", "cause"),
    [({"ended": "patience"}, "finished", ""), ({"failed": "the loss is nan"}, "failed", "the loss is nan")],
)
def test_what_a_trial_says_of_its_end_is_what_is_recorded(
    bench: Bench, said: dict[str, str], status: str, cause: str
) -> None:
    assert bench.report("0001", 1, 0.5, **said) == STOP
    bench.recorder.end("0001", "interrupted")
    ended = bench.recorder.board.trials["0001"]
    assert (ended.status, ended.cause) == (status, cause)
    assert [r["kind"] for r in read(bench.path)] == ["suggestion", "result", "decision", "end"]


def test_a_failure_before_the_first_epoch_has_no_result(bench: Bench) -> None:
    assert bench.report("0001", 0, math.nan, failed="cannot be built") == STOP
    assert [r["kind"] for r in read(bench.path)] == ["suggestion", "decision"]


def test_an_epoch_that_is_told_again_is_recorded_once(bench: Bench) -> None:
    bench.report("0001", 1, 0.5, weights="a")
    assert bench.report("0001", 1, 0.5, weights="a", again=True) == CONTINUE
    assert bench.report("0001", 2, 0.6) == CONTINUE
    assert [(r["kind"], r.get("epoch")) for r in read(bench.path)] == [
        ("suggestion", None),
        ("result", 1),
        ("result", 2),
    ]


def test_an_epoch_that_was_trained_again_and_came_out_otherwise_counts_as_it_is_stored_now(bench: Bench) -> None:
    bench.report("0001", 1, 0.5, weights="a")
    bench.report("0001", 2, 0.6, weights="b")
    bench.report("0001", 2, 0.61, weights="c")
    chosen = bench.recorder.board.trials["0001"].chosen
    assert chosen is not None
    assert (chosen.epoch, chosen.weights) == (2, "c")
    assert [e.epoch for e in bench.recorder.board.trials["0001"].epochs] == [1, 2]


def test_a_trial_survives_as_many_losses_of_its_process_as_it_may(bench: Bench) -> None:
    bench.report("0001", 1, 0.5)
    for _ in range(3):
        assert bench.report("0001", 0, math.nan, lost="killed by signal 9 (SIGKILL)") == CONTINUE
    assert bench.report("0001", 0, math.nan, lost="exit code 3") == STOP
    bench.recorder.end("0001", "interrupted")
    ended = bench.recorder.board.trials["0001"]
    said = "its process was lost 4 times (--max-failures 3); the last time: exit code 3"
    assert (ended.status, ended.cause, ended.failures) == ("failed", said, 4)


class RayTrial:
    """As much of Ray's trial as the scheduler looks at."""

    def __init__(self, trial: str, error: Path) -> None:
        self.trial_id, self.config, self.max_failures = "ray", {"trial": trial}, -1
        self.error_file = str(error)


def test_a_lost_node_never_counts_against_a_trial_and_a_lost_process_does(bench: Bench) -> None:
    bench.report("0001", 1, 0.5)
    node, process = bench.path.parent / "node.txt", bench.path.parent / "process.txt"
    node.write_text(
        "Failure # 1 (occurred at 2026-01-01_00-00-00)\nThe actor died because its node has died. Node Id: 12\n"
    )
    for _ in range(10):
        bench.scheduler.on_trial_error(None, trial := RayTrial("0001", node))
        assert trial.max_failures == -1
    assert bench.recorder.board.trials["0001"].failures == 0
    old = node.read_text()
    process.write_text(f"{old}Failure # 2 (occurred at 2026-01-01_00-00-01)\nits worker process has died.\n")
    for _ in range(3):
        bench.scheduler.on_trial_error(None, trial := RayTrial("0001", process))
        assert trial.max_failures == -1
    bench.scheduler.on_trial_error(None, trial := RayTrial("0001", process))
    assert trial.max_failures == 0, "Ray gives it up the next time"
    assert bench.report("0001", 2, 0.9) == STOP, "and so do we with its next result"
    assert [r["counts"] for r in read(bench.path) if r["kind"] == "failure"] == [False] * 10 + [True] * 4


def test_a_loss_that_may_have_been_a_nodes_counts_once_all_nodes_are_seen_to_be_there(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    alive = {"n1", "n2"}
    monkeypatch.setattr(scheduler, "nodes_alive", lambda: set(alive))
    error = bench.path.parent / "closed.txt"
    error.write_text("Failure # 1 (occurred at 2026-01-01_00-00-00)\nThe actor is unavailable: Socket closed\n")

    def lose(trial: str) -> None:
        bench.scheduler.on_trial_error(None, RayTrial(trial, error))

    def later(epoch: int) -> list[int]:
        """The failures that count once the time is over."""
        bench.scheduler._doubts = [dataclasses.replace(doubt, until=0.0) for doubt in bench.scheduler._doubts]
        bench.report("0001", epoch, 0.5 + epoch / 100)
        return [trial.failures for trial in bench.recorder.board.snapshot()]

    bench.report("0001", 1, 0.5)
    lose("0001")
    bench.report("0001", 2, 0.6)
    assert bench.recorder.board.trials["0001"].failures == 0, "it is not known yet"
    assert later(3) == [1]
    said = "its process was lost: the connection to it closed, and no node was lost"
    assert bench.recorder.board.trials["0001"].loss == said
    assert later(4) == [1], "each loss is settled once"
    lose("0001")
    alive.remove("n2")
    assert later(5) == [1]
    lose("0001")
    assert later(6) == [1], "a node of which the last trial knew has gone meanwhile"
    bench.scheduler.on_trial_add(None, None)
    lose("0001")
    assert later(7) == [2]


def test_a_trial_that_cannot_store_ends_the_search_and_not_itself(bench: Bench) -> None:
    bench.report("0001", 1, 0.5)
    with pytest.raises(StorageError, match="No space left"):
        bench.report("0001", 0, math.nan, storage="weights/0001-e0002.npz: No space left on device")
    assert isinstance(bench.recorder.fault, StorageError)
    assert [r["kind"] for r in read(bench.path)] == ["suggestion", "result"]


def test_what_is_worth_knowing_of_a_checkpoint_is_recorded(bench: Bench) -> None:
    bench.report("0001", 1, 0.5, notes=["checkpoints/0001/s000002.ckpt: damaged; goes on from epoch 1"])
    assert [r["text"] for r in read(bench.path) if r["kind"] == "note"] == [
        "checkpoints/0001/s000002.ckpt: damaged; goes on from epoch 1"
    ]


class Simulated:
    """Asynchronous successive halving written again, from its description: one bracket, ties stay, NaN is worst."""

    def __init__(self, grace: int, reduction: int, longest: int) -> None:
        self.reduction = reduction
        self.rungs: dict[int, dict[str, float]] = {}
        at = grace
        while at < longest:
            self.rungs[at] = {}
            at *= reduction
        self.best: dict[str, float] = {}

    def goes_on(self, trial: str, epoch: int, dense: float) -> bool:
        self.best[trial] = max(self.best.get(trial, -1.0), -1.0 if math.isnan(dense) else dense)
        if epoch not in self.rungs:
            return True
        there = self.rungs[epoch]
        there[trial] = self.best[trial]
        ahead = sum(value > self.best[trial] for value in there.values())
        return self.best[trial] >= 0 and ahead < max(len(there) // self.reduction, 1)


STEPS = st.lists(
    st.tuples(
        st.integers(0, 7),
        st.sampled_from([0.0, 0.1, 0.12, 0.12, 0.3, 0.5, 0.9, math.nan]),
        st.booleans(),
    ),
    max_size=60,
)


@given(STEPS)
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_decisions_are_those_of_a_simulation_with_ties_nan_and_restarts(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[int, float, bool]]
) -> None:
    folder = tmp_path_factory.mktemp("bench")
    journal = Journal.open(folder / "journal.jsonl")
    bench = Bench(folder, Recorder(journal))
    simulated = Simulated(2, 2, 8)
    over: set[str] = set()
    epochs: Counter[str] = Counter()
    try:
        for number, dense, killed in steps:
            trial = f"{number:04d}"
            if trial in over or epochs[trial] == 8:
                continue
            epochs[trial] += 1
            goes_on = simulated.goes_on(trial, epochs[trial], dense)
            assert (bench.report(trial, epochs[trial], dense) == CONTINUE) == goes_on
            if not goes_on:
                over.add(trial)
                bench.recorder.end(trial, "interrupted")
            if killed:
                journal.close()
                journal = Journal.open(folder / "journal.jsonl")
                again = Bench(folder, Recorder(journal))
                again.recorder.replay([again.scheduler.replayed])
                assert rungs_of(again) == rungs_of(bench)
                again.trials = bench.trials
                bench = again
    finally:
        journal.close()


@pytest.mark.parametrize("lost", ["decision", "end"])
def test_what_a_result_called_for_is_decided_after_a_kill_between_the_two(
    tmp_path: Path, recorder_in: Callable[[Path], Recorder], lost: str
) -> None:
    """The driver was killed after the result was on disk and before the decision, or the end, was."""
    bench = Bench(tmp_path, recorder_in(tmp_path))
    bench.report("0001", 2, 0.8)
    bench.report("0002", 2, 0.1)
    bench.report("0003", 2, 0.9, ended="patience")
    (tmp_path / "cut").mkdir()
    lines = bench.path.read_bytes().splitlines(keepends=True)
    kinds = [json.loads(line)["kind"] for line in lines]
    assert kinds[-3:] == ["suggestion", "result", "decision"]
    cut = lines[:-1] if lost == "decision" else lines
    (tmp_path / "cut" / "journal.jsonl").write_bytes(b"".join(cut))
    again = Bench(tmp_path / "cut", recorder_in(tmp_path / "cut"))
    again.recorder.replay([again.scheduler.replayed])
    again.scheduler.settle()
    assert again.recorder.decided("0002")
    assert again.recorder.decided("0003")
    assert not again.recorder.decided("0001")
    for trial in ("0002", "0003"):
        again.recorder.end(trial, "interrupted")
    board = again.recorder.board.trials
    assert (board["0002"].status, board["0002"].cause) == ("stopped", "not among the best at epoch 2")
    assert (board["0003"].status, board["0003"].cause) == ("finished", "")
    assert [r["kind"] for r in read(again.path)].count("decision") == 2


@pytest.fixture
def waiting(tmp_path: Path, recorder_in: Callable[[Path], Recorder]) -> Bench:
    return Bench(tmp_path, recorder_in(tmp_path), promote=True)


def test_a_trial_that_is_not_among_the_best_waits_and_goes_on_when_others_are_worse(waiting: Bench) -> None:
    bench = waiting
    assert bench.report("0001", 2, 0.5) == STOP
    assert bench.report("0002", 2, 0.4) == STOP
    assert {t.status for t in bench.recorder.board.snapshot()} == {"waiting"}
    assert [r["kind"] for r in read(bench.path)][-2:] == ["result", "wait"]
    assert bench.scheduler.promotable(last=False) == "0001"
    bench.scheduler.promoted("0001")
    bench.recorder.resumed("0001")
    assert bench.recorder.board.trials["0001"].status == "running"
    assert bench.scheduler.promotable(last=False) is None
    assert bench.report("0001", 2, 0.5) == CONTINUE, "the epoch of its checkpoint is told again"
    assert bench.report("0001", 3, 0.5) == CONTINUE
    for trial in ("0003", "0004"):
        bench.report(trial, 2, 0.1)
    assert bench.scheduler.promotable(last=False) == "0002"


def test_where_no_new_trials_come_the_best_of_a_rung_goes_on_and_the_others_end(waiting: Bench) -> None:
    bench = waiting
    assert bench.report("0001", 2, 0.5) == STOP
    assert bench.scheduler.promotable(last=False) is None
    assert bench.scheduler.promotable(last=True) == "0001"
    bench.scheduler.promoted("0001")
    bench.recorder.resumed("0001")
    assert bench.report("0002", 2, 0.4) == STOP
    assert bench.scheduler.promotable(last=True) is None
    bench.scheduler.give_up()
    ended = bench.recorder.board.trials["0002"]
    assert (ended.status, ended.cause) == ("stopped", "not among the best at epoch 2")
    assert bench.recorder.board.trials["0001"].status == "running"


def test_no_more_trials_wait_than_may_and_the_least_likely_end(
    tmp_path: Path, recorder_in: Callable[[Path], Recorder]
) -> None:
    bench = Bench(tmp_path, recorder_in(tmp_path), promote=True, waiting=2, reduction=4)
    for number, dense in enumerate((0.2, 0.3, 0.1), 1):
        assert bench.report(f"{number:04d}", 2, dense) == STOP
    assert {t.trial: t.status for t in bench.recorder.board.snapshot()} == {
        "0001": "waiting",
        "0002": "waiting",
        "0003": "stopped",
    }
    assert bench.report("0004", 2, 0.01) == STOP
    assert bench.recorder.board.trials["0004"].status == "stopped"
    assert bench.scheduler.promotable(last=False) == "0002", "the one that ended is still compared with"


@pytest.mark.parametrize("scheduler", ["halving", "hyperband", "median", "none"])
@given(STEPS)
@settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_killed_search_decides_as_one_that_was_not(
    tmp_path_factory: pytest.TempPathFactory, scheduler: str, steps: list[tuple[int, float, bool]]
) -> None:
    """Two of each, told the same; one is killed and replayed where the steps say so."""
    benches, journals = [], []
    for _ in range(2):
        folder = tmp_path_factory.mktemp("bench")
        journals.append(Journal.open(folder / "journal.jsonl"))
        benches.append(Bench(folder, Recorder(journals[-1]), promote=True, scheduler=scheduler))
    epochs: Counter[str] = Counter()
    try:
        for number, dense, killed in steps:
            trial = f"{number:04d}"
            if epochs[trial] == 8 or (epochs[trial] and benches[0].recorder.board.trials[trial].status != "running"):
                continue
            epochs[trial] += 1
            lift = 9.0 if dense > 0.1 else 0.0
            said = [bench.report(trial, epochs[trial], dense, lift=lift) for bench in benches]
            assert said[0] == said[1]
            for bench in benches:
                if bench.recorder.decided(trial):
                    bench.recorder.end(trial, "interrupted")
                if (waited := bench.scheduler.promotable(last=killed)) is not None:
                    bench.scheduler.promoted(waited)
                    bench.recorder.resumed(waited)
            if killed:
                journals[1].close()
                folder = benches[1].path.parent
                journals[1] = Journal.open(folder / "journal.jsonl")
                again = Bench(folder, Recorder(journals[1]), promote=True, scheduler=scheduler)
                again.recorder.replay([again.scheduler.replayed])
                again.scheduler.settle()
                again.trials = benches[1].trials
                benches[1] = again
            statuses = [{t.trial: t.status for t in bench.recorder.board.snapshot()} for bench in benches]
            assert statuses[0] == statuses[1]
    finally:
        for journal in journals:
            journal.close()


def test_a_wait_that_a_result_called_for_is_written_after_a_kill_between_the_two(
    waiting: Bench, recorder_in: Callable[[Path], Recorder]
) -> None:
    waiting.report("0001", 2, 0.8)
    lines = waiting.path.read_bytes().splitlines(keepends=True)
    assert json.loads(lines[-1])["kind"] == "wait"
    cut = waiting.path.parent / "cut"
    cut.mkdir()
    (cut / "journal.jsonl").write_bytes(b"".join(lines[:-1]))
    again = Bench(cut, recorder_in(cut), promote=True)
    again.recorder.replay([again.scheduler.replayed])
    assert again.recorder.board.trials["0001"].status == "running"
    again.scheduler.settle()
    assert again.recorder.board.trials["0001"].status == "waiting"
