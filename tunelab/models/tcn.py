"""tcn: one vector of each trace, then dilated convolutions across traces, each block passed by (Bai et al. 2018).

Unlike there, kernels look both ways: the whole scan is known when it is labelled.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from tunelab.models import front
from tunelab.models.family import Family, Params, Penalty, Rate, Size
from tunelab.models.front import Front
from tunelab.models.recurrent import passed_by
from tunelab.models.stack import Norm, Signal, Stack


class TcnParams(Params):
    """A front that looks at each trace, and dilated convolutions behind it."""

    family: Literal["tcn"] = "tcn"
    front: Front
    """What makes one vector of each trace."""
    filters: Size
    """Of every convolution across traces."""
    kernel: Size = 3
    """Traces under a kernel."""
    blocks: int = Field(strict=True, ge=1, le=8)
    """Of two convolutions each; block i looks at every 2^i-th trace, i from 0."""
    norm: Norm = "batch"
    """What normalises the traces, and the values between layers."""
    front_dropout: Rate = 0.0
    """In the front: of whole channels at half this rate, then of the vector."""
    dropout: Rate
    """After every convolution across traces."""
    l2: Penalty
    """On all kernels."""


def assemble(params: TcnParams, stack: Stack) -> Signal:
    """The front, then the blocks."""
    x = front.vectors(stack, params.front, norm=params.norm, dropout=params.front_dropout, l2=params.l2)
    for i in range(params.blocks):
        y = x
        for _ in range(2):
            y = stack.norm(stack.across(y, params.filters, params.kernel, 2**i, l2=params.l2), params.norm)
            y = stack.dropout(stack.activate(y, "relu"), params.dropout)
        x = passed_by(stack, x, y, params.l2)
    return x


def outline(params: TcnParams) -> str:
    """Such as ``dense64-tcn32k3x4``."""
    return f"{front.outline(params.front)}-tcn{params.filters}k{params.kernel}x{params.blocks}"


FAMILY = Family(params=TcnParams, assemble=assemble, outline=outline)
