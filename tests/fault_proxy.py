"""A proxy before an S3 server whose faults are scripted request by request; standard library only.

Tests get one from the fixture ``fault_proxy`` (tests/conftest.py), with ``AWS_ENDPOINT_URL`` pointing at it. Faults are
used up in the order in which they were scripted: the first one whose ``when`` fits and that has ``times`` left takes
the request. Every request is remembered, with the bytes of bodies that went either way.

    fault_proxy.answer(503, "SlowDown", times=2)             # instead of asking the server
    fault_proxy.hang(when=lambda asked: asked.method == "PUT")  # no answer until release() or close()
    fault_proxy.reset(after=1000)                            # RST in the middle of the body that is sent or answered
    fault_proxy.cut(after=1000)                              # a clean end in the middle of the answer
    fault_proxy.slow(100_000)                                # bytes a second, both ways
    fault_proxy.flip(at=17, bit=3)                           # one bit of the answer's body
    fault_proxy.lose()                                       # RST instead of the answer, after the server has done it
    fault_proxy.run(act, when=...)                           # call act() before the request is passed on
    fault_proxy.down = True                                  # every connection is reset, until it is False again
    fault_proxy.clock = 3600.0                               # the server's clock is an hour ahead
    fault_proxy.unconditional = True                         # the server ignores conditions of writes
"""

from __future__ import annotations

import http.client
import os
import socket
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

ALWAYS = 1 << 60
_PIECE = 1 << 14
_NOT_PASSED_ON = {"connection", "transfer-encoding", "date", "server", "keep-alive"}


@dataclass(eq=False)
class Asked:
    """One request, as it came."""

    method: str
    path: str
    """Without the query."""
    query: str
    headers: dict[str, str]
    """Names in lower case."""
    connection: int
    """Number of the connection that it came by."""
    fault: str = ""
    """What was done to it."""
    status: int = 0
    """Of the answer; 0 without one."""
    received: int = 0
    """Bytes of its body that were taken."""
    sent: int = 0
    """Bytes of the answer's body that were sent."""

    @property
    def range(self) -> str:
        return self.headers.get("range", "")


@dataclass(eq=False)
class _Fault:
    kind: str
    when: Callable[[Asked], bool]
    times: int
    status: int = 0
    code: str = ""
    after: int = 0
    rate: float = 0.0
    at: int = 0
    bit: int = 0
    act: Callable[[], object] | None = None


class _Broken(Exception):  # noqa: N818 - no error: it is meant
    """This connection is over."""


@dataclass
class FaultProxy:
    """Listens on a free port of this machine once :meth:`start` was called."""

    upstream: int
    """Port of the S3 server."""
    asked: list[Asked] = field(default_factory=list)
    """Every request, in the order in which their heads came."""
    down: bool = False
    """Reset every connection."""
    clock: float = 0.0
    """Seconds by which ``Date`` and ``Last-Modified`` are ahead."""
    unconditional: bool = False
    """Take ``If-Match`` and ``If-None-Match`` from requests that put."""

    def __post_init__(self) -> None:
        self._faults: list[_Fault] = []
        self._held = 0
        self._turn = threading.Condition()
        self._released = threading.Event()
        self._closing = threading.Event()
        self._server: ThreadingHTTPServer | None = None

    def start(self) -> None:
        proxy = self

        class Handler(_Handler):
            owner = proxy

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.01,), name="fault proxy", daemon=True).start()

    def close(self) -> None:
        self._closing.set()
        self.release()
        if self._server:
            self._server.shutdown()
            self._server.server_close()

    @property
    def url(self) -> str:
        assert self._server
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def answer(self, status: int, code: str, *, when: Callable[[Asked], bool] | None = None, times: int = 1) -> None:
        """Answer with an error of S3 instead of asking the server; its body is read first."""
        self._add(_Fault("answer", when or _any, times, status=status, code=code))

    def hang(self, *, when: Callable[[Asked], bool] | None = None, times: int = 1) -> None:
        """Take the request, and say nothing until :meth:`release`; then close the connection."""
        self._add(_Fault("hang", when or _any, times))

    def reset(self, *, after: int, when: Callable[[Asked], bool] | None = None, times: int = 1) -> None:
        """Break the connection once ``after`` bytes of a body went through: the request's if it has one."""
        self._add(_Fault("reset", when or _any, times, after=after))

    def cut(self, *, after: int, when: Callable[[Asked], bool] | None = None, times: int = 1) -> None:
        """End the answer after ``after`` bytes of its body, although its head announces all."""
        self._add(_Fault("cut", when or _any, times, after=after))

    def slow(self, rate: float, *, when: Callable[[Asked], bool] | None = None, times: int = ALWAYS) -> None:
        """Let bodies pass at ``rate`` bytes a second, each request for itself."""
        self._add(_Fault("slow", when or _any, times, rate=rate))

    def flip(self, *, at: int, bit: int = 0, when: Callable[[Asked], bool] | None = None, times: int = 1) -> None:
        """Flip one bit of the answer's body; ``at`` is counted within this answer, round its end if need be."""
        self._add(_Fault("flip", when or _any, times, at=at, bit=bit))

    def lose(self, *, when: Callable[[Asked], bool] | None = None, times: int = 1) -> None:
        """Let the server do what is asked, then break the connection instead of answering."""
        self._add(_Fault("lose", when or _any, times))

    def run(self, act: Callable[[], object], *, when: Callable[[Asked], bool] | None = None, times: int = 1) -> None:
        """Call ``act`` once the request is here and before the server hears of it."""
        self._add(_Fault("run", when or _any, times, act=act))

    def clear(self) -> None:
        """Forget the faults not used up, and the requests."""
        with self._turn:
            self._faults.clear()
            self.asked.clear()

    def release(self) -> None:
        """Let all requests go that hang, now and later."""
        self._released.set()

    def wait_for_held(self, count: int, seconds: float = 60.0) -> None:
        """Wait until ``count`` requests hang."""
        with self._turn:
            assert self._turn.wait_for(lambda: self._held >= count, seconds), f"{self._held} of {count} requests hang"

    def count(self, when: Callable[[Asked], bool] | None = None) -> int:
        """How many requests came that fit."""
        return sum(map(when or _any, list(self.asked)))

    def sent(self) -> int:
        """Bytes of objects that were sent so far: the bodies of answers to GET requests for objects."""
        return sum(asked.sent for asked in list(self.asked) if asked.status in {200, 206} and is_object_read(asked))

    def _add(self, fault: _Fault) -> None:
        with self._turn:
            self._faults.append(fault)

    def _take(self, asked: Asked) -> _Fault | None:
        with self._turn:
            self.asked.append(asked)
            for fault in self._faults:
                if fault.times > 0 and fault.when(asked):
                    fault.times -= 1
                    asked.fault = fault.kind
                    return fault
            return None

    def _hold(self) -> None:
        with self._turn:
            self._held += 1
            self._turn.notify_all()
        self._released.wait()


