"""Recurrent layers of Keras with one product of their input, and rates of dropout on dials.

See :mod:`tunelab.models.folded` for the product and :mod:`tunelab.models.recurrences` for what is left. Weights are
those of the plain layers. Shapes are (scan, trace, feature).
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops
from keras.src.backend.common.variables import AutocastScope  # what Layer.__call__ opens, unless told not to

from tunelab.models import recurrences
from tunelab.models.accelerator import without_cudnn
from tunelab.models.dials import Dial, silenced, tensor
from tunelab.models.folded import applied, project


class _Hoisted:
    """What the layers share.

    Args:
        units: of the layer.
        backwards: whether to go from the last true trace of each scan to the first; states stay at their traces.
        more: of the layer.
    """

    def __init__(self, units: int, *, backwards: bool = False, **more: Any) -> None:
        super().__init__(units, return_sequences=True, autocast=False, **more)  # type: ignore[call-arg]
        self.backwards = backwards

    def build(self, sequences_shape: Any, affine_shape: Any = None, valid_shape: Any = None) -> None:
        """Weights as those of the plain layer."""
        super().build(sequences_shape)  # type: ignore[misc]
        cell = self.cell  # type: ignore[attr-defined]
        self.rate = Dial(cell.dropout) if cell.dropout else None
        cell.dropout = 0.0  # Keras' own code would draw a mask beside ours

    def compute_output_spec(self, sequences: Any, affine: Any = None, valid: Any = None, training: bool = False) -> Any:
        """Shape and type of the result."""
        shape = (*sequences.shape[:-1], self.units)  # type: ignore[attr-defined]
        return keras.KerasTensor(shape, dtype=self.compute_dtype)  # type: ignore[attr-defined]

    def _kept(self, sequences: Any, training: bool) -> Any:
        """What dropout multiplies each scan's features by, drawn as Keras draws it; None where it is off."""
        if not training or self.rate is None:
            return None
        shape = ops.shape(sequences)
        return silenced((shape[0], shape[2]), self.rate(), self.cell.seed_generator)  # type: ignore[attr-defined]

    def _projected(self, sequences: Any, affine: Any, valid: Any, kept: Any, bias: Any, quiet: Any) -> Any:
        """The product of the input with its kernel; backwards, padding is as ``quiet`` says."""
        cell = self.cell  # type: ignore[attr-defined]
        z = project(sequences, tensor(cell.kernel), bias, affine, kept, cell.compute_dtype)
        if not self.backwards:
            return z
        padding = np.repeat(np.array(quiet, np.float32), z.shape[-1] // len(quiet))
        return ops.where(valid[:, :, None], z, ops.cast(padding, z.dtype))

    def _recurrent(self) -> Any:
        cell = self.cell  # type: ignore[attr-defined]
        return ops.cast(tensor(cell.recurrent_kernel), cell.compute_dtype)


class HoistedSimpleRNN(_Hoisted, keras.layers.SimpleRNN):  # type: ignore[misc]
    """:class:`keras.layers.SimpleRNN` that returns all states."""

    def call(self, sequences: Any, affine: Any = None, valid: Any = None, training: bool = False) -> Any:
        """(scan, trace, unit).

        Args:
            sequences: the input.
            affine: scale and offset still to be applied to it, as :func:`~tunelab.models.folded.project` takes them.
            valid: shape (scan, trace), true where a trace is no padding; asked for backwards alone.
            training: whether dropout is on.
        """
        kept = self._kept(sequences, training)
        z = self._projected(sequences, affine, valid, kept, tensor(self.cell.bias), recurrences.QUIET["simple"])
        return recurrences.simple(z, self._recurrent(), reverse=self.backwards)


class _ByCudnn(_Hoisted):
    """A layer that runs on cuDNN's kernel where that can be had."""

    def call(self, sequences: Any, affine: Any = None, valid: Any = None, training: bool = False) -> Any:
        """(scan, trace, unit); arguments as of :class:`HoistedSimpleRNN`."""
        kept = self._kept(sequences, training)
        if without_cudnn(self.compute_dtype):  # type: ignore[attr-defined]
            return self._trace_by_trace(sequences, affine, valid, kept)  # type: ignore[attr-defined]
        # cuDNN makes one product of the input by itself, but takes no offset that differs from scan to scan
        x = sequences if affine is None else applied(sequences, affine)
        if kept is not None:
            x = x * ops.cast(kept, x.dtype)[:, None, :]
        x = ops.cast(x, self.compute_dtype)  # type: ignore[attr-defined]
        with AutocastScope(self.compute_dtype):  # type: ignore[attr-defined]
            if not self.backwards:
                return super().call(x)  # type: ignore[misc]
            return turned(super().call(turned(x, valid)), valid)  # type: ignore[misc]


class HoistedLSTM(_ByCudnn, keras.layers.LSTM):  # type: ignore[misc]
    """:class:`keras.layers.LSTM` that returns all states."""

    def _trace_by_trace(self, sequences: Any, affine: Any, valid: Any, kept: Any) -> Any:
        z = self._projected(sequences, affine, valid, kept, tensor(self.cell.bias), recurrences.QUIET["lstm"])
        return recurrences.lstm(z, self._recurrent(), reverse=self.backwards)


class HoistedGRU(_ByCudnn, keras.layers.GRU):  # type: ignore[misc]
    """:class:`keras.layers.GRU` that returns all states."""

    def _trace_by_trace(self, sequences: Any, affine: Any, valid: Any, kept: Any) -> Any:
        bias = tensor(self.cell.bias)
        z = self._projected(sequences, affine, valid, kept, bias[0], recurrences.QUIET["gru"])
        return recurrences.gru(z, self._recurrent(), ops.cast(bias[1], z.dtype), reverse=self.backwards)


def turned(x: Any, valid: Any) -> Any:
    """The true traces of each scan in reverse order, padding where it was; (scan, trace, feature)."""
    traces = ops.arange(ops.shape(x)[1])[None, :]
    last = ops.sum(ops.cast(valid, "int32"), axis=1)[:, None] - 1
    order = ops.where(valid, last - traces, traces)
    return ops.take_along_axis(x, ops.broadcast_to(order[:, :, None], ops.shape(x)), axis=1)
