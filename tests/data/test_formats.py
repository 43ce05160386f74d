from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from io import BytesIO
from pathlib import Path

import h5py
import numpy as np
import pytest

from tunelab.data.formats import read_header, read_traces, scan_id
from tunelab.errors import DataError

X = np.arange(12, dtype=np.float32).reshape(3, 4)  # (trace, sample)


def out(path: Path, data=X.T, dt=2e-11, **options) -> Path:
    with h5py.File(path, "w") as file:
        file.attrs["dt"] = dt
        file.create_dataset("rxs/rx1/Ez", data=data, **options)
    return path


def refuse(path: Path, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        read_header(path), read_traces(path)  # whichever of the two notices
    assert str(path) in str(caught.value)


def test_gprmax_output_is_turned_to_traces_by_samples(tmp_path):
    path = out(tmp_path / "a_merged.out", compression="gzip", shuffle=True)
    header = read_header(path)
    assert (header.n_traces, header.n_samples, header.dt, header.labels) == (3, 4, 2e-11, None)
    traces = read_traces(path)
    assert traces.dtype == np.float32
    assert traces.flags.c_contiguous
    np.testing.assert_array_equal(traces, X)
    assert scan_id(path) == "a"


def test_a_single_trace_is_one_dimensional_in_gprmax(tmp_path):
    path = out(tmp_path / "a.out", X[0])
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
def test_samples_that_are_not_finite_are_refused_with_their_place(tmp_path, value):
    bad = X.copy()
    bad[1, 2] = bad[2, 3] = value
    refuse(
        out(tmp_path / "a.out", bad.T), "rxs/rx1/Ez holds 2 samples that are NaN, .* trace 1, sample 2; correct them"
    )
    np.savez(tmp_path / "b.npz", x=np.where(np.isfinite(bad), bad.astype(float), 1e300))
    refuse(tmp_path / "b.npz", "x holds 2 samples that are NaN, infinite or beyond float32")


def test_wrong_shapes_and_types_are_refused(tmp_path):
    refuse(out(tmp_path / "a.out", np.zeros((2, 3, 4))), r"shape \(2, 3, 4\); gprMax writes \(samples, traces\)")
    refuse(out(tmp_path / "b.out", np.zeros((4, 0))), r"rxs/rx1/Ez has shape \(0, 4\); a scan has traces and samples")
    refuse(out(tmp_path / "c.out", np.zeros((1, 4))), "has 1 sample a trace; at least 2")
    refuse(out(tmp_path / "d.out", X.T.astype(complex)), "has dtype complex128; numbers are needed")
    refuse(out(tmp_path / "e.out", np.array([[b"a"]])), r"has dtype \|S1; numbers")
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
def test_intervals_that_are_none_are_refused(tmp_path, dt):
    refuse(out(tmp_path / "a.out", dt=dt), "dt is no (positive|single) number")


def test_missing_parts_are_named_with_what_is_there(tmp_path):
    with h5py.File(tmp_path / "a.out", "w") as file:
        file.create_group("rxs/rx1")["Ex"] = X.T
    refuse(tmp_path / "a.out", r"no rxs/rx1/Ez \('Ez' is missing; there is 'Ex'\)")
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


def test_hdf5_that_reaches_into_other_files_is_refused(tmp_path):
    secret = out(tmp_path / "secret.h5")
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


def test_sizes_that_are_claimed_but_not_stored_are_refused(tmp_path):
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


def test_npz_headers_that_lie_and_objects_are_refused(tmp_path):
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


def test_a_flipped_bit_in_npz_samples_is_noticed(tmp_path):
    np.savez(tmp_path / "a.npz", x=X)
    data = bytearray((tmp_path / "a.npz").read_bytes())
    at = data.find(X.tobytes()) + 10
    data[at] ^= 4
    (tmp_path / "a.npz").write_bytes(data)
    refuse(tmp_path / "a.npz", "Bad CRC-32")


DAMAGE = """
import resource, sys
from pathlib import Path
import numpy as np
from tunelab.data.formats import read_header, read_traces
from tunelab.errors import DataError
resource.setrlimit(resource.RLIMIT_AS, (3 << 30, 3 << 30))
source, target = Path(sys.argv[1]), Path(sys.argv[2])
whole = source.read_bytes()
rng = np.random.default_rng(0)
refused = 0
variants = [whole[: len(whole) * i // 100] for i in range(100)]
for _ in range(400):
    data = bytearray(whole)
    for at in rng.integers(len(data), size=3):
        data[at] = rng.integers(256)
    variants.append(bytes(data))
for i, data in enumerate(variants):
    target.write_bytes(data)
    try:
        header = read_header(target)
        assert read_traces(target).shape == (header.n_traces, header.n_samples)
    except DataError as error:
        assert str(target) in str(error)
        refused += 1
    else:
        assert i >= 100, f"cut at {i} % was read"
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
assert peak < 1_000_000, f"{peak} kB"
print(refused)
"""


@pytest.mark.parametrize("name", ["a.out", "a.npz"])
def test_cut_and_altered_files_are_read_or_refused_and_nothing_else(tmp_path, name):
    source = tmp_path / name
    if name == "a.out":
        out(source, np.random.default_rng(0).standard_normal((40, 30)).astype("f4"), compression="gzip")
    else:
        np.savez_compressed(source, x=np.random.default_rng(0).standard_normal((30, 40)), y=[0, 1] * 15, dt=1e-11)
    run = subprocess.run(
        [sys.executable, "-c", DAMAGE, str(source), str(tmp_path / f"b{source.suffix}")],
        capture_output=True,
        text=True,
        timeout=120,
        env={"PYTHONPATH": str(Path(__file__).resolve().parents[2]), "OPENBLAS_NUM_THREADS": "1"},
    )
    assert run.returncode == 0, run.stderr[-2000:]
    assert int(run.stdout) > 100
