"""The report's figures as inline SVG that follows the page's colours.

matplotlib draws; its colours are stand-ins, exchanged for the page's CSS variables afterwards, so that one figure
serves light and dark pages. Text stays text. Nothing in a figure depends on the time or place it was drawn.
"""

from __future__ import annotations

import io
import math
import re
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from tunelab.ranking import Epoch, Trial
from tunelab.report.words import clean

LEADERS = 5
"""How many trials have their learning curves drawn."""

NAMED = 12
"""How many trials of a front are named in its figure."""

_INK, _MUTED, _RULE, _BASELINE = "#010101", "#010102", "#010103", "#010104"
_SERIES = ("#020201", "#020202", "#020203", "#020204", "#020205")
_CSS = {_INK: "ink", _MUTED: "muted", _RULE: "rule", _BASELINE: "baseline"} | {
    colour: f"series-{number}" for number, colour in enumerate(_SERIES, start=1)
}
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "text.parse_math": False,  # a '$' in a trial's name is a '$'
    "font.family": "sans-serif",
    "font.size": 9,
    "text.color": _INK,
    "axes.edgecolor": _RULE,
    "axes.labelcolor": _MUTED,
    "axes.titlesize": 10,
    "axes.titlecolor": _INK,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": _RULE,
    "grid.linewidth": 0.6,
    "xtick.color": _MUTED,
    "ytick.color": _MUTED,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
}


def learning_curves(leaders: Sequence[Trial], baseline: float | None) -> str:
    """Validation F1 and tune average precision by epoch; a ring marks each trial's chosen epoch.

    Args:
        leaders: best first; the first :data:`LEADERS` are drawn.
        baseline: F1 of always answering positive on validation.
    """

    def draw(figure: Figure) -> None:
        f1, dense = figure.subplots(1, 2, sharex=True, sharey=True)
        for rank, (trial, colour) in enumerate(zip(leaders, _SERIES, strict=False), start=1):
            label = f"{rank}  {clean(trial.name or trial.trial, 28)}"
            _curve(f1, trial, "val_f1", colour, label)
            _curve(dense, trial, "tune_average_precision", colour, label)
        f1.set_title("Validation F1")
        dense.set_title("Average precision on tune")
        _baseline(f1, baseline)
        for axes in (f1, dense):
            axes.set_xlabel("epoch")
            axes.set_ylim(bottom=0)
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        handles, labels = dense.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=len(labels) or 1)

    return _svg("learning-curves", (9.6, 3.7), draw)


def all_trials(trials: Sequence[Trial], baseline: float | None) -> str:
    """Validation F1 of every trial in the order they began; failed ones, and those without, on the axis.

    Args:
        trials: oldest first.
        baseline: F1 of always answering positive on validation.
    """

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for status, marker, colour, filled in _MARKS:
            points = [(n, _height(t)) for n, t in enumerate(trials, start=1) if t.status == status]
            if points:
                x, y = zip(*points, strict=True)
                face = colour if filled else "none"
                look: dict[str, Any] = (
                    {"color": colour} if marker == "x" else {"edgecolors": colour, "facecolors": face}
                )
                axes.scatter(x, y, s=26, marker=marker, linewidths=1.2, label=status, clip_on=False, zorder=3, **look)
        over_folds = any(t.pooled for t in trials)  # then those on the first fold only cannot be compared with the best
        there = [(n, t) for n, t in enumerate(trials, start=1) if t.status != "failed" and (t.pooled or not over_folds)]
        best = [(n, t.val_f1) for n, t in there if t.val_f1 == t.val_f1]
        steps = [(n, max(v for _, v in best[: i + 1])) for i, (n, _) in enumerate(best)]
        if steps:
            steps.append((len(trials), steps[-1][1]))
            axes.step(*zip(*steps, strict=True), where="post", color=_SERIES[0], linewidth=1, alpha=0.55)
        _baseline(axes, baseline)
        axes.set_ylim(bottom=0)
        axes.set_xlim(0.4, max(len(trials), 1) + 0.6)
        axes.set_xlabel("trial, in the order they began")
        axes.set_ylabel("validation F1")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        figure.legend(loc="outside lower center", ncols=6)

    return _svg("all-trials", (9.6, 3.1), draw)


