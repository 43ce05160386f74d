"""Words of the command line as numbers."""

from __future__ import annotations

import argparse

import pytest

from tunelab.command import dollars, hours, positive, seconds, share, size


@pytest.mark.parametrize(
    ("text", "value"),
    [("90s", 90), ("30m", 1800), ("1h30m", 5400), ("1.5h", 5400), ("2d", 172800), ("0.5s", 0.5), ("1d2h3m4s", 93784)],
)
def test_times(text, value):
    assert seconds(text) == value


@pytest.mark.parametrize("text", ["", "90", "s", "1x", "-1s", "1h 30m", "30m later", "1,5h", "1e3s", "1h30"])
def test_words_that_are_no_time(text):
    with pytest.raises(argparse.ArgumentTypeError) as caught:
        seconds(text)
    assert str(caught.value) == f"{text!r} is no time; write such as 90s, 30m or 1h30m"


@pytest.mark.parametrize("text", ["0s", "0h0m"])
def test_no_time_at_all(text):
    with pytest.raises(argparse.ArgumentTypeError, match="is no time at all"):
        seconds(text)


@pytest.mark.parametrize(
    ("text", "value"),
    [("0", 0), ("500", 500), ("12kB", 12_000), ("500MB", 500_000_000), ("1.5 GB", 1_500_000_000), ("2T", 2 * 10**12)],
)
def test_sizes(text, value):
    assert size(text) == value


@pytest.mark.parametrize("text", ["", "GB", "-1GB", "1e3", "5 gigabytes", "1GiB", "1,5GB"])
def test_words_that_are_no_size(text):
    with pytest.raises(argparse.ArgumentTypeError) as caught:
        size(text)
    assert str(caught.value) == f"{text!r} is no size; write such as 500MB or 50GB"


def test_gpu_hours():
    assert (hours("2"), hours("0.25"), hours("0")) == (2.0, 0.25, 0.0)
    for text in ("", "two", "2h", "-1", "nan", "inf"):
        with pytest.raises(argparse.ArgumentTypeError) as caught:
            hours(text)
        assert str(caught.value) == f"{text!r} is no number of GPU-hours; write such as 2 or 0.5"


def test_dollars():
    assert (dollars("20"), dollars("$2.5"), dollars("0")) == (20.0, 2.5, 0.0)
    for text in ("", "$", "two", "2 USD", "-1", "nan", "inf"):
        with pytest.raises(argparse.ArgumentTypeError) as caught:
            dollars(text)
        assert str(caught.value) == f"{text!r} is no number of US dollars; write such as 20 or 2.5"


def test_resources():
    assert (positive("0.25"), share("0"), share("2")) == (0.25, 0.0, 2.0)
    for convert, text in ((positive, "0"), (share, "-1"), (share, "nan"), (share, "inf"), (share, "one")):
        with pytest.raises(argparse.ArgumentTypeError):
            convert(text)
