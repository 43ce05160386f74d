"""What a process writes, drained without end and without harm: the beginning and the end are kept, in memory."""

from __future__ import annotations

import os
import threading
from typing import IO

KEEP = 32_000
"""Bytes of the beginning, and as many of the end: a traceback each, however much is written in between."""


class Drain:
    """Reads a pipe to its end in a thread of its own, so that who writes never waits.

    Args:
        pipe: the reading end; closed once it has ended.
    """

    def __init__(self, pipe: IO[bytes]) -> None:
        self._pipe = pipe
        self._head = bytearray()
        self._tail = bytearray()
        self._count = 0
        self._turn = threading.Lock()
        self._thread = threading.Thread(target=self._work, name="output", daemon=True)
        self._thread.start()

    @property
    def count(self) -> int:
        """Bytes so far."""
        return self._count

    def text(self) -> str:
        """The beginning and the end, and how much lay between."""
        with self._turn:
            head, tail, left = bytes(self._head), bytes(self._tail), self._count - len(self._head) - len(self._tail)
        between = f"\n... {left:,} bytes left out ...\n".encode() if left else b""
        return (head + between + tail).decode(errors="replace")

    def close(self, wait: float = 2.0) -> None:
        """Wait for the end, which comes when all that hold the other end are gone.

        Args:
            wait: seconds; a process that still writes then is read on in the background.
        """
        self._thread.join(wait)

    def _work(self) -> None:
        with self._pipe:
            while raw := os.read(self._pipe.fileno(), 65536):
                with self._turn:
                    self._count += len(raw)
                    room = KEEP - len(self._head)
                    self._head += raw[:room]
                    self._tail += raw[room:]
                    del self._tail[:-KEEP]
