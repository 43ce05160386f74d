from __future__ import annotations

import csv
import os
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from tunelab.errors import DataError


def write_out(path: Path, samples_by_traces: np.ndarray, dt: float | None = 1e-10) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        if dt is not None:
            file.attrs["dt"] = dt
        file.create_dataset("rxs/rx1/Ez", data=samples_by_traces)


def write_csv(path: Path, rows: list[tuple]) -> None:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)


def scan_values(i: int, traces: int, samples: int = 16) -> np.ndarray:
    """Shape (trace, sample)."""
    return np.random.default_rng(i).standard_normal((traces, samples)).astype(np.float32)


@pytest.fixture
def make_folder(tmp_path: Path) -> Callable[..., Path]:
    """A folder of ``n`` scans s00, s01, ... of 5 + i traces, the second trace of each positive."""

    def make(n: int = 6, *, samples: int = 16, name: str = "scans-home") -> Path:
        folder = tmp_path / name
        labels: list[tuple] = [("scan", "trace", "label")]
        for i in range(n):
            write_out(folder / "scans" / f"s{i:02}_merged.out", scan_values(i, 5 + i, samples).T)
            labels += [(f"s{i:02}", k, int(k == 1)) for k in range(5 + i)]
        write_csv(folder / "labels.csv", labels)
        return folder

    return make


SIX = ("train", "train", "tune", "validation", "test", "train")


@pytest.fixture
def refuse(load_folder):
    """The folder must be refused with a message that names it."""

    def check(folder: Path, message: str, **options) -> None:
        with pytest.raises(DataError, match=message) as caught:
            load_folder(folder, **options)
        assert folder.name in str(caught.value)

    return check


def rows_of(path: Path) -> list[list[str]]:
    with path.open(newline="") as file:
        return list(csv.reader(file))


def test_scans_labels_and_splits_of_a_folder(make_folder, load_folder):
    folder = make_folder()
    write_csv(folder / "scans.csv", [("scan", "split"), *[(f"s{i:02}", s) for i, s in enumerate(SIX)]])
    dataset = load_folder(folder)
    assert sorted(dataset.scans) == [f"s{i:02}" for i in range(6)]
    assert (dataset.n_traces, dataset.n_samples, dataset.dt) == (45, 16, 1e-10)
    assert dataset.source == str(folder)
    assert dataset.notes == ()
    assert set(dataset.splits) == {"train", "tune", "validation", "test"}
    for split in set(dataset.splits):
        part = dataset.part(split)
        assert part.positives == part.n_scans
        for scan, start, length in zip(part.scans, part.starts, part.lengths, strict=True):
            i = int(scan[1:])
            assert length == 5 + i
            np.testing.assert_array_equal(part.read(part.scans.index(scan)), scan_values(i, 5 + i))
            assert part.labels[start : start + length].tolist() == [0, 1] + [0] * (3 + i)


def test_order_of_files_and_rows_changes_nothing_and_the_seed_deals(make_folder, load_folder):
    one, two = make_folder(12, name="one"), make_folder(12, name="two")
    head, *rows = rows_of(two / "labels.csv")
    write_csv(two / "labels.csv", [head, *reversed(rows)])
    for i in reversed(range(12)):
        (two / "scans" / f"s{i:02}_merged.out").rename(two / f"s{i:02}.out")
    a, b, c = load_folder(one, seed=3), load_folder(two, seed=3), load_folder(one, seed=4)
    assert (a.scans, a.folds, a.fingerprint) == (b.scans, b.folds, b.fingerprint)
    assert (a.n_folds, a.folds != c.folds) == (5, True)
    assert a.fingerprint == c.fingerprint


def test_given_files_groups_and_splits_are_used(make_folder, load_folder):
    folder = make_folder()
    splits = ["test", "tune", "train", "train", "validation", "test"]
    (folder / "elsewhere").mkdir()
    (folder / "scans" / "s02_merged.out").rename(folder / "elsewhere" / "b.h5")
    rows = [(f"s{i:02}", "elsewhere/b.h5" if i == 2 else "", s) for i, s in enumerate(splits)]
    write_csv(folder / "scans.csv", [("scan", "file", "split"), *rows])
    dataset = load_folder(folder)
    assert dict(zip(dataset.scans, dataset.splits, strict=True)) == {f"s{i:02}": s for i, s in enumerate(splits)}
    np.testing.assert_array_equal(dataset.samples.read(2), scan_values(2, 7))


