"""Policies that a search of tunelab has to beat: those of Ray Tune and Optuna themselves, and some without a model.

Each is used as its library's manual has it, with its defaults, and runs on the validation loss unless its name says
otherwise. Random ones draw rows without replacement, and with the same seed all of them in the same order.
"""

from __future__ import annotations

import heapq
import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Literal

import numpy as np
import optuna
from optuna.trial import TrialState
from ray.tune.schedulers import AsyncHyperBandScheduler, TrialScheduler

from benchmarks.simulation import CHANCE, FLOOR, Policy, Setting

PATIENCE = 10
"""Epochs without a lower loss after which ``random_patience`` stops a trial."""
SCREENED = 0.5
"""Share of the budget that ``one_epoch_top_k`` spends on first epochs, at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """A policy as it is called by name."""

    make: Callable[[Setting], Policy]
    per_budget: bool = False
    """It acts on :attr:`~benchmarks.simulation.Setting.budget`, so each budget is a search of its own."""


def f1_like(loss: float) -> float:
    """A score that behaves as F1 does where positives are rare: 0 on the floor, from there on rising to 1.

    ``(ln 2 - loss) / ln 2`` for a loss below 0.98 ln 2, otherwise and for NaN 0.
    """
    return (CHANCE - loss) / CHANCE if loss < FLOOR else 0.0


class Random:
    """Random rows, each to its end."""

    def __init__(self, setting: Setting) -> None:
        self._rows = iter(setting.drawn())

    def next(self, now: int) -> int | None:
        """The next row drawn."""
        return next(self._rows, None)

    def told(self, row: int, epoch: int, loss: float) -> bool:
        """Always goes on."""
        return True


class RandomPatience(Random):
    """Random rows, each until its loss has not fallen for :data:`PATIENCE` epochs; NaN never falls."""

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self._best: dict[int, tuple[float, int]] = {}

    def told(self, row: int, epoch: int, loss: float) -> bool:
        """Goes on unless it ran out of patience."""
        lowest, at = self._best.get(row, (math.inf, 0))
        if loss < lowest:
            lowest, at = self._best[row] = (loss, epoch)
        return epoch - at < PATIENCE


@dataclass(frozen=True, slots=True)
class _RayTrial:
    """What Ray's scheduler looks at of a trial."""

    trial_id: str


class RayAsha(Random):
    """Random rows under Ray Tune's own ``AsyncHyperBandScheduler``: grace of 1, reduction of 4, one bracket.

    NaN reaches the scheduler as NaN, as it does from a trainable.

    Args:
        setting: of the search.
        score: of a loss; what the scheduler compares.
        mode: its direction.
    """

    def __init__(self, setting: Setting, *, score: Callable[[float], float], mode: Literal["min", "max"]) -> None:
        super().__init__(setting)
        self._score = score
        self._scheduler = AsyncHyperBandScheduler(metric="score", mode=mode, max_t=setting.epochs)

    def next(self, now: int) -> int | None:
        """The next row drawn; the scheduler hears of it."""
        row = super().next(now)
        if row is not None:
            self._scheduler.on_trial_add(None, _RayTrial(str(row)))
        return row

    def told(self, row: int, epoch: int, loss: float) -> bool:
        """Asks the scheduler, as Ray's controller does."""
        trial, result = _RayTrial(str(row)), {"training_iteration": epoch, "score": self._score(loss)}
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "All-NaN slice", RuntimeWarning)  # a rung that only NaN came to
            action = self._scheduler.on_trial_result(None, trial, result)
            if action == TrialScheduler.STOP:
                self._scheduler.on_trial_complete(None, trial, result)
        return bool(action != TrialScheduler.STOP)


