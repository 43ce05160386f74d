"""How long a model takes to answer a scan: the calls that are made anyway, but for the first, which compiles."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager


class Stopwatch:
    """Adds up calls of one model. A call that raises is not counted."""

    def __init__(self) -> None:
        self._warm = False
        self._seconds, self._scans = 0.0, 0

    @contextmanager
    def over(self, scans: int) -> Iterator[None]:
        """A call, from its input to an answer that is there.

        Args:
            scans: how many it answers.
        """
        begun = time.perf_counter()
        yield
        if self._warm:
            self._seconds += time.perf_counter() - begun
            self._scans += scans
        self._warm = True

    def take(self) -> float:
        """Milliseconds a scan over the calls since this was last asked; NaN where none counts."""
        taken = 1000 * self._seconds / self._scans if self._scans else math.nan
        self._seconds, self._scans = 0.0, 0
        return taken
