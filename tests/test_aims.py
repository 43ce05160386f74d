"""What aims are parsed from, what trials come to by them, and the front, which is written a second time here."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunelab.aims import NAMES, Aims, Constraint

NAN = math.nan


@dataclass(kw_only=True)
class One:
    """A trial as aims see it."""

    status: str = "finished"
    parameters: int = 100
    predict_ms: float = NAN
    validation: dict[str, float] = field(default_factory=dict)
    tune: dict[str, float] = field(default_factory=dict)

    def measured(self, name: str) -> float:
        return self.validation.get(name, NAN)

    def decided_by(self, name: str) -> float:
        return self.tune.get(name, NAN)


@dataclass
class Size:
    parameters: int


def aims(objectives: object = ("f1",), constraints: object = ()) -> Aims:
    return Aims.of({"objectives": objectives, "constraints": constraints})


def test_without_any_f1_is_the_aim() -> None:
    assert Aims.of({}) == Aims() == aims(["f1"])
    assert not Aims().several
    assert Aims().violations(One(), "validation") == ()


def test_what_is_written_is_what_is_said() -> None:
    some = aims(["f1", "-parameters", "-predict_ms"], ["parameters<=1e6", " predict_ms <= 2.5", "recall >= .5"])
    assert list(map(str, some.objectives)) == ["f1", "-parameters", "-predict_ms"]
    assert [one.less for one in some.objectives] == [False, True, True]
    assert list(map(str, some.constraints)) == ["parameters <= 1000000", "predict_ms <= 2.5", "recall >= 0.5"]
    assert some.several
    again = aims(list(map(str, some.objectives)), list(map(str, some.constraints)))
    assert again == some


# Of the tune split whatever decides sees, of validation what is shown; neither stands in for the other.


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("parameters", "predict_ms")])
def test_the_tune_split_decides_and_validation_is_shown(name: str) -> None:
    shown = {"f1": "val_f1", "average_precision": "val_average_precision"}.get(name, name)
    trial = One(tune={f"tune_{name}": 0.7}, validation={shown: 0.2})
    some = aims([name], [f"{name} >= 0.5"])
    assert some.values(trial, "tune") == (0.7,)
    assert some.values(trial, "validation") == (0.2,)
    assert some.violations(trial, "tune") == (0.0,)
    assert some.violations(trial, "validation") == (pytest.approx(0.6),)
    assert list(map(str, some.broken(trial))) == [f"{name} >= 0.5"]


def test_sizes_are_the_same_wherever_one_looks_and_not_known_before_the_first_epoch() -> None:
    some = aims(["-parameters", "-predict_ms"])
    for split in ("tune", "validation"):
        assert some.values(One(parameters=7, predict_ms=1.5), split) == (7.0, 1.5)
        assert all(map(math.isnan, some.values(One(parameters=0), split)))


@pytest.mark.parametrize(
    ("text", "value", "excess"),
    [
        ("parameters <= 1000", 1000, 0),
        ("parameters <= 1000", 1, 0),
        ("parameters <= 1000", 1500, 0.5),
        ("recall >= 0.5", 0.5, 0),
        ("recall >= 0.5", 0.25, 0.5),
        ("recall >= 0.5", 0.0, 1.0),
        ("f1 <= 0", 0.25, 0.25),
        ("f1 >= 0", 0.0, 0),
        ("recall >= 0.5", NAN, math.inf),
        ("f1 >= 0", NAN, math.inf),
    ],
)
def test_a_constraint_is_broken_by_a_share_of_its_limit(text: str, value: float, excess: float) -> None:
    (constraint,) = aims(constraints=[text]).constraints
    assert constraint.excess(value) == pytest.approx(excess)


numbers = st.one_of(st.floats(0, 1), st.sampled_from([0.0, 5e-324, 0.5, 1.0, NAN]))


@given(limit=numbers.filter(lambda x: not math.isnan(x)), value=numbers, sign=st.sampled_from(["<=", ">="]))
def test_excess_is_above_0_exactly_where_the_constraint_does_not_hold(limit: float, value: float, sign: str) -> None:
    holds = value <= limit if sign == "<=" else value >= limit
    excess = Constraint("f1", sign, limit).excess(value)  # type: ignore[arg-type]
    assert (excess == 0) == holds
    assert excess >= 0


def test_what_is_known_before_a_trial_is_its_size_alone() -> None:
    some = aims(constraints=["recall >= 0.5", "parameters <= 1000", "predict_ms <= 5", "parameters >= 10"])
    assert some.known_violations(Size(1500)) == (0.5, 0.0)
    assert some.known_violations(Size(10)) == (0.0, 0.0)
    assert some.known_violations(None) == ()
    trial = One(parameters=1500, predict_ms=1, tune={"tune_recall": 1})
    assert some.violations(trial, "tune") == (0.0, 0.5, 0.0, 0.0)


# The front.


def names(trials: list[One], some: Aims) -> list[int]:
    found = some.front(trials)
    return [i for i, trial in enumerate(trials) if any(trial is one for one in found)]


def of(*pairs: tuple[float, int]) -> list[One]:
    return [One(parameters=parameters, validation={"val_f1": f1}) for f1, parameters in pairs]


def test_the_front_of_two() -> None:
    some = aims(["f1", "-parameters"])
    assert names(of((0.5, 100), (0.6, 200), (0.4, 150), (0.6, 200), (0.6, 300), (0.1, 90)), some) == [0, 1, 3, 5]
    assert names(of((0.5, 100), (NAN, 50), (NAN, 100)), some) == [0, 1]
    assert names(of((NAN, 0), (NAN, 0)), some) == [0, 1], "equal ones stand there together, however bad"
    assert names([], some) == []


def test_failed_trials_and_those_that_break_a_constraint_beat_nobody() -> None:
    trials = of((0.9, 10), (0.8, 5000), (0.5, 100))
    trials[0].status = "failed"
    assert names(trials, aims(["f1", "-parameters"], ["parameters <= 1000"])) == [2]
    assert names(trials, aims(["f1", "-parameters"], ["parameters <= 1"])) == []
    assert names(trials, aims(["f1", "-parameters"], ["recall >= 0"])) == [], "a recall that is not known is none"


values = st.one_of(st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0, NAN]), st.floats(0, 1))
trials_of_any_kind = st.lists(
    st.builds(
        One,
        status=st.sampled_from(["finished", "stopped", "running", "interrupted", "failed"]),
        parameters=st.integers(0, 6),
        predict_ms=st.one_of(st.sampled_from([NAN, 1.0, 2.0]), st.floats(0.1, 9)),
        validation=st.fixed_dictionaries({"val_f1": values, "recall": values}),
    ),
    max_size=30,
)
subsets = st.lists(st.sampled_from(["f1", "recall", "-parameters", "-predict_ms"]), min_size=1, unique=True)
limits = st.lists(st.sampled_from(["recall >= 0.5", "parameters <= 4", "predict_ms <= 2"]), unique=True)


def better(one: float, other: float, *, less: bool) -> int:
    """1, 0 or -1: by words of its own, without infinities."""
    if math.isnan(one) or math.isnan(other):
        return int(math.isnan(other)) - int(math.isnan(one))
    return ((one > other) - (one < other)) * (-1 if less else 1)


def holds(trial: One, text: str) -> bool:
    name, sign, limit = text.split()
    value = {"recall": trial.validation["recall"], "predict_ms": trial.predict_ms}.get(name, trial.parameters or NAN)
    return value <= float(limit) if sign == "<=" else value >= float(limit)


@settings(max_examples=400)
@given(trials=trials_of_any_kind, objectives=subsets, constraints=limits)
def test_the_front_is_that_of_every_pair_compared(
    trials: list[One], objectives: list[str], constraints: list[str]
) -> None:
    def row(trial: One) -> list[float]:
        known = {"f1": trial.validation["val_f1"], "recall": trial.validation["recall"]}
        known |= {"-parameters": trial.parameters or NAN, "-predict_ms": trial.predict_ms}
        return [known[name] for name in objectives]

    def beats(one: One, other: One) -> bool:
        signs = [
            better(a, b, less=name.startswith("-")) for a, b, name in zip(row(one), row(other), objectives, strict=True)
        ]
        return min(signs) >= 0 and max(signs) > 0

    there = [t for t in trials if t.status != "failed" and all(holds(t, text) for text in constraints)]
    expected = [t for t in there if not any(beats(other, t) for other in there)]
    found = aims(objectives, constraints).front(trials)
    assert [id(t) for t in found] == [id(t) for t in expected], "the same ones, in the order in which they came"
    assert bool(found) == bool(there), "some trial is beaten by none"
    backwards = aims(objectives, constraints).front(trials[::-1])
    assert {id(t) for t in backwards} == {id(t) for t in found}


def test_a_front_of_two_falls_where_it_rises() -> None:
    rising = of(*((i / 50, 1 + (i * 7) % 50) for i in range(50)))
    found = aims(["f1", "-parameters"]).front(rising)
    assert len(found) > 3
    assert all(a.parameters < b.parameters for a, b in pairwise(found))
