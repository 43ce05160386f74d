"""The mirror and what brings a run back: real folders, and moto's real HTTP server behind the fault proxy."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.retries.standard import ExponentialBackoff

from tunelab.archive import LAST, batches, fetch, read_manifest, runs_at
from tunelab.errors import RunBusyError, StateError, StorageError
from tunelab.mirror import Mirror
from tunelab.storage import FolderStore, S3Store, Source

LINE = '{"seq": 0}\n'
KEPT = ["journal.jsonl", "run.yaml", "tensorboard/events", "weights/0001-e0001.npz"]


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ExponentialBackoff, "delay_amount", lambda self, context: 0.01)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    for name in ["tensorboard", "weights", ".hidden"]:
        (folder / name).mkdir(parents=True)
    (folder / "journal.jsonl").write_text(LINE)
    (folder / "run.yaml").write_text("name: a\n")
    (folder / "tensorboard" / "events").write_bytes(b"\x00" * 100)
    (folder / "weights" / "0001-e0001.npz").write_bytes(b"\x01" * 5000)
    for name in ["run.lock", "lease.json", "manifest.json", ".report.html.1.tmp", ".hidden/a"]:
        (folder / name).write_text("of this machine alone")
    (folder / "link").symlink_to("/etc/hostname")
    age(folder)
    return folder


def age(folder: Path) -> None:
    """Let the files be old enough that their times tell whether they were touched."""
    for path in folder.rglob("*"):
        if not path.is_symlink():
            os.utime(path, (1_000_000_000, 1_000_000_000))


@pytest.fixture
def bucket(s3_port: int) -> str:
    name = f"mirror-{uuid.uuid4().hex[:12]}"
    client = boto3.session.Session().client(
        "s3",
        endpoint_url=f"http://127.0.0.1:{s3_port}",
        region_name="us-east-1",
        aws_access_key_id="a",
        aws_secret_access_key="b",
    )
    client.create_bucket(Bucket=name)
    return name


@pytest.fixture
def s3(bucket: str, fault_proxy: Any) -> S3Store:
    return S3Store(bucket, "run", timeout=20, attempts=3)


@pytest.fixture(params=["folder", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Source:
    return FolderStore(tmp_path / "kept") if request.param == "folder" else request.getfixturevalue("s3")


def ended(cause: type[Exception], act: Callable[[], object]) -> str:
    with pytest.raises(cause) as caught:
        act()
    return str(caught.value)


def puts(proxy: Any) -> list[str]:
    """What was put, in order, below the run's prefix."""
    return [asked.path.split("/run/", 1)[1] for asked in proxy.asked if asked.method == "PUT"]


def of_put(part: str) -> Callable[[Any], bool]:
    return lambda asked: asked.method == "PUT" and part in asked.path


def eventually(holds: Callable[[], bool], seconds: float = 20) -> None:
    until = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < until, "did not happen in time"
        time.sleep(0.02)


def facts(data: bytes) -> dict[str, object]:
    return {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}


class Hooked(FolderStore):
    """Calls a function before each put."""

    before: Callable[[str], object] = staticmethod(lambda key: None)

    def put(self, key: str, data: bytes) -> None:
        self.before(key)
        super().put(key, data)


