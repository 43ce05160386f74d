"""Families as numbers: parameters, multiplications and recurrent steps of a model, without building it.

What is counted is the arithmetic of the plain layers in one pass forwards: products with kernels, and nothing for what
goes value by value. Training takes about three times that.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from tunelab.models.stack import Activation, Norm, Recurrence, Signal

if TYPE_CHECKING:
    from tunelab.models.conv_rnn import Convolution

_GATES = {"simple": 1, "lstm": 4, "gru": 3}


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What a model costs, known from its params and the samples of a trace."""

    parameters: int
    """All of them, moving statistics among them, as Keras counts them."""
    multiplications: int
    """For each trace, in one pass forwards; attention counts for scans of :data:`TRACES` traces."""
    recurrences: int
    """Recurrent passes along the traces of a scan, which run trace by trace."""


TRACES = 100
"""Of a scan, where a cost depends on that."""


class Tally:
    """See :class:`~tunelab.models.stack.Stack`; a signal's value is the number of positions, 0 where there are none.

    Args:
        n_samples: samples a trace.
    """

    def __init__(self, n_samples: int) -> None:
        self.n_samples = n_samples
        self._parameters = 0
        self._multiplications = 0.0
        self._recurrences = 0

    def cost(self, x: Signal) -> Cost:
        """Of the whole model, its answer from ``x`` among it."""
        self.dense(x, 2)
        return Cost(
            parameters=self._parameters,
            multiplications=round(self._multiplications),
            recurrences=self._recurrences,
        )

    def _kernel(self, x: Signal, size: int, units: int, *, bias: bool = True, places: int = 1) -> None:
        """A kernel of so many inputs and outputs, applied at so many places of each trace."""
        self._parameters += size * units + bias * units
        self._multiplications += size * units * places * x.mask

    def traces(self) -> Signal:
        """The traces; a mask is the share of all traces at which something is computed."""
        return Signal(value=0, mask=1.0, width=self.n_samples)

    def first_norm(self, x: Signal, kind: Norm, *, amplitude: bool = False) -> Signal:
        """Normalisation of the traces."""
        width = 1 if amplitude else x.width
        self._parameters += {"batch": 4 * width, "layer": 0 if amplitude else 2 * width, "none": 0}[kind]
        return x

    def norm(self, x: Signal, kind: Norm) -> Signal:
        """Normalisation of features or channels."""
        self._parameters += {"batch": 4, "layer": 2, "none": 0}[kind] * x.width
        return x

    def dense(self, x: Signal, units: int, activation: Activation = "linear", l2: float = 0.0) -> Signal:
        """A dense layer."""
        self._kernel(x, x.width, units)
        return replace(x, width=units)

    def dropout(self, x: Signal, rate: float) -> Signal:
        """Nothing."""
        return x

    def activate(self, x: Signal, activation: Activation) -> Signal:
        """Nothing."""
        return x

    def recurrent(self, x: Signal, layer: Recurrence) -> Signal:
        """A recurrent layer."""
        gates, ways = _GATES[layer.cell] * layer.units, 1 + layer.bidirectional
        for _ in range(ways):
            self._kernel(x, x.width, gates)
            self._kernel(x, layer.units, gates, bias=layer.cell == "gru")
        self._recurrences += ways
        return replace(x, width=layer.units * ways)

    def positions(self, x: Signal) -> Signal:
        """Samples apart."""
        return replace(x, value=x.width, width=1)

    def block(self, x: Signal, block: Convolution, norm: Norm, l2: float) -> Signal:
        """A block of ``conv_rnn``."""
        left = (x.value - block.kernel) // block.stride + 1
        self._kernel(x, block.kernel * x.width, block.filters, places=left)
        if block.pool is not None:
            left = (left - block.pool.size) // block.pool.stride + 1
        x = replace(x, value=left, width=block.filters)
        return self.norm(x, norm) if block.batch_norm != "none" else x

    def convolve(self, x: Signal, filters: int, traces: int, samples: int, l2: float = 0.0) -> Signal:
        """A convolution over traces x positions."""
        self._kernel(x, traces * samples * x.width, filters, places=x.value)
        return replace(x, width=filters)

    def pool(self, x: Signal, samples: int) -> Signal:
        """Fewer positions."""
        return replace(x, value=math.ceil(x.value / samples))

    def vector(self, x: Signal, how: str) -> Signal:
        """One vector of a trace."""
        return replace(x, value=0, width=x.width * x.value if how == "flatten" else x.width)

    def across(self, x: Signal, filters: int, kernel: int, dilation: int = 1, l2: float = 0.0) -> Signal:
        """A convolution across traces."""
        self._kernel(x, kernel * x.width, filters)
        return replace(x, width=filters)

    def attend(self, x: Signal, heads: int, reach: int, dropout: float = 0.0, l2: float = 0.0) -> Signal:
        """Attention within a scan."""
        self._kernel(x, x.width, 3 * x.width, bias=False)
        self._kernel(x, x.width, x.width)
        self._parameters += (2 * reach + 1) * heads
        self._multiplications += 2 * TRACES * x.width
        return x

    def add(self, x: Signal, y: Signal) -> Signal:
        """Nothing."""
        return y

    def join(self, x: Signal, y: Signal) -> Signal:
        """The features of both."""
        return replace(y, width=x.width + y.width)

    def halve(self, x: Signal) -> Signal:
        """Half as many traces."""
        return replace(x, mask=x.mask / 2)

    def double(self, x: Signal, like: Signal) -> Signal:
        """As many as before."""
        return replace(x, mask=like.mask)
