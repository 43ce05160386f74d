"""Layers that compute what plain Keras layers compute, with fewer passes over wide traces.

A trace of ten thousand samples is read once for the product with the first kernel and once for that kernel's gradient.
Everything else that plain layers do to it is moved to where arrays are small:

- Normalisation is affine in each sample, so it is folded into the kernel: with scale a and offset b,
  (a x + b) W = x (a W) + b W. The statistics of a batch come from the means and deviations of its scans, which are
  known beforehand. No gradient with respect to the traces is ever asked for.
- Padding is known from lengths. Recurrent layers mask nothing, as no true trace comes after padding.
- The product of a recurrent layer's input is one product over all traces (see :mod:`tunelab.models.recurrences`). Its
  mask of dropout, one for all traces of a scan as in Keras, multiplies the traces and the offset of each scan:
  (m (a x + b)) W = (m x) (a W) + (m b) W.

Weights stand in the order of the plain layers: those of one fit the other. Shapes are (scan, trace, sample).
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

from tunelab.models.dials import Dial, tensor
from tunelab.statistics import Statistics


class _InputNormalization(keras.layers.BatchNormalization):  # type: ignore[misc]
    """Batch normalisation of traces as scale and offset, shape (2, ...), which another layer applies.

    Args:
        momentum: share of the moving statistics that a step keeps.
        given: of the training scans; the traces are normalised by it before; None: they are not.
    """

    def __init__(self, momentum: float = 0.99, given: Statistics | None = None, **more: Any) -> None:
        super().__init__(momentum=momentum, dtype="float32", **more)
        self.keep = Dial(momentum)
        self.given = None if given is None else Dial(np.stack((given.mean, np.sqrt(given.variance))))

    def compute_mask(self, *_: Any, **__: Any) -> None:
        """None: whoever needs the mask is given it by name."""

    def _batch(self, traces: Any, mask: Any, moments: Any) -> tuple[Any, Any]:
        """Mean and variance of each sample over the batch, normalised by ``given``, each of shape (sample,).

        The formula of :func:`tunelab.data.statistics.combine`: nothing cancels.
        """
        share = ops.sum(ops.cast(mask, "float32"), axis=1)
        share = (share / ops.sum(share))[:, None]
        means, deviations = _measured(traces, mask) if moments is None else ops.unstack(moments, 2, axis=1)
        if self.given is not None:
            centre, spread = ops.unstack(self.given(), 2)
            means, deviations = (means - centre) / spread, deviations / spread
        mean = ops.sum(share * means, axis=0)
        return mean, ops.sum(share * (ops.square(deviations) + ops.square(means - mean)), axis=0)

    def _moved(self, mean: Any, variance: Any) -> tuple[Any, Any]:
        """Scale and offset of what is normalised by these, which move the moving statistics; None: by those."""
        if mean is not None:
            keep = self.keep()
            self.moving_mean.assign(self.moving_mean * keep + mean * (1 - keep))
            self.moving_variance.assign(self.moving_variance * keep + variance * (1 - keep))
        else:
            mean, variance = tensor(self.moving_mean), tensor(self.moving_variance)
        scale = tensor(self.gamma) * ops.rsqrt(variance + self.epsilon)
        return scale, tensor(self.beta) - scale * mean


class SampleNormalization(_InputNormalization):
    """A scale and an offset for each sample, shape (2, sample); what normalises the traces before is in them.

    It has a third row then, a centre to subtract from the traces first: a sample that hardly varies from trace to
    trace, such as the direct wave, would lose in a product what it differs by from its mean.
    """

    def build(self, traces_shape: Any, mask_shape: Any = None, moments_shape: Any = None) -> None:
        """Weights as those of the plain layer."""
        super().build(traces_shape)

    def call(self, traces: Any, mask: Any, moments: Any = None, training: bool = False) -> Any:
        """Scale and offset.

        Args:
            traces: as they are fed; read in training without moments only.
            mask: shape (scan, trace), true where a trace is no padding.
            moments: mean and standard deviation over each scan's traces, shape (scan, 2, sample).
            training: whether to take the statistics of the batch.
        """
        taken = self._batch(traces, mask, moments) if training and self.trainable else (None, None)
        scale, offset = self._moved(*taken)
        if self.given is None:
            return ops.stack((scale, offset))
        centre, spread = ops.unstack(self.given(), 2)
        return ops.stack((scale / spread, offset, centre))

    def compute_output_spec(self, traces: Any, mask: Any, moments: Any = None, training: bool = False) -> Any:
        """Shape and type of the result."""
        return keras.KerasTensor((2 if self.given is None else 3, traces.shape[-1]), dtype="float32")


class AmplitudeNormalization(_InputNormalization):
    """One scale and one offset for all samples, shape (2, 1); whoever applies them normalises by ``given`` before."""

    def build(self, traces_shape: Any, mask_shape: Any = None, moments_shape: Any = None) -> None:
        """Weights as those of the plain layer on (trace, sample, 1)."""
        super().build((None, None, 1))
        self.input_spec = None

    def call(self, traces: Any, mask: Any, moments: Any = None, training: bool = False) -> Any:
        """Scale and offset; arguments as of :class:`SampleNormalization`."""
        mean = variance = None
        if training and self.trainable:
            means, variances = self._batch(traces, mask, moments)
            mean = ops.mean(means, keepdims=True)
            variance = ops.mean(variances + ops.square(means - mean), keepdims=True)
        return ops.stack(self._moved(mean, variance))

    def compute_output_spec(self, traces: Any, mask: Any, moments: Any = None, training: bool = False) -> Any:
        """Shape and type of the result."""
        return keras.KerasTensor((2, 1), dtype="float32")


def _measured(traces: Any, mask: Any) -> tuple[Any, Any]:
    """Mean and standard deviation over each scan's true traces, each of shape (scan, sample)."""
    weight = ops.cast(mask, "float32")[:, :, None]
    count = ops.sum(weight, axis=1)
    mean = ops.sum(weight * traces, axis=1) / count
    off = weight * ops.square(traces - mean[:, None])
    return mean, ops.sqrt(ops.sum(off, axis=1) / count)


