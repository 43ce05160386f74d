from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sklearn import metrics as theirs

from tunelab.metrics import (
    MOST_LIFT,
    Counts,
    Interval,
    always_positive_f1,
    average_precision,
    best_threshold,
    bootstrap_interval,
    count,
    counts_by_scan,
    lift,
    mean_jaccard,
)

ANY = st.floats(-1e308, 1e308) | st.sampled_from([0.0, 0.25, 0.5, 1.0])  # ties are frequent
EDGES = st.sampled_from([0.0, 5e-324, 0.5, np.nextafter(0.5, 0), np.nextafter(1, 0), 1.0, math.inf, -math.inf])


def split(scores=ANY, size=60):
    """Labels and scores of one length."""
    return st.lists(st.tuples(st.integers(0, 1), scores), min_size=1, max_size=size).map(
        lambda pairs: (np.array([p[0] for p in pairs]), np.array([p[1] for p in pairs], dtype=float))
    )


def same(one: float, other: float) -> bool:
    return (math.isnan(one) and math.isnan(other)) or abs(one - other) <= 1e-9


@settings(deadline=None)
@given(split(), st.floats(0, 1))
@example((np.zeros(5, int), np.full(5, 0.2)), 0.5)
@example((np.ones(5, int), np.full(5, 0.2)), 0.5)
@example((np.ones(5, int), np.full(5, 0.7)), 0.5)
@example((np.zeros(5, int), np.full(5, 0.7)), 0.5)
def test_precision_recall_f1_and_jaccard_are_those_of_scikit_learn(data, threshold):
    labels, scores = data
    answer = scores >= threshold
    ours = count(labels, scores, threshold)
    assert same(ours.precision, theirs.precision_score(labels, answer, zero_division=np.nan))
    assert same(ours.recall, theirs.recall_score(labels, answer, zero_division=np.nan))
    assert same(ours.f1, theirs.f1_score(labels, answer, zero_division=np.nan))
    if labels.any() or answer.any():  # scikit-learn takes no NaN there
        assert same(ours.jaccard, theirs.jaccard_score(labels, answer))
    else:
        assert math.isnan(ours.jaccard)
    assert ours.tp + ours.fp + ours.fn + ours.tn == labels.size


@settings(deadline=None)
@given(split())
def test_average_precision_is_that_of_scikit_learn_and_nan_without_a_positive(data):
    labels, scores = data
    ours = average_precision(labels, scores)
    if labels.any():
        assert same(ours, theirs.average_precision_score(labels, scores))
        assert 0 < ours <= 1
    else:
        assert math.isnan(ours)  # scikit-learn warns and answers 0, which would rank among real answers


def test_average_precision_on_a_case_worked_by_hand():
    # from the highest score: positive (1/1), then a tie of a negative and a positive (2/3), then a negative
    assert average_precision([1, 0, 1, 0], [0.9, 0.5, 0.5, 0.1]) == pytest.approx(0.5 * 1 + 0.5 * 2 / 3, abs=1e-12)


def test_average_precision_of_equal_scores_is_the_share_of_positives():
    assert average_precision([1, 0, 0, 0], [0.3] * 4) == pytest.approx(0.25, abs=1e-12)


def test_equal_infinities_are_one_step():
    assert average_precision([1, 0], [math.inf, math.inf]) == 0.5


@pytest.mark.parametrize("labels", [[], [0, 0], [1, 1], [1, 0]])
def test_nothing_valid_one_class_and_nan_scores_are_undefined_and_never_an_exception(labels):
    empty = count([], [])
    assert empty == Counts(0, 0, 0, 0)
    assert all(math.isnan(v) for v in (empty.precision, empty.recall, empty.f1, empty.jaccard))
    bad = [math.nan] * len(labels)
    assert math.isnan(average_precision(labels, bad))
    assert best_threshold(labels, bad) == 0.5
    assert count(labels, bad).tp == count(labels, bad).fp == 0


def test_a_split_of_nothing_but_padding_is_the_empty_one():
    lengths, labels, scores = np.array([0, 0]), np.ones((2, 3), int), np.ones((2, 3))
    valid = np.arange(3) < lengths[:, None]
    assert math.isnan(average_precision(labels[valid], scores[valid]))
    assert best_threshold(labels[valid], scores[valid]) == 0.5
    assert math.isnan(mean_jaccard(labels[valid], scores[valid], np.zeros(0, int)))
    interval = bootstrap_interval(labels[valid], scores[valid], np.zeros(0, int), average_precision)
    assert math.isnan(interval.low)
    assert math.isnan(interval.high)


