"""Numbers of a model that a compiled training step reads from variables: rates of dropout, factors of penalties, and
what makes a loss of one kind.

As Python numbers they would be part of the step, and every trial would compile one of its own. They are no weights:
they are not counted, not stored with weights and not loaded with them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import keras
from keras import ops


def tensor(variable: Any) -> Any:
    """A variable's value as a tensor that is none; functions with gradients of their own take no variables."""
    return ops.reshape(variable, variable.shape)


class Dial:
    """A number, or an array of them. Keras tracks no object of this kind, so its variable is no weight of a layer."""

    def __init__(self, value: Any) -> None:
        self.variable = keras.Variable(value, trainable=False, dtype="float32", autocast=False, name="dial")

    def __call__(self) -> Any:
        """The tensor, in float32 whatever the layers compute in."""
        return ops.convert_to_tensor(self.variable)


class SquaredPenalty(keras.regularizers.Regularizer):  # type: ignore[misc]
    """A factor times the sum of squares, as :class:`keras.regularizers.L2`, the factor on a dial."""

    def __init__(self, factor: float) -> None:
        self.factor = factor
        self.dial = Dial(factor)

    def __call__(self, x: Any) -> Any:
        """The penalty of a kernel."""
        x = ops.reshape(ops.cast(x, "float32"), (-1,))
        return self.dial() * ops.sum(ops.square(x))

    def get_config(self) -> dict[str, Any]:
        """Arguments of the constructor."""
        return {"factor": self.factor}


def silenced(shape: Any, rate: Any, seeds: keras.random.SeedGenerator) -> Any:
    """What dropout multiplies by, float32: 0, or what keeps the mean. The bits that Keras' own dropout draws.

    Args:
        shape: of the result.
        rate: share of zeros, a tensor.
        seeds: as of a layer of Keras.
    """
    return ops.where(keras.random.uniform(shape, dtype="float32", seed=seeds) >= rate, 1 / (1 - rate), 0.0)


def penalty(factor: float) -> SquaredPenalty | None:
    """The regulariser of a kernel; None where it would add nothing."""
    return SquaredPenalty(factor) if factor else None


def dials_of(model: keras.Model) -> list[Dial]:
    """Every dial of a model: in the order of its layers, then, where it is compiled, of its loss."""
    owners = [*model._flatten_layers(), getattr(model, "loss", None)]
    return [dial for owner in owners if owner is not None for dial in _own(owner)]


def _own(owner: keras.layers.Layer | keras.losses.Loss) -> Iterator[Dial]:
    for value in vars(owner).values():
        if isinstance(value, Dial):
            yield value
        elif isinstance(value, SquaredPenalty):
            yield value.dial
