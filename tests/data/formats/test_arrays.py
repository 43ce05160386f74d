"""gprMax, other HDF5 and npz: what they hold, what is missing, and what reaches out of them or lies."""

from __future__ import annotations

import os
import zipfile
from io import BytesIO
from pathlib import Path

import h5py
import numpy as np
import pytest

from tunelab.data.formats import check_components, read_header, read_traces, scan_id
from tunelab.errors import UsageError

X = np.arange(12, dtype=np.float32).reshape(3, 4)  # (trace, sample)


def test_gprmax_output_is_turned_to_traces_by_samples(tmp_path, write):
    path = write.out(tmp_path / "a_merged.out", X.T, compression="gzip", shuffle=True)
    header = read_header(path)
    assert (header.n_traces, header.n_samples, header.dt, header.labels) == (3, 4, 2e-11, None)
    traces = read_traces(path)
    assert traces.dtype == np.float32
    assert traces.flags.c_contiguous
    np.testing.assert_array_equal(traces, X)
    assert scan_id(path) == "a"


def test_a_single_trace_is_one_dimensional_in_gprmax(tmp_path, write):
    path = write.out(tmp_path / "a.out", X[0])
    assert read_header(path).n_traces == 1
    np.testing.assert_array_equal(read_traces(path), X[:1])


@pytest.mark.parametrize("dtype", [np.int16, np.uint8, np.float64, np.float16])
def test_plain_hdf5_and_npz_of_any_number_type(tmp_path, dtype):
    y = np.array([0, 1, 1])
    np.savez_compressed(tmp_path / "a.npz", x=X.astype(dtype), y=y, dt=3e-11)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["x"], file["y"], file["dt"] = X.astype(dtype), y.astype(bool).astype(np.float32), 3e-11
    for name in ("a.npz", "a.h5"):
        header = read_header(tmp_path / name)
        assert (header.n_traces, header.n_samples, header.dt) == (3, 4, 3e-11)
        assert header.labels.tolist() == [0, 1, 1]
        np.testing.assert_array_equal(read_traces(tmp_path / name), X)


def test_labels_and_interval_are_optional(tmp_path):
    np.savez(tmp_path / "a.npz", x=X)
    assert read_header(tmp_path / "a.npz").labels is None
    assert read_header(tmp_path / "a.npz").dt is None


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_samples_that_are_not_finite_are_refused_with_their_place(tmp_path, value, write, refuse):
    bad = X.copy()
    bad[1, 2] = bad[2, 3] = value
    refuse(
        write.out(tmp_path / "a.out", bad.T),
        "rxs/rx1/Ez holds 2 samples that are NaN, .* trace 1, sample 2; correct them",
    )
    np.savez(tmp_path / "b.npz", x=np.where(np.isfinite(bad), bad.astype(float), 1e300))
    refuse(tmp_path / "b.npz", "x holds 2 samples that are NaN, infinite or beyond float32")


def test_wrong_shapes_and_types_are_refused(tmp_path, write, refuse):
    refuse(write.out(tmp_path / "a.out", np.zeros((2, 3, 4))), r"shape \(2, 3, 4\); gprMax writes \(samples, traces\)")
    refuse(
        write.out(tmp_path / "b.out", np.zeros((4, 0))), r"rxs/rx1/Ez has shape \(0, 4\); a scan has traces and samples"
    )
    refuse(write.out(tmp_path / "c.out", np.zeros((1, 4))), "has 1 sample a trace; at least 2")
    refuse(write.out(tmp_path / "d.out", X.T.astype(complex)), "has dtype complex128; numbers are needed")
    refuse(write.out(tmp_path / "e.out", np.array([[b"a"]])), r"has dtype \|S1; numbers")
    np.savez(tmp_path / "f.npz", x=X[0])
    refuse(tmp_path / "f.npz", r"x has shape \(4,\)")
    np.savez(tmp_path / "g.npz", x=X.astype(str))
    refuse(tmp_path / "g.npz", "x has dtype <U32; numbers are needed")
    np.savez(tmp_path / "h.npz", z=X)
    refuse(tmp_path / "h.npz", r"no array 'x' \(there is 'z.npy'\)")
    np.savez(tmp_path / "i.npz", x=X, y=[0, 1])
    refuse(tmp_path / "i.npz", r"y has shape \(2,\), but x has 3 traces")
    np.savez(tmp_path / "j.npz", x=X, y=[0, 2, 3])
    refuse(tmp_path / "j.npz", "y holds 2 labels other than 0 and 1, first 2 at trace 1")