@pytest.mark.parametrize(("labels", "scores"), [([0, 1], [0.5]), ([[0, 1]], [[0.5, 0.5]])])
def test_lengths_and_dimensions_that_differ_are_refused(labels, scores):
    with pytest.raises(ValueError, match=r"one-dimensional and of one length, not \("):
        count(labels, scores)


def test_scans_of_another_length_are_refused_not_cut():
    with pytest.raises(ValueError, match=r"of one length, not \(3,\), \(3,\), \(2,\)"):
        mean_jaccard([1, 0, 1], [0.9, 0.9, 0.9], [0, 0])
    with pytest.raises(ValueError, match=r"of one length"):
        bootstrap_interval([1, 0, 1], [0.9, 0.9, 0.9], [0, 0], average_precision)


def highest_f1(labels, scores) -> float:
    """Over every decision that a threshold can make and that answers something positive."""
    return max(count(labels, scores, t).f1 for t in np.unique(scores))


@settings(deadline=None)
@given(split(ANY | EDGES))
@example((np.array([1, 0]), np.array([0.5, np.nextafter(0.5, 0)])))
@example((np.array([1, 0]), np.array([1e308, 9e307])))
@example((np.array([1, 0]), np.array([math.inf, 0.0])))
@example((np.array([1, 0]), np.array([0.0, -math.inf])))
@example((np.array([0, 1]), np.array([-math.inf, math.inf])))
def test_the_decision_at_the_best_threshold_has_the_highest_f1_there_is(data):
    labels, scores = data
    threshold = best_threshold(labels, scores)
    if labels.any():
        assert count(labels, scores, threshold).f1 == highest_f1(labels, scores)
    else:
        assert threshold == 0.5


def test_lift_is_average_precision_above_chance_in_standard_errors_of_a_jackknife():
    rng = np.random.default_rng(0)
    scans = np.repeat(np.arange(12), 30)
    labels = (rng.random(360) < 0.2).astype(int)
    scores = rng.random(360) + 0.4 * labels
    whole = theirs.average_precision_score(labels, scores)
    without = [theirs.average_precision_score(labels[scans != one], scores[scans != one]) for one in range(12)]
    error = np.sqrt(11 / 12 * np.sum((np.array(without) - np.mean(without)) ** 2))
    assert lift(labels, scores, scans) == pytest.approx((whole - labels.mean()) / error)
    shuffled = rng.permutation(360)
    assert lift(labels[shuffled], scores[shuffled], scans[shuffled]) == pytest.approx(lift(labels, scores, scans))


def test_without_skill_the_lift_is_small_and_with_skill_it_is_not():
    rng = np.random.default_rng(1)
    scans = np.repeat(np.arange(80), 25)
    labels = (rng.random(2000) < 0.12).astype(int)
    assert lift(labels, np.full(2000, 0.3), scans) == 0.0, "always the same answer"
    noise = [lift(labels, rng.random(2000), scans) for _ in range(40)]
    assert np.mean(np.abs(noise) < 2) > 0.8
    assert lift(labels, rng.random(2000) + labels * 0.3, scans) > 5
    assert lift(labels, labels.astype(float), scans) == MOST_LIFT
    assert np.isnan(lift(labels[:25], rng.random(25), scans[:25])), "one scan says nothing of others"
    assert np.isnan(lift(labels, np.full(2000, np.nan), scans))


def test_of_equal_f1_the_highest_threshold_halfway_between_scores():
    labels, scores = [1, 0, 1, 0, 0], [0.9, 0.6, 0.55, 0.2, 0.1]  # F1 2/3, 1/2, 4/5, 2/3, 4/7
    assert best_threshold(labels, scores) == pytest.approx((0.55 + 0.2) / 2)
    assert best_threshold([1, 0, 0, 1], [0.9, 0.8, 0.7, 0.6]) == pytest.approx(0.85)  # F1 2/3 twice: at 0.9 and at 0.6


def test_always_answering_positive_scores_what_the_hand_runs_did_not_pass():
    assert always_positive_f1(3560, 30000) == pytest.approx(0.2121573, abs=1e-7)
    share = 3560 / 30000
    assert always_positive_f1(3560, 30000) == pytest.approx(2 * share / (1 + share), abs=1e-12)
    assert count([1, 0, 0, 0], [1.0] * 4).f1 == always_positive_f1(1, 4)
    assert math.isnan(always_positive_f1(0, 10))
    assert math.isnan(always_positive_f1(0, 0))


