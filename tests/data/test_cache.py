"""The cache: names, locks, room, and what may be removed."""

from __future__ import annotations

import fcntl
import os
import shutil
import time
from pathlib import Path

import pytest

from tunelab.data import cache as cache_module
from tunelab.data.cache import (
    alone,
    check_room,
    default_cache,
    entry_name,
    make_cache,
    stamp_of,
)
from tunelab.data.inventory import entries, prune
from tunelab.data.prepared import AS_RECORDED, CacheOptions, prepared_from
from tunelab.data.synthetic import SyntheticSettings, write_folder
from tunelab.errors import DataError, StorageError, UsageError
from tunelab.preprocessing import Preprocessing
from tunelab.sections import DataOptions

HALF = "scans-0123456789abcdef"


@pytest.fixture
def filled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three entries, used one after another a day apart; nobody uses them now."""
    monkeypatch.setattr(cache_module, "_in_use", {})
    write_folder(SyntheticSettings(scans=24, traces=12, samples=64, shortest=0.5, seed=3), tmp_path / "scans")
    chains = (AS_RECORDED, Preprocessing(samples=32), Preprocessing(samples=16))
    for chain in chains:
        place = CacheOptions(cache=tmp_path / "cache", workers=1)
        prepared_from(tmp_path / "scans", options=DataOptions(), chains=(chain,), seed=0, cache=place).open(chain)
    for descriptor in cache_module._in_use.values():
        os.close(descriptor)
    cache_module._in_use.clear()
    for entry in entries(tmp_path / "cache"):
        assert entry.manifest is not None
        days = {64: 3, 32: 2, 16: 1}[entry.manifest.samples]
        used = time.time() - days * 86_400
        os.utime(entry.path, (used, used))
    return tmp_path / "cache"


def samples(cache: Path) -> list[int]:
    """Samples a trace of the entries, the longest unused first."""
    return [entry.manifest.samples if entry.manifest else 0 for entry in entries(cache)]


def test_entries_say_what_they_are(filled):
    first, _, last = entries(filled)
    assert samples(filled) == [64, 32, 16]
    assert first.name.startswith("scans-")
    assert first.state == "ready"
    assert first.bytes == sum(path.stat().st_size for path in first.path.iterdir())
    assert last.manifest is not None
    assert last.manifest.preprocessing == {"samples": 16}
    assert entries(filled / "none") == []


def test_prune_by_name_age_size_and_all(filled, tmp_path):
    def again() -> Path:
        copy = tmp_path / "copy"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(filled, copy)
        return copy

    cache = again()
    middle = entries(cache)[1]
    assert [entry.name for entry in prune(cache, names=[middle.name])] == [middle.name]
    assert samples(cache) == [64, 16]
    cache = again()
    assert len(prune(cache, older_than=2.5 * 86_400)) == 1
    assert samples(cache) == [32, 16]
    cache = again()
    sizes = [entry.bytes for entry in entries(cache)]
    prune(cache, keep=sizes[1] + sizes[2])
    assert samples(cache) == [32, 16]
    prune(cache, keep=sizes[2] + sizes[1] - 1)
    assert samples(cache) == [16]
    assert prune(cache, keep=10**12) == []
    cache = again()
    prune(cache, everything=True)
    assert samples(cache) == []
    assert not [path for path in cache.iterdir() if path.name.startswith(".removed")]


def test_what_a_killed_removal_left_goes_with_the_next(filled):
    left = filled / f".removed-{entries(filled)[0].name}-4"
    own = [filled / ".removed-mine-4", filled / ".downloads" / "thesis"]  # of somebody whose folder this is
    for folder in own:
        folder.mkdir()
    left.mkdir()
    (left / "00000.samples").write_bytes(bytes(100))
    prune(filled, older_than=10**9)
    assert not left.exists()
    prune(filled, older_than=10**9, keep=10**12)
    assert all(folder.is_dir() for folder in own)
    assert len(entries(filled)) == 3


def test_folders_that_no_preparation_made_are_not_listed_and_never_removed(filled):
    """As when --cache names a home folder by mistake."""
    (filled / "thesis").mkdir()
    (filled / "thesis" / "chapter.txt").write_text("years of work")
    assert len(entries(filled)) == 3
    with pytest.raises(UsageError, match="'thesis' means no entry"):
        prune(filled, names=["thesis"])
    assert len(prune(filled, everything=True, keep=0)) == 3
    assert (filled / "thesis" / "chapter.txt").read_text() == "years of work"


def test_an_entry_named_twice_goes_once(filled):
    name = entries(filled)[0].name
    assert [entry.name for entry in prune(filled, names=[name, name[:-1]])] == [name]


def test_a_name_that_means_none_or_several(filled):
    with pytest.raises(UsageError, match="'scans' means 3 entries of the cache; tunelab data list shows their names"):
        prune(filled, names=["scans"])
    with pytest.raises(UsageError, match="'other' means no entry"):
        prune(filled, names=["other"])
    assert len(entries(filled)) == 3


def test_a_name_removes_what_is_finished_and_what_is_not(filled):
    first, *_ = entries(filled)
    for hidden in (".building", ".downloads"):
        (filled / hidden / first.name).mkdir()
        (filled / hidden / first.name / "00000.samples").write_bytes(bytes(10))
    assert sorted(entry.state for entry in prune(filled, names=[first.name])) == ["ready", "unfinished", "unfinished"]
    assert samples(filled) == [32, 16]


def test_what_is_in_use_stays(filled):
    used = entries(filled)[0]
    descriptor = os.open(used.path / "manifest.sha256", os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_SH)
    try:
        assert [entry.state for entry in entries(filled)] == ["in use", "ready", "ready"]
        with pytest.raises(DataError, match="is in use; end the process that uses it first"):
            prune(filled, names=[used.name])
        assert len(prune(filled, everything=True)) == 2
        assert samples(filled) == [64]
    finally:
        os.close(descriptor)
    assert len(prune(filled, everything=True)) == 1


def test_an_opened_data_set_is_in_use_and_its_entry_marked(filled, tmp_path):
    place = CacheOptions(cache=filled, workers=1)
    access = prepared_from(tmp_path / "scans", options=DataOptions(), chains=(AS_RECORDED,), seed=5, cache=place)
    before = entries(filled)[0].used
    access.open(AS_RECORDED)
    (entry,) = [entry for entry in entries(filled) if entry.state == "in use"]
    assert entry.used > before + 2 * 86_400


def test_damaged_and_unfinished_entries_are_told_and_can_go(filled):
    first = entries(filled)[0]
    (first.path / "labels").unlink()
    half = filled / ".building" / HALF
    half.mkdir()
    (half / "00000.samples").write_bytes(bytes(1000))
    assert {entry.name: entry.state for entry in entries(filled) if entry.state != "ready"} == {
        first.name: "damaged",
        HALF: "unfinished",
    }
    with alone(filled, HALF, lambda: None):
        assert [entry.state for entry in entries(filled) if entry.name == HALF] == ["in work"]
        prune(filled, everything=True)
        assert half.is_dir()
    prune(filled, everything=True)
    assert entries(filled) == []


def test_only_one_holds_a_lock_and_others_are_told_to_wait(tmp_path):
    make_cache(tmp_path)
    waited = []
    with alone(tmp_path, "one", lambda: waited.append("first")), alone(tmp_path, "two", lambda: waited.append("other")):
        pass
    assert waited == []

    class WaitingError(Exception):
        pass

    def tell() -> None:
        raise WaitingError

    with alone(tmp_path, "one", tell), pytest.raises(WaitingError), alone(tmp_path, "one", tell):
        pass
    with alone(tmp_path, "one", tell):  # freed by the one that gave up, too
        pass


def test_room_is_counted_before_anything_is_written(tmp_path):
    make_cache(tmp_path)
    line = check_room(tmp_path, [("as recorded", 3_000_000), ("gain 1.5", 1_000_000)], 0, None)
    assert line.startswith("3 MB (as recorded) + 1 MB (gain 1.5) = 4 MB to write, ")
    free = shutil.disk_usage(tmp_path).free
    with pytest.raises(StorageError, match=r"more than is free; .*float16 halves it.*or choose another --cache"):
        check_room(tmp_path, [("all", 2 * free)], 0, None)
    check_room(tmp_path, [("all", 2 * free)], 2 * free, None)  # it lies there already
    with pytest.raises(StorageError, match=r"0 bytes \+ 4 MB is more than the limit of 3.5 MB; .*raise --cache-limit"):
        check_room(tmp_path, [("all", 4_000_000)], 0, 3_500_000)


def test_names_tell_everything_that_matters_apart():
    stamp = stamp_of([("a", 1, 2, 3)])
    names = {
        entry_name("/home/me/my scans", stamp, DataOptions(), AS_RECORDED),
        entry_name("/home/me/my scans", stamp_of([("a", 1, 2, 4)]), DataOptions(), AS_RECORDED),
        entry_name("/home/me/my scans", stamp, DataOptions(dtype="float16"), AS_RECORDED),
        entry_name("/home/me/my scans", stamp, DataOptions(components=("rx1/Ez", "rx2/Ez")), AS_RECORDED),
        entry_name("/home/me/my scans", stamp, DataOptions(resample=64), AS_RECORDED),
        entry_name("/home/me/my scans", stamp, DataOptions(), Preprocessing(gain=1.0)),
    }
    assert len(names) == 6
    assert all(name.startswith("my-scans-") for name in names)
    # where it lies does not matter, only what it is
    assert entry_name("s3://b/my scans/", stamp, DataOptions(), AS_RECORDED) in names


def test_the_default_place(monkeypatch, tmp_path):
    monkeypatch.setenv("TUNELAB_CACHE", str(tmp_path / "mine"))
    assert default_cache() == tmp_path / "mine"
    monkeypatch.chdir(tmp_path)  # workers and trials may have another working folder
    monkeypatch.setenv("TUNELAB_CACHE", "mine")
    assert default_cache() == tmp_path / "mine"
    monkeypatch.delenv("TUNELAB_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_cache() == tmp_path / "tunelab"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert default_cache() == tmp_path / "home" / ".cache" / "tunelab"


def test_a_place_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=r"cannot be written: .*choose another --cache"):
        make_cache(tmp_path / "file" / "cache")
