"""Training by other losses, optimizers and rate schedules, and by averages of weights; and going on in the midst."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from timeless import timeless

from tunelab import metrics
from tunelab.averaging import averaged
from tunelab.checkpoint import Arrays, pack_checkpoint, unpack_checkpoint
from tunelab.crossfit import CrossFit
from tunelab.data.batches import Batches
from tunelab.data.dataset import Dataset
from tunelab.data.splits import assign_folds
from tunelab.errors import StateError
from tunelab.learning_rates import rate_at
from tunelab.models import normalise
from tunelab.models.layers import whole
from tunelab.training import Schedule, Training

pytestmark = pytest.mark.tf

PLATEAU = {"kind": "plateau", "patience": 1}
CYCLE = {"kind": "one_cycle", "warm_up": 0.5}


def training(data: Dataset, max_epochs: int = 4, **changes: Any) -> Training:
    raw = {"family": "simple_rnn", "units": [6], "dropout": 0.2, "l2": 1e-4, "learning_rate": 0.02, "batch_size": 4}
    return Training(normalise({**raw, **changes}), data, Schedule(max_epochs=max_epochs, patience=10, seed=5))


def run(one: Training) -> list[Any]:
    outcomes = [one.run_epoch()]
    while not outcomes[-1].ended and not outcomes[-1].failed:
        outcomes.append(one.run_epoch())
    return outcomes


def stored(one: Training) -> tuple[dict[str, Arrays], dict[str, Any]]:
    """What a training gives, once it has been in a file."""
    return unpack_checkpoint(pack_checkpoint(*one.save()), "here")


def in_shards(data: Dataset, count: int) -> Dataset:
    """The same scans, the training scans dealt to so many shards."""
    numbers = np.zeros(data.n_scans, np.int64)
    train = data.part("train").positions
    numbers[train] = np.sort(np.resize(range(count), len(train)))
    return dataclasses.replace(data, shards=numbers)


def rate_of(one: Training) -> float:
    return float(one.model.optimizer.learning_rate)


def assert_equal(one: Arrays, other: Arrays) -> None:
    for mine, its in zip(one, other, strict=True):
        np.testing.assert_array_equal(mine, its)


@pytest.mark.parametrize("kind", ["focal", "soft_f1"])
def test_a_model_minimises_its_loss_over_valid_traces_and_the_penalty(small_data: Dataset, kind: str) -> None:
    loss = {"kind": kind, "focus": 1.5, "cross_entropy_share": 0.25}
    one = training(small_data, dropout=0.0, class_weight=3.0, loss=loss)
    part = small_data.part("train")
    inputs, labels, weights = Batches(part, [np.arange(part.n_scans)], longest=one.longest, class_weight=3.0)[0]
    found = one.model.test_on_batch(whole(one.model, inputs), labels, weights)
    t, p = part.labels, one.scores(part)
    share, w = np.where(t == 1, p, 1 - p), np.where(t == 1, 3.0, 1.0)
    mean = (w * -np.log(share) * (1 - share) ** (1.5 if kind == "focal" else 0)).sum() / w.sum()
    soft = 1 - 2 * (t * p).sum() / (t.sum() + p.sum())
    expected = mean if kind == "focal" else 0.75 * soft + 0.25 * mean
    assert found == pytest.approx(float(expected) + float(sum(one.model.losses)), rel=1e-4)


@pytest.mark.parametrize(
    "changes",
    [
        {"loss": {"kind": "focal", "edge_smoothing": 0.1}},
        {"loss": {"kind": "soft_f1", "cross_entropy_share": 0.2}},
        {"optimizer": {"kind": "adamw", "weight_decay": 0.1, "clip_norm": 1.0}},
        {"optimizer": {"kind": "sgd"}, "learning_rate": 0.5, "rate_schedule": CYCLE},
        {"precision": "mixed_float16", "optimizer": {"kind": "adamw", "clip_norm": 1.0}, "rate_schedule": CYCLE},
    ],
    ids=str,
)
def test_a_training_learns(small_data: Dataset, changes: dict[str, Any]) -> None:
    losses = [outcome.metrics["loss"] for outcome in run(training(small_data, max_epochs=5, **changes))]
    assert np.isfinite(losses).all()
    assert losses[-1] < 0.9 * losses[0]


@pytest.mark.parametrize("loss", ["cross_entropy", "focal", "soft_f1"])
@pytest.mark.parametrize("protocol", ["pooled", "incremental"])
def test_a_nan_ends_a_training_whatever_its_loss(small_data: Dataset, loss: str, protocol: str) -> None:
    samples = dataclasses.replace(small_data.samples, traces=small_data.samples.traces.copy())
    for position in small_data.part("train").positions:
        samples.read(int(position))[0] = np.nan
    data = dataclasses.replace(small_data, samples=samples)
    wanted = {"kind": loss, "edge_smoothing": 0.1}
    outcomes = run(training(data, loss=wanted, averaging=0.5, rate_schedule=PLATEAU, protocol=protocol))
    assert [o.failed.split(" (")[0] for o in outcomes] == ["the loss is nan in epoch 1"]
    assert not outcomes[0].improved


@pytest.mark.parametrize("precision", ["float32", "mixed_float16"])
def test_every_step_has_its_rate(small_data: Dataset, monkeypatch: pytest.MonkeyPatch, precision: str) -> None:
    import tunelab.training

    one = training(small_data, max_epochs=2, rate_schedule=CYCLE, precision=precision)
    found, step = [], tunelab.training.train

    def watched(*given: Any) -> float:
        found.append(rate_of(one))
        return step(*given)

    monkeypatch.setattr(tunelab.training, "train", watched)
    outcomes = run(one)
    steps = len(found) // 2
    assert steps >= 3
    expected = [rate_at(one.params["rate_schedule"], 0.02, i / (2 * steps)) for i in range(2 * steps)]
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert [o.metrics["learning_rate"] for o in outcomes] == pytest.approx([found[steps - 1], found[-1]])


def test_a_constant_rate_is_never_assigned(small_data: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    one = training(small_data, max_epochs=2)
    assigned: list[float] = []
    kind = type(one.model.optimizer)
    refused = property(kind.learning_rate.fget, lambda self, rate: assigned.append(rate))
    monkeypatch.setattr(kind, "learning_rate", refused)
    assert [o.metrics["learning_rate"] for o in run(one)] == [0.02, 0.02]
    assert assigned == []


def test_rates_of_shards_go_by_shard_and_pass(small_data: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    data = in_shards(small_data, 3)
    changes = {"protocol": "incremental", "shard_epochs": 2, "shard_patience": 2, "rate_schedule": {"kind": "cosine"}}
    for most, epochs in ((2, 2), (9, 3)):
        one = training(data, max_epochs=most, **changes)
        firsts = []
        fit = one._fit

        def watched(scans: Any, *number: int, one: Training = one, fit: Any = fit, firsts: Any = firsts) -> float:
            firsts.append(one.rates.at(*number))
            return fit(scans, *number)

        monkeypatch.setattr(one, "_fit", watched)
        run(one)
        expected = [rate_at(one.params["rate_schedule"], 0.02, i / (2 * epochs)) for i in range(2 * epochs)]
        assert firsts == pytest.approx(expected)


def test_a_plateau_halves_the_rate_of_the_epochs_after(small_data: Dataset) -> None:
    one = training(small_data, max_epochs=9, learning_rate=0.2, rate_schedule=PLATEAU)
    outcomes = run(one)
    dense = [o.metrics["tune_average_precision"] for o in outcomes]
    worse = [d <= max(dense[:i], default=-1) for i, d in enumerate(dense)]
    expected = [0.2 * 0.5 ** sum(worse[:i]) for i in range(9)]
    assert [o.metrics["learning_rate"] for o in outcomes] == expected
    assert sum(worse[:-1]) >= 2  # or nothing would have been shown


@pytest.mark.parametrize("protocol", ["pooled", "incremental"])
@pytest.mark.parametrize(
    "changes",
    [
        {"rate_schedule": {"kind": "constant"}, "averaging": 0.7},
        {"rate_schedule": {"kind": "cosine"}, "optimizer": {"kind": "sgd"}},
        # the highest rate is that of the first step after the checkpoint, and the one a new model has
        {"rate_schedule": CYCLE, "optimizer": {"kind": "adamw"}, "loss": {"kind": "focal"}},
        # halved before the checkpoint and after it
        {"rate_schedule": PLATEAU, "averaging": 0.4, "learning_rate": 2.0},
        {"rate_schedule": {"kind": "one_cycle"}, "averaging": 0.4, "loss": {"kind": "soft_f1"}},
    ],
    ids=str,
)
def test_going_on_equals_never_having_stopped(small_data: Dataset, protocol: str, changes: dict[str, Any]) -> None:
    data = in_shards(small_data, 4)

    def begin() -> Training:
        return training(data, protocol=protocol, shard_epochs=2, **changes)

    whole = begin()
    expected, (others, other) = run(whole), whole.save()
    del whole  # its compiled model is the next one's
    begun = begin()
    begun.run_epoch()
    begun.run_epoch()
    resumed, kept = begin(), stored(begun)
    resumed.load(*kept, "here")
    rest = run(resumed)
    assert [timeless(o.metrics) for o in rest] == [timeless(o.metrics) for o in expected[2:]]
    rates = {o.metrics["learning_rate"] for o in expected}
    assert len(rates) == {"constant": 1, "plateau": 3}.get(changes["rate_schedule"]["kind"], 4)
    arrays, state = resumed.save()
    del state["seconds"], other["seconds"]
    assert state == other
    for name, own in arrays.items():
        assert_equal(own, others[name])


@pytest.mark.parametrize("lacking", ["average", "rates"])
def test_a_checkpoint_of_the_version_before_is_refused(small_data: Dataset, lacking: str) -> None:
    one = training(small_data)
    one.run_epoch()
    arrays, state = stored(one)
    arrays.pop(lacking, None)
    state.pop(lacking, None)
    with pytest.raises(StateError, match=f"lacks '{lacking}' of a training; it was written by another version"):
        training(small_data).load(arrays, state, "x.ckpt")


def test_the_average_answers_and_is_chosen_and_the_weights_train_on(small_data: Dataset) -> None:
    """Against a training without one, whose weights it must have: answering moves nothing but seeds, as there."""
    one, plain = training(small_data, averaging=0.6), training(small_data)
    assert_equal(one.model.get_weights(), plain.model.get_weights())
    average: Arrays = ()
    tune = small_data.part("tune")
    best: tuple[float, Arrays] = (-1.0, ())
    differ = 0
    for epoch in range(1, 5):
        outcome, other = one.run_epoch(), plain.run_epoch()
        assert outcome.metrics["loss"] == other.metrics["loss"]
        trained = plain.model.get_weights()
        assert_equal(one.model.get_weights(), trained)
        assert_equal(stored(one)[0]["optimizer"], stored(plain)[0]["optimizer"])
        average = averaged(average, trained, 0.6, epoch)
        assert_equal(one.average, average)
        plain.model.set_weights(average)
        dense = metrics.average_precision(tune.labels, plain.scores(tune))
        plain.model.set_weights(trained)
        assert outcome.metrics["tune_average_precision"] == dense
        differ += outcome.metrics["tune_loss"] != other.metrics["tune_loss"]
        best = max(best, (dense, average), key=lambda pair: pair[0])
        one.scores(tune)  # answering moves the seeds of dropout on
    assert differ == 3  # in the first epoch it is the weights
    assert_equal(one.best_weights, best[1])
    assert one.best_dense == best[0]
    for mine, its in zip(one.chosen().get_weights(), best[1], strict=True):
        np.testing.assert_array_equal(mine, its)


def test_moving_statistics_are_averaged(small_data: Dataset) -> None:
    one = training(small_data, family="dense_rnn", dense=[5], averaging=0.5, dropout=0.1)
    one.run_epoch()
    first = one.model.get_weights()
    one.run_epoch()
    second = one.model.get_weights()
    names = [weight.path.rsplit("/", 1)[-1] for weight in one.model.weights]
    assert {"moving_mean", "moving_variance"} <= set(names)
    for name, before, after, average in zip(names, first, second, one.average, strict=True):
        np.testing.assert_allclose(average, before / 3 + after * 2 / 3, rtol=1e-5, atol=1e-7, err_msg=name)


def test_no_averaging_is_no_work(small_data: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    one = training(small_data)
    monkeypatch.setattr(one.model, "set_weights", lambda weights: pytest.fail("weights are put back"))
    one.run_epoch()
    assert one.save()[0]["average"] == ()


def test_shards_are_averaged_by_their_best_passes(small_data: Dataset) -> None:
    data = in_shards(small_data, 3)
    changes = {"protocol": "incremental", "shard_epochs": 3, "learning_rate": 0.1}
    one, plain = training(data, averaging=0.5, **changes), training(data, **changes)
    average: Arrays = ()
    for epoch in range(1, 4):
        assert one.run_epoch().metrics["loss"] == plain.run_epoch().metrics["loss"]
        average = averaged(average, plain.model.get_weights(), 0.5, epoch)
        assert_equal(one.average, average)


def test_folds_answer_by_their_averages(small_data: Dataset) -> None:
    positives = [int(n) for n in small_data.positives_of_scans()]
    folds = assign_folds(small_data.groups, positives, [int(n) for n in small_data.lengths], 1)
    data = small_data.with_folds([fold % 3 if fold >= 0 else -1 for fold in folds])
    params = training(small_data, averaging=0.8, learning_rate=0.1).params
    whole = CrossFit(params, data, Schedule(max_epochs=3, patience=9, seed=5))
    single = Training(params, data.fold(0), Schedule(max_epochs=3, patience=9, seed=5))
    outcomes = run(single)
    for expected in outcomes:
        step, weights = whole.step()
        assert timeless(step.outcome.metrics) == timeless(expected.metrics)
        if expected.improved:
            chosen = weights
    assert_equal(chosen, single.best_weights)
    single.model.set_weights(single.best_weights)
    np.testing.assert_array_equal(whole.save()[0]["scores"][0], single.scores(data.fold(0).part("validation")))