class TestLook:
    def test_it_copies_what_belongs_to_the_run_and_says_so_last(self, run: Path, store: Source) -> None:
        assert Mirror(run, store, fence=3).sync() == 4
        assert store.list() == sorted([*KEPT, "manifest.json"])
        told = {key: facts((run / key).read_bytes()) for key in KEPT}
        assert json.loads(store.get("manifest.json")) == {"format": 1, "fence": 3, "files": told}
        for key in KEPT:
            assert store.get(key) == (run / key).read_bytes()

    def test_a_folder_that_is_not_there_yet_is_empty(self, tmp_path: Path, store: Source) -> None:
        mirror = Mirror(tmp_path / "later", store)
        assert mirror.sync() == 0
        assert store.list() == []
        assert mirror.seconds > 0

    def test_what_is_named_goes_before_what_names_it(self, run: Path, s3: S3Store, fault_proxy: Any) -> None:
        (run / "checkpoints").mkdir()
        (run / "checkpoints" / "s1.ckpt").write_bytes(b"x")
        Mirror(run, s3).sync()
        sent = puts(fault_proxy)
        assert set(sent[:2]) == {"checkpoints/s1.ckpt", "weights/0001-e0001.npz"}
        assert sent[2:] == ["tensorboard/events", "run.yaml", "journal.jsonl", "manifest.json"]

    def test_only_what_changed_is_sent_again(self, run: Path, s3: S3Store, fault_proxy: Any) -> None:
        mirror = Mirror(run, s3)
        mirror.sync()
        (run / "run.yaml").write_text("name: b\n")  # same size
        (run / "tensorboard" / "events").touch()  # new time, same content
        fault_proxy.clear()
        assert mirror.sync() == 1
        assert puts(fault_proxy) == ["run.yaml", "manifest.json"]
        fault_proxy.clear()
        assert mirror.sync() == 0
        assert fault_proxy.asked == []  # a look that finds nothing asks nothing

    def test_what_was_not_touched_is_not_read(self, run: Path, s3: S3Store, fault_proxy: Any) -> None:
        mirror = Mirror(run, s3)
        mirror.sync()
        fault_proxy.clear()
        path = run / "tensorboard" / "events"
        told = path.stat()
        path.write_bytes(b"\x02" * 100)
        os.utime(path, ns=(told.st_atime_ns, told.st_mtime_ns))  # the one change that cannot be seen
        assert mirror.sync() == 0
        os.utime(path, (1_000_000_001, 1_000_000_001))
        assert mirror.sync() == 1
        assert puts(fault_proxy) == ["tensorboard/events", "manifest.json"]

    def test_the_time_of_a_young_file_is_not_believed(self, run: Path, store: Source) -> None:
        mirror = Mirror(run, store)
        path = run / "tensorboard" / "events"
        path.write_bytes(b"\x02" * 100)
        now = time.time_ns()
        os.utime(path, ns=(now, now))
        mirror.sync()
        path.write_bytes(b"\x03" * 100)  # within one tick of the file system's clock
        os.utime(path, ns=(now, now))
        assert mirror.sync() == 1
        assert store.get("tensorboard/events") == b"\x03" * 100

    def test_a_resumed_run_does_not_send_its_files_again(self, run: Path, s3: S3Store, fault_proxy: Any) -> None:
        Mirror(run, s3, fence=1).sync()
        fault_proxy.clear()
        resumed = Mirror(run, s3, fence=1)
        assert resumed.sync() == 0
        assert [asked.method for asked in fault_proxy.asked] == ["GET"]  # the manifest
        with (run / "journal.jsonl").open("a") as journal:
            journal.write(LINE)
        fault_proxy.clear()
        assert Mirror(run, s3, fence=2).sync() == 1
        assert puts(fault_proxy) == ["journal.jsonl", "manifest.json"]
        assert json.loads(s3.get("manifest.json"))["fence"] == 2

    def test_what_is_gone_locally_is_removed_after_the_manifest(self, run: Path, s3: S3Store, fault_proxy: Any) -> None:
        mirror = Mirror(run, s3)
        mirror.sync()
        s3.put("weights/of-another-node.npz", b"x")  # no manifest names it
        (run / "weights" / "0001-e0001.npz").unlink()
        (run / "weights" / "0001-e0002.npz").write_bytes(b"\x02")
        fault_proxy.clear()
        mirror.sync()
        done = [(asked.method, asked.path.split("/run/")[1]) for asked in fault_proxy.asked]
        assert done == [
            ("PUT", "weights/0001-e0002.npz"),
            ("PUT", "manifest.json"),
            ("DELETE", "weights/0001-e0001.npz"),
        ]
        assert "weights/of-another-node.npz" in s3.list()

    def test_a_removal_that_failed_is_tried_again(self, run: Path, s3: S3Store, fault_proxy: Any) -> None:
        mirror = Mirror(run, s3)
        mirror.sync()
        (run / "weights" / "0001-e0001.npz").unlink()
        fault_proxy.answer(403, "AccessDenied", when=lambda asked: asked.method == "DELETE")
        assert "s3:DeleteObject" in ended(StorageError, mirror.sync)
        fault_proxy.clear()
        assert mirror.sync() == 0
        assert [asked.method for asked in fault_proxy.asked] == ["DELETE"]

    def test_a_journal_names_only_what_is_there(self, run: Path, tmp_path: Path) -> None:
        store = Hooked(tmp_path / "kept")

        def before(key: str) -> None:
            if key == "weights/0001-e0001.npz":  # while this is sent, a trial goes on
                (run / "weights" / "0001-e0002.npz").write_bytes(b"\x02")
                with (run / "journal.jsonl").open("a") as journal:
                    journal.write('{"weights": "0001-e0002.npz"}\n')

        store.before = before  # type: ignore[method-assign]
        Mirror(run, store).sync()
        assert store.get("journal.jsonl") == LINE.encode()

    def test_a_line_that_is_being_written_is_not_sent(self, run: Path, store: Source) -> None:
        with (run / "journal.jsonl").open("a") as journal:
            journal.write('{"seq": 1')
        Mirror(run, store).sync()
        assert store.get("journal.jsonl") == LINE.encode()

    def test_files_that_vanish_are_left_out(self, run: Path, tmp_path: Path) -> None:
        store = Hooked(tmp_path / "kept")
        store.before = lambda key: (run / "tensorboard" / "events").unlink(missing_ok=True)  # type: ignore[method-assign]
        assert Mirror(run, store).sync() == 3
        assert "tensorboard/events" not in json.loads(store.get("manifest.json"))["files"]

    def test_a_folder_that_is_being_removed_removes_nothing_there(self, run: Path, store: Source) -> None:
        mirror = Mirror(run, store)
        mirror.sync()
        (run / "journal.jsonl").unlink()
        (run / "weights" / "0001-e0001.npz").unlink()
        assert mirror.sync() == 0
        assert store.list() == sorted([*KEPT, "manifest.json"])

    def test_a_file_that_cannot_be_read_keeps_no_other_from_it(self, run: Path, store: Source) -> None:
        mirror = Mirror(run, store)
        mirror.sync()
        path = run / "tensorboard" / "events"
        path.unlink()
        path.symlink_to(path)  # not listed: gone
        (run / "large").touch()
        os.truncate(run / "large", (512 << 20) + 1)
        (run / "report.json").write_text("{}")
        said = f"{run}/large: has more than 537 MB, the most that is copied of one file; copy it yourself"
        assert ended(StorageError, mirror.sync) == said == mirror.warning
        assert "report.json" in json.loads(store.get("manifest.json"))["files"]
        assert "large" not in store.list()

    def test_large_files_are_not_in_memory_together(self) -> None:
        sizes = [200 << 20, 100 << 20, 100 << 20, 300 << 20, 1]
        assert list(batches(sizes, lambda size: size)) == [[200 << 20], [100 << 20, 100 << 20], [300 << 20], [1]]
        assert list(batches([], lambda size: 1)) == []


