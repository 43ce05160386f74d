"""Spaces in Optuna's words: what a dimension is asked as, and that values come back as they were."""

from __future__ import annotations

import numpy as np
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FixedTrial

from tunelab.domains import Choice, Domain, Float, Int
from tunelab.space import load_space, shipped
from tunelab.tuning.optuna_space import encode, suggest


@pytest.mark.parametrize(
    ("domain", "value", "asked"),
    [
        (Float(1e-3, 1.0, log=True), 0.01, FloatDistribution(1e-3, 1.0, log=True)),
        (Int(2, 10, step=4), 6, IntDistribution(2, 10, step=4)),
        (Choice(("a", None, 3)), None, CategoricalDistribution(("a", None, 3))),
        (Choice(([6], [8, 6], {"kind": "x"})), [8, 6], CategoricalDistribution(("[6]", "[8, 6]", '{"kind": "x"}'))),
    ],
)
def test_a_dimension_is_asked_as_what_it_is_and_answers_as_it_was_written(
    domain: Domain, value: object, asked: object
) -> None:
    trial = FixedTrial(encode({"name": value}))
    assert suggest(trial, "name", domain) == value
    assert trial.distributions == {"name": asked}


def test_what_is_no_domain_is_refused() -> None:
    with pytest.raises(TypeError, match="name: object"):
        suggest(FixedTrial({}), "name", object())  # type: ignore[arg-type]


def test_a_whole_space_goes_there_and_back() -> None:
    space = load_space(shipped("families.yaml"))
    rng = np.random.default_rng(0)
    for _ in range(50):
        params = space.sample(rng)
        trial = FixedTrial(encode(space.locate(params)))
        assert space.propose(lambda name, domain, trial=trial: suggest(trial, name, domain)) == params
        assert set(trial.params) == set(trial.distributions) == set(space.locate(params))
