"""The trials that are over as a study of Optuna: ``optuna.log`` in a run's folder, for Optuna's own tools.

Written by the driver as trials end; no search and no report reads it back. It is made anew from the journal when a
session begins, so that whatever a kill, a full disk or another program left there counts for nothing; then it is only
added to. One process writes it, the one that holds the run, so that Optuna's own lock file, which a kill would leave
behind, is not needed. The same journal gives the same file, byte for byte.

A study knows what a space is; so a trial's params are those of its dimensions, and all others are user attributes.
"""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.storages import BaseStorage, JournalStorage
from optuna.storages.journal import BaseJournalBackend
from optuna.trial import FrozenTrial, TrialState, create_trial

from tunelab.errors import StorageError
from tunelab.files import write_file
from tunelab.journal import Record
from tunelab.ranking import Leaderboard, Trial
from tunelab.space import Space
from tunelab.tuning.optuna_space import place
from tunelab.tuning.record import Recorder

FILE = "optuna.log"
"""Name in a run's folder."""
METRIC = "tune average precision, chosen epoch"
"""What a trial's value is; the intermediate ones are those of its epochs, of the first fold where there are folds."""
_STATES = {"finished": TrialState.COMPLETE, "stopped": TrialState.PRUNED}
_WRITER = "tunelab"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """A trial that is over."""

    trial: Trial
    begun: float
    """When it was suggested, seconds since the epoch."""
    over: float


class Endings:
    """Tells from a journal's records which trials are over, in the order in which they ended."""

    def __init__(self) -> None:
        self._board = Leaderboard()
        self._begun: dict[str, float] = {}

    def told(self, record: Record) -> Ended | None:
        """Take in the next record.

        Returns:
            The trial that is over with it; None where none is.

        Raises:
            StateError: as of :meth:`tunelab.ranking.Leaderboard.apply`.
        """
        self._board.apply(record)
        if record["kind"] == "suggestion":
            self._begun[record["trial"]] = record.get("time", 0.0)
        elif record["kind"] == "end":
            trial = self._board.trials[record["trial"]]
            if trial.over and trial.trial in self._begun:
                return Ended(trial=trial, begun=self._begun.pop(trial.trial), over=record.get("time", 0.0))
        return None


