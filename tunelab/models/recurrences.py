"""Recurrences over inputs that have been projected before, with gradients of their own.

A recurrent layer multiplies its input and its state by a kernel each. The product with the input needs no state, so
whoever calls these functions has done it for all traces at once. What is left runs trace by trace, forwards and
backwards; the gradient of the recurrent kernel, a sum over traces of products of states with what flows back, is one
product at the end instead of one in each step. (Backpropagation through time: Werbos 1990; LSTM: Gers, Schmidhuber and
Cummins 2000, in the form that Keras computes.)

Shapes are (scan, trace, unit) outside and (trace, scan, unit) within. Nothing masks padding: it stands at the end of a
scan, and no true trace comes after it.
"""

from __future__ import annotations

from typing import Any

from keras import ops


def simple(projected: Any, kernel: Any) -> Any:
    """h[t] = tanh(projected[t] + h[t-1] kernel), with h zero before the first trace.

    Args:
        projected: shape (scan, trace, unit), the bias in it.
        kernel: shape (unit, unit).

    Returns:
        h, shape (scan, trace, unit).
    """
    return ops.swapaxes(_simple(ops.swapaxes(projected, 0, 1), kernel), 0, 1)


def lstm(projected: Any, kernel: Any) -> Any:
    """The LSTM with sigmoid gates and tanh, both states zero before the first trace.

    Args:
        projected: shape (scan, trace, 4 * unit), the bias in it: input gate, forget gate, candidate, output gate.
        kernel: shape (unit, 4 * unit).

    Returns:
        h, shape (scan, trace, unit).
    """
    return ops.swapaxes(_lstm(ops.swapaxes(projected, 0, 1), kernel), 0, 1)


@ops.custom_gradient  # type: ignore[untyped-decorator]
def _simple(z: Any, kernel: Any) -> Any:
    def forwards(before: Any, own: Any) -> Any:
        h = ops.tanh(own + ops.matmul(before, kernel))
        return h, h

    _, hidden = ops.scan(forwards, ops.zeros_like(z[0]), z)

    def gradient(*args: Any, upstream: Any = None) -> Any:
        above = args[0] if upstream is None else upstream
        slope = 1 - ops.square(hidden)
        transposed = ops.transpose(kernel)

        def backwards(after: Any, own: Any) -> Any:
            above, slope = ops.split(own, 2, axis=-1)
            dz = (above + ops.matmul(after, transposed)) * slope
            return dz, dz

        _, dz = ops.scan(backwards, ops.zeros_like(z[0]), _beside(above, slope), reverse=True)
        return dz, _product(_before(hidden), dz)

    return hidden, gradient


@ops.custom_gradient  # type: ignore[untyped-decorator]
def _lstm(z: Any, kernel: Any) -> Any:
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
    _, (hidden, cells, gates) = ops.scan(forwards, start, z)

    def gradient(*args: Any, upstream: Any = None) -> Any:
        above = args[0] if upstream is None else upstream
        i, f, g, o = ops.split(gates, 4, axis=-1)
        squashed = ops.tanh(cells)
        through = o * (1 - ops.square(squashed))
        slopes = (g * i * (1 - i), _before(cells) * f * (1 - f), i * (1 - ops.square(g)), squashed * o * (1 - o))
        transposed = ops.transpose(kernel)

        def backwards(after: Any, own: Any) -> Any:
            dz, dc = after
            above, through, f, slopes = ops.split(own, (units, 2 * units, 3 * units), axis=-1)
            dh = above + ops.matmul(dz, transposed)
            dc = dc + dh * through
            now = (_beside(dc, dc, dc, dh) * slopes, dc * f)
            return now, now

        start = (zeros, zeros[:, :units])
        _, (dz, _) = ops.scan(backwards, start, _beside(above, through, f, *slopes), reverse=True)
        return dz, _product(_before(hidden), dz)

    return hidden, gradient


def _beside(*arrays: Any) -> Any:
    """One array of all their units: Keras' scan takes no more than one whose number of traces is not known."""
    return ops.concatenate(arrays, axis=-1)


def _before(states: Any) -> Any:
    """The state before each trace, shape (trace, scan, unit)."""
    return ops.concatenate((ops.zeros_like(states[:1]), states[:-1]), axis=0)


def _product(states: Any, dz: Any) -> Any:
    """Sum over traces and scans of states times gradients, shape (unit, unit) or (unit, 4 * unit)."""
    rows = ops.reshape(states, (-1, states.shape[-1]))
    return ops.matmul(ops.transpose(rows), ops.reshape(dz, (-1, dz.shape[-1])))
