"""Cross-fitting: thresholds of other folds, counts pooled by hand, trials over folds, going on in the midst of one."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from timeless import timeless

from tunelab import metrics
from tunelab.checkpoint import Arrays, pack_checkpoint, unpack, unpack_checkpoint
from tunelab.crossfit import CrossFit, seed_of
from tunelab.data.dataset import Dataset, make_dataset
from tunelab.data.splits import assign_folds
from tunelab.errors import StateError
from tunelab.evaluation import evaluate_together
from tunelab.metrics import Counts
from tunelab.models import normalise
from tunelab.outcome import Step
from tunelab.pooling import centred, judge_pooled, pool, thresholds_of
from tunelab.training import Schedule, Training, pack

pytestmark = pytest.mark.tf

NAN = math.nan


def made(labels: dict[str, list[int]], folds: tuple[int, ...]) -> Dataset:
    """Scans of silence with these labels."""
    return make_dataset(
        scans={scan: np.zeros((len(own), 4), np.float32) for scan, own in labels.items()},
        labels={scan: np.array(own, np.int8) for scan, own in labels.items()},
        splits=dict.fromkeys(labels, "train"),
        dt=None,
        source="made",
    ).with_folds(folds)


@pytest.fixture(scope="module")
def three() -> Dataset:
    """Three folds, the first of two scans, and a test scan."""
    labels = {"a": [1, 0], "b": [1, 0], "c": [1, 1], "t": [1, 0], "z": [0, 1]}
    return made(labels, (0, 1, 2, -1, 0))


SCORES = [np.array([0.9, 0.2, 0.3, 0.45]), np.array([0.6, 0.5]), np.array([0.8, 0.4])]
"""Out-of-fold: a and z, b, c."""


def test_pooled_counts_by_hand(three: Dataset) -> None:
    """Thresholds: fold 0 from b and c, fold 1 from a, z and c, fold 2 from a, z and b.

    b, c: 0.8+ 0.6+ 0.5- 0.4+; best F1 at 0.4: 6/7, all are positive. a, z, c: 0.9+ 0.8+ 0.45+ 0.4+ 0.3- 0.2-; best at
    0.4, halfway to 0.3: 0.35. a, z, b: 0.9+ 0.6+ 0.5- 0.45+ 0.3- 0.2-; at 0.45 6/7, halfway to 0.3: 0.375.
    """
    pooled = pool(three, SCORES, [0.5, NAN, 0.7])
    assert pooled.thresholds == pytest.approx((0.4, 0.35, 0.375))
    assert pooled.scans == ("a", "b", "c", "z")
    assert pooled.counts == (Counts(1, 0, 0, 1), Counts(1, 1, 0, 0), Counts(2, 0, 0, 0), Counts(1, 0, 0, 1))
    assert (pooled.metrics["tp"], pooled.metrics["fp"], pooled.metrics["fn"], pooled.metrics["tn"]) == (5, 1, 0, 2)
    assert pooled.metrics["val_f1"] == pytest.approx(10 / 11)
    assert pooled.metrics["precision"] == pytest.approx(5 / 6)
    assert pooled.metrics["recall"] == 1
    assert pooled.metrics["val_f1_at_half"] == pytest.approx(2 * 3 / (2 * 3 + 1 + 2))
    assert pooled.metrics["mean_jaccard"] == pytest.approx((1 + 0.5 + 1 + 1) / 4)
    assert pooled.metrics["val_average_precision"] == pytest.approx(1)  # of each fold; pooled it would be less
    assert pooled.metrics["tune_average_precision"] == pytest.approx(0.6)
    assert type(pooled).of_record(pooled.record()) == pooled


def test_the_judgement_of_pooled_counts(three: Dataset) -> None:
    judged = judge_pooled(pool(three, SCORES, [0.5, NAN, 0.7]))
    sizes = {name: judged[name] for name in ("folds", "scans", "traces", "positives", "tp", "fp", "fn", "tn")}
    assert sizes == {"folds": 3, "scans": 4, "traces": 8, "positives": 5, "tp": 5, "fp": 1, "fn": 0, "tn": 2}
    assert judged["f1"] == pytest.approx(10 / 11)
    # draws of four scans: b four times gives 2/3, none gives 1, and both are among a thousand draws' 95 %
    assert 2 / 3 < judged["f1_low"] < judged["f1"] < judged["f1_high"] == 1


@given(
    st.lists(
        st.lists(st.tuples(st.booleans(), st.integers(0, 20).map(lambda n: n / 20)), min_size=1, max_size=8),
        min_size=2,
        max_size=5,
    ),
    st.data(),
)
def test_the_threshold_of_a_fold_never_uses_its_own_scores_or_labels(
    folds: list[list[tuple[bool, float]]], data: Any
) -> None:
    labels = [np.array([int(label) for label, _ in fold]) for fold in folds]
    scores = [np.array([score for _, score in fold]) for fold in folds]
    found = thresholds_of(labels, scores)
    k = data.draw(st.integers(0, len(folds) - 1))
    n = len(folds[k])
    labels[k] = np.array(data.draw(st.lists(st.integers(0, 1), min_size=n, max_size=n)))
    scores[k] = np.array(data.draw(st.lists(st.floats(0, 1), min_size=n, max_size=n)))
    assert thresholds_of(labels, scores)[k] == found[k]


def test_the_threshold_of_a_fold_uses_all_others() -> None:
    labels = [np.array([0, 1])] * 3
    scores = [np.array([0.1, 0.2]), np.array([0.5, 0.6]), np.array([0.7, 0.8])]
    assert thresholds_of(labels, scores) == pytest.approx((0.55, 0.15, 0.15))
    scores[2] = np.array([0.3, 0.4])
    assert thresholds_of(labels, scores)[0] == pytest.approx(0.35)


def test_a_fold_of_nan_answers_negative_and_the_others_take_the_default_threshold(three: Dataset) -> None:
    pooled = pool(three, [np.full(4, NAN), SCORES[1], SCORES[2]], [NAN, NAN, NAN])
    assert pooled.thresholds == pytest.approx((0.4, 0.5, 0.5))
    assert pooled.counts == (Counts(0, 0, 1, 1), Counts(1, 1, 0, 0), Counts(1, 0, 1, 0), Counts(0, 0, 1, 1))
    assert math.isnan(pooled.metrics["tune_average_precision"])
    assert pooled.metrics["val_average_precision"] == pytest.approx(1)  # the fold without one left out
    judged = judge_pooled(pooled)
    assert judged["f1"] == pytest.approx(4 / (4 + 1 + 3))


def test_a_fold_of_one_class_counts_and_has_no_average_precision() -> None:
    data = made({"a": [0, 0], "b": [1, 0], "c": [0, 1]}, (0, 1, 2))
    pooled = pool(data, [np.array([0.9, 0.1]), np.array([0.8, 0.3]), np.array([0.6, 0.5])], [0.4, 0.4, 0.4])
    # 0.8+ 0.6- 0.5+ 0.3-; 0.9- 0.6- 0.5+ 0.1-; 0.9- 0.8+ 0.3- 0.1-
    assert pooled.thresholds == pytest.approx((0.4, 0.3, 0.55))
    assert pooled.counts == (Counts(0, 1, 0, 1), Counts(1, 1, 0, 0), Counts(0, 1, 1, 0))
    assert pooled.metrics["val_average_precision"] == pytest.approx((1 + 0.5) / 2)
    assert pooled.metrics["mean_jaccard"] == pytest.approx((0 + 0.5 + 0) / 3)


@given(st.lists(st.floats(0, 1), min_size=1), st.floats(0, 1), st.booleans())
def test_centred_scores_keep_order_and_decision(scores: list[float], threshold: float, among: bool) -> None:
    values = np.array(scores)
    at = float(values[0]) if among else threshold
    moved = centred(values, at)
    assert ((moved >= 0) & (moved <= 1)).all()
    np.testing.assert_array_equal(moved >= 0.5, values >= at)
    assert (np.diff(moved[np.argsort(values)]) >= 0).all()


def test_centred_scores_by_hand() -> None:
    np.testing.assert_allclose(centred(np.array([0, 0.1, 0.2, 0.6, 1]), 0.2), [0, 0.25, 0.5, 0.75, 1])
    np.testing.assert_array_equal(centred(np.array([0.0, 1.0]), 0.0), [0.5, 1])
    np.testing.assert_array_equal(centred(np.array([0.5, 1.0]), 1.0), [0.25, 1])
    np.testing.assert_array_equal(centred(np.array([NAN, 0.5]), 0.5), [NAN, 0.5])


def test_seeds_differ_by_fold_and_the_first_is_the_trials_own() -> None:
    assert seed_of(17, 0) == 17
    assert len({seed_of(seed, fold) for seed in (17, 18) for fold in range(5)}) == 10


def params(**changes: Any) -> dict[str, Any]:
    raw = {"family": "simple_rnn", "units": [4], "dropout": 0.1, "l2": 1e-4, "learning_rate": 0.02, "batch_size": 8}
    return normalise({**raw, **changes})


SCHEDULE = Schedule(max_epochs=2, patience=5, seed=5)


@pytest.fixture(scope="module")
def folded(small_data: Dataset) -> Dataset:
    """24 scans, dealt to five folds of which two are put together with two others, since each costs a training."""
    positives = [int(n) for n in small_data.positives_of_scans()]
    folds = assign_folds(small_data.groups, positives, [int(n) for n in small_data.lengths], 1)
    return small_data.with_folds([fold % 3 if fold >= 0 else -1 for fold in folds])


def through(one: CrossFit) -> tuple[list[Step], dict[int, bytes]]:
    """All steps, and the weights of each fold's chosen epoch."""
    steps: list[Step] = []
    stored: dict[int, bytes] = {}
    while not steps or not (steps[-1].ended or steps[-1].failed):
        step, weights = one.step()
        steps.append(step)
        if step.outcome.improved:
            stored[step.fold] = pack(weights)
    return steps, stored