def project(x: Any, kernel: Any, bias: Any, affine: Any = None, kept: Any = None, dtype: str = "float32") -> Any:
    """The product of normalised, partly silenced features with a kernel.

    Args:
        x: shape (scan, trace, feature).
        kernel: shape (feature, unit).
        bias: shape (unit,).
        affine: scale and offset of each feature, and a centre to subtract before, shape (2 or 3, feature), float32; x
            is then taken for data, which no gradient is asked for. None: x as it is.
        kept: what each scan's features are multiplied by, shape (scan, feature); None: 1.
        dtype: of the product. In half the bits the affine is applied to x, whose range only float32 holds.

    Returns:
        Shape (scan, trace, unit).
    """
    if affine is not None and dtype in ("float16", "bfloat16"):
        x, affine = applied(x, affine), None
    elif affine is not None:
        x = _centred(x, affine)
    x, kernel, bias = ops.cast(x, dtype), ops.cast(kernel, dtype), ops.cast(bias, dtype)
    shape = (*ops.shape(x)[:2], kernel.shape[-1])
    if kept is not None:
        x = x * ops.cast(kept, dtype)[:, None, :]
    rows = ops.reshape(x, (-1, x.shape[-1]))
    if affine is None:
        return ops.reshape(ops.matmul(rows, kernel), shape) + bias
    scale, move = affine[0], affine[1]
    offset = ops.matmul(move[None] if kept is None else kept * move, kernel) + bias
    return ops.reshape(_product_with_data(rows, kernel * scale[:, None]), shape) + offset[:, None]


@ops.custom_gradient  # type: ignore[untyped-decorator]
def _product_with_data(rows: Any, kernel: Any) -> Any:
    """rows @ kernel; the gradient of the kernel reads the rows in the order in which they lie, which is faster."""

    def gradient(*args: Any, upstream: Any = None) -> Any:
        above = args[0] if upstream is None else upstream
        return ops.zeros_like(rows), ops.transpose(ops.matmul(ops.transpose(above), rows))

    return ops.matmul(rows, kernel), gradient


def applied(x: Any, affine: Any) -> Any:
    """The normalised traces themselves, float32."""
    return _centred(ops.cast(x, "float32"), affine) * affine[0] + affine[1]


def _centred(x: Any, affine: Any) -> Any:
    return x - affine[2] if affine.shape[0] == 3 else x


class Affine(keras.layers.Layer):  # type: ignore[misc]
    """Scale and offset, as :func:`applied`, by themselves."""

    def __init__(self, **more: Any) -> None:
        super().__init__(autocast=False, **more)  # only float32 holds every amplitude

    def call(self, x: Any, affine: Any) -> Any:
        """(scan, trace, sample)."""
        return ops.cast(applied(x, affine), self.compute_dtype)

    def compute_output_spec(self, x: Any, affine: Any) -> Any:
        """Shape and type of the result."""
        return keras.KerasTensor(x.shape, dtype=self.compute_dtype)


class FoldedDense(keras.layers.Dense):  # type: ignore[misc]
    """A dense layer of traces, normalised as it reads them."""

    def __init__(self, units: int, **more: Any) -> None:
        super().__init__(units, autocast=False, **more)

    def build(self, traces_shape: Any, affine_shape: Any = None) -> None:
        """Weights as those of the plain layer."""
        super().build(traces_shape)

    def call(self, traces: Any, affine: Any) -> Any:
        """(scan, trace, unit)."""
        x = project(traces, tensor(self.kernel), tensor(self.bias), affine, dtype=self.compute_dtype)
        return self.activation(x)

    def compute_output_spec(self, traces: Any, affine: Any) -> Any:
        """Shape and type of the result."""
        return keras.KerasTensor((*traces.shape[:-1], self.units), dtype=self.compute_dtype)
