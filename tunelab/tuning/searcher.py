"""Which params to try next: configurations to try first, then Optuna's Tree-structured Parzen Estimator.

The sampler models the conditional space in groups (``multivariate``, ``group``: Optuna, after Bergstra et al. 2011)
and is told the highest average precision on the tune split that a trial reached, never a validation score. Ray's own
``OptunaSearch`` leaves a trial without a value running for ever and tells the last value instead of the best; this
one is written on the same two interfaces, Ray's ``Searcher`` and Optuna's ask and tell.
"""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.trial import TrialState
from ray.tune.search import Searcher

from tunelab.domains import Choice, Domain, Float, Int
from tunelab.errors import ModelError, SpaceError
from tunelab.models import check_fit, locate, normalise
from tunelab.preprocessing import Preprocessing, chain_of
from tunelab.space import Space, Start
from tunelab.tuning.record import Recorder

ASKS = 100
"""How often a proposal that does not fit the samples is replaced before the space is given up."""


class SpaceSearcher(Searcher):  # type: ignore[misc]
    """Proposes trials of a space and records each before Ray hears of it."""

    def __init__(
        self,
        space: Space,
        starts: Sequence[tuple[Start, dict[str, Any]]],
        recorder: Recorder,
        *,
        samples: Mapping[Preprocessing, int],
        seed: int,
    ) -> None:
        super().__init__(metric="tune_average_precision", mode="max")
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            sampler = optuna.samplers.TPESampler(multivariate=True, group=True, constant_liar=True, seed=seed)
        self._study = optuna.create_study(direction="maximize", sampler=sampler)
        self._space = space
        self._starts = list(starts)
        self._recorder = recorder
        self._samples = samples
        self._seed = seed
        self._count = 0
        self._ours: dict[str, str] = {}
        self._asked: dict[str, optuna.trial.Trial] = {}

    def suggest(self, trial_id: str) -> dict[str, Any] | str:
        """The next trial's configuration for :class:`~tunelab.tuning.trainable.KerasTrainable`."""
        name = ""
        if self._starts:
            start, params = self._starts.pop(0)
            name = start.name
            if self._space.families:
                self._study.enqueue_trial(_encode(locate(self._space, params)))
                self._asked[trial_id] = self._ask()[0]
        elif self._space.families:
            self._asked[trial_id], params = self._fitting()
        else:
            finished: str = Searcher.FINISHED
            return finished
        self._count += 1
        trial = f"{self._count:04d}"
        self._ours[trial_id] = trial
        seed = int(np.random.SeedSequence([self._seed, self._count]).generate_state(1)[0])
        self._recorder.suggestion(trial, name, seed, params, self._space.column_values(params))
        return {"trial": trial, "seed": seed, "params": params}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Record the end and tell the sampler the best value, or that there is none."""
        trial = self._ours[trial_id]
        best = self._recorder.best_dense(trial)
        self._recorder.end(trial, "failed" if error else "interrupted")
        asked = self._asked.pop(trial_id, None)
        if asked is None:
            return
        if error or math.isnan(best) or self._recorder.board.trials[trial].status == "failed":
            self._study.tell(asked, state=TrialState.FAIL)
        else:
            self._study.tell(asked, best)

    def save(self, checkpoint_path: str) -> None:
        """Ray asks for a file; it holds nothing, since the journal is what a search is rebuilt from."""
        Path(checkpoint_path).write_text("see journal.jsonl\n", encoding="utf-8")

    def restore(self, checkpoint_path: str) -> None:
        """Nothing to restore from."""

    def _fitting(self) -> tuple[optuna.trial.Trial, dict[str, Any]]:
        for _ in range(ASKS):
            asked, raw = self._ask()
            params = normalise(raw, self._space.source)
            try:
                check_fit(params, self._samples[chain_of(params)])
            except ModelError as error:
                self._study.tell(asked, state=TrialState.FAIL)
                why = error
            else:
                return asked, params
        fault = SpaceError(f"{self._space.source}: {ASKS} proposals in a row do not fit the data; the last: {why}")
        self._recorder.fault = fault
        raise fault

    def _ask(self) -> tuple[optuna.trial.Trial, dict[str, Any]]:
        asked = self._study.ask()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            return asked, self._space.propose(lambda name, domain: _suggest(asked, name, domain))


def _suggest(asked: optuna.trial.Trial, name: str, domain: Domain) -> Any:
    if isinstance(domain, Float):
        return asked.suggest_float(name, domain.low, domain.high, log=domain.log)
    if isinstance(domain, Int):
        return asked.suggest_int(name, domain.low, domain.high, log=domain.log, step=domain.step)
    if isinstance(domain, Choice):
        by_code = {_code(option): option for option in domain.options}
        return by_code[asked.suggest_categorical(name, list(by_code))]
    raise TypeError(f"{name}: {type(domain).__name__}")


def _encode(point: dict[str, Any]) -> dict[str, Any]:
    return {name: _code(value) for name, value in point.items()}


def _code(value: Any) -> Any:
    """A value as Optuna takes it: lists and mappings as JSON."""
    return json.dumps(value) if isinstance(value, list | dict) else value
