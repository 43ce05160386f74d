"""Leases: real locks, processes that are killed; on S3 moto's real HTTP server, behind a proxy with its own clock."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.retries.standard import ExponentialBackoff
from moto.s3.models import s3_backends

from tunelab.errors import RunBusyError, StorageError
from tunelab.lease import FencedStore, FolderLease, Lease
from tunelab.mirror import Mirror
from tunelab.s3lease import S3Lease
from tunelab.storage import S3Options, S3Store
from tunelab.terms import Owner, Terms

HERE = Owner.this()
ELSE = "wait for it, or give another --name"


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ExponentialBackoff, "delay_amount", lambda self, context: 0.01)


@pytest.fixture(autouse=True)
def _no_thread_stays() -> Iterator[None]:
    yield
    assert [one.name for one in threading.enumerate() if one.name == "lease"] == []


def ended(cause: type[Exception], act: Callable[[], object]) -> str:
    with pytest.raises(cause) as caught:
        act()
    return str(caught.value)


def eventually(holds: Callable[[], bool], seconds: float = 30) -> None:
    until = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < until, "did not happen in time"
        time.sleep(0.02)


def is_lost(lease: Lease) -> bool:
    try:
        lease.check()
    except RunBusyError:
        return True
    return False


def holder(code: str) -> subprocess.Popen[str]:
    """A process that takes a lease and keeps it until it is killed."""
    script = f"import sys\n{code}\nprint(lease.fence, flush=True)\nsys.stdin.read()"
    command = [sys.executable, "-c", script]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout
    assert process.stdout.readline() == "1\n"
    return process


def kill(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGKILL)
    process.communicate()


class TestFolder:
    def test_one_process_writes(self, tmp_path: Path) -> None:
        path = tmp_path / "runs" / "a" / "run.lock"
        with FolderLease.take(path) as lease:
            assert (lease.fence, lease.owner, lease.warning) == (1, f"process {os.getpid()} on {HERE.host}", "")
            lease.check()
            told = json.loads((path.parent / "lease.json").read_text())
            assert (told["fence"], told["owner"]["pid"], told["released"]) == (1, os.getpid(), False)
            message = ended(RunBusyError, lambda: FolderLease.take(path))
            assert message == f"{path.parent}: held by {lease.owner} since {told['owner']['started']}; {ELSE}"
        lease.release()  # a second time does nothing
        with FolderLease.take(path) as lease:
            assert lease.fence == 2

    def test_a_killed_owner_is_followed_at_once(self, tmp_path: Path) -> None:
        path = tmp_path / "run.lock"
        code = "from pathlib import Path; from tunelab.lease import FolderLease"
        process = holder(f"{code}; lease = FolderLease.take(Path({str(path)!r}))")
        try:
            expected = f"{tmp_path}: held by process {process.pid} on {HERE.host} since "
            assert ended(RunBusyError, lambda: FolderLease.take(path)).startswith(expected)
        finally:
            kill(process)
        began = time.monotonic()
        with FolderLease.take(path, seconds=600) as lease:
            assert lease.fence == 2
        assert time.monotonic() - began < 60

    def test_an_owner_on_another_host_is_watched_before_it_is_followed(self, tmp_path: Path) -> None:
        self.elsewhere(tmp_path)
        began = time.monotonic()
        with FolderLease.take(tmp_path / "run.lock", seconds=0.3) as lease:
            assert time.monotonic() - began > 0.3
            assert lease.fence == 8

    def test_an_owner_on_another_host_that_goes_on_is_left_alone(self, tmp_path: Path) -> None:
        terms = self.elsewhere(tmp_path)
        over = threading.Event()

        def go_on() -> None:
            renewed = 0
            while not over.wait(0.01):
                renewed += 1
                beside = tmp_path / "beside"
                beside.write_bytes(terms.but(renewed=renewed).written())
                beside.replace(tmp_path / "lease.json")

        thread = threading.Thread(target=go_on)
        thread.start()
        try:
            message = ended(RunBusyError, lambda: FolderLease.take(tmp_path / "run.lock", seconds=60))
        finally:
            over.set()
            thread.join()
        assert message == f"{tmp_path}: held by process 7 on elsewhere since then; {ELSE}"

    def test_an_owner_on_another_host_that_ended_is_followed_at_once(self, tmp_path: Path) -> None:
        terms = self.elsewhere(tmp_path)
        (tmp_path / "lease.json").write_bytes(terms.but(released=True, seconds=3600).written())
        with FolderLease.take(tmp_path / "run.lock", seconds=3600) as lease:
            assert lease.fence == 8

    @pytest.mark.parametrize("at", [0, 1, 50, 150, -1, None])
    def test_damage_does_not_set_the_fence_back(self, tmp_path: Path, at: int | None) -> None:
        path = tmp_path / "run.lock"
        for fence in (1, 2, 3):
            with FolderLease.take(path) as lease:
                assert lease.fence == fence
        for damaged, fence in (("lease.json", 4), ("run.lock", 5)):
            raw = (tmp_path / damaged).read_bytes()
            (tmp_path / damaged).write_bytes(b"\xff\x00" * 500 if at is None else raw[:at])
            with FolderLease.take(path) as lease:
                assert lease.fence == fence
        for damaged in ("lease.json", "run.lock"):
            (tmp_path / damaged).write_bytes(b"")
        with FolderLease.take(path, above=5) as lease:
            assert lease.fence == 6

    def test_it_is_renewed_and_never_torn(self, tmp_path: Path) -> None:
        with FolderLease.take(tmp_path / "run.lock", seconds=0.03) as lease:
            until = time.monotonic() + 30
            while (terms := Terms.read((tmp_path / "lease.json").read_bytes())).renewed < 20:  # type: ignore[union-attr]
                assert terms is not None
                assert time.monotonic() < until
            lease.check()

    def test_who_is_fenced_off_is_told_and_changes_nothing(self, tmp_path: Path) -> None:
        lease = FolderLease.take(tmp_path / "run.lock")
        other = self.elsewhere(tmp_path)
        message = ended(RunBusyError, lease.check)
        said = "taken over by process 7 on elsewhere (fence 7); this process writes nothing more (fence 1)"
        assert message == f"{tmp_path}: {said}"
        (tmp_path / "lease.json").unlink()
        assert ended(RunBusyError, lease.check) == message  # that stays so
        (tmp_path / "lease.json").write_bytes(other.written())
        lease.release()
        assert (tmp_path / "lease.json").read_bytes() == other.written()

    def test_a_renewal_notices_it_too(self, tmp_path: Path) -> None:
        with FolderLease.take(tmp_path / "run.lock", seconds=0.05) as lease:
            other = self.elsewhere(tmp_path)
            eventually(lambda: not lease._thread.is_alive())
            assert is_lost(lease)
        assert (tmp_path / "lease.json").read_bytes() == other.written()

    @pytest.mark.parametrize("damage", [None, b"", b"{"])
    def test_what_was_removed_by_hand_is_written_again(self, tmp_path: Path, damage: bytes | None) -> None:
        with FolderLease.take(tmp_path / "run.lock") as lease:
            path = tmp_path / "lease.json"
            path.unlink() if damage is None else path.write_bytes(damage)
            lease.check()
            assert json.loads(path.read_text())["fence"] == 1

    def test_a_folder_that_cannot_be_made(self, tmp_path: Path) -> None:
        (tmp_path / "a").write_text("a file")
        message = ended(StorageError, lambda: FolderLease.take(tmp_path / "a" / "run.lock"))
        assert message == f"{tmp_path}/a/run.lock: cannot be locked: File exists; choose another --storage"

    def test_a_full_disk(self, tmp_path: Path) -> None:
        script = (
            "import resource, signal, sys; from pathlib import Path; from tunelab.lease import FolderLease\n"
            "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
            "resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))\n"
            "FolderLease.take(Path(sys.argv[1]) / 'run.lock')"
        )
        with FolderLease.take(tmp_path / "run.lock"):
            pass
        ran = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=False)
        said = f"{tmp_path}/lease.json: cannot be written: File too large; free space or choose another folder"
        assert ran.stderr.splitlines()[-1] == f"tunelab.errors.StorageError: {said}"
        with FolderLease.take(tmp_path / "run.lock") as lease:
            assert lease.fence == 2

    @staticmethod
    def elsewhere(folder: Path) -> Terms:
        """A lease of a process of another host, which no lock tells of."""
        owner = Owner(host="elsewhere", pid=7, started="then")
        terms = Terms(owner=owner, fence=7, token="other", seconds=0.1)
        (folder / "lease.json").write_bytes(terms.written())
        return terms


class Bucket:
    """A bucket, also reached without the proxy."""

    def __init__(self, port: int) -> None:
        self.name = f"lease-{uuid.uuid4().hex[:12]}"
        self.endpoint = f"http://127.0.0.1:{port}"
        client = boto3.session.Session().client("s3", endpoint_url=self.endpoint)
        client.create_bucket(Bucket=self.name)

    def store(self) -> S3Store:
        return S3Store(self.name, "run", timeout=20, attempts=3)

    def directly(self) -> S3Store:
        """As another machine reaches it that has no trouble."""
        return S3Store(self.name, "run", s3=S3Options(endpoint=self.endpoint))

    def lapse(self, seconds: float) -> None:
        """Let time pass for the lease, by the server's clock."""
        (backend,) = [b for b in s3_backends.values() if "aws" in b and self.name in b["aws"].buckets]
        backend["aws"].buckets[self.name].keys["run/lease.json"].last_modified -= timedelta(seconds=seconds)

    def terms(self) -> dict[str, Any]:
        told: dict[str, Any] = json.loads(self.directly().get("lease.json"))
        return told


