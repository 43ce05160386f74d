"""Layers and shapes that the families share. Shapes are (scan, trace, sample) unless said otherwise.

True lengths, not zeros, say which traces are padding: every layer that mixes traces gets the mask that
:func:`radar_inputs` makes from them, and a trace that really is silent stays a trace.
"""

from __future__ import annotations

import math
from typing import Any

import keras
from keras import ops

from tunelab.statistics import Statistics


@keras.saving.register_keras_serializable("tunelab")
class TraceMask(keras.layers.Layer):  # type: ignore[misc]
    """(scan, trace, sample) and lengths (scan,) -> (scan, trace), true where a trace is no padding."""

    def call(self, traces: Any, lengths: Any) -> Any:
        """The mask."""
        return ops.arange(ops.shape(traces)[1])[None, :] < ops.cast(lengths, "int32")[:, None]

    def compute_output_spec(self, traces: Any, lengths: Any) -> keras.KerasTensor:
        """Shape and type of the mask."""
        return keras.KerasTensor(traces.shape[:2], dtype="bool")


@keras.saving.register_keras_serializable("tunelab")
class UnfoldTraces(keras.layers.Layer):  # type: ignore[misc]
    """(scan * trace, ...) -> (scan, trace, ...), the shape taken from a tensor that was never folded."""

    def call(self, folded: Any, like: Any) -> Any:
        """The same values, scans apart."""
        shape = ops.shape(like)
        return ops.reshape(folded, (shape[0], shape[1], *folded.shape[1:]))

    def compute_output_spec(self, folded: Any, like: Any) -> keras.KerasTensor:
        """Shape and type of the result."""
        return keras.KerasTensor((*like.shape[:2], *folded.shape[1:]), dtype=folded.dtype)


@keras.saving.register_keras_serializable("tunelab")
class Doubled(keras.layers.Layer):  # type: ignore[misc]
    """Every trace twice, cut to as many as another tensor has: the way back from a maximum over every two."""

    def call(self, x: Any, like: Any) -> Any:
        """(scan, trace, feature)."""
        return ops.repeat(x, 2, axis=1)[:, : ops.shape(like)[1]]

    def compute_output_spec(self, x: Any, like: Any) -> keras.KerasTensor:
        """Shape and type of the result."""
        return keras.KerasTensor((*like.shape[:2], x.shape[-1]), dtype=x.dtype)


@keras.saving.register_keras_serializable("tunelab")
class BothWays(keras.layers.Layer):  # type: ignore[misc]
    """The states of a layer that went forwards beside those of one that went backwards, whose order is its own."""

    def __init__(self, **more: Any) -> None:
        super().__init__(**more)
        self.supports_masking = True

    def compute_mask(self, *_: Any, **__: Any) -> None:
        """None: every layer is given its mask by name."""

    def call(self, forwards: Any, backwards: Any) -> Any:
        """(scan, trace, unit of both), the traces in their own order."""
        return ops.concatenate((forwards, ops.flip(backwards, axis=1)), axis=-1)

    def compute_output_spec(self, forwards: Any, backwards: Any) -> keras.KerasTensor:
        """Shape and type of the result."""
        return keras.KerasTensor((*forwards.shape[:2], 2 * forwards.shape[-1]), dtype=forwards.dtype)


@keras.saving.register_keras_serializable("tunelab")
class TraceNormalization(keras.layers.BatchNormalization):  # type: ignore[misc]
    """Batch normalisation that hands its mask to nobody: here every layer is given its mask by name."""

    def compute_mask(self, inputs: Any, mask: Any = None) -> None:
        """None."""

    def _moments(self, inputs: Any, mask: Any) -> tuple[Any, Any]:
        """Keras' own squeezes the only channel away where there is one."""
        mean, variance = super()._moments(inputs, mask)
        return ops.reshape(mean, (inputs.shape[-1],)), ops.reshape(variance, (inputs.shape[-1],))


def radar_inputs(n_samples: int) -> tuple[dict[str, Any], Any, Any]:
    """The two inputs of every model, the traces among them once more, and their mask (scan, trace).

    Args:
        n_samples: samples a trace.
    """
    traces = keras.Input((None, n_samples), name="traces", dtype="float32")
    lengths = keras.Input((), dtype="int32", name="lengths")
    return {"traces": traces, "lengths": lengths}, traces, TraceMask(name="mask")(traces, lengths)


def measured_inputs(n_samples: int) -> tuple[dict[str, Any], Any, Any]:
    """The same, with a third input that need not be given: the moments of each scan, (scan, 2, sample).

    Args:
        n_samples: samples a trace.
    """
    inputs, traces, mask = radar_inputs(n_samples)
    moments = keras.Input((2, n_samples), name="moments", dtype="float32", optional=True)
    return {**inputs, "moments": moments}, traces, mask


def wants_moments(model: keras.Model) -> bool:
    """Whether a model takes the moments of scans in training."""
    return isinstance(model.input, dict) and "moments" in model.input


def whole(model: keras.Model, inputs: dict[str, Any]) -> dict[str, Any]:
    """Inputs as the model takes them: None for moments that are not given."""
    return {"moments": None, **inputs} if wants_moments(model) else inputs


def head(inputs: dict[str, Any], x: Any, name: str) -> keras.Model:
    """Close a model with the softmax over negative and positive, which no penalty touches.

    Args:
        inputs: of :func:`radar_inputs`.
        x: (scan, trace, feature).
        name: the model's.
    """
    answer = keras.layers.Dense(2, activation="softmax", name="answer", dtype="float32")(x)
    return keras.Model(inputs, answer, name=name)


def normalised_inputs(model: keras.Model, statistics: Statistics) -> keras.Model:
    """A model behind the normalisation of its traces. The statistics are constants of it, not weights.

    Args:
        model: of the inputs of :func:`radar_inputs`, of whatever family; its weights are shared.
        statistics: shape (sample,); clamped already.
    """
    inputs, x, _ = radar_inputs(len(statistics.mean))
    return keras.Model(inputs, model({**inputs, "traces": normalised(x, statistics)}), name=model.name)


def normalised(traces: Any, statistics: Statistics) -> Any:
    """Traces less the mean of each sample, over its standard deviation, as Keras layers without weights.

    Args:
        traces: shape (scan, trace, sample).
        statistics: shape (sample,); clamped already.
    """
    # Keras lets no standard deviation fall below 1e-7, which is much where amplitudes are in V or A/m; by a power of
    # two nothing is rounded
    scale = 2.0 ** -round(math.log2(math.sqrt(statistics.variance.mean())))
    x = keras.layers.Rescaling(scale, name="scale", dtype="float32")(traces)
    mean, variance = statistics.mean * scale, statistics.variance * scale**2
    return keras.layers.Normalization(mean=mean, variance=variance, name="normalisation", dtype="float32")(x)


def batch_norm(x: Any, mask: Any, momentum: float) -> Any:
    """Batch normalisation whose statistics leave padding out."""
    return TraceNormalization(momentum=momentum)(x, mask=mask)


def penalty(factor: float) -> keras.regularizers.Regularizer:
    """The kernel regulariser, factor times the sum of squares."""
    return keras.regularizers.L2(factor)
