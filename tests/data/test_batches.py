"""Batches as models take them: padding, weights, lengths that differ, memory that is used again, and nothing leaks
between the scans of a batch."""

from __future__ import annotations

import queue
import threading
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from numpy.typing import NDArray
from small_models import small as small_params

from tunelab.augmentation import Augmentation
from tunelab.data import batches as data_batches
from tunelab.data.augment import Augmented, augmented
from tunelab.data.batches import Batches, Feed
from tunelab.data.dataset import Dataset, Part, make_dataset
from tunelab.data.samples import moments_of
from tunelab.models import FAMILIES, build_model
from tunelab.models.layers import wants_moments, whole

pytestmark = pytest.mark.tf

SAMPLES = 24


def of_lengths(*lengths: int, seed: int = 0) -> Part:
    """Scans of noise of these lengths, in this order."""
    rng = np.random.default_rng(seed)
    scans = {f"{i:03}": rng.normal(size=(n, SAMPLES)).astype(np.float32) for i, n in enumerate(lengths)}
    labels = {name: (rng.random(len(scan)) < 0.3).astype(np.int8) for name, scan in scans.items()}
    data = make_dataset(scans=scans, labels=labels, splits=dict.fromkeys(scans, "train"), dt=None, source="noise")
    return data.part("train")


def small(family: str, **changes: Any) -> keras.Model:
    keras.utils.set_random_seed(1)
    params = small_params(family, **{"dropout": 0.0, **changes})
    for block in params.get("convolutions", []):
        block["dropout"] = 0.0
    return build_model(params, SAMPLES)


def compiled(model: keras.Model) -> keras.Model:
    model.compile(
        optimizer=keras.optimizers.SGD(0.1),
        loss=keras.losses.SparseCategoricalCrossentropy(reduction="mean_with_sample_weight"),
        jit_compile=False,
    )
    return model


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


