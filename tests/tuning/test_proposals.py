"""Which trials a model is made from, and what each sampler proposes."""

from __future__ import annotations

import dataclasses
import importlib.util
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunelab.aims import Aims
from tunelab.errors import SpaceError
from tunelab.fidelity import Fidelity
from tunelab.models import chains, locate
from tunelab.ranking import Epoch, Status, Trial
from tunelab.sections import Sampler
from tunelab.space import Space, load_space, shipped
from tunelab.tuning.observations import BEST, RUNNING, Observations, reached_by
from tunelab.tuning.proposals import Proposals, key_of
from tunelab.tuning.searcher import fitting

pytestmark = pytest.mark.ray

QUICK = load_space(shipped("quick.yaml"))
FIT = fitting(QUICK, dict.fromkeys(chains(QUICK), 160))


def trial(number: int, status: Status, value: float, epoch: int = 3, params: Mapping[str, Any] | None = None) -> Trial:
    told = [Epoch(epoch=epoch, seconds=1.0, metrics={"tune_average_precision": value})]
    name = f"{number:04d}"
    return Trial(
        trial=name, name="", family="lstm", params=params or {}, point={}, status=status, epochs=told if epoch else []
    )


def values(one: Trial) -> list[float]:
    return [one.chosen["tune_average_precision"]] if one.chosen else [float("nan")]


def on_no_floor(_: Trial) -> bool:
    return False


STATUSES = st.sampled_from(get_args(Status))


def kept_of(trials: Sequence[Trial], most: int) -> list[Trial]:
    there = Observations(values, reached_by(Fidelity(), on_no_floor))
    for one in trials:
        there.changed(one)
    return there.kept(most)


TOLD = st.tuples(STATUSES, st.sampled_from([0.1, 0.2, 0.5, float("nan")]), st.integers(0, 4))


@given(st.lists(TOLD, max_size=200))
def test_what_runs_and_the_best_are_always_kept_and_the_rest_is_drawn_evenly(
    told: list[tuple[Any, float, int]],
) -> None:
    trials = [trial(i, status, value, epoch) for i, (status, value, epoch) in enumerate(told)]
    most = BEST + 30
    kept = kept_of(trials, most)
    assert [t for t in trials if t in kept] == kept, "in their order, each once"
    over = [t for t in trials if not t.unfinished]
    running = [t for t in trials if t.unfinished]
    assert sum(t in kept for t in running) == min(len(running), RUNNING)
    assert sum(not t.unfinished for t in kept) == min(len(over), most)
    ranked = sorted(
        (t for t in over if t.status != "failed" and values(t)[0] == values(t)[0]),
        key=lambda t: (t.status != "finished", -t.epochs[-1].epoch * (t.status != "finished"), -values(t)[0]),
    )
    assert all(t in kept for t in ranked[:BEST])


@given(st.lists(st.lists(TOLD, max_size=40), max_size=4), st.data())
def test_what_is_looked_at_anew_comes_to_the_same_as_all_of_it(
    rounds: list[list[tuple[Any, float, int]]], data: st.DataObject
) -> None:
    there, trials = Observations(values, reached_by(Fidelity(), on_no_floor)), []
    for told in rounds:
        for one in (t for t in trials if not t.over):  # may have gone on, or ended
            status, value, epoch = data.draw(TOLD)
            if (status, value, epoch) != (one.status, 0, 0):
                other = trial(int(one.trial), status, value, epoch)
                one.status, one.epochs = other.status, other.epochs
                there.changed(one)
        for status, value, epoch in told:
            trials.append(trial(len(trials), status, value, epoch))
            there.changed(trials[-1])
        assert there.kept(BEST + 5) == kept_of(trials, BEST + 5)


def test_the_draw_spreads_over_the_whole_search() -> None:
    kept = [int(t.trial) for t in kept_of([trial(i, "stopped", 0.1) for i in range(10_000)], 500)]
    assert max(np.diff(kept)) < 30
    assert (kept[0], kept[-1]) == (0, 9_999)


def proposed(space: Space, count: int, seed: int = 0) -> list[dict[str, Any]]:
    """Proposals that are all tried, better ones where the learning rate is close to 0.005."""
    proposals = Proposals(space, seed, values, on_no_floor)
    known: list[Trial] = []
    for number in range(1, count + 1):
        tried = {key_of(t.params) for t in known}
        params = proposals.propose(f"{number:04d}", FIT, lambda p, tried=tried: key_of(p) in tried)
        assert params is not None
        good = 1 - abs(np.log(params["learning_rate"] / 0.005))
        known.append(trial(number, "finished", float(good), params=params))
        assert proposals.enter(known[-1])
        proposals.told(known[-1])
    return [dict(t.params) for t in known]