Whole = tuple[list[Step], dict[int, bytes]]


@pytest.fixture(scope="module")
def whole(folded: Dataset) -> Whole:
    return through(CrossFit(params(), folded, SCHEDULE))


def test_a_trial_over_all_folds(folded: Dataset, whole: Whole) -> None:
    steps, stored = whole
    count = folded.n_folds
    assert [(s.fold, s.outcome.epoch) for s in steps] == [(k, e) for k in range(count) for e in (1, 2)]
    assert [s.ended for s in steps] == [""] * (2 * count - 1) + ["folds"]
    assert [s.outcome.ended for s in steps] == ["", "epochs"] * count
    assert [s.pooled is None for s in steps] == [True] * (2 * count - 1) + [False]
    pooled = steps[-1].pooled
    assert pooled is not None
    assert pooled.scans == folded.judged().scans
    assert sum(c.tp + c.fp + c.fn + c.tn for c in pooled.counts) == folded.judged().n_traces
    assert sum(c.tp + c.fn for c in pooled.counts) == folded.judged().positives
    assert set(stored) == set(range(count))


def test_the_first_fold_is_trained_as_if_it_were_alone(folded: Dataset, whole: Whole) -> None:
    alone = Training(params(), folded.fold(0), SCHEDULE)
    assert [timeless(alone.run_epoch().metrics) for _ in range(2)] == [
        timeless(s.outcome.metrics) for s in whole[0][:2]
    ]