@pytest.fixture
def bucket(s3_port: int, fault_proxy: Any) -> Bucket:
    return Bucket(s3_port)


class TestS3:
    def test_one_process_writes(self, bucket: Bucket) -> None:
        with S3Lease.take(bucket.store()) as lease:
            assert (lease.fence, lease.owner, lease.warning) == (1, f"process {os.getpid()} on {HERE.host}", "")
            lease.check()
            message = ended(RunBusyError, lambda: S3Lease.take(bucket.store()))
            started = bucket.terms()["owner"]["started"]
            held = f"s3://{bucket.name}/run: held by {lease.owner} since {started}"
            begin = f"{held}; unless it goes on, it can be taken over in "
            assert message.startswith(begin)
            assert message.endswith(f" s; {ELSE}")
            assert 55 <= int(message.removeprefix(begin).split(" ")[0]) <= 63
        lease.release()  # a second time does nothing
        with S3Lease.take(bucket.store()) as lease:
            assert lease.fence == 2

    def test_a_killed_owner_of_this_host_is_followed_at_once(self, bucket: Bucket) -> None:
        code = "from tunelab.storage import S3Store; from tunelab.s3lease import S3Lease"
        process = holder(f"{code}; lease = S3Lease.take(S3Store({bucket.name!r}, 'run'), seconds=600)")
        try:
            assert f"held by process {process.pid} on " in ended(RunBusyError, lambda: S3Lease.take(bucket.store()))
        finally:
            kill(process)
        with S3Lease.take(bucket.store()) as lease:
            assert lease.fence == 2

    @pytest.mark.parametrize(
        "owner", [{"host": "elsewhere"}, {"numbers": "another boot"}, {"numbers": ""}, {"pid": 1}, {"pid": os.getpid()}]
    )
    def test_whose_end_cannot_be_seen_is_left_alone(self, bucket: Bucket, owner: dict[str, Any]) -> None:
        gone = subprocess.Popen([sys.executable, "-c", ""])
        gone.wait()
        terms = Terms.first(60).but(owner=HERE.model_copy(update={"pid": gone.pid} | owner), fence=3)
        bucket.directly().put("lease.json", terms.written())
        assert "held by process" in ended(RunBusyError, lambda: S3Lease.take(bucket.store()))

    @pytest.mark.parametrize("clock", [0.0, 3600.0, -3600.0])
    def test_only_the_clock_of_the_server_counts(self, bucket: Bucket, fault_proxy: Any, clock: float) -> None:
        fault_proxy.clock = clock
        with S3Lease.take(bucket.store()):
            assert " in 6" in ended(RunBusyError, lambda: S3Lease.take(bucket.store()))
            bucket.lapse(55)
            ended(RunBusyError, lambda: S3Lease.take(bucket.store()))
            bucket.lapse(10)
            with S3Lease.take(bucket.store()) as second:
                assert second.fence == 2

    def test_who_is_fenced_off_puts_no_manifest(self, bucket: Bucket, tmp_path: Path) -> None:
        (tmp_path / "journal.jsonl").write_text("{}\n")
        with S3Lease.take(bucket.store(), seconds=3) as first:
            mirror = Mirror(tmp_path, bucket.store(), fence=first.fence, guard=first.check)
            assert mirror.sync() == 1
            bucket.lapse(10)
            with S3Lease.take(bucket.directly()) as second:
                assert second.fence == 2
                assert Mirror(tmp_path, bucket.directly(), fence=2, guard=second.check).sync() == 0
                kept = bucket.directly().get("manifest.json")
                assert json.loads(kept)["fence"] == 2
                (tmp_path / "journal.jsonl").write_text("{}\n{}\n")
                eventually(lambda: not first._thread.is_alive())
                message = ended(RunBusyError, mirror.sync)
                said = f"taken over by {second.owner} (fence 2); this process writes nothing more (fence 1)"
                assert message == f"s3://{bucket.name}/run: {said}"
                assert bucket.directly().get("manifest.json") == kept
                assert bucket.directly().get("journal.jsonl") == b"{}\n"
                first.release()
                second.check()
                assert bucket.terms()["fence"] == 2
                assert not bucket.terms()["released"]

    def test_it_is_renewed(self, bucket: Bucket) -> None:
        with S3Lease.take(bucket.store(), seconds=3) as lease:
            eventually(lambda: bucket.terms()["renewed"] >= 2)
            lease.check()
        assert bucket.terms()["released"]

    def test_of_two_at_the_same_time_one_wins(self, bucket: Bucket, fault_proxy: Any) -> None:
        quicker: list[S3Lease] = []
        fault_proxy.run(lambda: quicker.append(S3Lease.take(bucket.directly())), when=is_put)
        message = ended(RunBusyError, lambda: S3Lease.take(bucket.store()))
        assert f"held by {quicker[0].owner}" in message
        quicker[0].check()
        quicker[0].release()
        fault_proxy.run(lambda: quicker.append(S3Lease.take(bucket.directly())), when=is_put)
        ended(RunBusyError, lambda: S3Lease.take(bucket.store()))  # the same where one is taken over
        assert quicker[1].fence == 2
        quicker[1].release()

    def test_a_lost_answer_is_no_lost_lease(self, bucket: Bucket, fault_proxy: Any) -> None:
        fault_proxy.lose(when=is_put)
        with S3Lease.take(bucket.store(), seconds=3) as lease:
            assert lease.fence == 1
            fault_proxy.lose(when=is_put)
            eventually(lambda: bucket.terms()["renewed"] >= 2)
            assert [asked.fault for asked in fault_proxy.asked].count("lose") == 2
            lease.check()

    def test_an_outage_leaves_it_open_and_then_it_goes_on(self, bucket: Bucket, fault_proxy: Any) -> None:
        with S3Lease.take(bucket.store(), seconds=6) as lease:
            fault_proxy.down = True
            lease.check()  # renewed a moment ago

            def cannot_tell() -> bool:
                with suppress(StorageError):
                    lease.check()
                    return False
                return True

            eventually(cannot_tell)
            fault_proxy.down = False
            lease.check()
            eventually(lambda: bucket.terms()["renewed"] >= 1)

    def test_an_outage_in_which_another_took_it(self, bucket: Bucket, fault_proxy: Any) -> None:
        with S3Lease.take(bucket.store(), seconds=3) as lease:
            fault_proxy.down = True
            bucket.lapse(10)
            with S3Lease.take(bucket.directly()) as second:
                fault_proxy.down = False
                eventually(lambda: is_lost(lease))
                second.check()

    def test_a_lease_removed_by_hand_is_lost(self, bucket: Bucket) -> None:
        with S3Lease.take(bucket.store(), seconds=3) as lease:
            bucket.directly().delete("lease.json")
            eventually(lambda: is_lost(lease))
            said = "its lease was removed; this process writes nothing more (fence 1)"
            assert said in ended(RunBusyError, lease.check)
        assert bucket.directly().list() == []
        with S3Lease.take(bucket.store(), above=1) as lease:
            assert lease.fence == 2

    @pytest.mark.parametrize("raw", [b"", b"{}", b"\xff" * 100, b"[" * 100_000])
    def test_what_means_nothing_ends_by_its_age(self, bucket: Bucket, raw: bytes) -> None:
        bucket.directly().put("lease.json", raw)
        assert "held by another process; " in ended(RunBusyError, lambda: S3Lease.take(bucket.store()))
        bucket.lapse(70)
        with S3Lease.take(bucket.store(), above=4) as lease:
            assert lease.fence == 5

    def test_a_server_that_ignores_conditions_is_warned_of(self, bucket: Bucket, fault_proxy: Any) -> None:
        fault_proxy.unconditional = True
        self.is_warned_of(bucket)

    def test_a_server_that_knows_no_conditions_is_warned_of(self, bucket: Bucket, fault_proxy: Any) -> None:
        conditional = {"if-match", "if-none-match"}
        fault_proxy.answer(501, "NotImplemented", when=lambda asked: conditional & asked.headers.keys(), times=1000)
        self.is_warned_of(bucket)

    def test_a_server_that_knows_one_condition_only_is_warned_of(self, bucket: Bucket, fault_proxy: Any) -> None:
        fault_proxy.answer(501, "NotImplemented", when=lambda asked: "if-match" in asked.headers, times=1000)
        self.is_warned_of(bucket)

    def is_warned_of(self, bucket: Bucket) -> None:
        with S3Lease.take(bucket.store(), seconds=3) as lease:
            assert lease.warning == (
                f"s3://{bucket.name}/run: the server knows no conditional writes, so two searches of one name at the "
                "same time may not notice each other; start no second one"
            )
            assert "held by " in ended(RunBusyError, lambda: S3Lease.take(bucket.store()))
            eventually(lambda: bucket.terms()["renewed"] >= 1)
            lease.check()
            terms = Terms.first(60).but(fence=2)
            bucket.directly().put("lease.json", terms.written())
            eventually(lambda: is_lost(lease))  # what can be noticed is
        assert bucket.terms()["token"] == terms.token

    def test_what_fails_while_it_is_taken_is_given_back(self, bucket: Bucket, fault_proxy: Any) -> None:
        fault_proxy.run(lambda: None, when=is_put)
        fault_proxy.answer(403, "AccessDenied", when=is_put)
        assert "access denied" in ended(StorageError, lambda: S3Lease.take(bucket.store()))
        with S3Lease.take(bucket.store()) as lease:
            assert lease.fence == 2

    def test_no_credentials_are_written(self, bucket: Bucket) -> None:
        with S3Lease.take(bucket.store()):
            assert "canary" not in json.dumps(bucket.terms())


