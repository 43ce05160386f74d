from __future__ import annotations

import csv
from dataclasses import replace

import h5py
import numpy as np
import pytest

from tunelab.data.scenes import LABEL_MARGIN, scenes
from tunelab.data.synthetic import EMBEDDED, FILLS, SyntheticSettings, embedded, synthesize, write_folder
from tunelab.errors import DataError, StorageError, UsageError

SMALL = SyntheticSettings(scans=24, traces=30, samples=120, shortest=0.5, seed=5)
UNIFORM = (1.0, 0.0, 0.0, 0.0, 0.0)


def test_a_seed_fixes_every_byte_and_another_changes_them():
    one, two = synthesize(SMALL), synthesize(SMALL)
    assert one.samples.traces.tobytes() == two.samples.traces.tobytes()
    assert (one.fingerprint, one.splits, one.scans) == (two.fingerprint, two.splits, two.scans)
    assert synthesize(replace(SMALL, seed=6)).fingerprint != one.fingerprint


def test_a_scan_does_not_depend_on_how_many_there_are():
    few, many = synthesize(SMALL), synthesize(replace(SMALL, scans=30))

    def scan(dataset, name):
        return dataset.samples.read(dataset.scans.index(name))

    np.testing.assert_array_equal(scan(few, "syn003"), scan(many, "syn003"))


def test_sizes_lengths_and_shares():
    settings = SyntheticSettings(scans=300, traces=100, samples=240, shortest=0.6)
    dataset = synthesize(settings)
    assert (dataset.n_scans, dataset.n_samples) == (300, 240)
    assert dataset.dt == pytest.approx(16e-9 / 239)
    assert (int(dataset.lengths.min()), int(dataset.lengths.max())) == (60, 100)
    assert len(set(dataset.lengths.tolist())) > 30
    assert dataset.labels.mean() == pytest.approx(0.14, abs=0.03)
    assert np.isfinite(dataset.samples.traces).all()
    positives = [int(x.sum()) for x in np.split(dataset.labels, np.cumsum(dataset.lengths)[:-1])]
    assert 30 < positives.count(0) < 90
    assert synthesize(replace(SMALL, shortest=1.0)).lengths.tolist() == [30] * 24


def test_all_10057_samples():
    dataset = synthesize(SyntheticSettings(scans=8, traces=20, samples=10_057, window=24e-9, objects=(0, 1, 0)))
    assert dataset.samples.traces.shape == (160, 10_057)


def test_noise_lies_below_the_reference_echo_by_what_was_asked():
    quiet = {"soils": UNIFORM, "objects": (1.0, 0.0, 0.0), "lost": 0, "jitter": 0, "gain_drift": 0, "wow": 0}
    base = SyntheticSettings(scans=4, traces=100, samples=400, frequency=(900e6, 900e6), direct_db=(0, 0), **quiet)

    def late(noise_db):
        return [s.traces[:, 200:].std() for s in scenes(replace(base, noise_db=noise_db))]

    np.testing.assert_allclose(np.array(late(10)) / np.array(late(30)), 10, rtol=0.01)
    direct = [np.abs(s.traces).max() for s in scenes(replace(base, noise_db=200))]  # 0 dB: the reference echo's peak
    np.testing.assert_allclose(np.array(late(20)) / np.array(direct), 0.1, rtol=0.3)


def test_the_written_folder_is_gprmax_s_and_reads_back_as_the_same_data_set(tmp_path, load_folder):
    folder = tmp_path / "new" / "set"
    write_folder(SMALL, folder)
    memory, read = synthesize(SMALL), load_folder(folder, seed=5)
    assert read.fingerprint == memory.fingerprint
    assert (read.scans, read.notes) == (memory.scans, ())
    assert read.dt == pytest.approx(memory.dt)
    for i in range(memory.n_scans):
        np.testing.assert_array_equal(read.samples.read(i), memory.samples.read(i))
    with h5py.File(folder / "scans" / "syn000_merged.out") as file:
        assert set(file.attrs) == {"Title", "gprMax", "Iterations", "dt", "nrx"}
        assert file.attrs["Iterations"] == 120
        assert file["rxs/rx1/Ez"].dtype == np.float32
        assert file["rxs/rx1/Ez"].shape[0] == 120