@pytest.mark.parametrize("dt", [0.0, -1.0, np.nan, "soon", [1e-9, 2e-9]])
def test_intervals_that_are_none_are_refused(tmp_path, dt, write, refuse):
    refuse(write.out(tmp_path / "a.out", X.T, dt=dt), "dt is no (positive|single) number")


def test_missing_parts_are_named_with_what_is_there(tmp_path, refuse):
    with h5py.File(tmp_path / "a.out", "w") as file:
        file.create_group("rxs/rx1")["Ex"] = X.T
    refuse(tmp_path / "a.out", r"no rxs/rx1/Ez \(there is 'rx1/Ex'\); ask for components that are there")
    with h5py.File(tmp_path / "b.out", "w") as file:
        file["rxs"] = 1
    refuse(tmp_path / "b.out", r"no rxs/rx1/Ez \('rx1' is missing; there is no group\)")
    (tmp_path / "c.out").write_text("not HDF5")
    refuse(tmp_path / "c.out", "cannot be read .* copy it again")
    (tmp_path / "d.npz").write_bytes(b"")
    refuse(tmp_path / "d.npz", "cannot be read")
    refuse(tmp_path / "e.out", "no such file; correct the name")
    os.mkfifo(tmp_path / "f.out")
    refuse(tmp_path / "f.out", "no plain file")


def test_hdf5_that_reaches_into_other_files_is_refused(tmp_path, write, refuse):
    secret = write.out(tmp_path / "secret.h5", X.T)
    raw = tmp_path / "raw.bin"
    raw.write_bytes(bytes(48))
    with h5py.File(tmp_path / "a.out", "w") as file:
        file["rxs/rx1/Ez"] = h5py.ExternalLink(str(secret), "/rxs/rx1/Ez")
    refuse(tmp_path / "a.out", "rxs/rx1/Ez is a soft or external link")
    with h5py.File(tmp_path / "b.out", "w") as file:
        file["rxs"] = h5py.ExternalLink(str(secret), "/rxs")
    refuse(tmp_path / "b.out", "soft or external link")
    with h5py.File(tmp_path / "c.out", "w") as file:
        file.create_dataset("rxs/rx1/Ez", (4, 3), "f4", external=[(str(raw), 0, 48)])
    refuse(tmp_path / "c.out", "keeps its data in other files")
    layout = h5py.VirtualLayout((4, 3), "f4")
    layout[:] = h5py.VirtualSource(str(secret), "rxs/rx1/Ez", (4, 3))
    with h5py.File(tmp_path / "d.out", "w") as file:
        file.create_virtual_dataset("rxs/rx1/Ez", layout)
    refuse(tmp_path / "d.out", "keeps its data in other files")
    with h5py.File(tmp_path / "e.h5", "w") as file:
        file["x"] = X
        file["y"] = h5py.ExternalLink(str(secret), "/rxs/rx1/Ez")
    refuse(tmp_path / "e.h5", "y is a soft or external link")