class TestAnotherRun:
    def test_what_the_folder_does_not_have_is_not_forgotten(self, run: Path, store: Source) -> None:
        with (run / "journal.jsonl").open("a") as journal:
            journal.write(LINE)
        Mirror(run, store).sync()
        (run / "journal.jsonl").write_text(LINE)  # an older state, as of another machine
        before = store.get("manifest.json")
        mirror = Mirror(run, store)
        message = ended(StateError, mirror.sync)
        assert message == (
            f"{store.url}: holds another run, or more of this one than {run}; nothing was sent; "
            "give another --name, or resume it from there"
        )
        assert ended(StateError, mirror.sync) == message == str(mirror.lost)
        assert store.get("manifest.json") == before
        assert store.get("journal.jsonl") == LINE.encode() * 2

    def test_what_a_folder_never_had_stays_there(self, run: Path, store: Source, tmp_path: Path) -> None:
        Mirror(run, store).sync()
        part = tmp_path / "part"
        fetch(store, part, wanted=lambda key: not key.startswith("weights/"))
        (part / "report.json").write_text("{}")
        mirror = Mirror(part, store)
        assert mirror.sync() == 1
        (part / "report.json").unlink()
        assert mirror.sync() == 0
        assert store.list() == sorted([*KEPT, "manifest.json"])
        assert sorted(json.loads(store.get("manifest.json"))["files"]) == KEPT
        assert fetch(store, part).files == 1

    def test_what_may_go_goes_though_the_folder_never_had_it(self, run: Path, store: Source) -> None:
        Mirror(run, store).sync()
        for key in ("checkpoints/0009/s000001.ckpt", "weights/0009-e0001.npz", "weights/0010-e0001.npz"):
            store.put(key, b"left by a process that was killed before its manifest")
        over = {"0009"}
        mirror = Mirror(run, store, spare=lambda key: any(trial in key for trial in over))
        mirror.sync()
        left = [key for key in store.list() if "0009" in key or "0010" in key]
        assert left == ["weights/0010-e0001.npz"]
        over.add("0010")
        mirror.sync()
        assert "weights/0010-e0001.npz" not in store.list()
        assert fetch(store, run.with_name("again")).missing == ()

    def test_an_empty_folder_empties_nothing(self, run: Path, store: Source, tmp_path: Path) -> None:
        Mirror(run, store).sync()
        ended(StateError, Mirror(tmp_path / "empty", store).sync)
        assert store.list() == sorted([*KEPT, "manifest.json"])


