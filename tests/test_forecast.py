"""The arithmetic of a search's duration, on numbers that a hand can check."""

from __future__ import annotations

from typing import Any

import pytest

from tunelab.forecast import TAKE_UP, Forecast, Halved, Limits, Pace, forecast, halved, passing, span
from tunelab.halving import Rules


def rules(max_epochs: int = 30, grace: int = 6, reduction: float = 3) -> Rules:
    return Rules(max_epochs=max_epochs, grace=grace, reduction=reduction, promoting=False)


def pace(trials: float = 10, **given: Any) -> Pace:
    usual = {"spared": 0, "max_epochs": 10, "seconds": 2.0, "first": 5.0, "structures": 0}
    return Pace(trials=trials, **{**usual, **given})


def ahead(*paces: Pace, **given: Any) -> Forecast:
    all_of = {"trials": round(sum(one.trials for one in paces)), "seconds": None, "gpu_hours": None, "paid": None}
    limits = Limits(**{name: given.pop(name, value) for name, value in all_of.items()})
    usual = {"folds": 0, "places": 1, "gpus": 0.0, "before": 0.0, "after": 0.0}
    return forecast(paces, rules(max_epochs=10, grace=10), limits, **{**usual, **given})


def let(given: Rules, trials: float, spared: int = 0) -> Halved:
    return halved(passing(given, trials, spared), trials, spared, given.max_epochs)


def test_at_each_rung_one_in_so_many_goes_on():
    assert rules().rungs() == [6, 18]
    told = let(rules(), 27)
    assert told.epochs == pytest.approx(27 * 6 + 9 * 12 + 3 * 12)
    assert (told.most, told.whole) == (27 * 30, pytest.approx(3))


def test_spared_trials_pass_the_early_rungs_alone():
    assert rules().early == 8
    told = let(rules(), 27, spared=9)
    assert told.epochs == pytest.approx(27 * 6 + (6 + 9) * 12 + (2 + 3) * 12)
    assert told.whole == pytest.approx(5)
    assert let(rules(), 3, spared=3).epochs == pytest.approx(3 * 18 + 12)


def test_one_of_all_at_least_goes_on():
    for reduction in (2, 3, 10):
        for spared in (0, 1):
            told = let(rules(reduction=reduction), 1, spared)
            assert (told.epochs, told.whole) == (30, 1)
    assert let(rules(), 2).whole == pytest.approx(1)


def test_families_take_part_in_one_bracket():
    by = passing(rules(), 3)
    parts = [halved(by, 1, 0, 30) for _ in range(3)]
    assert sum(part.whole for part in parts) == pytest.approx(1)
    assert sum(part.epochs for part in parts) == pytest.approx(let(rules(), 3).epochs)
    assert halved(by, 1, 0, 5).epochs == 5, "it is over before the first rung"
    assert halved(by, 1, 0, 18).epochs == pytest.approx(6 + 12 / 3), "and at its last epoch nothing is compared"


def test_without_rungs_all_epochs_are_trained():
    told = let(rules(grace=30), 5)
    assert (told.epochs, told.most, told.whole) == (150, 150, 5)


def test_places_share_the_work_and_no_trial_is_split():
    work = 10 * (10 * 2.0 + TAKE_UP)
    for places in (1, 2, 5):
        told = ahead(pace(), places=places, before=7, after=3)
        assert told.seconds == pytest.approx(7 + work / places + 3)
        assert (told.trials, told.epochs, told.most_epochs, told.ends_by) == (10, 100, 100, "trials")
    assert ahead(pace(), places=1000).seconds == pytest.approx(max(work / 10, 10 * 2.0 + 5.0))


def test_families_have_their_own_pace_and_new_structures_are_made_once():
    told = ahead(pace(4, seconds=1.0, structures=3), pace(2, max_epochs=5, seconds=3.0, first=1.0, structures=2))
    assert told.seconds == pytest.approx(4 * 10 + 2 * 5 * 3 + 3 * 5 + 2 * 1 + 6 * TAKE_UP)
    assert (told.epochs, told.trials) == (50, 6)


def test_what_is_not_stopped_is_trained_on_the_other_folds_too():
    told = forecast(
        [pace(9, max_epochs=30, seconds=1.0)], rules(), Limits(trials=9, seconds=None, gpu_hours=None),
        folds=5, places=1, gpus=0, before=0, after=0,
    )  # fmt: skip
    first = 9 * 6 + 3 * 12 + 1 * 12
    assert told.epochs == first + 4 * 30
    assert told.most_epochs == 9 * 30 * 5
    assert told.seconds == pytest.approx(first + 120 + 9 * TAKE_UP)


def test_the_limit_that_comes_first_ends_it():
    work = 10 * (10 * 2.0 + TAKE_UP)
    usual = {"places": 2, "gpus": 0.5, "before": 10.0, "after": 1.0}
    by_time = ahead(pace(), seconds=10.0 + work / 8, **usual)
    assert by_time.ends_by == "time"
    assert by_time.seconds == pytest.approx(10 + work / 8 + 1)
    assert by_time.trials == pytest.approx(10 / 4)
    assert by_time.gpu_hours == pytest.approx(work / 4 * 0.5 / 3600)
    by_hours = ahead(pace(), seconds=1e6, gpu_hours=work * 0.5 / 3600 / 5, **usual)
    assert by_hours.ends_by == "GPU-hours"
    assert by_hours.seconds == pytest.approx(10 + work / 2 / 5 + 1)
    assert by_hours.trials == pytest.approx(2)
    assert by_hours.gpu_hours == pytest.approx(work * 0.5 / 3600 / 5)
    by_trials = ahead(pace(), seconds=1e6, gpu_hours=1e6, **usual)
    assert by_trials.ends_by == "trials"
    assert by_trials.gpu_hours == pytest.approx(work * 0.5 / 3600)


def test_without_a_number_of_trials_the_mean_of_some_tells_how_many_there_will_be():
    told = ahead(pace(100), trials=None, seconds=10 * (10 * 2.0 + TAKE_UP), places=3)
    assert told.trials == pytest.approx(30)
    assert told.epochs == pytest.approx(300)
    assert ahead(pace(100), trials=None, seconds=5.0, before=9.0).trials == 0


def test_money_ends_a_search_as_time_does():
    usual = {"seconds": 1e6, "paid": 7.0}
    ahead_of = ahead(pace(), **usual)
    assert ahead_of.ends_by == "cost"
    assert ahead_of.seconds == pytest.approx(ahead(pace(), seconds=7.0).seconds)


def test_gpu_hours_limit_nothing_where_no_gpu_is_used():
    assert ahead(pace(), gpu_hours=1e-9).ends_by == "trials"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (0.4, "0s"), (44.4, "44s"), (59.6, "1m0s"), (104, "1m44s"), (4200, "1h10m"), (86399, "23h59m"),
     (2 * 86400 + 3 * 3600 + 59, "2d3h")],
)  # fmt: skip
def test_spans(seconds: float, text: str):
    assert span(seconds) == text
