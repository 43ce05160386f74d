"""What to try next, by Optuna's samplers, from what the leaderboard knows.

========= ==================================================== ========================================================
sampler   what it is                                           what it models
========= ==================================================== ========================================================
tpe       Tree-structured Parzen Estimator, multivariate, in   every dimension, together with those that exist beside it
          groups, with a constant liar (Bergstra et al. 2011)
gp        Gaussian process (needs PyTorch: the extra ``gp``)   dimensions that all families share; others are random
cmaes     CMA-ES (Hansen 2016)                                 numbers that all families share; others are random
nsga2     genetic algorithm (Deb et al. 2002)                  every dimension, by crossing the best
qmc       scrambled Sobol points                               numbers that the first trial has; others are random
random    even draws                                           none
========= ==================================================== ========================================================

``tpe`` and ``gp`` read a history that is made anew for each proposal, so that what is known of a trial may change: one
that was stopped, waits or goes on is *pruned* with the highest value it came to, at the last epoch it came to, and is
compared with others that came as far. One on the floor is worse than all that left it; of two there the one with the
higher value is better. What trials of several fidelities come to is said in
:mod:`tunelab.tuning.observations`. The history is bounded, as a proposal takes longer the longer it is. ``cmaes``,
``nsga2`` and ``qmc`` keep books of their own within their study: it lives as long as the search, and is asked and told
the same once more when a journal is replayed. They cannot use pruned trials and are told the value of a trial as soon
as it stops, waits or ends; where there are steps of fidelity that of the lowest one, at which all that they propose is
trained.

A proposal depends on what is known, the seed and its number, and on nothing else.
"""

from __future__ import annotations

import importlib.util
import json
import math
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from tunelab.domains import Outside
from tunelab.errors import ModelError, SpaceError
from tunelab.models import locate
from tunelab.ranking import Trial
from tunelab.sections import Sampler
from tunelab.space import Space
from tunelab.tuning.observations import Observations, Values, reached_by
from tunelab.tuning.optuna_space import ask_for, place

MODELLED = 10
"""Proposals of a sampler that may be in vain before even draws take their place."""
DRAWN = 1000
"""Even draws that may be in vain."""
HISTORY = 300
"""Trials that a model is made from, if nothing else is said."""
_HOPELESS = 1e6
"""What a constraint of an unknown value counts as."""
_BOOKKEEPERS = ("cmaes", "nsga2", "qmc")

T = TypeVar("T")

Place = tuple[dict[str, Any], dict[str, BaseDistribution]]


