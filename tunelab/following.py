"""What the commands share that show a run in a browser while it goes on: addresses, signals, and looks at the run."""

from __future__ import annotations

import ipaddress
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

from tunelab.errors import TunelabError, UsageError

HOST = "127.0.0.1"
SECONDS, SECONDS_OF_A_BUCKET = 5.0, 30.0
"""Between two looks at a journal."""
_SHARE = 0.05  # of the time that looks may take; what takes long is looked at less often
_LEAVING = 10.0  # seconds that a look under way may take to end


@contextmanager
def following(
    look: Callable[[], object], every: float, say: Callable[[str], None], *, stop: threading.Event | None = None
) -> Iterator[None]:
    """Look again and again, in a thread of its own, while the block runs.

    Args:
        look: may raise TunelabError, which is said once; the next look may find all well again.
        every: seconds between two looks; more where they take long.
        say: told what went wrong.
        stop: set when the block is over, for looks that end early then.
    """
    over = stop or threading.Event()
    thread = threading.Thread(target=_follow, args=(look, every, over, say), name="follower", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(_LEAVING)


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """Ctrl-C, SIGTERM and SIGHUP run what is to be done at the end; only the main thread can be told so.

    Ctrl-C raises KeyboardInterrupt, also where a shell started this in the background and had it ignore Ctrl-C; the
    others SystemExit with the code that shells give. What ``nohup`` has it ignore stays ignored.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {signal.SIGINT: signal.signal(signal.SIGINT, signal.default_int_handler)}
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_DFL:
            before[number] = signal.signal(number, _leave)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def check_loopback(host: str, what: str) -> None:
    """Refuse a host that other machines can reach.

    Args:
        host: to listen at.
        what: would be reached.

    Raises:
        UsageError: it is not the loopback, or unknown.
    """
    try:
        found = {str(one[4][0]).partition("%")[0] for one in socket.getaddrinfo(host, None)}
    except (OSError, UnicodeError) as error:
        raise cannot_listen(host, 0, error) from error
    if not all(ipaddress.ip_address(one).is_loopback for one in found):
        raise UsageError(
            f"--host {host}: is not the loopback; {what} asks nobody who they are. Leave out --host, and from another "
            "machine forward a port over ssh: ssh -L PORT:127.0.0.1:PORT HOST"
        )


def check_free(host: str, port: int) -> None:
    """Refuse an address that cannot be listened at now.

    Raises:
        UsageError: says why.
    """
    try:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as tried:
            tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            tried.bind((host, port))
            tried.listen()
    except (OSError, OverflowError, UnicodeError) as error:
        raise cannot_listen(host, port, error) from error


def cannot_listen(host: str, port: int, error: Exception) -> UsageError:
    """An address that cannot be listened at, with the remedy."""
    why = error.strerror if isinstance(error, OSError) else error
    return UsageError(
        f"--host {host} --port {port}: {why}; give another --port, 0 for any that is free, or leave out --host"
    )


def _leave(number: int, frame: FrameType | None) -> NoReturn:
    raise SystemExit(128 + number)


def _follow(look: Callable[[], object], every: float, over: threading.Event, say: Callable[[str], None]) -> None:
    said, pause = "", every
    while not over.wait(pause):
        began, fault = time.monotonic(), ""
        try:
            look()
        except TunelabError as error:  # the next look may find it whole, or there, again
            fault = str(error)
        if fault and fault != said and not over.is_set():
            say(f"Warning: {fault}")
        said, pause = fault, max(every, (time.monotonic() - began) / _SHARE)