WITHOUT_TORCH = importlib.util.find_spec("torch") is None
SAMPLERS = [
    pytest.param(name, marks=pytest.mark.skipif(name == "gp" and WITHOUT_TORCH, reason="needs PyTorch"))
    for name in get_args(Sampler)
]


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_sampler_proposes_from_the_space_and_repeats_with_its_seed(sampler: Any) -> None:
    space = dataclasses.replace(QUICK, sampler=sampler)
    made = proposed(space, 12)
    for params in made:
        locate(space, params)
    assert len({key_of(params) for params in made}) == 12
    assert made == proposed(space, 12)
    assert made != proposed(space, 12, seed=1)
    assert len(Counter(params["family"] for params in made)) > 1


@pytest.mark.parametrize("sampler", [one for one in SAMPLERS if one.values[0] in ("tpe", "cmaes", "gp")])
def test_a_model_finds_where_it_is_good(sampler: Any) -> None:
    made = proposed(dataclasses.replace(QUICK, sampler=sampler), 60)
    rates = [abs(np.log(params["learning_rate"] / 0.005)) for params in made]
    evenly = [
        abs(np.log(params["learning_rate"] / 0.005))
        for params in proposed(dataclasses.replace(QUICK, sampler="random"), 60)
    ]
    assert np.mean(rates[40:]) < 0.7 * np.mean(evenly)


def test_a_sampler_that_cannot_be_had_is_refused_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "torch" else found(name, *a))
    with pytest.raises(SpaceError, match=r"sampler: gp: needs PyTorch; install it with: pip install 'tunelab\[gp\]'"):
        Proposals(dataclasses.replace(QUICK, sampler="gp"), 0, values, on_no_floor)
    several = Aims.of({"objectives": ["f1", "-parameters"]})
    with pytest.raises(SpaceError, match="sampler: cmaes: knows one, and there are 2 objectives"):
        Proposals(dataclasses.replace(QUICK, sampler="cmaes", aims=several), 0, values, on_no_floor)


def test_those_on_the_floor_come_last_and_the_higher_value_first() -> None:
    known = []
    rng = np.random.default_rng(0)
    for number in range(1, 8):
        params = FIT(QUICK.sample(rng))
        known.append(trial(number, "stopped", number / 100, epoch=3 if number % 2 else 9, params=params))
    known.append(trial(8, "running", 0.5, params=FIT(QUICK.sample(rng))))
    proposals = Proposals(QUICK, 0, values, lambda one: int(one.trial) > 5)
    for one in known:
        proposals.enter(one)
    there = proposals.history().trials
    told = [t.intermediate_values for t in there]
    assert told == [{3: 0.01}, {9: 0.02}, {3: 0.03}, {9: 0.04}, {3: 0.05}, {0: 0.06}, {0: 0.07}, {0: 0.5}]
    assert {t.state.name for t in there} == {"PRUNED"}


def test_what_is_kept_of_a_history_says_what_one_made_anew_says() -> None:
    rng = np.random.default_rng(0)
    known = [trial(n, "running", n / 100, params=FIT(QUICK.sample(rng))) for n in range(1, 9)]
    asked = Proposals(QUICK, 0, values, on_no_floor, history=3)
    for one in known:
        asked.enter(one)
    for turn, status in enumerate(["running", "waiting", "running", "stopped", "finished", "failed"]):
        changed = known[turn]
        known[turn] = dataclasses.replace(
            changed, status=status, epochs=[dataclasses.replace(changed.epochs[0], epoch=turn + 2), *changed.epochs]
        )
        asked.goes_on(known[turn])
        anew = Proposals(QUICK, 0, values, on_no_floor, history=3)
        for one in known:
            anew.enter(one)
        told = [
            [(t.state, t.params, t.distributions, t.values, t.intermediate_values) for t in one.history().trials]
            for one in (asked, anew)
        ]
        assert told[0] == told[1]
        proposals = [one.propose("0009", FIT, lambda params: False) for one in (asked, anew)]
        assert proposals[0] == proposals[1]


def test_on_the_floor_those_of_full_fidelity_come_first() -> None:
    reached = reached_by(Fidelity(data=(0.2, 0.5)), lambda one: one.trial != "0004")
    trials = [trial(number, "finished", 0.1) for number in (1, 2, 3, 4)]
    at = [{"data": 0.2}, {"data": 0.5}, {}, {"data": 0.2}]
    told = [reached(dataclasses.replace(one, fidelity=where)) for one, where in zip(trials, at, strict=True)]
    assert told == [-2, -1, 0, 1]
