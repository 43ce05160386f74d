"""The ways to stop trials early, by name: ``halving``, ``hyperband``, ``median`` and ``none``.

All of them take in what a trial came to at an epoch and say whether it goes on (:class:`Stopping`). What is decided
depends on what was told, in its order, and on nothing else. A trial that stays on the floor for too long a share of
its epochs ends by each of them but ``none``; configurations to try first are excepted, as from the early rungs.
"""

from __future__ import annotations

import math
from bisect import insort
from typing import Protocol

from tunelab.halving import Halving, Rules, Verdict
from tunelab.sections import EarlyStopping


class Stopping(Protocol):
    """Decides who goes on."""

    @property
    def rungs(self) -> list[int]:
        """The epochs at which a trial may have to wait."""

    def tell(self, trial: str, epoch: int, value: float, *, floored: bool, spared: bool = False) -> Verdict:
        """Take in what a trial came to, and decide; arguments as of :meth:`tunelab.halving.Halving.tell`."""

    def promotable(self, *, last: bool = False) -> str | None:
        """A waiting trial that may go on; see :meth:`tunelab.halving.Halving.promotable`."""

    def promote(self, trial: str) -> None:
        """A waiting trial goes on, or is over."""

    def waiting(self) -> list[str]:
        """Who waits, those first that are most likely to go on."""


def stopping(rules: EarlyStopping, max_epochs: int) -> Stopping:
    """What a space asks for.

    Args:
        rules: of the space.
        max_epochs: of a trial.
    """
    if rules.scheduler == "none":
        return Never()
    halving = halving_rules(rules, max_epochs)
    if rules.scheduler == "median":
        return Median(halving)
    return Hyperband(halving) if rules.scheduler == "hyperband" else Halving(halving)


def halving_rules(rules: EarlyStopping, max_epochs: int) -> Rules:
    """What a space says, for trials of so many epochs."""
    return Rules(
        max_epochs=max_epochs,
        grace=min(rules.grace, max_epochs),
        reduction=rules.reduction,
        promoting=rules.promote,
        collapse=rules.collapse,
    )


class _NobodyWaits:
    rungs: list[int] = []  # noqa: RUF012 - never written to

    def promotable(self, *, last: bool = False) -> str | None:
        """None."""
        return None

    def promote(self, trial: str) -> None:
        """Nothing to take note of."""

    def waiting(self) -> list[str]:
        """Nobody."""
        return []


class Never(_NobodyWaits):
    """Every trial trains as long as its patience and its epochs last."""

    def tell(self, trial: str, epoch: int, value: float, *, floored: bool, spared: bool = False) -> Verdict:
        """It goes on."""
        return ""


class Median(_NobodyWaits):
    """The median rule of Google Vizier (Golovin et al. 2017).

    A trial ends when the best it came to is below the median of what the others that came to this epoch had come to
    on average until then. Nobody is compared with fewer than :attr:`LEAST` others.

    Args:
        rules: grace, epochs and collapse; what concerns rungs is left aside.
    """

    LEAST = 3

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._sums: dict[str, tuple[int, float]] = {}
        """Newest epoch of a trial, and the sum of what it had come to after each until then."""
        self._means: dict[int, list[tuple[float, str]]] = {}
        """Epoch -> mean and name of each trial that came there, ascending."""

    def tell(self, trial: str, epoch: int, value: float, *, floored: bool, spared: bool = False) -> Verdict:
        """Whether it goes on; arguments as of :meth:`tunelab.halving.Halving.tell`."""
        told, total = self._sums.get(trial, (0, 0.0))
        if epoch <= told:
            return ""
        worst = -math.inf if math.isnan(value) else value
        total += worst
        self._sums[trial] = (epoch, total)
        there = self._means.setdefault(epoch, [])
        others = [mean for mean, _ in there]
        insort(there, (total / epoch, trial))
        if epoch >= self._rules.max_epochs or (spared and epoch <= self._rules.early):
            return ""
        if floored and not spared and epoch >= self._rules.collapse_epoch:
            return "collapse"
        if epoch < self._rules.grace:
            return ""
        if math.isnan(value):
            return "asha"
        middle = others[(len(others) - 1) // 2] if others else -math.inf  # of two in the middle the lower
        return "asha" if len(others) >= self.LEAST and value < middle else ""


class Hyperband:
    """Asynchronous Hyperband (Li et al. 2018, 2020): several brackets of halving, each with a longer grace.

    A trial belongs to the bracket that has been given the fewest epochs for its share, as Hyperband gives each the
    same: the first halves from ``grace`` on, the last one stops nothing.

    Args:
        rules: of the first bracket.
    """

    def __init__(self, rules: Rules) -> None:
        self._brackets = [
            Halving(
                Rules(
                    max_epochs=rules.max_epochs,
                    grace=epoch,
                    reduction=rules.reduction,
                    promoting=rules.promoting,
                    collapse=rules.collapse,
                )
            )
            for epoch in [*rules.rungs(), rules.max_epochs]
        ]
        self._given = [0] * len(self._brackets)
        """Epochs told in each."""
        self._of: dict[str, int] = {}
        """Trial -> its bracket."""

    @property
    def rungs(self) -> list[int]:
        """Those of all brackets."""
        return sorted({epoch for bracket in self._brackets for epoch in bracket.rungs})

    def tell(self, trial: str, epoch: int, value: float, *, floored: bool, spared: bool = False) -> Verdict:
        """What its bracket says; arguments as of :meth:`tunelab.halving.Halving.tell`."""
        number = self._of.get(trial)
        if number is None:
            number = self._of[trial] = self._given.index(min(self._given))
        self._given[number] += 1
        return self._brackets[number].tell(trial, epoch, value, floored=floored, spared=spared)

    def promotable(self, *, last: bool = False) -> str | None:
        """Of the bracket that was given least, among those that have one."""
        for _, bracket in sorted(zip(self._given, self._brackets, strict=True), key=lambda pair: pair[0]):
            if (trial := bracket.promotable(last=last)) is not None:
                return trial
        return None

    def promote(self, trial: str) -> None:
        """A waiting trial goes on, or is over."""
        if trial in self._of:
            self._brackets[self._of[trial]].promote(trial)

    def waiting(self) -> list[str]:
        """Of the brackets in turn, each's as :meth:`tunelab.halving.Halving.waiting` says."""
        return [trial for bracket in self._brackets for trial in bracket.waiting()]
