"""Learning rates at known steps, and plateaus."""

from __future__ import annotations

import math
from typing import Any

import pytest

from tunelab.learning_rates import Rates, rate_at
from tunelab.objective import RateSchedule


def schedule(**wanted: Any) -> dict[str, Any]:
    return RateSchedule(**wanted).model_dump()


def rates(epochs: int = 10, passes: int = 1, **wanted: Any) -> Rates:
    return Rates(schedule(**wanted), 0.8, epochs=epochs, passes=passes)


@pytest.mark.parametrize(
    ("wanted", "points"),
    [
        ({}, {0.0: 0.8, 0.5: 0.8, 0.999: 0.8}),
        ({"kind": "cosine"}, {0.0: 0.8, 0.5: (0.8 + 0.008) / 2, 0.25: 0.008 + 0.792 * (2 + 2**0.5) / 4, 1.0: 0.008}),
        (
            {"kind": "one_cycle", "warm_up": 0.4},
            {0.0: 0.032, 0.2: 0.416, 0.4: 0.8, 0.7: (0.8 + 0.00008) / 2, 1.0: 0.00008},
        ),
        ({"kind": "one_cycle", "warm_up": 0.0}, {0.0: 0.8, 0.5: (0.8 + 0.00008) / 2, 1.0: 0.00008}),
        ({"kind": "one_cycle", "warm_up": 1.0}, {0.0: 0.032, 0.5: 0.416, 1.0: 0.8}),
        ({"kind": "plateau"}, {0.0: 0.8, 0.9: 0.8}),
    ],
    ids=str,
)
def test_rates_at_known_points(wanted: dict[str, Any], points: dict[float, float]) -> None:
    for progress, expected in points.items():
        assert rate_at(schedule(**wanted), 0.8, progress) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("kind", ["cosine", "one_cycle"])
def test_no_rate_is_above_the_base_nor_below_the_end(kind: str) -> None:
    values = [rate_at(schedule(kind=kind), 0.8, i / 1000) for i in range(1001)]
    highest = values.index(max(values))
    assert values[highest] == pytest.approx(0.8)
    assert highest == (300 if kind == "one_cycle" else 0)
    assert values[: highest + 1] == sorted(values[: highest + 1])
    assert values[highest:] == sorted(values[highest:], reverse=True)


def test_progress_is_of_epochs_and_steps() -> None:
    one = rates(epochs=4, kind="cosine")
    assert one.at(0) == 0.8
    assert one.at(1, share=0.5) == rate_at(one.schedule, 0.8, 1.5 / 4)
    assert one.at(3, share=0.75) == rate_at(one.schedule, 0.8, 3.75 / 4)


def test_passes_are_equal_parts_of_their_epoch() -> None:
    one = rates(epochs=3, passes=5, kind="one_cycle")
    assert one.at(1, 0) == one.at(0, 5) == rate_at(one.schedule, 0.8, 1 / 3)
    assert one.at(1, 2, share=0.5) == pytest.approx(rate_at(one.schedule, 0.8, 1.5 / 3))
    assert one.at(9) == one.at(3) == pytest.approx(0.8 / 10_000)  # no further than the end


def test_a_plateau_halves_the_rate_and_counts_anew() -> None:
    one = rates(kind="plateau", patience=2)
    found = []
    for dense in (0.5, 0.5, 0.4, 0.6, 0.1, math.nan, 0.6, 0.6, 0.61):
        one.note(dense)
        found.append(one.at(0))
    assert found == [0.8, 0.8, 0.4, 0.4, 0.4, 0.2, 0.2, 0.1, 0.1]


def test_a_precision_that_is_never_defined_is_a_plateau() -> None:
    one = rates(kind="plateau", patience=3)
    for _ in range(3):
        assert one.at(0) == 0.8
        one.note(math.nan)
    assert one.at(0) == 0.4
    one.note(0.0)
    assert one.save()["best"] == 0.0


@pytest.mark.parametrize("kind", ["constant", "cosine", "one_cycle"])
def test_other_schedules_look_at_no_precision(kind: str) -> None:
    one = rates(kind=kind, patience=1)
    before, state = one.at(2), one.save()
    for _ in range(5):
        one.note(0.1)
    assert (one.at(2), one.save()) == (before, state)


def test_a_plateau_goes_on_from_its_state() -> None:
    course = (0.5, 0.4, 0.3, 0.2, 0.6, 0.5, 0.4, 0.3)
    for stop in range(len(course)):
        whole, begun, resumed = (rates(kind="plateau", patience=3) for _ in range(3))
        for dense in course:
            whole.note(dense)
        for dense in course[:stop]:
            begun.note(dense)
        resumed.load(begun.save())
        for dense in course[stop:]:
            resumed.note(dense)
        assert (resumed.save(), resumed.at(0)) == (whole.save(), whole.at(0))
    with pytest.raises(KeyError, match="halved"):
        resumed.load({"best": None, "waited": 1})
