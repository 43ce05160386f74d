"""Files of instruments: the layouts by published descriptions, and companions that lie."""

from __future__ import annotations

import os
import shutil
import struct
import sys
from pathlib import Path

import numpy as np
import pytest

from tunelab.data.formats import COMPANIONS, SUFFIXES, WANTED_SUFFIXES, companions, read_header, read_traces
from tunelab.data.prepared import CacheOptions, prepared_from
from tunelab.data.preprocess import apply
from tunelab.errors import DataError
from tunelab.preprocessing import Preprocessing
from tunelab.sections import DataOptions

X = [[-32768, -1, 0, 5], [1, 2, 3, 32767], [7, 7, 7, 7]]  # (trace, sample), all that int16 holds
WIDE = [[-(2**24), -1, 0, 5], [1, 2, 3, 2**24], [7, 7, 7, 7]]  # all that float32 holds exactly
MARKED = [[9, 9, 5, 6, 7], [8, 8, 255, 0, 128]]  # as DZT stores 8 bits, two marks first


@pytest.mark.parametrize(("suffix", "beside"), [(".DT1", ".HD"), (".dt1", ".hd"), (".DT1", ".hd"), (".Dt1", ".Hd")])
def test_dt1_is_read_with_its_companion_in_either_case(tmp_path, write, suffix, beside):
    path = write.dt1(tmp_path / f"line{suffix}", X, beside=beside)
    header = read_header(path)
    assert (header.n_traces, header.n_samples, header.labels) == (3, 4, None)
    assert header.dt == pytest.approx(650e-9 / 4)
    traces = read_traces(path)
    assert (traces.dtype, traces.flags.c_contiguous) == (np.float32, True)
    np.testing.assert_array_equal(traces, X)
    assert companions(path) == (tmp_path / f"line{beside}",)


def test_dt1_of_a_published_header(tmp_path, write):
    # 1,625 points in 650 ns are 2,500 MHz, as the test that the header comes from says
    path = write.dt1(tmp_path / "line.DT1", np.ones((2, 1625), dtype=int).tolist(), word="I*2")
    assert read_header(path).dt == pytest.approx(0.4e-9)
    assert read_traces(path).shape == (2, 1625)


@pytest.mark.parametrize(("kind", "word"), [("h", "I*2"), ("f", ""), ("f", "R*4"), ("i", "I*4")])
def test_dt1_of_every_number_type(tmp_path, write, kind, word):
    numbers = [[0.5, -1.25], [2.0, 1e9]] if kind == "f" else WIDE if kind == "i" else X
    np.testing.assert_array_equal(read_traces(write.dt1(tmp_path / "a.DT1", numbers, kind=kind, word=word)), numbers)


def test_dt1_that_does_not_fit_its_header_is_refused(tmp_path, write, refuse):
    refuse(
        write.dt1(tmp_path / "a.DT1", X, traces=4),
        "holds 408 bytes, but a.HD tells of 4 traces of 128 bytes and 4 samples of 2 or 4 bytes; copy both",
    )
    refuse(write.dt1(tmp_path / "b.DT1", X, samples=5), "b.HD tells of 3 traces of 128 bytes and 5 samples")
    refuse(write.dt1(tmp_path / "c.DT1", X, word="R*4"), "and 4 samples of 4 bytes")
    path = write.dt1(tmp_path / "d.DT1", X, word="C*8")
    refuse(path, r"DATA TYPE is 'C\*8'; I\*2, I\*4, R\*4, F\*4 are read", names=path.with_suffix(".HD"))
    path = write.dt1(tmp_path / "e.DT1", [[float("nan"), 1.0]], kind="f")
    refuse(path, "samples holds 1 samples that are NaN, .* trace 0, sample 0")


@pytest.mark.parametrize(("suffix", "beside"), [(".rd3", ".rad"), (".RD3", ".RAD"), (".rd7", ".rad"), (".rd7", ".RAD")])
def test_mala_is_read_with_its_companion_in_either_case(tmp_path, write, suffix, beside):
    numbers = X if suffix.lower() == ".rd3" else WIDE
    path = write.mala(tmp_path / f"line{suffix}", numbers, frequency=6400, beside=beside)
    header = read_header(path)
    assert (header.n_traces, header.n_samples) == (3, 4)
    assert header.dt == pytest.approx(1 / 6.4e9)
    np.testing.assert_array_equal(read_traces(path), numbers)
    assert companions(path) == (tmp_path / f"line{beside}",)


