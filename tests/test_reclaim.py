"""The notice before a spot machine is taken back, from a metadata service that wants sessions, as EC2's does."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tunelab import reclaim
from tunelab.reclaim import Notice, endpoint


class Service(ThreadingHTTPServer):
    notice: str | None = None
    sessions = 0
    refused = 0


class Answers(BaseHTTPRequestHandler):
    server: Service

    def do_PUT(self) -> None:
        self.server.sessions += 1
        assert self.headers["X-aws-ec2-metadata-token-ttl-seconds"]
        self.answer(200, "session")

    def do_GET(self) -> None:
        if self.headers["X-aws-ec2-metadata-token"] != "session":
            self.server.refused += 1
            self.answer(401, "")
        elif self.path != "/latest/meta-data/spot/instance-action" or self.server.notice is None:
            self.answer(404, "")
        else:
            self.answer(200, self.server.notice)

    def answer(self, status: int, text: str) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def service() -> Iterator[Service]:
    with Service(("127.0.0.1", 0), Answers) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def address(service: Service) -> str:
    return f"http://127.0.0.1:{service.server_address[1]}/"


def test_a_notice_is_seen_when_it_is_given(service: Service) -> None:
    notice = Notice(address(service), poll=0.01)
    assert notice.ask() == ""
    notice.watch()
    assert notice.said == ""
    service.notice = json.dumps({"action": "terminate", "time": "2026-01-02T03:04:05Z"})
    for _ in range(1000):
        if notice.said:
            break
        threading.Event().wait(0.01)
    assert notice.said == "terminate at 2026-01-02T03:04:05Z"
    assert (service.sessions, service.refused) == (1, 0), "one session serves many questions"


@pytest.mark.parametrize("answer", ["", "no json", "[]", '{"action": "terminate"}'])
def test_what_is_no_notice_is_none(service: Service, answer: str) -> None:
    service.notice = answer
    assert Notice(address(service)).ask() == ""


def test_where_nobody_answers_there_is_no_notice_and_no_error() -> None:
    assert Notice("http://127.0.0.1:9").ask() == ""
    notice = Notice("")
    notice.watch()
    assert "reclaim" not in {thread.name for thread in threading.enumerate()}


def test_only_machines_of_ec2_are_asked(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    vendor = tmp_path_factory.mktemp("dmi") / "sys_vendor"
    monkeypatch.setattr(reclaim, "_VENDOR", vendor)
    monkeypatch.delenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", raising=False)
    monkeypatch.delenv("AWS_EC2_METADATA_DISABLED", raising=False)
    assert endpoint() == ""
    vendor.write_text("Some Vendor\n")
    assert endpoint() == ""
    vendor.write_text("Amazon EC2\n")
    assert endpoint() == reclaim.ENDPOINT
    monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://127.0.0.1:1338")
    assert endpoint() == "http://127.0.0.1:1338"
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    assert endpoint() == ""
