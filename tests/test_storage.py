"""One contract for both stores, S3 through moto's real HTTP server; then what only one of them has."""

from __future__ import annotations

import http.client
import os
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import boto3
import pytest
from botocore.retries.standard import ExponentialBackoff
from moto.server import ThreadedMotoServer

from tunelab.errors import StorageError, UsageError
from tunelab.storage import FolderStore, NoConditionsError, S3Options, S3Store, Source, open_store, parse_s3

BUCKET = "radar-runs"
SECRET = "canary-secret-0123456789"


@dataclass
class Server:
    """moto behind a small proxy that counts requests and can answer badly for a while."""

    port: int
    requests: Counter[str] = field(default_factory=Counter)
    refuse: list[tuple[int, str]] = field(default_factory=list)
    """Answers (status, S3 error code) to give instead, in order."""
    encrypted: dict[str, tuple[str | None, str | None]] = field(default_factory=dict)
    """Path of an object -> encryption and key that its PUT asked for."""


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ExponentialBackoff, "delay_amount", lambda self, context: 0.01)


@pytest.fixture(scope="session")
def moto() -> Iterator[int]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    yield server.get_host_and_port()[1]
    server.stop()


def directly(moto: int) -> Any:
    """A client that does not go through the proxy."""
    return boto3.session.Session().client("s3", endpoint_url=f"http://127.0.0.1:{moto}")


@pytest.fixture
def credentials(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "canary-id")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))