class TestGuard:
    def test_who_lost_the_lease_sends_nothing_more(self, run: Path, s3: S3Store, fault_proxy: Any) -> None:
        held = [True]

        def guard() -> None:
            if not held[0]:
                raise RunBusyError("taken over")

        mirror = Mirror(run, s3, 0.05, guard=guard)
        mirror.sync()
        (run / "report.json").write_text("{}")
        fault_proxy.clear()
        held[0] = False
        assert ended(RunBusyError, mirror.sync) == "taken over"
        held[0] = True  # too late
        mirror.start()
        eventually(lambda: not [one for one in threading.enumerate() if one.name == "mirror"])
        assert ended(RunBusyError, mirror.close) == "taken over" == mirror.warning
        assert fault_proxy.asked == []
        assert isinstance(mirror.lost, RunBusyError)

    def test_a_lease_that_is_lost_meanwhile_puts_no_manifest(self, run: Path, tmp_path: Path) -> None:
        store = Hooked(tmp_path / "kept")
        sent: list[str] = []
        store.before = sent.append  # type: ignore[method-assign]

        def guard() -> None:
            if "journal.jsonl" in sent:
                raise RunBusyError("taken over")

        ended(RunBusyError, Mirror(run, store, guard=guard).sync)
        assert sent[-1] == "journal.jsonl"
        assert "manifest.json" not in store.list()

    def test_a_guard_that_cannot_tell_is_asked_again(self, run: Path, store: Source) -> None:
        answers: list[Exception] = [StorageError("no answer")]

        def guard() -> None:
            if answers:
                raise answers.pop()

        mirror = Mirror(run, store, guard=guard)
        assert ended(StorageError, mirror.sync) == "no answer"
        assert store.list() == []
        assert mirror.sync() == 4


