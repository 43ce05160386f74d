"""Ctrl-C and SIGTERM: the first asks a search to end in good order, the second ends it at once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ray import tune

_received: list[int] = []


class InterruptStopper(tune.Stopper):  # type: ignore[misc]
    """Ends all trials once a signal has come. Holds no state, since Ray pickles it."""

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """No trial is stopped by its own result."""
        return False

    def stop_all(self) -> bool:
        """Whether a signal has come."""
        return received() != 0


def received() -> int:
    """The first signal that came, 0 when none did."""
    return _received[0] if _received else 0


@contextmanager
def caught_signals() -> Iterator[None]:
    """Remember SIGINT and SIGTERM instead of dying of the first; only the main thread can."""
    _received.clear()
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, _remember) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _remember(number: int, frame: object) -> None:
    if _received:
        raise KeyboardInterrupt
    _received.append(number)
