"""Scans from S3: moto's real HTTP server behind a proxy that misbehaves on demand; real files, real kills."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import subprocess
import sys
import textwrap
import zlib
from base64 import b64encode
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import boto3
import moto.s3.models
import pytest
from botocore.config import Config
from botocore.retries.standard import ExponentialBackoff

from tunelab.data.s3checks import compare, equal_parts, etag_of_parts
from tunelab.data.s3pace import Pace, span
from tunelab.data.s3source import STATE, Limits, RemoteFile, download, list_files
from tunelab.errors import DataError, StorageError, UsageError
from tunelab.files import files_below

PART = 1 << 14
QUICK = Limits(part_bytes=PART, timeout=5, attempts=4)
SECRET = "canary-secret-0123456789"
SUFFIXES = {".out", ".csv"}


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ExponentialBackoff, "delay_amount", lambda self, context: 0.01)


def content(size: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(size)


class Bucket:
    """A fresh bucket, filled without the proxy."""

    def __init__(self, client: Any, name: str) -> None:
        self.name = name
        self.url = f"s3://{name}/survey"
        self.client = client
        self.client.create_bucket(Bucket=name)

    def put(self, key: str, data: bytes, **fields: Any) -> None:
        self.client.put_object(Bucket=self.name, Key=f"survey/{key}", Body=data, **fields)

    def put_untold(self, key: str, data: bytes) -> None:
        """An object of which S3 tells nothing but the size."""
        self.put_parts(key, [data], ServerSideEncryption="aws:kms")

    def put_parts(self, key: str, parts: list[bytes], **fields: Any) -> None:
        place = {"Bucket": self.name, "Key": f"survey/{key}"}
        upload = {**place, "UploadId": self.client.create_multipart_upload(**place, **fields)["UploadId"]}
        done = []
        for number, data in enumerate(parts, 1):
            answer = self.client.upload_part(**upload, PartNumber=number, Body=data)
            done.append({"PartNumber": number, "ETag": answer["ETag"]})
        self.client.complete_multipart_upload(**upload, MultipartUpload={"Parts": done})


@pytest.fixture(scope="module")
def client(s3_port: int) -> Any:
    """As old programs put objects: without checksums."""
    return boto3.session.Session().client(
        "s3",
        endpoint_url=f"http://127.0.0.1:{s3_port}",
        region_name="us-east-1",
        aws_access_key_id="id",
        aws_secret_access_key="secret",
        config=Config(request_checksum_calculation="when_required"),
    )


@pytest.fixture
def bucket(fault_proxy: Any, client: Any, request: pytest.FixtureRequest) -> Bucket:
    return Bucket(client, f"scans-{hashlib.sha256(request.node.name.encode()).hexdigest()[:20]}")


@pytest.fixture
def fetch(bucket: Bucket, tmp_path: Path) -> Callable[..., dict[str, bytes]]:
    """Lists and downloads everything; what is in the folder then."""

    def act(**fields: Any) -> dict[str, bytes]:
        fields = {"limits": QUICK, "connections": 3, **fields}
        download(bucket.url, list_files(bucket.url, SUFFIXES), tmp_path / "scans", **fields)
        return found(tmp_path / "scans")

    return act


def found(folder: Path) -> dict[str, bytes]:
    return {key: (folder / key).read_bytes() for key in files_below(folder)}


def ended(cause: type[Exception], act: Callable[[], object]) -> str:
    """The message of the error that ``act`` ends with."""
    with pytest.raises(cause) as caught:
        act()
    assert SECRET not in str(caught.value)
    assert "canary-id" not in str(caught.value)
    return str(caught.value)


def reads(asked: Any) -> bool:
    return asked.method == "GET" and "list-type" not in asked.query


class TestList:
    def test_what_is_wanted_by_suffix_sorted_by_key(self, bucket: Bucket) -> None:
        for key in ["b.out", "line 2/a.OUT", "labels.csv", "notes.txt", "out", "c.out.bak", "line 2/", "x.out/"]:
            bucket.put(key, key.encode())
        bucket.client.put_object(Bucket=bucket.name, Key="survey2/d.out", Body=b"")
        files = list_files(bucket.url, SUFFIXES)
        assert [file.key for file in files] == ["b.out", "labels.csv", "line 2/a.OUT"]
        assert files[0] == RemoteFile(key="b.out", size=5, etag=hashlib.md5(b"b.out").hexdigest())
        assert list_files(f"s3://{bucket.name}", {".out"})[0].key == "survey/b.out"

    def test_an_empty_prefix_holds_nothing(self, bucket: Bucket) -> None:
        assert list_files(bucket.url, SUFFIXES) == []

    @pytest.mark.parametrize(
        ("key", "fault"),
        [
            ("../a.out", "'../a.out' holds '..'"),
            ("/a.out", "'/a.out' is absolute"),
            ("a//b.out", "holds '.' or an empty part"),
            ("a\\b.out", "holds a backslash or a control character"),
            (f"{STATE}/a.out", f"is in {STATE}, where downloads keep their own records"),
        ],
    )
    def test_a_key_that_is_no_file_name_is_refused(self, bucket: Bucket, tmp_path: Path, key: str, fault: str) -> None:
        bucket.put("good.out", b"x")
        bucket.put(key, b"x")
        for act in (
            lambda: list_files(bucket.url, SUFFIXES),
            lambda: download(bucket.url, [RemoteFile(key=key, size=1, etag="0" * 32)], tmp_path / "scans"),
        ):
            message = ended(DataError, act)
            assert message.startswith(f"{bucket.url}: 1 keys cannot be names of files below a folder (")
            assert fault in message
            assert message.endswith("); rename them, or choose another prefix")
        assert not (tmp_path / "scans").exists()

    def test_a_key_that_is_file_and_folder(self, bucket: Bucket) -> None:
        bucket.put("a.out", b"x")
        bucket.put("a.out/b.out", b"x")
        message = ended(DataError, lambda: list_files(bucket.url, SUFFIXES))
        assert message == f"{bucket.url}: 1 keys would be file and folder at once (a.out); rename them"

    def test_no_such_bucket(self, fault_proxy: Any) -> None:
        message = ended(StorageError, lambda: list_files("s3://no-such-bucket/x", SUFFIXES))
        assert message == "s3://no-such-bucket: no such bucket; correct its name"

    def test_a_url_of_another_kind(self) -> None:
        assert ended(UsageError, lambda: list_files("gs://bucket/x", SUFFIXES)).startswith(
            "data: 'gs://bucket/x' is no"
        )

    def test_access_denied(self, bucket: Bucket, fault_proxy: Any) -> None:
        fault_proxy.answer(403, "AccessDenied", times=9)
        message = ended(StorageError, lambda: list_files(bucket.url, SUFFIXES))
        assert message.endswith(
            "access denied (AccessDenied); the credentials need s3:GetObject and s3:ListBucket here"
        )
        assert fault_proxy.count() == 1


class TestDownload:
    def test_every_file_is_whole_and_nothing_else_is_seen(
        self, bucket: Bucket, fetch: Any, fault_proxy: Any, tmp_path: Path
    ) -> None:
        files = {"labels.csv": b"scan,trace,label\n", "empty.out": b"", "line 2/ä &+%.out": content(7 * PART + 123)}
        files |= {f"many/{n:02}.out": content(900 + n, n) for n in range(20)}
        for key, data in files.items():
            bucket.put(key, data)
        grown: list[int] = []
        warned: list[str] = []
        assert fetch(progress=grown.append, warn=warned.append) == files
        assert sum(grown) == sum(map(len, files.values()))
        assert warned == []
        assert fault_proxy.sent() == sum(map(len, files.values()))
        # one request a file and part is all that is asked, after the listing; connections are used again and again
        assert fault_proxy.count() == 1 + 8 + 22
        assert len({asked.connection for asked in fault_proxy.asked}) <= 4
        assert [path.name for path in (tmp_path / "scans" / STATE).iterdir()] == ["finished.jsonl"]

    def test_a_large_file_is_read_by_all_connections_at_once(
        self, bucket: Bucket, fetch: Any, fault_proxy: Any
    ) -> None:
        bucket.put("a.out", content(9 * PART))
        fault_proxy.hang(when=lambda asked: reads(asked) and not asked.range.startswith("bytes=0-"), times=5)
        limits = replace(QUICK, timeout=1)
        assert len(fetch(connections=5, limits=limits)["a.out"]) == 9 * PART
        fault_proxy.wait_for_held(5)
        first = [asked.range for asked in fault_proxy.asked if reads(asked)][:6]
        assert len(set(first)) == 6
        assert all(asked.headers["if-match"] for asked in fault_proxy.asked if reads(asked))

    def test_what_is_finished_is_not_read_again(self, bucket: Bucket, fetch: Any, fault_proxy: Any) -> None:
        files = {"a.out": content(3 * PART), "b.out": b"short"}
        for key, data in files.items():
            bucket.put(key, data)
        fetch()
        fault_proxy.clear()
        grown: list[int] = []
        assert fetch(progress=grown.append) == files
        assert sum(grown) == 3 * PART + 5
        assert fault_proxy.count() == 1  # the listing
        bucket.put("b.out", b"other")
        assert fetch()["b.out"] == b"other"
        assert fault_proxy.sent() == 5

    def test_what_changed_on_disk_is_fetched_again(
        self, bucket: Bucket, fetch: Any, fault_proxy: Any, tmp_path: Path
    ) -> None:
        files = {"a.out": content(3 * PART), "b.out": b"short", "c.out": b"long", "d.out": b"same"}
        for key, data in files.items():
            bucket.put(key, data)
        fetch()
        fault_proxy.clear()
        os.utime(tmp_path / "scans/a.out", ns=(1, 1))
        (tmp_path / "scans/b.out").write_bytes(b"cut")
        (tmp_path / "scans/c.out").unlink()
        assert fetch() == files
        assert fault_proxy.sent() == 3 * PART + 9


BREAKS: dict[str, Callable[[Any], None]] = {
    "busy": lambda proxy: proxy.answer(503, "SlowDown", when=reads, times=3),
    "broken server": lambda proxy: proxy.answer(500, "InternalError", times=3),
    "timeout said": lambda proxy: proxy.answer(400, "RequestTimeout", when=reads, times=2),
    "silent": lambda proxy: proxy.hang(when=reads, times=2),
    "silent about checksums": lambda proxy: proxy.hang(when=lambda asked: asked.method == "HEAD", times=1),
    "reset at once": lambda proxy: proxy.reset(after=0, when=reads, times=3),
    "reset in the middle": lambda proxy: proxy.reset(after=PART // 2, when=reads, times=3),
    "short": lambda proxy: proxy.cut(after=PART - 1, when=reads, times=3),
    "no body": lambda proxy: proxy.cut(after=0, when=reads, times=3),
    "flipped": lambda proxy: proxy.flip(at=77, bit=6, when=reads, times=1),
}


class TestFaults:
    @pytest.mark.parametrize("fault", BREAKS)
    def test_what_passes_is_outlasted(self, bucket: Bucket, fetch: Any, fault_proxy: Any, fault: str) -> None:
        files = {"a.out": content(5 * PART + 1), "b.out": content(100, 1)}
        bucket.put("a.out", files["a.out"])
        (bucket.put_untold if fault == "silent about checksums" else bucket.put)("b.out", files["b.out"])
        BREAKS[fault](fault_proxy)
        grown: list[int] = []
        assert fetch(progress=grown.append, limits=replace(QUICK, timeout=1)) == files
        assert sum(grown) == 5 * PART + 101
        assert any(asked.fault for asked in fault_proxy.asked)

    @pytest.mark.parametrize(
        ("fault", "said", "reads_at_most"),
        [
            ("busy", "the server answered SlowDown (4 attempts); try again later", 4),
            ("silent", "did not arrive whole (4 attempts, ReadTimeoutError); check the network and AWS_ENDPOINT_", 16),
            ("reset at once", "did not arrive whole (4 attempts, ResponseStreamingError); check the network and ", 4),
            ("no body", "did not arrive whole (4 attempts, ", 4),
            ("reset in the middle", "did not arrive whole (4 attempts, ", 4),
        ],
    )
    def test_what_does_not_pass_is_given_up(
        self, bucket: Bucket, fetch: Any, fault_proxy: Any, fault: str, said: str, reads_at_most: int, tmp_path: Path
    ) -> None:
        bucket.put("a.out", content(PART))
        for _ in range(20):
            BREAKS[fault](fault_proxy)
        message = ended(StorageError, lambda: fetch(limits=replace(QUICK, timeout=0.2)))
        first, second = message.splitlines()
        assert first.startswith(f"{bucket.url}/a.out: ")
        assert said in first
        assert second == f"what has arrived is kept in {tmp_path}/scans; the same command goes on from there"
        assert 4 <= fault_proxy.count(reads) <= reads_at_most
        assert found(tmp_path / "scans") == {}

    @pytest.mark.parametrize(
        ("status", "code", "said"),
        [
            (403, "AccessDenied", "access denied (AccessDenied); the credentials need s3:GetObject"),
            (400, "ExpiredToken", "the credentials have expired (ExpiredToken); renew them"),
            (403, "InvalidObjectState", "the object is archived; restore it first"),
        ],
    )
    @pytest.mark.parametrize("method", ["GET", "HEAD"])
    def test_a_refusal_is_final(
        self, bucket: Bucket, fetch: Any, fault_proxy: Any, status: int, code: str, said: str, method: str
    ) -> None:
        bucket.put_untold("a.out", content(PART))  # so that more is asked
        when = reads if method == "GET" else lambda asked: asked.method == "HEAD"
        fault_proxy.answer(status, code, when=when, times=9)
        message = ended(StorageError, fetch)
        assert message.startswith(f"{bucket.url}/a.out: ")
        if method == "GET":
            assert said in message
        else:  # a HEAD has no body to say more
            assert {403: "access denied (403)", 400: "the credentials may have expired"}[status] in message
        # boto3 asks for the bucket's region when a HEAD ends so
        assert fault_proxy.count(lambda asked: bool(asked.fault)) <= (2 if (method, status) == ("HEAD", 400) else 1)

    def test_an_object_that_was_replaced(self, bucket: Bucket, fetch: Any, tmp_path: Path, fault_proxy: Any) -> None:
        bucket.put("a.out", content(3 * PART))
        files = list_files(bucket.url, SUFFIXES)
        bucket.put("a.out", content(3 * PART, 1))
        message = ended(DataError, lambda: download(bucket.url, files, tmp_path / "scans", limits=QUICK))
        said = "was replaced since it was listed; start again, once nothing writes there"
        assert message == f"{bucket.url}/a.out: {said}"
        assert found(tmp_path / "scans") == {}
        assert fetch()["a.out"] == content(3 * PART, 1)

    def test_an_object_that_was_replaced_half_way_is_never_mixed(
        self, bucket: Bucket, fetch: Any, fault_proxy: Any, tmp_path: Path
    ) -> None:
        bucket.put_untold("a.out", content(5 * PART))  # no checksum would tell
        fault_proxy.hang(when=lambda asked: asked.range.startswith(f"bytes={3 * PART}-"))
        with ThreadPoolExecutor(1) as other:
            work = other.submit(fetch, limits=replace(QUICK, timeout=60))
            fault_proxy.wait_for_held(1)
            bucket.put_untold("a.out", content(5 * PART, 1))
            fault_proxy.release()
            assert "was replaced since it was listed" in ended(DataError, work.result)
        assert found(tmp_path / "scans") == {}
        assert fetch()["a.out"] == content(5 * PART, 1)

    def test_an_object_that_was_removed(self, bucket: Bucket, tmp_path: Path) -> None:
        bucket.put("a.out", content(PART))
        files = list_files(bucket.url, SUFFIXES)
        bucket.client.delete_object(Bucket=bucket.name, Key="survey/a.out")
        message = ended(DataError, lambda: download(bucket.url, files, tmp_path / "scans", limits=QUICK))
        assert message.startswith(f"{bucket.url}/a.out: was removed since it was listed; start again")

    def test_a_server_that_is_gone(self, bucket: Bucket, fault_proxy: Any, tmp_path: Path) -> None:
        bucket.put("a.out", content(PART))
        files = list_files(bucket.url, SUFFIXES)
        fault_proxy.down = True
        act = lambda: download(bucket.url, files, tmp_path / "scans", limits=QUICK)  # noqa: E731
        assert "cannot be reached (4 attempts, ConnectionClosedError); check the network and" in ended(
            StorageError, act
        )
        fault_proxy.down = False
        act()
        assert found(tmp_path / "scans") == {"a.out": content(PART)}

    def test_a_password_in_the_endpoint_is_not_shown(
        self, bucket: Bucket, fault_proxy: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        fault_proxy.down = True
        monkeypatch.setenv("AWS_ENDPOINT_URL", fault_proxy.url.replace("//", f"//user:{SECRET}@"))
        file = RemoteFile(key="a.out", size=1, etag="0" * 32)
        ended(StorageError, lambda: list_files(bucket.url, SUFFIXES, limits=replace(QUICK, attempts=1)))
        ended(StorageError, lambda: download(bucket.url, [file], tmp_path / "scans", limits=QUICK))

    def test_a_failing_reporter_stops_the_download(self, bucket: Bucket, fetch: Any) -> None:
        bucket.put("a.out", content(3 * PART))
        with pytest.raises(ZeroDivisionError):
            fetch(progress=lambda grown: 1 // 0)
        assert fetch()["a.out"] == content(3 * PART)

    def test_the_first_failure_ends_what_others_are_at(self, bucket: Bucket, fetch: Any, fault_proxy: Any) -> None:
        for n in range(30):
            bucket.put(f"{n:02}.out", content(1000, n))
        fault_proxy.answer(503, "SlowDown", when=reading("01.out"), times=1000)
        fault_proxy.answer(403, "AccessDenied", when=reading("00.out"))
        assert "00.out: access denied" in ended(StorageError, lambda: fetch(limits=replace(QUICK, attempts=900)))
        assert fault_proxy.count(reading("01.out")) < 500
        assert fault_proxy.count(reading("29.out")) == 0

    def test_an_interrupt_cancels_the_transfers(self, bucket: Bucket, fault_proxy: Any, tmp_path: Path) -> None:
        bucket.put("a.out", content(100))
        fault_proxy.hang(when=reads, times=3)
        run = [sys.executable, "-c", TestResume.SCRIPT, bucket.url, str(tmp_path / "scans"), "2"]
        process = subprocess.Popen(run, stderr=subprocess.PIPE, text=True)
        fault_proxy.wait_for_held(1)
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=30)
        assert error.rstrip().endswith("KeyboardInterrupt")
        assert fault_proxy.count(reads) == 1
        assert found(tmp_path / "scans") == {}
        assert [path.name for path in (tmp_path / "scans" / STATE).iterdir()] == ["finished.jsonl"]


class TestResume:
    SCRIPT = textwrap.dedent("""
        import sys
        from pathlib import Path
        from tunelab.data.s3source import STATE, Limits, download, list_files
        url, folder, timeout = sys.argv[1:]
        limits = Limits(part_bytes=1 << 14, timeout=float(timeout))
        download(url, list_files(url, {".out"}), Path(folder), connections=2, limits=limits)
    """)

    def test_after_a_kill_only_files_that_are_missing_are_fetched(
        self, bucket: Bucket, fetch: Any, fault_proxy: Any, tmp_path: Path
    ) -> None:
        files = {f"{n}.out": content(2 * PART + n, n) for n in range(8)}
        for key, data in files.items():
            bucket.put(key, data)
        for key in ("3.out", "6.out"):
            fault_proxy.hang(when=lambda asked, key=key: reading(key)(asked) and asked.range.startswith("bytes=16384"))
        process = subprocess.Popen([sys.executable, "-c", self.SCRIPT, bucket.url, str(tmp_path / "scans"), "60"])
        try:
            fault_proxy.wait_for_held(2)  # both connections wait: what came before has arrived, and nothing else will
        finally:
            process.kill()
            process.wait()
        finished = found(tmp_path / "scans")
        assert {"0.out", "1.out", "2.out"} <= set(finished) <= set(files) - {"3.out", "6.out", "7.out"}
        assert all(finished[key] == files[key] for key in finished)
        fault_proxy.clear()
        grown: list[int] = []
        assert fetch(progress=grown.append) == files
        assert fault_proxy.sent() == sum(len(data) for key, data in files.items() if key not in finished)
        assert grown[0] == sum(map(len, finished.values()))
        assert sum(grown) == sum(map(len, files.values()))
        assert [path.name for path in (tmp_path / "scans" / STATE).iterdir()] == ["finished.jsonl"]

    def test_a_failure_at_any_file(self, bucket: Bucket, fetch: Any, fault_proxy: Any, tmp_path: Path) -> None:
        """Each call is refused at its third request; it brings two files more, and asks for none that is there."""
        files = {f"{n}.out": content(100 + n, n) for n in range(7)}
        for key, data in files.items():
            bucket.put(key, data)
        there: dict[str, bytes] = {}
        while set(there) != set(files):
            fault_proxy.clear()
            fault_proxy.answer(403, "AccessDenied", when=third())
            with suppress(StorageError):
                fetch(connections=1)
            assert not any(fault_proxy.count(reading(key)) for key in there)
            before, there = len(there), found(tmp_path / "scans")
            assert len(there) >= min(before + 2, len(files))
        fault_proxy.clear()
        assert fetch() == files
        assert fault_proxy.sent() == 0

    def test_a_rename_that_fails_leaves_nothing_half(
        self, bucket: Bucket, fetch: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        bucket.put("a.out", content(2 * PART))
        with monkeypatch.context() as patch:
            patch.setattr(Path, "replace", refused)
            message = ended(StorageError, fetch)
        assert message.startswith(f"{tmp_path}/scans/a.out: cannot be written: Input/output error; free space, or")
        assert found(tmp_path / "scans") == {}
        assert fetch() == {"a.out": content(2 * PART)}

    def test_records_cut_or_flipped_at_any_place(self, bucket: Bucket, fetch: Any, tmp_path: Path) -> None:
        files = {"a.out": content(100), "b.out": content(50, 1)}
        for key, data in files.items():
            bucket.put(key, data)
        fetch()
        log = tmp_path / "scans" / STATE / "finished.jsonl"
        whole = log.read_bytes()
        assert whole.count(b"\n") == 2
        flipped = [bytes([*whole[:n], whole[n] ^ 1, *whole[n + 1 :]]) for n in range(0, len(whole), 61)]
        for damaged in [whole[:n] for n in range(0, len(whole), 61)] + flipped:
            log.write_bytes(damaged)
            assert fetch() == files
            assert log.read_bytes().count(b"\n") == 2


def third() -> Callable[[Any], bool]:
    seen = 0

    def when(asked: Any) -> bool:
        nonlocal seen
        seen += "list-type" not in asked.query
        return seen >= 3

    return when


def refused(self: Path, target: Path) -> Path:
    if target.name == "a.out":
        raise OSError(5, os.strerror(5), str(target))
    os.replace(self, target)
    return target


class TestIntegrity:
    @pytest.fixture(params=["one request", "equal parts", "unequal parts", "one part", "sha256", "crc32"])
    def stored(self, request: pytest.FixtureRequest, bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> bytes:
        """An object whose bytes S3 tells of in one of the ways that are understood."""
        monkeypatch.setattr(moto.s3.models, "S3_UPLOAD_PART_MIN_SIZE", 1)
        kms = {"ServerSideEncryption": "aws:kms"}  # with it an ETag is no MD5
        data = content(3 * PART + 9)
        if request.param == "one request":
            bucket.put("a.out", data)
        elif request.param == "equal parts":
            bucket.put_parts("a.out", [data[:20_000], data[20_000:40_000], data[40_000:]])
        elif request.param == "unequal parts":
            bucket.put_parts("a.out", [data[:20_000], data[20_000:37_000], data[37_000:]])
        elif request.param == "one part":
            bucket.put_parts("a.out", [data])
        elif request.param == "sha256":
            bucket.put("a.out", data, ChecksumAlgorithm="SHA256", **kms)
        else:
            bucket.put("a.out", data, ChecksumAlgorithm="CRC32", **kms)
        return data

    def test_good_bytes_are_taken(self, stored: bytes, fetch: Any) -> None:
        warned: list[str] = []
        assert fetch(warn=warned.append) == {"a.out": stored}
        assert warned == []

    def test_a_flipped_bit_is_read_again(self, stored: bytes, fetch: Any, fault_proxy: Any) -> None:
        fault_proxy.flip(at=-1, bit=7, when=reads)
        grown: list[int] = []
        assert fetch(progress=grown.append) == {"a.out": stored}
        assert fault_proxy.sent() == 2 * len(stored)
        assert sum(grown) == len(stored)

    def test_bits_that_stay_flipped_are_said(
        self, stored: bytes, fetch: Any, bucket: Bucket, fault_proxy: Any, tmp_path: Path
    ) -> None:
        fault_proxy.flip(at=0, when=reads, times=1000)
        message = ended(DataError, fetch)
        assert message.startswith(f"{bucket.url}/a.out: the bytes that arrive differ from the ")
        assert "that S3 tells, twice; " in message
        assert found(tmp_path / "scans") == {}
        fault_proxy.clear()
        assert fetch() == {"a.out": stored}

    def test_no_flip_in_any_of_many_files_survives(self, bucket: Bucket, fetch: Any, fault_proxy: Any) -> None:
        rng = random.Random(5)
        files = {f"{n:03}.out": content(rng.randrange(1, 3 * PART), n) for n in range(100)}
        for key, data in files.items():
            bucket.put(key, data)
            fault_proxy.flip(at=rng.randrange(PART), bit=rng.randrange(8), when=reading(key))
        assert fetch() == files
        assert sum(asked.fault == "flip" for asked in fault_proxy.asked) == 100

    def test_an_object_without_checksum_is_named(self, bucket: Bucket, fetch: Any) -> None:
        bucket.put_untold("a.out", content(PART))
        bucket.put("b.out", content(PART))
        warned: list[str] = []
        fetch(warn=warned.append)
        said = "S3 tells no checksum that can be computed here; only their size was compared"
        assert warned == [f"{bucket.url}: of 1 files (a.out) {said}"]


def reading(key: str) -> Callable[[Any], bool]:
    return lambda asked: reads(asked) and asked.path.endswith(f"/{key}")


DATA = content(3000)
PARTS = [1000, 1200, 800]
OF_PARTS = hashlib.md5(
    b"".join(hashlib.md5(p).digest() for p in (DATA[:1000], DATA[1000:2200], DATA[2200:]))
).hexdigest()
TOLD: dict[str, tuple[str, dict[str, Any]]] = {
    "ETag (MD5)": (hashlib.md5(DATA).hexdigest(), {}),
    "ETag (MD5 of its parts' MD5s)": (f"{OF_PARTS}-3", {}),
    "CRC32": ("x", {"ChecksumCRC32": b64encode(zlib.crc32(DATA).to_bytes(4, "big")).decode()}),
    "SHA1": ("x", {"ChecksumSHA1": b64encode(hashlib.sha1(DATA).digest()).decode()}),
    "SHA256": ("x", {"ChecksumSHA256": b64encode(hashlib.sha256(DATA).digest()).decode()}),
}


class TestChecks:
    def compared(self, path: Path, data: bytes, etag: str, told: dict[str, Any], bucket: str = "bucket") -> Any:
        path.write_bytes(data)

        def head(**fields: Any) -> dict[str, Any]:
            return {"ContentLength": PARTS[fields["PartNumber"] - 1]} if "PartNumber" in fields else told

        return compare(path, RemoteFile(key="a", size=len(DATA), etag=etag), bucket, head)

    @pytest.mark.parametrize("name", TOLD)
    def test_none_of_1000_flips_goes_unnoticed(self, name: str, tmp_path: Path) -> None:
        outcome = self.compared(tmp_path / "a", DATA, *TOLD[name])
        assert (outcome.fault, outcome.by_size_only) == (None, False)
        rng = random.Random(1)
        for _ in range(1000):
            wrong = bytearray(DATA)
            wrong[rng.randrange(len(wrong))] ^= 1 << rng.randrange(8)
            assert self.compared(tmp_path / "a", bytes(wrong), *TOLD[name]).fault == name
        assert self.compared(tmp_path / "a", DATA[:-1], *TOLD[name]).fault == "size"
        assert self.compared(tmp_path / "a", DATA + b"\0", *TOLD[name]).fault == "size"

    @pytest.mark.parametrize(
        ("told", "etag", "bucket"),
        [
            ({"ServerSideEncryption": "aws:kms"}, "0" * 32, "bucket"),
            ({"ServerSideEncryption": "aws:kms:dsse"}, "0" * 32, "bucket"),
            ({"SSECustomerAlgorithm": "AES256"}, "0" * 32, "bucket"),
            ({}, "0" * 32, "scans--use1-az4--x-s3"),
            ({}, "opaque", "bucket"),
            ({"ServerSideEncryption": "aws:kms"}, "0" * 32 + "-3", "bucket"),
            ({"ChecksumType": "COMPOSITE", "ChecksumSHA256": "AAAA-3"}, "opaque", "bucket"),
            ({"ChecksumSHA256": "AAAA"}, "opaque-3", "bucket"),
        ],
    )
    def test_what_tells_nothing_of_the_bytes_is_not_compared(
        self, told: Any, etag: str, bucket: str, tmp_path: Path
    ) -> None:
        outcome = self.compared(tmp_path / "a", DATA, etag, told, bucket)
        assert (outcome.fault, outcome.by_size_only) == (None, True)

    def test_all_checksums_must_hold(self, tmp_path: Path) -> None:
        told = {**TOLD["CRC32"][1], "ChecksumSHA256": b64encode(b"0" * 32).decode()}
        assert self.compared(tmp_path / "a", DATA, "x", told).fault == "SHA256"
        assert self.compared(tmp_path / "a", DATA, "0" * 32, TOLD["CRC32"][1]).fault == "ETag (MD5)"

    def test_the_etag_of_one_part_of_no_bytes(self, tmp_path: Path) -> None:
        (tmp_path / "a").write_bytes(b"")
        assert etag_of_parts(tmp_path / "a", [0]) == hashlib.md5(hashlib.md5(b"").digest()).hexdigest() + "-1"

    @pytest.mark.parametrize(
        ("size", "first", "count", "sizes"),
        [
            (10, 4, 3, [4, 4, 2]),
            (8, 4, 2, [4, 4]),
            (3, 3, 1, [3]),
            (0, 0, 1, [0]),
            (10, 4, 2, []),
            (10, 4, 4, []),
            (10, 0, 3, []),
        ],
    )
    def test_parts_of_one_size(self, size: int, first: int, count: int, sizes: list[int]) -> None:
        assert equal_parts(size, first, count) == sizes


class TestFolder:
    def test_nothing_is_written_through_a_link(self, bucket: Bucket, fetch: Any, tmp_path: Path) -> None:
        bucket.put("in/a.out", b"x")
        (tmp_path / "outside").mkdir()
        (tmp_path / "scans").mkdir()
        (tmp_path / "scans/in").symlink_to(tmp_path / "outside")
        message = ended(StorageError, fetch)
        said = "a link is in the way; remove it, or choose another folder"
        assert message.startswith(f"{tmp_path}/scans/in: {said}")
        (tmp_path / "scans/in").unlink()
        (tmp_path / "scans/in").mkdir()
        (tmp_path / "scans/in/a.out").symlink_to(tmp_path / "outside/a.out")
        assert ended(StorageError, fetch).startswith(f"{tmp_path}/scans/in/a.out: {said}")
        assert list((tmp_path / "outside").iterdir()) == []

    def test_not_even_its_own_records(self, bucket: Bucket, fetch: Any, tmp_path: Path) -> None:
        bucket.put("a.out", b"x")
        (tmp_path / "outside").mkdir()
        (tmp_path / "scans").mkdir()
        state = tmp_path / "scans" / STATE
        state.symlink_to(tmp_path / "outside")
        assert ended(StorageError, fetch).startswith(f"{state}: a link is in the way")
        state.unlink()
        state.mkdir()
        (tmp_path / "outside/data").write_text("mine")
        for name in ("finished.jsonl", hashlib.sha256(b"a.out").hexdigest()[:32]):
            (state / name).symlink_to(tmp_path / "outside/data")
        assert fetch() == {"a.out": b"x"}
        assert (tmp_path / "outside/data").read_text() == "mine"

    def test_a_linked_folder_itself_is_good(self, bucket: Bucket, fetch: Any, tmp_path: Path) -> None:
        bucket.put("a.out", b"x")
        (tmp_path / "disk").mkdir()
        (tmp_path / "scans").symlink_to(tmp_path / "disk")
        assert fetch() == {"a.out": b"x"}

    def test_a_file_or_a_folder_in_the_way(self, bucket: Bucket, fetch: Any, tmp_path: Path) -> None:
        bucket.put("a/b.out", b"x")
        (tmp_path / "scans").write_text("a file")
        assert ended(StorageError, fetch).startswith(f"{tmp_path}/scans: cannot be written: File exists; ")
        (tmp_path / "scans").unlink()
        (tmp_path / "scans/a/b.out").mkdir(parents=True)
        assert ended(StorageError, fetch).startswith(f"{tmp_path}/scans/a/b.out: is no file; move it away, or ")
        (tmp_path / "scans/a/b.out").rmdir()
        (tmp_path / "scans/a").rmdir()
        (tmp_path / "scans/a").write_text("a file")
        assert ended(StorageError, fetch).startswith(f"{tmp_path}/scans/a/b.out: cannot be written: Not a directory; ")

    def test_a_name_that_is_too_long(self, bucket: Bucket, fetch: Any, fault_proxy: Any) -> None:
        bucket.put(f"{'n' * 300}.out", b"x")
        assert "nnn.out: cannot be written: File name too long; " in ended(StorageError, fetch)
        assert fault_proxy.sent() == 0

    def test_a_full_disk(self, bucket: Bucket, fetch: Any, fault_proxy: Any, tmp_path: Path) -> None:
        """A small one of its own, where the machine allows that; then finished files are kept."""
        folder = tmp_path / "scans"
        folder.mkdir()
        bucket.put("a.out", content(2 * PART))
        bucket.put("b.out", content(20 * PART, 1))
        kept = 'cp "$1/a.out" "$1/../kept"; ls -A "$1/.tunelab-download" > "$1/../state"; exit $code'
        mounted = f'mount -t tmpfs -o size=128k none "$1" && "$2" -c "$3" "$4" "$1" 60; code=$?; {kept}'
        one_by_one = TestResume.SCRIPT.replace("connections=2", "connections=1")  # a.out is finished before b.out
        assert one_by_one != TestResume.SCRIPT
        command = ["unshare", "--mount", "--map-root-user", "sh", "-c", mounted, "sh"]
        ran = subprocess.run(
            [*command, str(folder), sys.executable, one_by_one, bucket.url],
            capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
        if "StorageError" not in ran.stderr:
            pytest.skip(f"this machine allows no mounts: {ran.stderr[-200:]}")
        name = hashlib.sha256(b"b.out").hexdigest()[:32]
        said = "cannot be written: No space left on device; free space, or choose another folder that can be written"
        assert f"{folder}/{STATE}/{name}: {said}\nwhat has arrived is kept in {folder}; " in ran.stderr
        assert (tmp_path / "kept").read_bytes() == content(2 * PART)
        assert (tmp_path / "state").read_text().split() == ["finished.jsonl"]

    def test_a_file_larger_than_the_system_allows(self, bucket: Bucket, fetch: Any, tmp_path: Path) -> None:
        bucket.put("b.out", content(20 * PART, 1))
        code = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({8 * PART}, {8 * PART}))\n"
        ran = subprocess.run(
            [sys.executable, "-c", code + TestResume.SCRIPT, bucket.url, str(tmp_path / "scans"), "60"],
            capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
        assert "cannot be written: File too large; free space, or choose another folder" in ran.stderr
        assert found(tmp_path / "scans") == {}
        assert fetch() == {"b.out": content(20 * PART, 1)}

    def test_a_read_only_folder(self, bucket: Bucket, tmp_path: Path) -> None:
        bucket.put("a.out", b"x")
        folder = tmp_path / "scans"
        folder.mkdir()
        mounted = 'mount -t tmpfs -o ro none "$1" && exec "$2" -c "$3" "$4" "$1" 60'
        command = ["unshare", "--mount", "--map-root-user", "sh", "-c", mounted, "sh"]
        ran = subprocess.run(
            [*command, str(folder), sys.executable, TestResume.SCRIPT, bucket.url],
            capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
        if "StorageError" not in ran.stderr:
            pytest.skip(f"this machine allows no mounts: {ran.stderr[-200:]}")
        said = "cannot be written: Read-only file system; free space, or choose another folder that can be written"
        assert f"{folder}: {said}" in ran.stderr or f"{folder}/{STATE}: {said}" in ran.stderr


class TestPace:
    def test_a_slow_link_is_said_once_and_the_download_goes_on(
        self, bucket: Bucket, fetch: Any, fault_proxy: Any
    ) -> None:
        bucket.put("a.out", content(10 * PART))
        fault_proxy.slow(100_000, when=reads)
        warned: list[str] = []
        limits = replace(QUICK, slow_seconds=0.3)
        assert len(fetch(connections=1, warn=warned.append, limits=limits)["a.out"]) == 10 * PART
        assert len(warned) == 1
        assert warned[0].startswith(f"{bucket.url}: the link is slow: ")
        assert warned[0].endswith("; the download goes on")

    def test_the_rate_and_the_time_left(self) -> None:
        pace = Pace(200e3, 30)
        said = [pace.slow(now, now * 95_000, 10**9) for now in range(40)]
        told = "the link is slow: 95 kB a second over the last 30 s; 1 GB are left, about 2 h 55 min; the download"
        assert said[30] == f"{told} goes on"
        assert [text for text in said if text] == [said[30]]

    def test_a_fast_link_that_becomes_slow(self) -> None:
        pace, received, said = Pace(200e3, 30), 0, []
        for now in range(200):
            said.append(pace.slow(now, received, 10**9))
            received += 10**7 if now < 100 else 10**4
        assert [now for now, text in enumerate(said) if text] == [130]

    def test_nothing_arrives(self) -> None:
        pace = Pace(200e3, 30)
        said = [pace.slow(now, 0, 500) for now in range(31)]
        assert said[30] == "nothing has arrived for 30 s; it is tried further (500 bytes are left)"

    def test_nothing_is_said_once_all_has_arrived(self) -> None:
        pace = Pace(200e3, 30)
        assert not any(pace.slow(now, 0, 0) for now in range(100))

    def test_times_for_a_reader(self) -> None:
        assert [span(s) for s in (40, 720, 12_000)] == ["40 s", "12 min", "3 h 20 min"]
