"""conv_rnn: convolutions along the samples of each trace, a dense layer, then plain recurrent layers across traces.

The traces of a scan are folded into the batch for the convolutions, so that nothing runs across traces before the
recurrent layers. All shapes below are (scan * trace, position, channel) until then.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, model_validator

from tunelab.errors import ModelError
from tunelab.models.family import Family, Layers, Params, Penalty, Rate, Section, Size, as_list, check_lengths, length

if TYPE_CHECKING:
    import keras

    from tunelab.statistics import Statistics


class Pool(Section):
    """Maximum over a window of positions."""

    size: Size
    stride: Size


class Convolution(Section):
    """A block: convolution, activation, pooling; no padding anywhere."""

    filters: Size
    kernel: Size
    """Positions."""
    stride: Size
    """Positions."""
    activation: Literal["linear", "relu", "elu", "tanh"] = "relu"
    pool: Pool | None = None
    batch_norm: Literal["none", "before_pool", "after_pool"] = "none"
    dropout: Rate = 0.0
    """At the end of the block."""


class Dense(Section):
    """The dense layer that makes one vector of a trace."""

    units: Size
    activation: Literal["linear", "relu", "elu", "tanh"]


class Penalties(Section):
    """Kernel penalties; one number stands for both."""

    convolution: Penalty
    rest: Penalty
    """On the dense layer's kernel and the recurrent input kernels."""


class ConvRnnParams(Params):
    """Convolutions in front of recurrent layers."""

    family: Literal["conv_rnn"] = "conv_rnn"
    convolutions: tuple[Convolution, ...] = Field(min_length=1)
    reduce: Literal["flatten", "global_average"]
    """How the positions that are left become one vector."""
    batch_norm_before_dense: bool = False
    dense: Dense
    units: Layers
    """Of each recurrent layer."""
    dropout: tuple[Rate, ...]
    """Of each recurrent layer's inputs; one number stands for all."""
    l2: Penalties

    _fill = model_validator(mode="before")(as_list("dropout", lambda raw: length(raw, "units")))
    _lengths = model_validator(mode="after")(check_lengths("dropout", lambda p: len(p.units), "units"))

    @model_validator(mode="before")
    @classmethod
    def _one_penalty(cls, raw: Any) -> Any:
        if isinstance(raw, dict) and isinstance(raw.get("l2"), int | float):
            return {**raw, "l2": {"convolution": raw["l2"], "rest": raw["l2"]}}
        return raw


def build(params: ConvRnnParams, n_samples: int, given: Statistics | None) -> keras.Model:
    """The model of fast layers; shapes as in :class:`~tunelab.models.family.Family`."""
    from keras import layers as kl
    from keras import ops

    from tunelab.models.convolutions import PooledConvolution
    from tunelab.models.dials import penalty
    from tunelab.models.folded import AmplitudeNormalization, HoistedSimpleRNN
    from tunelab.models.layers import UnfoldTraces, head, measured_inputs, normalised
    from tunelab.models.rows import PositionDropout, RowNormalization

    fits(params, n_samples)
    inputs, traces, mask = measured_inputs(n_samples)
    rows = ops.reshape(mask, (-1,))
    momentum = params.batch_norm_momentum
    if given is not None:
        traces = normalised(traces, given)
    affine = AmplitudeNormalization(momentum, given)(traces, mask, inputs["moments"])
    x = ops.reshape(traces, (-1, n_samples, 1))
    for block in params.convolutions:
        pool = (block.pool.size, block.pool.stride) if block.pool is not None else None
        between = block.batch_norm == "before_pool"
        x = PooledConvolution(
            block.filters,
            block.kernel,
            strides=block.stride,
            pool=None if between else pool,
            activation=block.activation,
            kernel_regularizer=penalty(params.l2.convolution),
        )(x, affine)
        affine = None
        if block.batch_norm != "none":
            x = RowNormalization(momentum)(x, rows)
        if between and pool is not None:
            x = kl.MaxPooling1D(*pool)(x)
        if block.dropout:
            x = PositionDropout(block.dropout)(x)
    x = kl.Flatten()(x) if params.reduce == "flatten" else kl.GlobalAveragePooling1D()(x)
    x = UnfoldTraces()(x, traces)
    if params.batch_norm_before_dense:
        x = RowNormalization(momentum)(x, mask)
    x = kl.Dense(params.dense.units, activation=params.dense.activation, kernel_regularizer=penalty(params.l2.rest))(x)
    for units, dropout in zip(params.units, params.dropout, strict=True):
        x = HoistedSimpleRNN(units, dropout=dropout, kernel_regularizer=penalty(params.l2.rest))(x)
    return head(inputs, x, "conv_rnn")