def test_groups_are_kept_together(make_folder, load_folder):
    folder = make_folder(12)
    write_csv(folder / "scans.csv", [("scan", "group"), *[(f"s{i:02}", f"g{i % 4}") for i in range(12)]])
    dataset = load_folder(folder)
    by_group = {(int(scan[1:]) % 4, fold) for scan, fold in zip(dataset.scans, dataset.folds, strict=True)}
    assert len(by_group) == 4


def test_npz_with_own_labels_needs_no_table(tmp_path, load_folder, refuse):
    for i in range(5):
        np.savez(tmp_path / f"n{i}.npz", x=scan_values(i, 6), y=[0, 0, 1, 0, 0, 1])
    dataset = load_folder(tmp_path)
    assert (dataset.n_scans, int(dataset.labels.sum()), dataset.dt) == (5, 10, None)
    write_csv(tmp_path / "labels.csv", [("scan", "trace", "label"), *[("n1", k, k % 2) for k in range(6)]])
    refuse(tmp_path, r"n1: .*labels.csv: other labels than in its own file \(y\); keep one of the two")


def test_a_minority_of_other_widths_is_left_out_and_noted_or_resampled(make_folder, load_folder):
    folder = make_folder(8)
    for i in (2, 5):
        write_out(folder / "scans" / f"s{i:02}_merged.out", scan_values(i, 5 + i, 31).T, dt=0.5e-10)
    dataset = load_folder(folder)
    assert dataset.n_scans == 6
    assert dataset.notes == (
        "2 of 8 scans are left out: 31 samples a trace, not 16 as most (s02, s05); resample = 16 keeps them",
    )
    assert dataset.dt == 1e-10
    everything = load_folder(folder, resample=16)
    assert (everything.n_scans, everything.notes) == (8, ())
    assert everything.dt == pytest.approx(1e-10)
    assert load_folder(folder, resample=8).dt == pytest.approx(1e-10 * 15 / 7)
    assert load_folder(folder, resample=8).n_samples == 8


def test_no_width_of_most_scans_is_an_error(make_folder, refuse):
    folder = make_folder(4)
    for i in (0, 1):
        write_out(folder / "scans" / f"s{i:02}_merged.out", scan_values(i, 5 + i, 20).T)
    refuse(folder, r"no number is that of most \((16 samples: 2 scans, 20|20 samples: 2 scans, 16) samples: 2 scans\)")


def test_intervals_that_differ_or_are_missing_are_noted(make_folder, load_folder):
    folder = make_folder()
    write_out(folder / "scans" / "s01_merged.out", scan_values(1, 6).T, dt=1.0005e-10)
    assert load_folder(folder).dt == pytest.approx(1e-10)
    write_out(folder / "scans" / "s01_merged.out", scan_values(1, 6).T, dt=2e-10)
    dataset = load_folder(folder)
    assert dataset.dt is None
    assert dataset.notes == ("dt differs between scans, from 1e-10 to 2e-10 s: a sample is another time in each",)
    write_out(folder / "scans" / "s01_merged.out", scan_values(1, 6).T, dt=None)
    assert load_folder(folder).notes == ("1 of 6 scans do not say their dt: the interval is unknown",)


def test_folders_without_scans_or_that_are_none(tmp_path, make_folder, refuse):
    refuse(tmp_path / "gone", "no such folder; give the folder that holds labels.csv")
    (tmp_path / "file").write_text("")
    refuse(tmp_path / "file", "is a file, not a folder of scans")
    (tmp_path / "empty").mkdir()
    refuse(tmp_path / "empty", r"no scans; put \.out, \.h5, \.npz, .* files there")
    refuse(make_folder(3), r"3 scans in 3 groups, but 3 folds and a test part need one each: 4 - 3 = 1 missing")


def test_missing_files_and_files_that_are_ambiguous(make_folder, refuse):
    folder = make_folder()
    write_csv(folder / "scans.csv", [("scan", "file"), *[(f"s{i:02}", f"scans/s{i:02}_merged.out") for i in range(6)]])
    (folder / "scans" / "s03_merged.out").rename(folder / "s03.out")
    refuse(folder, "s03_merged.out: no such file")
    write_csv(folder / "scans.csv", [("scan",), ("s03",), ("s09",)])
    refuse(folder, "scans.csv: no file for scan s09; add s09.out")
    write_csv(folder / "scans.csv", [("scan", "file"), ("s03", "labels.csv")])
    refuse(folder, r"1 files are no \.out, .* \(labels.csv\)")
    (folder / "scans.csv").unlink()
    write_out(folder / "more" / "s03.out", scan_values(3, 8).T)
    refuse(folder, r"2 files for scan s03 \(more/s03.out, s03.out\); name one in scans.csv: file")


