"""Preparing: the same numbers as the source, whole or not at all, once, and again when anything changed."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest

from tunelab.data import prepared as prepared_module
from tunelab.data import shards as shards_module
from tunelab.data.dataset import Dataset
from tunelab.data.generated import Generated, preprocessed
from tunelab.data.prepare import prepare
from tunelab.data.prepared import AS_RECORDED, CacheOptions, Prepared, prepared_from
from tunelab.data.preprocess import apply
from tunelab.data.request import Progress
from tunelab.data.samples import moments_of
from tunelab.data.synthetic import SyntheticSettings, synthesize, write_folder
from tunelab.errors import DataError, StateError, StorageError, UsageError
from tunelab.preprocessing import Preprocessing
from tunelab.sections import DataOptions

SETTINGS = SyntheticSettings(scans=24, traces=20, samples=96, shortest=0.5, seed=3)
CHAIN = Preprocessing(samples=32, background="scan", gain=1.5)


@pytest.fixture(scope="module")
def memory() -> Dataset:
    """What the folder holds, as it was generated."""
    return synthesize(SETTINGS)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_folder(SETTINGS, tmp_path / "scans")
    return tmp_path / "scans"


@pytest.fixture
def at(folder: Path) -> Callable[..., Prepared]:
    """Access to the folder by way of a cache beside it."""

    def make(chains=(AS_RECORDED,), *, cache="cache", workers=1, max_bad=0, limit=None, seed=3, **options) -> Prepared:
        place = CacheOptions(cache=folder.parent / cache, workers=workers, max_bad=max_bad, limit=limit)
        return prepared_from(folder, options=DataOptions(**options), chains=chains, seed=seed, cache=place)

    return make


@pytest.fixture(autouse=True)
def _new_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing opened or verified before."""
    monkeypatch.setattr(prepared_module, "_opened", {})
    monkeypatch.setattr(shards_module, "_verified", {})


def visible(cache: Path) -> list[Path]:
    """The entries that others can see."""
    return sorted(p for p in cache.iterdir() if not p.name.startswith(".")) if cache.exists() else []


def sums(folder: Path) -> dict[str, str]:
    """SHA-256 by file; the manifest's own, which holds a time, left out."""
    names = (p.name for p in folder.iterdir() if not p.name.startswith("manifest"))
    return {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in names}


@pytest.mark.parametrize("workers", [1, 2])
def test_what_is_prepared_is_what_was_recorded(at, memory, workers):
    dataset = at(workers=workers).open(AS_RECORDED)
    assert (dataset.scans, dataset.fingerprint, dataset.n_samples) == (memory.scans, memory.fingerprint, 96)
    assert dataset.dt == pytest.approx(memory.dt)
    assert dataset.labels.tobytes() == memory.labels.tobytes()
    assert dataset.silent.tolist() == memory.silent.tolist()
    for i in range(dataset.n_scans):
        np.testing.assert_array_equal(dataset.samples.read(i), memory.samples.read(i))
        assert not dataset.samples.read(i).flags.writeable
    chosen = np.array([5, 0, 23])
    np.testing.assert_array_equal(dataset.samples.moments(chosen), memory.samples.moments(chosen))
    assert dataset.dealt == "cross-fitted over 5 folds of 20 scans, 4 test scans"


def test_all_chains_are_made_in_one_reading_and_each_alone_is_the_same(at, memory, folder, monkeypatch):
    from tunelab.data import build

    reads: list[Path] = []
    real = build.read_traces
    monkeypatch.setattr(build, "read_traces", lambda path, components: reads.append(path) or real(path, components))
    both = at((AS_RECORDED, CHAIN)).ready(Progress()).datasets
    assert len(reads) == 24
    assert [d.n_samples for d in both.values()] == [96, 32]
    assert {d.fingerprint for d in both.values()} == {memory.fingerprint}
    inside = preprocessed(memory, CHAIN)
    for i in range(24):
        expected = apply(memory.samples.read(i), both[AS_RECORDED].dt, CHAIN)
        np.testing.assert_array_equal(both[CHAIN].samples.read(i), expected)
        np.testing.assert_allclose(inside.samples.read(i), expected, rtol=1e-4, atol=1e-4)
    alone = at((CHAIN,), cache="other")
    alone.open(CHAIN)
    one, two = visible(folder.parent / "cache"), visible(folder.parent / "other")
    assert len(one) == 2
    assert [p.name for p in two] == [p.name for p in one if p.name == two[0].name]
    assert sums(two[0]) == sums(folder.parent / "cache" / two[0].name)


