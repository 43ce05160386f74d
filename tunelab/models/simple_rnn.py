"""simple_rnn: one batch normalisation, then plain recurrent layers, every sample of a trace an input."""

from __future__ import annotations

from typing import Literal

from pydantic import model_validator

from tunelab.models.family import Family, Layers, Penalty, Rate, RecurrentParams, as_list, check_lengths, length
from tunelab.models.recurrent import layers
from tunelab.models.stack import Signal, Stack


class SimpleRnnParams(RecurrentParams):
    """A stack of plain recurrent layers."""

    family: Literal["simple_rnn"] = "simple_rnn"
    units: Layers
    """Of each layer, the first one first."""
    dropout: tuple[Rate, ...]
    """Of each layer's inputs; one number stands for all."""
    l2: Penalty
    """On the layers' input kernels."""

    _fill = model_validator(mode="before")(as_list("dropout", lambda raw: length(raw, "units")))
    _lengths = model_validator(mode="after")(check_lengths("dropout", lambda p: len(p.units), "units"))


def assemble(params: SimpleRnnParams, stack: Stack) -> Signal:
    """Normalisation, then the recurrent layers."""
    x = stack.first_norm(stack.traces(), params.norm)
    return layers(stack, x, params, cell="simple", units=params.units, dropout=params.dropout, l2=params.l2)


def outline(params: SimpleRnnParams) -> str:
    """Such as ``rnn100-rnn100``."""
    return "-".join(f"rnn{units}" for units in params.units)


FAMILY = Family(params=SimpleRnnParams, assemble=assemble, outline=outline)
