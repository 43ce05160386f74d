"""What makes one vector of each trace, in front of layers that go across traces. Several families begin with it."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import model_validator

from tunelab.models.family import Layers, Section, Size, check_lengths, length
from tunelab.models.stack import Norm, Signal, Stack


class Front(Section):
    """A dense layer with every sample of a trace an input, or convolutions and then a dense layer."""

    kind: Literal["dense", "convolution"]
    """Which of the two; ``units`` is all that dense takes."""
    units: Size = 64
    """Of the dense layer: the length of the vector."""
    filters: Layers = (16, 24, 32, 32)
    """Of convolutions, each a block with pooling, normalisation and the positive part."""
    traces: Size = 1
    """Width of their kernels; 1 looks at each trace alone."""
    samples: Size = 5
    """Height of their kernels."""
    pool: tuple[Size, ...] = (2, 2, 2, 2)
    """Samples that become one in each block, the largest of them; one number stands for all."""
    reduce: Literal["flatten", "average", "maximum"] = "flatten"
    """How the positions that convolutions leave become the dense layer's input."""

    @model_validator(mode="before")
    @classmethod
    def _pools(cls, raw: Any) -> Any:
        if not isinstance(raw, dict):
            return raw
        pool, blocks = raw.get("pool", 2), length({"filters": (0,) * 4, **raw}, "filters")
        return {**raw, "pool": [pool] * blocks} if isinstance(pool, int) and not isinstance(pool, bool) else raw

    _lengths = model_validator(mode="after")(check_lengths("pool", lambda p: len(p.filters), "filters"))


def vectors(stack: Stack, front: Front, *, norm: Norm, dropout: float, l2: float, residual: bool = False) -> Signal:
    """The vector of each trace, shape (scan, trace, unit).

    Args:
        stack: of which layers are made.
        front: which layers.
        norm: what normalises the traces and the layers' values.
        dropout: after each block, of whole channels and at half this rate; after each dense layer, of features.
        l2: penalty of kernels.
        residual: whether blocks are passed by, where they change neither channels nor positions.
    """
    if front.kind == "dense":
        x = stack.dense(stack.first_norm(stack.traces(), norm), front.units, "relu", l2=l2)
        return stack.dropout(x, dropout)
    x = stack.positions(stack.first_norm(stack.traces(), norm, amplitude=True))
    for filters, pool in zip(front.filters, front.pool, strict=True):
        y = stack.convolve(x, filters, front.traces, front.samples, l2=l2)
        y = stack.norm(stack.pool(y, pool) if pool > 1 else y, norm)
        if residual and pool == 1 and filters == x.width:
            y = stack.add(x, y)
        x = stack.dropout(stack.activate(y, "relu"), dropout / 2)
    x = stack.dense(stack.vector(x, front.reduce), front.units, "relu", l2=l2)
    return stack.dropout(x, dropout)


def outline(front: Front) -> str:
    """Such as ``dense64`` or ``conv16x24k3x5``."""
    if front.kind == "dense":
        return f"dense{front.units}"
    filters = "x".join(str(filters) for filters in front.filters)
    return f"conv{filters}k{front.traces}x{front.samples}-{front.reduce}-dense{front.units}"