def test_a_second_opening_reads_nothing_and_a_pickle_is_small(at, folder, monkeypatch):
    access = at()
    first = access.open(AS_RECORDED)
    assert access.open(AS_RECORDED) is first
    monkeypatch.setattr(prepared_module, "_opened", {})
    monkeypatch.setattr("tunelab.data.build.read_traces", lambda *_: pytest.fail("read again"))
    monkeypatch.setattr("tunelab.data.listing.read_header", lambda *_: pytest.fail("listed again"))
    again = access.open(AS_RECORDED)
    assert again is not first
    assert not shards_module._verified  # no shard was touched
    raw = pickle.dumps(access.ready(Progress()).access)
    assert len(raw) < 3_000
    assert pickle.loads(raw).open(AS_RECORDED).fingerprint == first.fingerprint


def test_a_trial_takes_the_driver_s_entry_although_the_source_has_changed_or_gone(at, folder, monkeypatch):
    access = at((AS_RECORDED, CHAIN))
    ready = access.ready(Progress())
    before, trial = ready.datasets, pickle.loads(pickle.dumps(ready.access))
    edit_file(folder)
    monkeypatch.setattr(prepared_module, "_opened", {})
    assert trial.open(CHAIN).fingerprint == before[CHAIN].fingerprint
    folder.rename(folder.parent / "gone")
    assert trial.open(AS_RECORDED).fingerprint == before[AS_RECORDED].fingerprint
    (folder.parent / "gone").rename(folder)
    # on a node without that entry only the same scans will do
    elsewhere = dataclasses.replace(trial, cache=CacheOptions(cache=folder.parent / "node", workers=1))
    with pytest.raises(DataError, match="are not those of the driver"):
        elsewhere.open(AS_RECORDED)
    edit_file(folder)
    assert elsewhere.open(AS_RECORDED).fingerprint == before[AS_RECORDED].fingerprint


def test_what_is_left_open_is_decided_on_the_node(at, monkeypatch, tmp_path):
    access = dataclasses.replace(at(), cache=CacheOptions())
    monkeypatch.setenv("TUNELAB_CACHE", str(tmp_path / "of-this-node"))
    assert access.request().cache == tmp_path / "of-this-node"
    assert access.request().workers == len(os.sched_getaffinity(0))


def test_float16_says_what_it_changed(at, memory):
    dataset = at((AS_RECORDED,), dtype="float16").open(AS_RECORDED)
    assert dataset.fingerprint == memory.fingerprint
    changed = total = largest = 0.0
    for i in range(24):
        exact, got = memory.samples.read(i).astype(np.float64), dataset.samples.read(i)
        assert got.dtype == np.float32
        changed, total = changed + float(((got - exact) ** 2).sum()), total + float((exact**2).sum())
        largest = max(largest, float(np.abs(got - exact).max() / np.abs(exact).max()))
    assert 0 < largest < 2**-11
    assert dataset.notes == (
        f"stored as float16: samples changed by {np.sqrt(changed / total):.1e} of their root mean square, and by "
        f"{largest:.1e} of the scan's largest at most",
    )