def test_sizes_that_are_claimed_but_not_stored_are_refused(tmp_path, refuse):
    with h5py.File(tmp_path / "a.out", "w") as file:  # 256 GiB in a few kB
        file.create_dataset("rxs/rx1/Ez", (2**18, 2**18), "f4", chunks=(64, 64), compression="gzip")
    refuse(
        tmp_path / "a.out", r"claims 262,144 x 262,144 x 4 bytes = 274,877,906,944, more than the 268,435,456 of one"
    )
    with h5py.File(tmp_path / "b.out", "w") as file:
        file.create_dataset("rxs/rx1/Ez", (2_000, 2_000), "f4", chunks=(2_000, 2_000), compression="gzip")
    refuse(tmp_path / "b.out", "claims 16,000,000 bytes, but 0 are stored")
    with h5py.File(tmp_path / "c.out", "w") as file:
        file.create_dataset("rxs/rx1/Ez", (4, 3), "f4", maxshape=(None, None), chunks=(2**14, 2**14))
    refuse(tmp_path / "c.out", "has a chunk of 16,384 x 16,384 x 4 bytes")


def npz_with_header(path: Path, shape: tuple[int, ...], descr="<f4", body=bytes(48)) -> Path:
    member = BytesIO()
    np.lib.format.write_array_header_1_0(member, {"descr": descr, "fortran_order": False, "shape": shape})
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.npy", member.getvalue() + body)
    return path


def test_npz_headers_that_lie_and_objects_are_refused(tmp_path, refuse):
    refuse(npz_with_header(tmp_path / "a.npz", (2**20, 2**21)), "x claims .* more than the 268,435,456 of one scan")
    refuse(npz_with_header(tmp_path / "b.npz", (3, 400)), "x claims 4,800 bytes, but 48 are stored")
    refuse(npz_with_header(tmp_path / "c.npz", (3, 2)), "x claims 24 bytes, but 48 are stored")
    refuse(npz_with_header(tmp_path / "d.npz", (-1, -12)), r"x claims \(-1, -12\) values, and none can be negative")
    marker = tmp_path / "marker"

    class Evil:
        def __reduce__(self):
            return (Path.touch, (marker,))

    np.savez(tmp_path / "e.npz", x=np.array([Evil()], dtype=object))
    refuse(tmp_path / "e.npz", "x has dtype object; numbers are needed .* objects are never unpickled")
    np.savez(tmp_path / "f.npz", x=X, y=np.array([Evil(), 0, 1], dtype=object))
    refuse(tmp_path / "f.npz", "y has dtype object")
    assert not marker.exists()
    with zipfile.ZipFile(tmp_path / "g.npz", "w", zipfile.ZIP_BZIP2) as archive:
        archive.writestr("x.npy", bytes(100))
    refuse(tmp_path / "g.npz", "packed in a way that numpy does not write")


def test_a_flipped_bit_in_npz_samples_is_noticed(tmp_path, refuse):
    np.savez(tmp_path / "a.npz", x=X)
    data = bytearray((tmp_path / "a.npz").read_bytes())
    at = data.find(X.tobytes()) + 10
    data[at] ^= 4
    (tmp_path / "a.npz").write_bytes(data)
    refuse(tmp_path / "a.npz", "Bad CRC-32")


def test_components_are_joined_along_the_samples(tmp_path, write):
    path = write.out(tmp_path / "a.out", {"rx1/Ez": X.T, "rx1/Ex": 10 * X.T, "rx2/Hx": -X.T})
    assert read_header(path).n_samples == 4
    words = ("rx2/Hx", "rx1/Ez")
    header = read_header(path, words)
    assert (header.n_traces, header.n_samples, header.dt) == (3, 8, 2e-11)
    assert header.field == "rxs/rx2/Hx, rxs/rx1/Ez"
    traces = read_traces(path, words)
    assert traces.flags.c_contiguous
    np.testing.assert_array_equal(traces, np.hstack([-X, X]))
    np.testing.assert_array_equal(read_traces(path, ("rx1/Ex",)), 10 * X)
    single = write.out(tmp_path / "b.h5", {"rx1/Ez": X[0], "rx1/Ey": X[1]})
    np.testing.assert_array_equal(read_traces(single, ("rx1/Ez", "rx1/Ey")), [[*X[0], *X[1]]])


