"""``optuna.log``: what Optuna reads of it after ends, resumes, kills, damage and disks that do not take it."""

from __future__ import annotations

import math
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState
from quick_run import SPACE, QuickRun, check_run

from tunelab.models import normalise
from tunelab.ranking import Status
from tunelab.space import Space, load_space
from tunelab.tuning.optuna_log import FILE, OptunaLog
from tunelab.tuning.record import Recorder

Tell = Callable[..., dict[str, Any]]
Open = Callable[[Path], Recorder]


@pytest.fixture
def space(tmp_path: Path) -> Space:
    path = tmp_path / "space.yaml"
    path.write_text(SPACE)
    return load_space(path)


class Bench:
    """A recorder whose trials go to a file, one session after another."""

    def __init__(self, folder: Path, space: Space, opened: Open, told: Tell) -> None:
        self.folder, self.space, self._opened, self._told = folder, space, opened, told
        self.path = folder / FILE
        self.said: list[str] = []
        self.session()

    def session(self, space: Space | None = None) -> None:
        """Begin, or go on with what the journal holds."""
        if hasattr(self, "recorder"):
            self.recorder._journal.close()
        self.recorder = self._opened(self.folder)
        self.recorder.replay()
        log = OptunaLog(self.path, "run", space or self.space, self.recorder, self.said.append)
        log.begin()
        self.recorder.listeners.append(log.told)

    def begin(self, trial: str, family: str = "simple_rnn", **params: Any) -> None:
        own = {"units": [6]} if family == "simple_rnn" else {"dense": [8, 6], "units": [6]}
        shared = {"learning_rate": 0.01, "batch_size": 4, "dropout": 0.1, "l2": 1e-5}
        full = normalise({"family": family, **shared, **own, **params})
        self.recorder.suggestion(trial, "", 0, full, self.space.column_values(full))

    def epochs(self, trial: str, *values: float, first: int = 1) -> None:
        for epoch, value in enumerate(values, start=first):
            self.recorder.result(trial, self._told(epoch, tune_average_precision=value, val_f1=value / 2))

    def whole(self, trial: str, status: Status = "finished", *values: float) -> None:
        self.begin(trial)
        self.epochs(trial, *values)
        self.recorder.end(trial, status)

    def study(self) -> optuna.Study:
        return read(self.path)

    def names(self) -> list[str]:
        return [trial.user_attrs["trial"] for trial in self.study().trials]


@pytest.fixture
def bench(tmp_path: Path, space: Space, recorder_in: Open, told: Tell) -> Bench:
    return Bench(tmp_path, space, recorder_in, told)


def read(path: Path, name: str = "run") -> optuna.Study:
    """As anybody would who has Optuna alone."""
    return optuna.load_study(study_name=name, storage=JournalStorage(JournalFileBackend(str(path))))


def test_each_way_to_end_is_a_state_of_optunas(bench: Bench) -> None:
    bench.whole("0001", "finished", 0.2, 0.4, 0.3)
    bench.whole("0002", "stopped", 0.1, math.nan)
    bench.begin("0003")
    bench.epochs("0003", 0.2)
    bench.recorder.end("0003", "failed", "OutOfMemory: of its process")
    bench.whole("0004", "finished", math.nan)
    bench.whole("0005", "stopped")
    bench.whole("0006", "interrupted", 0.9)
    study = bench.study()
    assert study.direction.name == "MAXIMIZE"
    assert [(t.state, t.value) for t in study.trials] == [
        (TrialState.COMPLETE, 0.4),
        (TrialState.PRUNED, 0.1),
        (TrialState.FAIL, None),
        (TrialState.FAIL, None),
        (TrialState.PRUNED, None),
    ]
    first, second, third = study.trials[:3]
    assert study.best_trial.number == first.number
    assert first.intermediate_values == {1: 0.2, 2: 0.4, 3: 0.3}
    assert second.intermediate_values == {1: 0.1}
    told = {"trial": "0001", "family": "simple_rnn", "status": "finished", "validation_f1": 0.2, "epoch": 2}
    assert first.user_attrs.items() >= (told | {"parameters": 7, "params.batch_size": 4}).items()
    assert not first.user_attrs.keys() & {"cause", "name", "params.learning_rate", "params.family"}
    assert third.user_attrs["cause"] == "OutOfMemory: of its process"
    records = bench.recorder.records
    assert first.datetime_start is not None
    assert first.datetime_start.timestamp() == pytest.approx(records[0]["time"])
    assert first.datetime_complete is not None
    assert first.datetime_complete.timestamp() == pytest.approx(records[4]["time"])


