"""What augmentation makes of a scan: each step alone, what it draws from, and that nothing given is edited.

How batches carry it is told in tests/data/test_batches.py, what a training does with it in tests/test_training.py.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tunelab.augmentation import Augmentation
from tunelab.data.augment import Augmented, augmented, notes_on
from tunelab.data.dataset import Part, make_dataset
from tunelab.data.order import training_batches

ALL = {
    "background": 0.5,
    "mirror": 0.5,
    "polarity": 0.5,
    "gain_db": 6.0,
    "shift": 0.2,
    "noise_db": 10.0,
    "drop": 0.2,
}


def part_of(scans: list[Any], labels: list[Any] | None = None, channels: int = 1) -> Part:
    """These scans, with labels or with the first trace positive, that cannot be written to."""
    named = {f"{i:03}": np.array(one, np.float32) for i, one in enumerate(scans)}
    own = labels or [[1, *[0] * (len(one) - 1)] for one in scans]
    data = make_dataset(
        scans=named,
        labels={name: np.array(one, np.int8) for name, one in zip(named, own, strict=True)},
        splits=dict.fromkeys(named, "train"),
        dt=None,
        source="here",
    )
    return dataclasses.replace(data, channels=channels).part("train")


def noise(*lengths: int, samples: int = 24, negative: tuple[int, ...] = (), seed: int = 0) -> Part:
    """Scans of noise, some without positives."""
    rng = np.random.default_rng(seed)
    scans = [rng.normal(size=(n, samples)) for n in lengths]
    labels = [rng.random(n) < 0.4 for n in lengths]
    for i, one in enumerate(labels):
        one[0] = i not in negative
        one &= i not in negative
    return part_of(scans, labels)


def varied(
    part: Part, *, seed: int = 1, epoch: int = 0, scans: NDArray[np.intp] | None = None, **steps: Any
) -> Augmented:
    chosen = np.arange(part.n_scans) if scans is None else scans
    made = augmented(part, chosen, Augmentation(**steps), seed=seed, number=(epoch,))
    assert made is not None
    return made


def rms(traces: NDArray[np.float32]) -> float:
    return math.sqrt(np.mean(traces.astype(np.float64) ** 2))


def test_nothing_named_is_nothing_done() -> None:
    assert augmented(noise(4), np.arange(1), Augmentation(), seed=1, number=(0,)) is None


def test_mirror_reverses_traces_and_labels() -> None:
    part = noise(9, 4)
    made = varied(part, mirror=1.0)
    for scan in range(2):
        traces, labels = made.read(scan)
        np.testing.assert_array_equal(traces, part.read(scan)[::-1])
        np.testing.assert_array_equal(labels, part.labels_of(scan)[::-1])
    once = part_of([made.read(0)[0]], [made.read(0)[1]])
    twice, labels = varied(once, mirror=1.0).read(0)
    np.testing.assert_array_equal(twice, part.read(0))
    np.testing.assert_array_equal(labels, part.labels_of(0))


def test_polarity_changes_every_sign() -> None:
    part = noise(9)
    traces, labels = varied(part, polarity=1.0).read(0)
    np.testing.assert_array_equal(traces, -part.read(0))
    np.testing.assert_array_equal(labels, part.labels_of(0))


@pytest.mark.parametrize("step", ["mirror", "polarity", "background"])
def test_a_chance_is_how_often_it_happens(step: str) -> None:
    part = noise(7, 7, negative=(1,))
    changed = sum(
        not np.array_equal(varied(part, epoch=epoch, **{step: 0.3}).read(0)[0], part.read(0)) for epoch in range(400)
    )
    assert 90 <= changed <= 150  # 120 are expected, with a standard deviation of 9


def test_gain_is_one_factor_within_its_range() -> None:
    part = noise(9)
    found = []
    for epoch in range(300):
        traces, _ = varied(part, epoch=epoch, gain_db=6.0).read(0)
        factors = traces / part.read(0)
        assert np.ptp(factors) < 1e-5
        found.append(20 * math.log10(factors.mean()))
    assert -6.0001 < min(found) < -5.5
    assert 5.5 < max(found) < 6.0001
    assert abs(np.mean(found)) < 0.7  # a standard deviation of 0.2


@pytest.mark.parametrize("channels", [1, 3])
def test_shift_moves_every_channel_within_itself_and_zeros_follow(channels: int) -> None:
    width = 10
    scan = 1 + np.arange(4 * channels * width).reshape(4, channels * width)
    part = part_of([scan], channels=channels)
    seen = set()
    for epoch in range(200):
        traces, labels = varied(part, epoch=epoch, shift=0.37).read(0)
        np.testing.assert_array_equal(labels, part.labels_of(0))
        (by,) = {
            by
            for by in range(-9, 10)
            if all(
                np.array_equal(
                    traces[:, c * width : (c + 1) * width],
                    np.pad(scan, ((0, 0), (20, 20)))[:, 20 + c * width - by :][:, :width] * inside(width, by),
                )
                for c in range(channels)
            )
        }
        seen.add(by)
    assert seen == {-3, -2, -1, 0, 1, 2, 3}


def inside(width: int, by: int) -> NDArray[np.bool_]:
    """Where there is something of a channel once it has moved."""
    came_from = np.arange(width) - by
    return (came_from >= 0) & (came_from < width)


def test_a_shift_of_less_than_a_sample_is_none() -> None:
    part = noise(5)
    for epoch in range(20):
        np.testing.assert_array_equal(varied(part, epoch=epoch, shift=0.04).read(0)[0], part.read(0))


def test_noise_is_white_and_as_far_below_the_scan_as_was_said() -> None:
    part = noise(80, samples=500)
    below = []
    for epoch in range(60):
        traces, labels = varied(part, epoch=epoch, noise_db=6.0).read(0)
        np.testing.assert_array_equal(labels, part.labels_of(0))
        added = traces - part.read(0)
        below.append(20 * math.log10(rms(part.read(0)) / rms(added)))
        scaled = added / rms(added)
        assert abs(scaled.mean()) < 5 / math.sqrt(scaled.size)
        for one, other in ((scaled[:, 1:], scaled[:, :-1]), (scaled[1:], scaled[:-1])):
            assert abs((one * other).mean()) < 5 / math.sqrt(one.size)
        assert abs((scaled**4).mean() - 3) < 0.2  # of a Gaussian
    assert 5.9 < min(below) < 8
    assert 24 < max(below) < 26.1


def test_noise_is_told_by_the_scan_after_the_other_steps() -> None:
    part = noise(80, samples=500)
    quiet = part_of([1000 * part.read(0)], [part.labels_of(0)])
    for scans, factor in ((part, 1), (quiet, 1000)):
        made = varied(scans, noise_db=6.0, gain_db=40.0)
        louder = dataclasses.replace(made, steps=Augmentation(gain_db=40.0)).read(0)[0]
        added = made.read(0)[0] - louder
        assert 5.9 < 20 * math.log10(rms(louder) / rms(added)) < 26.1
        assert rms(louder) / factor == pytest.approx(rms(varied(part, gain_db=40.0).read(0)[0]), rel=1e-5)


def test_dropped_traces_are_silent_and_keep_their_labels() -> None:
    part = noise(50)
    dropped = 0
    for epoch in range(40):
        traces, labels = varied(part, epoch=epoch, drop=0.3).read(0)
        np.testing.assert_array_equal(labels, part.labels_of(0))
        gone = ~traces.any(axis=1)
        np.testing.assert_array_equal(traces[~gone], part.read(0)[~gone])
        dropped += int(gone.sum())
    assert 520 < dropped < 680  # 600 are expected, with a standard deviation of 20


@pytest.mark.parametrize("length", [1, 2, 5])
def test_never_are_all_traces_dropped(length: int) -> None:
    part = noise(length)
    left = {int(varied(part, epoch=e, drop=0.99).read(0)[0].any(axis=1).sum()) for e in range(50)}
    assert min(left) == 1


def test_background_is_a_cut_of_another_scan_without_positives() -> None:
    """Each is told by what is added: scan k holds k, and the samples of a trace say where it lay."""
    lengths = [6, 4, 9, 3, 8]
    scans = [np.add.outer(np.arange(n), 100 * (k + 1) + np.arange(5) / 10) for k, n in enumerate(lengths)]
    labels = [[1] + [0] * 5, [0] * 4, [0] * 9, [0, 1, 0], [0] * 8]
    part = part_of(scans, labels)
    for own, allowed in ((0, {1, 2, 4}), (1, {2, 4}), (2, {1, 4}), (4, {1, 2})):
        seen, starts, weights = set(), set(), []
        for epoch in range(300):
            traces, after = varied(part, epoch=epoch, background=1.0).read(own)
            np.testing.assert_array_equal(after, labels[own])
            added = traces.astype(np.float64) - part.read(own)
            weights.append(rms(added) / rms(part.read(own)))
            # ratios of samples do not depend on the weight
            other, start = min(
                ((k, s) for k in range(5) for s in range(max(1, lengths[k] - lengths[own] + 1))),
                key=lambda at: distance(added, tiled(scans[at[0]], at[1], lengths[own])),
            )
            assert distance(added, tiled(scans[other], start, lengths[own])) < 1e-3
            seen.add(other)
            starts.add((other, start))
        assert seen == allowed
        assert starts == {(k, s) for k in allowed for s in range(max(1, lengths[k] - lengths[own] + 1))}
        assert 0 <= min(weights) < 0.05
        assert 0.95 < max(weights) < 1.00001


def tiled(scan: NDArray[Any], start: int, length: int) -> NDArray[Any]:
    """A cut, the scan going on with its reflections."""
    return np.pad(scan, ((0, 5 * length), (0, 0)), mode="symmetric")[start : start + length]


def distance(one: NDArray[Any], other: NDArray[Any]) -> float:
    """Of two directions."""
    return float(np.abs(one / np.linalg.norm(one) - other / np.linalg.norm(other)).max())


def test_background_comes_of_the_scans_of_the_pass_alone() -> None:
    part = noise(5, 5, 5, 5, negative=(1, 2, 3))
    assert varied(part, background=1.0, scans=np.array([3, 0, 1])).negatives.tolist() == [1, 3]
    only = varied(part, background=1.0, scans=np.array([0, 2]))
    changed = [not np.array_equal(only.read(scan)[0], part.read(scan)) for scan in (0, 2)]
    assert changed == [True, False]  # the one that could be added is not added to itself


def test_where_there_is_nothing_to_add_it_is_said() -> None:
    steps = Augmentation(background=0.5)
    part = noise(5, 5, 5, 5, negative=(2, 3))
    everything, shards = [np.arange(4)], [np.array([0, 1]), np.array([2, 0]), np.array([3])]
    assert notes_on(part, everything, steps) == ()
    assert notes_on(part, shards, steps) == (
        "augmentation.background adds nothing in 2 of 3 shards: there is no other training scan without positives.",
    )
    assert notes_on(part, shards, Augmentation(mirror=0.5)) == ()
    full = noise(5, 5)
    (note,) = notes_on(full, [np.arange(2)], steps)
    assert note == "augmentation.background adds nothing: there is no other training scan without positives."
    np.testing.assert_array_equal(varied(full, background=1.0).read(0)[0], full.read(0))
    assert notes_on(noise(5, negative=(0,)), [np.arange(1)], steps) == (note,)


def test_steps_come_in_the_order_of_the_schema() -> None:
    """Mirrored once something was added; shifted, so that noise fills the zeros; dropped at last."""
    part = noise(40, 40, negative=(1,), samples=200)
    traces, _ = varied(part, shift=0.5, noise_db=0.0, drop=0.5).read(0)
    silent = ~traces.any(axis=1)
    assert 5 < silent.sum() < 35
    assert traces[~silent].all()
    straight = varied(part, background=1.0)
    both = dataclasses.replace(straight, steps=Augmentation(background=1.0, mirror=1.0))
    np.testing.assert_array_equal(both.read(0)[0], straight.read(0)[0][::-1])


def test_a_scan_depends_on_seed_epoch_and_number_and_on_nothing_else() -> None:
    part = noise(9, 7, 9, 5, 8, negative=(1, 4))
    first = {scan: varied(part, **ALL).read(scan) for scan in range(5)}
    made = varied(part, **ALL)
    for seed in (1, 2):  # in the order of two epochs' batches, and each twice
        for batch in training_batches(part, np.arange(5), size=2, longest=9, seed=(seed, 0)):
            for scan in batch:
                for _ in range(2):
                    traces, labels = made.read(int(scan))
                    np.testing.assert_array_equal(traces, first[int(scan)][0])
                    np.testing.assert_array_equal(labels, first[int(scan)][1])
    for changes in ({"seed": 2}, {"epoch": 1}):
        other = varied(part, **ALL, **changes)
        assert all(not np.array_equal(other.read(scan)[0], first[scan][0]) for scan in range(5))
    alike = part_of([part.read(0)] * 2, [part.labels_of(0)] * 2)
    assert not np.array_equal(*(varied(alike, noise_db=0.0).read(scan)[0] for scan in (0, 1)))


def test_draws_are_not_those_of_the_order_of_scans() -> None:
    part = noise(5)
    prefix = [*varied(part, mirror=1.0, seed=3, epoch=0).seed, 0]
    order = {np.random.default_rng([3, *number]).random() for number in ((0,), (0, 0), (0, 1), (1,), (1, 0))}
    assert np.random.default_rng(prefix).random() not in order


def test_nothing_given_is_edited_and_what_comes_is_new() -> None:
    part = noise(9, 7, 5, negative=(1, 2))
    before = [(part.read(scan).copy(), part.labels_of(scan).copy()) for scan in range(3)]
    assert not part.read(0).flags.writeable
    for steps in (ALL, *({name: 0.5} for name in ALL)):
        for epoch in range(5):
            for scan in range(3):
                traces, labels = varied(part, epoch=epoch, **steps).read(scan)
                assert (traces.dtype, labels.dtype) == (np.float32, np.int8)
                assert traces.shape == before[scan][0].shape
                assert traces.flags.c_contiguous
                traces[:], labels[:] = 7, 7
    for scan, (own, marks) in enumerate(before):
        np.testing.assert_array_equal(part.read(scan), own)
        np.testing.assert_array_equal(part.labels_of(scan), marks)


@pytest.mark.parametrize("value", [0.0, 5.0, 1e-42, 1e18])
def test_silent_and_dead_scans_give_numbers(value: float) -> None:
    """Also such that squares, or quotients, of theirs do not fit into float32."""
    loud = np.random.default_rng(0).normal(size=(6, 8))
    scans = [np.full((5, 8), value), loud, np.full((1, 8), value), value * loud]
    part = part_of(scans, [[1, 0, 0, 0, 0], [0] * 6, [0], [0] * 6])
    for epoch in range(40):
        made = varied(part, epoch=epoch, **{**ALL, "background": 1.0})
        for scan in range(4):
            assert np.isfinite(made.read(scan)[0]).all()
    if not value:
        np.testing.assert_array_equal(varied(part, background=1.0, noise_db=0.0).read(0)[0], scans[0])