def front_of(
    trials: Sequence[tuple[float, float]],
    breaking: Sequence[tuple[float, float]],
    front: Sequence[tuple[str, float, float]],
    *,
    axes: tuple[str, str],
    less: tuple[bool, bool],
) -> str:
    """Trials by two objectives, those of the front named and joined; undefined values are left out.

    Args:
        trials: the first and the second objective of those that keep all constraints, the front among them.
        breaking: the same of the others.
        front: name, first and second objective.
        axes: what the first and the second objective are called.
        less: whether less is better of each; its values are then above 0.
    """
    named = sorted((second, first, name) for name, first, second in front if math.isfinite(first + second))
    best = [(first, second) for second, first, _ in named]
    groups: list[tuple[str, Sequence[tuple[float, float]], dict[str, Any]]] = [
        ("breaks a constraint", breaking, {"marker": "x", "color": _BASELINE}),
        ("beaten", [pair for pair in trials if pair not in best], _RING),
        ("on the front", best, {"marker": "o", "color": _SERIES[0]}),
    ]

    def draw(figure: Figure) -> None:
        plot = figure.subplots()
        for label, pairs, look in groups:
            if any(math.isfinite(sum(pair)) for pair in pairs):
                plot.scatter(
                    [x for _, x in pairs], [y for y, _ in pairs], s=26, linewidths=1.2, label=label, zorder=3, **look
                )
        if named:  # what lies on the worse side of this line is beaten
            where: Any = "post" if less[1] else "pre"
            across, up, _ = zip(*named, strict=True)
            plot.step(across, up, where=where, color=_SERIES[0], linewidth=1, alpha=0.55)
        for x, y, name in named[:NAMED]:
            plot.annotate(clean(name, 28), (x, y), xytext=(4, 4), textcoords="offset points", fontsize=8, color=_INK)
        for axis, own in ((plot.yaxis, less[0]), (plot.xaxis, less[1])):
            low, high = axis.get_data_interval()
            if own and high >= 10 * low > 0:
                (plot.set_yscale if axis is plot.yaxis else plot.set_xscale)("log")
                axis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 1000 * low else (1,)))
                axis.set_minor_formatter(NullFormatter())
            axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.12g}"))
        plot.set_ylabel(axes[0])
        plot.set_xlabel(axes[1])
        figure.legend(loc="outside lower center", ncols=3)

    return _svg("front", (9.6, 3.9), draw)


_RING = {"marker": "o", "edgecolors": _MUTED, "facecolors": "none"}
_MARKS = (
    ("finished", "o", _SERIES[0], True),
    ("stopped", "o", _SERIES[0], False),
    ("running", "s", _SERIES[2], False),
    ("interrupted", "D", _MUTED, False),
    ("failed", "x", _BASELINE, True),
)


def _height(trial: Trial) -> float:
    return 0.0 if trial.status == "failed" or math.isnan(trial.val_f1) else trial.val_f1


def _curve(axes: Axes, trial: Trial, metric: str, colour: str, label: str) -> None:
    epochs = trial.epochs
    axes.plot([e.epoch for e in epochs], [e[metric] for e in epochs], color=colour, linewidth=1.6, label=label)
    chosen: Epoch | None = trial.chosen
    if chosen and not math.isnan(chosen[metric]):
        axes.plot([chosen.epoch], [chosen[metric]], "o", color=colour, markerfacecolor="none", markersize=7)


def _baseline(axes: Axes, value: float | None) -> None:
    if value is not None:
        axes.axhline(value, color=_BASELINE, linewidth=1.2, linestyle=(0, (5, 3)))
        # Beside the axes, where no curve or point can lie below it.
        place: dict[str, Any] = {"xycoords": ("axes fraction", "data"), "textcoords": "offset points"}
        axes.annotate("always\npositive", (1, value), xytext=(4, 0), va="center", fontsize=8, color=_BASELINE, **place)


def _svg(name: str, size: tuple[float, float], draw: Callable[[Figure], None]) -> str:
    """The figure as an ``<svg>`` element that fills its place."""
    with mpl.rc_context(), warnings.catch_warnings():
        # The browser shows the text, with its own fonts; matplotlib only measures it.
        warnings.filterwarnings("ignore", message=r"Glyph .* missing from font")
        mpl.rcdefaults()  # whatever the user's own matplotlibrc says
        mpl.rcParams.update({**_STYLE, "svg.hashsalt": name})
        figure = Figure(figsize=size, layout="constrained")
        figure.patch.set_alpha(0)
        draw(figure)
        for axes in figure.axes:
            axes.patch.set_alpha(0)
        buffer = io.StringIO()
        # No date, maker's name or type: the same journal gives the same bytes.
        figure.savefig(buffer, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, count=1, flags=re.DOTALL)
    for side in ("width", "height"):
        text = re.sub(rf'(<svg[^>]*?) {side}="[^"]*"', r"\1", text, count=1)
    return re.sub(r"<[^>]*>", lambda tag: _adapted(tag[0], name), text)


def _adapted(tag: str, name: str) -> str:
    """A tag with the page's colours, and with ids of its own, as they are one namespace for the whole page."""
    for start in ('id="', "url(#", 'href="#'):
        tag = re.sub(rf"(?<![\w-]){re.escape(start)}", f"{start}{name}-", tag)
    for stand_in, variable in _CSS.items():
        tag = tag.replace(stand_in, f"var(--{variable})")
    return tag