def test_out_of_fold_answers_are_those_of_the_stored_weights(folded: Dataset, whole: Whole) -> None:
    """Every number that ranks the trial, again from the stored weights alone."""
    steps, stored = whole
    scores, dense = [], []
    for k in range(folded.n_folds):
        data = folded.fold(k)
        model = Training(params(), data, SCHEDULE)
        model.model.set_weights(unpack(stored[k]))
        tune, part = data.part("tune"), data.part("validation")
        assert not set(part.scans) & {*tune.scans, *data.part("train").scans}
        dense.append(metrics.average_precision(tune.labels, model.scores(tune)))
        scores.append(model.scores(part))
        own = [s.outcome.metrics["tune_average_precision"] for s in steps if s.fold == k]
        assert dense[k] == pytest.approx(max(own))
    again = pool(folded, scores, dense)
    assert steps[-1].pooled is not None
    assert again.counts == steps[-1].pooled.counts
    assert again.thresholds == pytest.approx(steps[-1].pooled.thresholds)
    for name, value in again.metrics.items():
        assert steps[-1].pooled.metrics[name] == pytest.approx(value, nan_ok=True), name


def stored(one: CrossFit) -> tuple[dict[str, Arrays], dict[str, Any]]:
    """What a trial gives, once it has been in a file."""
    return unpack_checkpoint(pack_checkpoint(*one.save()), "here")


def test_the_models_answer_test_together(folded: Dataset, whole: Whole) -> None:
    steps, stored = whole
    pooled = steps[-1].pooled
    assert pooled is not None
    models = [(k, stored[k], threshold) for k, threshold in enumerate(pooled.thresholds)]
    answer = evaluate_together(params(), folded, models, pooled)
    test = folded.part("test")
    assert (answer["test"]["scans"], answer["test"]["models"]) == (test.n_scans, folded.n_folds)
    assert answer["test"]["threshold"] == 0.5
    total = np.zeros(test.n_traces)
    for k, raw, threshold in models:
        model = Training(params(), folded.fold(k), SCHEDULE)
        model.model.set_weights(unpack(raw))
        total += centred(model.scores(test), threshold)
    counts = metrics.count(test.labels, total / len(models))
    assert [answer["test"][name] for name in ("tp", "fp", "fn", "tn")] == list(dataclasses.astuple(counts))
    assert answer["validation"] == pytest.approx(judge_pooled(pooled), nan_ok=True)
    with pytest.raises(StateError, match="not those of this model"):
        evaluate_together(params(units=[5]), folded, models, pooled)