class OneEpochTopK:
    """Random rows for one epoch each, then the best k of them to their end (Bohdal et al. 2023, arXiv 2307.15422).

    As many rows are screened as there are, or as :data:`SCREENED` of the budget allows if those are fewer; k is how
    many of them the rest of the budget trains to their end, 1 at least. The best are known when all were screened, so
    workers wait for the last of them. Ties go to the row drawn first.
    """

    def __init__(self, setting: Setting) -> None:
        screened = max(1, min(len(setting.cube), int(SCREENED * setting.budget)))
        rows = setting.drawn()[:screened]
        self._fresh = iter(rows)
        self._place = {row: place for place, row in enumerate(rows)}
        self._missing = screened
        """Rows whose first epoch is not over."""
        self._ranked: list[tuple[float, int, int]] = []
        """A heap of loss, place in the order drawn, and row."""
        self._k = max(1, (setting.budget - screened) // (setting.epochs - 1))

    def next(self, now: int) -> int | None:
        """A row to screen, or when all were the best one that did not go on yet."""
        if (row := next(self._fresh, None)) is not None:
            return row
        if self._missing or not self._k or not self._ranked:
            return None
        self._k -= 1
        return heapq.heappop(self._ranked)[-1]

    def told(self, row: int, epoch: int, loss: float) -> bool:
        """Waits after its first epoch."""
        if epoch > 1:
            return True
        heapq.heappush(self._ranked, (math.inf if math.isnan(loss) else loss, self._place[row], row))
        self._missing -= 1
        return False


class OptunaHyperband:
    """Optuna's ``HyperbandPruner`` and ``TPESampler`` with their defaults, on an in-memory study, by ask and tell.

    The sampler proposes points of the unit cube; each is moved to the nearest row not used yet, and the study knows
    that row's place instead of the proposed one. Steps are epochs that are over, so the last one is ``max_resource``.
    A trial that trained all its epochs is told with its lowest loss, one that never had any as failed.
    """

    def __init__(self, setting: Setting) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._cube, self._epochs = setting.cube, setting.epochs
        self._unused = np.ones(len(self._cube), dtype=bool)
        self._storage = optuna.storages.InMemoryStorage()
        self._name = f"search-{setting.seed}"  # the pruner chooses brackets by it
        self.study = optuna.create_study(
            study_name=self._name,
            storage=self._storage,
            direction="minimize",
            sampler=optuna.samplers.TPESampler(seed=setting.seed),
            pruner=optuna.pruners.HyperbandPruner(max_resource=setting.epochs),
        )
        self._asked: dict[int, optuna.trial.Trial] = {}
        self._lowest: dict[int, float] = {}

    def next(self, now: int) -> int | None:
        """The row nearest to what the sampler proposes."""
        if not self._unused.any():
            return None
        asked = self.study.ask()
        names = [f"x{i}" for i in range(self._cube.shape[1])]
        point = np.array([asked.suggest_float(name, 0, 1) for name in names])
        away = np.where(self._unused, np.square(self._cube - point).sum(axis=1), math.inf)
        row = int(np.argmin(away))
        self._unused[row] = False
        study = self._storage.get_study_id_from_name(self._name)
        trial = self._storage.get_trial_id_from_study_id_trial_number(study, asked.number)
        for name, value in zip(names, self._cube[row].tolist(), strict=True):
            self._storage.set_trial_param(trial, name, value, asked.distributions[name])
        self._asked[row] = asked
        return row

    def told(self, row: int, epoch: int, loss: float) -> bool:
        """Goes on unless the pruner says otherwise."""
        asked = self._asked[row]
        asked.report(loss, epoch)
        lowest = self._lowest[row] = min(self._lowest.get(row, math.inf), math.inf if math.isnan(loss) else loss)
        if epoch == self._epochs:
            self.study.tell(asked, *((lowest,) if lowest < math.inf else (None, TrialState.FAIL)))
        elif asked.should_prune():
            self.study.tell(asked, state=TrialState.PRUNED)
            return False
        return True


BASELINES: Mapping[str, Kind] = MappingProxyType(
    {
        "ray_asha_loss": Kind(make=partial(RayAsha, score=float, mode="min")),
        "ray_asha_f1": Kind(make=partial(RayAsha, score=f1_like, mode="max")),
        "random": Kind(make=Random),
        "random_patience": Kind(make=RandomPatience),
        "optuna_hyperband": Kind(make=OptunaHyperband),
        "one_epoch_top_k": Kind(make=OneEpochTopK, per_budget=True),
    }
)
"""Policies by name."""
