"""The fast layers against the plain ones: the same losses, weights, statistics and answers from the same start, on
scans of different lengths; and gradients against finite differences."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from keras import ops
from numpy.typing import NDArray
from small_models import SEED, SMALL, small

from tunelab.models import FAMILIES, build_model, normalise
from tunelab.models.layers import wants_moments, whole
from tunelab.statistics import Statistics

pytestmark = pytest.mark.tf

Batch = tuple[dict[str, Any], NDArray[Any], NDArray[Any]]
SAMPLES = 40
LENGTHS = np.array([9, 5, 7, 1], np.int32)


def batches(count: int, samples: int = SAMPLES, offset: float = 2.0) -> list[Batch]:
    """Ragged scans whose samples have means and spreads of their own; padding is zero."""
    rng = np.random.default_rng(0)
    made = []
    spread, mean = np.linspace(0.5, 4, samples), offset * np.linspace(-1, 1, samples)
    for _ in range(count):
        lengths = rng.permutation(LENGTHS)
        traces = (rng.normal(size=(4, 9, samples)) * spread + mean).astype(np.float32)
        valid = np.arange(9) < lengths[:, None]
        traces[~valid] = 0
        moments = [(t[:n].mean(0), t[:n].std(0)) for t, n in zip(traces, lengths, strict=True)]
        inputs = {"traces": traces, "lengths": lengths, "moments": np.array(moments, np.float32)}
        made.append((inputs, (rng.random((4, 9)) < 0.3).astype(np.int32), valid * np.float32(1.5)))
    return made


def train(
    params: dict[str, Any],
    given: list[Batch],
    statistics: Statistics | None = None,
    *,
    eager: bool = True,
    **changes: Any,
) -> Any:
    """Losses and the model after a step on each batch, from the start that seed 3 makes.

    Eager, since a graph takes seconds to trace; where the graph that a search trains is to be seen, say so.
    """
    samples = given[0][0]["traces"].shape[-1]
    keras.utils.set_random_seed(3)
    model = build_model({**params, **changes}, samples, statistics)
    model.compile(
        optimizer=keras.optimizers.SGD(0.05, momentum=0.9),
        loss=keras.losses.SparseCategoricalCrossentropy(reduction="mean_with_sample_weight"),
        jit_compile=False,
        run_eagerly=eager,
    )
    losses = []
    for inputs, labels, weights in given:
        known = inputs if wants_moments(model) else {k: v for k, v in inputs.items() if k != "moments"}
        losses.append(model.train_on_batch(known, labels, sample_weight=weights))
    return losses, model


def without_block_dropout(params: dict[str, Any]) -> dict[str, Any]:
    """Masks of dropout over positions are drawn in another way than Keras draws them."""
    for block in params.get("convolutions", []):
        block["dropout"] = 0.0
    return params


def assert_alike(
    params: dict[str, Any], given: list[Batch], statistics: Statistics | None = None, *, eager: bool = True
) -> None:
    losses, plain = train(params, given, statistics, plain=True)
    fast_losses, fast = train(params, given, statistics, plain=False, eager=eager)
    assert wants_moments(fast)
    assert not wants_moments(plain)
    np.testing.assert_allclose(fast_losses, losses, rtol=2e-5)
    assert [w.path.rsplit("/", 1)[-1] for w in fast.weights] == [w.path.rsplit("/", 1)[-1] for w in plain.weights]
    keras.utils.set_random_seed(3)
    start = build_model({**params, "plain": True}, given[0][0]["traces"].shape[-1], statistics).get_weights()
    moved = 0
    for one, other, before in zip(fast.get_weights(), plain.get_weights(), start, strict=True):
        np.testing.assert_allclose(one, other, rtol=2e-4, atol=2e-5)
        moved += np.abs(one - before).max() > 1e-3
    assert moved > len(start) / 2
    inputs = {k: v for k, v in given[0][0].items() if k != "moments"}
    answers = [np.asarray(m.predict_on_batch(whole(m, inputs))) for m in (fast, plain)]
    valid = np.arange(9) < inputs["lengths"][:, None]
    np.testing.assert_allclose(answers[0][valid], answers[1][valid], atol=5e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_same_losses_and_weights_with_the_same_masks_of_dropout(family: str) -> None:
    assert_alike(without_block_dropout(small(family)), batches(6), eager=False)


@pytest.mark.parametrize("kind", ["per_sample", "global"])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_same_behind_a_normalisation(family: str, kind: str) -> None:
    given = batches(4, offset=30.0)
    flat = np.concatenate([inputs["traces"].reshape(-1, SAMPLES) for inputs, _, _ in given]).astype(np.float64)
    statistics = Statistics(mean=flat.mean(0), variance=flat.var(0))
    assert_alike(without_block_dropout(small(family, normalisation=kind)), given, statistics)


@pytest.mark.parametrize(
    "name", ["lstm1", "lstm3", "lstm6", "rnn4", "rnn5", "rnn6", "convrnn2", "convrnn3", "convrnn4", "convrnn6"]
)
def test_the_same_for_every_structure_of_the_sixteen(name: str) -> None:
    """On fewer samples and with fewer units; without dropout over positions."""
    params = dict(SEED[name])
    for key in ("units", "dense"):
        if isinstance(params.get(key), list):
            params[key] = [max(2, units // 25) for units in params[key]]
    if "convolutions" in params:
        params["convolutions"] = [{**block, "filters": 5} for block in params["convolutions"]]
        params["dense"] = {**params["dense"], "units": 6}
    given = batches(3, samples=320 if "convolutions" in params else 60)
    assert_alike(without_block_dropout(normalise(params)), given, eager=False)


@pytest.mark.parametrize("activation", ["linear", "relu", "elu", "tanh"])
@pytest.mark.parametrize("batch_norm", ["none", "before_pool", "after_pool"])
def test_pooling_first_changes_nothing(activation: str, batch_norm: str) -> None:
    block = {"filters": 4, "kernel": 5, "stride": 2, "activation": activation, "batch_norm": batch_norm}
    params = {**SMALL["conv_rnn"], "convolutions": [{**block, "pool": {"size": 3, "stride": 2}}], "dropout": 0.0}
    assert_alike(normalise({"family": "conv_rnn", **params}), batches(4))


@pytest.mark.parametrize("family", ["simple_rnn", "conv_rnn"])
def test_statistics_of_a_batch_are_the_same_whether_moments_are_given_or_not(family: str) -> None:
    params = without_block_dropout(small(family))
    given = batches(3)
    blind = [({**inputs, "moments": None}, labels, weights) for inputs, labels, weights in given]
    losses, model = train(params, given)
    other_losses, other = train(params, blind)
    np.testing.assert_allclose(other_losses, losses, rtol=1e-5)
    for one, two in zip(model.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_allclose(two, one, rtol=1e-4, atol=1e-6)


def test_means_far_from_zero_do_not_cancel() -> None:
    """A direct wave: the mean of a sample is a thousand times what varies from trace to trace."""
    params = small("simple_rnn", dropout=0.0)
    given = batches(3, offset=4000.0)
    losses, _ = train(params, given, plain=True, eager=False)
    fast, _ = train(params, given, plain=False, eager=False)
    np.testing.assert_allclose(fast, losses, rtol=2e-3)


def slope(function: Callable[[NDArray[np.float64]], float], at: NDArray[np.float64]) -> NDArray[np.float64]:
    """The gradient by central differences."""
    found = np.empty_like(at)
    for index in np.ndindex(*at.shape):
        step = np.zeros_like(at)
        step[index] = 1e-5
        found[index] = (function(at + step) - function(at - step)) / 2e-5
    return found


def gradients(function: Callable[..., Any], *arrays: NDArray[np.float64]) -> list[NDArray[np.float64]]:
    """By the framework, in float64."""
    import tensorflow as tf

    variables = [tf.constant(array) for array in arrays]
    with tf.GradientTape() as tape:
        tape.watch(variables)
        value = function(*variables)
    return [np.asarray(found) for found in tape.gradient(value, variables)]


def assert_slopes(function: Callable[..., Any], *arrays: NDArray[np.float64]) -> None:
    if keras.backend.backend() != "tensorflow":
        pytest.skip("asks TensorFlow for gradients")
    for i, found in enumerate(gradients(function, *arrays)):

        def of_one(value: NDArray[np.float64], i: int = i) -> float:
            return float(function(*(ops.convert_to_tensor(value if k == i else a) for k, a in enumerate(arrays))))

        np.testing.assert_allclose(found, slope(of_one, arrays[i]), rtol=1e-6, atol=1e-8)


def test_gradients_of_the_recurrences_are_those_of_finite_differences() -> None:
    from tunelab.models import recurrences

    rng = np.random.default_rng(0)
    weight = rng.normal(size=(2, 5, 3))
    for recurrence, width in ((recurrences.simple, 3), (recurrences.lstm, 12)):
        assert_slopes(
            lambda z, kernel, recurrence=recurrence: ops.sum(recurrence(z, kernel) * weight),
            rng.normal(size=(2, 5, width)),
            rng.normal(size=(3, width)),
        )


@pytest.mark.parametrize("silenced", [False, True])
def test_gradients_of_the_folded_projection_are_those_of_finite_differences(silenced: bool) -> None:
    """Of kernel, bias, scale and offset; none is asked for with respect to the traces."""
    from tunelab.models.folded import project

    rng = np.random.default_rng(1)
    x, weight = rng.normal(size=(2, 4, 6)), rng.normal(size=(2, 4, 3))
    kept = (rng.random((2, 6)) > 0.3) / 0.7 if silenced else None

    def projected(kernel: Any, bias: Any, affine: Any) -> Any:
        scale, move = affine[0], affine[1]
        return ops.sum(project64(x, kernel, bias, (scale, move), kept) * weight)

    def project64(x: Any, kernel: Any, bias: Any, affine: Any, kept: Any) -> Any:
        return project(ops.convert_to_tensor(x), kernel, bias, ops.stack(affine), kept, dtype="float64")

    assert_slopes(projected, rng.normal(size=(6, 3)), rng.normal(size=3), rng.normal(size=(2, 6)))


def test_gradients_of_the_normalisation_of_rows_are_those_of_finite_differences() -> None:
    from tunelab.models.rows import _normalise

    rng = np.random.default_rng(2)
    weights = np.array([1, 1, 0, 1]) / (3 * 5)
    weight = rng.normal(size=(4, 5, 3))
    weight[2] = 0  # what is padding never reaches the loss

    def normalised(x: Any, gamma: Any, beta: Any) -> Any:
        y, _, _ = _normalise(x, gamma, beta, ops.convert_to_tensor(weights), ops.convert_to_tensor(np.float64(1e-3)))
        return ops.sum(y * weight)

    assert_slopes(normalised, rng.normal(2, 1, size=(4, 5, 3)), rng.normal(size=3), rng.normal(size=3))


def test_dropout_over_positions_silences_the_share_it_should_and_keeps_the_mean() -> None:
    from tunelab.models.rows import PositionDropout

    for rate in (0.1, 0.37, 0.5, 0.9):
        layer = PositionDropout(rate)
        keras.utils.set_random_seed(0)
        x = np.ones((64, 251, 16), np.float32)
        first, second = (np.asarray(layer(x, training=True)) for _ in range(2))
        np.testing.assert_array_equal(np.asarray(layer(x, training=False)), x)
        n = x.size
        for y in (first, second):
            values = np.unique(y)
            assert values[0] == 0
            assert values[1:] == pytest.approx([1 / (1 - rate)], rel=1e-4)
            assert abs((y == 0).mean() - rate) < 5 * np.sqrt(rate * (1 - rate) / n) + 1 / 32768
        # no two values of a word, no neighbours and no two steps go together
        kept = (first > 0) - (1 - rate)
        spread = rate * (1 - rate)
        for other in ((second > 0) - (1 - rate), np.roll(kept, 126, axis=1), np.roll(kept, 1, 1), np.roll(kept, 1, 2)):
            assert abs((kept * other).mean() / spread) < 5 / np.sqrt(n)


def test_a_model_with_dropout_over_positions_learns_as_the_plain_one_does() -> None:
    """Masks differ, so only the mean over many of them can agree: of losses, at the same weights."""
    params = small("conv_rnn", l2=0.0)
    params["convolutions"][1]["dropout"] = 0.4
    (batch,) = batches(1)
    inputs, labels, weights = batch
    means = []
    for plain in (True, False):
        keras.utils.set_random_seed(3)
        model = build_model({**params, "plain": plain, "batch_norm_momentum": 0.0}, SAMPLES)
        given = {k: v for k, v in inputs.items() if k in model.input}
        losses = []
        for _ in range(150):
            share = np.asarray(model(given, training=True))
            own = np.take_along_axis(share, labels[..., None].astype(int), -1)[..., 0]
            losses.append((weights * -np.log(own)).sum() / weights.sum())
        means.append((np.mean(losses), np.std(losses) / np.sqrt(len(losses))))
    (one, error), (other, other_error) = means
    assert abs(one - other) < 4 * np.hypot(error, other_error)
