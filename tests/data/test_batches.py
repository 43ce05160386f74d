"""Batches as Keras takes them: padding, weights, lengths that differ, one trace of a step, and nothing leaks between
the scans of a batch."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from numpy.typing import NDArray

from tunelab.data.batches import Batches, Feed
from tunelab.data.dataset import Dataset, Part, make_dataset
from tunelab.models import FAMILIES, build_model, normalise

pytestmark = pytest.mark.tf

SAMPLES = 24

SMALL: dict[str, dict[str, Any]] = {
    "lstm": {"units": [6, 5]},
    "simple_rnn": {"units": [6]},
    "dense_rnn": {"dense": [7, 6], "units": [5]},
    "conv_rnn": {
        "convolutions": [{"filters": 4, "kernel": 5, "stride": 2, "batch_norm": "before_pool"}],
        "reduce": "flatten",
        "batch_norm_before_dense": True,
        "dense": {"units": 6, "activation": "relu"},
        "units": [5],
    },
}


def of_lengths(*lengths: int, seed: int = 0) -> Part:
    """Scans of noise of these lengths, in this order."""
    rng = np.random.default_rng(seed)
    scans = {f"{i:03}": rng.normal(size=(n, SAMPLES)).astype(np.float32) for i, n in enumerate(lengths)}
    labels = {name: (rng.random(len(scan)) < 0.3).astype(np.int8) for name, scan in scans.items()}
    data = make_dataset(scans=scans, labels=labels, splits=dict.fromkeys(scans, "train"), dt=None, source="noise")
    return data.part("train")


def small(family: str, **changes: Any) -> keras.Model:
    keras.utils.set_random_seed(1)
    params = normalise({"family": family, **SMALL[family], "dropout": 0.0, "l2": 0.01, **changes})
    return build_model(params, SAMPLES)


def compiled(model: keras.Model) -> keras.Model:
    model.compile(
        optimizer=keras.optimizers.SGD(0.1),
        loss=keras.losses.SparseCategoricalCrossentropy(reduction="mean_with_sample_weight"),
        jit_compile=False,
    )
    return model


class Traced(keras.layers.Layer):  # type: ignore[misc]
    """Counts how often Python goes through it: once for each trace of a step."""

    def __init__(self) -> None:
        super().__init__()
        self.times = 0
        self.shapes: list[tuple[int | None, ...]] = []

    def call(self, x: Any) -> Any:
        self.times += 1
        self.shapes.append(tuple(x.shape))
        return x


def counting() -> tuple[keras.Model, Traced]:
    """A model of the usual inputs that counts its traces."""
    inputs = {
        "traces": keras.Input((None, SAMPLES), name="traces"),
        "lengths": keras.Input((), dtype="int32", name="lengths"),
    }
    layer = Traced()
    answer = keras.layers.Dense(2, activation="softmax")(layer(inputs["traces"]))
    model = compiled(keras.Model(inputs, answer))
    layer.times = 0
    layer.shapes.clear()
    return model, layer


def groups(*numbers: list[int]) -> list[NDArray[np.intp]]:
    return [np.array(some) for some in numbers]


def test_batches_pad_at_the_end_and_leave_the_data_alone(small_data: Dataset) -> None:
    part = small_data.part("train")
    before = [part.read(scan).copy() for scan in range(part.n_scans)]
    longest = int(small_data.lengths.max())
    batches = Batches(part, groups([3, 1, 2], [0]), longest=longest, class_weight=2.0)
    assert len(batches) == 2
    inputs, labels, weights = batches[0]
    lengths = part.lengths[[3, 1, 2]]
    assert inputs["traces"].shape == (3, lengths.max(), part.samples.n_samples)
    assert inputs["traces"].shape[:2] == labels.shape == weights.shape
    np.testing.assert_array_equal(inputs["lengths"], lengths)
    assert inputs["lengths"].dtype == np.int32
    assert lengths.min() < lengths.max()
    for row, scan in enumerate([3, 1, 2]):
        length = part.lengths[scan]
        np.testing.assert_array_equal(inputs["traces"][row, :length], part.read(scan))
        np.testing.assert_array_equal(labels[row, :length], part.labels_of(scan))
        np.testing.assert_array_equal(weights[row, :length], np.where(part.labels_of(scan) == 1, 2.0, 1.0))
        assert not inputs["traces"][row, length:].any()
        assert not weights[row, length:].any()
    inputs["traces"][:] = 7
    for scan, samples in enumerate(before):
        np.testing.assert_array_equal(part.read(scan), samples)


def test_a_batch_is_as_long_as_its_longest_scan_rounded_up() -> None:
    part = of_lengths(41, 30, 97, 99)
    batches = Batches(part, groups([0, 1], [1], [2, 0], [3]), longest=99)
    assert [batches[i][0]["traces"].shape[1] for i in range(4)] == [44, 32, 99, 99]


@pytest.mark.parametrize(
    "order",
    [[[0, 1], [2, 3], [4, 5], [6]], [[4, 5], [0, 1], [6], [2, 3]], [[6], [0, 4]], [[0], [1]]],
    ids=["agree-then-differ", "differ", "short-first", "all-agree"],
)
def test_a_step_is_traced_once_whatever_the_lengths(order: list[list[int]]) -> None:
    """Also over several epochs, each of which Keras sees as a data set of its own."""
    part = of_lengths(9, 9, 9, 9, 4, 3, 7)
    model, layer = counting()
    feed = Feed(SAMPLES)
    for some in (order, order[::-1], [[2, 3], [0, 1], [5]]):
        history = model.fit(feed.of(Batches(part, groups(*some), longest=9)), shuffle=False, verbose=0)
        assert np.isfinite(history.history["loss"][0])
    if keras.backend.backend() == "tensorflow":
        assert layer.shapes == [(None, None, SAMPLES)]


def test_keras_alone_would_not_take_them() -> None:
    """Why there is a feed: the day this fails, it may go."""
    if keras.backend.backend() != "tensorflow":
        pytest.skip("a fault of the TensorFlow backend")
    part = of_lengths(9, 9, 9, 9, 4, 3, 7)
    model, _ = counting()
    with pytest.raises(Exception, match="was expected"):
        model.fit(Batches(part, groups([0, 1], [2, 3], [4, 5]), longest=9), shuffle=False, verbose=0)


def test_the_feed_gives_every_batch_in_order() -> None:
    part = of_lengths(9, 9, 9, 4, 3, 7)
    batches = Batches(part, groups([0, 1], [5, 2], [4, 3]), longest=9, class_weight=3.0)
    feed = Feed(SAMPLES)
    for epoch in range(2):
        fed = list(feed.of(batches))
        assert len(fed) == len(batches), epoch
        for i, (inputs, labels, weights) in enumerate(fed):
            np.testing.assert_array_equal(np.asarray(inputs["traces"]), batches[i][0]["traces"])
            np.testing.assert_array_equal(np.asarray(inputs["lengths"]), batches[i][0]["lengths"])
            np.testing.assert_array_equal(np.asarray(labels), batches[i][1])
            np.testing.assert_array_equal(np.asarray(weights), batches[i][2])


def test_a_feed_gives_each_batches_its_own() -> None:
    """Also one that is still read when the next has been asked for."""
    part = of_lengths(9, 8, 7, 4, 3, 6)
    feed = Feed(SAMPLES)

    def lengths(fed: Any) -> list[list[int]]:
        return [np.asarray(inputs["lengths"]).tolist() for inputs, _, _ in fed]

    first = iter(feed.of(Batches(part, groups([0, 1], [2], [3]), longest=9)))
    assert lengths([next(first)]) == [[9, 8]]
    assert lengths(feed.of(Batches(part, groups([4], [5]), longest=9))) == [[3], [6]]
    assert lengths(feed.of(Batches(part, [], longest=9))) == []
    assert lengths(first) == [[7], [4]]


def test_batches_that_were_fed_are_let_go() -> None:
    part = of_lengths(9, 8, 7, 4)
    model, _ = counting()
    feed = Feed(SAMPLES)
    given = []
    for some in ([[0, 1], [2, 3]], [[2], [3, 0]], [[1, 2, 3]], [[0], [1], [2]]):
        batches = Batches(part, groups(*some), longest=9)
        given.append(weakref.ref(batches))
        model.fit(feed.of(batches), shuffle=False, verbose=0)
        assert len(list(feed.of(batches))) == len(some)
    del batches
    gc.collect()
    assert [one() is None for one in given] == [True, True, True, keras.backend.backend() != "tensorflow"]


def test_samples_on_disk_are_read_a_batch_at_a_time(tmp_path: Path) -> None:
    """And no more than one batch ahead of the one in hand."""
    lengths = np.array([4, 3, 5, 2, 4, 4])
    starts = np.cumsum(lengths) - lengths
    stored = np.memmap(tmp_path / "samples", np.float32, "w+", shape=(int(lengths.sum()), SAMPLES))
    stored[:] = np.random.default_rng(0).normal(size=stored.shape)
    stored.flush()
    memory = np.memmap(tmp_path / "samples", np.float32, "r", shape=stored.shape)
    seen: list[int] = []

    class OnDisk:
        n_samples = SAMPLES

        def read(self, scan: int) -> NDArray[np.float32]:
            seen.append(scan)
            return memory[starts[scan] : starts[scan] + lengths[scan]]

        def moments(self, scans: NDArray[np.intp]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
            raise AssertionError

    part = Part(
        samples=OnDisk(),
        positions=np.arange(6),
        labels=np.zeros(int(lengths.sum()), np.int8),
        lengths=lengths,
        starts=starts,
        scans=tuple("abcdef"),
        shards=np.array([0, 0, 1, 1, 2, 2]),
    )
    batches = Batches(part, groups([0], [1], [2], [3], [4], [5]), longest=5)
    assert not seen
    each: Iterator[Any] = iter(Feed(SAMPLES).of(batches))
    inputs, _, _ = next(each)
    np.testing.assert_array_equal(np.asarray(inputs["traces"])[0], stored[:4])
    assert len(seen) <= 3  # the one in hand, one kept ready, one being read
    assert len(list(each)) == 5
    assert seen == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("family", FAMILIES)
def test_an_answer_does_not_depend_on_the_batch(family: str) -> None:
    part = of_lengths(7, 7, 12, 20, 3, 1)
    model = small(family)
    # statistics that are not those of a model never trained
    compiled(model).fit(
        Feed(SAMPLES).of(Batches(part, groups([0, 3], [5, 4, 2]), longest=20)), shuffle=False, verbose=0
    )

    def answer(*scans: int) -> NDArray[np.float32]:
        batch, _, _ = Batches(part, groups(list(scans)), longest=20)[0]
        return np.asarray(model.predict_on_batch(batch))[scans.index(0), :7]

    alone = answer(0)
    for others in ((0, 1), (3, 0), (0, 3), (0, 4, 5), (5, 2, 4, 3, 0, 1), (1, 0, 3, 4, 2, 5)):
        np.testing.assert_allclose(answer(*others), alone, atol=1e-5, err_msg=str(others))


@pytest.mark.parametrize("family", FAMILIES)
def test_padding_moves_no_weight(family: str) -> None:
    """One step on scans padded far and filled with anything equals one without a padded trace."""
    part = of_lengths(8, 8, 5)
    moved = []
    for further in (0, 9):
        model = compiled(small(family))
        inputs, labels, weights = Batches(part, groups([0, 1, 2]), longest=8)[0]
        pad = ((0, 0), (0, further))
        traces = np.pad(inputs["traces"], (*pad, (0, 0)))
        traces[2, 5:] = 4 * further
        model.train_on_batch(
            {"traces": traces, "lengths": inputs["lengths"]}, np.pad(labels, pad), sample_weight=np.pad(weights, pad)
        )
        moved.append(model.get_weights())
    before = small(family).get_weights()
    changed = 0
    for one, other, start in zip(*moved, before, strict=True):
        np.testing.assert_allclose(other, one, atol=1e-5)
        changed += np.abs(one - start).max() > 1e-4
    assert changed > len(before) / 2


@pytest.mark.parametrize("family", FAMILIES)
def test_a_step_weighs_traces_not_scans(family: str) -> None:
    """The gradient of a batch is the mean over valid traces of those of its scans, where statistics are left alone."""
    part = of_lengths(12, 4)
    model = compiled(small(family, l2=0.0))
    for layer in model._flatten_layers():
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.trainable = False

    def gradients(*scans: int) -> list[NDArray[np.float32]]:
        start = model.get_weights()
        inputs, labels, weights = Batches(part, groups(list(scans)), longest=12)[0]
        model.train_on_batch(inputs, labels, sample_weight=weights)
        moved = [before - after for before, after in zip(start, model.get_weights(), strict=True)]
        model.set_weights(start)
        return moved

    for both, first, second in zip(gradients(0, 1), gradients(0), gradients(1), strict=True):
        np.testing.assert_allclose(both, (12 * first + 4 * second) / 16, atol=1e-6)