def test_scans_that_are_not_listed_are_left_out_and_noted(make_folder, load_folder, refuse):
    folder = make_folder(8)
    write_csv(folder / "scans.csv", [("scan",), *[(f"s{i:02}",) for i in range(6)]])
    head, *rows = rows_of(folder / "labels.csv")
    refuse(folder, r"labels for 2 scans that are not there \(s06, s07\); add the scans, or remove the rows")
    write_csv(folder / "labels.csv", [head, *[row for row in rows if row[0] < "s06"]])
    dataset = load_folder(folder)
    assert dataset.n_scans == 6
    assert dataset.notes == ("2 scans are left out: scans.csv does not list them (s06, s07)",)


def test_hidden_files_are_no_scans(make_folder, load_folder):
    folder = make_folder(6)
    (folder / "scans" / "._s00_merged.out").write_bytes(b"what another system keeps beside a copied file")
    (folder / ".DT1").write_bytes(b"")
    dataset = load_folder(folder)
    assert (dataset.n_scans, dataset.notes) == (6, ())


def test_missing_and_extra_labels_with_counts_and_the_first_five(make_folder, refuse):
    folder = make_folder(8)
    head, *rows = rows_of(folder / "labels.csv")
    write_csv(folder / "labels.csv", [head, *[row for row in rows if row[1] != "2"]])
    refuse(folder, r"8 of 8 scans cannot be used \(0 may be\); correct them")
    refuse(folder, r"s00: .*labels.csv: 1 of 5 traces lack a label; give every trace 0 or 1")
    refuse(folder, r"  s04: .*1 of 9 traces lack a label.*\n  and 3 more: s05, s06, s07$")
    write_csv(folder / "labels.csv", [head, *rows, ["s01", "6", "0"]])
    refuse(folder, r"s01: .*labels.csv: label for trace 6, but it has 6; count traces from 0")
    (folder / "labels.csv").unlink()
    refuse(folder, r"s00: .*no labels.csv, and 5 of 5 traces lack a label")


@pytest.mark.parametrize(("label", "only"), [("0", "none"), ("1", "every one")])
def test_one_class_only(make_folder, label, only, refuse):
    folder = make_folder()
    head, *rows = rows_of(folder / "labels.csv")
    write_csv(folder / "labels.csv", [head, *[[*row[:2], label] for row in rows]])
    refuse(folder, f"{only} of 45 traces is positive; a model learns from both classes")


def test_splits_without_scans_or_without_positives(make_folder, load_folder, refuse):
    folder = make_folder()
    names = ["train", "train", "train", "tune", "tune", "validation"]
    write_csv(folder / "scans.csv", [("scan", "split"), *[(f"s{i:02}", s) for i, s in enumerate(names)]])
    refuse(folder, "scans.csv: split: no scan is in test; each of train, tune, validation, test needs one")
    head, *rows = rows_of(folder / "labels.csv")
    write_csv(folder / "scans.csv", [("scan", "split"), *[(f"s{i:02}", s) for i, s in enumerate(SIX)]])
    write_csv(folder / "labels.csv", [head, *[[*row[:2], row[2] if row[0] != "s04" else "0"] for row in rows]])
    assert load_folder(folder).notes == ("no positive trace in test: F1 of the finalists is undefined there",)
    write_csv(folder / "labels.csv", [head, *[[*row[:2], row[2] if row[0] < "s03" else "0"] for row in rows]])
    refuse(folder, "no positive trace in validation, test, so F1 is undefined there; 3 groups of scans hold positives")
    (folder / "scans.csv").unlink()
    assert load_folder(folder).notes == ("no positive trace in test: F1 of the finalists is undefined there",)
    write_csv(folder / "labels.csv", [head, *[[*row[:2], row[2] if row[0] < "s02" else "0"] for row in rows]])
    refuse(folder, "2 of 6 groups of scans hold positive traces, and 3 folds need one each")


def test_linked_folders_are_followed_and_stamped_and_a_circle_ends(make_folder, load_folder):
    folder = make_folder(8)
    elsewhere = folder.parent / "disk"
    (folder / "scans").rename(elsewhere)
    (folder / "linked").symlink_to(elsewhere)
    (elsewhere / "round").symlink_to(folder)
    before = load_folder(folder)
    assert before.n_scans == 8
    write_out(elsewhere / "s03_merged.out", scan_values(77, 8).T)
    assert load_folder(folder).fingerprint != before.fingerprint


