"""The order of scans: each once an epoch, windows of shards, batches of about one length, and repeatability."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from tunelab.data import order
from tunelab.data.dataset import Part
from tunelab.data.order import Scans, padded_lengths, reading_batches, training_batches, windows

SAMPLES = 3


class NeverRead:
    """Samples of which only the number is known."""

    n_samples = SAMPLES

    def read(self, scan: int) -> NDArray[np.float32]:
        raise AssertionError(f"scan {scan} was read")

    def moments(self, scans: NDArray[np.intp]) -> NDArray[np.float32]:
        raise AssertionError(f"scans {scans} were read")


def part_of(lengths: NDArray[np.int64], shards: NDArray[np.int64] | None = None) -> Part:
    n = len(lengths)
    return Part(
        samples=NeverRead(),
        positions=np.arange(n),
        labels=np.zeros(int(lengths.sum()), np.int8),
        lengths=lengths,
        starts=np.cumsum(lengths) - lengths,
        scans=tuple(f"{i:06}" for i in range(n)),
        shards=np.zeros(n, np.int64) if shards is None else shards,
    )


def uniform(n: int, seed: int = 0) -> Part:
    """Scans of 30 to 100 traces, ten to a shard."""
    return part_of(np.random.default_rng(seed).integers(30, 101, n), np.arange(n) // 10)


def waste(part: Part, batches: list[Scans], longest: int) -> float:
    """Share of the traces of all batches that is padding."""
    slots = sum(len(scans) * int(padded_lengths(part.lengths[scans], longest).max()) for scans in batches)
    return 1 - part.n_traces / slots


def flat(batches: list[Scans]) -> list[int]:
    return [int(scan) for scans in batches for scan in scans]


@given(
    lengths=st.lists(st.integers(1, 60), min_size=1, max_size=60),
    size=st.integers(1, 9),
    shards=st.integers(1, 7),
    scans_in_a_window=st.integers(0, 40),
    seed=st.integers(0, 2**32),
)
def test_every_scan_stands_in_one_batch(
    lengths: list[int], size: int, shards: int, scans_in_a_window: int, seed: int
) -> None:
    part = part_of(np.array(lengths), np.arange(len(lengths)) % shards)
    window_bytes = scans_in_a_window * 30 * SAMPLES * 4
    for batches in (
        training_batches(
            part, np.arange(len(lengths)), size=size, longest=60, seed=(seed, 1), window_bytes=window_bytes
        ),
        reading_batches(part, size=size, longest=60, window_bytes=window_bytes),
    ):
        assert sorted(flat(batches)) == list(range(len(lengths)))
        assert all(1 <= len(scans) <= size for scans in batches)


def test_a_window_has_one_batch_at_most_that_is_not_full() -> None:
    part = uniform(203)
    batches = training_batches(part, np.arange(203), size=8, longest=100, seed=(1,))
    assert sorted(len(scans) for scans in batches) == [3] + [8] * 25
    assert {len(training_batches(part, np.arange(203), size=8, longest=100, seed=(s,))[0]) for s in range(60)} == {3, 8}


@pytest.mark.parametrize("size", [8, 32])
@pytest.mark.parametrize("seed", range(5))
def test_less_than_eight_percent_of_a_batch_is_padding(size: int, seed: int) -> None:
    part = uniform(640, seed)
    batches = training_batches(part, np.arange(640), size=size, longest=100, seed=(seed, 3))
    assert waste(part, batches, 100) < 0.08
    assert waste(part, reading_batches(part, size=size, longest=100), 100) < 0.06
    whole = [np.arange(640)[i : i + size] for i in range(0, 640, size)]
    assert waste(part, whole, 100) > 0.2  # in the order of ids


def test_lengths_of_batches_are_few_and_none_is_beyond_the_longest() -> None:
    lengths = np.arange(1, 1001)
    for longest in (1, 7, 25, 26, 99, 100, 1000):
        padded = padded_lengths(lengths[:longest], longest)
        assert len(set(padded)) <= order.LENGTHS
        assert (padded >= lengths[:longest]).all()
        assert padded.max() == longest
    np.testing.assert_array_equal(padded_lengths(np.array([30, 32, 33, 97, 100]), 100), [32, 32, 36, 100, 100])
    np.testing.assert_array_equal(padded_lengths(np.array([30, 97, 98]), 98), [32, 98, 98])


def test_small_data_are_shuffled_as_a_whole() -> None:
    """Where all scans are equally long, each is as likely in any place, whatever its shard."""
    n, draws = 12, 3000
    part = part_of(np.full(n, 5), np.arange(n) // 3)
    places = np.zeros((n, n))
    neighbours = 0
    for seed in range(draws):
        found = flat(training_batches(part, np.arange(n), size=4, longest=5, seed=(seed,)))
        places[found, np.arange(n)] += 1
        neighbours += sum(abs(a - b) == 1 and a // 3 == b // 3 for a, b in pairwise(found))
    # 144 counts of 250 expected, each with a standard deviation of 15
    assert abs(places - draws / n).max() < 5 * 15.2
    # 8 of 66 pairs are neighbours of one shard, 11 pairs stand side by side
    assert neighbours / draws == pytest.approx(11 * 8 / 66, rel=0.1)


def test_one_seed_repeats_and_another_epoch_differs() -> None:
    part = uniform(300)

    def at(*seed: int) -> list[int]:
        return flat(training_batches(part, np.arange(300), size=8, longest=100, seed=seed, window_bytes=60_000))

    assert at(5, 0) == at(5, 0)
    assert at(5, 0) != at(5, 1)
    assert at(5, 0) != at(6, 0)


def test_scans_of_a_batch_are_others_in_the_next_epoch() -> None:
    part = uniform(300)
    batches = [training_batches(part, np.arange(300), size=8, longest=100, seed=(5, epoch)) for epoch in range(2)]
    first, second = ({frozenset(map(int, scans)) for scans in some} for some in batches)
    assert len(first & second) <= 2


def test_the_order_is_the_same_on_every_machine() -> None:
    part = part_of(np.array([3, 9, 4, 8, 5, 7]), np.array([0, 0, 1, 1, 2, 2]))
    found = training_batches(part, np.arange(6), size=2, longest=9, seed=(7, 1), window_bytes=24 * SAMPLES * 4)
    assert [scans.tolist() for scans in found] == [[0, 4], [5, 1], [2, 3]]


def open_bytes(part: Part, found: list[int]) -> int:
    """The most bytes of shards that are begun and not finished at once, in this order of scans."""
    shards = part.shards[found]
    sizes = np.bincount(part.shards, part.lengths * SAMPLES * 4).astype(int)
    first = {int(shard): int(np.flatnonzero(shards == shard)[0]) for shard in np.unique(shards)}
    last = {int(shard): int(np.flatnonzero(shards == shard)[-1]) for shard in np.unique(shards)}
    return max(sum(sizes[s] for s in first if first[s] <= place <= last[s]) for place in range(len(found)))


@pytest.mark.parametrize("seed", range(5))
def test_no_more_shards_are_read_at_once_than_a_window_holds(seed: int) -> None:
    part = uniform(200)
    shard_bytes = np.bincount(part.shards, part.lengths * SAMPLES * 4).astype(int)
    window_bytes = 3 * int(shard_bytes.max())

    def read(bytes_: int) -> list[int]:
        return flat(training_batches(part, np.arange(200), size=8, longest=100, seed=(seed,), window_bytes=bytes_))

    assert 2 * shard_bytes.min() < open_bytes(part, read(window_bytes)) <= window_bytes
    assert open_bytes(part, read(shard_bytes.sum())) > window_bytes
    begun = list(dict.fromkeys(part.shards[read(window_bytes)].tolist()))
    assert (np.maximum.accumulate(begun) - begun).max() > 3  # the shards are shuffled too


def test_no_batch_reaches_across_two_windows() -> None:
    part = part_of(np.full(30, 5), np.arange(30) // 5)
    batches = training_batches(part, np.arange(30), size=4, longest=5, seed=(0,), window_bytes=10 * 5 * SAMPLES * 4)
    together = [set(part.shards[scans].tolist()) for scans in batches]
    assert [len(set().union(*together[i : i + 3])) for i in (0, 3, 6)] == [2, 2, 2]
    assert sorted(len(scans) for scans in batches) == [2, 2, 2, 4, 4, 4, 4, 4, 4]


def test_a_shard_larger_than_a_window_is_a_window() -> None:
    part = part_of(np.array([5, 5, 50, 50, 5, 5]), np.array([0, 0, 1, 1, 2, 2]))
    found = windows(part, np.arange(6), np.array([0, 1, 2]), 25 * SAMPLES * 4)
    assert [window.tolist() for window in found] == [[0, 1], [2, 3], [4, 5]]
    found = windows(part, np.arange(6), np.array([1, 2, 0]), 25 * SAMPLES * 4)
    assert [window.tolist() for window in found] == [[2, 3], [4, 5, 0, 1]]


class Watched(np.ndarray):
    """Shards that count how often many are looked up or compared at once."""

    times = 0

    def __getitem__(self, index: Any) -> Any:
        Watched.times += np.ndim(index) > 0
        return super().__getitem__(index)

    def __eq__(self, other: object) -> Any:
        Watched.times += 1
        return super().__eq__(other)

    __hash__ = None  # type: ignore[assignment]


def test_a_shard_a_scan_is_not_searched_for_in_all_scans(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Watched, "times", 0)
    rng = np.random.default_rng(0)
    n = 400
    part = part_of(rng.integers(30, 101, n), rng.permutation(n).view(Watched))
    some = rng.permutation(n)[:300]
    shards = rng.permutation(np.asarray(part.shards)[some])
    scan_of = {int(shard): scan for scan, shard in enumerate(np.asarray(part.shards))}
    expected: list[list[int]] = []
    for shard in shards:
        scan = scan_of[int(shard)]
        together = [*expected[-1], scan] if expected else [scan]
        if expected and int(part.lengths[together].sum()) <= 2_000:
            expected[-1] = together
        else:
            expected.append([scan])
    assert 5 < len(expected) < 50
    found = windows(part, some, shards, 2_000 * SAMPLES * 4)
    assert [window.tolist() for window in found] == expected
    assert Watched.times <= 3


def test_scans_of_a_shard_keep_their_order() -> None:
    part = part_of(np.full(6, 5), np.array([1, 0, 1, 0, 1, 0]))
    found = windows(part, np.array([5, 2, 0, 3, 4, 1]), np.array([1, 0]), 10**6)
    assert [window.tolist() for window in found] == [[2, 0, 4, 5, 3, 1]]


def test_only_the_scans_asked_for_are_trained_on() -> None:
    part = uniform(100)
    some = np.flatnonzero(part.shards == 4)
    assert sorted(flat(training_batches(part, some, size=3, longest=100, seed=(0,)))) == some.tolist()
    assert training_batches(part, some[:0], size=3, longest=100, seed=(0,)) == []


def test_reading_goes_through_the_shards_in_order() -> None:
    part = uniform(200)
    window_bytes = 3 * int(np.bincount(part.shards, part.lengths * SAMPLES * 4).max())
    found = flat(reading_batches(part, size=8, longest=100, window_bytes=window_bytes))
    shards = part.shards[found]
    assert 1 <= (np.maximum.accumulate(shards) - shards).max() <= 3
    assert open_bytes(part, found) <= window_bytes