def is_object_read(asked: Asked) -> bool:
    """Whether a request reads an object, and is no listing."""
    return asked.method == "GET" and asked.path.strip("/").count("/") >= 1


def _any(_: Asked) -> bool:
    return True


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    owner: FaultProxy
    disable_nagle_algorithm = True

    def relay(self) -> None:
        if self.owner.down:
            self._break()
            return
        url = urlsplit(self.path)
        headers = {name.lower(): value for name, value in self.headers.items()}
        asked = Asked(self.command, url.path, url.query, headers, self.client_address[1])
        fault = self.owner._take(asked)
        try:
            self._relay(asked, fault or _Fault("", _any, 0))
        except _Broken:
            self._break()
        except (ConnectionError, TimeoutError):  # the client is gone
            self.close_connection = True

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = relay  # noqa: N815

    def log_message(self, format: str, *args: object) -> None:
        pass

    def _relay(self, asked: Asked, fault: _Fault) -> None:
        if fault.kind == "hang":
            self.owner._hold()
            raise _Broken
        length = int(asked.headers.get("content-length", 0))
        body = self._body(asked, fault, length)
        if fault.kind == "answer":
            told = f"<Error><Code>{fault.code}</Code><Message>scripted</Message></Error>".encode()
            self._answer(asked, fault, fault.status, {}, b"" if asked.method == "HEAD" else told)
            return
        if fault.act is not None:
            fault.act()
        server = http.client.HTTPConnection("127.0.0.1", self.owner.upstream)
        try:
            without = ("if-match", "if-none-match") if self.owner.unconditional and self.command == "PUT" else ()
            headers = {name: value for name, value in self.headers.items() if name.lower() not in without}
            server.request(self.command, self.path, body, headers)
            with server.getresponse() as given:
                answer, passed = given.read(), dict(given.getheaders())
                if fault.kind == "lose":
                    raise _Broken
                self._answer(asked, fault, given.status, passed, answer)
        finally:
            server.close()

    def _body(self, asked: Asked, fault: _Fault, length: int) -> bytes:
        assert "chunked" not in asked.headers.get("transfer-encoding", ""), "bodies come with their length"
        body = bytearray()
        while len(body) < length:
            most = length if fault.kind != "reset" else min(length, fault.after)
            piece = self.rfile.read(min(_PIECE, most - len(body)))
            if not piece:
                raise _Broken
            body += piece
            asked.received = len(body)
            self._wait(fault, len(piece))
        return bytes(body)

    def _answer(self, asked: Asked, fault: _Fault, status: int, headers: dict[str, str], body: bytes) -> None:
        if fault.kind == "flip" and body:
            place = fault.at % len(body)
            body = body[:place] + bytes([body[place] ^ (1 << fault.bit % 8)]) + body[place + 1 :]
        asked.status = status
        self.send_response_only(status)
        self.send_header("Date", self.date_time_string(time.time() + self.owner.clock))
        for name, value in headers.items():
            if name.lower() == "last-modified":
                value = self.date_time_string(parsedate_to_datetime(value).timestamp() + self.owner.clock)
            if name.lower() not in _NOT_PASSED_ON:
                self.send_header(name, value)
        if "content-length" not in {name.lower() for name in headers}:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        until = min(len(body), fault.after) if fault.kind in {"reset", "cut"} else len(body)
        for start in range(0, until, _PIECE):
            piece = body[start : min(start + _PIECE, until)]
            self.wfile.write(piece)
            asked.sent += len(piece)
            self._wait(fault, len(piece))
        if fault.kind == "reset":
            raise _Broken
        if fault.kind == "cut":
            self.close_connection = True

    def _wait(self, fault: _Fault, size: int) -> None:
        if fault.kind == "slow":
            self.owner._closing.wait(size / fault.rate)

    def _break(self) -> None:
        """End the connection with RST, at once."""
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        os.close(self.connection.detach())
