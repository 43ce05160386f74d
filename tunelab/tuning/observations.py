"""What a sampler is told of the trials there are: one observation of each configuration, and no more than it can use.

A configuration that was trained at several fidelities is told as it was at the highest one where it came to a value;
while it is trained at the next one too, since what it came to stays true. Values of two fidelities are never compared:
one that has not come to the full one is *pruned*, at the step that it came to, as one that was stopped early is at its
epoch, and Optuna puts those first that came furthest. One that goes on is told as if it had been stopped now.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from tunelab.fidelity import Fidelity
from tunelab.ranking import Trial

BEST = 40
"""Of the trials that a model is made from the best; the model's good ones are at most 25 (Optuna), or a tenth where
there are several aims."""

Values = Callable[[Trial], Sequence[float]]
"""What a sampler is told of a trial, more is better; NaN where a value is undefined."""
Reached = Callable[[Trial], int | None]
"""How far a trial that is over came, by which pruned ones are ordered; None: to its end."""


def reached_by(fidelity: Fidelity, floored: Callable[[Trial], bool]) -> Reached:
    """How far trials of a space came: the epoch of one that was stopped, or the step of one at a lower fidelity.

    One on the floor came nowhere, however long it was trained, so that it is ordered behind all that left it; those of
    a lower fidelity stand behind the others there too.

    Args:
        fidelity: of the space.
        floored: whether a trial is on the floor.
    """

    def reached(trial: Trial) -> int | None:
        step = fidelity.number(trial.fidelity) or 0
        if floored(trial):
            return step - len(fidelity.steps)
        if trial.fidelity:
            return 1 + step
        return None if trial.status == "finished" else trial.epochs[-1].epoch

    return reached


def observed(trials: Iterable[Trial], values: Values) -> list[Trial]:
    """The trial that stands for each configuration, in the order of their first ones.

    Args:
        trials: oldest first.
        values: as the sampler is told.
    """
    standing: dict[str, Trial] = {}
    for trial in trials:
        before = standing.get(trial.configuration)
        if before is None or _tells(trial, values) or not (_tells(before, values) or before.unfinished):
            standing[trial.configuration] = trial
    return list(standing.values())


def bounded(trials: Sequence[Trial], values: Values, most: int, reached: Reached) -> list[Trial]:
    """Those that a model is made from, in their order: all that run, the best, and an even draw of the rest.

    A model parts what it knows into few good ones and all others. The good ones stay as they are; of the others a
    part gives the same picture.

    Args:
        trials: oldest first.
        values: as the sampler is told.
        most: how many, besides those that run.
        reached: how far they came.
    """
    over = [trial for trial in trials if not trial.unfinished]
    if len(over) <= most:
        return list(trials)
    best = set(_best(over, values, reached))
    rest = [trial.trial for trial in over if trial.trial not in best]
    kept = best | {rest[int(i)] for i in np.linspace(0, len(rest) - 1, most - len(best))}
    return [trial for trial in trials if trial.unfinished or trial.trial in kept]


def _tells(trial: Trial, values: Values) -> bool:
    """Whether it came to a value."""
    return not trial.unfinished and trial.status != "failed" and not any(map(math.isnan, values(trial)))


def _best(over: Sequence[Trial], values: Values, reached: Reached) -> list[str]:
    """The :data:`BEST` ones in the order of Optuna: complete ones first, then those that came furthest.

    With several aims, by the sum of their ranks in each.
    """
    told = {trial.trial: values(trial) for trial in over if trial.status != "failed"}
    there = [t for t in over if t.trial in told and not any(map(math.isnan, told[t.trial]))]
    if there and len(told[there[0].trial]) > 1:
        there = [t for t in there if not t.fidelity] or there
        table = np.array([told[t.trial] for t in there])
        ranks = np.argsort(np.argsort(-table, axis=0), axis=0).sum(axis=1)
        return [there[int(i)].trial for i in np.argsort(ranks, kind="stable")[:BEST]]

    def order(trial: Trial) -> tuple[bool, int, float]:
        far = reached(trial)
        return far is not None, -(far or 0), -told[trial.trial][0]

    return [trial.trial for trial in heapq.nsmallest(BEST, there, key=order)]
