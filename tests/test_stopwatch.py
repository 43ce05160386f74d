from __future__ import annotations

import math
import time

import pytest

from tunelab.stopwatch import Stopwatch


def spend(seconds: float) -> None:
    """Without sleep, which may take as long as it likes."""
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        pass


def test_the_first_call_is_not_counted_and_the_others_are_taken_by_scan() -> None:
    watch = Stopwatch()
    assert math.isnan(watch.take())
    with watch.over(1):
        spend(0.2)
    assert math.isnan(watch.take())
    begun = time.perf_counter()
    for scans in (3, 1):
        with watch.over(scans):
            spend(0.01)
    most = 1000 * (time.perf_counter() - begun) / 4
    assert 2 * 10 / 4 <= watch.take() <= most
    assert math.isnan(watch.take()), "what was taken is not told twice"


def test_a_call_that_raises_is_not_counted() -> None:
    watch = Stopwatch()
    for _ in range(2):
        with pytest.raises(ValueError, match="no memory"), watch.over(1):
            raise ValueError("no memory")
    with watch.over(1):
        pass
    assert math.isnan(watch.take()), "the first that came to an end is the one that compiled"
