"""Families as stacks of plain Keras layers: the definition that everything else is compared with."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import keras
from keras import ops

from tunelab.models.attention import RelativeAttention
from tunelab.models.layers import BothWays, Doubled, UnfoldTraces, batch_norm, head, penalty, radar_inputs
from tunelab.models.stack import Activation, Norm, Recurrence, Signal

if TYPE_CHECKING:
    from tunelab.models.conv_rnn import Convolution

CELLS = {"simple": keras.layers.SimpleRNN, "lstm": keras.layers.LSTM, "gru": keras.layers.GRU}
EPSILON = 1e-12
"""Added to the variance of a trace by itself, whose amplitude may be tiny."""


class PlainStack:
    """See :class:`~tunelab.models.stack.Stack`.

    Args:
        n_samples: samples a trace.
        momentum: share of the moving statistics that a step keeps.
    """

    def __init__(self, n_samples: int, momentum: float) -> None:
        self.n_samples = n_samples
        self.momentum = momentum
        self._inputs, self._traces, self._mask = self._begin()

    def _begin(self) -> tuple[dict[str, Any], Any, Any]:
        return radar_inputs(self.n_samples)

    def _penalty(self, l2: float) -> Any:
        return penalty(l2)

    def answer(self, x: Signal, name: str) -> keras.Model:
        """The whole model."""
        return head(self._inputs, x.value, name)

    def traces(self) -> Signal:
        """The traces."""
        return Signal(value=self._traces, mask=self._mask, width=self.n_samples)

    def first_norm(self, x: Signal, kind: Norm, *, amplitude: bool = False) -> Signal:
        """Normalisation of the traces."""
        if kind == "layer":
            own = not amplitude
            layer = keras.layers.LayerNormalization(epsilon=EPSILON, center=own, scale=own)
            return replace(x, value=layer(x.value))
        if kind == "none":
            return x
        if not amplitude:
            return replace(x, value=batch_norm(x.value, x.mask, self.momentum))
        return replace(x, value=ops.squeeze(self.norm(self.positions(x), kind).value, axis=-1))

    def norm(self, x: Signal, kind: Norm) -> Signal:
        """Normalisation of features or channels."""
        if kind == "none":
            return x
        if kind == "layer":
            return replace(x, value=keras.layers.LayerNormalization()(x.value))
        if len(x.value.shape) == 3:
            return replace(x, value=self._batch_norm(x.value, x.mask))
        rows = ops.reshape(x.value, (-1, *x.value.shape[2:]))
        normalised = self._batch_norm(rows, ops.reshape(x.mask, (-1,)))
        return replace(x, value=UnfoldTraces()(normalised, x.value))

    def _batch_norm(self, x: Any, mask: Any) -> Any:
        """Of (scan, trace, feature) with (scan, trace), or of (scan * trace, position, channel) with (scan * trace)."""
        if len(mask.shape) == 1:
            mask = ops.repeat(ops.reshape(mask, (-1, 1)), x.shape[1], axis=1)
        return batch_norm(x, mask, self.momentum)

    def dense(self, x: Signal, units: int, activation: Activation = "linear", l2: float = 0.0) -> Signal:
        """A dense layer."""
        layer = keras.layers.Dense(units, activation=activation, kernel_regularizer=self._penalty(l2))
        return replace(x, value=layer(x.value), width=units)

    def dropout(self, x: Signal, rate: float) -> Signal:
        """Dropout of features, or of channels."""
        if not rate:
            return x
        layer = keras.layers.Dropout if len(x.value.shape) == 3 else keras.layers.SpatialDropout2D
        return replace(x, value=layer(rate)(x.value))

    def activate(self, x: Signal, activation: Activation) -> Signal:
        """An activation."""
        return replace(x, value=keras.layers.Activation(activation)(x.value))

    def recurrent(self, x: Signal, layer: Recurrence) -> Signal:
        """A recurrent layer."""
        if layer.recurrent_dropout and layer.dropout:
            # Keras would draw a mask for each gate then
            x = replace(x, value=self._feature_dropout(x.value, layer.dropout))
            layer = replace(layer, dropout=0.0)
        states = self._one_way(x, layer, backwards=False)
        if layer.bidirectional:
            states = self._both(states, self._one_way(x, layer, backwards=True), layer)
        return replace(x, value=states, width=layer.units * (1 + layer.bidirectional), affine=None)

    def _feature_dropout(self, value: Any, rate: float) -> Any:
        """One mask for all traces of a scan."""
        return keras.layers.SpatialDropout1D(rate)(value)

    def _one_way(self, x: Signal, layer: Recurrence, *, backwards: bool) -> Any:
        """(scan, trace, unit), in the order in which the traces were read."""
        made = CELLS[layer.cell](
            layer.units,
            return_sequences=True,
            go_backwards=backwards,
            dropout=layer.dropout,
            recurrent_dropout=layer.recurrent_dropout,
            kernel_regularizer=self._penalty(layer.l2),
        )
        return made(x.value, mask=x.mask)

    def _both(self, forwards: Any, backwards: Any, layer: Recurrence) -> Any:
        """The states of both directions side by side, in the order of the traces."""
        return BothWays()(forwards, backwards)

    def positions(self, x: Signal) -> Signal:
        """Samples apart."""
        return replace(x, value=ops.expand_dims(x.value, axis=-1), width=1)

    def block(self, x: Signal, block: Convolution, norm: Norm, l2: float) -> Signal:
        """A block of ``conv_rnn``."""
        rows = keras.layers.Conv1D(
            block.filters,
            block.kernel,
            strides=block.stride,
            activation=block.activation,
            kernel_regularizer=self._penalty(l2),
        )(ops.reshape(x.value, (-1, *x.value.shape[2:])))
        if block.batch_norm == "before_pool":
            rows = self._norm_of_rows(rows, x.mask, norm)
        if block.pool is not None:
            rows = keras.layers.MaxPooling1D(block.pool.size, strides=block.pool.stride)(rows)
        if block.batch_norm == "after_pool":
            rows = self._norm_of_rows(rows, x.mask, norm)
        if block.dropout:
            rows = keras.layers.Dropout(block.dropout)(rows)
        return replace(x, value=UnfoldTraces()(rows, x.value), width=block.filters)

    def _norm_of_rows(self, rows: Any, mask: Any, kind: Norm) -> Any:
        if kind == "batch":
            return self._batch_norm(rows, ops.reshape(mask, (-1,)))
        return keras.layers.LayerNormalization()(rows) if kind == "layer" else rows

    def convolve(self, x: Signal, filters: int, traces: int, samples: int, l2: float = 0.0) -> Signal:
        """A convolution over traces x positions."""
        layer = keras.layers.Conv2D(filters, (traces, samples), padding="same", kernel_regularizer=self._penalty(l2))
        return replace(x, value=layer(_silent(x) if traces > 1 else x.value), width=filters)

    def pool(self, x: Signal, samples: int) -> Signal:
        """The maximum over positions."""
        return replace(x, value=keras.layers.MaxPooling2D((1, samples), padding="same")(x.value))

    def vector(self, x: Signal, how: str) -> Signal:
        """One vector of a trace."""
        positions, channels = x.value.shape[2:]
        if how == "flatten":
            layer = keras.layers.Reshape((-1, positions * channels))
            return replace(x, value=layer(x.value), width=positions * channels)
        return replace(x, value=ops.mean(x.value, axis=2) if how == "average" else ops.max(x.value, axis=2))

    def across(self, x: Signal, filters: int, kernel: int, dilation: int = 1, l2: float = 0.0) -> Signal:
        """A convolution across traces."""
        layer = keras.layers.Conv1D(
            filters, kernel, padding="same", dilation_rate=dilation, kernel_regularizer=self._penalty(l2)
        )
        return replace(x, value=layer(_silent(x)), width=filters)

    def attend(self, x: Signal, heads: int, reach: int, dropout: float = 0.0, l2: float = 0.0) -> Signal:
        """Attention within a scan."""
        layer = RelativeAttention(heads, reach, kernel_regularizer=self._penalty(l2))
        return self.dropout(replace(x, value=layer(x.value, x.mask)), dropout)

    def add(self, x: Signal, y: Signal) -> Signal:
        """The sum."""
        return replace(y, value=keras.layers.Add()([x.value, y.value]))

    def join(self, x: Signal, y: Signal) -> Signal:
        """The features of both."""
        return replace(y, value=ops.concatenate([x.value, y.value], axis=-1), width=x.width + y.width)

    def halve(self, x: Signal) -> Signal:
        """The maximum over every two traces."""
        least = ops.where(ops.expand_dims(x.mask, -1), x.value, ops.cast(-1e4, x.value.dtype))
        value = keras.layers.MaxPooling1D(2, padding="same")(least)
        return replace(x, value=value, mask=x.mask[:, ::2])

    def double(self, x: Signal, like: Signal) -> Signal:
        """Each trace twice."""
        return replace(x, value=Doubled()(x.value, like.value), mask=like.mask)


def _silent(x: Signal) -> Any:
    """The value, zero on padding."""
    mask = ops.cast(x.mask, x.value.dtype)
    for _ in x.value.shape[2:]:
        mask = ops.expand_dims(mask, axis=-1)
    return x.value * mask
