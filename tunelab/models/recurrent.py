"""Recurrent layers as several families stack them."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field, model_validator

from tunelab.models.family import Layers, Penalty, Rate, RecurrentParams, as_list, check_lengths, length
from tunelab.models.stack import Cell, Recurrence, Signal, Stack


class FrontedParams(RecurrentParams):
    """Of recurrent layers behind a front that makes one vector of each trace."""

    cell: Cell = "gru"
    """Kind of the recurrent layers."""
    bidirectional: bool = Field(default=True, strict=True)
    """Whether recurrent layers go over the traces in both directions, with so many units each."""
    units: Layers
    """Of each recurrent layer and direction."""
    dropout: tuple[Rate, ...]
    """Of each recurrent layer's inputs; one number stands for all."""
    l2: Penalty
    """On all kernels but those of recurrent states."""

    _fill = model_validator(mode="before")(as_list("dropout", lambda raw: length(raw, "units")))
    _lengths = model_validator(mode="after")(check_lengths("dropout", lambda p: len(p.units), "units"))


def behind(stack: Stack, x: Signal, params: FrontedParams) -> Signal:
    """The recurrent layers behind a front's vectors, each of which may be passed by."""
    return layers(
        stack, x, params, cell=params.cell, units=params.units, dropout=params.dropout, l2=params.l2, first=False
    )


def outline(front: str, params: FrontedParams) -> str:
    """The front's outline and the recurrent layers, such as ``dense64-bigru48``."""
    word = ("bi" if params.bidirectional else "") + params.cell
    return "-".join([front, *(f"{word}{units}" for units in params.units)])


def layers(
    stack: Stack,
    x: Signal,
    params: RecurrentParams,
    *,
    cell: Cell,
    units: Sequence[int],
    dropout: Sequence[float],
    l2: float,
    first: bool = True,
) -> Signal:
    """One recurrent layer after another, with the options of :class:`~tunelab.models.family.RecurrentParams`.

    Args:
        stack: of which they are made.
        x: their input.
        params: with the options.
        cell: kind of the layers.
        units: of each.
        dropout: of the inputs of each.
        l2: penalty of the input kernels.
        first: whether the first one may not be passed by, as what enters it is the traces themselves.
    """
    for i, (size, rate) in enumerate(zip(units, dropout, strict=True)):
        layer = Recurrence(
            cell=cell,
            units=size,
            dropout=rate,
            recurrent_dropout=params.recurrent_dropout,
            bidirectional=params.bidirectional,
            l2=l2,
        )
        y = stack.recurrent(x, layer)
        x = passed_by(stack, x, y, l2) if params.residual and (i or not first) else y
    return x


def passed_by(stack: Stack, x: Signal, y: Signal, l2: float) -> Signal:
    """The sum of a layer's input and its output, by way of a linear layer where their widths differ."""
    return stack.add(x if x.width == y.width else stack.dense(x, y.width, l2=l2), y)
