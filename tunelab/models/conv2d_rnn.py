"""conv2d_rnn: convolutions over traces x samples, pooled along the samples, then recurrent layers over the traces.

A buried object is a curve through many traces; where it turns is what the label asks for. Kernels that see a few traces
at once find its slope, the recurrent layers behind them its turn.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from tunelab.models import front, recurrent
from tunelab.models.family import (
    Family,
    Layers,
    Rate,
    Size,
    as_list,
    check_lengths,
    length,
)
from tunelab.models.recurrent import FrontedParams, behind
from tunelab.models.stack import Signal, Stack


class Conv2dRnnParams(FrontedParams):
    """Blocks of two-dimensional convolutions in front of recurrent layers."""

    family: Literal["conv2d_rnn"] = "conv2d_rnn"
    filters: Layers
    """Of each block: a convolution, the maximum over ``pool`` samples, normalisation, the positive part."""
    traces: Size = 3
    """Width of the kernels."""
    samples: Size = 5
    """Height of the kernels."""
    pool: tuple[Size, ...]
    """Samples that become one in each block, the largest of them; one number stands for all."""
    reduce: Literal["flatten", "average", "maximum"] = "flatten"
    """How the positions that are left become the dense layer's input."""
    dense: Size = 64
    """Units of the dense layer that makes one vector of a trace."""
    conv_dropout: Rate = 0.0
    """After each block, of whole channels at half this rate; after the dense layer, of features."""
    residual: bool = Field(default=False, strict=True)
    """Whether blocks that change neither channels nor positions, and recurrent layers, are passed by."""

    _fill_pool = model_validator(mode="before")(as_list("pool", lambda raw: length(raw, "filters")))
    _pools = model_validator(mode="after")(check_lengths("pool", lambda p: len(p.filters), "filters"))

    @property
    def front(self) -> front.Front:
        """The blocks and the dense layer."""
        return front.Front(
            kind="convolution",
            units=self.dense,
            filters=self.filters,
            traces=self.traces,
            samples=self.samples,
            pool=self.pool,
            reduce=self.reduce,
        )


def assemble(params: Conv2dRnnParams, stack: Stack) -> Signal:
    """The blocks, the dense layer, the recurrent layers."""
    x = front.vectors(
        stack,
        params.front,
        norm=params.norm,
        dropout=params.conv_dropout,
        l2=params.l2,
        residual=params.residual,
    )
    return behind(stack, x, params)


def outline(params: Conv2dRnnParams) -> str:
    """Such as ``conv16x24x32k3x5-flatten-dense64-bigru48``."""
    return recurrent.outline(front.outline(params.front), params)


FAMILY = Family(params=Conv2dRnnParams, assemble=assemble, outline=outline)