@pytest.mark.parametrize("ahead", [0, 2**40])
def test_the_feed_gives_every_batch_in_order(ahead: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether they are read ahead, in memory that is used again, or not."""
    monkeypatch.setattr(data_batches, "AHEAD_BYTES", ahead)
    part = of_lengths(9, 9, 9, 4, 3, 7)
    batches = Batches(part, groups([0, 1], [5, 2], [4, 3], [1]), longest=9, class_weight=3.0, moments=True)
    feed = Feed()
    for _ in range(3):
        seen = 0
        for i, (inputs, labels, weights) in enumerate(feed.of(batches)):
            expected, own_labels, own_weights = batches[i]
            assert set(inputs) == set(expected) == {"traces", "lengths", "moments"}
            for name, value in expected.items():
                np.testing.assert_array_equal(np.asarray(inputs[name]), value)
            np.testing.assert_array_equal(np.asarray(labels), own_labels)
            np.testing.assert_array_equal(np.asarray(weights), own_weights)
            seen += 1
        assert seen == 4
    assert list(feed.of(Batches(part, [], longest=9))) == []


def test_memory_is_used_again_and_only_when_a_batch_is_done_with(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data_batches, "AHEAD_BYTES", 0)
    monkeypatch.setattr(data_batches, "_handed", lambda batch: batch)
    part = of_lengths(9, 8, 7, 4, 3, 6)
    read: queue.SimpleQueue[int] = queue.SimpleQueue()

    class Watched(Batches):
        def read(self, index: int, take: data_batches.Take) -> data_batches.Batch:
            batch = super().read(index, take)
            read.put(index)
            return batch

    feed = Feed()
    places = []
    for _ in range(2):
        for index, (inputs, _, _) in enumerate(feed.of(Watched(part, groups([0], [1], [2], [3], [4]), longest=9))):
            assert index > 0 or read.get(timeout=60) == 0
            assert index == 4 or read.get(timeout=60) == index + 1  # while this one is in hand
            traces = inputs["traces"]
            places.append(traces.ctypes.data)
            np.testing.assert_array_equal(traces[0, : part.lengths[index]], part.read(index))
            assert not traces[0, part.lengths[index] :].any()
    assert len(set(places)) == 2
    assert all(place % 64 == 0 for place in places)


def test_scans_that_fit_stay_with_the_accelerator_and_are_read_once() -> None:
    """Here the CPU's own memory stands for the GPU's."""
    part, other = of_lengths(9, 8, 7, 4, 3, 6), of_lengths(9, 9, 9, seed=1)
    seen: list[int] = []

    class Counted(Part):
        def read(self, scan: int) -> NDArray[np.float32]:
            seen.append(scan)
            return part.read(scan)

    counted = Counted(**{name: getattr(part, name) for name in Part.__dataclass_fields__})
    feed = Feed(resident_bytes=6 * 9 * SAMPLES * 4 + 100)
    for _ in range(3):
        batches = Batches(counted, groups([5, 0], [3], [4, 1, 2]), longest=9, class_weight=2.0, moments=True)
        plain = Batches(part, groups([5, 0], [3], [4, 1, 2]), longest=9, class_weight=2.0, moments=True)
        fed = list(feed.of(batches))
        assert [tuple(inputs["traces"].shape) for inputs, _, _ in fed] == [plain.shape(i) for i in range(3)]
        for (inputs, labels, weights), (expected, own_labels, own_weights) in zip(fed, plain, strict=True):
            np.testing.assert_array_equal(np.asarray(inputs["traces"]), expected["traces"])
            np.testing.assert_array_equal(inputs["moments"], expected["moments"])
            np.testing.assert_array_equal(labels, own_labels)
            np.testing.assert_array_equal(weights, own_weights)
    assert sorted(seen) == [0, 1, 2, 3, 4, 5]
    # the other part finds no room any more
    (only,) = feed.of(Batches(other, groups([2]), longest=9))
    np.testing.assert_array_equal(np.asarray(only[0]["traces"])[0], other.read(2))
    assert len(feed._resident) == 1


def test_a_feed_that_is_left_early_reads_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a training does whose loss is no number."""
    monkeypatch.setattr(data_batches, "AHEAD_BYTES", 0)
    before = threading.active_count()
    fed = Feed().of(Batches(of_lengths(9, 8, 7, 4), groups([0], [1], [2], [3]), longest=9))
    next(fed)
    fed.close()  # type: ignore[attr-defined]
    assert threading.active_count() == before


def test_a_fault_in_reading_is_the_consumers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data_batches, "AHEAD_BYTES", 0)
    part = of_lengths(9, 8, 7)
    fed = Feed().of(Batches(part, groups([0], [5]), longest=9))
    with pytest.raises(IndexError):
        list(fed)


def test_moments_come_with_the_scans_of_the_batch() -> None:
    part = of_lengths(9, 4, 7)
    inputs, _, _ = Batches(part, groups([2, 0]), longest=9, moments=True)[0]
    assert inputs["moments"].shape == (2, 2, SAMPLES)
    np.testing.assert_allclose(inputs["moments"][0, 0], part.read(2).mean(0), atol=1e-6)
    np.testing.assert_allclose(inputs["moments"][1, 1], part.read(0).std(0), atol=1e-6)
    assert "moments" not in Batches(part, groups([2, 0]), longest=9)[0][0]


def varied(part: Part, epoch: int = 0) -> Augmented:
    """Mirrored, so that labels move, and with noise, so that everything does."""
    steps = Augmentation(mirror=0.5, gain_db=6.0, noise_db=10.0, drop=0.2)
    made = augmented(part, np.arange(part.n_scans), steps, seed=3, number=(epoch,))
    assert made is not None
    return made


