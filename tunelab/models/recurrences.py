"""Recurrences over inputs that have been projected before, with gradients of their own.

A recurrent layer multiplies its input and its state by a kernel each. The product with the input needs no state, so
whoever calls these functions has done it for all traces at once. What is left runs trace by trace, forwards and
backwards; the gradient of the recurrent kernel, a sum over traces of products of states with what flows back, is one
product at the end instead of one in each step. (Backpropagation through time: Werbos 1990; LSTM: Gers, Schmidhuber and
Cummins 2000; GRU: Cho et al. 2014, its reset gate after the product; all in the form that Keras computes.)

Shapes are (scan, trace, unit) outside and (trace, scan, unit) within. Nothing masks padding, which stands at the end of
a scan: from the first trace to the last, no true trace comes after it. From the last to the first it comes before them,
so there the projected input of padding must be what :data:`QUIET` names, which keeps the state at zero.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from keras import ops

QUIET = {"simple": (0.0,), "lstm": (0.0,), "gru": (1e4, 0.0, 0.0)}
"""Projected input that leaves a state of zero at zero, one number for each gate or one for all: a candidate of zero, or
an update gate that is wide open."""


def simple(projected: Any, kernel: Any, *, reverse: bool = False) -> Any:
    """h[t] = tanh(projected[t] + h[t-1] kernel), with h zero before the first trace.

    Args:
        projected: shape (scan, trace, unit), the bias in it.
        kernel: shape (unit, unit).
        reverse: whether to go from the last trace to the first.

    Returns:
        h, shape (scan, trace, unit).
    """
    return ops.swapaxes(_simple(reverse)(ops.swapaxes(projected, 0, 1), kernel), 0, 1)


def lstm(projected: Any, kernel: Any, *, reverse: bool = False) -> Any:
    """The LSTM with sigmoid gates and tanh, both states zero before the first trace.

    Args:
        projected: shape (scan, trace, 4 * unit), the bias in it: input gate, forget gate, candidate, output gate.
        kernel: shape (unit, 4 * unit).
        reverse: whether to go from the last trace to the first.

    Returns:
        h, shape (scan, trace, unit).
    """
    return ops.swapaxes(_lstm(reverse)(ops.swapaxes(projected, 0, 1), kernel), 0, 1)


def gru(projected: Any, kernel: Any, bias: Any, *, reverse: bool = False) -> Any:
    """The GRU with sigmoid gates and tanh, its state zero before the first trace.

    Args:
        projected: shape (scan, trace, 3 * unit), the input's bias in it: update gate, reset gate, candidate.
        kernel: shape (unit, 3 * unit).
        bias: of the product with the state, shape (3 * unit,).
        reverse: whether to go from the last trace to the first.

    Returns:
        h, shape (scan, trace, unit).
    """
    return ops.swapaxes(_gru(reverse)(ops.swapaxes(projected, 0, 1), kernel, bias), 0, 1)


@cache
def _simple(reverse: bool) -> Callable[[Any, Any], Any]:
    @ops.custom_gradient  # type: ignore[untyped-decorator]
    def run(z: Any, kernel: Any) -> Any:
        def forwards(before: Any, own: Any) -> Any:
            h = ops.tanh(own + ops.matmul(before, kernel))
            return h, h

        _, hidden = ops.scan(forwards, ops.zeros_like(z[0]), z, reverse=reverse)

        def gradient(*args: Any, upstream: Any = None) -> Any:
            above = args[0] if upstream is None else upstream
            slope = 1 - ops.square(hidden)
            transposed = ops.transpose(kernel)

            def backwards(after: Any, own: Any) -> Any:
                above, slope = ops.split(own, 2, axis=-1)
                dz = (above + ops.matmul(after, transposed)) * slope
                return dz, dz

            _, dz = ops.scan(backwards, ops.zeros_like(z[0]), _beside(above, slope), reverse=not reverse)
            return dz, _product(_before(hidden, reverse), dz)

        return hidden, gradient

    return run  # type: ignore[no-any-return]


@cache
def _lstm(reverse: bool) -> Callable[[Any, Any], Any]:
    @ops.custom_gradient  # type: ignore[untyped-decorator]
    def run(z: Any, kernel: Any) -> Any:
        units = kernel.shape[0]

        # what a step hands on and what it leaves behind are the same, as TensorFlow's scan wants it
        def forwards(before: Any, own: Any) -> Any:
            h, c, _ = before
            i, f, g, o = ops.split(own + ops.matmul(h, kernel), 4, axis=-1)
            i, f, g, o = ops.sigmoid(i), ops.sigmoid(f), ops.tanh(g), ops.sigmoid(o)
            c = f * c + i * g
            now = (o * ops.tanh(c), c, _beside(i, f, g, o))
            return now, now

        zeros = ops.zeros_like(z[0])
        start = (zeros[:, :units], zeros[:, :units], zeros)
        _, (hidden, cells, gates) = ops.scan(forwards, start, z, reverse=reverse)

        def gradient(*args: Any, upstream: Any = None) -> Any:
            above = args[0] if upstream is None else upstream
            i, f, g, o = ops.split(gates, 4, axis=-1)
            squashed = ops.tanh(cells)
            through = o * (1 - ops.square(squashed))
            before = _before(cells, reverse)
            slopes = (g * i * (1 - i), before * f * (1 - f), i * (1 - ops.square(g)), squashed * o * (1 - o))
            transposed = ops.transpose(kernel)

            def backwards(after: Any, own: Any) -> Any:
                dz, dc = after
                above, through, f, slopes = ops.split(own, (units, 2 * units, 3 * units), axis=-1)
                dh = above + ops.matmul(dz, transposed)
                dc = dc + dh * through
                now = (_beside(dc, dc, dc, dh) * slopes, dc * f)
                return now, now

            start = (zeros, zeros[:, :units])
            _, (dz, _) = ops.scan(backwards, start, _beside(above, through, f, *slopes), reverse=not reverse)
            return dz, _product(_before(hidden, reverse), dz)

        return hidden, gradient

    return run  # type: ignore[no-any-return]


@cache
def _gru(reverse: bool) -> Callable[[Any, Any, Any], Any]:
    @ops.custom_gradient  # type: ignore[untyped-decorator]
    def run(z: Any, kernel: Any, bias: Any) -> Any:
        units = kernel.shape[0]

        def forwards(before: Any, own: Any) -> Any:
            h, _ = before
            update_x, reset_x, candidate_x = ops.split(own, 3, axis=-1)
            update_h, reset_h, candidate_h = ops.split(ops.matmul(h, kernel) + bias, 3, axis=-1)
            update, reset = ops.sigmoid(update_x + update_h), ops.sigmoid(reset_x + reset_h)
            candidate = ops.tanh(candidate_x + reset * candidate_h)
            now = (update * h + (1 - update) * candidate, _beside(update, reset, candidate, candidate_h))
            return now, now

        zeros = ops.zeros_like(z[0])
        start = (zeros[:, :units], ops.concatenate((zeros, zeros[:, :units]), axis=-1))
        _, (hidden, kept) = ops.scan(forwards, start, z, reverse=reverse)

        def gradient(*args: Any, upstream: Any = None) -> Any:
            above = args[0] if upstream is None else upstream
            update, reset, candidate, candidate_h = ops.split(kept, 4, axis=-1)
            before = _before(hidden, reverse)
            # dh times these: what flows to the update gate, the reset gate, the candidate
            to_candidate = (1 - update) * (1 - ops.square(candidate))
            slopes = (
                (before - candidate) * update * (1 - update),
                to_candidate * candidate_h * reset * (1 - reset),
                to_candidate,
            )
            transposed = ops.transpose(kernel)

            def backwards(after: Any, own: Any) -> Any:
                dh, _ = after
                above, update, reset, slopes = ops.split(own, (units, 2 * units, 3 * units), axis=-1)
                dh = dh + above
                dz = _beside(dh, dh, dh) * slopes
                inner = _beside(dz[:, : 2 * units], dz[:, 2 * units :] * reset)
                now = (dh * update + ops.matmul(inner, transposed), dz)
                return now, now

            _, (_, dz) = ops.scan(
                backwards,
                (zeros[:, :units], zeros),
                _beside(above, update, reset, *slopes),
                reverse=not reverse,
            )
            inner = _beside(dz[..., : 2 * units], dz[..., 2 * units :] * reset)
            return dz, _product(before, inner), ops.sum(inner, axis=(0, 1))

        return hidden, gradient

    return run  # type: ignore[no-any-return]


def _beside(*arrays: Any) -> Any:
    """One array of all their units: Keras' scan takes no more than one whose number of traces is not known."""
    return ops.concatenate(arrays, axis=-1)


def _before(states: Any, reverse: bool) -> Any:
    """The state before each trace was read, shape (trace, scan, unit)."""
    if reverse:
        return ops.concatenate((states[1:], ops.zeros_like(states[:1])), axis=0)
    return ops.concatenate((ops.zeros_like(states[:1]), states[:-1]), axis=0)


def _product(states: Any, dz: Any) -> Any:
    """Sum over traces and scans of states times gradients, shape (unit, unit) or a number of gates times that."""
    rows = ops.reshape(states, (-1, states.shape[-1]))
    return ops.matmul(ops.transpose(rows), ops.reshape(dz, (-1, dz.shape[-1])))
