"""transformer: one vector of each trace, then attention among the traces of a scan by how far they are apart."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from tunelab.models import front
from tunelab.models.family import Family, Params, Penalty, Rate, Size
from tunelab.models.front import Front
from tunelab.models.stack import Norm, Signal, Stack


class TransformerParams(Params):
    """A front that looks at each trace, and a small transformer behind it (Vaswani et al. 2017)."""

    family: Literal["transformer"] = "transformer"
    front: Front
    """What makes one vector of each trace; its ``units`` are the transformer's width."""
    blocks: int = Field(strict=True, ge=1, le=12)
    """Of attention and two dense layers, each part normalised before and passed by."""
    heads: Size = 4
    """They share the width evenly."""
    reach: Size = 16
    """Traces to either side whose distance is told apart; further ones are alike."""
    widening: Size = 2
    """Width of the first dense layer, in widths."""
    norm: Norm = "batch"
    """What normalises the traces, and the front's values. The blocks take layer normalisation, as is usual."""
    front_dropout: Rate = 0.0
    """In the front: of whole channels at half this rate, then of the vector."""
    dropout: Rate
    """After attention, and after each of the two dense layers."""
    l2: Penalty
    """On all kernels."""

    @model_validator(mode="after")
    def _even(self) -> TransformerParams:
        if self.front.units % self.heads:
            raise ValueError(f"heads: {self.heads} do not share {self.front.units} front.units evenly; take a divisor")
        return self


def assemble(params: TransformerParams, stack: Stack) -> Signal:
    """The front, the blocks, a last normalisation."""
    x = front.vectors(stack, params.front, norm=params.norm, dropout=params.front_dropout, l2=params.l2)
    for _ in range(params.blocks):
        y = stack.attend(stack.norm(x, "layer"), params.heads, params.reach, params.dropout, l2=params.l2)
        x = stack.add(x, y)
        y = stack.dense(stack.norm(x, "layer"), params.widening * x.width, "relu", l2=params.l2)
        y = stack.dense(stack.dropout(y, params.dropout), x.width, l2=params.l2)
        x = stack.add(x, stack.dropout(y, params.dropout))
    return stack.norm(x, "layer")


def outline(params: TransformerParams) -> str:
    """Such as ``dense64-attention4x2``."""
    return f"{front.outline(params.front)}-attention{params.heads}x{params.blocks}"


FAMILY = Family(params=TransformerParams, assemble=assemble, outline=outline)
