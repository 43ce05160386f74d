from __future__ import annotations

import dataclasses
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunelab.data.dataset import SHARD_BYTES, SHARDS, Dataset, deal_shards, make_dataset
from tunelab.data.samples import moments_of
from tunelab.errors import UsageError

TRACES = np.arange(36, dtype=np.float32).reshape(12, 3)
ENDS = {"a": (0, 3), "b": (3, 5), "c": (5, 9), "d": (9, 10), "e": (10, 12)}


def small(splits=("train", "train", "tune", "validation", "test"), *, traces=TRACES, ends=ENDS, labels=None) -> Dataset:
    labels = (np.arange(12) % 3 == 0).astype(np.int8) if labels is None else labels
    return make_dataset(
        scans={name: traces[start:end] for name, (start, end) in ends.items()},
        labels={name: labels[start:end] for name, (start, end) in ends.items()},
        splits=dict(zip(ends, splits, strict=True)),
        dt=1e-10,
        source="here",
    )


def test_parts_hold_their_scans_labels_and_starts():
    dataset = small(("train", "tune", "train", "validation", "test"))
    train, tune = dataset.part("train"), dataset.part("tune")
    assert (dataset.n_scans, dataset.n_traces, dataset.n_samples) == (5, 12, 3)
    assert train.scans == ("a", "c")
    assert train.starts.tolist() == [0, 3]
    assert train.scan_of_trace().tolist() == [0, 0, 0, 1, 1, 1, 1]
    assert train.labels.tolist() == [1, 0, 0, 0, 1, 0, 0]
    assert train.labels_of(1).tolist() == [0, 1, 0, 0]
    assert train.read(1)[0].tolist() == [15, 16, 17]
    assert (tune.n_scans, tune.n_traces, tune.positives) == (1, 2, 1)
    assert tune.read(0).tolist() == [[9, 10, 11], [12, 13, 14]]
    assert dataset.positives_of_scans().tolist() == [1, 1, 1, 1, 0]


def test_scans_lie_by_id_whatever_the_order_given():
    assert small().scans == ("a", "b", "c", "d", "e")
    assert small(ends=dict(reversed(ENDS.items()))).scans == ("a", "b", "c", "d", "e")


def test_an_empty_split_is_an_empty_part_and_an_unknown_one_an_error():
    part = small(("train",) * 5).part("test")
    assert (part.n_scans, part.n_traces, part.positives) == (0, 0, 0)
    assert part.scan_of_trace().size == 0
    with pytest.raises(UsageError, match="'valid' is no split; did you mean 'validation'"):
        small().part("valid")


def test_channels_are_those_of_all_parts_and_of_one_length():
    dataset = dataclasses.replace(small(), channels=3)
    assert [one.part("train").channels for one in (small(), dataset, dataset.with_splits(["train"] * 5))] == [1, 3, 3]
    with pytest.raises(ValueError, match="3 samples are not 2 channels of one length"):
        dataclasses.replace(small(), channels=2)


def test_arrays_are_read_only():
    dataset = small()
    with pytest.raises(ValueError, match="read-only"):
        dataset.samples.read(1)[0, 0] = 1
    with pytest.raises(ValueError, match="read-only"):
        dataset.part("tune").labels[0] = 1
    assert TRACES.flags.writeable


def test_moments_are_those_of_each_scan():
    samples = small().samples
    for _ in range(2):  # the second time they are known
        means, deviations = samples.moments(np.array([2, 0])).swapaxes(0, 1)
        np.testing.assert_allclose(means, [TRACES[5:9].mean(0), TRACES[:3].mean(0)], rtol=1e-6)
        np.testing.assert_allclose(deviations, [TRACES[5:9].std(0), TRACES[:3].std(0)], rtol=1e-6)
    constant, none = moments_of(np.full((4, 2), 1e6 + 0.1, np.float32))
    assert none.tolist() == [0, 0]
    assert constant.tolist() == [np.float32(1e6 + 0.1)] * 2


def test_data_set_and_part_survive_pickling_with_buffers_out_of_band():
    dataset = small()
    buffers: list[pickle.PickleBuffer] = []
    data = pickle.dumps(dataset, protocol=5, buffer_callback=buffers.append)
    again = pickle.loads(data, buffers=[memoryview(bytes(b.raw())) for b in buffers])  # read-only, as from Ray
    assert buffers
    np.testing.assert_array_equal(again.part("train").read(1), dataset.part("train").read(1))
    assert again.fingerprint == dataset.fingerprint
    part = pickle.loads(pickle.dumps(dataset.part("tune")))
    assert part.scans == ("c",)
    np.testing.assert_array_equal(part.labels, dataset.part("tune").labels)


def test_fingerprint_ignores_splits_and_sees_every_value():
    base = small()
    assert base.with_splits(("test", "tune", "train", "train", "train")).fingerprint == base.fingerprint
    assert dataclasses.replace(base, shards=np.zeros(5, np.int64)).fingerprint == base.fingerprint
    sample = TRACES.copy()
    sample[11, 2] += 1
    label = base.labels.copy()
    label[4] ^= 1
    others = [
        small(traces=sample),
        small(labels=label),
        small(ends={**{k: v for k, v in ENDS.items() if k != "e"}, "f": ENDS["e"]}),
        small(ends={**ENDS, "a": (0, 2), "b": (2, 5)}),
    ]
    assert len({d.fingerprint for d in [base, *others]}) == 5
    assert len(base.fingerprint) == 64


def test_fingerprint_stays_what_it_was():
    assert small().fingerprint == "b43fa7912ae70bda1a8b0556d528c26b030062eb19e212386c8f2aa23bde66a8"


def test_columns_that_contradict_each_other_are_refused():
    with pytest.raises(ValueError, match="5 scans, but 4 splits"):
        small().with_splits(("train",) * 4)
    with pytest.raises(ValueError, match="12 traces, but 11 labels"):
        dataclasses.replace(small(), labels=np.zeros(11, np.int8))
    with pytest.raises(ValueError, match="one stands twice"):
        dataclasses.replace(small(), scans=("a", "a", "c", "d", "e"))


def test_silent_traces_are_counted_and_nothing_else():
    traces = TRACES.copy()
    traces[3], traces[4], traces[7] = 0, (1, 1, 2), -2
    assert small(traces=traces).silent.tolist() == [0, 1, 1, 0, 0]


@given(st.lists(st.integers(1, SHARD_BYTES // 3), min_size=1, max_size=60))
def test_shards_are_runs_of_neighbours_about_equally_large(sizes):
    shards = deal_shards(np.array(sizes))
    assert shards[0] == 0
    assert set(np.diff(shards)) <= {0, 1}
    count = int(shards[-1]) + 1
    assert count <= len(sizes)
    share = sum(sizes) / max(SHARDS, sum(sizes) / SHARD_BYTES)
    for shard in range(count):
        assert sum(np.array(sizes)[shards == shard]) <= share + 2 * max(sizes)


def test_as_many_shards_as_the_size_needs():
    assert deal_shards(np.full(100, 10)).tolist() == np.repeat(np.arange(8), [12, 13] * 4).tolist()
    assert int(deal_shards(np.full(100, SHARD_BYTES // 2))[-1]) == 49
    assert deal_shards(np.array([5, 5, 5])).tolist() == [0, 1, 2]