class Proposals:
    """Proposes params of a space.

    Args:
        space: with its aims and the name of its sampler.
        seed: of the search.
        values: what the sampler is told of a trial, a number for each objective.
        floored: whether a trial is on the floor; of no account where there are several objectives.
        history: how many trials a model is made from at most, besides those that run.

    Raises:
        SpaceError: the sampler cannot be had.
    """

    def __init__(
        self, space: Space, seed: int, values: Values, floored: Callable[[Trial], bool], history: int = HISTORY
    ) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)  # a search has nothing to do about the warnings
        self._space = space
        self._seed = seed
        self._most = history
        self._values = _once(values)
        self._reached = _once(reached_by(space.fidelity, floored))
        self._directions = [StudyDirection.MAXIMIZE] * len(space.aims.objectives)
        self._observations = Observations(self._values, self._reached)
        self._places: dict[str, Place] = {}
        self._distributions: dict[str, BaseDistribution] = {}
        """The newest one of each dimension."""
        check_sampler(space)
        self._known: dict[str, _Known] = {}
        """Trials of the newest history, as Optuna was told of them."""
        self._books: optuna.Study | None = None
        self._asked: dict[str, int] = {}
        """Trial -> its number in the books, until it is told."""
        if space.sampler in _BOOKKEEPERS:
            self._books = self._empty()

    @property
    def keeps_books(self) -> bool:
        """Whether the sampler has to be asked once more for what it proposed before."""
        return self._books is not None

    def enter(self, trial: Trial) -> bool:
        """Take note of a trial that there is, and say whether its params lie in the space: models know only such.

        Args:
            trial: as the board has it; its params never change.
        """
        try:
            params, distributions = place(self._space, locate(self._space, trial.params))
        except (Outside, ModelError):
            return False
        for name, one in distributions.items():  # the same ones for all trials: made anew they would fill the memory
            if self._distributions.setdefault(name, one) != one:  # of another family
                self._distributions[name] = one
            distributions[name] = self._distributions[name]
        self._places[trial.trial] = params, distributions
        if self._books is not None and not trial.of:
            self._book(self._books, trial.trial)
        self._changed(trial)
        return True

    def propose(
        self,
        trial: str,
        fit: Callable[[dict[str, Any]], dict[str, Any]],
        taken: Callable[[dict[str, Any]], bool],
    ) -> dict[str, Any] | None:
        """Params to try; None if none was found that has not been tried.

        Args:
            trial: the number it will have.
            fit: makes full params of what was proposed.
            taken: whether they were tried, or are being tried.

        Raises:
            SpaceError: nothing fits the data. Whatever ``fit`` raises but ModelError.
        """
        why = repeated = None
        with _quiet():
            study = self._books if self._books is not None else self.history()
            for turn in range(MODELLED + DRAWN):
                if turn in (0, MODELLED):
                    study.sampler = self._sampler(int(trial), drawn=turn >= MODELLED)
                asked = study.ask()
                try:
                    params = fit(ask_for(self._space, asked))
                except ModelError as error:
                    why = error
                else:
                    if not taken(params):
                        if self._books is not None:
                            self._asked[trial] = asked.number
                        return params
                    repeated = params
                study.tell(asked, state=TrialState.FAIL)
        if repeated is None:
            raise SpaceError(
                f"{self._space.source}: {MODELLED + DRAWN} proposals in a row do not fit the data; the last: {why}"
            )
        return None

    def goes_on(self, trial: Trial) -> None:
        """A trial that waited or was interrupted is to run."""
        self._changed(trial)

    def told(self, trial: Trial) -> None:
        """A trial stopped, waits or is over."""
        self._changed(trial)
        asked = self._asked.pop(trial.trial, None)
        if self._books is None or asked is None:
            return
        values = self._values(trial)
        with _quiet():
            if trial.status == "failed" or any(map(math.isnan, values)) or trial.fidelity != self._space.fidelity.first:
                self._books.tell(asked, state=TrialState.FAIL)
            else:
                one = optuna.trial.Trial(self._books, self._books.get_trials(deepcopy=False)[asked]._trial_id)
                for name, excess in self._broken(trial).items():
                    one.set_constraint(name, excess)
                self._books.tell(asked, list(values))

    def _book(self, books: optuna.Study, trial: str) -> None:
        """Take a trial into the books, unless it stands there as they proposed it."""
        params, distributions = self._places[trial]
        asked = self._asked.get(trial)
        if asked is not None and books.get_trials(deepcopy=False)[asked].params == params:
            return
        if asked is not None:  # an earlier version proposed something else
            books.tell(asked, state=TrialState.FAIL)
        books.add_trial(optuna.trial.create_trial(state=TrialState.RUNNING, params=params, distributions=distributions))
        self._asked[trial] = len(books.get_trials(deepcopy=False)) - 1

    def history(self) -> optuna.Study:
        """What a model is made from, of the trials there are; empty for even draws."""
        study = self._empty()
        if self._space.sampler == "random":
            return study
        self._known = {trial.trial: self._frozen(trial) for trial in self._observations.kept(self._most)}
        study.add_trials(self._known.values())
        return study

    def _changed(self, trial: Trial) -> None:
        """A model may have to know it: its params lie in the space, and its fidelity is one of it."""
        if trial.trial in self._places and self._space.fidelity.number(trial.fidelity) is not None:
            self._observations.changed(trial)

    def _frozen(self, trial: Trial) -> _Known:
        """A trial as Optuna is told of it; as before, if that still holds."""
        params, distributions = self._places[trial.trial]
        values = self._values(trial)
        state = TrialState.COMPLETE
        several = len(values) > 1  # Optuna compares pruned trials by one value alone
        more: dict[str, Any] = {}
        nothing = any(map(math.isnan, values))
        if trial.unfinished and (several or self._space.fidelity.steps or nothing):
            state = TrialState.RUNNING
        elif trial.status == "failed" or nothing or (several and trial.fidelity):
            state = TrialState.FAIL
        elif several or (reached := self._reached(trial)) is None:
            more = {"values": list(values)}
        else:
            state = TrialState.PRUNED
            more = {"intermediate_values": {reached: values[0]}}
        broken = self._broken(trial) if more else {}
        before, told = self._known.get(trial.trial), (state, more, broken)
        if before is not None and before.told == told:
            return before
        made = optuna.trial.create_trial(
            state=state, params=params, distributions=distributions, constraints=broken, **more
        )
        return _Known.of(made, told)

    def _broken(self, trial: Trial) -> dict[str, float]:
        """By how much a trial breaks each constraint, on tune; finite, as Optuna adds them up."""
        aims = self._space.aims
        told = zip(aims.constraints, aims.violations(trial, "tune"), strict=True)
        return {str(one): min(excess, _HOPELESS) for one, excess in told}

    def _empty(self) -> optuna.Study:
        return optuna.create_study(directions=self._directions)

    def _sampler(self, number: int, *, drawn: bool) -> BaseSampler:
        """One with a seed of a proposal's own, so that a search that was killed goes on as it would have."""
        own = int(np.random.SeedSequence([self._seed, number, 1 + drawn]).generate_state(1)[0])
        name: Sampler = "random" if drawn else self._space.sampler
        evenly = optuna.samplers.RandomSampler(seed=own)
        if name == "tpe":
            return optuna.samplers.TPESampler(multivariate=True, group=True, constant_liar=True, seed=own)
        if name == "gp":
            return optuna.samplers.GPSampler(seed=own, independent_sampler=evenly, warn_independent_sampling=False)
        if name == "cmaes":
            return optuna.samplers.CmaEsSampler(seed=own, independent_sampler=evenly, warn_independent_sampling=False)
        if name == "nsga2":
            return optuna.samplers.NSGAIISampler(seed=own)
        if name == "qmc":  # a sequence goes on only under one seed
            return optuna.samplers.QMCSampler(
                scramble=True, seed=self._seed, independent_sampler=evenly, warn_independent_sampling=False
            )
        return evenly


