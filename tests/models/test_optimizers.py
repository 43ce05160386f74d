"""Optimizers by hand: steps, clipping, and what weight decay leaves alone."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from keras import ops
from small_models import small

from tunelab.models import FAMILIES, build_model
from tunelab.models.optimizers import KEPT, optimizer_of
from tunelab.objective import Optimizer

pytestmark = pytest.mark.tf


def make(learning_rate: float, variables: list[keras.Variable], **wanted: Any) -> Any:
    optimizer = optimizer_of(Optimizer(**wanted).model_dump(), learning_rate, variables)
    optimizer.build(variables)
    return optimizer


def stepped(gradients: list[list[float]], learning_rate: float = 0.1, **wanted: Any) -> np.ndarray:
    """A kernel of ones after steps by these gradients."""
    kernel = keras.Variable(np.ones(len(gradients[0]), np.float32), name="kernel")
    optimizer = make(learning_rate, [kernel], **wanted)
    for gradient in gradients:
        optimizer.apply([ops.convert_to_tensor(np.array(gradient, np.float32))])
    return np.asarray(kernel)


def test_adam_is_what_it_was() -> None:
    kernel = keras.Variable(np.ones(2, np.float32))
    optimizer, known = make(0.01, [kernel]), keras.optimizers.Adam(0.01)
    assert type(optimizer) is keras.optimizers.Adam
    assert {**optimizer.get_config(), "name": known.name} == known.get_config()


def test_sgd_steps_by_nesterovs_momentum() -> None:
    """v = m v - r g, then w + m v - r g."""
    gradients, weights, velocity = [[1.0, -2.0], [0.5, 0.25], [0.0, 1.0]], np.ones(2), np.zeros(2)
    for gradient in np.array(gradients):
        velocity = 0.8 * velocity - 0.1 * gradient
        weights = weights + 0.8 * velocity - 0.1 * gradient
    np.testing.assert_allclose(stepped(gradients, kind="sgd", momentum=0.8), weights, rtol=1e-6)
    np.testing.assert_allclose(stepped([[1.0, -2.0]], kind="sgd", momentum=0.0), [0.9, 1.2], rtol=1e-6)


def test_gradients_are_clipped_by_the_norm_of_all_of_them() -> None:
    pair = [keras.Variable(np.zeros(1, np.float32)) for _ in range(2)]
    optimizer = make(0.1, pair, kind="sgd", momentum=0.0, clip_norm=2.0)
    optimizer.apply([ops.convert_to_tensor(np.array([value], np.float32)) for value in (30.0, 40.0)])
    np.testing.assert_allclose([np.asarray(one)[0] for one in pair], [-0.12, -0.16], rtol=1e-6)
    np.testing.assert_allclose(stepped([[0.3, 0.4]], kind="sgd", momentum=0.0, clip_norm=2.0), [0.97, 0.96], rtol=1e-6)
    for kind in ("adam", "adamw"):
        assert make(0.1, pair, kind=kind, clip_norm=0.5).global_clipnorm == 0.5


@pytest.mark.parametrize("family", FAMILIES)
def test_weight_decay_takes_of_kernels_alone(family: str) -> None:
    """A step of AdamW is one of Adam, less the learning rate times the decay times what the weight was."""
    rng = np.random.default_rng(0)
    after, before, names = [], [], []
    for kind in ("adam", "adamw"):
        keras.utils.set_random_seed(3)
        variables = build_model(small(family), 64).trainable_variables
        for variable in variables:
            variable.assign_add(ops.ones(variable.shape))  # biases and offsets begin at 0, which decays to 0
        before = [np.asarray(variable) for variable in variables]
        rng = np.random.default_rng(0)
        gradients = [ops.convert_to_tensor(rng.normal(size=one.shape).astype(np.float32)) for one in before]
        make(0.01, variables, kind=kind, weight_decay=0.5).apply(gradients)
        after.append([np.asarray(variable) for variable in variables])
        names = [variable.name for variable in variables]
    assert {name for name in names if name in KEPT} >= {"bias"}
    for name, start, adam, adamw in zip(names, before, *after, strict=True):
        if name in KEPT:
            np.testing.assert_array_equal(adamw, adam, err_msg=name)
        else:
            assert name in ("kernel", "recurrent_kernel", "output_kernel")
            np.testing.assert_allclose(adamw, adam - 0.01 * 0.5 * start, rtol=1e-5, atol=1e-6, err_msg=name)


def test_weight_decay_stands_among_the_variables_of_its_optimizer() -> None:
    kernel = keras.Variable(np.ones(2, np.float32), name="kernel")
    optimizer = make(0.1, [kernel], kind="adamw", weight_decay=0.25)
    (decay,) = [variable for variable in optimizer.variables if variable.name == "decay"]
    assert float(decay) == 0.25
    decay.assign(0.5)
    optimizer.apply([ops.zeros(2)])
    np.testing.assert_allclose(np.asarray(kernel), 0.95, rtol=1e-6)
