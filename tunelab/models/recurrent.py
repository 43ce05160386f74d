"""Recurrent layers as several families stack them."""

from __future__ import annotations

from collections.abc import Sequence

from tunelab.models.family import RecurrentParams
from tunelab.models.stack import Cell, Recurrence, Signal, Stack


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
