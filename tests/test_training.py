"""Training one params: metrics, the chosen epoch, patience, NaN, repeatability, shards, and going on from a
checkpoint."""

from __future__ import annotations

import dataclasses
import gc
import math
import time
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import pytest
from timeless import timeless

from tunelab import metrics
from tunelab.checkpoint import Arrays, pack_checkpoint, unpack_checkpoint
from tunelab.compiled import clear
from tunelab.data.batches import Batches
from tunelab.data.dataset import Dataset, Part
from tunelab.data.order import training_batches
from tunelab.data.statistics import of_part
from tunelab.errors import StateError
from tunelab.evaluation import evaluate
from tunelab.measures import cross_entropy
from tunelab.models import normalise
from tunelab.models.layers import whole
from tunelab.stopwatch import Stopwatch
from tunelab.training import Schedule, Training, pack

pytestmark = pytest.mark.tf


def params(**changes: Any) -> dict[str, Any]:
    raw = {"family": "simple_rnn", "units": [8], "dropout": 0.2, "l2": 1e-4, "learning_rate": 0.01, "batch_size": 4}
    return normalise({**raw, **changes})


def training(data: Dataset, max_epochs: int = 4, patience: int = 10, seed: int = 5, **changes: Any) -> Training:
    schedule = Schedule(max_epochs=max_epochs, patience=patience, seed=seed)
    return Training(params(**changes), data, schedule)


def stored(one: Training) -> tuple[dict[str, Arrays], dict[str, Any]]:
    """What a training gives, once it has been in a file."""
    return unpack_checkpoint(pack_checkpoint(*one.save()), "here")


def run(one: Training) -> list[Any]:
    outcomes = [one.run_epoch()]
    while not outcomes[-1].ended and not outcomes[-1].failed:
        outcomes.append(one.run_epoch())
    return outcomes


class Counted(Stopwatch):
    def __init__(self) -> None:
        super().__init__()
        self.calls: list[int] = []

    def over(self, scans: int) -> AbstractContextManager[None]:
        self.calls.append(scans)
        return super().over(scans)


def test_metrics_are_those_of_the_answers(small_data: Dataset) -> None:
    one = training(small_data, max_epochs=1)
    (outcome,) = run(one)
    assert outcome.ended == "epochs"
    assert outcome.improved
    tune, validation = small_data.part("tune"), small_data.part("validation")
    scores = one.scores(validation)
    threshold = metrics.best_threshold(tune.labels, one.scores(tune))
    counts = metrics.count(validation.labels, scores, threshold)
    values = outcome.metrics
    assert values["threshold"] == pytest.approx(threshold)
    assert (values["tp"], values["fp"], values["fn"], values["tn"]) == (counts.tp, counts.fp, counts.fn, counts.tn)
    assert sum(values[name] for name in ("tp", "fp", "fn", "tn")) == validation.n_traces
    assert values["val_f1"] == pytest.approx(counts.f1, nan_ok=True)
    assert values["val_average_precision"] == pytest.approx(metrics.average_precision(validation.labels, scores))
    assert values["val_loss"] == pytest.approx(cross_entropy(validation.labels, scores))
    assert values["tune_average_precision"] == pytest.approx(metrics.average_precision(tune.labels, one.scores(tune)))
    counts = metrics.count(tune.labels, one.scores(tune), threshold)
    assert (values["tune_f1"], values["tune_precision"], values["tune_recall"]) == pytest.approx(
        (counts.f1, counts.precision, counts.recall)
    )
    jaccard = metrics.mean_jaccard(tune.labels, one.scores(tune), tune.scan_of_trace(), threshold)
    assert values["tune_mean_jaccard"] == pytest.approx(jaccard)


def test_every_epoch_tells_how_long_a_scan_takes_to_answer(small_data: Dataset) -> None:
    """Tune and validation are a call each, and the first of all is not counted; nothing is answered for it alone."""
    one = training(small_data, max_epochs=2)
    one.watch = watch = Counted()
    begun = time.perf_counter()
    told = [outcome.metrics["predict_ms"] for outcome in run(one)]
    most = 1000 * (time.perf_counter() - begun)
    assert all(0 < value < most for value in told)
    scans = [small_data.part(split).n_scans for split in ("tune", "validation")]
    assert watch.calls == [*scans, *scans]


