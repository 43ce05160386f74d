"""unet1d: one vector of each trace, then convolutions across ever fewer traces and back (Ronneberger et al. 2015)."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from tunelab.models import front
from tunelab.models.family import Family, Params, Penalty, Rate, Size
from tunelab.models.front import Front
from tunelab.models.stack import Norm, Signal, Stack


class Unet1dParams(Params):
    """A front that looks at each trace, and an encoder and decoder along the traces behind it."""

    family: Literal["unet1d"] = "unet1d"
    front: Front
    """What makes one vector of each trace."""
    filters: tuple[Size, ...] = Field(min_length=2, max_length=6)
    """Of each level, the first with every trace, each further one with half as many as the one before."""
    kernel: Size = 3
    """Traces of a level under a kernel."""
    norm: Norm = "batch"
    """What normalises the traces, and the values between layers."""
    front_dropout: Rate = 0.0
    """In the front: of whole channels at half this rate, then of the vector."""
    dropout: Rate
    """After every level."""
    l2: Penalty
    """On all kernels."""


def assemble(params: Unet1dParams, stack: Stack) -> Signal:
    """The front, down the levels and up again; what a level held on the way down joins it on the way up."""
    x = front.vectors(stack, params.front, norm=params.norm, dropout=params.front_dropout, l2=params.l2)
    held = []
    for filters in params.filters[:-1]:
        x = _level(params, stack, x, filters)
        held.append(x)
        x = stack.halve(x)
    x = _level(params, stack, x, params.filters[-1])
    for filters, beside in zip(params.filters[-2::-1], reversed(held), strict=True):
        x = _level(params, stack, stack.join(stack.double(x, beside), beside), filters)
    return x


def _level(params: Unet1dParams, stack: Stack, x: Signal, filters: int) -> Signal:
    for _ in range(2):
        x = stack.activate(stack.norm(stack.across(x, filters, params.kernel, l2=params.l2), params.norm), "relu")
    return stack.dropout(x, params.dropout)


def outline(params: Unet1dParams) -> str:
    """Such as ``dense64-unet32x48x64k3``."""
    filters = "x".join(str(filters) for filters in params.filters)
    return f"{front.outline(params.front)}-unet{filters}k{params.kernel}"


FAMILY = Family(params=Unet1dParams, assemble=assemble, outline=outline)