def test_the_default_threshold_on_test_is_that_of_scores_as_they_are(folded: Dataset, whole: Whole) -> None:
    steps, stored = whole
    pooled = steps[-1].pooled
    assert pooled is not None
    test = folded.part("test")
    scores = []
    for k, raw in stored.items():
        model = Training(params(), folded.fold(k), SCHEDULE)
        model.model.set_weights(unpack(raw))
        scores.append(model.scores(test))
    for threshold in (1e-6, 1 - 1e-6):
        answer = evaluate_together(params(), folded, [(k, raw, threshold) for k, raw in stored.items()], pooled)["test"]
        counts = metrics.count(test.labels, np.mean(scores, axis=0))
        assert answer["f1_at_half"] == pytest.approx(counts.f1, nan_ok=True)
        assert answer["tp"] + answer["fp"] == (test.n_traces if threshold < 0.5 else 0)
    assert 0 < counts.tp + counts.fp < test.n_traces  # or it could be that of centred scores


@pytest.mark.parametrize("done", [1, 2, 3, 4], ids=["in-fold-0", "fold-0-done", "in-fold-1", "fold-1-done"])
def test_going_on_equals_never_having_stopped(folded: Dataset, whole: Whole, done: int) -> None:
    begun = CrossFit(params(), folded, SCHEDULE)
    for _ in range(done):
        begun.step()
    resumed = CrossFit(params(), folded, SCHEDULE)
    resumed.load(*stored(begun), "here")
    steps, _ = through(resumed)
    assert [(s.fold, s.outcome.epoch, timeless(s.outcome.metrics)) for s in steps] == [
        (s.fold, s.outcome.epoch, timeless(s.outcome.metrics)) for s in whole[0][done:]
    ]
    assert steps[-1].pooled == whole[0][-1].pooled


def test_a_checkpoint_of_other_folds_or_another_version_is_refused(folded: Dataset) -> None:
    one = CrossFit(params(), folded, dataclasses.replace(SCHEDULE, max_epochs=1))
    one.step()
    arrays, state = stored(one)
    assert state == {"training": None}, "the first fold is done, the second not begun"
    other = folded.with_folds([(fold + 1) % folded.n_folds if fold >= 0 else -1 for fold in folded.folds])
    with pytest.raises(StateError, match=r"x\.ckpt: holds the answers of other folds; the data set has changed"):
        CrossFit(params(), other, SCHEDULE).load(arrays, state, "x.ckpt")
    with pytest.raises(StateError, match=r"x\.ckpt: lacks 'training' of a trial; it was written by another version"):
        CrossFit(params(), folded, SCHEDULE).load(arrays, {}, "x.ckpt")


def test_without_folds_a_trial_is_one_training(small_data: Dataset) -> None:
    one = CrossFit(params(), small_data, SCHEDULE)
    first, _ = one.step()
    assert one.parameters == one.training.model.count_params() > 0
    resumed = CrossFit(params(), small_data, SCHEDULE)
    resumed.load(*stored(one), "here")
    last, _ = resumed.step()
    alone = Training(params(), small_data, SCHEDULE)
    assert [timeless(s.outcome.metrics) for s in (first, last)] == [
        timeless(alone.run_epoch().metrics) for _ in range(2)
    ]
    assert (first.ended, last.ended, last.fold, last.pooled) == ("", "epochs", 0, None)


def test_each_fold_varies_its_own_training_scans_and_no_other(folded: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    import tunelab.training

    taken: list[Any] = []
    real = tunelab.training.augmented

    def watched(*args: Any, **options: Any) -> Any:
        taken.append(real(*args, **options))
        return taken[-1]

    monkeypatch.setattr(tunelab.training, "augmented", watched)
    varied = params(augmentation={"background": 0.5, "mirror": 0.5})
    through(CrossFit(varied, folded, dataclasses.replace(SCHEDULE, max_epochs=1)))
    assert [one.seed[0] for one in taken] == [seed_of(5, fold) for fold in range(folded.n_folds)]
    for fold, one in enumerate(taken):
        train = folded.fold(fold).part("train")
        assert one.part.scans == train.scans
        assert set(one.negatives) == {scan for scan in range(train.n_scans) if not train.labels_of(scan).any()}


def test_a_failure_names_its_fold(small_data: Dataset, folded: Dataset) -> None:
    """A scan of NaN in the first fold: model 0 is judged on it, model 1 trained on it."""
    scan = next(i for i, fold in enumerate(folded.folds) if fold == 0)
    traces = small_data.samples.traces.copy()
    samples = dataclasses.replace(small_data.samples, traces=traces)
    samples.read(scan)[0] = np.nan
    data = dataclasses.replace(folded, samples=samples)
    steps, _ = through(CrossFit(params(normalisation="none"), data, SCHEDULE))
    assert steps[-1].failed.startswith("fold 1: the loss is nan in epoch 1")
    assert [s.fold for s in steps] == [0, 0, 1]