def new_study(storage: BaseStorage | None, name: str) -> optuna.Study:
    """An empty study of a run.

    Args:
        storage: of Optuna; None: memory.
        name: the run's.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(storage=storage, study_name=name, direction="maximize")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        study.set_metric_names([METRIC])
    return study


def frozen(space: Space | None, one: Ended) -> FrozenTrial:
    """A trial that is over as Optuna has it; one without any value failed.

    Args:
        space: what was searched; None: nobody knows. Of a trial that lies outside it, all params are user attributes.
        one: the trial.
    """
    trial = one.trial
    chosen = trial.chosen
    best = chosen["tune_average_precision"] if chosen else math.nan
    state = _STATES.get(trial.status, TrialState.FAIL)
    if state is TrialState.COMPLETE and math.isnan(best):
        state = TrialState.FAIL
    params, distributions = _dimensions(space, trial)
    made = create_trial(
        state=state,
        value=None if state is TrialState.FAIL or math.isnan(best) else best,
        params=params,
        distributions=distributions,
        user_attrs=_attributes(trial, {name.removeprefix(f"{trial.family}.") for name in params}),
        intermediate_values={
            epoch.epoch: value for epoch in trial.epochs if math.isfinite(value := epoch["tune_average_precision"])
        },
    )
    made.datetime_start, made.datetime_complete = map(datetime.fromtimestamp, (one.begun, one.over))
    return made


class OptunaLog:
    """The file of a run, as a listener of its recorder.

    What keeps it from being written is said once and never ends the search: the next trial to end tries anew.

    Args:
        path: of the file.
        name: the run's.
        space: what is searched.
        recorder: whose journal it follows.
        say: told what a user should know.
    """

    def __init__(self, path: Path, name: str, space: Space, recorder: Recorder, say: Callable[[str], None]) -> None:
        self._path = path
        self._name = name
        self._space = space
        self._recorder = recorder
        self._say = say
        self._begun: dict[str, float] = {}
        self._whole = False
        self._warned = False

    def begin(self) -> None:
        """Write the file anew, from all that the journal holds."""
        records = self._recorder.records
        self._begun = {r["trial"]: r["time"] for r in records if r["kind"] == "suggestion"}
        endings = Endings()
        trials = [frozen(self._space, one) for one in map(endings.told, records) if one is not None]
        self._written(lambda: write_file(self._path, _lines(self._name, trials)))

    def told(self, kind: str, trial: Trial) -> None:
        """A listener of the recorder."""
        if kind == "suggestion":
            self._begun[trial.trial] = self._recorder.records[-1]["time"]
        elif kind == "end" and trial.over:
            if not self._whole or not self._path.exists():
                self.begin()
                return
            over = self._recorder.records[-1]["time"]
            one = frozen(self._space, Ended(trial=trial, begun=self._begun.pop(trial.trial), over=over))
            self._written(lambda: self._add(_lines(self._name, [one], begin=False)))

    def _add(self, lines: bytes) -> None:
        # without fsync: what a lost machine tears is written anew when the search goes on
        with self._path.open("ab") as file:
            file.write(lines)

    def _written(self, write: Callable[[], None]) -> None:
        try:
            write()
        except (OSError, StorageError) as error:
            self._whole = False
            if not self._warned:
                why = f"{self._path}: cannot be written: {error.strerror}" if isinstance(error, OSError) else str(error)
                self._say(f"{why}; the search goes on, and the file is written once it can be")
            self._warned = True
        else:
            self._whole = True


class _Memory(BaseJournalBackend):
    """What Optuna would write into a file, one mapping a line."""

    def __init__(self) -> None:
        self.logs: list[dict[str, Any]] = []

    def read_logs(self, log_number_from: int) -> Generator[dict[str, Any], None, None]:
        yield from self.logs[log_number_from:]

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        self.logs += logs


def _lines(name: str, trials: Iterable[FrozenTrial], *, begin: bool = True) -> bytes:
    """What Optuna's journal says of a study and its trials, or of further trials alone."""
    memory = _Memory()
    study = new_study(JournalStorage(memory), name)
    first = 0 if begin else len(memory.logs)
    for trial in trials:
        study.add_trial(trial)
    # Optuna names the writing process by a number that it draws; one name for all keeps the file the same
    logs = [{**log, "worker_id": _WRITER} for log in memory.logs[first:]]
    return b"".join(json.dumps(log, separators=(",", ":"), allow_nan=False).encode() + b"\n" for log in logs)


def _dimensions(space: Space | None, trial: Trial) -> tuple[dict[str, Any], dict[str, BaseDistribution]]:
    """The values of the dimensions that exist in a trial's params, and what they could have been."""
    if space is None or not space.families:
        return {}, {}
    try:
        return place(space, space.locate(trial.params))
    except (KeyError, TypeError, ValueError):  # outside the space, or no params at all
        return {}, {}


def _attributes(trial: Trial, dimensions: set[str]) -> dict[str, Any]:
    """What a study cannot know by itself, without what is empty or undefined."""
    chosen = trial.chosen
    told = {
        "trial": trial.trial,
        "name": trial.name,
        "family": trial.family,
        "status": trial.status,
        "cause": trial.cause,
        "validation_f1": None if math.isnan(trial.val_f1) else trial.val_f1,
        "epoch": chosen.epoch if chosen else None,
        "parameters": trial.parameters or None,
    }
    others = {f"params.{key}": value for key, value in trial.params.items() if key not in {"family", *dimensions}}
    return {key: value for key, value in told.items() if value not in ("", None)} | others
