"""Batch normalisation and dropout over the rows of a batch, padding left out, with few passes and numbers on dials.

A row is a trace: its features, shape (scan, trace, channel), or its positions, (scan * trace, position, channel).
"""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from tunelab.models.dials import Dial, silenced, tensor


class RowNormalization(keras.layers.BatchNormalization):  # type: ignore[misc]
    """Batch normalisation whose statistics leave out rows that are padding, its momentum on a dial."""

    def __init__(self, momentum: float = 0.99, **more: Any) -> None:
        super().__init__(momentum=momentum, autocast=False, **more)
        self.keep = Dial(momentum)

    def build(self, x_shape: Any, mask_shape: Any = None) -> None:
        """Weights as those of the plain layer."""
        super().build(x_shape)

    def call(self, x: Any, mask: Any, training: bool = False) -> Any:
        """The same shape.

        Args:
            x: rows.
            mask: true where a row is no padding; shape (scan, trace) or (scan * trace,).
            training: whether to take, and remember, the statistics of the batch.
        """
        gamma, beta = tensor(self.gamma), tensor(self.beta)
        x = ops.cast(x, "float32")
        if training and self.trainable:
            positions = x.shape[1] if len(mask.shape) == 1 else 1
            rows = ops.reshape(x, (-1, positions, x.shape[-1]))
            weights = ops.reshape(ops.cast(mask, "float32"), (-1,))
            weights = weights / (ops.sum(weights) * positions)
            y, mean, variance = _normalise(rows, gamma, beta, weights, ops.convert_to_tensor(self.epsilon, "float32"))
            mean, variance, keep = ops.stop_gradient(mean), ops.stop_gradient(variance), self.keep()
            self.moving_mean.assign(self.moving_mean * keep + mean * (1 - keep))
            self.moving_variance.assign(self.moving_variance * keep + variance * (1 - keep))
            y = ops.reshape(y, ops.shape(x))
        else:
            scale = gamma * ops.rsqrt(self.moving_variance + self.epsilon)
            y = x * scale + (beta - self.moving_mean * scale)
        return ops.cast(y, self.compute_dtype)

    def compute_output_spec(self, x: Any, mask: Any, training: bool = False) -> Any:
        """Shape and type of the result."""
        return keras.KerasTensor(x.shape, dtype=self.compute_dtype)

    def compute_mask(self, *_: Any, **__: Any) -> None:
        """None: every layer is given its mask by name."""


@ops.custom_gradient  # type: ignore[untyped-decorator]
def _normalise(x: Any, gamma: Any, beta: Any, weights: Any, epsilon: Any) -> Any:
    """gamma (x - mean) / sqrt(variance + epsilon) + beta, mean and variance (Ioffe and Szegedy 2015).

    Args:
        x: shape (row, position, channel).
        gamma: shape (channel,).
        beta: shape (channel,).
        weights: of each row's values in mean and variance, shape (row,); over all values they sum to 1.
        epsilon: a number.
    """
    positions, channels = x.shape[1:]

    def total(values: Any, by: Any) -> Any:
        """The weighted sum of every channel; rows first, by a product, which makes no array of their size."""
        by_row = ops.matmul(by[None], ops.reshape(values, (-1, positions * channels)))
        return ops.sum(ops.reshape(by_row, (positions, channels)), axis=0)

    mean = total(x, weights)
    variance = total(ops.square(x - mean), weights)
    inverse = ops.rsqrt(variance + epsilon)
    scale = gamma * inverse

    def gradient(*args: Any, upstream: Any = None) -> Any:
        given = args if upstream is None else upstream
        above = (given[0] if len(given) == 1 else given)[0]  # JAX gives one tuple of what flows back
        ones = ops.ones_like(weights)
        d_beta = total(above, ones)
        d_gamma = (total(above * x, ones) - mean * d_beta) * inverse
        # scale * (above - weight * (d_beta + d_gamma * normalised x)), as few passes as it can be
        slope = -scale * inverse * d_gamma
        level = -scale * d_beta - slope * mean
        dx = above * scale + (x * slope + level) * weights[:, None, None]
        return dx, d_gamma, d_beta, ops.zeros_like(weights), ops.zeros_like(epsilon)

    return (x * scale + (beta - mean * scale), mean, variance), gradient


class RateDropout(keras.layers.Layer):  # type: ignore[misc]
    """:class:`keras.layers.Dropout`, the same masks, its rate on a dial.

    Args:
        rate: share of zeros.
        shared: axes along which one number holds for all, as in the spatial dropouts of Keras.
        more: of :class:`keras.layers.Layer`.
    """

    def __init__(self, rate: float, *, shared: tuple[int, ...] = (), **more: Any) -> None:
        super().__init__(**more)
        self.shared = shared
        self.rate = Dial(rate)
        self.seeds = keras.random.SeedGenerator()

    def call(self, x: Any, training: bool = False) -> Any:
        """The same shape."""
        if not training:
            return x
        shape = [1 if axis in self.shared else size for axis, size in enumerate(ops.shape(x))]
        return x * ops.cast(silenced(shape, self.rate(), self.seeds), x.dtype)

    def compute_output_spec(self, x: Any, training: bool = False) -> Any:
        """Shape and type of the result."""
        return keras.KerasTensor(x.shape, dtype=self.compute_dtype)


class PositionDropout(RateDropout):
    """Dropout of large arrays: two values share a random word of 30 bits, so the rate is rounded to 1/32768."""

    def call(self, x: Any, training: bool = False) -> Any:
        """The same shape."""
        if not training:
            return x
        least = ops.minimum(ops.round(self.rate() * 32768), 32767.0)
        words = keras.random.randint((ops.shape(x)[0], -(-x.shape[1] // 2), x.shape[2]), 0, 2**30, seed=self.seeds)
        bound = ops.cast(least, "int32")
        kept = ops.concatenate((words >= bound * 32768, ops.bitwise_and(words, 32767) >= bound), axis=1)
        return x * (ops.cast(kept[:, : x.shape[1]], x.dtype) * ops.cast(32768 / (32768 - least), x.dtype))
