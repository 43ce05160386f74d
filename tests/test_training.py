"""Training one params: metrics, the chosen epoch, patience, NaN, repeatability, and going on from a checkpoint."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tunelab import metrics
from tunelab.data.dataset import Dataset
from tunelab.errors import ClusterError, StateError
from tunelab.measures import cross_entropy
from tunelab.models import normalise
from tunelab.training import Schedule, Training, configure, digest, evaluate, pack, unpack

pytestmark = pytest.mark.tf


def params(**changes: Any) -> dict[str, Any]:
    raw = {"family": "simple_rnn", "units": [8], "dropout": 0.2, "l2": 1e-4, "learning_rate": 0.01, "batch_size": 4}
    return normalise({**raw, **changes})


def training(data: Dataset, max_epochs: int = 4, patience: int = 10, seed: int = 5, **changes: Any) -> Training:
    schedule = Schedule(max_epochs=max_epochs, patience=patience, seed=seed)
    return Training(params(**changes), data, schedule)


def run(one: Training) -> list[Any]:
    outcomes = [one.run_epoch()]
    while not outcomes[-1].ended and not outcomes[-1].failed:
        outcomes.append(one.run_epoch())
    return outcomes


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


def test_the_loss_leaves_padding_out_and_weighs_classes(small_data: Dataset) -> None:
    """Keras minimises the weighted mean of -log of the true label's share over valid traces, and the penalty."""
    from tunelab.data.batches import Batches

    one = training(small_data, dropout=0.0, class_weight=3.0)
    part = small_data.part("train")
    batch = Batches(part, [np.arange(part.n_scans)], longest=one.longest, class_weight=3.0)
    loss = one.model.evaluate(batch, verbose=0)
    share = np.where(part.labels == 1, one.scores(part), 1 - one.scores(part))
    weights = np.where(part.labels == 1, 3.0, 1.0)
    penalty = float(sum(one.model.losses))
    assert loss == pytest.approx(float((weights * -np.log(share)).sum() / weights.sum()) + penalty, rel=1e-4)


def test_the_same_seed_repeats_a_training_and_another_does_not(small_data: Dataset) -> None:
    configure(1, 0)
    first, again, other = (run(training(small_data, seed=seed)) for seed in (5, 5, 6))
    assert [o.metrics for o in first] == [o.metrics for o in again]
    assert [o.metrics["loss"] for o in first] != [o.metrics["loss"] for o in other]


def test_going_on_from_a_checkpoint_equals_never_having_stopped(small_data: Dataset, tmp_path: Path) -> None:
    whole = training(small_data, max_epochs=4)
    expected = run(whole)
    begun = training(small_data, max_epochs=4)
    begun.run_epoch()
    begun.run_epoch()
    begun.save(tmp_path)
    resumed = training(small_data, max_epochs=4)
    resumed.load(tmp_path)
    rest = run(resumed)
    assert [o.epoch for o in rest] == [3, 4]
    assert [o.metrics for o in rest] == [o.metrics for o in expected[2:]]
    assert resumed.best_epoch == whole.best_epoch
    for one, other in zip(resumed.best_weights, whole.best_weights, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_damaged_checkpoint_is_refused(small_data: Dataset, tmp_path: Path) -> None:
    one = training(small_data)
    one.run_epoch()
    one.save(tmp_path)
    raw = bytearray((tmp_path / "model.npz").read_bytes())
    raw[len(raw) // 2] ^= 1
    (tmp_path / "model.npz").write_bytes(raw)
    with pytest.raises(StateError, match=r"model\.npz: does not match its digest"):
        training(small_data).load(tmp_path)
    (tmp_path / "best.npz").unlink()
    with pytest.raises(StateError, match="no whole checkpoint"):
        training(small_data).load(tmp_path)
    one.save(tmp_path)
    with pytest.raises(StateError, match="variables of another model"):
        training(small_data, units=[9]).load(tmp_path)


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


def test_packed_arrays_come_back_and_pickles_do_not() -> None:
    arrays = [np.arange(3.0), np.ones((2, 2), np.float32)]
    for one, other in zip(unpack(pack(arrays)), arrays, strict=True):
        np.testing.assert_array_equal(one, other)
    with pytest.raises(ValueError, match="pickle"):
        unpack(pack([np.array([{"a": 1}], dtype=object)]))
    assert digest(b"") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def test_a_gpu_that_the_framework_does_not_see_is_refused() -> None:
    from tunelab.training import visible_gpus

    if visible_gpus():
        pytest.skip("this machine has a GPU")
    with pytest.raises(ClusterError, match=r"asked for 0\.5 GPU and tensorflow sees none.*--gpus-per-trial 0"):
        configure(1, 0.5)
