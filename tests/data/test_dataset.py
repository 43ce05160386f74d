from __future__ import annotations

import pickle

import numpy as np
import pytest

from tunelab.data.dataset import SPLITS, Dataset, fingerprint_of, make_dataset, split_order
from tunelab.errors import UsageError


def small(splits=("train", "train", "tune", "validation", "test"), **changes) -> Dataset:
    lengths = np.array([3, 2, 4, 1, 2])
    fields = {
        "traces": np.arange(36, dtype=np.float32).reshape(12, 3),
        "labels": (np.arange(12) % 3 == 0).astype(np.int8),
        "lengths": lengths,
        "scans": ("a", "b", "c", "d", "e"),
        "splits": splits,
        "dt": 1e-10,
        "source": "here",
    }
    return make_dataset(**(fields | changes))


def test_parts_are_views_with_their_scans_labels_and_starts():
    dataset = small()
    train, tune = dataset.part("train"), dataset.part("tune")
    assert (dataset.n_scans, dataset.n_traces, dataset.n_samples) == (5, 12, 3)
    assert train.scans == ("a", "b")
    assert train.starts.tolist() == [0, 3]
    assert train.scan_of_trace().tolist() == [0, 0, 0, 1, 1]
    assert (tune.n_scans, tune.n_traces, tune.positives) == (1, 4, 1)
    assert tune.traces[0].tolist() == [15, 16, 17]
    assert np.shares_memory(train.traces, dataset.traces)
    assert np.shares_memory(tune.labels, dataset.labels)


def test_a_split_that_does_not_lie_together_is_gathered_in_order():
    dataset = small(("train", "tune", "train", "validation", "test"))
    part = dataset.part("train")
    assert part.scans == ("a", "c")
    assert part.starts.tolist() == [0, 3]
    assert part.traces[:, 0].tolist() == [0, 3, 6, 15, 18, 21, 24]


def test_an_empty_split_is_an_empty_part_and_an_unknown_one_an_error():
    part = small(("train",) * 5).part("test")
    assert (part.n_scans, part.n_traces, part.positives) == (0, 0, 0)
    assert part.scan_of_trace().size == 0
    with pytest.raises(UsageError, match="'valid' is no split; did you mean 'validation'"):
        small().part("valid")


def test_arrays_are_read_only_and_the_callers_own_array_stays_writeable():
    traces = np.zeros((12, 3), np.float32)
    dataset = small(traces=traces)
    with pytest.raises(ValueError, match="read-only"):
        dataset.traces[0, 0] = 1
    with pytest.raises(ValueError, match="read-only"):
        dataset.part("tune").labels[0] = 1
    traces[0, 0] = 1
    assert traces.flags.writeable


def test_data_set_and_part_survive_pickling_with_buffers_out_of_band():
    dataset = small()
    buffers: list[pickle.PickleBuffer] = []
    data = pickle.dumps(dataset, protocol=5, buffer_callback=buffers.append)
    again = pickle.loads(data, buffers=[memoryview(bytes(b.raw())) for b in buffers])  # read-only, as from Ray
    assert buffers
    np.testing.assert_array_equal(again.part("train").traces, dataset.part("train").traces)
    assert again.fingerprint == dataset.fingerprint
    part = pickle.loads(pickle.dumps(dataset.part("tune")))
    assert part.scans == ("c",)
    np.testing.assert_array_equal(part.labels, dataset.part("tune").labels)


def test_fingerprint_ignores_order_and_splits_and_sees_every_value():
    base = small()
    flipped = small(
        traces=np.concatenate([base.traces[3:5], base.traces[:3], base.traces[5:]]),
        labels=np.concatenate([base.labels[3:5], base.labels[:3], base.labels[5:]]),
        lengths=np.array([2, 3, 4, 1, 2]),
        scans=("b", "a", "c", "d", "e"),
        splits=("test", "tune", "train", "train", "train"),
    )
    assert flipped.fingerprint == base.fingerprint
    sample = base.traces.copy()
    sample[11, 2] += 1
    label = base.labels.copy()
    label[4] ^= 1
    others = [
        small(traces=sample),
        small(labels=label),
        small(scans=("a", "b", "c", "d", "f")),
        small(lengths=np.array([2, 3, 4, 1, 2])),
    ]
    assert len({d.fingerprint for d in [base, *others]}) == 5
    assert len(base.fingerprint) == 64


def test_fingerprint_stays_what_it_was():
    value = fingerprint_of(["a"], np.array([2]), np.array([0, 1], np.int8), np.array([[1, 2], [3, 4]], np.float32))
    assert value == "009fb9a1b152ef317f760cfebe729127878fec098b67dfbc73b7e960ebd0edd7"


def test_arrays_that_contradict_each_other_are_refused():
    with pytest.raises(ValueError, match=r"11 traces, but samples \(12, 3\) and labels \(12,\)"):
        small(lengths=np.array([3, 2, 4, 1, 1]))
    with pytest.raises(ValueError, match="5 lengths, 5 scans, 4 splits"):
        small(splits=("train",) * 4)


def test_split_order_is_by_split_then_id():
    assert split_order(["d", "c", "b", "a"], ["train", "test", "tune", "train"]) == [3, 0, 2, 1]
    assert SPLITS == ("train", "tune", "validation", "test")
