"""How fast bytes arrive, said once when that is slow. Keeps no clock: it is told the time."""

from __future__ import annotations

from collections import deque

from tunelab.files import size_text


class Pace:
    """Watches the bytes that have arrived.

    Args:
        rate: bytes a second below which a link is slow.
        seconds: over which the rate is taken.
    """

    def __init__(self, rate: float, seconds: float) -> None:
        self._rate = rate
        self._seconds = seconds
        self._marks: deque[tuple[float, int]] = deque()
        self._said = False

    def slow(self, now: float, received: int, left: int) -> str | None:
        """The rate and the time that is left, where the rate is low for the first time; otherwise None.

        Args:
            now: seconds on any clock that only goes forward.
            received: bytes up to now.
            left: bytes still to come.
        """
        self._marks.append((now, received))
        while len(self._marks) > 1 and now - self._marks[1][0] >= self._seconds:
            self._marks.popleft()
        since, before = self._marks[0]
        if self._said or left <= 0 or now - since < self._seconds:
            return None
        rate = (received - before) / (now - since)
        if rate >= self._rate:
            return None
        self._said = True
        if not rate:
            return f"nothing has arrived for {now - since:.0f} s; it is tried further ({size_text(left)} are left)"
        return (
            f"the link is slow: {size_text(rate)} a second over the last {now - since:.0f} s; {size_text(left)} are "
            f"left, about {span(left / rate)}; the download goes on"
        )


def span(seconds: float) -> str:
    """A time for a reader: ``40 s``, ``12 min``, ``3 h 20 min``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
