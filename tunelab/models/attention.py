"""Attention among the traces of a scan, which knows how far they are apart."""

from __future__ import annotations

import math
from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable("tunelab")
class RelativeAttention(keras.layers.Layer):  # type: ignore[misc]
    """Scaled dot-product attention (Vaswani et al. 2017) with a learned bias for each head and signed distance.

    The bias is added to the products of queries and keys, as in T5 (Raffel et al. 2020) but with a number for every
    distance up to ``reach`` and the same one beyond. Where a trace lies in its scan is not known to it.

    Args:
        heads: of equal width; they divide the features.
        reach: traces to either side that are told apart.
        more: of :class:`keras.layers.Layer`.
    """

    def __init__(self, heads: int, reach: int, kernel_regularizer: Any = None, **more: Any) -> None:
        super().__init__(**more)
        self.heads = heads
        self.reach = reach
        self.kernel_regularizer = keras.regularizers.get(kernel_regularizer)

    def build(self, x_shape: Any, attended_shape: Any = None) -> None:
        """One kernel for queries, keys and values, one for what they come to, one bias for each distance."""
        width = x_shape[-1]
        self.kernel = self.add_weight(
            (width, 3 * width), initializer="glorot_uniform", regularizer=self.kernel_regularizer, name="kernel"
        )
        self.output_kernel = self.add_weight(
            (width, width), initializer="glorot_uniform", regularizer=self.kernel_regularizer, name="output_kernel"
        )
        self.output_bias = self.add_weight((width,), initializer="zeros", name="bias")
        self.distance_bias = self.add_weight(
            (2 * self.reach + 1, self.heads), initializer="zeros", name="distance_bias"
        )

    def call(self, x: Any, attended: Any) -> Any:
        """(scan, trace, feature) -> the same shape.

        Args:
            x: shape (scan, trace, feature).
            attended: shape (scan, trace), true where a trace is no padding.
        """
        shape = ops.shape(x)
        size = x.shape[-1] // self.heads
        parts = ops.reshape(ops.matmul(x, self.kernel), (*shape[:2], 3, self.heads, size))
        query, key, value = (parts[:, :, i] for i in range(3))
        products = ops.einsum("bqhd,bkhd->bhqk", query, key) / math.sqrt(size)
        traces = ops.arange(shape[1])
        distance = ops.clip(traces[None, :] - traces[:, None], -self.reach, self.reach) + self.reach
        bias = ops.transpose(ops.take(ops.convert_to_tensor(self.distance_bias), distance, axis=0), (2, 0, 1))
        products = ops.cast(products, "float32") + ops.cast(bias, "float32")[None]
        products = ops.where(attended[:, None, None, :], products, -1e9)
        shares = ops.cast(ops.softmax(products, axis=-1), value.dtype)
        mixed = ops.reshape(ops.einsum("bhqk,bkhd->bqhd", shares, value), (*shape[:2], x.shape[-1]))
        return ops.matmul(mixed, self.output_kernel) + self.output_bias

    def compute_output_spec(self, x: Any, attended: Any) -> keras.KerasTensor:
        """Shape and type of the result."""
        return keras.KerasTensor(x.shape, dtype=self.compute_dtype)

    def get_config(self) -> dict[str, Any]:
        """Arguments of the constructor."""
        regularizer = keras.regularizers.serialize(self.kernel_regularizer)
        own = {"heads": self.heads, "reach": self.reach, "kernel_regularizer": regularizer}
        return {**super().get_config(), **own}
