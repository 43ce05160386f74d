"""Who goes on to the next step, against a second writing of the same rules, which counts instead of sorting."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunelab.ladder import Ladder

Said = tuple[str, int, float | None]
"""Configuration, step, what it came to there; None: it began."""


@dataclass
class Naive:
    """Every question is answered from the list of all that was said."""

    steps: int
    reduction: float
    said: list[Said] = field(default_factory=list)

    def begun(self, one: str, step: int) -> None:
        self.said.append((one, step, None))

    def told(self, one: str, step: int, value: float, *, floored: bool) -> None:
        self.said.append((one, step, value - 10 if floored else value))  # no value is above 10

    def at(self, step: int) -> dict[str, float]:
        """What each came to there first, in the order in which they did."""
        found: dict[str, float] = {}
        for one, where, value in self.said:
            if where == step and value is not None:
                found.setdefault(one, value)
        return found

    def there(self, step: int) -> set[str]:
        return {one for one, where, _ in self.said if where == step}

    def may(self, step: int, allowed: int) -> str | None:
        came = self.at(step)
        names = list(came)
        for place in range(allowed):
            for i, one in enumerate(names):
                better = [n for n in names if came[n] > came[one]] + [n for n in names[:i] if came[n] == came[one]]
                if came[one] == came[one] and len(better) == place and one not in self.there(step + 1):
                    return one
        return None

    def promotable(self, *, last: bool) -> tuple[str, int] | None:
        regular = [
            (step, self.may(step, math.floor(len(self.at(step)) / self.reduction))) for step in range(self.steps)
        ]
        for step, one in reversed(regular):
            if one is not None:
                return one, step + 1
        for step in range(self.steps):
            on_the_way = [below for below in range(step + 1) if self.there(below) - set(self.at(below))]
            lost = [v for higher in range(step + 1, self.steps + 1) for v in self.at(higher).values() if v != v]
            if last and not on_the_way and (one := self.may(step, 1 + len(lost))) is not None:
                return one, step + 1
        return None


VALUES = st.sampled_from([0.1, 0.2, 0.3, 0.5, math.nan])
MOVES = st.lists(
    st.tuples(st.sampled_from("abcdefg"), st.integers(0, 3), st.one_of(st.none(), VALUES), st.booleans()),
    min_size=1,
    max_size=40,
)


@settings(max_examples=300, deadline=None)
@given(moves=MOVES, steps=st.integers(0, 3), reduction=st.sampled_from([1.5, 2.0, 3.0]))
def test_any_course_is_judged_as_the_second_writing_judges_it(
    moves: list[tuple[str, int, float | None, bool]], steps: int, reduction: float
) -> None:
    ladder, naive = Ladder(steps, reduction), Naive(steps, reduction)
    for one, step, value, floored in moves:
        for judge in (ladder, naive):
            if value is None:
                judge.begun(one, min(step, steps))
            else:
                judge.told(one, min(step, steps), value, floored=floored)
        for last in (False, True):
            assert ladder.promotable(last=last) == naive.promotable(last=last)


@settings(max_examples=200, deadline=None)
@given(
    values=st.lists(VALUES, min_size=1, max_size=12),
    steps=st.integers(1, 3),
    fails=st.sets(st.tuples(st.integers(0, 11), st.integers(1, 3)), max_size=8),
)
def test_a_course_that_is_followed_ends_in_full_wherever_any_can(
    values: list[float], steps: int, fails: set[tuple[int, int]]
) -> None:
    """One place for all: each is trained to its end before the next one begins."""
    ladder, full = Ladder(steps, 2.0), 0
    waiting = list(range(len(values)))
    for _ in range(len(values) * (steps + 1) + 1):
        higher = ladder.promotable(last=not waiting)
        if higher is None and not waiting:
            break
        one, step = higher if higher is not None else (str(waiting.pop(0)), 0)
        ladder.begun(one, step)
        value = math.nan if (int(one), step) in fails else values[int(one)]
        ladder.told(one, step, value)
        full += step == steps and not math.isnan(value)
    else:
        pytest.fail("somebody goes on for ever")
    can = [i for i, v in enumerate(values) if v == v and not any((i, s) in fails for s in range(1, steps + 1))]
    assert (full > 0) == bool(can)


def test_the_furthest_goes_first_and_the_best_of_those() -> None:
    ladder = Ladder(2, 2)
    for number, value in enumerate([0.1, 0.4, 0.3, 0.4]):
        ladder.told(str(number), 0, value)
    assert ladder.promotable() == ("1", 1), "of equal ones who came earlier"
    ladder.begun("1", 1)
    assert ladder.promotable() == ("3", 1)
    ladder.told("3", 1, 0.2)
    ladder.told("1", 1, 0.1)
    assert ladder.promotable() == ("3", 2)
    ladder.begun("3", 2)
    assert ladder.promotable() is None


def test_in_the_end_the_best_one_goes_on_once_nobody_is_on_the_way() -> None:
    ladder = Ladder(1, 3)
    ladder.told("a", 0, 0.3)
    ladder.begun("b", 0)
    assert ladder.promotable(last=True) is None
    ladder.told("b", 0, 0.4)
    assert ladder.promotable() is None
    assert ladder.promotable(last=True) == ("b", 1)
    ladder.begun("b", 1)
    assert ladder.promotable(last=True) is None
    ladder.told("b", 1, math.nan)
    assert ladder.promotable(last=True) == ("a", 1), "in place of the one that came to nothing"


def test_one_without_a_value_never_goes_on() -> None:
    ladder = Ladder(1, 1.5)
    for one in "abc":
        ladder.told(one, 0, math.nan)
    assert ladder.promotable() is None
    assert ladder.promotable(last=True) is None
