"""birnn: one vector of each trace, then LSTM or GRU layers over the traces, in both directions if so asked."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from tunelab.models import front
from tunelab.models.family import Family, Layers, Penalty, Rate, RecurrentParams, as_list, check_lengths, length
from tunelab.models.front import Front
from tunelab.models.recurrent import layers
from tunelab.models.stack import Cell, Signal, Stack


class BirnnParams(RecurrentParams):
    """A front that looks at each trace, and recurrent layers behind it."""

    family: Literal["birnn"] = "birnn"
    front: Front
    """What makes one vector of each trace."""
    cell: Cell = "gru"
    """Kind of the recurrent layers."""
    bidirectional: bool = Field(default=True, strict=True)
    """Whether recurrent layers go over the traces in both directions, with so many units each."""
    units: Layers
    """Of each recurrent layer and direction."""
    front_dropout: Rate = 0.0
    """In the front: of whole channels at half this rate, then of the vector."""
    dropout: tuple[Rate, ...]
    """Of each recurrent layer's inputs; one number stands for all."""
    l2: Penalty
    """On all kernels but those of recurrent states."""

    _fill = model_validator(mode="before")(as_list("dropout", lambda raw: length(raw, "units")))
    _lengths = model_validator(mode="after")(check_lengths("dropout", lambda p: len(p.units), "units"))


def assemble(params: BirnnParams, stack: Stack) -> Signal:
    """The front, then the recurrent layers."""
    x = front.vectors(stack, params.front, norm=params.norm, dropout=params.front_dropout, l2=params.l2)
    return layers(
        stack, x, params, cell=params.cell, units=params.units, dropout=params.dropout, l2=params.l2, first=False
    )


def outline(params: BirnnParams) -> str:
    """Such as ``dense64-bigru48``."""
    word = ("bi" if params.bidirectional else "") + params.cell
    return "-".join([front.outline(params.front), *(f"{word}{units}" for units in params.units)])


FAMILY = Family(params=BirnnParams, assemble=assemble, outline=outline)