def test_mala_without_frequency_uses_the_window(tmp_path, write):
    assert read_header(write.mala(tmp_path / "a.rd3", X, frequency=0, window=50)).dt == pytest.approx(12.5e-9)
    assert read_header(write.mala(tmp_path / "b.rd3", X, frequency="", window="")).dt is None


def test_mala_that_does_not_fit_its_header_is_refused(tmp_path, write, refuse):
    refuse(write.mala(tmp_path / "a.rd3", X, traces=4), "holds 24 bytes, but a.rad tells of 4 .* x 2 bytes = 32; copy")
    refuse(write.mala(tmp_path / "b.rd7", X, samples=5), "holds 48 bytes, but b.rad tells of 3 .* x 4 bytes = 60; copy")
    shutil.copy(write.mala(tmp_path / "c.rd3", X), tmp_path / "c.rd7")
    refuse(tmp_path / "c.rd7", "holds 24 bytes, but c.rad tells of 3 .* x 4 bytes = 48")


@pytest.mark.parametrize(("bits", "shift"), [(8, 128), (16, 2**15), (32, 0)])
def test_dzt_of_every_width_is_around_zero_and_without_marks(tmp_path, write, bits, shift):
    path = write.dzt(tmp_path / "a.DZT", MARKED, bits=bits, range_ns=100)
    header = read_header(path)
    assert (header.n_traces, header.n_samples) == (2, 5)
    assert header.dt == pytest.approx(20e-9)
    expected = np.array([[5, 5, 5, 6, 7], [255, 255, 255, 0, 128]], dtype=float) - shift
    np.testing.assert_array_equal(read_traces(path), expected)


def test_dzt_channels_are_joined_along_the_samples(tmp_path, write):
    path = write.dzt(tmp_path / "a.dzt", [[0, 0, 1, 2, 0, 0, 3, 4], [0, 0, 5, 6, 0, 0, 7, 8]], bits=32, channels=2)
    assert read_header(path).dt == pytest.approx(25e-9)
    np.testing.assert_array_equal(read_traces(path), [[1, 1, 1, 2, 3, 3, 3, 4], [5, 5, 5, 6, 7, 7, 7, 8]])


def test_each_channel_is_preprocessed_on_its_own(tmp_path, write):
    rng = np.random.default_rng(0)
    both = rng.integers(-1000, 1000, (12, 2, 64))
    rows = ["scan,trace,label"]
    for i in range(5):
        write.dzt(tmp_path / f"s{i}.DZT", (both + i).reshape(12, 128).tolist(), bits=32, channels=2)
        rows += [f"s{i},{trace},{int(trace == 3)}" for trace in range(12)]
    (tmp_path / "labels.csv").write_text("\n".join(rows))
    assert read_header(tmp_path / "s0.DZT").channels == 2
    chain = Preprocessing(samples=32, background="scan", gain=1.0)
    cache = CacheOptions(cache=tmp_path / "cache", workers=1)
    access = prepared_from(tmp_path, options=DataOptions(), chains=(chain,), seed=0, cache=cache)
    dataset = access.open(chain)
    raw = read_traces(tmp_path / "s2.DZT")
    alone = [apply(np.ascontiguousarray(channel), dataset.dt, chain) for channel in np.split(raw, 2, axis=1)]
    np.testing.assert_array_equal(dataset.samples.read(2), np.concatenate(alone, axis=1))
    assert dataset.n_samples == 64
    write.dzt(tmp_path / "s4.DZT", both.reshape(12, 128).tolist(), bits=32, channels=1)
    with pytest.raises(DataError, match=r"scans differ in channels \(2: 4 scans, 1: 1 scans\); keep one kind"):
        access.open(chain)


def test_dzt_header_in_blocks(tmp_path, write):
    # rh_data below 1,024 counts blocks of 1,024 bytes; from there on each channel has one
    long = write.dzt(tmp_path / "a.DZT", MARKED, bits=8, data=128, blocks=128)
    assert long.stat().st_size == 131_072 + 10
    np.testing.assert_array_equal(read_traces(long), read_traces(write.dzt(tmp_path / "b.DZT", MARKED, bits=8)))
    assert read_header(write.dzt(tmp_path / "c.DZT", MARKED, bits=8, range_ns=0)).dt is None


