from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import h5py
import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.image import imread

from tunelab.data.contact_sheet import MOST, NEGATIVE, POSITIVE, choose, draw, grey
from tunelab.data.dataset import SPLITS, Dataset, make_dataset
from tunelab.errors import StorageError, UsageError


def built(scans: dict[str, np.ndarray], labels: dict[str, np.ndarray] | None = None, **options) -> Dataset:
    """These scans, dealt to the splits in turns; the second trace is positive unless labels are given."""
    marked = labels or {scan: (np.arange(len(x)) == min(1, len(x) - 1)).astype(np.int8) for scan, x in scans.items()}
    splits = {scan: SPLITS[i % 4] for i, scan in enumerate(sorted(scans))}
    options = {"dt": 1e-10, "source": "here"} | options
    return make_dataset(
        scans={scan: np.asarray(x, np.float32) for scan, x in scans.items()}, labels=marked, splits=splits, **options
    )


def noise(n: int, traces: int = 12, samples: int = 30) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {f"s{i:02}": rng.standard_normal((traces, samples)) for i in range(n)}


def pixels(path: Path) -> np.ndarray:
    """Of the image, shape (row, column, 3), 0 to 255."""
    return np.round(imread(path)[:, :, :3] * 255).astype(np.int64)


def bars(image: np.ndarray) -> list[np.ndarray]:
    """The middle row of each bar from above, left to right: 1 where it is of the positive traces' colour, else 0."""
    positive, negative = (image == POSITIVE).all(axis=2), (image == NEGATIVE).all(axis=2)
    of_bar = positive | negative
    found = []
    rows = np.flatnonzero(of_bar.sum(axis=1) >= 299)  # the swatches of the legend are narrower
    for run in np.split(rows, np.flatnonzero(np.diff(rows) > 1) + 1):
        middle = run[len(run) // 2]
        columns = np.flatnonzero(of_bar[middle])
        found += [positive[middle, c].astype(int) for c in np.split(columns, np.flatnonzero(np.diff(columns) > 1) + 1)]
    return found


def by_trace(bar: np.ndarray, traces: int) -> list[int]:
    """The colour of a bar over the middle of each trace."""
    return [int(bar[int((trace + 0.5) / traces * len(bar))]) for trace in range(traces)]


def drawn(dataset: Dataset, folder: Path, **options) -> np.ndarray:
    draw(dataset, folder / "sheet.png", **options)
    return pixels(folder / "sheet.png")


def test_a_bar_has_the_label_of_each_trace_in_its_colour(tmp_path):
    labels = {
        "s00": np.array([1, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0], np.int8),
        "s01": np.array([0] * 12, np.int8),
        "s02": np.array([1] * 12, np.int8),
        "s03": np.array([0] * 11 + [1], np.int8),
        "s04": np.array([0, 1] * 6, np.int8),
    }
    image = drawn(built(noise(5), labels), tmp_path)
    order = ["s00", "s04", "s01", "s02", "s03"]  # by split
    found = bars(image)
    assert [by_trace(bar, 12) for bar in found] == [labels[scan].tolist() for scan in order]
    assert [len(bar) for bar in found] == [300] * 5


def test_the_file_is_a_png_of_sensible_size(tmp_path):
    image = drawn(built(noise(24, traces=350, samples=700)), tmp_path)
    assert (tmp_path / "sheet.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert 1000 < image.shape[1] < 1600
    assert 1800 < image.shape[0] < 2400
    # nothing packs worse than noise
    assert 100_000 < (tmp_path / "sheet.png").stat().st_size < 3_000_000
    assert drawn(built(noise(1)), tmp_path).shape[1] < 500


def test_the_same_data_give_the_same_bytes_whatever_the_users_style(tmp_path):
    dataset = built(noise(6))
    draw(dataset, tmp_path / "a.png")
    with mpl.rc_context({"image.cmap": "jet", "font.size": 20, "savefig.dpi": 30, "image.origin": "lower"}):
        draw(dataset, tmp_path / "b.PNG")
        assert mpl.rcParams["font.size"] == 20
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.PNG").read_bytes()
    assert b"Software" not in (tmp_path / "a.png").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "b.PNG"]


def test_the_data_set_is_not_changed(tmp_path):
    scans = noise(4)
    dataset = built(scans)
    before = [dataset.samples.read(i).copy() for i in range(4)]
    draw(dataset, tmp_path / "a.png")
    assert all(np.array_equal(dataset.samples.read(i), before[i]) for i in range(4))
    own = np.ones((3, 4), np.float32)
    grey(own)
    assert (own == 1).all()


def test_of_many_scans_those_with_positives_are_shown_evenly_from_every_split(tmp_path):
    scans = noise(120)
    labels = {scan: np.array([i % 3 == 0] + [0] * 11, np.int8) for i, scan in enumerate(sorted(scans))}
    dataset = built(scans, labels)
    chosen = choose(dataset, MOST)
    assert len(bars(drawn(dataset, tmp_path))) == len(chosen) == len(set(chosen)) == MOST == 24
    assert (dataset.positives_of_scans()[chosen] == 1).all()
    assert [dataset.splits[i] for i in chosen] == [split for split in SPLITS for _ in range(6)]
    train = [i for i in chosen if dataset.splits[i] == "train"]
    assert train == sorted(train)
    assert train[0] < 30
    assert train[-1] > 90
    assert choose(dataset, MOST) == chosen


def test_a_split_with_few_positives_leaves_room_to_the_others_and_the_rest_is_without():
    scans = noise(16)  # train has s00, s04, s08, s12
    with_positives = {"s00", "s04", "s08", "s12", "s01", "s05", "s02"}
    labels = {scan: np.array([scan in with_positives] + [0] * 11, np.int8) for scan in scans}
    dataset = built(scans, labels)

    def names(most: int) -> list[str]:
        return [dataset.scans[i] for i in choose(dataset, most)]

    assert names(7) == ["s00", "s04", "s08", "s12", "s01", "s05", "s02"]
    assert set(names(3)) < with_positives
    assert [dataset.splits[i] for i in choose(dataset, 3)] == ["train", "tune", "validation"]
    assert set(names(10)) > with_positives
    assert sorted(names(16)) == sorted(names(24)) == sorted(scans)


def test_folds_are_shown_in_their_order_and_the_test_part_last():
    dataset = built(noise(12)).with_folds([i % 4 - 1 for i in range(12)])
    assert [dataset.folds[i] for i in choose(dataset, MOST)] == [0, 0, 0, 1, 1, 1, 2, 2, 2, -1, -1, -1]
    assert [dataset.folds[i] for i in choose(dataset, 5)] == [0, 0, 1, 2, -1]


def test_titles_tell_the_fold_and_no_mathematics(tmp_path):
    draw(built(noise(4)), tmp_path / "split.png")
    draw(built(noise(4)).with_folds([0, 1, 2, -1]), tmp_path / "fold.png")
    assert (tmp_path / "split.png").read_bytes() != (tmp_path / "fold.png").read_bytes()
    draw(built({"$a$": np.ones((2, 3))}), tmp_path / "plain.png")
    draw(built({"a": np.ones((2, 3))}), tmp_path / "formula.png")
    assert (tmp_path / "plain.png").read_bytes() != (tmp_path / "formula.png").read_bytes()


@pytest.mark.parametrize(
    "scan",
    ["$\\frac{$", "$x^2$", "\\undefined", "探地雷达 7", "مسح", "a\x1b[31mb\nc\0", "\ud800", "w" * 5000, "{}%s", " "],
    ids=["bad-formula", "formula", "backslash", "chinese", "arabic", "control", "surrogate", "long", "braces", "blank"],
)
def test_any_id_and_source_leave_panels_where_they_are(tmp_path, scan):
    expected = drawn(built({"a": noise(1)["s00"]}, source="b"), tmp_path)
    image = drawn(built({scan: noise(1)["s00"]}, source=scan), tmp_path)
    assert image.shape == expected.shape
    title = slice(0, 140)
    assert (image[title.stop :] == expected[title.stop :]).all()
    assert not (image[title] == expected[title]).all() or scan == " "
    assert (image[:, -10:] == 255).all()  # nothing runs out of the sheet


def test_long_scans_are_thinned_out_but_every_positive_run_shows(tmp_path):
    labels = np.zeros(20_000, np.int8)
    labels[[3, 7_001, 19_999]] = 1
    scan = np.random.default_rng(0).standard_normal((20_000, 20)).astype(np.float32)
    (bar,) = bars(drawn(built({"long": scan}, {"long": labels}), tmp_path))
    assert np.flatnonzero(bar).tolist() == [3 * 300 // 20_000, 7_001 * 300 // 20_000, 299]
    assert grey(scan).shape == (20, 300, 3)
    assert grey(np.zeros((7, 10_057), np.float32)).shape == (260, 7, 3)


def test_an_image_has_time_downwards_and_traces_from_left_to_right():
    scan = np.zeros((10, 20), np.float32)
    scan[2, 15] = 5
    scan[8, 4] = -5
    image = grey(scan)
    assert image.shape == (20, 10, 3)
    assert (image[15, 2] == 255).all()
    assert (image[4, 8] == 0).all()
    assert (image[0] == 128).all()


def test_the_mean_trace_is_removed_and_the_strongest_two_percent_are_clipped():
    rng = np.random.default_rng(0)
    scan = rng.standard_normal((100, 200)).astype(np.float32)
    banded = scan + 1000 * np.sin(np.arange(200, dtype=np.float32))
    level = grey(scan)[:, :, 0]
    assert np.abs(grey(banded)[:, :, 0].astype(int) - level).max() <= 9  # a step of the greys, by rounding
    assert 0.018 < np.isin(level, (0, 255)).mean() < 0.05  # clipped, and what rounds to it


@pytest.mark.parametrize("value", [0, 0.1, -3.3, 3e38, 1e-44], ids=str)
def test_a_constant_scan_is_plain_grey(tmp_path, value):
    scan = np.full((37, 41), value, np.float32)
    assert (grey(scan) == 128).all()
    assert len(bars(drawn(built({"a": scan}), tmp_path))) == 1


def test_equal_traces_leave_no_rounding_to_see():
    trace = np.random.default_rng(0).standard_normal(500).astype(np.float32)
    assert (grey(np.tile(trace, (33, 1))) == 128).all()


@pytest.mark.parametrize("dt", [1e-10, None])
def test_a_single_trace_is_shown_with_what_it_holds(tmp_path, dt):
    trace = np.random.default_rng(0).standard_normal((1, 50)).astype(np.float32)
    assert len(np.unique(grey(trace))) > 5
    (bar,) = bars(drawn(built({"a": trace}, dt=dt), tmp_path))
    assert (bar == 1).all()


def test_values_of_any_size_are_shown():
    rng = np.random.default_rng(0)
    scan = rng.standard_normal((20, 30)).astype(np.float32)
    huge = (np.sign(scan) * np.float32(3.4e38)).astype(np.float32)
    assert {0, 255} <= set(np.unique(grey(huge)))
    assert np.array_equal(grey(scan), grey(scan * np.float32(2**100)))
    assert np.array_equal(grey(scan), grey(scan * np.float32(2**-100)))
    mixed = scan.copy()
    mixed[3, 3], mixed[4, 4] = 3e38, -3e38
    assert grey(mixed)[3, 3, 0] == 255
    assert grey(mixed)[4, 4, 0] == 0


def test_time_is_in_ns_or_else_in_samples(tmp_path):
    scans = noise(1)
    pictures = {}
    for dt in (1e-10, 2e-10, None):
        draw(built(scans, dt=dt), tmp_path / "a.png")
        pictures[dt] = (tmp_path / "a.png").read_bytes()
    assert len(set(pictures.values())) == 3


def test_only_what_is_shown_is_read(tmp_path):
    class Watched:
        n_samples = 30

        def __init__(self):
            self.order = []

        def read(self, scan):
            self.order.append(scan)
            return dataset.samples.read(scan)

        def moments(self, scans):
            raise AssertionError("not needed")

    dataset = built(noise(60))
    watched = Watched()
    draw(replace(dataset, samples=watched), tmp_path / "a.png", most=5)
    assert watched.order == choose(dataset, 5)


@pytest.mark.parametrize("name", ["sheet.svg", "sheet", "sheet.png.txt", ".png"])
def test_other_suffixes_are_refused(tmp_path, name):
    with pytest.raises(UsageError, match=r"a contact sheet is a PNG; give a name that ends with \.png"):
        draw(built(noise(4)), tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_places_that_cannot_be_written_are_named(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "folder.png").mkdir()
    for path in (tmp_path / "none" / "a.png", tmp_path / "file" / "a.png", tmp_path / "folder.png"):
        with pytest.raises(StorageError, match=r"cannot be written: .*; .*choose another folder") as error:
            draw(built(noise(1)), path)
        assert str(error.value).startswith(f"{path}: ")
        assert error.value.exit_code == 5
    with pytest.raises(StorageError, match="too long"):
        draw(built(noise(1)), tmp_path / ("a" * 300 + ".png"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder.png"]


@pytest.mark.parametrize("most", [0, -1, 25])
def test_a_sheet_holds_one_to_24_scans(tmp_path, most):
    with pytest.raises(ValueError, match=f"most: {most} is not from 1 to 24"):
        draw(built(noise(1)), tmp_path / "a.png", most=most)


def test_a_recorded_hyperbola_has_its_apex_below_the_bar(gprmax_small, tmp_path):
    with (gprmax_small / "labels.csv").open(newline="") as file:
        labels = np.array([row["label"] == "1" for row in csv.DictReader(file) if row["scan"] == "dev001"], np.int8)
    with h5py.File(gprmax_small / "scans" / "dev001_merged.out") as file:
        scan = file["rxs/rx1/Ez"][:].T
    strong = np.abs(grey(scan)[:, :, 0].astype(int) - 128) > 110
    first = np.where(strong.any(axis=0), strong.argmax(axis=0), len(strong))  # arrival in each trace
    (bar,) = bars(drawn(built({"dev001": scan}, {"dev001": labels}), tmp_path))
    assert by_trace(bar, labels.size) == labels.tolist()
    assert labels[np.flatnonzero(first == first.min())].any()
    assert first[labels == 1].max() < first[labels == 0].max()