class TestFaults:
    def test_a_server_that_is_busy_for_a_while(self, run: Path, s3: S3Store, fault_proxy: Any) -> None:
        fault_proxy.answer(503, "SlowDown", times=4)
        mirror = Mirror(run, s3)
        message = ended(StorageError, mirror.sync)
        assert "the server answered SlowDown (3 attempts)" in message
        assert mirror.warning == message
        assert mirror.sync() == 4
        assert mirror.warning == ""
        assert s3.list() == sorted([*KEPT, "manifest.json"])

    @pytest.mark.parametrize(
        ("code", "said"), [("AccessDenied", "access denied"), ("ExpiredToken", "the credentials have expired")]
    )
    def test_a_refusal_is_final_said_and_kept_local(
        self, run: Path, s3: S3Store, fault_proxy: Any, code: str, said: str
    ) -> None:
        fault_proxy.answer(403, code, times=1000)
        mirror = Mirror(run, s3)
        message = ended(StorageError, mirror.close)
        assert said in message
        assert message.endswith(f"\neverything is kept in {run}; send it later with: tunelab sync {run}")
        assert len(fault_proxy.asked) == 1

    def test_a_server_that_hangs_is_given_up_and_asked_again(self, run: Path, bucket: str, fault_proxy: Any) -> None:
        mirror = Mirror(run, S3Store(bucket, "run", timeout=0.5, attempts=2))
        fault_proxy.hang(when=of_put("weights/"), times=2)
        assert "ReadTimeoutError" in ended(StorageError, mirror.sync)
        fault_proxy.release()
        assert mirror.sync() == 4

    def test_a_broken_upload_leaves_no_part_and_no_manifest(self, run: Path, s3: S3Store, fault_proxy: Any) -> None:
        mirror = Mirror(run, s3)
        mirror.sync()
        before = s3.get("manifest.json")
        (run / "weights" / "0001-e0002.npz").write_bytes(b"\x02" * 500_000)
        with (run / "journal.jsonl").open("a") as journal:
            journal.write('{"weights": "0001-e0002.npz"}\n')
        fault_proxy.reset(after=100_000, when=of_put("weights/0001-e0002"), times=3)
        fault_proxy.asked.clear()
        assert "(3 attempts, " in ended(StorageError, mirror.sync)
        assert set(puts(fault_proxy)) == {"weights/0001-e0002.npz"}
        assert s3.list() == sorted([*KEPT, "manifest.json"])
        assert s3.get("manifest.json") == before
        assert s3.get("journal.jsonl") == LINE.encode()
        assert mirror.sync() == 2

    def test_what_arrived_is_not_sent_twice(self, run: Path, s3: S3Store, fault_proxy: Any) -> None:
        for number in range(20):
            (run / "weights" / f"{number:04}-e0009.npz").write_bytes(b"x" * number)
        fault_proxy.answer(403, "AccessDenied", when=of_put("weights/0010-e0009"))
        mirror = Mirror(run, s3)
        ended(StorageError, mirror.sync)
        arrived = set(s3.list())
        assert "journal.jsonl" not in arrived
        fault_proxy.clear()
        mirror.sync()
        assert not arrived & set(puts(fault_proxy))
        assert len(s3.list()) == 20 + len(KEPT) + 1

    def test_after_a_refusal_no_more_are_begun(self, run: Path, s3: S3Store, fault_proxy: Any) -> None:
        for number in range(400):
            (run / "weights" / f"{number:04}-e0009.npz").write_bytes(b"x")
        fault_proxy.answer(403, "AccessDenied", when=of_put("weights/"), times=1000)
        ended(StorageError, Mirror(run, s3).sync)
        assert len(puts(fault_proxy)) < 200  # those that eight threads had begun

    def test_a_slow_network_is_warned_of(self, run: Path, s3: S3Store, fault_proxy: Any) -> None:
        (run / "weights" / "0001-e0001.npz").write_bytes(b"x" * 60_000)
        fault_proxy.slow(100_000)
        mirror = Mirror(run, s3, 0.2)
        mirror.sync()
        told = mirror.warning
        late = "slower than --sync-every 0.2 s; results arrive late, training goes on"
        assert re.fullmatch(rf"{s3.url}: 60\.1 kB in [0-9.]+ s \([0-9.]+ kB/s\), {late}", told)
        assert s3.get("weights/0001-e0001.npz") == b"x" * 60_000
        assert mirror.sync() == 0
        assert mirror.warning == ""

    def test_a_look_that_does_not_end_is_warned_of(self, run: Path, s3: S3Store, fault_proxy: Any) -> None:
        fault_proxy.hang(when=of_put("journal.jsonl"))
        mirror = Mirror(run, s3, 0.2)
        mirror.start()
        fault_proxy.wait_for_held(1)
        eventually(lambda: "slower than --sync-every" in mirror.warning)
        fault_proxy.release()
        mirror.close()
        assert s3.get("journal.jsonl") == LINE.encode()

    def test_down_at_the_end(self, run: Path, s3: S3Store, fault_proxy: Any) -> None:
        mirror = Mirror(run, s3, 1000)
        mirror.start()
        eventually(lambda: "manifest.json" in s3.list())
        fault_proxy.down = True
        (run / "report.json").write_text("{}")
        message = ended(StorageError, mirror.close)
        assert f"s3://{s3.url.removeprefix('s3://')}/report.json: 127.0.0.1:" in message
        assert message.endswith(f"everything is kept in {run}; send it later with: tunelab sync {run}")
        fault_proxy.down = False
        assert Mirror(run, s3).sync() == 1

    def test_the_background_goes_on_after_failures(self, run: Path, s3: S3Store, fault_proxy: Any) -> None:
        fault_proxy.answer(403, "AccessDenied", when=of_put("/run/"), times=2)
        mirror = Mirror(run, s3, 0.05)
        mirror.start()
        mirror.start()  # a second start changes nothing
        eventually(lambda: "manifest.json" in s3.list())
        eventually(lambda: mirror.warning == "")
        (run / "report.html").write_text("<html>")
        eventually(lambda: "report.html" in s3.list())
        mirror.close()
        assert [thread for thread in threading.enumerate() if thread.name.startswith("mirror")] == []

    def test_close_sends_the_rest(self, run: Path, store: Source) -> None:
        mirror = Mirror(run, store, 1000)
        mirror.start()
        eventually(lambda: "manifest.json" in store.list())
        (run / "report.json").write_text("{}")
        mirror.close()
        assert store.get("report.json") == b"{}"


