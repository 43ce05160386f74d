"""Files that are cut, altered or made to harm, of every format, read by one process that has little memory.

A file without checksums cannot tell every flipped bit: what is required is that nothing but a DataError comes out, that
a cut file is refused or gives the very same samples, and that nothing in a file is ever run.
"""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from io import BytesIO
from pathlib import Path

import h5py
import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[3]
READ = '''
import json, resource, sys
from pathlib import Path
import numpy as np
import segyio
from tunelab.data.formats import companions, read_header, read_traces
from tunelab.errors import DataError

pages = int(Path("/proc/self/statm").read_text().split()[0])
limit = pages * resource.getpagesize() + 2**30
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
folder, flips, scratch = Path(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
rng = np.random.default_rng(0)
told = {"cuts": 0, "flips": 0, "refused": 0, "whole": 0}


def read(path, names):
    """The samples, or None when a DataError that names one of the files refuses them."""
    try:
        header, traces = read_header(path), read_traces(path)
    except DataError as error:
        assert any(str(name) in str(error) for name in names), error
        told["refused"] += 1
        return None
    assert traces.shape == (header.n_traces, header.n_samples)
    assert traces.dtype == np.float32 and np.isfinite(traces).all()
    assert header.dt is None or 0 < header.dt < float("inf")
    return traces


for source in sorted(folder.glob("scan.*")):
    family = (source, *companions(source))
    if source.suffix in (".hd", ".rad"):
        continue
    targets = [scratch / f"{scratch.name}{file.suffix}" for file in family]
    true = read(source, family)
    for at, (file, target) in enumerate(zip(family, targets)):
        whole = file.read_bytes()
        for other, beside in zip(family, targets):
            beside.write_bytes(other.read_bytes())
        for i in range(100):
            target.write_bytes(whole[: len(whole) * i // 100])
            told["cuts"] += 1
            traces = read(targets[0], targets)
            if traces is None:
                continue
            whole_trace = at == 0 and source.suffix in (".dzt", ".sgy")  # their headers do not count traces
            assert whole_trace or len(traces) == len(true), f"{file.name} cut at {i} %"
            assert np.array_equal(traces, true[: len(traces)]), f"{file.name} cut at {i} %"
            told["whole"] += 1
        start = min(len(whole), 4000)
        for i in range(flips):
            data = bytearray(whole)
            where = rng.integers(len(data) if i % 2 else start, size=1 + i % 4)  # headers more often than samples
            for at_byte in where:
                data[at_byte] = rng.choice([0, 1, 127, 128, 255, rng.integers(256)])
            target.write_bytes(data)
            told["flips"] += 1
            read(targets[0], targets)
        target.write_bytes(whole)
for source in sorted(folder.glob("evil*")):
    if source.suffix not in (".hd", ".rad"):
        assert read(source, (source, *companions(source))) is None, f"{source} was read"
# not ru_maxrss, which begins with what the parent had
peak = int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0])
assert peak < 1_000_000, f"{peak} kB"
print(json.dumps(told))
'''