def plain(params: ConvRnnParams, n_samples: int) -> keras.Model:
    """The model of plain layers; shapes as in :class:`~tunelab.models.family.Family`."""
    from keras import layers as kl
    from keras import ops

    from tunelab.models.layers import UnfoldTraces, batch_norm, head, penalty, radar_inputs, simple_rnn

    fits(params, n_samples)
    inputs, traces, mask = radar_inputs(n_samples)
    flat_mask = ops.reshape(mask, (-1, 1))
    momentum = params.batch_norm_momentum

    def normalised(x: Any) -> Any:
        return batch_norm(x, ops.repeat(flat_mask, x.shape[1], axis=1), momentum)

    x = normalised(ops.reshape(traces, (-1, n_samples, 1)))
    for block in params.convolutions:
        x = kl.Conv1D(
            block.filters,
            block.kernel,
            strides=block.stride,
            activation=block.activation,
            kernel_regularizer=penalty(params.l2.convolution),
        )(x)
        if block.batch_norm == "before_pool":
            x = normalised(x)
        if block.pool is not None:
            x = kl.MaxPooling1D(block.pool.size, strides=block.pool.stride)(x)
        if block.batch_norm == "after_pool":
            x = normalised(x)
        if block.dropout:
            x = kl.Dropout(block.dropout)(x)
    x = kl.Flatten()(x) if params.reduce == "flatten" else kl.GlobalAveragePooling1D()(x)
    x = UnfoldTraces()(x, traces)
    if params.batch_norm_before_dense:
        x = batch_norm(x, mask, momentum)
    x = kl.Dense(params.dense.units, activation=params.dense.activation, kernel_regularizer=penalty(params.l2.rest))(x)
    for units, dropout in zip(params.units, params.dropout, strict=True):
        x = simple_rnn(x, mask, units, dropout, params.l2.rest)
    return head(inputs, x, "conv_rnn")


def outline(params: ConvRnnParams) -> str:
    """Such as ``conv50k12s4-pool5s2-flatten-dense100-rnn100``."""
    words = []
    for block in params.convolutions:
        words.append(f"conv{block.filters}k{block.kernel}s{block.stride}")
        if block.pool is not None:
            words.append(f"pool{block.pool.size}s{block.pool.stride}")
    words += [params.reduce, f"dense{params.dense.units}", *(f"rnn{units}" for units in params.units)]
    return "-".join(words)


def fits(params: ConvRnnParams, n_samples: int) -> None:
    """Whether positions are left after every convolution and pooling.

    Raises:
        ModelError: names the first one that does not fit.
    """
    left = n_samples
    for i, block in enumerate(params.convolutions):
        windows = [("kernel", block.kernel, block.stride)]
        if block.pool is not None:
            windows.append(("pool.size", block.pool.size, block.pool.stride))
        for key, size, stride in windows:
            if size > left:
                raise ModelError(
                    f"convolutions.{i}.{key}: {size} is more than the {left} positions that are left of {n_samples} "
                    "samples; take smaller strides, fewer blocks or more samples"
                )
            left = (left - size) // stride + 1


FAMILY = Family(
    params=ConvRnnParams,
    plain=plain,
    build=build,
    dials=frozenset({"dropout", "l2"}),
    outline=outline,
    fits=fits,
)
