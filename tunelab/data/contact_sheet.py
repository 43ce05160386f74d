"""A data set as one picture: B-scans in a grid, each with a bar above it that marks its positive traces.

For the eye alone: a panel shows a scan after its mean trace is removed, thinned out, clipped and lifted. What a
model is given is decided by :mod:`tunelab.data.preprocess`, not here. The same data set gives the same bytes.
"""

from __future__ import annotations

import io
import math
import textwrap
import warnings
from bisect import bisect_left
from itertools import zip_longest
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.text import Text
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from tunelab.data.dataset import SPLITS, Dataset
from tunelab.errors import UsageError
from tunelab.files import write_file

MOST = 24
"""Scans on a sheet."""
PERCENTILE = 98
"""Of the magnitudes of a scan without its mean trace: what is larger is shown as black or white."""
LIFT = 0.6
"""Power of the magnitudes below that: deep objects show beside a rough surface, and noise does not drown the rest."""

POSITIVE = (0xE6, 0x4B, 0x00)
"""Red, green and blue of the positive traces' part of a bar: told from grey by every eye."""
NEGATIVE = (0xD9, 0xE2, 0xEC)
"""Of the other traces' part; a little blue, so that no grey of a scan has it."""

_COLUMNS = 4
_DPI = 100
_GREYS = 15  # on either side of the middle: a sheet of nothing but noise stays below 3 MB
_WIDE, _HIGH = 300, 260  # pixels of a panel; what is thinned out to them need not be scaled down any more
_BAR, _GAP = 14, 4  # pixels of the bar, and between it and the scan
_LEFT, _BETWEEN, _RIGHT = 56, 28, 16
_TITLE, _BELOW = 24, 26  # pixels above the bar and below the scan
_HEAD, _LINE, _FOOT = 54, 15, 20  # title and legend, a line of text between them, the word below the last row
_STYLE: dict[Any, Any] = {
    "text.parse_math": False,  # a '$' in an id is a '$'
    "font.family": "sans-serif",
    "font.size": 8,
    "axes.titlesize": 8.5,
    "axes.titlepad": 4,
    "axes.spines.left": False,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.spines.bottom": False,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "image.resample": False,
}


def draw(dataset: Dataset, path: Path, most: int = MOST) -> None:
    """Write a PNG of some of the scans: traces from left to right, time downwards, a bar above for the labels.

    Scans with positives come first, as many of each split, or fold, as of the others, evenly taken from its ids; the
    others only where there is room left. Of scans with more traces than a panel has pixels some are left out, but no
    positive run; samples are averaged. The mean trace is removed where there is more than one trace. Reads the scans
    that are shown, one at a time.

    Args:
        dataset: any; not changed.
        path: ends with ``.png``; what is there is replaced.
        most: scans at most, 1 to :data:`MOST`.

    Raises:
        UsageError: another suffix.
        StorageError: it cannot be written.
    """
    if not 1 <= most <= MOST:
        raise ValueError(f"most: {most} is not from 1 to {MOST}")
    if path.suffix.lower() != ".png":
        raise UsageError(f"{str(path)!r}: a contact sheet is a PNG; give a name that ends with .png")
    write_file(path, _png(dataset, choose(dataset, most)))


def choose(dataset: Dataset, most: int) -> list[int]:
    """Positions of the scans that are shown, split by split or fold by fold, as :func:`draw` tells.

    Args:
        dataset: any.
        most: scans at most.
    """
    places, holding = dataset.places, dataset.positives_of_scans() > 0
    order = [*(f"fold {k}" for k in range(dataset.n_folds)), *([] if dataset.folds else SPLITS[:-1]), "test"]
    chosen: list[int] = []
    for wanted in (True, False):
        there = [[i for i, at in enumerate(places) if at == place and holding[i] == wanted] for place in order]
        chosen += _dealt(there, most - len(chosen))
    return sorted(chosen, key=lambda scan: (order.index(places[scan]), scan))