def test_a_link_that_leads_nowhere_is_no_scan_passed_over(make_folder, load_folder, refuse):
    folder = make_folder(8)
    load_folder(folder)
    (folder / "scans" / "s99.out").symlink_to(folder / "gone.out")
    refuse(folder, r"s99: .*s99.out: no such file")


def test_what_is_hidden_or_cannot_be_read_is_not_passed_over_silently(make_folder, refuse, monkeypatch):
    folder = make_folder()
    (folder / ".old").mkdir()
    (folder / "scans" / "s03_merged.out").rename(folder / ".old" / "s03.out")
    rows = [(f"s{i:02}", ".old/s03.out" if i == 3 else "") for i in range(6)]
    write_csv(folder / "scans.csv", [("scan", "file"), *rows])
    refuse(folder, r"scans.csv: 1 files lie in hidden folders \(.old/s03.out\); move them out")
    real = os.scandir

    def forbidden(path):
        if str(path).endswith("scans"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", forbidden)
    refuse(folder, r"scans: cannot be read: Permission denied; check its permissions")


def test_shards_are_cut_by_size_or_as_named(make_folder, load_folder, refuse):
    folder = make_folder(12)
    shards = load_folder(folder).shards
    assert shards.tolist() == sorted(shards)
    assert int(shards[-1]) == 7
    write_csv(folder / "scans.csv", [("scan", "shard"), *[(f"s{i:02}", f"batch{11 - i // 4}") for i in range(12)]])
    dataset = load_folder(folder)
    assert dataset.shards.tolist() == [2] * 4 + [1] * 4 + [0] * 4  # by the length of the name, then by name
    for i in range(12):
        np.testing.assert_array_equal(dataset.samples.read(i), scan_values(i, 5 + i))
    write_csv(folder / "scans.csv", [("scan", "shard"), *[(f"s{i:02}", "one" if i else "") for i in range(12)]])
    refuse(folder, r"1 of 12 scans have no shard \(s00\); give every scan one, or leave the column out and shards are")


def test_bad_scans_are_named_and_left_out_up_to_a_number(make_folder, load_folder, refuse):
    folder = make_folder(8)
    with h5py.File(folder / "scans" / "s03_merged.out", "r+") as data:
        data["rxs/rx1/Ez"][2, 1] = np.nan
    refuse(folder, r"1 of 8 scans cannot be used .*--max-bad 1\n  s03: .*1 samples that are NaN.* trace 1, sample 2")
    dataset = load_folder(folder, max_bad=1)
    assert dataset.n_scans == 7
    assert "s03" not in dataset.scans
    assert dataset.notes == ("1 scans are left out because they cannot be used (s03)",)
    refuse(folder, "1 scans cannot be used")  # what was prepared with another --max-bad does not slip through
    for i in range(1, 8):
        path = folder / "scans" / f"s{i:02}_merged.out"
        path.write_bytes(path.read_bytes()[:700])
    refuse(
        folder,
        r"7 of 8 scans cannot be used \(1 may be\); .*--max-bad 7\n  s01: [^\n]*s01_merged.out: cannot be",
        max_bad=1,
    )
    refuse(folder, r"and 2 more: s06, s07$")
    refuse(folder, r"1 scans in 1 groups, but 3 folds and a test part need one each", max_bad=7)
    (folder / "scans" / "s00_merged.out").write_bytes(b"")
    refuse(folder, r"8 of 8 scans cannot be used", max_bad=8)


HOME = Path(__file__).resolve().parents[2] / "../shared/data/gprmax-small"


@pytest.mark.skipif(not HOME.is_dir(), reason="the gprMax scans are not beside this checkout")
def test_the_scans_of_gprmax(load_folder):
    dataset = load_folder(HOME)
    assert dataset.n_scans == 83
    assert dataset.n_samples == 1_700
    assert dataset.dt == pytest.approx(14.152e-12, rel=1e-4)
    assert dataset.notes == (
        "1 of 84 scans are left out: 10,057 samples a trace, not 1,700 as most (devlong00); resample = 1700 keeps them",
    )
    everything = load_folder(HOME, resample=512)
    assert (everything.n_scans, everything.n_traces, int(everything.labels.sum())) == (84, 4_228, 479)
    assert everything.n_samples == 512
    assert everything.dt == pytest.approx(24.044e-9 / 511, rel=1e-3)
    for split in ("train", "tune", "validation", "test"):
        part = everything.part(split)
        assert part.positives / part.n_traces == pytest.approx(479 / 4_228, rel=0.1)
