"""Which trial to start next: unfinished ones, those that may go on, configurations to try first, proposals.

A proposal comes from :mod:`tunelab.tuning.proposals`, whose samplers are told the highest average precision on the tune
split that a trial reached, never a validation score. Ray's own ``OptunaSearch`` leaves a trial without a value running
for ever and tells the last value instead of the best; this one is written on Ray's ``Searcher`` and on what Optuna
offers below it.

A resumed search takes in the journal and first hands out the trials that are unfinished. What is proposed depends on
what is known and on nothing else: a search that was killed and resumed proposes what it would have proposed. No two
proposals are equal; where a space has no more to offer the search ends.

Where the space has steps of fidelity, a proposal is trained at the lowest one, and :mod:`tunelab.ladder` says which
configurations go on to the next, each as a trial of a number and a seed of its own, before there are new ones.
Configurations to try first are trained in full at once: a result from elsewhere has brought them past the steps.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from ray.tune.search import Searcher

from tunelab.aims import Aims
from tunelab.errors import ModelError, SpaceError
from tunelab.fidelity import FULL, At
from tunelab.journal import Record
from tunelab.ladder import Ladder
from tunelab.models import check_fit, cost_of, normalise, outline
from tunelab.preprocessing import Preprocessing, chain_of, thinned
from tunelab.ranking import Trial
from tunelab.space import Space, Start
from tunelab.tuning.proposals import HISTORY, Proposals, key_of
from tunelab.tuning.record import Recorder

Fit = Callable[[dict[str, Any]], dict[str, Any]]
"""Params in full of what a space proposed; raises ModelError where no model can be built of them."""


class Waiting(Protocol):
    """Who knows the trials that wait; :class:`~tunelab.tuning.scheduler.RecordingScheduler` in a search."""

    def promotable(self, *, last: bool) -> str | None:
        """One that may go on."""

    def promoted(self, trial: str) -> None:
        """It goes on."""


class SpaceSearcher(Searcher):  # type: ignore[misc]
    """Hands out trials of a space and records each before Ray hears of it.

    Args:
        space: what is searched.
        starts: the configurations to try first.
        recorder: of the run.
        waiting: who knows the trials that wait.
        fit: makes params that can be trained.
        seed: of the search.
        trials: how many configurations there may be; None: no limit.
        held: whether none is to be handed out now, as long as some are.
        history: see :class:`~tunelab.tuning.proposals.Proposals`.
    """

    def __init__(
        self,
        space: Space,
        starts: Sequence[tuple[Start, dict[str, Any]]],
        recorder: Recorder,
        waiting: Waiting,
        *,
        fit: Fit,
        seed: int,
        trials: int | None = None,
        held: Callable[[], bool] = lambda: False,
        history: int = HISTORY,
    ) -> None:
        super().__init__(metric="tune_average_precision", mode="max")
        self._space = space
        self._starts = list(starts)
        self._recorder = recorder
        self._waiting = waiting
        self._fit = fit
        self._seed = seed
        self._trials = trials
        self._held = held
        self._proposals = Proposals(space, seed, self._values, self._floored, history) if space.families else None
        self._ladder = Ladder(len(space.fidelity.steps), space.early_stopping.reduction)
        self._tried: set[str] = set()
        self._exhausted = False
        self._unfinished: list[str] = []
        self._ours: dict[str, str] = {}
        self.unknown: list[str] = []
        """Trials of the journal whose params this space does not hold; the sampler learns nothing from them."""

    def replayed(self, record: Record) -> None:
        """Take in one record of a journal; a follower of :meth:`Recorder.replay`."""
        if record["kind"] == "suggestion":
            trial = self._recorder.board.trials[record["trial"]]
            self._starts = [start for start in self._starts if not trial.name or start[0].name != trial.name]
            if self._proposals is not None and not (trial.name or trial.of) and self._proposals.keeps_books:
                self._propose(self._proposals, trial.trial)  # once more, so that the books say what they said
            self._enter(trial)
        elif record["kind"] in ("wait", "end"):
            self._told(record["trial"])
        elif record["kind"] == "resumed":
            self._goes_on(record["trial"])

    def go_on(self) -> int:
        """After the replay: hand the unfinished trials out before others.

        Returns:
            How many there are.
        """
        self._unfinished = [one.trial for one in self._recorder.board.snapshot() if one.unfinished]
        return len(self._unfinished)

    @property
    def exhausted(self) -> bool:
        """Whether the space had nothing more to offer that was not tried."""
        return self._exhausted

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """The next trial's configuration for :class:`~tunelab.tuning.trainable.KerasTrainable`.

        None: whether there is one depends on trials that run.
        """
        if self._ours and self._held():
            return None
        one = self._next()
        if one is not None:
            self._ours[trial_id] = one.trial
            task = {"trial": one.trial, "seed": one.seed, "params": dict(one.params)}
            return {**task, "fidelity": dict(one.fidelity)}
        if self._ours:
            return None
        finished: str = Searcher.FINISHED
        return finished

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Record the end of a trial that does not wait, unless too many waited, so that it ended at once."""
        trial = self._ours.pop(trial_id)
        if self._recorder.board.trials[trial].unfinished:
            self._recorder.end(trial, "failed" if error else "interrupted")
        self.ended(trial)

    def ended(self, trial: str) -> None:
        """A trial's end was recorded, or that it waits: tell the sampler what it came to."""
        self._told(trial)

    def _next(self) -> Trial | None:
        """The trial that is to run; None if there is none now."""
        if self._unfinished:
            return self._resumed(self._unfinished.pop(0))
        more = self._more()
        gone_on = self._gone_on(last=not more)
        if gone_on is None and more:
            return self._new() or self._gone_on(last=True)
        return gone_on

    def _gone_on(self, *, last: bool) -> Trial | None:
        """A trial of a configuration that goes on to the next step, or one that waited."""
        higher = self._ladder.promotable(last=last)
        if higher is not None:
            of, step = higher
            params = dict(self._recorder.board.trials[of].params)
            return self._begin("", params, fidelity=self._space.fidelity.above(step), of=of)
        waited = self._waiting.promotable(last=last)
        if waited is None:
            return None
        self._waiting.promoted(waited)
        return self._resumed(waited)

    def _resumed(self, trial: str) -> Trial:
        self._recorder.resumed(trial)
        self._goes_on(trial)
        return self._recorder.board.trials[trial]

    def _more(self) -> bool:
        """Whether new configurations may come."""
        if self._exhausted or (self._trials is not None and self._recorder.board.tried >= self._trials):
            return False
        return bool(self._starts) or self._proposals is not None

    def _new(self) -> Trial | None:
        """A trial of a new configuration; None, from then on, where the space has no more to offer."""
        if self._starts:
            start, params = self._starts.pop(0)
            return self._begin(start.name, params)
        trial = f"{len(self._recorder.board.trials) + 1:04d}"
        proposed = self._propose(self._proposals, trial) if self._proposals is not None else None
        if proposed is None:
            self._exhausted = True
            return None
        return self._begin("", proposed, fidelity=self._space.fidelity.first)

    def _begin(self, name: str, params: dict[str, Any], *, fidelity: At = FULL, of: str = "") -> Trial:
        """A trial of the next number, once it is recorded."""
        number = len(self._recorder.board.trials) + 1
        trial = f"{number:04d}"
        seed = int(np.random.SeedSequence([self._seed, number]).generate_state(1)[0])
        point = self._space.column_values(params)
        self._recorder.suggestion(trial, name, seed, params, point, fidelity=fidelity, of=of)
        self._enter(self._recorder.board.trials[trial])
        return self._recorder.board.trials[trial]

    def _propose(self, proposals: Proposals, trial: str) -> dict[str, Any] | None:
        try:
            return proposals.propose(trial, self._fit, lambda params: key_of(params) in self._tried)
        except SpaceError as error:
            raise self._recorder.fail(error) from None

    def _enter(self, trial: Trial) -> None:
        self._tried.add(key_of(trial.params))
        if self._proposals is not None and not self._proposals.enter(trial):
            self.unknown.append(trial.trial)
        elif (step := self._step_of(trial)) is not None:
            self._ladder.begun(trial.configuration, step)

    def _goes_on(self, trial: str) -> None:
        if self._proposals is not None:
            self._proposals.goes_on(self._recorder.board.trials[trial])

    def _told(self, trial: str) -> None:
        one = self._recorder.board.trials[trial]
        if self._proposals is not None:
            self._proposals.told(one)
        if one.over and trial not in self.unknown and (step := self._step_of(one)) is not None:
            value = math.nan if one.status == "failed" else self._recorder.best_dense(trial)
            self._ladder.told(one.configuration, step, value, floored=self._recorder.floored(trial))

    def _step_of(self, trial: Trial) -> int | None:
        """The step of fidelity that a trial is at; None where its configuration did not begin at the lowest one."""
        if not (trial.fidelity or trial.of):
            return None
        return self._space.fidelity.number(trial.fidelity)

    def _floored(self, trial: Trial) -> bool:
        return self._recorder.floored(trial.trial)

    def _values(self, trial: Trial) -> Sequence[float]:
        """What the sampler is told: for F1 alone average precision, which moves long before F1 does."""
        aims = self._space.aims
        if aims.objectives == Aims().objectives:
            return [self._recorder.best_dense(trial.trial)]
        told = zip(aims.objectives, aims.values(trial, "tune"), strict=True)
        return [-value if one.less else value for one, value in told]

    def save(self, checkpoint_path: str) -> None:
        """Ray asks for a file; it holds nothing, since the journal is what a search is rebuilt from."""
        Path(checkpoint_path).write_text("see journal.jsonl\n", encoding="utf-8")

    def restore(self, checkpoint_path: str) -> None:
        """Nothing to restore from."""


def fitting(space: Space, samples: Mapping[Preprocessing, int]) -> Fit:
    """Params in full, of models that can be built on the data set and break no constraint known before training.

    Args:
        space: whose proposals they are.
        samples: of a trace, after each chain of preprocessing, thinned ones among them.
    """

    def fit(raw: dict[str, Any]) -> dict[str, Any]:
        params = normalise(raw, space.source)
        chain = chain_of(params)
        for factor in (*space.fidelity.decimation, 1):  # asked anew here, and not found out a step later
            check_fit(params, samples[thinned(chain, factor)])
        if space.aims.constraints and any(space.aims.known_violations(cost_of(params, samples[chain]))):
            raise ModelError(f"constraints: {outline(params)} breaks one")
        return params

    return fit
