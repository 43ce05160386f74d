"""Which params to try next: configurations to try first, then Optuna's Tree-structured Parzen Estimator.

The sampler models the conditional space in groups (``multivariate``, ``group``: Optuna, after Bergstra et al. 2011)
and is told the highest average precision on the tune split that a trial reached, never a validation score. Ray's own
``OptunaSearch`` leaves a trial without a value running for ever and tells the last value instead of the best; this
one is written on the same two interfaces, Ray's ``Searcher`` and Optuna's ask and tell.

A resumed search fills the study from the journal and first hands out the trials that are unfinished. The sampler draws
each proposal from a seed of its own number, so that what is proposed depends on what is known and on nothing else: a
search that was killed and resumed proposes what it would have proposed.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.trial import TrialState
from ray.tune.search import Searcher

from tunelab.domains import Outside
from tunelab.errors import ModelError, SpaceError
from tunelab.journal import Record
from tunelab.models import check_fit, locate, normalise
from tunelab.preprocessing import Preprocessing, chain_of
from tunelab.ranking import Trial
from tunelab.space import Space, Start
from tunelab.tuning.optuna_space import encode, suggest
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
        self._study = optuna.create_study(direction="maximize")
        self._space = space
        self._starts = list(starts)
        self._recorder = recorder
        self._samples = samples
        self._seed = seed
        self._unfinished: list[str] = []
        self._ours: dict[str, str] = {}
        self._asked: dict[str, int] = {}
        self.unknown: list[str] = []
        """Trials of the journal whose params this space does not hold; the sampler learns nothing from them."""

    def replayed(self, record: Record) -> None:
        """Take in one record of a journal; a follower of :meth:`Recorder.replay`."""
        if record["kind"] == "suggestion":
            trial = self._recorder.board.trials[record["trial"]]
            self._starts = [start for start in self._starts if not trial.name or start[0].name != trial.name]
            self._enter(trial)
        elif record["kind"] == "end" and not self._recorder.board.trials[record["trial"]].unfinished:
            self._tell(record["trial"])

    def go_on(self) -> int:
        """After the replay: hand the unfinished trials out before new ones.

        Returns:
            How many there are.
        """
        self._unfinished = [one.trial for one in self._recorder.board.snapshot() if one.unfinished]
        return len(self._unfinished)

    @property
    def suggested(self) -> int:
        """How many trials there are, in all."""
        return len(self._recorder.board.trials)

    def suggest(self, trial_id: str) -> dict[str, Any] | str:
        """The next trial's configuration for :class:`~tunelab.tuning.trainable.KerasTrainable`."""
        if self._unfinished:
            one = self._recorder.board.trials[self._unfinished.pop(0)]
            self._recorder.resumed(one.trial)
        elif self._starts or self._space.families:
            one = self._recorder.board.trials[self._new()]
        else:
            finished: str = Searcher.FINISHED
            return finished
        self._ours[trial_id] = one.trial
        return {"trial": one.trial, "seed": one.seed, "params": dict(one.params)}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Record the end and tell the sampler the best value, or that there is none."""
        trial = self._ours.pop(trial_id)
        self._recorder.end(trial, "failed" if error else "interrupted")
        self.ended(trial)

    def ended(self, trial: str) -> None:
        """A trial whose end was recorded without Ray: tell the sampler what it came to."""
        self._tell(trial)

    def _new(self) -> str:
        number = self.suggested + 1
        trial = f"{number:04d}"
        seed = int(np.random.SeedSequence([self._seed, number]).generate_state(1)[0])
        name = ""
        if self._starts:
            start, params = self._starts.pop(0)
            name = start.name
        else:
            params = self._fitting(trial, number)
        self._recorder.suggestion(trial, name, seed, params, self._space.column_values(params))
        if trial not in self._asked:
            self._enter(self._recorder.board.trials[trial])
        return trial

    def _enter(self, trial: Trial) -> None:
        """Tell the study of a trial that it did not propose itself in this process."""
        if not self._space.families:
            return
        try:
            fixed = optuna.trial.FixedTrial(encode(locate(self._space, trial.params)))
        except (Outside, ModelError):
            self.unknown.append(trial.trial)
            return
        self._space.propose(partial(suggest, fixed))
        self._study.add_trial(
            optuna.trial.create_trial(state=TrialState.RUNNING, params=fixed.params, distributions=fixed.distributions)
        )
        self._asked[trial.trial] = len(self._study.get_trials(deepcopy=False)) - 1

    def _tell(self, trial: str) -> None:
        asked = self._asked.pop(trial, None)
        best = self._recorder.best_dense(trial)
        if asked is None:
            return
        if math.isnan(best) or self._recorder.board.trials[trial].status == "failed":
            self._study.tell(asked, state=TrialState.FAIL)
        else:
            self._study.tell(asked, best)

    def save(self, checkpoint_path: str) -> None:
        """Ray asks for a file; it holds nothing, since the journal is what a search is rebuilt from."""
        Path(checkpoint_path).write_text("see journal.jsonl\n", encoding="utf-8")

    def restore(self, checkpoint_path: str) -> None:
        """Nothing to restore from."""

    def _fitting(self, trial: str, number: int) -> dict[str, Any]:
        with _quiet():
            self._study.sampler = optuna.samplers.TPESampler(
                multivariate=True,
                group=True,
                constant_liar=True,
                seed=int(np.random.SeedSequence([self._seed, number, 1]).generate_state(1)[0]),
            )
            for _ in range(ASKS):
                asked = self._study.ask()
                raw = self._space.propose(partial(suggest, asked))
                params = normalise(raw, self._space.source)
                try:
                    check_fit(params, self._samples[chain_of(params)])
                except ModelError as error:
                    self._study.tell(asked, state=TrialState.FAIL)
                    why = error
                else:
                    self._asked[trial] = asked.number
                    return params
        say = f"{self._space.source}: {ASKS} proposals in a row do not fit the data; the last: {why}"
        raise self._recorder.fail(SpaceError(say))


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the notices that options of Optuna may change."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        yield
