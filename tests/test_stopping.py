"""The ways to stop trials early that are not halving by itself, against rules written again from their description."""

from __future__ import annotations

import math
from collections import defaultdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunelab.halving import Halving, Rules
from tunelab.sections import EarlyStopping
from tunelab.stopping import Hyperband, Median, Never, stopping

RULES = Rules(max_epochs=9, grace=2, reduction=3, promoting=True, collapse=0.4)

STEPS = st.lists(
    st.tuples(st.integers(0, 8), st.sampled_from([0.0, 0.1, 0.1, 0.3, 0.5, 0.9, math.nan]), st.booleans()), max_size=80
)


class NaiveMedian:
    """All that was ever told, looked through anew each time."""

    def __init__(self) -> None:
        self.told: list[tuple[str, int, float]] = []

    def says(self, trial: str, epoch: int, value: float, floored: bool, spared: bool) -> str:
        self.told.append((trial, epoch, -math.inf if value != value else value))
        of: dict[str, dict[int, float]] = defaultdict(dict)
        for name, at, one in self.told:
            of[name][at] = one
        others = sorted(
            sum(values[e] for e in range(1, epoch + 1)) / epoch
            for name, values in of.items()
            if name != trial and epoch in values
        )
        if epoch == 9 or (spared and epoch <= 3):
            return ""
        if floored and not spared and epoch >= 4:
            return "collapse"
        if epoch < 2:
            return ""
        if value != value:
            return "asha"
        if len(others) < 3:
            return ""
        half = len(others) // 2
        middle = others[half] if len(others) % 2 else min(others[half - 1], others[half])
        return "asha" if value < middle else ""


@given(STEPS)
def test_the_median_rule_is_that_of_its_description(steps: list[tuple[int, float, bool]]) -> None:
    rule, naive = Median(RULES), NaiveMedian()
    epochs: dict[str, int] = defaultdict(int)
    best: dict[str, float] = {}
    over = set()
    for number, value, floored in steps:
        trial, spared = f"t{number}", number < 2
        if trial in over or epochs[trial] == 9:
            continue
        epochs[trial] += 1
        best[trial] = max(best.get(trial, value), value) if value == value else best.get(trial, value)
        said = rule.tell(trial, epochs[trial], best[trial], floored=floored, spared=spared)
        assert said == naive.says(trial, epochs[trial], best[trial], floored, spared)
        if said:
            over.add(trial)
    assert rule.waiting() == []
    assert rule.promotable(last=True) is None


def test_the_median_rule_ends_the_worse_half_once_there_is_somebody_to_compare_with() -> None:
    rule = Median(RULES)
    for trial, value in (("a", 0.5), ("b", 0.6), ("c", 0.7)):
        assert [rule.tell(trial, epoch, value, floored=False) for epoch in (1, 2, 3)] == ["", "", ""]
    assert rule.tell("d", 1, 0.1, floored=False) == "", "within the grace period"
    assert rule.tell("d", 2, 0.1, floored=False) == "asha"
    assert rule.tell("e", 1, 0.65, floored=False) == ""
    assert rule.tell("e", 2, 0.65, floored=False) == ""


def test_brackets_are_given_the_same_number_of_epochs_and_the_last_one_stops_nothing() -> None:
    """Rungs of grace 2 and reduction 3 are 2 and 6, so that there are three brackets."""
    rule = Hyperband(RULES)
    assert rule.rungs == [2, 6]
    given_to: dict[int, int] = defaultdict(int)
    for number in range(60):
        trial = f"{number:02d}"
        for epoch in range(1, 10):
            said = rule.tell(trial, epoch, 0.5 - number / 1000, floored=False)
            given_to[rule._of[trial]] += 1
            if said:
                assert rule._of[trial] < 2, "the last bracket stops nothing"
                break
    assert sorted(given_to) == [0, 1, 2]
    assert max(given_to.values()) - min(given_to.values()) <= 9


@given(STEPS)
@settings(max_examples=50)
def test_a_trial_that_waits_in_a_bracket_goes_on_as_its_bracket_says(steps: list[tuple[int, float, bool]]) -> None:
    rule = Hyperband(RULES)
    alone = {
        i: Halving(Rules(max_epochs=9, grace=g, reduction=3, promoting=True, collapse=0.4))
        for i, g in enumerate((2, 6, 9))
    }
    epochs: dict[str, int] = defaultdict(int)
    over = set()
    for number, value, floored in steps:
        trial = f"t{number}"
        if trial in over or epochs[trial] == 9 or trial in rule.waiting():
            continue
        epochs[trial] += 1
        said = rule.tell(trial, epochs[trial], value, floored=floored)
        own = alone[rule._of[trial]]
        assert said == own.tell(trial, epochs[trial], value, floored=floored)
        if said in ("asha", "collapse"):
            over.add(trial)
        waited = rule.promotable()
        if waited is not None:
            assert waited == alone[rule._of[waited]].promotable()
            rule.promote(waited)
            alone[rule._of[waited]].promote(waited)
        assert sorted(rule.waiting()) == sorted(name for one in alone.values() for name in one.waiting())


@pytest.mark.parametrize(
    ("name", "kind"), [("halving", Halving), ("hyperband", Hyperband), ("median", Median), ("none", Never)]
)
def test_a_space_names_its_kind(name: str, kind: type) -> None:
    made = stopping(EarlyStopping.model_validate({"scheduler": name, "grace": 50}), 9)
    assert isinstance(made, kind)
    assert made.tell("a", 9, math.nan, floored=True) == "", "nothing is decided at the last epoch"


def test_none_stops_nothing() -> None:
    rule = stopping(EarlyStopping(scheduler="none"), 9)
    assert [rule.tell("a", epoch, math.nan, floored=True) for epoch in range(1, 10)] == [""] * 9
    assert rule.rungs == []