class Evil:
    """Makes a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return (Path.touch, (self.marker,))


def npy(shape: tuple[int, ...], descr: str = "<f4") -> bytes:
    head = BytesIO()
    np.lib.format.write_array_header_1_0(head, {"descr": descr, "fortran_order": False, "shape": shape})
    return head.getvalue()


def make_scans(folder: Path, write) -> None:
    rng = np.random.default_rng(0)
    floats = rng.standard_normal((30, 40)).astype("f4")  # (trace, sample)
    whole = rng.integers(-(2**15), 2**15, (30, 40)).tolist()
    write.out(folder / "scan.out", floats.T, compression="gzip")
    write.out(folder / "scan.h5", floats.T)
    np.savez_compressed(folder / "scan.npz", x=floats, y=[0, 1] * 15, dt=1e-11)
    write.dt1(folder / "scan.dt1", whole, beside=".hd", word="I*2")
    write.mala(folder / "scan.rd3", whole)
    write.dzt(folder / "scan.dzt", (np.array(whole) + 2**15).tolist(), channels=2)
    write.segy(folder / "scan.sgy", floats.tolist())


def make_evil(folder: Path, marker: Path, write) -> int:
    """Files that may never be read; each names what it tries. Returns how many there are."""
    x = np.ones((4, 3), dtype="f4")
    np.savez(folder / "evil_pickle.npz", x=np.array([[Evil(marker)] * 2], dtype=object))
    np.savez(folder / "evil_pickled_labels.npz", x=x, y=np.array([Evil(marker)] * 4, dtype=object))
    for name, stated in (("evil_bomb.npz", 2**34), ("evil_shape.npz", 2**52)):
        with zipfile.ZipFile(folder / name, "w") as archive:
            archive.writestr("x.npy", npy((2, stated // 8)) + bytes(100))
    with (
        zipfile.ZipFile(folder / "evil_deflated.npz", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open("x.npy", "w", force_zip64=True) as member,
    ):  # 2 GiB of zeros in 9 MB, and a header that is true
        member.write(npy((2**15, 2**14)))
        for _ in range(2**11):
            member.write(bytes(2**20))
    secret = write.out(folder / "secret.h5", x)
    with h5py.File(folder / "evil_link.out", "w") as file:
        file["rxs/rx1/Ez"] = h5py.ExternalLink(str(secret), "/rxs/rx1/Ez")
    with h5py.File(folder / "evil_group.h5", "w") as file:
        file["rxs"] = h5py.ExternalLink(str(secret), "/rxs")
    with h5py.File(folder / "evil_soft.h5", "w") as file:
        file["x"] = h5py.SoftLink("/x")
    with h5py.File(folder / "evil_storage.h5", "w") as file:
        file.create_dataset("x", (4, 3), "f4", external=[("/etc/passwd", 0, 48)])
    layout = h5py.VirtualLayout((4, 3), "f4")
    layout[:] = h5py.VirtualSource(str(secret), "rxs/rx1/Ez", (4, 3))
    with h5py.File(folder / "evil_virtual.out", "w") as file:
        file.create_virtual_dataset("rxs/rx1/Ez", layout)
    for name, place in (("evil_declared.out", "rxs/rx1/Ez"), ("evil_declared.h5", "x")):  # 256 GiB in a few kB
        with h5py.File(folder / name, "w") as file:
            file.create_dataset(place, (2**18, 2**18), "f4", chunks=(64, 64), compression="gzip", fillvalue=1)
    with h5py.File(folder / "evil_labels.h5", "w") as file:
        file["x"] = x
        file.create_dataset("y", (2**40,), "i1", chunks=(2**20,), compression="gzip")
    most = 2**31 - 1
    write.dt1(folder / "evil_counts.dt1", x.astype(int).tolist(), beside=".hd", traces=most, samples=most)
    write.mala(folder / "evil_counts.rd3", x.astype(int).tolist(), traces=most, samples=most)
    (folder / "evil_counts.rad").write_text(f"SAMPLES:{most}\nLAST TRACE:{most}\n")
    write.dzt(folder / "evil_channels.dzt", [[1] * 6], channels=1)
    data = bytearray((folder / "evil_channels.dzt").read_bytes())
    data[2:6], data[52:54] = b"\xff" * 4, b"\xff\xff"
    (folder / "evil_channels.dzt").write_bytes(data)
    write.segy(folder / "evil_samples.sgy", x.tolist(), samples=0, long_samples=most)
    return len([file for file in folder.glob("evil*") if file.suffix not in (".hd", ".rad")])


def read_all(folder: Path, flips: int, scratch: Path) -> dict[str, int]:
    scratch.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", READ, str(folder), str(flips), str(scratch)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={"PYTHONPATH": str(ROOT), "OPENBLAS_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="the limit starts from what Linux tells")
def test_nothing_but_a_data_error_comes_out_of_cut_altered_and_hostile_files(tmp_path, write):
    pytest.importorskip("segyio")
    marker = tmp_path / "marker"
    folder = tmp_path / "scans"
    folder.mkdir()
    make_scans(folder, write)
    evil = make_evil(folder, marker, write)
    told = read_all(folder, 120, tmp_path / "scratch")
    assert not marker.exists()
    assert told["cuts"] == 900
    assert told["flips"] == 1080
    assert told["refused"] > 700 + evil
    assert told["whole"] < 200


def test_the_evil_would_do_harm_if_it_were_let(tmp_path):
    marker = tmp_path / "marker"
    np.savez(tmp_path / "evil.npz", x=np.array([Evil(marker)], dtype=object))
    np.load(tmp_path / "evil.npz", allow_pickle=True)["x"]
    assert marker.exists()
