"""What training minimises over the traces of a batch, made of :class:`tunelab.objective.Loss`.

Shapes: labels and weights (scan, trace), shares of negative and positive (scan, trace, 2). A weight is 0 on padding,
which is then no part of any loss and no trace's neighbour; the class weight on a positive trace; 1 on a negative one.

- Cross-entropy and focal loss are means over traces by these weights.
- 1 - soft F1 is 1 - 2 sum(t p) / (sum(t) + sum(p)) over all valid traces of the batch, t the target and p the share of
  "positive". F1 balances the classes itself, so class weights act on the share of cross-entropy alone. Keras adds 1e-7
  to the denominator: a batch without positives has a loss of 1 and hardly a slope, but for cross-entropy's share.
- A trace whose neighbour has the other label is at an edge, where people and surveys err by a trace. With smoothing s
  its target is 1 - s or s.

Numbers are on dials, so that trials that differ in them share a compiled step.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
from keras import ops

from tunelab.models.dials import Dial


def loss_of(wanted: Mapping[str, Any]) -> keras.losses.Loss:
    """The loss to compile a model with.

    Args:
        wanted: :class:`tunelab.objective.Loss`, in full.
    """
    if wanted["kind"] == "cross_entropy" and not wanted["edge_smoothing"]:
        return keras.losses.SparseCategoricalCrossentropy(reduction="mean_with_sample_weight")
    return TraceLoss(wanted)


class TraceLoss(keras.losses.Loss):  # type: ignore[misc]
    """One that sees the weights of traces, from which it knows what is padding."""

    def __init__(self, wanted: Mapping[str, Any]) -> None:
        super().__init__(name="loss", reduction="mean_with_sample_weight")
        self.kind = wanted["kind"]
        self.smooth = bool(wanted["edge_smoothing"])
        self.mixed = bool(wanted["cross_entropy_share"])
        self.smoothing = Dial(wanted["edge_smoothing"])
        self.focus = Dial(wanted["focus"])
        self.share = Dial(wanted["cross_entropy_share"])

    def __call__(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        """Labels, shares and weights -> a number."""
        shares = ops.convert_to_tensor(y_pred, dtype=self.dtype)
        labels = ops.cast(y_true, self.dtype)
        weights = ops.ones_like(labels) if sample_weight is None else ops.cast(sample_weight, self.dtype)
        valid = ops.cast(weights > 0, self.dtype)
        targets = smoothed(labels, valid, self.smoothing()) if self.smooth else labels
        both = ops.stack([1 - targets, targets], axis=-1)
        if self.kind == "focal":
            return _mean(keras.losses.categorical_focal_crossentropy(both, shares, 1.0, self.focus()), weights)
        if self.kind == "soft_f1":
            soft = keras.losses.dice(targets * valid, shares[..., 1] * valid)
            if not self.mixed:
                return soft
            mean = _mean(keras.losses.categorical_crossentropy(both, shares), weights)
            return (1 - self.share()) * soft + self.share() * mean
        return _mean(keras.losses.categorical_crossentropy(both, shares), weights)


def smoothed(labels: Any, valid: Any, smoothing: Any) -> Any:
    """Targets between 0 and 1: labels, and next to a trace of the other label something less sharp.

    Args:
        labels: 0 and 1 as floats, shape (scan, trace).
        valid: 1 where a trace is no padding, otherwise 0, shape (scan, trace).
        smoothing: how much less.
    """
    steps = ops.abs(labels[:, 1:] - labels[:, :-1]) * valid[:, 1:] * valid[:, :-1]
    edges = ops.maximum(ops.pad(steps, [[0, 0], [0, 1]]), ops.pad(steps, [[0, 0], [1, 0]]))
    return labels + edges * smoothing * (1 - 2 * labels)


def _mean(losses: Any, weights: Any) -> Any:
    """As Keras reduces by ``mean_with_sample_weight``."""
    return ops.divide_no_nan(ops.sum(losses * weights), ops.sum(weights))