def is_put(asked: Any) -> bool:
    return asked.method == "PUT"


class TestFencedStore:
    def test_nothing_is_written_once_a_later_owner_has_the_folder(self, tmp_path: Path) -> None:
        with FolderLease.take(tmp_path / "run.lock") as first:
            store = FencedStore(tmp_path, first.fence)
            store.put("weights/0001.npz", b"first")
        with FolderLease.take(tmp_path / "run.lock") as second:
            later = FencedStore(tmp_path, second.fence)
            later.put("weights/0002.npz", b"second")
            said = f"taken over by process {os.getpid()} on {os.uname().nodename} (fence {second.fence})"
            with pytest.raises(StorageError, match=re.escape(said)):
                store.put("weights/0001.npz", b"late")
            with pytest.raises(StorageError, match=re.escape(said)):
                store.delete("weights/0001.npz")
            assert store.get("weights/0001.npz") == b"first"
            assert [key for key in store.list() if key != "lease.json"] == ["weights/0001.npz", "weights/0002.npz"]
            later.delete("weights/0001.npz")

    def test_without_a_lease_that_can_be_read_it_is_written(self, tmp_path: Path) -> None:
        store = FencedStore(tmp_path, 3)
        store.put("a", b"1")
        (tmp_path / "lease.json").write_text("torn")
        store.put("a", b"2")
        assert store.get("a") == b"2"