def test_the_loss_leaves_padding_out_and_weighs_classes(small_data: Dataset) -> None:
    """Keras minimises the weighted mean of -log of the true label's share over valid traces, and the penalty."""
    one = training(small_data, dropout=0.0, class_weight=3.0)
    part = small_data.part("train")
    batch = Batches(part, [np.arange(part.n_scans)], longest=one.longest, class_weight=3.0)
    inputs, labels, weights = batch[0]
    loss = one.model.test_on_batch(whole(one.model, inputs), labels, weights)
    share = np.where(part.labels == 1, one.scores(part), 1 - one.scores(part))
    weights = np.where(part.labels == 1, 3.0, 1.0)
    penalty = float(sum(one.model.losses))
    assert loss == pytest.approx(float((weights * -np.log(share)).sum() / weights.sum()) + penalty, rel=1e-4)


def test_the_same_seed_repeats_a_training_and_another_does_not(small_data: Dataset) -> None:
    first, again, other = (run(training(small_data, seed=seed)) for seed in (5, 5, 6))
    assert [timeless(o.metrics) for o in first] == [timeless(o.metrics) for o in again]
    assert [o.metrics["loss"] for o in first] != [o.metrics["loss"] for o in other]


def test_going_on_from_a_checkpoint_equals_never_having_stopped(small_data: Dataset) -> None:
    whole = training(small_data, max_epochs=4)
    expected = run(whole)
    begun = training(small_data, max_epochs=4)
    begun.run_epoch()
    begun.run_epoch()
    resumed = training(small_data, max_epochs=4)
    resumed.load(*stored(begun), "here")
    rest = run(resumed)
    assert [o.epoch for o in rest] == [3, 4]
    assert [timeless(o.metrics) for o in rest] == [timeless(o.metrics) for o in expected[2:]]
    assert resumed.best_epoch == whole.best_epoch
    for one, other in zip(resumed.best_weights, whole.best_weights, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_checkpoint_of_another_model_or_version_is_refused(small_data: Dataset) -> None:
    one = training(small_data)
    one.run_epoch()
    arrays, state = stored(one)
    with pytest.raises(StateError, match=r"x\.ckpt: holds the variables of another model"):
        training(small_data, units=[9]).load(arrays, state, "x.ckpt")
    del arrays["best"]
    with pytest.raises(StateError, match=r"x\.ckpt: lacks 'best' of a training; it was written by another version"):
        training(small_data).load(arrays, state, "x.ckpt")


def test_the_chosen_epoch_is_the_best_on_tune_and_patience_counts_from_it(small_data: Dataset) -> None:
    one = training(small_data, max_epochs=40, patience=2, learning_rate=0.05)
    outcomes = run(one)
    dense = [o.metrics["tune_average_precision"] for o in outcomes]
    best = int(np.argmax(dense))
    assert outcomes[-1].ended == "patience"
    assert len(outcomes) == best + 1 + 2
    assert one.best_epoch == best + 1
    assert [o.improved for o in outcomes] == [d > max(dense[:i], default=-1) for i, d in enumerate(dense)]


def test_a_nan_loss_ends_the_training_in_its_epoch(small_data: Dataset) -> None:
    traces = small_data.samples.traces.copy()
    train = small_data.part("train")
    samples = dataclasses.replace(small_data.samples, traces=traces)
    samples.read(int(train.positions[0]))[0] = np.nan
    outcomes = run(training(dataclasses.replace(small_data, samples=samples)))
    assert len(outcomes) == 1
    assert outcomes[0].failed == "the loss is nan in epoch 1"
    assert not outcomes[0].improved


def test_stored_weights_answer_as_the_model_did(small_data: Dataset) -> None:
    one = training(small_data, max_epochs=2)
    outcomes = run(one)
    chosen = outcomes[one.best_epoch - 1].metrics
    raw = pack(one.best_weights)
    answer = evaluate(one.params, small_data, raw, chosen["threshold"], ("validation", "test"))
    assert answer["validation"]["f1"] == pytest.approx(chosen["val_f1"], nan_ok=True)
    assert answer["validation"]["average_precision"] == pytest.approx(chosen["val_average_precision"], abs=1e-6)
    assert answer["test"]["traces"] == small_data.part("test").n_traces
    low, high = answer["test"]["average_precision_low"], answer["test"]["average_precision_high"]
    assert low <= answer["test"]["average_precision"] <= high
    with pytest.raises(StateError, match="not those of this model"):
        evaluate(params(units=[9]), small_data, raw, 0.5, ("test",))


@pytest.mark.parametrize("protocol", ["pooled", "incremental"])
def test_epochs_leave_no_batches_and_no_parts_behind(small_data: Dataset, protocol: str) -> None:
    one = training(in_shards(small_data, 1, 2, 3, 4, 5), max_epochs=9, protocol=protocol)

    def alive() -> tuple[int, int]:
        gc.collect()
        found = gc.get_objects()
        return sum(isinstance(x, Batches) for x in found), sum(isinstance(x, Part) for x in found)

    one.run_epoch()
    batches, parts = alive()
    for _ in range(4):
        one.run_epoch()
    now = alive()
    assert now[0] <= batches  # fewer where another test's are let go meanwhile
    assert 1 <= now[1] <= parts


def test_a_step_is_traced_once_whatever_the_lengths(small_data: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    """One trace of training and one of answering, each of which goes through the model in Python."""
    import keras

    if keras.backend.backend() != "tensorflow":
        pytest.skip("only TensorFlow traces")
    clear()
    one = training(small_data)
    traces: list[Any] = []
    call = one.model.call

    def counted(inputs: Any, **kwargs: Any) -> Any:
        traces.append(inputs)
        return call(inputs, **kwargs)

    monkeypatch.setattr(one.model, "call", counted)
    for _ in range(3):
        one.run_epoch()
    for split in ("train", "tune", "validation", "test"):
        one.scores(small_data.part(split))
    assert len({tuple(batch["traces"].shape) for batch, _, _ in shapes_of(one)}) > 2
    assert len(traces) == 2


def shapes_of(one: Training) -> Any:
    """The batches of one epoch."""
    groups = training_batches(one.train, np.arange(one.train.n_scans), size=4, longest=one.longest, seed=(1, 2))
    return Batches(one.train, groups, longest=one.longest)


def passes_over(one: Training, shard: int, epoch: int, passes: int) -> tuple[list[float], list[Any]]:
    """Average precision on the tune split after each pass over a shard, and the weights then, by the parts alone."""
    tune, dense, weights = one.data.part("tune"), [], []
    scans = np.flatnonzero(one.train.shards == shard)
    for done in range(passes):
        one._fit(scans, epoch, done)
        dense.append(metrics.average_precision(tune.labels, one.scores(tune)))
        weights.append(one.model.get_weights())
    return dense, weights


def in_shards(data: Dataset, *shards: int) -> Dataset:
    """The same scans, the training scans dealt to these shards in turn, all others to shard 0."""
    numbers = np.zeros(data.n_scans, np.int64)
    train = data.part("train").positions
    numbers[train] = np.sort(np.resize(shards, len(train)))
    return dataclasses.replace(data, shards=numbers)


def test_all_training_scans_are_an_epoch_of_the_pooled_protocol(small_data: Dataset) -> None:
    one = training(in_shards(small_data, 1, 2, 4), max_epochs=2)
    outcomes = run(one)
    assert int(one.model.optimizer.iterations) == 2 * math.ceil(one.train.n_scans / 4)
    assert "shard" not in outcomes[0].metrics


def test_an_epoch_of_the_incremental_protocol_is_a_shard(small_data: Dataset) -> None:
    """Shards without training scans are skipped; patience and what it counts are those of pooled trainings alone."""
    data = in_shards(small_data, 1, 2, 4)
    one = training(data, max_epochs=9, patience=1, protocol="incremental", shard_epochs=2, learning_rate=0.05)
    outcomes = run(one)
    assert [o.epoch for o in outcomes] == [1, 2, 3]
    assert [o.metrics["shard"] for o in outcomes] == [2, 3, 5]
    assert [o.metrics["shard_epochs"] for o in outcomes] == [2, 2, 2]
    assert [o.ended for o in outcomes] == ["", "", "shards"]
    scans = np.bincount(one.train.shards)
    assert int(one.model.optimizer.iterations) == sum(2 * math.ceil(n / 4) for n in scans)
    assert outcomes[-1].metrics["val_f1"] == pytest.approx(
        metrics.count(
            data.part("validation").labels, one.scores(data.part("validation")), outcomes[-1].metrics["threshold"]
        ).f1,
        nan_ok=True,
    )
    dense = [o.metrics["tune_average_precision"] for o in outcomes]
    assert one.best_epoch == int(np.argmax(dense)) + 1
    assert [o.improved for o in outcomes] == [d > max(dense[:i], default=-1) for i, d in enumerate(dense)]


def test_an_incremental_training_has_no_more_epochs_than_it_may(small_data: Dataset) -> None:
    data = in_shards(small_data, 0, 1, 2)
    outcomes = run(training(data, max_epochs=2, protocol="incremental", shard_epochs=1))
    assert [o.ended for o in outcomes] == ["", "epochs"]
    outcomes = run(training(data, max_epochs=3, protocol="incremental", shard_epochs=1))
    assert [o.ended for o in outcomes] == ["", "", "shards"]


def test_the_best_pass_over_a_shard_is_kept_and_two_worse_ones_end_it(small_data: Dataset) -> None:
    data = in_shards(small_data, 1, 2)
    changes = {
        "protocol": "incremental",
        "shard_epochs": 12,
        "shard_patience": 3,
        "learning_rate": 0.1,
        "batch_size": 2,
    }
    one, by_hand = training(data, **changes), training(data, **changes)
    cut = kept_best = 0
    for epoch, shard in enumerate((1, 2)):
        outcome = one.run_epoch()
        done = int(outcome.metrics["shard_epochs"])
        dense, weights = passes_over(by_hand, shard, epoch, done)
        best = int(np.argmax(dense))
        assert outcome.metrics["tune_average_precision"] == dense[best]
        for value, expected in zip(one.model.get_weights(), weights[best], strict=True):
            np.testing.assert_array_equal(value, expected)
        ends = [i for i in range(len(dense)) if i - int(np.argmax(dense[: i + 1])) == changes["shard_patience"]]
        assert ends == ([done - 1] if done < 12 else [])
        cut += done < 12
        kept_best += best < done - 1
        by_hand.model.set_weights(weights[best])
        by_hand._evaluate()  # answering moves the seeds of dropout on
    assert cut  # or nothing would have been shown
    assert kept_best


def test_incremental_going_on_from_a_checkpoint_equals_never_having_stopped(small_data: Dataset) -> None:
    data = in_shards(small_data, 1, 2, 3, 5)

    def begin() -> Training:
        return training(data, max_epochs=9, protocol="incremental", shard_epochs=4, learning_rate=0.05)

    whole = begin()
    expected = run(whole)
    begun = begin()
    begun.run_epoch()
    begun.run_epoch()
    resumed = begin()
    resumed.load(*stored(begun), "here")
    rest = run(resumed)
    assert [o.epoch for o in rest] == [3, 4]
    assert [timeless(o.metrics) for o in rest] == [timeless(o.metrics) for o in expected[2:]]
    assert rest[-1].ended == "shards"
    assert resumed.best_epoch == whole.best_epoch
    for one, other in zip(resumed.best_weights, whole.best_weights, strict=True):
        np.testing.assert_array_equal(one, other)
    for one, other in zip(resumed.model.get_weights(), whole.model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


VARIED = {
    "background": 0.5,
    "mirror": 0.5,
    "polarity": 0.5,
    "gain_db": 6.0,
    "shift": 0.1,
    "noise_db": 10.0,
    "drop": 0.1,
}


def test_augmentation_changes_what_is_trained_on_and_nothing_that_is_answered(small_data: Dataset) -> None:
    nothing = {**dict.fromkeys(VARIED, 0.0), "noise_db": None}
    plain, none, varied, again = (training(small_data, augmentation=a) for a in ({}, nothing, VARIED, VARIED))
    results = [[timeless(outcome.metrics) for outcome in run(one)] for one in (plain, none, varied, again)]
    assert results[0] == results[1]
    assert [one["loss"] for one in results[0]] != [one["loss"] for one in results[2]]
    assert results[2] == results[3]
    plain.model.set_weights(varied.model.get_weights())
    for split in ("train", "tune", "validation", "test"):
        part = small_data.part(split)
        np.testing.assert_array_equal(varied.scores(part), plain.scores(part))
    raw, splits = pack(varied.best_weights), ("train", "tune", "validation", "test")
    assert evaluate(varied.params, small_data, raw, 0.4, splits) == evaluate(plain.params, small_data, raw, 0.4, splits)


@pytest.mark.parametrize("protocol", ["pooled", "incremental"])
def test_each_pass_is_over_all_its_scans_varied_in_ways_of_its_own(
    small_data: Dataset, protocol: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the training scans alone, and on a shard of those of the shard alone."""
    import tunelab.training

    made: list[tuple[Any, ...]] = []

    class Watched(Batches):
        def __init__(self, part: Part, batches: Any, **options: Any) -> None:
            super().__init__(part, batches, **options)
            made.append((part, np.sort(np.concatenate(batches)), self.augment))

    monkeypatch.setattr(tunelab.training, "Batches", Watched)
    data = in_shards(small_data, 1, 3)
    one = training(data, max_epochs=2, protocol=protocol, shard_epochs=2, augmentation=VARIED)
    run(one)
    varied = [(part, scans, augment) for part, scans, augment in made if augment is not None]
    assert all(part is one.train for part, _, _ in varied)
    assert all(augment is None for part, _, augment in made if part is not one.train)
    numbers = [(0, 0), (0, 1), (1, 0), (1, 1)] if protocol == "incremental" else [(0,), (1,)]
    assert [augment.seed[0] for _, _, augment in varied] == [5] * len(numbers)
    assert [augment.seed[2:] for _, _, augment in varied] == numbers
    for (_, scans, augment), number in zip(varied, numbers, strict=True):
        wanted = (
            one.train.shards == one.shards[number[0]] if protocol == "incremental" else np.ones(len(one.train.scans))
        )
        np.testing.assert_array_equal(scans, np.flatnonzero(wanted))
        assert augment.part is one.train
        negative = [scan for scan in scans if not one.train.labels_of(int(scan)).any()]
        assert augment.negatives.tolist() == negative


def test_moments_of_varied_scans_reach_the_model(small_data: Dataset) -> None:
    """A model whose first layer takes its statistics from them trains as the one of plain layers does."""
    raw = {
        "family": "conv_rnn",
        "convolutions": [{"filters": 4, "kernel": 5, "stride": 2}],
        "reduce": "flatten",
        "batch_norm_before_dense": True,
        "dense": {"units": 6, "activation": "relu"},
        "units": [5],
        "dropout": 0.0,
        "l2": 0.0,
        "batch_size": 4,
        "augmentation": VARIED,
    }
    losses = []
    for plain in (False, True):
        one = Training(normalise({**raw, "plain": plain}), small_data, Schedule(max_epochs=2, patience=2, seed=5))
        losses.append([outcome.metrics["loss"] for outcome in run(one)])
    np.testing.assert_allclose(*losses, rtol=1e-4)


@pytest.mark.parametrize("protocol", ["pooled", "incremental"])
def test_varied_scans_are_the_same_after_going_on_from_a_checkpoint(small_data: Dataset, protocol: str) -> None:
    data = in_shards(small_data, 1, 2, 3)

    def begin() -> Training:
        return training(data, max_epochs=3, protocol=protocol, shard_epochs=2, augmentation=VARIED)

    expected = run(begin())
    begun = begin()
    begun.run_epoch()
    resumed = begin()
    resumed.load(*stored(begun), "here")
    assert [timeless(o.metrics) for o in run(resumed)] == [timeless(o.metrics) for o in expected[1:]]


def test_it_is_told_where_no_scan_can_be_added(small_data: Dataset) -> None:
    full = dataclasses.replace(small_data, labels=np.ones_like(small_data.labels))
    assert training(full, augmentation={"mirror": 0.5}).notes == ()
    (note,) = training(full, augmentation={"background": 0.5}).notes
    assert note.startswith("augmentation.background adds nothing: ")
    data = in_shards(full, 1, 2)
    (note,) = training(data, protocol="incremental", augmentation={"background": 0.5}).notes
    assert note.startswith("augmentation.background adds nothing in 2 of 2 shards: ")


def test_a_nan_loss_ends_an_incremental_training_within_its_shard(small_data: Dataset) -> None:
    data = in_shards(small_data, 1, 2)
    traces = data.samples.traces.copy()
    train = data.part("train")
    samples = dataclasses.replace(data.samples, traces=traces)
    samples.read(int(train.positions[np.flatnonzero(train.shards == 2)[0]]))[0] = np.nan
    data = dataclasses.replace(data, samples=samples)
    outcomes = run(training(data, protocol="incremental", shard_epochs=3))
    assert [o.failed for o in outcomes] == ["", "the loss is nan in epoch 2 (pass 1 over shard 3)"]
    assert outcomes[-1].metrics["shard_epochs"] == 1
    assert not outcomes[-1].improved
    assert not outcomes[-1].ended


def test_scores_stand_in_the_parts_order_whatever_the_batches(
    small_data: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    import tunelab.training

    one = training(small_data)
    part = small_data.part("train")
    found = one.scores(part)
    assert found.shape == (part.n_traces,)
    assert len(set(part.lengths.tolist())) > 3
    for scan in range(part.n_scans):
        alone = one.model.predict_on_batch(
            {"traces": part.read(scan)[None], "lengths": part.lengths[scan : scan + 1].astype(np.int32)}
        )
        start = part.starts[scan]
        np.testing.assert_allclose(
            found[start : start + part.lengths[scan]], np.asarray(alone)[0, :, 1], atol=1e-6, err_msg=str(scan)
        )
    monkeypatch.setattr(tunelab.training, "EVALUATION_SCANS", 3)
    np.testing.assert_allclose(one.scores(part), found, atol=1e-6)


def test_normalisation_takes_the_statistics_of_training_scans_alone(small_data: Dataset) -> None:
    part = small_data.part("train")
    traces = np.concatenate([part.read(scan) for scan in range(part.n_scans)]).astype(np.float64)
    found = of_part(part)
    np.testing.assert_allclose(found.mean, traces.mean(axis=0), rtol=1e-5, atol=1e-6 * traces.std())
    np.testing.assert_allclose(found.variance, traces.var(axis=0), rtol=1e-5)
    shifted = small_data.samples.traces.copy()
    samples = dataclasses.replace(small_data.samples, traces=shifted)
    for split in ("tune", "validation", "test"):
        for position in small_data.part(split).positions:
            samples.read(int(position))[:] = 1e6
    other = dataclasses.replace(small_data, samples=samples)
    first, second = (training(data, normalisation="per_sample").scores(part) for data in (small_data, other))
    np.testing.assert_array_equal(first, second)
    assert np.abs(first - training(small_data).scores(part)).max() > 1e-3


def test_statistics_of_many_scans_are_merged(small_data: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    from tunelab.data import statistics

    part = small_data.part("train")
    whole = of_part(part)
    monkeypatch.setattr(statistics, "_SCANS", 5)
    assert part.n_scans % 5
    merged = of_part(part)
    np.testing.assert_allclose(merged.mean, whole.mean, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(merged.variance, whole.variance, rtol=1e-9)