@pytest.mark.parametrize("scale", [1e-30, 1e-3, 1e6, 1e33])
def test_float16_takes_any_scale_and_170_db(tmp_path, scale):
    rng = np.random.default_rng(0)
    traces = np.float32(scale) * rng.standard_normal((30, 50)).astype(np.float32)
    traces[:, 10:] *= np.float32(1e-4)  # 80 dB below the direct wave
    for i in range(5):
        np.savez(tmp_path / f"s{i}.npz", x=traces * (i > 0), y=np.arange(30) % 4 == 0)
    place = CacheOptions(cache=tmp_path / "cache", workers=1)
    access = prepared_from(tmp_path, options=DataOptions(dtype="float16"), chains=(AS_RECORDED,), seed=0, cache=place)
    samples = access.open(AS_RECORDED).samples
    assert not samples.read(0).any()
    np.testing.assert_allclose(samples.read(3), traces, rtol=6e-4, atol=scale * 1e-8)


def edit_file(folder: Path) -> None:
    """One byte of a scan, its size and times as before."""
    path = sorted(folder.rglob("*.out"))[3]
    stat = path.stat()
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1
    path.write_bytes(raw)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def edit_labels(folder: Path) -> None:
    path = folder / "labels.csv"
    head, first, *rows = path.read_text().splitlines()
    scan, trace, label, *rest = first.split(",")
    path.write_text("\n".join([head, ",".join([scan, trace, str(1 - int(label)), *rest]), *rows]) + "\n")


def remove_scan(folder: Path) -> None:
    path = sorted(folder.rglob("*.out"))[3]
    for table in ("labels.csv", "scans.csv", "geometry.csv"):
        lines = (folder / table).read_text().splitlines()
        scan = path.name.removesuffix("_merged.out")
        (folder / table).write_text("\n".join(line for line in lines if not line.startswith(f"{scan},")) + "\n")
    path.unlink()


@pytest.mark.parametrize("change", [edit_file, edit_labels, remove_scan])
def test_a_changed_source_makes_a_new_entry(at, folder, change):
    before = at().open(AS_RECORDED)
    assert len(visible(folder.parent / "cache")) == 1
    change(folder)
    after = at().open(AS_RECORDED)
    assert len(visible(folder.parent / "cache")) == 2
    assert after.fingerprint != before.fingerprint
    other = dataclasses.replace(at(), fingerprint=before.fingerprint)
    with pytest.raises(DataError, match=r"on this node .* are not those of the driver: fingerprint .*copy the same"):
        other.open(AS_RECORDED)


def test_other_options_make_other_entries_and_other_seeds_do_not(at, folder):
    at().open(AS_RECORDED)
    at(dtype="float16").open(AS_RECORDED)
    at(resample=48).open(AS_RECORDED)
    assert len(visible(folder.parent / "cache")) == 3
    one, two = at(seed=3).open(AS_RECORDED), at(seed=4).open(AS_RECORDED)
    assert one.folds != two.folds
    assert len(visible(folder.parent / "cache")) == 3


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_moments_are_those_of_what_is_stored_after_the_chain(at, dtype):
    dataset = at((CHAIN,), dtype=dtype).open(CHAIN)
    found = dataset.samples.moments(np.arange(24))
    for i in range(24):
        np.testing.assert_array_equal(found[i], moments_of(dataset.samples.read(i)))


KILLED = """
import os, signal, sys
from pathlib import Path
from tunelab.data.request import Progress
from tunelab.data.prepared import AS_RECORDED, CacheOptions, prepared_from
from tunelab.preprocessing import Preprocessing
from tunelab.sections import DataOptions

folder, at, done = Path(sys.argv[1]), int(sys.argv[2]), [0]
real = {name: getattr(os, name) for name in ("fsync", "rename", "replace")}

def counted(name):
    def call(*args, **kwargs):
        done[0] += 1
        if done[0] == at:
            os.kill(os.getpid(), signal.SIGKILL)
        return real[name](*args, **kwargs)
    return call

for name in real:
    setattr(os, name, counted(name))
chains = (AS_RECORDED, Preprocessing(samples=32, background="scan", gain=1.5))
cache = CacheOptions(cache=folder.parent / "cache", workers=1)
prepared_from(folder, options=DataOptions(), chains=chains, seed=3, cache=cache).ready(Progress())
print(done[0])
"""