def test_a_batch_of_varied_scans_has_their_labels_weights_and_moments() -> None:
    part = of_lengths(9, 4, 7, 5)
    made = varied(part)
    batches = Batches(part, groups([2, 0], [1, 3]), longest=9, class_weight=2.5, moments=True, augment=made)
    moved = 0
    for index, chosen in enumerate(([2, 0], [1, 3])):
        inputs, labels, weights = batches[index]
        assert inputs["traces"].shape == batches.shape(index)
        for row, scan in enumerate(chosen):
            length = part.lengths[scan]
            traces, own = made.read(scan)
            moved += not np.array_equal(own, part.labels_of(scan))
            np.testing.assert_array_equal(inputs["traces"][row, :length], traces)
            np.testing.assert_array_equal(labels[row, :length], own)
            np.testing.assert_array_equal(weights[row, :length], np.where(own == 1, np.float32(2.5), 1))
            np.testing.assert_array_equal(inputs["moments"][row], moments_of(traces))
            for padding in (inputs["traces"], labels, weights):
                assert not padding[row, length:].any()
        assert inputs["lengths"].tolist() == part.lengths[chosen].tolist()
    assert moved
    assert "moments" not in Batches(part, groups([0]), longest=9, augment=made)[0][0]


@pytest.mark.parametrize("ahead", [0, 2**40])
def test_varied_scans_are_fed_anew_and_never_from_what_stays_with_the_accelerator(
    ahead: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data_batches, "AHEAD_BYTES", ahead)
    part = of_lengths(9, 9, 9, 4, 3, 7)
    order = groups([0, 1], [5, 2], [4, 3])
    feed = Feed(resident_bytes=2**30)
    for epoch in range(3):
        batches = Batches(part, order, longest=9, moments=True, augment=varied(part, epoch))
        seen = 0
        for (inputs, labels, weights), expected in zip(feed.of(batches), batches, strict=True):
            for name, value in expected[0].items():
                np.testing.assert_array_equal(np.asarray(inputs[name]), value)
            np.testing.assert_array_equal(labels, expected[1])
            np.testing.assert_array_equal(weights, expected[2])
            seen += 1
        assert seen == 3
    assert not feed._resident
    # the same scans as they are, as for an evaluation, may stay there, and are not taken for the others then
    plain = Batches(part, order, longest=9)
    for _ in range(2):
        for (inputs, _, _), expected in zip(feed.of(plain), plain, strict=True):
            np.testing.assert_array_equal(np.asarray(inputs["traces"]), expected[0]["traces"])
        ((inputs, _, _),) = feed.of(Batches(part, groups([1]), longest=9, augment=varied(part)))
        np.testing.assert_array_equal(np.asarray(inputs["traces"])[0], varied(part).read(1)[0])
    assert len(feed._resident) == 1


def test_samples_on_disk_are_read_a_batch_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And no more than one batch ahead of the one in hand."""
    monkeypatch.setattr(data_batches, "AHEAD_BYTES", 0)
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

        def moments(self, scans: NDArray[np.intp]) -> NDArray[np.float32]:
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
    each = Feed().of(batches)
    inputs, _, _ = next(each)
    np.testing.assert_array_equal(np.asarray(inputs["traces"])[0], stored[:4])
    assert len(seen) <= 2  # the one in hand, and the next
    assert len(list(each)) == 5
    assert seen == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("family", FAMILIES)
def test_an_answer_does_not_depend_on_the_batch(family: str) -> None:
    part = of_lengths(7, 7, 12, 20, 3, 1)
    model = small(family)
    # statistics that are not those of a model never trained
    compiled(model)
    for batch in Batches(part, groups([0, 3], [5, 4, 2]), longest=20, moments=wants_moments(model)):
        model.train_on_batch(*batch)

    def answer(*scans: int) -> NDArray[np.float32]:
        batch, _, _ = Batches(part, groups(list(scans)), longest=20)[0]
        return np.asarray(model.predict_on_batch(whole(model, batch)))[scans.index(0), :7]

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
        given = whole(model, {**inputs, "traces": traces})
        model.train_on_batch(given, np.pad(labels, pad), sample_weight=np.pad(weights, pad))
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
        model.train_on_batch(whole(model, inputs), labels, sample_weight=weights)
        moved = [before - after for before, after in zip(start, model.get_weights(), strict=True)]
        model.set_weights(start)
        return moved

    for both, first, second in zip(gradients(0, 1), gradients(0), gradients(1), strict=True):
        np.testing.assert_allclose(both, (12 * first + 4 * second) / 16, atol=1e-6)