class _Known(FrozenTrial):
    """A trial of a history. Its copies share what nobody changes: most of a proposal's time went into copying."""

    told: object
    """What it was made from, besides its params."""

    @classmethod
    def of(cls, trial: FrozenTrial, told: object) -> _Known:
        """Such a one, like another one."""
        made = cls.__new__(cls)
        made.__dict__.update(trial.__dict__)
        made.told = told
        return made

    def __deepcopy__(self, memo: object) -> _Known:
        return self.of(self, self.told)


def _once(ask: Callable[[Trial], T]) -> Callable[[Trial], T]:
    """Asks once of each trial that is over: it stays what it is."""
    answers: dict[str, T] = {}

    def asked(trial: Trial) -> T:
        if not trial.over:
            return ask(trial)
        if trial.trial not in answers:
            answers[trial.trial] = ask(trial)
        return answers[trial.trial]

    return asked


def check_sampler(space: Space) -> None:
    """Whether a space's sampler can be had, and can do with its objectives.

    Raises:
        SpaceError: says what is missing.
    """
    place = f"{space.source}: sampler: {space.sampler}"
    if space.sampler == "gp" and importlib.util.find_spec("torch") is None:
        raise SpaceError(f"{place}: needs PyTorch; install it with: pip install 'tunelab[gp]', or use tpe")
    if space.sampler == "cmaes" and space.aims.several:
        raise SpaceError(f"{place}: knows one, and there are {len(space.aims.objectives)} objectives; use tpe or nsga2")


def key_of(params: Mapping[str, Any]) -> str:
    """Equal for equal params."""
    return json.dumps(params, sort_keys=True)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the notices that options of Optuna may change, that a sampler draws some dimensions evenly, and that a
    Gaussian process divides by a sum of nothing where it is sure of its optimum."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        warnings.filterwarnings("ignore", "invalid value encountered", RuntimeWarning, r"optuna\._gp")
        yield
