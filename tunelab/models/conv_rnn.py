"""conv_rnn: convolutions along the samples of each trace, a dense layer, then plain recurrent layers across traces.

Nothing runs across traces before the recurrent layers.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from tunelab.errors import ModelError
from tunelab.models.family import (
    Family,
    Layers,
    Penalty,
    Rate,
    RecurrentParams,
    Section,
    Size,
    as_list,
    check_lengths,
    length,
)
from tunelab.models.recurrent import layers
from tunelab.models.stack import Activation, Signal, Stack


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
    activation: Activation = "relu"
    pool: Pool | None = None
    batch_norm: Literal["none", "before_pool", "after_pool"] = "none"
    dropout: Rate = 0.0
    """At the end of the block."""


class Dense(Section):
    """The dense layer that makes one vector of a trace."""

    units: Size
    activation: Activation


class Penalties(Section):
    """Kernel penalties; one number stands for both."""

    convolution: Penalty
    rest: Penalty
    """On the dense layer's kernel and the recurrent input kernels."""


class ConvRnnParams(RecurrentParams):
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


def assemble(params: ConvRnnParams, stack: Stack) -> Signal:
    """The blocks, one vector of a trace, the dense layer, the recurrent layers."""
    x = stack.positions(stack.first_norm(stack.traces(), params.norm, amplitude=True))
    for block in params.convolutions:
        x = stack.block(x, block, params.norm, params.l2.convolution)
    x = stack.vector(x, "flatten" if params.reduce == "flatten" else "average")
    if params.batch_norm_before_dense:
        x = stack.norm(x, params.norm)
    rest = params.l2.rest
    x = stack.dense(x, params.dense.units, params.dense.activation, l2=rest)
    return layers(stack, x, params, cell="simple", units=params.units, dropout=params.dropout, l2=rest, first=False)


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


FAMILY = Family(params=ConvRnnParams, assemble=assemble, outline=outline, fits=fits)