def _dealt(there: list[list[int]], most: int) -> list[int]:
    """As many of each list as of the others, where it has them, evenly over each."""
    turns = (k for turn in zip_longest(*([k] * len(scans) for k, scans in enumerate(there))) for k in turn)
    taken = [k for k in turns if k is not None][:most]
    shares = [(scans, taken.count(k)) for k, scans in enumerate(there)]
    return [scans[(2 * n + 1) * len(scans) // (2 * share)] for scans, share in shares for n in range(share)]


def _png(dataset: Dataset, chosen: list[int]) -> bytes:
    columns = min(_COLUMNS, len(chosen))
    rows = math.ceil(len(chosen) / columns)
    room = columns * (_WIDE + _BETWEEN) - _BETWEEN
    how = _how(dataset, len(chosen), room)
    above = _HEAD + _LINE * (how.count("\n") + 1)
    high = _TITLE + _BAR + _GAP + _HIGH + _BELOW
    size = (_LEFT + room + _RIGHT, above + rows * high + _FOOT)
    buffer = io.BytesIO()
    with mpl.rc_context(), warnings.catch_warnings():
        # an id may have letters that no font here has; a box is shown for them
        warnings.filterwarnings("ignore", message=r"Glyph .* missing from font|Matplotlib currently does not support")
        mpl.rcdefaults()  # whatever the user's own matplotlibrc says
        mpl.rcParams.update(_STYLE)
        figure = Figure(figsize=(size[0] / _DPI, size[1] / _DPI), dpi=_DPI, facecolor="white")
        FigureCanvasAgg(figure)
        _write_head(figure, dataset.source, how, size)
        for number, scan in enumerate(chosen):
            row, column = divmod(number, columns)
            left = _LEFT + column * (_WIDE + _BETWEEN)
            bottom = size[1] - above - (row + 1) * high + _BELOW
            height = _HIGH + _GAP + _BAR
            axes = figure.add_axes((left / size[0], bottom / size[1], _WIDE / size[0], height / size[1]))
            _panel(axes, dataset, scan, first=column == 0, last=number + columns >= len(chosen))
        figure.savefig(buffer, format="png", metadata={"Software": None})  # with its version the bytes would change
    return buffer.getvalue()


def _how(dataset: Dataset, shown: int, room: int) -> str:
    """What is shown and what was done to it, in lines of some pixels."""
    return textwrap.fill(
        f"{shown:,} of {dataset.n_scans:,} scans. For the eye alone: mean trace removed, clipped at the {PERCENTILE}th "
        f"percentile of magnitude, weak samples lifted (power {LIFT:g}).",
        room // 7,
    )


def _write_head(figure: Figure, source: str, how: str, size: tuple[int, int]) -> None:
    left, y = _LEFT / size[0], size[1] - 8
    title = figure.text(left, y / size[1], "", va="top", fontsize=11, fontweight="bold")
    _fit(title, source, size[0] - _LEFT - _RIGHT)
    y -= 19
    figure.text(left, y / size[1], how, va="top", fontsize=8.5, linespacing=1.15)
    y -= _LINE * (how.count("\n") + 1) + 1
    figure.legend(
        [_swatch(POSITIVE), _swatch(NEGATIVE)],
        ["positive traces", "other traces"],
        loc="upper left",
        bbox_to_anchor=(left, y / size[1]),
        ncols=2,
        frameon=False,
        borderpad=0,
        borderaxespad=0,
    )


def _swatch(colour: tuple[int, int, int]) -> Patch:
    red, green, blue = (part / 255 for part in colour)
    return Patch(facecolor=(red, green, blue), linewidth=0)


def _panel(axes: Axes, dataset: Dataset, scan: int, *, first: bool, last: bool) -> None:
    """Draw one scan.

    Args:
        axes: high enough for the bar too.
        dataset: any.
        scan: its position.
        first: whether it is the first of its row.
        last: whether none is below it.
    """
    traces, window = int(dataset.lengths[scan]), dataset.n_samples * (1.0 if dataset.dt is None else dataset.dt * 1e9)
    end = int(dataset.lengths[: scan + 1].sum())
    labels = dataset.labels[end - traces : end]
    top, bar = -(_GAP + _BAR) / _HIGH * window, -_GAP / _HIGH * window
    sides = (-0.5, traces - 0.5)
    axes.imshow(grey(dataset.samples.read(scan)), extent=(*sides, window, 0), aspect="auto", interpolation="nearest")
    axes.imshow(_bar(labels), extent=(*sides, bar, top), aspect="auto", interpolation="nearest")
    axes.set_xlim(*sides)
    axes.set_ylim(window, top)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=1))
    axes.yaxis.set_major_locator(MaxNLocator(5, integer=dataset.dt is None, min_n_ticks=1))
    positive = int(np.count_nonzero(labels))
    place = dataset.places[scan]
    _name(axes, dataset.scans[scan], f"{place}   {positive:,} / {traces:,} positive")
    if first:
        axes.set_ylabel("sample" if dataset.dt is None else "time, ns")
    if last:
        axes.set_xlabel("trace")


