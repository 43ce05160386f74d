"""The average of weights over epochs, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from tunelab.averaging import averaged
from tunelab.checkpoint import Arrays


def test_the_average_is_adams() -> None:
    """m = a m + (1 - a) w from zero, over 1 - a ** epoch."""
    rng = np.random.default_rng(0)
    weights = [[rng.normal(size=(3, 2)).astype(np.float32), rng.normal(size=4).astype(np.float32)] for _ in range(6)]
    sums, average = [np.zeros((3, 2)), np.zeros(4)], []
    for epoch, own in enumerate(weights, 1):
        sums = [0.7 * one + 0.3 * new for one, new in zip(sums, own, strict=True)]
        average = averaged(average, own, 0.7, epoch)
        for found, expected in zip(average, sums, strict=True):
            assert found.dtype == np.float32
            np.testing.assert_allclose(found, expected / (1 - 0.7**epoch), rtol=1e-5, atol=1e-7)


def test_the_first_average_is_the_weights_and_no_array_is_changed() -> None:
    first, second = [np.array([1.0, 2.0], np.float32)], [np.array([3.0, 6.0], np.float32)]
    average = averaged((), first, 0.5, 1)
    np.testing.assert_array_equal(average[0], first[0])
    after = averaged(average, second, 0.5, 2)
    np.testing.assert_allclose(after[0], [(0.25 * 1 + 0.5 * 3) / 0.75, (0.25 * 2 + 0.5 * 6) / 0.75], rtol=1e-6)
    np.testing.assert_array_equal(first[0], [1, 2])
    np.testing.assert_array_equal(second[0], [3, 6])


@pytest.mark.parametrize("share", [0.001, 0.5, 0.999])
def test_variances_stay_above_zero_and_counts_are_taken_as_they_are(share: float) -> None:
    average: Arrays = ()
    for epoch, variance in enumerate((1e-12, 0.0, 1e6, 0.0, 1e-30, 0.0), 1):
        average = averaged(average, [np.array([variance], np.float32), np.array(epoch)], share, epoch)
        assert average[0][0] >= 0
        assert average[1] == epoch