def test_dzt_headers_that_cannot_be_are_refused(tmp_path, write, refuse):
    refuse(write.dzt(tmp_path / "a.DZT", MARKED, bits=24), "rh_bits 24, rh_nchan 1 are no header of a DZT file")
    refuse(write.dzt(tmp_path / "b.DZT", MARKED, tag=0x1234), "rh_tag 0x1234")
    refuse(write.dzt(tmp_path / "c.DZT", MARKED, data=0), "rh_data 0")
    refuse(write.dzt(tmp_path / "d.DZT", [[1, 2]]), "rh_nsamp 2")
    refuse(write.dzt(tmp_path / "e.DZT", MARKED, data=1023), r"1,047,552 \+ a whole number of traces of 10 bytes")
    for i, value in enumerate((float("nan"), float("inf"), -5.0, 3e38, 1e-30)):
        refuse(write.dzt(tmp_path / f"f{i}.DZT", MARKED, range_ns=value), "rhf_range makes .* a radar's lie between")
    path = write.dzt(tmp_path / "g.DZT", MARKED)
    path.write_bytes(path.read_bytes()[:-3])
    refuse(path, r"holds 1,041 bytes, and 1,024 \+ a whole number of traces of 10 bytes are expected")


@pytest.mark.parametrize("order", [">", "<"])
@pytest.mark.parametrize(("code", "numbers"), [(2, WIDE), (3, X), (5, [[0.5, -2.25], [1e9, 0]]), (8, [[-128, 127]])])
def test_segy_of_either_order_and_every_number_type(tmp_path, write, code, order, numbers):
    pytest.importorskip("segyio")
    for suffix in ("sgy", "SEGY"):
        path = write.segy(tmp_path / f"a.{suffix}", numbers, code=code, order=order)
        header = read_header(path)
        assert (header.n_traces, header.n_samples, header.dt) == (len(numbers), len(numbers[0]), None)
        np.testing.assert_array_equal(read_traces(path), numbers)


def test_segy_of_ibm_floats(tmp_path, write):
    pytest.importorskip("segyio")
    path = write.segy(tmp_path / "a.sgy", [[0, 0]], code=2)
    data = bytearray(path.read_bytes())
    struct.pack_into(">h", data, 3224, 1)
    struct.pack_into(">II", data, 3840, 0xC276A000, 0x41100000)  # -118.625, as often shown for this format, and 1
    path.write_bytes(data)
    np.testing.assert_array_equal(read_traces(path), [[-118.625, 1]])


def test_segy_with_extended_headers_and_long_traces(tmp_path, write):
    pytest.importorskip("segyio")
    np.testing.assert_array_equal(read_traces(write.segy(tmp_path / "a.sgy", X, extended=2)), X)
    np.testing.assert_array_equal(read_traces(write.segy(tmp_path / "b.sgy", X, samples=0, long_samples=4)), X)


def test_segy_headers_that_cannot_be_are_refused_before_segyio_sees_them(tmp_path, write, refuse, monkeypatch):
    segyio = pytest.importorskip("segyio")
    monkeypatch.setattr(segyio, "open", lambda *_, **__: pytest.fail("segyio was asked"))
    refuse(write.segy(tmp_path / "a.sgy", X, samples=5), r"3,600 \+ a whole number of traces of 260 bytes")
    refuse(write.segy(tmp_path / "b.sgy", X, extended=-1), "-1 extended text headers")
    refuse(write.segy(tmp_path / "c.sgy", X, samples=0), "0 samples a trace")
    refuse(write.segy(tmp_path / "d.sgy", X, samples=0, long_samples=-4), "-4 samples a trace")
    most = 2**31 - 1
    refuse(write.segy(tmp_path / "e.sgy", X, samples=0, long_samples=most), "a trace claims .* = 8,589,934,588, more")
    path = write.segy(tmp_path / "f.sgy", X)
    data = bytearray(path.read_bytes())
    struct.pack_into(">h", data, 3504, 32767)
    path.write_bytes(data)
    refuse(path, r"104,858,000 \+ a whole number")
    struct.pack_into(">h", data, 3224, 4)
    path.write_bytes(data)
    refuse(path, "format code 0004 .* is none of 1, 2, 3, 5, 6, 8, 10, 11, 16; export the file as IEEE float")


def test_segy_without_segyio_says_how_to_get_it(tmp_path, write, refuse, monkeypatch):
    monkeypatch.setitem(sys.modules, "segyio", None)
    refuse(
        write.segy(tmp_path / "a.sgy", X), r"SEG-Y needs segyio, which is not installed; pip install 'tunelab\[segy\]'"
    )