def test_labels_follow_the_geometry(tmp_path):
    write_folder(SMALL, tmp_path)
    objects: dict[str, list[tuple[float, float]]] = {}
    with (tmp_path / "geometry.csv").open() as file:
        for row in csv.DictReader(file):
            assert row["kind"] in FILLS
            assert float(row["depth_centre_m"]) == pytest.approx(
                float(row["depth_top_m"]) + float(row["radius_m"]), abs=2e-4
            )
            objects.setdefault(row["scan"], []).append((float(row["x_m"]), float(row["radius_m"])))
    with (tmp_path / "labels.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(objects) > 12
    for row in rows:
        x = float(row["x_mid_m"])
        margins = [r + LABEL_MARGIN - abs(x - x0) for x0, r in objects.get(row["scan"], [])]
        if all(abs(m) > 3e-4 for m in margins):  # the tables are rounded
            assert int(row["label"]) == any(m > 0 for m in margins)


def test_two_writings_are_the_same_bytes(tmp_path):
    settings = replace(SMALL, scans=4)
    write_folder(settings, tmp_path / "a")
    write_folder(settings, tmp_path / "b")
    files = sorted(p.relative_to(tmp_path / "a") for p in (tmp_path / "a").rglob("*") if p.is_file())
    assert len(files) == 7
    assert all((tmp_path / "a" / f).read_bytes() == (tmp_path / "b" / f).read_bytes() for f in files)


def test_a_folder_that_holds_something_or_cannot_be_written(tmp_path):
    (tmp_path / "keep").write_text("mine")
    with pytest.raises(UsageError, match="not an empty folder; name a new one, nothing is overwritten"):
        write_folder(SMALL, tmp_path)
    with pytest.raises(UsageError, match="not an empty folder"):
        write_folder(SMALL, tmp_path / "keep")
    with pytest.raises(StorageError, match="cannot be written"):
        write_folder(SMALL, tmp_path / "keep" / "below")
    assert [p.name for p in tmp_path.iterdir()] == ["keep"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scans": 3}, "scans = 3: at least 4"),
        ({"samples": 40}, r"samples = 40: 4.1e-10 s apart, .* needs 4 a period; give 59 or more"),
        ({"shortest": 0.0}, "shortest = 0.0: a share above 0"),
        ({"noise_db": float("nan")}, "noise_db = nan"),
        ({"stones": -1.0}, "stones = -1.0: a number from 0 up"),
        ({"eps": (9.0, 4.0)}, r"eps = \(9.0, 4.0\): two positive numbers, the lower one first"),
        ({"sigma": (-0.1, 0.1)}, r"sigma = \(-0.1, 0.1\)"),
        ({"objects": (0.5, 0.4, 0.4)}, "three chances that add up to 1, not 1.3"),
        ({"kinds": ("metall",)}, "'metall' is no kind of object; did you mean 'metal'"),
        ({"kinds": ()}, "at least one kind"),
    ],
)
def test_settings_that_mean_nothing(changes, message):
    with pytest.raises(UsageError, match=message):
        replace(SMALL, **changes)


def test_a_set_without_objects_is_refused():
    with pytest.raises(DataError, match="no positive trace in train"):
        synthesize(replace(SMALL, objects=(1.0, 0.0, 0.0)))


def test_the_embedded_set_is_small_uneven_and_a_ninth_positive():
    dataset = embedded()
    assert dataset.source == "embedded synthetic data set"
    assert dataset.fingerprint == synthesize(EMBEDDED).fingerprint
    assert dataset.samples.traces.nbytes < 8e6
    assert len(set(dataset.lengths.tolist())) > 10
    for split in ("train", "tune", "validation", "test"):
        part = dataset.part(split)
        assert part.positives / part.n_traces == pytest.approx(0.1125, abs=0.005)


def test_positive_traces_can_be_told_from_others_by_their_energy():
    """After the mean trace is gone, traces over an object hold more than the others: the labels are about the data."""
    part = embedded().part("train")
    traces = np.concatenate([part.read(i) for i in range(part.n_scans)])[:, 45:]
    energy = np.log(np.mean((traces - traces.mean(0)) ** 2, axis=1))
    assert energy[part.labels == 1].mean() > energy[part.labels == 0].mean() + 0.3


def test_the_smallest_sizes():
    dataset = synthesize(replace(SMALL, scans=20, traces=1, samples=59, objects=(0, 1, 0)))
    assert dataset.samples.traces.shape == (20, 59)
    assert SyntheticSettings().dt == pytest.approx(16e-9 / 159)