def test_components_that_are_missing_or_differ_are_refused(tmp_path, write, refuse):
    path = write.out(tmp_path / "a.out", {"rx1/Ez": X.T, "rx1/Ex": X.T[:2], "rx2/Hx": X.T})
    there = r"\(there is 'rx1/Ex', 'rx1/Ez', 'rx2/Hx'\)"
    refuse(path, "no rxs/rx2/Ez " + there, ("rx1/Ez", "rx2/Ez"))
    refuse(path, "no rxs/rx3/Ez " + there, ("rx3/Ez",))
    refuse(path, r"rxs/rx1/Ex has shape \(2, 3\), but rxs/rx1/Ez \(4, 3\)", ("rx1/Ez", "rx1/Ex"))
    with h5py.File(path, "a") as file:
        file["rxs/rx4"] = h5py.ExternalLink(str(tmp_path / "b.out"), "/rxs/rx1")
        file["rxs/rx1/Hz"] = h5py.SoftLink("/rxs/rx1/Ez")
    refuse(path, "rxs/rx4/Ez is a soft or external link", ("rx4/Ez",))
    refuse(path, "rxs/rx1/Hz is a soft or external link", ("rx1/Hz",))


def test_components_together_are_held_to_the_bound_of_a_scan(tmp_path, write, refuse, monkeypatch):
    path = write.out(tmp_path / "a.out", {"rx1/Ez": X.T, "rx1/Ex": X.T})
    monkeypatch.setattr("tunelab.data.formats.guard.MAX_SCAN_BYTES", 48)
    np.testing.assert_array_equal(read_traces(path), X)
    refuse(path, "2 components claim 2 x 4 x 3 x 4 bytes = 96, more than the 48 of one scan", ("rx1/Ez", "rx1/Ex"))


def test_only_gprmax_has_components(tmp_path, refuse):
    np.savez(tmp_path / "a.npz", x=X)
    refuse(tmp_path / "a.npz", "only gprMax files have components, not rx1/Ez; leave components", ("rx1/Ez",))
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file["x"] = X
    refuse(tmp_path / "b.h5", "only gprMax files have components", ("rx1/Ez",))


@pytest.mark.parametrize("word", ["rx0/Ez", "Ez", "x", "rx1/Eq", "rx1/ez", "rx1/Ez/", "../rx1/Ez", "rx1/Ez\n", "", 1])
def test_words_that_are_no_components_are_refused_before_any_file_is_looked_at(word):
    with pytest.raises(UsageError, match=r"components: .* is none; write the receiver from rx1 on"):
        check_components((word,))
    with pytest.raises(UsageError, match="is none"):
        read_header(Path("nowhere.npz"), (word,))


def test_a_component_is_named_once():
    check_components(("rx1/Ez", "rx12/Hx", "rx1/Iy"))
    with pytest.raises(UsageError, match="rx1/Ez is named twice"):
        check_components(("rx1/Ez", "rx1/Ex", "rx1/Ez"))


def test_h5_is_gprmax_when_it_has_receivers_and_no_x(tmp_path, write, refuse):
    path = write.out(tmp_path / "a.h5", X.T)
    assert read_header(path).field == "rxs/rx1/Ez"
    with h5py.File(path, "a") as file:
        file["x"] = 2 * X
    assert read_header(path).field == "x"
    np.testing.assert_array_equal(read_traces(path), 2 * X)
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file["z"] = X
    refuse(tmp_path / "b.h5", r"no x \('x' is missing; there is 'z'\)")
    with h5py.File(tmp_path / "c.out", "w") as file:
        file["z"] = X
    refuse(tmp_path / "c.out", r"no rxs/rx1/Ez \('rxs' is missing; there is 'z'\)")


def test_suffixes_count_in_either_case_and_others_are_refused(tmp_path, write, refuse):
    assert read_header(write.out(tmp_path / "A.OUT", X.T)).n_traces == 3
    (tmp_path / "a.csv").write_text("1,2")
    refuse(tmp_path / "a.csv", r"\.csv is no format of scans; \.out, \.h5, \.npz, .* are")
