"""What families are assembled of: layers by name, and what passes from one to the next.

A family says once which layers follow each other. Each kind of stack makes something else of that: plain Keras layers
(:mod:`tunelab.models.plain_stack`), layers that compute the same faster (:mod:`tunelab.models.fast_stack`), or the
number of parameters and multiplications, without Keras (:mod:`tunelab.models.tally`). The first two create their
weights in the same order, and in all of them padding reaches no trace that is none.

Shapes are (scan, trace, feature), or (scan, trace, position, channel) where the samples of a trace are still apart.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    from tunelab.models.conv_rnn import Convolution

Activation = Literal["linear", "relu", "elu", "tanh"]
Cell = Literal["simple", "lstm", "gru"]
Norm = Literal["batch", "layer", "none"]
"""Batch normalisation over all traces, layer normalisation of each trace (or position) by itself, or nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Signal:
    """What passes from layer to layer. Families hand it on and look at nothing but its width."""

    value: Any
    mask: Any
    """Shape (scan, trace), true where a trace is no padding."""
    width: int
    """Features, or channels."""
    affine: Any = None
    """Scale and offset that are still to be applied to the value."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recurrence:
    """A recurrent layer, in words."""

    cell: Cell
    units: int
    """Features that come out, of each direction."""
    dropout: float = 0.0
    """Of its input's features."""
    recurrent_dropout: float = 0.0
    """Of its states."""
    bidirectional: bool = False
    l2: float = 0.0
    """Penalty of its input kernel."""


class Stack(Protocol):
    """Layers by name. Rates of dropout and penalties of kernels (l2) of 0 add nothing."""

    def traces(self) -> Signal:
        """The traces as they are fed, normalised by the statistics of the training scans where params say so."""

    def first_norm(self, x: Signal, kind: Norm, *, amplitude: bool = False) -> Signal:
        """Normalisation of :meth:`traces`: each sample for itself, or (amplitude) all samples by the same numbers."""

    def norm(self, x: Signal, kind: Norm) -> Signal:
        """Normalisation of features, or of channels."""

    def dense(self, x: Signal, units: int, activation: Activation = "linear", l2: float = 0.0) -> Signal:
        """A dense layer within each trace."""

    def dropout(self, x: Signal, rate: float) -> Signal:
        """Of features; of whole channels of a scan where samples are apart."""

    def activate(self, x: Signal, activation: Activation) -> Signal:
        """An activation by itself."""

    def recurrent(self, x: Signal, layer: Recurrence) -> Signal:
        """A recurrent layer over traces. One mask of dropout holds for all traces of a scan."""

    def positions(self, x: Signal) -> Signal:
        """(scan, trace, sample) -> (scan, trace, position, 1)."""

    def block(self, x: Signal, block: Convolution, norm: Norm, l2: float) -> Signal:
        """A block of ``conv_rnn``: nothing passes from trace to trace, and the ends are not padded."""

    def convolve(self, x: Signal, filters: int, traces: int, samples: int, l2: float = 0.0) -> Signal:
        """A convolution over traces x positions, as many of both as before; beyond the scan all is zero."""

    def pool(self, x: Signal, samples: int) -> Signal:
        """The maximum over so many positions."""

    def vector(self, x: Signal, how: Literal["flatten", "average", "maximum"]) -> Signal:
        """One vector of a trace, of its positions."""

    def across(self, x: Signal, filters: int, kernel: int, dilation: int = 1, l2: float = 0.0) -> Signal:
        """A convolution across traces, as many as before; beyond the scan all is zero."""

    def attend(self, x: Signal, heads: int, reach: int, dropout: float = 0.0, l2: float = 0.0) -> Signal:
        """Attention of each trace to all of its scan, with a learned bias for each distance up to ``reach``."""

    def add(self, x: Signal, y: Signal) -> Signal:
        """The sum of two of one width."""

    def join(self, x: Signal, y: Signal) -> Signal:
        """The features of both."""

    def halve(self, x: Signal) -> Signal:
        """The maximum over every two traces; the last of an odd number stays by itself."""

    def double(self, x: Signal, like: Signal) -> Signal:
        """Each trace twice, as many as ``like`` has."""