def test_killed_at_any_write_nothing_half_written_is_seen_and_the_next_goes_on(folder, at, monkeypatch):
    """Each child kills itself at a later write than the one before; together they finish the work."""
    expected = {
        p.name: sums(p) for p in prepare(at((AS_RECORDED, CHAIN), cache="expected").request(), Progress()).values()
    }
    cache = folder.parent / "cache"
    kills = shards = 0
    for at_write in range(3, 300, 13):
        child = subprocess.run(
            [sys.executable, "-c", KILLED, str(folder), str(at_write)], capture_output=True, text=True, timeout=120
        )
        for path in visible(cache):
            assert sums(path) == expected[path.name]
            prepared_module.open_prepared(path, 3)
        # a shard that was done is not made again: its facts, or the manifest that took their place, stay
        unfinished = [path for path in cache.glob(".building/*/*") if not (path / "manifest.sha256").exists()]
        made = sum(len(list(path.glob("0*.json"))) for path in unfinished)
        made += 8 * (len(list(cache.glob(".building/*/*/manifest.sha256"))) + len(visible(cache)))
        assert made >= shards
        shards = made
        if child.returncode == 0:
            break
        assert child.returncode == -signal.SIGKILL, child.stderr
        kills += 1
    assert kills >= 3
    assert {p.name: sums(p) for p in visible(cache)} == expected
    assert not list((cache / ".building").iterdir())


CONCURRENT = """
import sys
from pathlib import Path
from tunelab.data import build
from tunelab.data.request import Progress
from tunelab.data.prepared import AS_RECORDED, CacheOptions, prepared_from
from tunelab.sections import DataOptions

folder, reads = Path(sys.argv[1]), []
print("ready", flush=True)
real = build.read_traces
build.read_traces = lambda path, components: reads.append(path) or real(path, components)
sys.stdin.read()  # until all are here
cache = CacheOptions(cache=folder.parent / "cache", workers=1)
dataset = prepared_from(folder, options=DataOptions(), chains=(AS_RECORDED,), seed=3, cache=cache).open(AS_RECORDED)
print(len(reads), dataset.fingerprint)
"""