def test_a_space_of_two_families_shows_the_dimensions_of_both(bench: Bench) -> None:
    bench.whole("0001", "finished", 0.2)
    bench.begin("0002", "dense_rnn")
    bench.epochs("0002", 0.3)
    bench.recorder.end("0002", "finished")
    one, other = bench.study().trials
    shared = {"family", "learning_rate", "dropout", "l2"}
    assert set(one.params) == shared | {"simple_rnn.units"}
    assert set(other.params) == shared | {"dense_rnn.dense"}
    assert (one.params["family"], other.params["family"]) == ("simple_rnn", "dense_rnn")
    assert other.params["dense_rnn.dense"] == "[8, 6]"
    assert other.user_attrs["params.units"] == [6]
    assert "params.units" not in one.user_attrs
    assert one.distributions["learning_rate"] == optuna.distributions.FloatDistribution(1e-3, 1.0, log=True)


def test_a_trial_outside_the_space_has_its_params_as_attributes(bench: Bench, tmp_path: Path) -> None:
    bench.whole("0001", "finished", 0.2)
    path = tmp_path / "other.yaml"
    path.write_text(SPACE.replace("[[6], [8]]", "[[7], [8]]"))
    bench.session(load_space(path))
    (trial,) = bench.study().trials
    assert (trial.state, trial.value, trial.params) == (TrialState.COMPLETE, 0.2, {})
    assert trial.user_attrs["params.units"] == [6]
    assert trial.user_attrs["params.learning_rate"] == 0.01


def test_a_session_writes_anew_what_the_one_before_wrote(bench: Bench) -> None:
    for number in range(1, 6):
        bench.whole(f"{number:04d}", "stopped" if number % 2 else "finished", number / 10)
    before = bench.path.read_bytes()
    bench.session()
    assert bench.path.read_bytes() == before
    bench.whole("0006", "finished", 0.1)
    assert bench.path.read_bytes().startswith(before)
    assert bench.names() == ["0001", "0002", "0003", "0004", "0005", "0006"]


def test_an_interrupted_trial_is_written_once_when_it_is_over_at_last(bench: Bench) -> None:
    bench.begin("0001")
    bench.epochs("0001", 0.1)
    bench.whole("0002", "finished", 0.2)
    bench.recorder.end("0001", "interrupted", "ended by the user")
    assert bench.names() == ["0002"]
    bench.session()
    bench.recorder.resumed("0001")
    bench.epochs("0001", 0.3, first=2)
    bench.recorder.end("0001", "finished")
    assert bench.names() == ["0002", "0001"]
    assert bench.study().trials[1].intermediate_values == {1: 0.1, 2: 0.3}
    bench.session()
    assert bench.names() == ["0002", "0001"]


def gone(path: Path) -> None:
    path.unlink()


def torn(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def torn_and_added_to(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100] + b'{"op_code":4}\n')


def of_somebody_else(path: Path) -> None:
    path.unlink()
    optuna.create_study(study_name="run", storage=JournalStorage(JournalFileBackend(str(path)))).ask()


def of_bytes(path: Path) -> None:
    path.write_bytes(os.urandom(1000) + b"\n")


