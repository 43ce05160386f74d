"""lstm: [batch normalisation -> LSTM] for each layer, every sample of a trace an input."""

from __future__ import annotations

from typing import Literal

from pydantic import model_validator

from tunelab.models.family import Family, Layers, Penalty, Rate, RecurrentParams, as_list, check_lengths, length
from tunelab.models.recurrent import layers, passed_by
from tunelab.models.stack import Signal, Stack


class LstmParams(RecurrentParams):
    """A stack of LSTM layers."""

    family: Literal["lstm"] = "lstm"
    units: Layers
    """Of each layer, the first one first."""
    dropout: tuple[Rate, ...]
    """Of each layer's inputs; one number stands for all."""
    l2: Penalty
    """On the layers' input kernels."""

    _fill = model_validator(mode="before")(as_list("dropout", lambda raw: length(raw, "units")))
    _lengths = model_validator(mode="after")(check_lengths("dropout", lambda p: len(p.units), "units"))


def assemble(params: LstmParams, stack: Stack) -> Signal:
    """Normalisation and an LSTM, and so on; residual connections pass by both."""
    x = stack.traces()
    for i, (units, dropout) in enumerate(zip(params.units, params.dropout, strict=True)):
        normal = stack.norm(x, params.norm) if i else stack.first_norm(x, params.norm)
        y = layers(stack, normal, params, cell="lstm", units=[units], dropout=[dropout], l2=params.l2)
        x = passed_by(stack, x, y, params.l2) if params.residual and i else y
    return x


def outline(params: LstmParams) -> str:
    """Such as ``lstm100-lstm200``."""
    return "-".join(f"lstm{units}" for units in params.units)


FAMILY = Family(params=LstmParams, assemble=assemble, outline=outline)
