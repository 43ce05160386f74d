"""Asynchronous successive halving for problems where most trials never leave the floor: who goes on, stops or waits.

Li et al. (2020) compare trials at rungs, epochs that are a power of ``reduction`` apart, and let the best
1/reduction of a rung go on. Where nine of ten models answer as if they had learned nothing, that compares noise with
noise: so a trial *on the floor* (its caller says which are) is worse than every trial that left it, and goes on no
more once trials that leave the floor have usually left it. Until then the higher value on the floor is the better
one: it tells little, and yet more than who came first. NaN is worse still.

Two kinds. *Promoting*: a trial that is not among the best when it comes to a rung waits there, and is taken up when
others that came later make it one of the best. *Stopping*: it ends. One bracket, either way; the other ways to stop
trials early, among them several brackets, are in :mod:`tunelab.stopping`.

What is decided depends on what was told, in its order, and on nothing else, so a journal brings it back. No Ray, no
clock and no chance in here.
"""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from dataclasses import dataclass, field
from typing import Literal

Verdict = Literal["", "asha", "collapse", "wait"]
"""Goes on; ends as it is not among the best; ends as it never left the floor; waits at a rung."""

SETTLED = 5
"""So many trials left the floor before their epochs say when one leaves it."""
LATE = 0.9
"""Of the trials that left the floor, this share had left when those that are there begin to lose."""
EARLY = 0.25
"""Share of the epochs; up to there configurations to try first pass every rung."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What a search decides by."""

    max_epochs: int
    grace: int
    """Epochs of the first rung."""
    reduction: float
    promoting: bool
    collapse: float = 0.3
    """A trial that is on the floor after this share of its epochs ends; 1: never for that."""

    def rungs(self) -> list[int]:
        """Epochs at which trials are compared, the first one first; none at the last epoch."""
        found = []
        at = float(self.grace)
        while round(at) < self.max_epochs:
            found.append(round(at))
            at = max(at * self.reduction, at + 1)  # two rungs are an epoch apart at least
        return found

    @property
    def early(self) -> int:
        """The last epoch whose rung a configuration to try first passes, whatever it came to."""
        return max(self.grace, math.ceil(EARLY * self.max_epochs))

    @property
    def collapse_epoch(self) -> int:
        """At which a trial has to have left the floor; behind the last one if never."""
        if self.collapse >= 1:
            return self.max_epochs + 1
        return max(self.grace, math.ceil(self.collapse * self.max_epochs))


Place = tuple[bool, float, int, str]
"""Of a trial in a rung: whether it is on the floor, minus its value, the number of its arrival, its name; the best one
is the smallest."""


@dataclass(slots=True)
class _Rung:
    """Who came to an epoch, with what."""

    epoch: int
    places: dict[str, Place] = field(default_factory=dict)
    order: list[Place] = field(default_factory=list)
    """Of all that came, the best one first."""
    waiting: list[Place] = field(default_factory=list)
    """Of those that may still be taken up, likewise."""

    def arrive(self, trial: str, value: float, *, floored: bool) -> Place:
        """Take a trial in; NaN is worse than every value."""
        nothing = math.isnan(value)
        place = (floored or nothing, math.inf if nothing else -value, len(self.places), trial)
        self.places[trial] = place
        insort(self.order, place)
        return place

    def better(self, place: Place) -> int:
        """How many are better; ties are not."""
        return bisect_left(self.order, place[:2])

    def before(self, place: Place) -> int:
        """How many are better, or as good and came earlier."""
        return bisect_left(self.order, place)

    def leave(self, trial: str) -> None:
        """Wait no longer."""
        place = self.places.get(trial)
        at = bisect_left(self.waiting, place) if place is not None else len(self.waiting)
        if self.waiting[at : at + 1] == [place]:
            del self.waiting[at]


class Halving:
    """The rungs of one search.

    Args:
        rules: of it.
    """

    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        self._rungs = [_Rung(epoch) for epoch in rules.rungs()]
        self._left: set[str] = set()
        """Trials that were off the floor once."""
        self._leaving: list[int] = []
        """The first epoch of each of them off the floor, ascending."""

    def tell(self, trial: str, epoch: int, value: float, *, floored: bool, spared: bool = False) -> Verdict:
        """Take in what a trial came to, and decide.

        Args:
            trial: which.
            epoch: the one that is over, from 1.
            value: the best so far, more is better; NaN when there is none.
            floored: whether that is no better than having learned nothing.
            spared: a configuration to try first: it passes the rungs up to :attr:`Rules.early`, and no share of its
                epochs ends it for being on the floor.
        """
        if not floored and not math.isnan(value) and trial not in self._left:
            self._left.add(trial)
            insort(self._leaving, epoch)
        verdict: Verdict = ""
        rung = next((rung for rung in reversed(self._rungs) if epoch >= rung.epoch), None)
        if rung is not None and trial not in rung.places:
            verdict = self._arrive(rung, trial, value, floored=floored, spared=spared)
        if floored and not spared and self.rules.collapse_epoch <= epoch < self.rules.max_epochs:
            self.promote(trial)
            return "collapse"
        return verdict

    def promotable(self, *, last: bool = False) -> str | None:
        """The waiting trial that may go on and has come furthest, the best one of those; None if there is none.

        Args:
            last: whether no new trials will come. Then the best trial of each rung goes on even where so few came
                there that it is not among the best 1/reduction: or else few trials would never train to their end.
        """
        for rung in reversed(self._rungs):
            if rung.waiting and self._may(rung, rung.waiting[0], least=1 if last else 0):
                return rung.waiting[0][-1]
        return None

    def promote(self, trial: str) -> None:
        """A waiting trial goes on, or is over: nobody waits for it; what it told stays."""
        for rung in self._rungs:
            rung.leave(trial)

    @property
    def rungs(self) -> list[int]:
        """The epochs at which a trial may have to wait."""
        return [rung.epoch for rung in self._rungs] if self.rules.promoting else []

    def waiting(self) -> list[str]:
        """Who waits: those that came furthest first, of each rung the best first."""
        return [place[-1] for rung in reversed(self._rungs) for place in rung.waiting]

    @property
    def floor_loses_from(self) -> int:
        """The epoch from which nobody goes on who is on the floor."""
        if len(self._leaving) < SETTLED:
            return self.rules.collapse_epoch
        return min(self._leaving[math.ceil(LATE * len(self._leaving)) - 1], self.rules.collapse_epoch)

    def _arrive(self, rung: _Rung, trial: str, value: float, *, floored: bool, spared: bool) -> Verdict:
        place = rung.arrive(trial, value, floored=floored)
        if spared and rung.epoch <= self.rules.early:
            return ""
        if math.isnan(value):
            return "asha"
        if self.rules.promoting:
            if self._may(rung, place):
                return ""
            insort(rung.waiting, place)
            return "wait"
        best = max(1, int(len(rung.places) / self.rules.reduction))
        return "" if rung.better(place) < best and not self._loses(rung, place) else "asha"

    def _may(self, rung: _Rung, place: Place, least: int = 0) -> bool:
        """Whether a trial of a rung is among its best 1/reduction, or its best few."""
        best = max(least, int(len(rung.places) / self.rules.reduction))
        return rung.before(place) < best and not self._loses(rung, place)

    def _loses(self, rung: _Rung, place: Place) -> bool:
        """Whether it is on the floor when others have left."""
        return place[0] and rung.epoch >= self.floor_loses_from
