"""dense_rnn: batch normalisation, linear dense layers within each trace, then plain recurrent layers."""

from __future__ import annotations

from typing import Literal

from pydantic import model_validator

from tunelab.models.family import Family, Layers, Penalty, Rate, RecurrentParams, as_list, check_lengths, length
from tunelab.models.recurrent import layers
from tunelab.models.stack import Signal, Stack


class DenseRnnParams(RecurrentParams):
    """Dense layers in front of recurrent ones."""

    family: Literal["dense_rnn"] = "dense_rnn"
    dense: Layers
    """Units of each dense layer."""
    units: Layers
    """Of each recurrent layer."""
    dropout: tuple[Rate, ...]
    """After each dense layer, then of each recurrent layer's inputs; one number stands for all."""
    l2: Penalty
    """On the kernels of dense layers and the input kernels of recurrent ones."""

    _fill = model_validator(mode="before")(
        as_list("dropout", lambda raw: length(raw, "dense") + length(raw, "units")),
    )
    _lengths = model_validator(mode="after")(
        check_lengths("dropout", lambda p: len(p.dense) + len(p.units), "dense and units together"),
    )


def assemble(params: DenseRnnParams, stack: Stack) -> Signal:
    """Normalisation; dense layers with dropout and normalisation after each; the recurrent layers."""
    x = stack.first_norm(stack.traces(), params.norm)
    for units, dropout in zip(params.dense, params.dropout, strict=False):
        x = stack.norm(stack.dropout(stack.dense(x, units, l2=params.l2), dropout), params.norm)
    rest = params.dropout[len(params.dense) :]
    return layers(stack, x, params, cell="simple", units=params.units, dropout=rest, l2=params.l2, first=False)


def outline(params: DenseRnnParams) -> str:
    """Such as ``dense100-rnn100``."""
    return "-".join([f"dense{units}" for units in params.dense] + [f"rnn{units}" for units in params.units])


FAMILY = Family(params=DenseRnnParams, assemble=assemble, outline=outline)