@pytest.fixture
def server(moto: int, credentials: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    state = Server(port=0)

    class Proxy(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def relay(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            state.requests[f"{self.command} {urlsplit(self.path).path}"] += 1
            if self.command == "PUT":
                asked = "x-amz-server-side-encryption"
                kinds = self.headers.get(asked), self.headers.get(f"{asked}-aws-kms-key-id")
                state.encrypted[urlsplit(self.path).path] = kinds
            if state.refuse:
                status, code = state.refuse.pop(0)
                answer, headers = f"<Error><Code>{code}</Code></Error>".encode(), {}
            else:
                upstream = http.client.HTTPConnection("127.0.0.1", moto)
                upstream.request(self.command, self.path, body, dict(self.headers))
                with upstream.getresponse() as given:
                    status, answer, headers = given.status, given.read(), dict(given.getheaders())
                upstream.close()
            self.send_response(status)
            for name, value in headers.items():
                if name.lower() not in {"content-length", "connection", "transfer-encoding", "date", "server"}:
                    self.send_header(name, value)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = relay  # noqa: N815

        def handle(self) -> None:
            with suppress(ConnectionError):  # who reads the beginning only hangs up
                super().handle()

        def log_message(self, format: str, *args: object) -> None:
            pass

    proxy = ThreadingHTTPServer(("127.0.0.1", 0), Proxy)
    state.port = proxy.server_address[1]
    threading.Thread(target=proxy.serve_forever, args=(0.01,), daemon=True).start()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{state.port}")
    directly(moto).create_bucket(Bucket=BUCKET)
    yield state
    proxy.shutdown()
    proxy.server_close()
    reset = http.client.HTTPConnection("127.0.0.1", moto)
    reset.request("POST", "/moto-api/reset")
    assert reset.getresponse().read()
    reset.close()


@pytest.fixture(params=["folder", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Source:
    if request.param == "folder":
        return open_store(str(tmp_path / "kept"))
    request.getfixturevalue("server")
    return open_store(f"s3://{BUCKET}/team/kept")


def ended(cause: type[Exception], act: Callable[[], object]) -> str:
    """The message of the error that ``act`` ends with."""
    with pytest.raises(cause) as caught:
        act()
    return str(caught.value)


class TestContract:
    def test_an_empty_store_has_no_keys(self, store: Source) -> None:
        assert store.list() == []
        assert store.list("trials/") == []

    @pytest.mark.parametrize("data", [b"", b"\x00\xff\r\n", bytes(range(256)) * 4096])
    def test_what_is_put_is_got(self, store: Source, data: bytes) -> None:
        store.put("trials/t0001/weights.bin", data)
        assert store.get("trials/t0001/weights.bin") == data

    def test_the_newest_put_counts(self, store: Source) -> None:
        store.put("journal.jsonl", b"old and longer")
        store.put("journal.jsonl", b"new")
        assert store.get("journal.jsonl") == b"new"
        assert store.list() == ["journal.jsonl"]

    def test_keys_are_listed_sorted_and_by_prefix(self, store: Source) -> None:
        for key in ["b/2", "a", "b/10", "bc", "b/d/e", "ä ö&?#%+=.txt"]:
            store.put(key, b"x")
        assert store.list() == sorted(["a", "b/10", "b/2", "b/d/e", "bc", "ä ö&?#%+=.txt"])
        assert store.list("b/") == ["b/10", "b/2", "b/d/e"]
        assert store.list("b/1") == ["b/10"]
        assert store.get("ä ö&?#%+=.txt") == b"x"

    @pytest.mark.parametrize(
        ("key", "fault"),
        [
            ("", "is empty"),
            ("/etc/passwd", "is absolute"),
            ("../secret", "holds '..'"),
            ("a/../../secret", "holds '..'"),
            ("a/..", "holds '..'"),
            ("./a", "holds '.' or an empty part"),
            ("a//b", "holds '.' or an empty part"),
            ("a/", "holds '.' or an empty part"),
            ("..\\secret", "holds a backslash or a control character"),
            ("a\nb", "holds a backslash or a control character"),
            ("a\x1b[31m", "holds a backslash or a control character"),
        ],
    )
    def test_a_key_never_leaves_the_prefix(self, store: Source, key: str, fault: str) -> None:
        expected = f"{store.url}: the key {key!r} {fault}; keys are relative paths below it"
        assert ended(StorageError, lambda: store.put(key, b"x")) == expected
        assert ended(StorageError, lambda: store.get(key)) == expected
        assert ended(StorageError, lambda: store.delete(key)) == expected
        assert ended(StorageError, lambda: store.read(key, 1)) == expected

    @pytest.mark.parametrize("prefix", ["../", "/", "..", "a/../"])
    def test_a_listing_never_leaves_the_prefix(self, store: Source, prefix: str) -> None:
        assert ended(StorageError, lambda: store.list(prefix)).startswith(f"{store.url}: the key ")

    def test_a_missing_key_is_named(self, store: Source) -> None:
        assert "missing.txt: " in ended(StorageError, lambda: store.get("missing.txt"))

    def test_what_is_deleted_is_gone_and_nothing_else(self, store: Source) -> None:
        for key in ["a/1", "a/10", "b"]:
            store.put(key, b"x")
        store.delete("a/1")
        assert store.list() == ["a/10", "b"]
        assert store.read("a/1", 9) is None
        store.put("a/1", b"again")
        assert store.get("a/1") == b"again"

    @pytest.mark.parametrize("key", ["a", "no/folder/a", "b/below-a-file"])
    def test_what_is_not_there_is_deleted_without_complaint(self, store: Source, key: str) -> None:
        store.put("b", b"x")
        store.delete(key)
        assert store.read(key, 9) is None
        assert store.list() == ["b"]

    @pytest.mark.parametrize("most", [0, 1, 99_999, 100_000, 100_001])
    def test_no_more_is_read_than_asked_for(self, store: Source, most: int) -> None:
        data = os.urandom(100_000)
        store.put("a", data)
        assert store.read("a", most) == data[:most]

    def test_the_folders_of_a_store(self, store: Source) -> None:
        assert store.folders() == []
        for key in ["b/1", "b/2", "a/deep/1", ".hidden/1", "file", "bc/1"]:
            store.put(key, b"x")
        assert store.folders() == ["a", "b", "bc"]


class TestFolder:
    def test_a_home_folder_is_found(self) -> None:
        assert open_store("~/runs").url == str(Path.home() / "runs")

    def test_a_link_does_not_lead_out(self, tmp_path: Path) -> None:
        (tmp_path / "kept").mkdir()
        (tmp_path / "kept" / "out").symlink_to(tmp_path)
        store = FolderStore(tmp_path / "kept")
        message = f"{tmp_path}/kept/out/a: a link leads out of {tmp_path}/kept; remove the link"
        assert ended(StorageError, lambda: store.put("out/a", b"x")) == message
        assert not (tmp_path / "a").exists()
        assert store.list() == []
        assert store.folders() == []
        assert ended(StorageError, lambda: store.delete("out/a")) == message

    def test_a_folder_is_no_file_to_delete(self, tmp_path: Path) -> None:
        (tmp_path / "a").mkdir()
        message = ended(StorageError, lambda: FolderStore(tmp_path).delete("a"))
        assert message == f"{tmp_path}/a: cannot be removed: Is a directory; check its permissions"

    def test_a_file_in_the_way_is_named(self, tmp_path: Path) -> None:
        (tmp_path / "kept").write_text("a file")
        message = ended(StorageError, lambda: FolderStore(tmp_path / "kept").put("a/b", b"x"))
        assert message == f"{tmp_path}/kept/a: cannot be made: Not a directory; choose another --storage"

    def test_a_failed_put_leaves_the_old_file_and_nothing_else(self, tmp_path: Path) -> None:
        script = (
            "import resource, signal, sys; from pathlib import Path; from tunelab.storage import FolderStore\n"
            "store = FolderStore(Path(sys.argv[1])); store.put('a', b'old')\n"
            "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
            "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
            "store.put('a', b'x' * 5000)"
        )
        ran = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=False)
        said = f"{tmp_path}/a: cannot be written: File too large; free space or choose another folder"
        assert ran.stderr.splitlines()[-1] == f"tunelab.errors.StorageError: {said}"
        assert [path.name for path in tmp_path.iterdir()] == ["a"]
        assert (tmp_path / "a").read_bytes() == b"old"


class TestS3:
    def test_a_listing_goes_on_past_its_first_page(self, server: Server, moto: int) -> None:
        client = directly(moto)
        for number in range(1001):
            client.put_object(Bucket=BUCKET, Key=f"many/{number:04}", Body=b"")
        assert len(S3Store(BUCKET, "many").list()) == 1001
        assert server.requests[f"GET /{BUCKET}"] == 2

    def test_only_keys_of_its_own_prefix_are_listed(self, server: Server) -> None:
        S3Store(BUCKET, "run").put("a", b"x")
        S3Store(BUCKET, "run2").put("b", b"x")
        assert S3Store(BUCKET, "run").list() == ["a"]
        assert S3Store(BUCKET).list() == ["run/a", "run2/b"]

    def test_names_that_could_not_have_been_put_are_not_listed(self, server: Server, moto: int) -> None:
        client = directly(moto)
        for key in ["run/", "run/../../x", "run//x", "run/good"]:
            client.put_object(Bucket=BUCKET, Key=key, Body=b"")
        assert S3Store(BUCKET, "run").list() == ["good"]

    def test_a_missing_bucket(self, server: Server) -> None:
        message = ended(StorageError, lambda: S3Store("no-such-bucket", "run").put("a", b"x"))
        create = "aws s3 mb s3://no-such-bucket"
        assert message == f"s3://no-such-bucket/run/a: no such bucket; correct --storage, or create it: {create}"

    def test_a_missing_object(self, server: Server) -> None:
        message = ended(StorageError, lambda: S3Store(BUCKET, "run").get("a"))
        assert message == f"s3://{BUCKET}/run/a: no such object; look with: aws s3 ls s3://{BUCKET}/run/"

    @pytest.mark.parametrize("act", ["put", "get", "list", "delete", "read", "folders"])
    @pytest.mark.parametrize(
        ("code", "said"),
        [
            ("AccessDenied", "access denied (AccessDenied); the credentials need s3:PutObject, s3:GetObject, "),
            ("SignatureDoesNotMatch", "access denied (SignatureDoesNotMatch); "),
            ("ExpiredToken", "the credentials have expired (ExpiredToken); renew them"),
        ],
    )
    def test_a_refusal_is_final_and_said(self, server: Server, act: str, code: str, said: str) -> None:
        store = S3Store(BUCKET, "run")
        server.refuse = [(403, code)] * 9
        message = ended(StorageError, lambda: ACTS[act](store))
        assert message.startswith(f"s3://{BUCKET}")
        assert said in message
        assert server.requests.total() == 1

    @pytest.mark.parametrize("act", ["put", "get", "list", "delete", "read", "folders"])
    def test_a_busy_server_is_asked_again(self, server: Server, act: str) -> None:
        store = S3Store(BUCKET, "run")
        store.put("a", b"x")
        server.requests.clear()
        server.refuse = [(503, "SlowDown"), (500, "InternalError")]
        expected = {"put": None, "get": b"x", "list": ["a"], "delete": None, "read": b"x", "folders": []}
        assert ACTS[act](store) == expected[act]
        assert server.requests.total() == 3

    @pytest.mark.parametrize("act", ["put", "get", "list", "delete", "read", "folders"])
    def test_a_server_that_stays_busy_is_given_up(self, server: Server, act: str) -> None:
        server.refuse = [(503, "SlowDown")] * 9
        message = ended(StorageError, lambda: ACTS[act](S3Store(BUCKET, "run", attempts=2)))
        assert message.endswith("the server answered SlowDown (2 attempts); try again later")
        assert server.requests.total() == 2

    def test_no_credentials(self, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("AWS_ACCESS_KEY_ID")
        monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
        message = ended(StorageError, lambda: S3Store(BUCKET, "run").list())
        remedy = "set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or use a role"
        assert message == f"s3://{BUCKET}: no credentials; {remedy}"

    def test_an_unknown_profile(self, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AWS_PROFILE", "nobody")
        assert "no credentials; set AWS_PROFILE" in ended(StorageError, lambda: S3Store(BUCKET).list())

    def test_an_endpoint_that_is_no_url(self, credentials: None, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AWS_ENDPOINT_URL", "localhost:9000")
        message = ended(UsageError, lambda: S3Store(BUCKET).list())
        assert message == "AWS_ENDPOINT_URL: Invalid endpoint: localhost:9000; write it as https://host:port"

    def test_nobody_listens(self, credentials: None, monkeypatch: pytest.MonkeyPatch) -> None:
        with socket.socket() as taken:  # bound but not listening: connections are refused
            taken.bind(("127.0.0.1", 0))
            port = taken.getsockname()[1]
            monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://user:{SECRET}@127.0.0.1:{port}")
            began = time.monotonic()
            message = ended(StorageError, lambda: S3Store(BUCKET, "run").put("a", b"x"))
        assert time.monotonic() - began < 15
        reached = f"127.0.0.1:{port} cannot be reached (4 attempts, EndpointConnectionError)"
        assert message == f"s3://{BUCKET}/run/a: {reached}; check the network and AWS_ENDPOINT_URL"

    def test_a_server_that_never_answers_is_given_up(self, credentials: None, monkeypatch: pytest.MonkeyPatch) -> None:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{silent.getsockname()[1]}")
            began = time.monotonic()
            message = ended(StorageError, lambda: S3Store(BUCKET, timeout=0.4, attempts=2).get("a"))
        assert time.monotonic() - began < 5
        assert "cannot be reached (2 attempts, ReadTimeoutError)" in message

    def test_no_secret_is_shown(self, server: Server) -> None:
        store = S3Store(BUCKET, "run")
        server.refuse = [(403, "InvalidAccessKeyId")]
        message = ended(StorageError, lambda: store.list())
        shown = message + repr(store) + repr(vars(store))
        assert SECRET not in shown
        assert "canary-id" not in shown


ACTS: dict[str, Callable[[Source], object]] = {
    "put": lambda store: store.put("a", b"x"),
    "get": lambda store: store.get("a"),
    "list": lambda store: store.list(),
    "delete": lambda store: store.delete("a"),
    "read": lambda store: store.read("a", 9),
    "folders": lambda store: store.folders(),
}


class TestConditions:
    def test_nothing_is_put_over_what_is_there(self, server: Server) -> None:
        store = S3Store(BUCKET, "run")
        tag = store.put_if("a", b"one", "")
        assert tag
        assert store.put_if("a", b"two", "") is None
        assert store.get("a") == b"one"

    def test_only_what_was_seen_is_replaced(self, server: Server) -> None:
        store = S3Store(BUCKET, "run")
        first = store.put_if("a", b"one", "")
        assert first
        second = store.put_if("a", b"two", first)
        assert second
        assert second != first
        assert store.put_if("a", b"three", first) is None
        assert store.put_if("b", b"never there", first) is None
        version = store.version("a")
        assert version
        assert (version.data, version.tag) == (b"two", second)
        assert 0 <= version.age < 60
        assert store.version("b") is None

    def test_two_at_the_same_time_are_told_apart_by_the_server(self, server: Server) -> None:
        server.refuse = [(409, "ConditionalRequestConflict")]
        assert S3Store(BUCKET, "run").put_if("a", b"x", "") is None

    def test_a_server_without_conditions_says_so(self, server: Server) -> None:
        server.refuse = [(501, "NotImplemented")]
        store = S3Store(BUCKET, "run")
        assert "NotImplemented" in ended(NoConditionsError, lambda: store.put_if("a", b"x", ""))

    def test_a_refusal_is_no_refused_condition(self, server: Server) -> None:
        server.refuse = [(403, "AccessDenied")]
        assert "access denied" in ended(StorageError, lambda: S3Store(BUCKET, "run").put_if("a", b"x", ""))


class TestOptions:
    def test_the_endpoint_that_is_given_counts(self, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
        store = open_store(f"s3://{BUCKET}/run", S3Options(endpoint=f"http://127.0.0.1:{server.port}"))
        store.put("a", b"x")
        assert store.list() == ["a"]
        assert server.requests == {f"PUT /{BUCKET}/run/a": 1, f"GET /{BUCKET}": 1}

    def test_it_is_named_when_it_does_not_answer(self, credentials: None) -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            endpoint = f"http://127.0.0.1:{taken.getsockname()[1]}"
            store = S3Store(BUCKET, "run", attempts=1, s3=S3Options(endpoint=endpoint))
            message = ended(StorageError, lambda: store.put("a", b"x"))
        assert message.endswith("(1 attempts, EndpointConnectionError); check the network and --s3-endpoint")

    @pytest.mark.parametrize(
        ("options", "told"),
        [
            (S3Options(), (None, None)),
            (S3Options(sse="AES256"), ("AES256", None)),
            (S3Options(sse="aws:kms"), ("aws:kms", None)),
            (S3Options(sse="aws:kms", kms_key="alias/radar"), ("aws:kms", "alias/radar")),
        ],
    )
    def test_objects_are_encrypted_as_asked(
        self, server: Server, moto: int, options: S3Options, told: tuple[str | None, str | None]
    ) -> None:
        store = S3Store(BUCKET, "run", s3=options)
        store.put("a", b"x")
        assert store.put_if("b", b"x", "")
        assert store.with_limits(timeout=9, attempts=1).put_if("c", b"x", "")
        assert {server.encrypted[f"/{BUCKET}/run/{key}"] for key in "abc"} == {told}
        assert directly(moto).head_object(Bucket=BUCKET, Key="run/a").get("ServerSideEncryption") == told[0]

    @pytest.mark.parametrize(
        ("options", "said"),
        [
            ({"sse": "aes"}, "--s3-sse: 'aes' is no encryption of S3; write AES256 or aws:kms"),
            (
                {"kms_key": "k", "sse": "AES256"},
                "--s3-kms-key: 'k' is used with aws:kms only; add --s3-sse aws:kms",
            ),
            (
                {"kms_key": "k\r\nx-amz-acl: public", "sse": "aws:kms"},
                "--s3-kms-key: 'k\\r\\nx-amz-acl: public' is no id, alias or ARN of a key; write one",
            ),
            *(
                (
                    {"endpoint": endpoint},
                    f"--s3-endpoint: {endpoint!r} is no URL of a server; write http://host:port or https://host",
                )
                for endpoint in [
                    "localhost:9000",
                    "ftp://host",
                    "https://",
                    "http://host:port",
                    "http://host:0",
                    "http://host:70000",
                    "http://host/path",
                    "http://host?a=b",
                    "http://host#a",
                    "http://ho st",
                    " http://host",
                ]
            ),
        ],
    )
    def test_what_means_nothing_is_refused(self, options: dict[str, str], said: str) -> None:
        assert ended(UsageError, lambda: S3Options(**options)) == said

    def test_credentials_in_the_endpoint_are_refused_and_not_shown(self) -> None:
        message = ended(UsageError, lambda: S3Options(endpoint=f"https://id:{SECRET}@host"))
        told = (
            "--s3-endpoint: credentials do not belong in a URL; set AWS_PROFILE; write http://host:port or https://host"
        )
        assert message == told

    @pytest.mark.parametrize("endpoint", ["http://127.0.0.1:9000", "https://minio.local/", "http://[::1]:9000"])
    def test_good_endpoints(self, endpoint: str) -> None:
        assert S3Options(endpoint=endpoint).endpoint == endpoint

    def test_a_missing_right_for_the_key_is_named(self, server: Server) -> None:
        server.refuse = [(403, "AccessDenied")]
        store = S3Store(BUCKET, "run", s3=S3Options(sse="aws:kms"))
        needed = "s3:DeleteObject and s3:ListBucket, and kms:GenerateDataKey and kms:Decrypt for the key here"
        assert ended(StorageError, lambda: store.put("a", b"x")).endswith(needed)


class TestUrl:
    @pytest.mark.parametrize(
        ("url", "parts"),
        [
            ("s3://radar-runs", ("radar-runs", "")),
            ("s3://radar-runs/", ("radar-runs", "")),
            ("s3://radar.runs/a/b/", ("radar.runs", "a/b")),
        ],
    )
    def test_bucket_and_prefix(self, url: str, parts: tuple[str, str]) -> None:
        assert parse_s3(url) == parts

    @pytest.mark.parametrize(
        ("url", "said"),
        [
            ("", "storage: empty; write a folder or s3://bucket/prefix"),
            (
                "s3://",
                "storage: 's3://': '' is no bucket name (3 to 63 of a-z, 0-9, '.', '-'); write s3://bucket/prefix",
            ),
            ("s3:///a", "storage: 's3:///a': '' is no bucket name"),
            ("s3://Radar/a", "storage: 's3://Radar/a': 'Radar' is no bucket name"),
            ("s3:/bucket/a", "storage: 's3:/bucket/a' is no S3 URL; write s3://bucket/prefix"),
            ("S3://bucket/a", "storage: 'S3://bucket/a' is no S3 URL; write s3://bucket/prefix"),
            ("gs://bucket/a", "storage: gs: is no known scheme; write a folder or s3://bucket/prefix"),
            ("https://host/a", "storage: https: is no known scheme; write a folder or s3://bucket/prefix"),
            ("s3://bucket/../a", "storage: 's3://bucket/../a': the prefix holds '..'; write s3://bucket/prefix"),
            ("s3://bucket/a//b", "storage: 's3://bucket/a//b': the prefix holds '.' or an empty part; "),
            ("s3://bucket/a?region=x", "options are not taken from the URL; write s3://bucket/prefix and set AWS_"),
        ],
    )
    def test_a_malformed_url_is_refused(self, url: str, said: str) -> None:
        assert said in ended(UsageError, lambda: open_store(url))

    def test_credentials_in_a_url_are_refused_and_not_shown(self) -> None:
        message = ended(UsageError, lambda: open_store(f"s3://id:{SECRET}@bucket/a"))
        assert message == ("storage: credentials do not belong in a URL; write s3://bucket/prefix and set AWS_PROFILE")


def test_folders_of_names_that_no_key_can_begin_with_are_left_out(store: Source, tmp_path: Path) -> None:
    assert isinstance(store, FolderStore | S3Store)
    store.put("good/a", b"x")
    if isinstance(store, FolderStore):
        (tmp_path / "kept" / "odd\x1b[31m").mkdir()
        (tmp_path / "kept" / ".hidden").mkdir()
    assert store.folders() == ["good"]
