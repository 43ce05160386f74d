"""Decisions of successive halving against a second writing of the same rules, which counts instead of sorting."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from tunelab.halving import LATE, SETTLED, Halving, Rules

Told = tuple[int, float, bool]
"""Number of a trial, its value, whether it is on the floor: an epoch of it."""


@dataclass
class Naive:
    """Every question is answered from the list of all that was told."""

    rules: Rules
    arrivals: dict[int, list[tuple[str, tuple[int, float]]]] = field(default_factory=dict)
    """Of each rung, who came there with which class and value: 2 off the floor, 1 on it, 0 with NaN."""
    on: set[tuple[int, str]] = field(default_factory=set)
    over: set[str] = field(default_factory=set)
    waits: set[tuple[int, str]] = field(default_factory=set)
    left: dict[str, int] = field(default_factory=dict)

    def floor_loses_from(self) -> int:
        if len(self.left) < SETTLED:
            return self.rules.collapse_epoch
        for epoch in sorted(self.left.values()):
            if sum(e <= epoch for e in self.left.values()) >= LATE * len(self.left):
                return min(epoch, self.rules.collapse_epoch)
        raise AssertionError

    def among_the_best(self, rung: int, trial: str, *, ties: bool) -> bool:
        told = self.arrivals[rung]
        (at,) = [i for i, (name, _) in enumerate(told) if name == trial]
        value = told[at][1]
        if value[0] < 2 and rung >= self.floor_loses_from():
            return False
        ahead = sum(v > value or (ties and v == value and i < at) for i, (_, v) in enumerate(told))
        share = math.floor(len(told) / self.rules.reduction)
        return ahead < (share if ties else max(share, 1))

    def tell(self, trial: str, epoch: int, value: float, floored: bool, spared: bool) -> str:
        if not floored and value == value:
            self.left.setdefault(trial, epoch)
        rungs = [r for r in self.rules.rungs() if r <= epoch]
        said = ""
        if rungs and trial not in {name for name, _ in self.arrivals.get(rungs[-1], [])}:
            rung = rungs[-1]
            worth = (0, 0.0) if value != value else (1 if floored else 2, value)
            self.arrivals.setdefault(rung, []).append((trial, worth))
            if spared and rung <= self.rules.early:
                pass
            elif value != value:
                said = "asha"
            elif self.among_the_best(rung, trial, ties=self.rules.promoting):
                pass
            elif self.rules.promoting:
                self.waits.add((rung, trial))
                said = "wait"
            else:
                said = "asha"
        if floored and not spared and epoch >= self.rules.collapse_epoch and epoch != self.rules.max_epochs:
            self.waits = {(r, name) for r, name in self.waits if name != trial}
            return "collapse"
        return said

    def promotable(self) -> set[str]:
        """The best one of the furthest rung where there is one; ties are those that came at the same time, so one."""
        for rung in sorted(self.arrivals, reverse=True):
            may = [
                (v, -i, name)
                for i, (name, v) in enumerate(self.arrivals[rung])
                if (rung, name) in self.waits and self.among_the_best(rung, name, ties=True)
            ]
            if may:
                return {max(may)[2]}
        return set()


VALUES = st.sampled_from([0.1, 0.2, 0.2, 0.3, 0.5, 0.9, math.nan])
EVENTS = st.lists(st.tuples(st.integers(0, 29), VALUES, st.booleans()), max_size=300)
RULES = st.builds(
    Rules,
    max_epochs=st.integers(1, 30),
    grace=st.integers(1, 4),
    reduction=st.sampled_from([2.0, 2.5, 3.0, 4.0]),
    promoting=st.booleans(),
    collapse=st.sampled_from([0.1, 0.25, 0.5, 1.0]),
)


def play(rules: Rules, events: Sequence[Told], spared: frozenset[int]) -> tuple[list[str], Halving]:
    """What is said to each event, by both writings; trials that wait are taken up as soon as they may."""
    ours, naive = Halving(rules), Naive(rules)
    epochs: dict[int, int] = {}
    idle: set[int] = set()
    said = []
    for number, value, floored in events:
        if number in idle or epochs.get(number, 0) >= rules.max_epochs:
            continue
        epochs[number] = epoch = epochs.get(number, 0) + 1
        trial = f"{number:04d}"
        told = ours.tell(trial, epoch, value, floored=floored, spared=number in spared)
        assert told == naive.tell(trial, epoch, value, floored, number in spared)
        assert ours.floor_loses_from == naive.floor_loses_from()
        said.append(told)
        if told:
            idle.add(number)
        while (up := ours.promotable()) is not None:
            assert {up} == naive.promotable()
            ours.promote(up)
            naive.waits = {(r, name) for r, name in naive.waits if name != up}
            idle.discard(int(up))
        assert not naive.promotable()
        assert sorted(ours.waiting()) == sorted(name for _, name in naive.waits)
    return said, ours


@settings(deadline=None, max_examples=300)
@given(RULES, EVENTS, st.frozensets(st.integers(0, 29), max_size=4))
def test_it_decides_as_the_rules_say(rules: Rules, events: list[Told], spared: frozenset[int]) -> None:
    said, ours = play(rules, events, spared)
    again, others = play(rules, events, spared)
    assert again == said
    assert others.waiting() == ours.waiting()


def test_rungs_are_a_factor_apart_and_an_epoch_at_least() -> None:
    def rungs(max_epochs: int, grace: int, reduction: float) -> list[int]:
        return Rules(max_epochs=max_epochs, grace=grace, reduction=reduction, promoting=False).rungs()

    assert rungs(40, 8, 3.0) == [8, 24]
    assert rungs(27, 1, 3.0) == [1, 3, 9]
    assert rungs(5, 1, 1.0000001) == [1, 2, 3, 4]
    assert rungs(3, 3, 2.0) == []


def test_on_the_floor_the_higher_value_is_better_and_below_all_that_left() -> None:
    halving = Halving(Rules(max_epochs=40, grace=2, reduction=2.0, promoting=True))
    told = {"0001": (0.30, True), "0002": (0.35, True), "0003": (0.20, False), "0004": (0.25, True)}
    said = {trial: halving.tell(trial, 2, value, floored=floored) for trial, (value, floored) in told.items()}
    assert said == {"0001": "wait", "0002": "", "0003": "", "0004": "wait"}
    assert halving.waiting() == ["0001", "0004"]
    assert halving.tell("0005", 2, 0.15, floored=False) == "", "the second of two"
    assert halving.promotable() is None
    assert halving.tell("0006", 2, 0.32, floored=True) == "wait", "the fourth of three"
    assert halving.tell("0007", 2, 0.40, floored=True) == "", "the third of three"
    assert halving.waiting() == ["0006", "0001", "0004"]
