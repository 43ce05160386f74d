"""birnn: one vector of each trace, then LSTM or GRU layers over the traces, in both directions if so asked."""

from __future__ import annotations

from typing import Literal

from tunelab.models import front, recurrent
from tunelab.models.family import Family, Rate
from tunelab.models.front import Front
from tunelab.models.recurrent import FrontedParams, behind
from tunelab.models.stack import Signal, Stack


class BirnnParams(FrontedParams):
    """A front that looks at each trace, and recurrent layers behind it."""

    family: Literal["birnn"] = "birnn"
    front: Front
    """What makes one vector of each trace."""
    front_dropout: Rate = 0.0
    """In the front: of whole channels at half this rate, then of the vector."""


def assemble(params: BirnnParams, stack: Stack) -> Signal:
    """The front, then the recurrent layers."""
    x = front.vectors(stack, params.front, norm=params.norm, dropout=params.front_dropout, l2=params.l2)
    return behind(stack, x, params)


def outline(params: BirnnParams) -> str:
    """Such as ``dense64-bigru48``."""
    return recurrent.outline(front.outline(params.front), params)


FAMILY = Family(params=BirnnParams, assemble=assemble, outline=outline)