def test_companions_are_no_scans_and_all_suffixes_are_in_lower_case(tmp_path, write):
    besides = {beside for found in COMPANIONS.values() for beside in found}
    assert besides == {".hd", ".rad"}
    assert not besides & set(SUFFIXES)
    assert set(COMPANIONS) < set(SUFFIXES)
    assert set(WANTED_SUFFIXES) == besides | set(SUFFIXES)
    assert all(suffix == suffix.lower() for suffix in WANTED_SUFFIXES)
    assert companions(write.out(tmp_path / "a.out", np.ones((4, 3)))) == ()
    assert companions(tmp_path / "nowhere.DT1") == ()


def test_a_companion_that_is_missing_or_there_twice_is_refused(tmp_path, write, refuse):
    path = write.dt1(tmp_path / "a.DT1", X)
    shutil.copy(tmp_path / "a.HD", tmp_path / "a.hd")
    if len(companions(path)) == 2:  # where case counts
        refuse(path, "both a.hd and a.HD are there; keep the one that is true")
    (tmp_path / "a.hd").unlink()
    (tmp_path / "a.HD").unlink(missing_ok=True)
    refuse(path, "no plain file a.hd or a.HD beside it, which says how to read it; put it there")
    os.mkfifo(tmp_path / "a.HD")  # opening it would wait for ever
    refuse(path, "no plain file a.hd or a.HD")


@pytest.mark.parametrize(
    "number", ["-3", "nan", "inf", "1e999", "3e300", "3.5", "1_0", "0x3", "", "0", "9" * 5000, "३", "3 4"]
)
def test_counts_that_are_none_are_refused(tmp_path, write, refuse, number):
    path = write.dt1(tmp_path / "a.DT1", X, traces=number)
    refuse(path, "NUMBER OF TRACES is .* needed: correct it", names=path.with_suffix(".HD"))
    path = write.mala(tmp_path / "a.rd3", X, samples=number)
    refuse(path, "SAMPLES is .* needed: correct it", names=path.with_suffix(".rad"))


@pytest.mark.parametrize("number", ["-3", "nan", "inf", "1e999", "1e300", "1e-300", "soon"])
def test_intervals_that_no_radar_has_are_refused(tmp_path, write, refuse, number):
    rule = "(a number above 0 is needed|a radar's lie between)"
    path = write.dt1(tmp_path / "a.DT1", X, window=1)
    hd = path.with_suffix(".HD")
    hd.write_text(hd.read_text().replace("WINDOW  = 1", f"WINDOW  = {number}"))
    refuse(path, f"TOTAL TIME WINDOW .*{rule}", names=hd)
    refuse(write.mala(tmp_path / "a.rd3", X, frequency=number), f"FREQUENCY .*{rule}", names=tmp_path / "a.rad")
    path = write.mala(tmp_path / "b.rd3", X, frequency=0, window=number)
    refuse(path, f"TIMEWINDOW .*{rule}", names=tmp_path / "b.rad")


def test_counts_beyond_a_scan_are_refused_before_memory_is_asked_for(tmp_path, write, refuse):
    path = write.dt1(tmp_path / "a.DT1", X, traces=2**31 - 1)
    refuse(path, "samples claims 2,147,483,647 x 4 x 4 bytes = .* more than the 268,435,456 of one scan")


def test_bytes_that_are_no_text_are_let_through_outside_numbers(tmp_path, write, refuse):
    path = write.mala(tmp_path / "a.rd3", X)
    rad = path.with_suffix(".rad")
    rad.write_bytes(rad.read_bytes().replace(b"COMMENT:", b"COMMENT:\xe5\xff\x00\x1b[31m"))
    np.testing.assert_array_equal(read_traces(path), X)
    rad.write_bytes(rad.read_bytes().replace(b"SAMPLES:4", b"SAMPLES:\xff4"))
    refuse(path, "SAMPLES is .* a number above 0 is needed", names=rad)


def test_of_a_companion_of_a_gigabyte_only_the_start_is_read(tmp_path, write, refuse):
    path = write.mala(tmp_path / "a.rd3", X)
    rad = path.with_suffix(".rad")
    os.truncate(rad, 2**30)  # a hole: no disk is needed
    np.testing.assert_array_equal(read_traces(path), X)
    rad.write_bytes(b"\n" * 2**16 + b"SAMPLES:4\nLAST TRACE:3\n")
    refuse(path, "LAST TRACE is ''", names=rad)


def test_a_folder_or_pipe_is_no_scan(tmp_path):
    for suffix in SUFFIXES:
        (tmp_path / f"a{suffix}").mkdir()
        os.mkfifo(tmp_path / f"b{suffix}")
        for name in ("a", "b"):
            with pytest.raises(DataError, match="no plain file"):
                read_header(Path(tmp_path, f"{name}{suffix}"))
