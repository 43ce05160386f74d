"""What families take besides their sizes: directions, kinds of normalisation, recurrent dropout, residual connections.

For each of them: the fast layers against the plain ones, padding that reaches no trace, and the cost that is known from
params against the model that is built from them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from models.test_fast import assert_alike, batches, without_block_dropout
from models.test_models import SIZES, answers
from small_models import FRONT, SEED, SMALL, small

from tunelab.models import FAMILIES, build_model, check_fit, cost_of

RECURRENT = ("lstm", "simple_rnn", "dense_rnn", "conv_rnn", "birnn", "conv2d_rnn")
DENSE = {"kind": "dense", "units": 6}
VARIANTS: dict[str, dict[str, Any]] = {
    **{f"{family}-both-ways": small(family, bidirectional=True) for family in RECURRENT},
    **{f"{family}-one-way": small(family, bidirectional=False) for family in ("birnn", "conv2d_rnn")},
    **{f"{family}-layer": small(family, norm="layer") for family in FAMILIES},
    **{f"{family}-none": small(family, norm="none") for family in FAMILIES},
    **{f"{family}-states": small(family, recurrent_dropout=0.3) for family in RECURRENT},
    "lstm-residual": small("lstm", units=[5, 5, 4], residual=True),
    "simple_rnn-residual": small("simple_rnn", units=[5, 5, 4], residual=True, bidirectional=True),
    "dense_rnn-residual": small("dense_rnn", units=[6, 4], residual=True),
    "conv_rnn-residual": small("conv_rnn", units=[6, 4], residual=True),
    "conv2d_rnn-residual": small("conv2d_rnn", filters=[3, 3], pool=[2, 1], units=[3, 4], residual=True),
    "birnn-lstm": small("birnn", cell="lstm"),
    "birnn-simple": small("birnn", cell="simple", front={**FRONT, "traces": 2}),
    "birnn-dropout": small("birnn", front=FRONT, front_dropout=0.4),
    "conv2d_rnn-dropout": small("conv2d_rnn", conv_dropout=0.4),
    "conv2d_rnn-average": small("conv2d_rnn", reduce="average", traces=4),
    "conv2d_rnn-maximum": small("conv2d_rnn", reduce="maximum", samples=2),
    "tcn-dense": small("tcn", front=DENSE, kernel=4, front_dropout=0.2),
    "unet1d-dense": small("unet1d", front=DENSE, kernel=4),
    "transformer-dense": small("transformer", front=DENSE, heads=3, widening=3),
}


@pytest.mark.tf
@pytest.mark.parametrize("name", VARIANTS)
def test_the_fast_layers_compute_what_the_plain_ones_compute(name: str) -> None:
    assert_alike(without_block_dropout(VARIANTS[name]), batches(4))


@pytest.mark.tf
@pytest.mark.parametrize("name", VARIANTS)
def test_a_scan_is_answered_alike_alone_and_beside_a_longer_one(name: str) -> None:
    """Whatever stands in its padding; and the model has as many parameters as its params say.

    Plain layers compute the same on padded batches, which the test before this one shows.
    """
    rng = np.random.default_rng(0)
    model = build_model(VARIANTS[name], 40)
    cost = cost_of(VARIANTS[name], 40)
    assert cost is not None
    assert model.count_params() == cost.parameters
    traces = rng.normal(size=(2, 9, 40)).astype(np.float32)
    alone = answers(model, traces[1:, :5], [5])
    traces[1, 5:] = 1e3
    np.testing.assert_allclose(answers(model, traces, [9, 5])[1, :5], alone[0], atol=1e-5)


@pytest.mark.tf
@pytest.mark.parametrize("family", SMALL)
def test_the_number_of_parameters_is_known_from_params(family: str) -> None:
    cost = cost_of(small(family), 40)
    assert cost is not None
    assert cost.parameters == build_model(small(family), 40).count_params()


def test_the_numbers_of_the_sixteen_are_known_without_building_them() -> None:
    known = {name: cost_of(params, 10057) for name, params in SEED.items()}
    assert {name: cost.parameters for name, cost in known.items() if cost} == SIZES
    assert known["lstm1"].recurrences == 4  # type: ignore[union-attr]


def test_multiplications_are_those_of_the_products() -> None:
    rnn = cost_of(small("simple_rnn", units=[6]), 40)
    assert rnn is not None
    assert rnn.multiplications == 40 * 6 + 6 * 6 + 6 * 2
    unet = cost_of(small("unet1d", front=DENSE, filters=[4, 8], kernel=3), 40)
    assert unet is not None
    down, deepest, up = 3 * (6 * 4 + 4 * 4), 3 * (4 * 8 + 8 * 8) / 2, 3 * (12 * 4 + 4 * 4)
    assert unet.multiplications == 40 * 6 + down + deepest + up + 4 * 2


def test_the_old_structures_are_the_defaults() -> None:
    for family in ("lstm", "simple_rnn", "dense_rnn", "conv_rnn"):
        params = small(family)
        assert not params["bidirectional"]
        assert not params["residual"]
        assert params["recurrent_dropout"] == 0
        assert params["norm"] == "batch"


def test_every_family_fits_a_few_samples_or_says_so() -> None:
    for family in FAMILIES:
        check_fit(small(family), 20)
