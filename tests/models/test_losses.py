"""Losses against formulas in NumPy, on scans of different lengths with anything in their padding; their slopes."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from keras import ops
from numpy.typing import NDArray

from tunelab.models.losses import TraceLoss, loss_of, smoothed
from tunelab.objective import Loss

pytestmark = pytest.mark.tf

LENGTHS = np.array([9, 5, 1, 7])
VALID = np.arange(9) < LENGTHS[:, None]
CLASS_WEIGHT = 3.0

WANTED: list[dict[str, Any]] = [
    {"kind": "cross_entropy", "edge_smoothing": 0.2},
    {"kind": "focal", "focus": 2.0},
    {"kind": "focal", "focus": 0.5, "edge_smoothing": 0.1},
    {"kind": "soft_f1"},
    {"kind": "soft_f1", "cross_entropy_share": 0.3},
    {"kind": "soft_f1", "cross_entropy_share": 1.0, "edge_smoothing": 0.05},
]


def make(**wanted: Any) -> keras.losses.Loss:
    return loss_of(Loss(**wanted).model_dump())


def batch(positives: float = 0.4) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Labels, shares and weights; labels and shares of padding are drawn too."""
    rng = np.random.default_rng(0)
    labels = (rng.random(VALID.shape) < positives).astype(np.int32)
    share = rng.uniform(0.02, 0.98, VALID.shape).astype(np.float32)
    weights = np.where(labels == 1, CLASS_WEIGHT, 1.0) * VALID
    return labels, np.stack([1 - share, share], axis=-1), weights.astype(np.float32)


def targets_of(labels: NDArray[Any], smoothing: float) -> NDArray[np.float64]:
    """Trace by trace."""
    targets = labels.astype(np.float64)
    for scan, length in enumerate(LENGTHS):
        for trace in range(length):
            beside = [labels[scan, other] for other in (trace - 1, trace + 1) if 0 <= other < length]
            if any(label != labels[scan, trace] for label in beside):
                targets[scan, trace] = abs(targets[scan, trace] - smoothing)
    return targets


def formula(labels: NDArray[Any], shares: NDArray[Any], weights: NDArray[Any], wanted: dict[str, Any]) -> float:
    t, w = targets_of(labels, wanted.get("edge_smoothing", 0.0))[VALID], weights[VALID].astype(np.float64)
    p = shares[..., 1][VALID].astype(np.float64)
    focus = wanted.get("focus", 2.0) if wanted["kind"] == "focal" else 0.0
    each = -t * (1 - p) ** focus * np.log(p) - (1 - t) * p**focus * np.log(1 - p)
    mean = float((w * each).sum() / w.sum())
    if wanted["kind"] != "soft_f1":
        return mean
    share = wanted.get("cross_entropy_share", 0.0)
    return (1 - share) * (1 - 2 * (t * p).sum() / (t.sum() + p.sum())) + share * mean


def slopes(loss: keras.losses.Loss, labels: Any, shares: Any, weights: Any) -> NDArray[np.float32]:
    """By the shares, shape (scan, trace, 2)."""
    if keras.backend.backend() != "tensorflow":
        pytest.skip("asks TensorFlow for gradients")
    import tensorflow as tf

    given = tf.constant(shares)
    with tf.GradientTape() as tape:
        tape.watch(given)
        value = loss(labels, given, sample_weight=weights)
    return np.asarray(tape.gradient(value, given))


@pytest.mark.parametrize("wanted", WANTED, ids=str)
def test_a_loss_is_its_formula(wanted: dict[str, Any]) -> None:
    labels, shares, weights = batch()
    found = make(**wanted)(labels, shares, sample_weight=weights)
    assert found.shape == ()
    assert float(found) == pytest.approx(formula(labels, shares, weights, wanted), rel=1e-5)


@pytest.mark.parametrize("wanted", WANTED, ids=str)
def test_padding_is_no_part_of_a_loss(wanted: dict[str, Any]) -> None:
    loss, (labels, shares, weights) = make(**wanted), batch()
    found = float(loss(labels, shares, sample_weight=weights))
    gradient = slopes(loss, labels, shares, weights)
    assert not gradient[~VALID].any()
    assert gradient[VALID][:, 1].all()
    other = np.where(VALID, labels, 1 - labels), np.where(VALID[..., None], shares, 0.5).astype(np.float32), weights
    assert float(loss(other[0], other[1], sample_weight=weights)) == found
    np.testing.assert_array_equal(slopes(loss, *other), gradient)
    longer = [np.pad(one, [(0, 0), (0, 3)] + [(0, 0)] * (one.ndim - 2), mode="edge") for one in (labels, shares)]
    more = loss(*longer, sample_weight=np.pad(weights, [(0, 0), (0, 3)]))
    assert float(more) == pytest.approx(found, rel=1e-6)