def test_jaccard_is_averaged_over_the_scans_where_it_is_defined():
    labels = [1, 1, 0, 0, 1, 0]
    scores = [0.9, 0.1, 0.1, 0.1, 0.9, 0.9]
    scans = ["b", "b", "a", "a", "c", "c"]
    assert counts_by_scan(labels, scores, scans) == [Counts(1, 0, 1, 0), Counts(0, 0, 0, 2), Counts(1, 1, 0, 0)]
    assert mean_jaccard(labels, scores, scans) == 0.5
    assert math.isnan(mean_jaccard([0, 0], [0.1, 0.1], [0, 1]))


@settings(deadline=None)
@given(split(), st.integers(0, 2**31))
def test_counts_by_scan_sum_to_the_counts_of_the_whole_even_when_scans_are_interleaved(data, seed):
    labels, scores = data
    scans = np.random.default_rng(seed).integers(0, 4, labels.size)
    parts = counts_by_scan(labels, scores, scans)
    total = count(labels, scores)
    assert [sum(getattr(c, k) for c in parts) for k in ("tp", "fp", "fn", "tn")] == [
        total.tp,
        total.fp,
        total.fn,
        total.tn,
    ]


def f1_at_half(labels, scores) -> float:
    return count(labels, scores).f1


def scans_of(rng, n_scans: int):
    labels = (rng.random(n_scans * 20) < 0.3).astype(int)
    scores = np.clip(0.5 * labels + rng.normal(0.3, 0.25, labels.size), 0, 1)
    return labels, scores, np.repeat(np.arange(n_scans), 20)


def test_the_bootstrap_is_the_same_for_the_same_seed_and_holds_the_point_estimate():
    data = scans_of(np.random.default_rng(1), 30)
    one = bootstrap_interval(*data, f1_at_half, draws=200, seed=5)
    assert one == bootstrap_interval(*data, f1_at_half, draws=200, seed=5)
    assert one != bootstrap_interval(*data, f1_at_half, draws=200, seed=6)
    for seed in range(10):
        labels, scores, scans = scans_of(np.random.default_rng(seed), 30)
        interval = bootstrap_interval(labels, scores, scans, f1_at_half, draws=200)
        assert interval.low < f1_at_half(labels, scores) < interval.high


def test_the_bootstrap_draws_whole_scans():
    labels, scores, _ = scans_of(np.random.default_rng(2), 3)
    one = bootstrap_interval(labels, scores, np.zeros(labels.size), f1_at_half, draws=50)
    assert one == Interval(f1_at_half(labels, scores), f1_at_half(labels, scores))
    many = bootstrap_interval(labels, scores, np.arange(labels.size), f1_at_half, draws=50)
    assert many.low < many.high

    sizes = []

    def whole(drawn, _):
        sizes.append((int(drawn.sum()), drawn.size))
        return 0.5

    # a scan of 5 positives and one of 2 negatives: a draw of two holds 0, 5 or 10 positives of 4, 7 or 10 traces
    bootstrap_interval([1] * 5 + [0] * 2, np.zeros(7), [0] * 5 + [1] * 2, whole, draws=50)
    assert set(sizes) == {(0, 4), (5, 7), (10, 10)}


def test_draws_where_the_statistic_is_undefined_are_left_out():
    interval = bootstrap_interval([1, 0], [0.9, 0.1], [0, 1], average_precision, draws=100)
    assert interval == Interval(1.0, 1.0)
    never = bootstrap_interval([0, 0], [0.9, 0.1], [0, 1], average_precision, draws=10)
    assert math.isnan(never.low)
    assert math.isnan(never.high)


def test_inputs_are_left_as_they_are():
    labels, scores, scans = np.array([1, 0, 1, 0]), np.array([0.2, 0.9, 0.4, 0.1]), np.array([1, 0, 1, 0])
    kept = [a.copy() for a in (labels, scores, scans)]
    for array in (labels, scores, scans):
        array.flags.writeable = False
    count(labels, scores)
    average_precision(labels, scores)
    best_threshold(labels, scores)
    mean_jaccard(labels, scores, scans)
    bootstrap_interval(labels, scores, scans, f1_at_half, draws=5)
    for array, before in zip((labels, scores, scans), kept, strict=True):
        np.testing.assert_array_equal(array, before)