@pytest.mark.parametrize("harm", [gone, torn, torn_and_added_to, of_somebody_else, of_bytes])
def test_whatever_was_done_to_it_counts_for_nothing_when_a_session_begins(
    bench: Bench, harm: Callable[[Path], None]
) -> None:
    bench.whole("0001", "finished", 0.1)
    bench.whole("0002", "stopped", 0.2)
    whole = bench.path.read_bytes()
    harm(bench.path)
    bench.session()
    assert bench.path.read_bytes() == whole
    bench.whole("0003", "finished", 0.3)
    assert bench.names() == ["0001", "0002", "0003"]


def test_one_that_is_removed_while_a_search_goes_on_is_there_again_with_the_next_trial(bench: Bench) -> None:
    bench.whole("0001", "finished", 0.1)
    bench.path.unlink()
    bench.whole("0002", "finished", 0.2)
    assert bench.names() == ["0001", "0002"]
    assert bench.said == []


@pytest.mark.parametrize("when", ["begin", "end"])
def test_a_place_that_cannot_be_written_is_said_once_and_ends_nothing(bench: Bench, when: str) -> None:
    bench.whole("0001", "finished", 0.1)
    bench.path.unlink()
    bench.path.mkdir()  # which nobody can open, not even root
    if when == "begin":
        bench.session()
    bench.whole("0002", "finished", 0.2)
    bench.whole("0003", "finished", 0.3)
    (said,) = bench.said
    assert said.startswith(f"{bench.path}: cannot be written: Is a directory; ")
    assert said.endswith("; the search goes on, and the file is written once it can be")
    assert [record["trial"] for record in bench.recorder.records if record["kind"] == "end"] == ["0001", "0002", "0003"]
    assert bench.recorder.fault is None
    bench.path.rmdir()
    bench.whole("0004", "finished", 0.4)
    bench.whole("0005", "finished", 0.5)
    assert bench.names() == ["0001", "0002", "0003", "0004", "0005"]


def test_a_lock_that_another_program_left_is_not_waited_for_and_none_is_made(bench: Bench) -> None:
    lock = bench.path.with_name(f"{FILE}.lock")
    bench.whole("0001", "finished", 0.1)
    assert not os.path.lexists(lock)
    lock.symlink_to(bench.path)  # as Optuna's own lock is, whose holder was killed
    bench.session()
    bench.whole("0002", "finished", 0.2)
    assert bench.names() == ["0001", "0002"]
    assert sorted(path.name for path in bench.folder.glob(f"*{FILE}*")) == [FILE, lock.name]


@pytest.mark.ray
def test_a_run_that_is_killed_and_goes_on_has_each_trial_once(tmp_path: Path) -> None:
    run = QuickRun(folder=tmp_path).search("--trials", "5")
    run.wait_for(lambda records: sum(record["kind"] == "end" for record in records) >= 2)
    run.kill(signal.SIGKILL)
    path = run.run / FILE
    assert path.exists()
    path.write_bytes(path.read_bytes()[:-50])
    known, before = run.journal.read_bytes(), run.said
    assert run.resume().end() == 0, run.said
    assert check_run(run.run, before=known, said=before).trials == 5
    ends = [record for record in run.records() if record["kind"] == "end"]
    assert [trial.user_attrs["trial"] for trial in read(path).trials] == [record["trial"] for record in ends]
    states = {"finished": TrialState.COMPLETE, "stopped": TrialState.PRUNED}
    assert [trial.state for trial in read(path).trials] == [states[record["status"]] for record in ends]
    assert all(_is_described(trial) for trial in read(path).trials)
    assert not os.path.lexists(f"{path}.lock")
    assert "Warning" not in run.said


def _is_described(trial: FrozenTrial) -> bool:
    return {"family", "learning_rate", f"{trial.params['family']}.{_own(trial)}"} <= set(trial.params)


def _own(trial: FrozenTrial) -> str:
    return "units" if trial.params["family"] == "simple_rnn" else "dense"