@pytest.mark.parametrize("wanted", WANTED, ids=str)
def test_slopes_are_finite_where_answers_are_certain(wanted: dict[str, Any]) -> None:
    labels, shares, weights = batch()
    loss = make(**wanted)
    positive = np.zeros_like(shares)
    positive[..., 1] = 1
    for given in (np.round(shares), positive, 1 - positive):
        assert np.isfinite(float(loss(labels, given, sample_weight=weights)))
        assert np.isfinite(slopes(loss, labels, given, weights)).all()


@pytest.mark.parametrize("wanted", WANTED, ids=str)
def test_a_batch_without_positives_has_a_loss(wanted: dict[str, Any]) -> None:
    labels, shares, weights = batch(positives=0.0)
    loss = make(**wanted)
    assert float(loss(labels, shares, sample_weight=weights)) == pytest.approx(
        formula(labels, shares, weights, wanted), rel=1e-5
    )
    assert np.isfinite(slopes(loss, labels, shares, weights)).all()


def test_a_batch_without_positives_teaches_soft_f1_by_cross_entropy_alone() -> None:
    labels, shares, weights = batch(positives=0.0)
    assert float(make(kind="soft_f1")(labels, shares, sample_weight=weights)) == 1.0
    assert np.abs(slopes(make(kind="soft_f1"), labels, shares, weights)).max() < 1e-6
    mixed = slopes(make(kind="soft_f1", cross_entropy_share=0.2), labels, shares, weights)
    assert np.abs(mixed[VALID]).max() > 1e-3


def test_class_weights_leave_soft_f1_alone() -> None:
    labels, shares, weights = batch()
    heavier = np.where(labels == 1, 5 * weights, weights)
    for share, same in ((0.0, True), (0.5, False)):
        loss = make(kind="soft_f1", cross_entropy_share=share)
        values = [float(loss(labels, shares, sample_weight=some)) for some in (weights, heavier)]
        assert (values[0] == values[1]) is same


def test_focal_loss_without_focus_is_cross_entropy() -> None:
    labels, shares, weights = batch()
    plain = make()
    assert type(plain) is keras.losses.SparseCategoricalCrossentropy
    assert plain.reduction == "mean_with_sample_weight"
    expected = float(plain(labels, shares, sample_weight=weights))
    focal = make(kind="focal", focus=0.0)
    assert float(focal(labels, shares, sample_weight=weights)) == pytest.approx(expected, rel=1e-6)
    np.testing.assert_allclose(
        np.diff(slopes(focal, labels, shares, weights)), np.diff(slopes(plain, labels, shares, weights)), rtol=1e-4
    )


def test_a_focus_counts_what_is_answered_well_for_less() -> None:
    labels, shares, weights = np.array([[1, 1]]), np.array([[[0.1, 0.9], [0.7, 0.3]]], np.float32), np.ones((1, 2))
    found = [np.abs(slopes(make(kind="focal", focus=f), labels, shares, weights))[0, :, 1] for f in (0.0, 1.0, 3.0)]
    ratios = [well / badly for well, badly in found]
    assert ratios[0] > 3 * ratios[1] > 9 * ratios[2]


def test_targets_beside_an_edge_are_smoothed_and_padding_is_no_neighbour() -> None:
    labels = np.array([[0, 0, 1, 1, 1, 0, 1], [1, 1, 1, 0, 0, 0, 0], [1, 0, 0, 0, 0, 0, 0], [0, 0, 0, 0, 1, 1, 1]])
    valid = np.array([[1] * 7, [1] * 3 + [0] * 4, [1] + [0] * 6, [1] * 5 + [0] * 2])
    found = smoothed(ops.cast(labels, "float32"), ops.cast(valid, "float32"), 0.25)
    a, b = 0.75, 0.25
    expected = [[0, b, a, 1, a, b, a], [1, 1, 1, 0, 0, 0, 0], [1, 0, 0, 0, 0, 0, 0], [0, 0, 0, b, a, 1, 1]]
    np.testing.assert_array_equal(np.asarray(found), expected)


def test_scans_of_one_trace_have_no_edges() -> None:
    loss = make(edge_smoothing=0.3)
    assert isinstance(loss, TraceLoss)
    shares = np.array([[[0.2, 0.8]], [[0.4, 0.6]]], np.float32)
    found = float(loss(np.array([[1], [0]]), shares, sample_weight=np.ones((2, 1), np.float32)))
    assert found == pytest.approx(-(np.log(0.8) + np.log(0.4)) / 2, rel=1e-6)
