"""Families as stacks of layers that compute what the plain ones compute, faster: see :mod:`tunelab.models.folded`.

Rates of dropout, penalties and statistics stand on dials (:mod:`tunelab.models.dials`), so that models that differ in
nothing else share a compiled step.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import keras
from keras import ops

from tunelab.models import dials
from tunelab.models.convolutions import PooledConvolution
from tunelab.models.folded import (
    Affine,
    AmplitudeNormalization,
    FoldedDense,
    SampleNormalization,
)
from tunelab.models.hoisted import HoistedGRU, HoistedLSTM, HoistedSimpleRNN
from tunelab.models.layers import UnfoldTraces, measured_inputs, normalised
from tunelab.models.plain_stack import PlainStack
from tunelab.models.rows import PositionDropout, RateDropout, RowNormalization
from tunelab.models.stack import Activation, Norm, Recurrence, Signal

if TYPE_CHECKING:
    from tunelab.models.conv_rnn import Convolution
    from tunelab.statistics import Statistics

_HOISTED: dict[str, Callable[..., keras.layers.Layer]] = {
    "simple": HoistedSimpleRNN,
    "lstm": HoistedLSTM,
    "gru": HoistedGRU,
}


class FastStack(PlainStack):
    """See :class:`~tunelab.models.stack.Stack`.

    Args:
        n_samples: samples a trace.
        momentum: share of the moving statistics that a step keeps.
        given: statistics of the training scans that traces are normalised by first.
    """

    def __init__(self, n_samples: int, momentum: float, given: Statistics | None) -> None:
        super().__init__(n_samples, momentum)
        self._given = given

    def _begin(self) -> tuple[dict[str, Any], Any, Any]:
        return measured_inputs(self.n_samples)

    def _penalty(self, l2: float) -> Any:
        return dials.penalty(l2)

    def first_norm(self, x: Signal, kind: Norm, *, amplitude: bool = False) -> Signal:
        """Batch normalisation is left for the layer after it to apply, with what traces are normalised by before."""
        if kind != "batch":
            if self._given is not None:
                x = replace(x, value=normalised(x.value, self._given))
            return super().first_norm(x, kind, amplitude=amplitude)
        moments = self._inputs["moments"]
        if not amplitude:
            affine = SampleNormalization(self.momentum, self._given)(x.value, x.mask, moments)
            return replace(x, affine=affine)
        affine = AmplitudeNormalization(self.momentum, self._given)(x.value, x.mask, moments)
        if self._given is not None:
            x = replace(x, value=normalised(x.value, self._given))
        return replace(x, affine=affine)

    def _batch_norm(self, x: Any, mask: Any) -> Any:
        return RowNormalization(self.momentum)(x, mask)

    def dense(self, x: Signal, units: int, activation: Activation = "linear", l2: float = 0.0) -> Signal:
        """A dense layer."""
        if x.affine is None:
            return super().dense(x, units, activation, l2)
        layer = FoldedDense(units, activation=activation, kernel_regularizer=self._penalty(l2))
        return replace(x, value=layer(x.value, x.affine), width=units, affine=None)

    def dropout(self, x: Signal, rate: float) -> Signal:
        """Dropout of features, or of channels."""
        if not rate:
            return x
        shared = () if len(x.value.shape) == 3 else (1, 2)
        return replace(x, value=RateDropout(rate, shared=shared)(x.value))

    def _feature_dropout(self, value: Any, rate: float) -> Any:
        return RateDropout(rate, shared=(1,))(value)

    def recurrent(self, x: Signal, layer: Recurrence) -> Signal:
        """A recurrent layer. With recurrent dropout it is Keras' own, which is slower."""
        return super().recurrent(self._applied(x) if layer.recurrent_dropout else x, layer)

    def _one_way(self, x: Signal, layer: Recurrence, *, backwards: bool) -> Any:
        if layer.recurrent_dropout:
            return super()._one_way(x, layer, backwards=backwards)
        made = _HOISTED[layer.cell](
            layer.units, dropout=layer.dropout, kernel_regularizer=self._penalty(layer.l2), backwards=backwards
        )
        return made(x.value, x.affine, x.mask if backwards else None)

    def _both(self, forwards: Any, backwards: Any, layer: Recurrence) -> Any:
        if layer.recurrent_dropout:
            return super()._both(forwards, backwards, layer)
        return ops.concatenate((forwards, backwards), axis=-1)

    def block(self, x: Signal, block: Convolution, norm: Norm, l2: float) -> Signal:
        """A block of ``conv_rnn``."""
        pool = (block.pool.size, block.pool.stride) if block.pool is not None else None
        between = block.batch_norm == "before_pool"
        rows = PooledConvolution(
            block.filters,
            block.kernel,
            strides=block.stride,
            pool=None if between else pool,
            activation=block.activation,
            kernel_regularizer=self._penalty(l2),
        )(ops.reshape(x.value, (-1, *x.value.shape[2:])), x.affine)
        if block.batch_norm != "none":
            rows = self._norm_of_rows(rows, x.mask, norm)
        if between and pool is not None:
            rows = keras.layers.MaxPooling1D(*pool)(rows)
        if block.dropout:
            rows = PositionDropout(block.dropout)(rows)
        return replace(x, value=UnfoldTraces()(rows, x.value), width=block.filters, affine=None)

    def convolve(self, x: Signal, filters: int, traces: int, samples: int, l2: float = 0.0) -> Signal:
        """A convolution over traces x positions."""
        return super().convolve(self._applied(x), filters, traces, samples, l2)

    def _applied(self, x: Signal) -> Signal:
        """The same signal with nothing left to apply."""
        return x if x.affine is None else replace(x, value=Affine()(x.value, x.affine), affine=None)
