"""Convolutions along the samples of each trace, as conv_rnn takes them, with few passes over their large outputs.

With strides of a few samples and dozens of filters a convolution's output is ten times its input, so time goes by the
passes over it, not by its arithmetic:

- The first convolution reads frames of samples and is one product with them; the normalisation of the input, one scale
  and one offset, is folded into its kernel and bias. Nothing asks for the gradient with respect to the input.
- Pooling comes first, then the bias and the activation, on what is left. The maximum commutes with both, as the bias
  is the same at every position and each activation is nowhere falling.
- Batch normalisation and dropout are those of :mod:`tunelab.models.rows`.

Shapes are (scan * trace, position, channel).
"""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from tunelab.models.dials import tensor


class PooledConvolution(keras.layers.Conv1D):  # type: ignore[misc]
    """Convolution without padding, then the maximum over windows of positions, bias and activation.

    Args:
        pool: size and stride of the windows; None: every position by itself.
        more: of :class:`keras.layers.Conv1D`; the activation must be nowhere falling.
    """

    def __init__(self, filters: int, kernel_size: int, *, pool: tuple[int, int] | None = None, **more: Any) -> None:
        super().__init__(filters, kernel_size, **more)
        self.pool = pool

    def build(self, x_shape: Any, affine_shape: Any = None) -> None:
        """Weights as those of the plain layer."""
        super().build(x_shape)

    def call(self, x: Any, affine: Any = None) -> Any:
        """(scan * trace, position, filter).

        Args:
            x: shape (scan * trace, position, channel).
            affine: scale and offset of all of x, which is then the data themselves, of one channel; shape (2, 1).
        """
        kernel, bias = tensor(self.kernel), tensor(self.bias)
        if affine is None:
            y = ops.conv(x, kernel, strides=self.strides, padding="valid")
        else:
            y = ops.matmul(self._frames(x), ops.cast(affine[0], kernel.dtype) * kernel[:, 0])
            bias = bias + ops.cast(affine[1], bias.dtype) * ops.sum(kernel, axis=(0, 1))
        if self.pool is not None:
            size, stride = self.pool
            y = ops.max_pool(y, size, stride, padding="valid")
        return self.activation(y + bias)

    def compute_output_spec(self, x: Any, affine: Any = None) -> Any:
        """Shape and type of the result."""
        scans, left, filters = super().compute_output_shape(x.shape)
        if self.pool is not None:
            left = (left - self.pool[0]) // self.pool[1] + 1
        return keras.KerasTensor((scans, left, filters), dtype=self.compute_dtype)

    def _frames(self, x: Any) -> Any:
        """The samples under the kernel at each position, shape (scan * trace, position, kernel)."""
        size = self.kernel_size[0]
        picks = ops.reshape(ops.eye(size, dtype=x.dtype), (size, 1, size))
        return ops.conv(x, picks, strides=self.strides, padding="valid")