class TestFetch:
    @pytest.fixture
    def there(self, run: Path, store: Source) -> Source:
        Mirror(run, store, fence=1).sync()
        return store

    def test_a_run_comes_back_as_it_was(self, run: Path, there: Source, tmp_path: Path) -> None:
        folder = tmp_path / "new" / "run"
        fetched = fetch(there, folder)
        size = sum((run / key).stat().st_size for key in KEPT)
        assert (fetched.files, fetched.bytes, fetched.missing) == (4, size, ())
        for key in KEPT:
            assert (folder / key).read_bytes() == (run / key).read_bytes()
        again = fetch(there, folder)
        assert (again.files, again.bytes) == (0, 0)
        assert Mirror(folder, there, fence=1).sync() == 0  # and goes on from there

    def test_only_what_is_wanted_comes(self, there: Source, tmp_path: Path) -> None:
        fetch(there, tmp_path / "new", wanted=lambda key: not key.startswith("weights/"))
        assert not (tmp_path / "new" / "weights").exists()
        assert (tmp_path / "new" / "journal.jsonl").exists()

    def test_what_is_there_is_not_asked_for(self, run: Path, s3: S3Store, fault_proxy: Any, tmp_path: Path) -> None:
        Mirror(run, s3).sync()
        fetch(s3, tmp_path / "new", wanted=lambda key: key.startswith("weights/"))
        fault_proxy.clear()
        fetch(s3, tmp_path / "new")
        assert not [asked for asked in fault_proxy.asked if "weights/0001" in asked.path]

    @pytest.mark.parametrize("damage", [None, b"\x01" * 4999 + b"\x00", b"", b"\x01" * 10])
    def test_a_damaged_file_is_left_out_and_named(self, there: Source, tmp_path: Path, damage: bytes | None) -> None:
        key = "weights/0001-e0001.npz"
        there.delete(key) if damage is None else there.put(key, damage)
        fetched = fetch(there, tmp_path / "new")
        assert fetched.missing == (key,)
        assert not (tmp_path / "new" / key).exists()
        assert (tmp_path / "new" / "journal.jsonl").exists()

    def test_a_file_that_grew_since_comes_as_the_manifest_says(self, there: Source, tmp_path: Path) -> None:
        there.put("tensorboard/events", b"\x00" * 100 + b"more")
        assert fetch(there, tmp_path / "new").missing == ()
        assert (tmp_path / "new" / "tensorboard" / "events").read_bytes() == b"\x00" * 100

    def test_a_journal_that_grew_since_comes_whole_and_with_what_it_names(self, there: Source, tmp_path: Path) -> None:
        there.put("weights/0001-e0002.npz", b"new")  # as a mirror leaves it that is killed before its manifest
        there.put("journal.jsonl", LINE.encode() * 2)
        fetch(there, tmp_path / "new")
        assert (tmp_path / "new" / "journal.jsonl").read_text() == LINE * 2
        assert (tmp_path / "new" / "weights" / "0001-e0002.npz").read_bytes() == b"new"

    @pytest.mark.parametrize("key", LAST)
    @pytest.mark.parametrize("how", ["gone", "flipped", "cut", "unnamed"])
    def test_no_run_without_settings_and_journal(self, there: Source, tmp_path: Path, key: str, how: str) -> None:
        data = there.get(key)
        if how == "gone":
            there.delete(key)
        elif how == "unnamed":
            manifest = json.loads(there.get("manifest.json"))
            del manifest["files"][key]
            there.put("manifest.json", json.dumps(manifest).encode())
        else:
            there.put(key, data[:-1] if how == "cut" else b"X" + data[1:])
        message = ended(StateError, lambda: fetch(there, tmp_path / "new"))
        assert {
            "gone": f"{there.url}/{key}: is not there, although the manifest names it",
            "unnamed": f"{there.url}/manifest.json: names no {key}",
        }.get(how, f"{there.url}/{key}: does not match its digest in the manifest") in message
        assert not (tmp_path / "new").exists()

    def test_a_local_journal_that_is_further_stays(self, run: Path, there: Source) -> None:
        with (run / "journal.jsonl").open("a") as journal:
            journal.write(LINE)
        (run / "tensorboard" / "events").write_bytes(b"newer")
        (run / "weights" / "0001-e0001.npz").unlink()
        fetched = fetch(there, run)
        assert fetched.files == 1
        assert (run / "journal.jsonl").read_text() == LINE * 2
        assert (run / "tensorboard" / "events").read_bytes() == b"newer"
        assert (run / "weights" / "0001-e0001.npz").exists()

    def test_another_run_is_not_overwritten(self, run: Path, there: Source) -> None:
        (run / "journal.jsonl").write_text('{"seq": 9}\n')
        message = ended(StateError, lambda: fetch(there, run))
        assert message == f"{run}/journal.jsonl: is of another run than that at {there.url}; choose another folder"
        assert (run / "journal.jsonl").read_text() == '{"seq": 9}\n'

    def test_an_outage_is_no_missing_file(self, run: Path, s3: S3Store, fault_proxy: Any, tmp_path: Path) -> None:
        Mirror(run, s3).sync()
        fault_proxy.answer(503, "SlowDown", when=lambda asked: "weights/" in asked.path, times=3)
        assert "SlowDown" in ended(StorageError, lambda: fetch(s3, tmp_path / "new"))
        assert not (tmp_path / "new" / "journal.jsonl").exists()
        assert fetch(s3, tmp_path / "new").missing == ()

    def test_a_run_in_a_folder_of_runs(self, run: Path, tmp_path: Path, store: Source, bucket: str) -> None:
        deep = S3Store(bucket, "run/second") if isinstance(store, S3Store) else FolderStore(tmp_path / "kept/second")
        Mirror(run, deep).sync()
        store.put("first/manifest.json", b"{}")
        store.put("none/deep/manifest.json", b"{}")
        store.put("none.txt", b"")
        assert runs_at(store) == ["first", "second"]

    def test_runs_are_found_without_listing_their_files(self, run: Path, s3: S3Store, fault_proxy: Any) -> None:
        for number in range(30):
            s3.put(f"a/weights/{number}", b"")
        s3.put("a/manifest.json", b"{}")
        fault_proxy.clear()
        assert runs_at(s3) == ["a"]
        assert len(fault_proxy.asked) == 2
        assert max(asked.sent for asked in fault_proxy.asked) < 2000

    def test_local_runs_are_found_by_their_journal(self, run: Path) -> None:
        (run.parent / "other").mkdir()
        assert runs_at(FolderStore(run.parent)) == ["run"]
        assert runs_at(FolderStore(run.parent / "none")) == []