def test_eight_processes_at_once_make_it_once(folder, memory):
    children = [
        subprocess.Popen(
            [sys.executable, "-c", CONCURRENT, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(8)
    ]
    for child in children:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
    for child in children:
        assert child.stdin is not None
        child.stdin.close()
    answers = []
    for child in children:
        assert child.stdout is not None
        answers.append(child.stdout.read().split())
        child.stdout.close()
        assert child.wait(120) == 0
    assert sorted(int(reads) for reads, _ in answers) == [0] * 7 + [24]
    assert {fingerprint for _, fingerprint in answers} == {memory.fingerprint}
    assert len(visible(folder.parent / "cache")) == 1


def test_a_killed_parent_takes_its_workers_along(folder):
    """A preparation that is killed leaves no process behind that goes on writing."""
    code = KILLED.replace("workers=1", "workers=2").replace('("fsync", "rename", "replace")', '("rename",)')
    child = subprocess.run([sys.executable, "-c", code, str(folder), "1"], capture_output=True, text=True, timeout=120)
    assert child.returncode == -signal.SIGKILL, child.stderr
    # the pool's processes hold the pipes of stdout: run() came back, so they are gone
    assert not visible(folder.parent / "cache")


def read_all(dataset: Dataset) -> None:
    for i in range(dataset.n_scans):
        dataset.samples.read(i)
    dataset.samples.moments(np.arange(dataset.n_scans))


def flips(rng: np.random.Generator, path: Path, count: int) -> Iterator[int]:
    """Flip a bit at so many places, one at a time, and put it back."""
    raw = path.read_bytes()
    for place in rng.integers(0, len(raw) * 8, count):
        changed = bytearray(raw)
        changed[place // 8] ^= 1 << (place % 8)
        path.write_bytes(changed)
        yield int(place)
    path.write_bytes(raw)


def test_no_flipped_bit_of_the_cache_goes_unnoticed(at, folder, monkeypatch):
    access = at()
    access.open(AS_RECORDED)
    (entry,) = visible(folder.parent / "cache")
    rng = np.random.default_rng(0)
    names = sorted(p.name for p in entry.iterdir())
    tried = 0
    for name in names:
        for _ in flips(rng, entry / name, 1 + 1000 // len(names)):
            monkeypatch.setattr(prepared_module, "_opened", {})
            monkeypatch.setattr(shards_module, "_verified", {})
            tried += 1
            with pytest.raises(StateError, match=f"{entry}.*tunelab data prune {entry.name}"):
                read_all(access.open(AS_RECORDED))
    assert tried >= 1000
    monkeypatch.setattr(shards_module, "_verified", {})
    access.open(AS_RECORDED).samples.verify()


def test_a_cut_file_is_noticed_at_opening(at, folder, monkeypatch):
    access = at()
    access.open(AS_RECORDED)
    (entry,) = visible(folder.parent / "cache")
    for path in sorted(entry.iterdir()):
        raw = path.read_bytes()
        for size in (0, len(raw) // 2, len(raw) - 1):
            monkeypatch.setattr(prepared_module, "_opened", {})
            path.write_bytes(raw[:size])
            with pytest.raises(StateError, match=path.name.split(".")[0]):
                access.open(AS_RECORDED)
        path.unlink()
        with pytest.raises(StateError, match=r"tunelab data prune"):
            access.open(AS_RECORDED)
        path.write_bytes(raw)


def test_an_entry_of_another_version_is_told_as_such(at, folder):
    access = at()
    access.open(AS_RECORDED)
    (entry,) = visible(folder.parent / "cache")
    raw = (entry / "manifest.json").read_bytes().replace(b'"format":1', b'"format":2', 1)
    (entry / "manifest.json").write_bytes(raw)
    (entry / "manifest.sha256").write_text(f"{hashlib.sha256(raw).hexdigest()}  manifest.json\n")
    prepared_module._opened.clear()
    with pytest.raises(StateError, match=r"manifest.json: format: Input should be 1; .*tunelab data prune"):
        access.open(AS_RECORDED)


def test_channels_are_told_and_an_entry_of_before_has_as_many_as_components(at, folder):
    for path in folder.rglob("*.out"):
        with h5py.File(path, "r+") as file:
            file.create_dataset("rxs/rx2/Hx", data=2 * file["rxs/rx1/Ez"][...])
    for components in ((), ("rx1/Ez", "rx2/Hx")):
        channels = max(1, len(components))
        access = at((AS_RECORDED, CHAIN), components=components)
        for chain, samples in ((AS_RECORDED, 96), (CHAIN, 32)):
            dataset = access.open(chain)
            assert (dataset.channels, dataset.n_samples) == (channels, channels * samples)
            assert dataset.fold(1).part("train").channels == channels
        for entry in visible(folder.parent / "cache"):
            manifest = json.loads((entry / "manifest.json").read_bytes())
            manifest.pop("channels", None)
            raw = json.dumps(manifest).encode()
            (entry / "manifest.json").write_bytes(raw)
            (entry / "manifest.sha256").write_text(f"{hashlib.sha256(raw).hexdigest()}  manifest.json\n")
        prepared_module._opened.clear()
        assert access.open(AS_RECORDED).channels == channels


def test_the_manifest_s_sum_is_one_that_sha256sum_checks(at, folder):
    at().open(AS_RECORDED)
    (entry,) = visible(folder.parent / "cache")
    subprocess.run(["sha256sum", "--check", "--strict", "manifest.sha256"], cwd=entry, check=True, capture_output=True)


def test_generated_scans_are_opened_by_chain_too_and_travel_without_what_was_done(memory):
    access = Generated(dataset=memory, chains=(AS_RECORDED, CHAIN))
    raw, done = access.ready(Progress()).datasets.values()
    assert raw is memory
    assert access.open(CHAIN) is done
    assert (done.n_samples, done.fingerprint, done.folds, done.splits) == (32, raw.fingerprint, raw.folds, raw.splits)
    packed = pickle.dumps(access.ready(Progress()).access)
    assert len(packed) < raw.n_traces * 96 * 4 + 20_000
    np.testing.assert_array_equal(pickle.loads(packed).open(CHAIN).samples.read(5), done.samples.read(5))


def test_a_shard_that_changed_is_noticed_at_its_first_use_only(at, folder):
    dataset = at().open(AS_RECORDED)
    (entry,) = visible(folder.parent / "cache")
    last = sorted(entry.glob("*.samples"))[-1]
    raw = bytearray(last.read_bytes())
    raw[5] ^= 4
    last.write_bytes(raw)
    dataset.samples.read(0)
    with pytest.raises(StateError, match=f"{last.name}: does not match its digest"):
        dataset.samples.read(dataset.n_scans - 1)
    with pytest.raises(StateError, match=f"{last.name}: does not match its digest"):
        dataset.samples.verify()


def test_the_size_is_shown_before_and_limits_are_kept(at, folder):
    said: list[str] = []
    with pytest.raises(StorageError) as caught:
        at((AS_RECORDED, CHAIN), limit=100_000).ready(Progress(say=said.append))
    message = str(caught.value)
    assert "more than the limit of 100 kB" in message
    assert "dtype: float16 halves it" in message
    assert not visible(folder.parent / "cache")
    at((AS_RECORDED, CHAIN), limit=300_000).ready(Progress(say=said.append))
    traces, held = 344, sum(f.stat().st_size for e in visible(folder.parent / "cache") for f in e.iterdir())
    arithmetic = next(line for line in said if "to write" in line)
    assert arithmetic.startswith(f"24 scans, {traces} traces x 96 or 32 samples x 4 bytes: 163 kB (as recorded) + ")
    needed = sum(traces * n * 4 + 24 * n * 8 + traces + 500 * 24 for n in (96, 32))
    assert held == pytest.approx(needed, abs=15_000)
    with pytest.raises(StorageError, match=r"which holds 2\d\d kB: 2\d\d kB \+ .* is more than the limit of 300 kB"):
        at(resample=90, limit=300_000).open(AS_RECORDED)


def test_of_many_chains_the_sizes_of_a_few_are_told(at):
    said: list[str] = []
    at(tuple(Preprocessing(samples=n) for n in range(20, 34, 2))).ready(Progress(say=said.append))
    (line,) = [line for line in said if "to write" in line]
    assert "traces x 20 or 22 or 24 or 26 or 28 or 30 or 32 samples x 4 bytes" in line
    assert line.count(" samples)") == 4
    assert "(3 more chains of preprocessing) = " in line


def test_an_error_in_the_middle_leaves_nothing_visible_and_says_which_scan(at, folder, monkeypatch):
    def changed(path, components):
        raise DataError(f"{path}: changed while it was read; prepare again once nothing writes to it")

    monkeypatch.setattr("tunelab.data.build.read_traces", changed)
    with pytest.raises(DataError, match=r"24 of 24 scans cannot be used .*\n  syn000: .*changed while it was read"):
        at().open(AS_RECORDED)
    assert not visible(folder.parent / "cache")


def test_a_fault_that_passes_leaves_no_scan_out_for_good(at, folder, monkeypatch):
    from tunelab.data import build

    real = build.read_traces

    def out_of_memory(path, components):
        if "syn007" in path.name:
            raise DataError(f"{path}: cannot be read (out of memory)")
        return real(path, components)

    monkeypatch.setattr(build, "read_traces", out_of_memory)
    with pytest.raises(DataError, match=r"1 of 24 scans cannot be used .*\n  syn007: .*out of memory"):
        at().open(AS_RECORDED)
    monkeypatch.setattr(build, "read_traces", real)
    assert at(max_bad=1).open(AS_RECORDED).n_scans == 24


def test_what_cannot_be_dealt_is_told_before_anything_is_read(at, folder, monkeypatch):
    rows = [line.split(",")[0] + ",one\n" for line in (folder / "scans.csv").read_text().splitlines()[1:]]
    (folder / "scans.csv").write_text("scan,group\n" + "".join(rows))
    monkeypatch.setattr("tunelab.data.build.read_traces", lambda *_: pytest.fail("read"))
    with pytest.raises(DataError, match="24 scans in 1 groups, but 3 folds and a test part need one each"):
        at().open(AS_RECORDED)


def test_a_source_that_changes_meanwhile_is_refused(at, folder, monkeypatch):
    from tunelab.data import build

    real = build.read_traces

    def meddled(path, components):
        os.utime(sorted(folder.rglob("*.out"))[0])
        return real(path, components)

    monkeypatch.setattr(build, "read_traces", meddled)
    with pytest.raises(DataError, match="changed while it was read; prepare again once nothing writes to it"):
        at().open(AS_RECORDED)
    assert not visible(folder.parent / "cache")


def test_chains_that_do_not_fit_say_which(at):
    with pytest.raises(DataError, match=r"preprocessing \(window 0 to 900 ns\): .*"):
        at((Preprocessing(window=(0.0, 900.0)),)).ready(Progress())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"workers": 0}, "--workers: 0 is less than 1"),
        ({"max_bad": -1}, "--max-bad: -1"),
        ({"limit": -5}, "--cache-limit: -5"),
    ],
)
def test_options_out_of_range(at, options, message):
    with pytest.raises(UsageError, match=message):
        at(**options)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small file system needs root")
def test_a_full_disk_tears_nothing_and_the_work_goes_on_once_there_is_room(at, folder):
    cache = folder.parent / "small"
    cache.mkdir()
    mount = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(cache)], capture_output=True, text=True
    )
    if mount.returncode:
        pytest.skip(f"no mounting here: {mount.stderr.strip()}")
    try:
        filler = cache / "filler"
        filler.write_bytes(bytes(400_000))
        access = at((AS_RECORDED,), cache="small")
        with pytest.raises(StorageError, match=r"more than is free; .*choose another --cache"):
            access.open(AS_RECORDED)
        filler.unlink()

        # room for the estimate, and taken away by somebody else in the middle of the work
        def hog(what: str, done: int, total: int) -> None:
            if not done:
                filler.write_bytes(bytes(420_000))

        with pytest.raises(StorageError, match=r"cannot be written: No space left on device; free space"):
            access.ready(Progress(step=hog))
        assert not visible(cache) or [p.name for p in visible(cache)] == ["filler"]
        filler.unlink()
        assert access.open(AS_RECORDED).n_scans == 24
        subprocess.run(["mount", "-o", "remount,ro", str(cache)], check=True)
        assert access.open(AS_RECORDED).n_scans == 24  # what is there can be used
        with pytest.raises(StorageError, match=r"cannot be written: .*choose another --cache"):
            at((CHAIN,), cache="small").open(CHAIN)
    finally:
        subprocess.run(["umount", "-l", str(cache)], check=True)


def test_the_simulated_scans_in_two_chains(gprmax_small: Path, tmp_path: Path):
    chain = Preprocessing(samples=212, background="scan", gain=1.5)
    place = CacheOptions(cache=tmp_path, workers=2)
    access = prepared_from(gprmax_small, options=DataOptions(), chains=(AS_RECORDED, chain), seed=0, cache=place)
    raw, done = access.ready(Progress()).datasets.values()
    assert (raw.n_scans, raw.n_samples, done.n_samples) == (83, 1_700, 212)
    assert raw.notes == done.notes
    assert (raw.n_traces, int(raw.labels.sum()), raw.n_folds) == (4_187, 475, 0)
    for i in (0, 40, 82):
        np.testing.assert_allclose(
            done.samples.read(i), apply(raw.samples.read(i), raw.dt, chain), rtol=1e-4, atol=1e-3
        )