def _name(axes: Axes, scan: str, rest: str) -> None:
    """The title of a panel: the id, in the room that the rest leaves."""
    right = axes.set_title(rest, loc="right")
    _fit(axes.set_title("", loc="left", fontweight="bold"), scan, _WIDE - right.get_window_extent().width - 10)


def _fit(place: Text, text: str, room: float) -> None:
    """Show one line of text, cut to some pixels; what cannot be printed is shown as ``?``."""
    line = "".join(letter if letter.isprintable() else "?" for letter in text)

    def width(longest: int) -> float:
        place.set_text(line if longest >= len(line) else line[:longest] + "...")
        return place.get_window_extent().width

    most = min(len(line), int(room / 3))  # hardly a letter is narrower than 3 pixels
    if width(most) > room:
        width(max(0, bisect_left(range(most), True, key=lambda longest: width(longest) > room) - 1))


def grey(traces: NDArray[np.float32]) -> NDArray[np.uint8]:
    """A scan as an image: shape (trace, sample) -> (sample, trace, 3), both sides thinned out to a panel's pixels."""
    picked = traces[_starts(traces.shape[0], _WIDE)].astype(np.float64)
    starts = _starts(traces.shape[1], _HIGH)
    thin = np.add.reduceat(picked, starts, axis=1) / np.diff(starts, append=traces.shape[1])
    largest = float(np.abs(thin).max())
    if len(thin) > 1:
        thin -= thin.mean(axis=0)
    # what is left of equal traces is rounding, which no clipping should bring out
    limit = max(float(np.percentile(np.abs(thin), PERCENTILE)), largest * 2.0**-23)
    level = np.clip(thin / limit, -1, 1) if limit > 0 else thin
    level = np.sign(level) * np.abs(level) ** LIFT
    image = np.round(127.5 + 127.5 * np.round(level * _GREYS) / _GREYS).astype(np.uint8)
    return np.repeat(image.T[:, :, np.newaxis], 3, axis=2)


def _bar(labels: NDArray[np.int8]) -> NDArray[np.uint8]:
    """The bar, shape (1, pixel, 3): a pixel is positive where any of its traces is."""
    positive = np.maximum.reduceat(labels, _starts(labels.size, _WIDE)) == 1
    return np.where(positive[:, np.newaxis], POSITIVE, NEGATIVE).astype(np.uint8)[np.newaxis]


def _starts(n: int, most: int) -> NDArray[np.intp]:
    """Where each of at most ``most`` about equal blocks of n begins."""
    blocks = min(n, most)
    return np.arange(blocks) * n // blocks
