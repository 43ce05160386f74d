"""The watches that end machines nobody needs, with heads and commands of the tests' own."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tunelab.cluster import watch as watches
from tunelab.cluster.watch import head_answers, jobs_run, take_over, watch

TOUCH = [sys.executable, "-c", "import pathlib, sys; pathlib.Path(sys.argv[1]).touch(); sys.exit(3)"]
SOON = 0.2 / 60
"""Minutes."""


class Head(ThreadingHTTPServer):
    """A dashboard that asks for a token and tells of jobs."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Dashboard)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.jobs: object = []
        self.raw = b""
        self.asked = 0


class Dashboard(BaseHTTPRequestHandler):
    server: Head

    def do_GET(self) -> None:
        self.server.asked += 1
        if self.server.raw:
            self.wfile.write(self.server.raw)
            return
        allowed = self.headers["Authorization"] == "Bearer canary" and self.path == "/api/jobs/"
        said = json.dumps(self.server.jobs).encode() if allowed else b"no"
        self.send_response(200 if allowed else 401)
        self.send_header("Content-Length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def head(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Head]:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("RAY_AUTH_TOKEN", "canary")
    server = Head()
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize(
    ("statuses", "runs"),
    [
        ([], False),
        (["SUCCEEDED", "FAILED", "STOPPED"], False),
        (["SUCCEEDED", "RUNNING"], True),
        (["PENDING"], True),
    ],
)
def test_a_head_is_needed_while_a_job_runs_or_waits(head: Head, statuses: list[str], runs: bool) -> None:
    head.jobs = [{"status": status, "type": "SUBMISSION"} for status in statuses]
    assert jobs_run(head.url) is runs
    assert head.asked == 1


def test_a_head_that_says_nothing_sensible_has_no_job(head: Head, monkeypatch: pytest.MonkeyPatch) -> None:
    for raw in (
        b"HTTP/1.0 200 OK\r\n\r\n{",
        b"nonsense\r\n\r\n",
        b"HTTP/1.0 200 OK\r\nContent-Length: 9\r\n\r\n[]",
        b"\r\n",
    ):
        head.raw = raw
        assert jobs_run(head.url) is False, raw
    head.raw = b""
    for jobs in ({"result": False}, None, ["RUNNING"]):
        head.jobs = jobs
        assert jobs_run(head.url) is False, jobs
    head.jobs = [{"status": "RUNNING"}]
    assert jobs_run(head.url) is True
    monkeypatch.setenv("RAY_AUTH_TOKEN", "another")
    assert jobs_run(head.url) is False
    head.server_close()
    assert jobs_run("http://127.0.0.1:9") is False


def test_a_workers_head_answers_or_is_gone() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listens:
        port = listens.getsockname()[1]
        assert head_answers("127.0.0.1", port) is True
    assert head_answers("127.0.0.1", port) is False


def test_a_machine_is_ended_when_it_was_not_needed_for_the_time(tmp_path: Path) -> None:
    ended = tmp_path / "ended"
    asked: list[float] = []

    def needed() -> bool:
        asked.append(time.monotonic())
        assert not ended.exists(), "it was ended while it was needed"
        return len(asked) <= 5

    assert watch(needed, SOON, [*TOUCH, str(ended)], poll=0.06) == 3, "the exit code of the command"
    assert ended.exists()
    assert time.monotonic() - asked[4] >= SOON * 60, "the time counts from when it was needed last"
    assert len(asked) > 5


def test_one_that_is_needed_is_not_ended(tmp_path: Path) -> None:
    """Looks come later than the time that is allowed, as on a busy machine."""
    asked = []

    class EnoughError(Exception):
        pass

    def needed() -> bool:
        asked.append(1)
        if len(asked) == 4:
            raise EnoughError
        return True

    with pytest.raises(EnoughError):
        watch(needed, 0.02 / 60, [*TOUCH, str(tmp_path / "ended")], poll=0.05)
    assert not (tmp_path / "ended").exists()


@pytest.fixture
def started(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts watches as cluster.yaml does."""
    running: list[subprocess.Popen[str]] = []

    def start(*words: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "tunelab.cluster.watch", *words]
        env = {**os.environ, "HOME": str(tmp_path)}
        running.append(subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True))
        return running[-1]

    yield start
    for one in running:
        one.kill()
        one.communicate()


def until(what: Callable[[], bool], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end
        time.sleep(0.02)


def pid_in(file: Path) -> int:
    return int(file.read_text() or 0) if file.exists() else 0


def test_the_command_ends_the_machine_with_what_it_was_given(
    started: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    ended = tmp_path / "ended"
    # nothing listens at port 6379 of this address
    one = started(
        "worker", "--head", "127.1.2.3", "--minutes", str(SOON), "--poll", "0.05", "--shutdown", "touch", str(ended)
    )
    said, _ = one.communicate(timeout=60)
    assert one.returncode == 0
    assert ended.exists()
    assert "nobody has needed this machine for 0.00333333 minutes" in said
    assert pid_in(tmp_path / ".tunelab_watch") == one.pid


def test_a_later_watch_takes_over_from_an_earlier_one(
    started: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    file = tmp_path / ".tunelab_watch"
    words = ("worker", "--head", "127.1.2.3", "--minutes", "60", "--shutdown", "touch", str(tmp_path / "ended"))
    first = started(*words)
    until(lambda: pid_in(file) == first.pid)
    second = started(*words)
    assert first.wait(60) == -signal.SIGTERM
    until(lambda: pid_in(file) == second.pid)
    assert second.poll() is None
    assert not (tmp_path / "ended").exists()


def test_what_is_no_watch_is_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "pid"
    other = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE)
    try:
        for content in (str(other.pid), "", "x", "999999999", str(os.getpid())):
            file.write_text(content)
            take_over(file)
            assert pid_in(file) == os.getpid()
        assert other.poll() is None
    finally:
        other.communicate()


def test_a_worker_has_to_know_its_head(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        watches.main(["worker", "--minutes", "1"])
    assert "--head: missing; a worker's watch has to know it" in capsys.readouterr().err


def test_it_ends_the_machine_as_cluster_yaml_expects() -> None:
    assert watches.SHUTDOWN == ("sudo", "shutdown", "-h", "now")
    assert watches.POLL_SECONDS <= 60, "a poll is small beside the minutes that it is about"


def test_a_heads_watch_asks_its_own_dashboard(head: Head, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watches.jobs_run, "__defaults__", (head.url,))
    monkeypatch.setattr(watches, "PID_FILE", tmp_path / "pid")
    ended = tmp_path / "ended"
    head.jobs = [{"status": "RUNNING"}]

    def later() -> None:
        until(lambda: head.asked >= 8)
        assert not ended.exists()
        head.jobs = [{"status": "STOPPED"}]

    over = threading.Thread(target=later)
    over.start()
    words = ["head", "--minutes", str(SOON), "--poll", "0.05", "--shutdown", "touch", str(ended)]
    assert watches.main(words) == 0
    over.join()
    assert head.jobs == [{"status": "STOPPED"}], "it was ended after the job was over"
    assert ended.exists()