class TestManifest:
    def test_there_is_none(self, store: Source, tmp_path: Path) -> None:
        assert read_manifest(store) is None
        message = ended(StateError, lambda: fetch(store, tmp_path / "new"))
        assert message == f"{store.url}: holds no run of tunelab (no manifest.json)"

    @pytest.mark.parametrize(
        "key",
        [
            "../outside",
            "/etc/tunelab-outside",
            "a/../../outside",
            "",
            "a\\b",
            "a\x00b",
            "a\nb",
            ".ssh/authorized_keys",
            "a/.hidden",
            "run.lock",
            "lease.json",
            "manifest.json",
            "x" * 10_000 + "/..",
        ],
    )
    def test_a_hostile_key_is_refused(self, tmp_path: Path, key: str) -> None:
        store = FolderStore(tmp_path / "kept")
        files = {key: facts(b"x"), "journal.jsonl": facts(b"x"), "run.yaml": facts(b"x")}
        store.put("manifest.json", json.dumps({"format": 1, "fence": 0, "files": files}).encode())
        for name in LAST:
            store.put(name, b"x")
        message = ended(StateError, lambda: fetch(store, tmp_path / "new"))
        assert message.startswith(f"{store.url}/manifest.json: is no manifest of this version: ")
        assert len(message) < 600
        assert message.isprintable()
        assert sorted(path.name for path in tmp_path.iterdir()) == ["kept"]

    @pytest.mark.parametrize(
        "raw",
        [
            b"",
            b"{",
            b"[]",
            b"null",
            b"\xff\xfe",
            b'{"format": 2, "fence": 0, "files": {}}',
            b'{"format": 1, "fence": -1, "files": {}}',
            b'{"format": 1, "fence": 0, "files": []}',
            b'{"format": 1, "fence": 0, "files": {"a": {"sha256": "short", "size": 1}}}',
            b'{"format": 1, "fence": 0, "files": {"a": {"sha256": "' + b"0" * 64 + b'", "size": 1e300}}}',
            b'{"format": 1, "fence": 0, "files": {"a": {"sha256": "' + b"0" * 64 + b'", "size": 536870913}}}',
            b'{"format": 1, "fence": 0, "files": {"\\ud800": {"sha256": "' + b"0" * 64 + b'", "size": 1}}}',
            b"[" * 1_000_000,
        ],
    )
    def test_what_is_no_manifest_is_refused(self, run: Path, store: Source, tmp_path: Path, raw: bytes) -> None:
        store.put("manifest.json", raw)
        message = ended(StateError, lambda: fetch(store, tmp_path / "new"))
        assert message.startswith(f"{store.url}/manifest.json: is no manifest of this version: ")
        mirror = Mirror(run, store)
        assert ended(StateError, mirror.sync) == message  # nor is it written over
        assert store.get("manifest.json") == raw

    def test_newer_fields_are_ignored(self, run: Path, store: Source, tmp_path: Path) -> None:
        Mirror(run, store).sync()
        manifest = json.loads(store.get("manifest.json")) | {"written_by": "9.0"}
        store.put("manifest.json", json.dumps(manifest).encode())
        assert fetch(store, tmp_path / "new").files == 4

    def test_a_hostile_store_takes_no_memory(self, tmp_path: Path) -> None:
        kept = tmp_path / "kept"
        kept.mkdir()
        for name in ["manifest.json", "journal.jsonl", "run.yaml", "large"]:
            (kept / name).touch()
            os.truncate(kept / name, 40 << 30)
        script = (
            "import resource, sys; from pathlib import Path\n"
            "from tunelab.archive import fetch; from tunelab.storage import FolderStore\n"
            "resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))\n"
            "fetch(FolderStore(Path(sys.argv[1])), Path(sys.argv[2]))"
        )

        def said() -> str:
            command = [sys.executable, "-c", script, str(kept), str(tmp_path / "new")]
            ran = subprocess.run(command, capture_output=True, text=True, check=False)
            return ran.stderr.splitlines()[-1]

        assert "it has more than 33.6 MB; " in said()
        claimed = {"sha256": "0" * 64, "size": 100}
        files = dict.fromkeys(["large", "run.yaml", "journal.jsonl"], claimed)
        (kept / "manifest.json").write_text(json.dumps({"format": 1, "fence": 0, "files": files}))
        assert "does not match its digest in the manifest" in said()

    def test_a_link_in_the_folder_is_not_followed(self, run: Path, tmp_path: Path) -> None:
        store = FolderStore(tmp_path / "kept")
        Mirror(run, store).sync()
        (tmp_path / "new").mkdir()
        (tmp_path / "outside").mkdir()
        (tmp_path / "new" / "weights").symlink_to(tmp_path / "outside")
        assert "a link leads out" in ended(StorageError, lambda: fetch(store, tmp_path / "new"))
        assert list((tmp_path / "outside").iterdir()) == []


@pytest.fixture(autouse=True)
def _no_thread_stays() -> Iterator[None]:
    yield
    assert [one.name for one in threading.enumerate() if one.name.startswith("mirror")] == []
