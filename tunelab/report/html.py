"""``report.html``: one file that a browser, a printer and a mail attachment can show; nothing is fetched, no script.

Everything that comes from a run goes through jinja2's autoescape; only the figures of :mod:`tunelab.report.plots` are
taken as they are, and there matplotlib escapes the text.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from tunelab import fidelity
from tunelab.errors import TunelabError
from tunelab.metrics import always_positive_f1
from tunelab.ranking import Trial
from tunelab.report import words
from tunelab.report.best_config import best_config_yaml
from tunelab.report.compare import differences, hand_run
from tunelab.report.facts import Facts
from tunelab.report.front import HEADINGS, members, title
from tunelab.report.plots import LEADERS, all_trials, front_of, learning_curves
from tunelab.report.summary import baseline_of, causes, judged, verdict
from tunelab.space import Start

TOP = 20
"""Rows of the ranking table; leaderboard.csv has them all."""

_PURPOSES = {
    "train": "weights",
    "tune": "threshold, chosen epoch, early stopping, proposals",
    "validation": "ranking",
    "test": "the winner, once",
}


def report_html(facts: Facts) -> str:
    """The page's text."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {
        "clean": words.clean,
        "score": words.score,
        "whole": words.whole,
        "duration": words.duration,
        "fidelity": fidelity.words,
        "setting": words.setting,
    }
    source = resources.files("tunelab.report").joinpath("report.html.j2").read_text(encoding="utf-8")
    return environment.from_string(source).render(_context(facts))


def _context(facts: Facts) -> dict[str, Any]:
    best, baseline = facts.board.best, facts.run.always_positive_f1
    trials = list(facts.board.trials.values())
    ranked, leaders = facts.ranked, facts.full
    full = [trial for trial in trials if not trial.fidelity]
    hand, differ = _hand_run(facts, best)
    counts = {status: sum(t.status == status for t in trials) for status in _STATUSES}
    return {
        "run": facts.run,
        "facts": facts,
        "verdict": verdict(facts),
        "best": best,
        "tiles": _tiles(facts, best),
        "counts": {status: count for status, count in counts.items() if count},
        "trials": trials,
        "ranked": ranked,
        "top": ranked[:TOP],
        "varying": _varying(facts, ranked[:TOP]),
        "baseline": words.finite(baseline),
        "full": full,
        "scale": max([t.val_f1 for t in ranked] + [baseline or 0, 1e-9]),
        "config": best_config_yaml(facts, best) if best else "",
        "judged": [found for split in ("validation", "test") if best and (found := judged(facts, best, split))],
        "interval": words.interval,
        "curves": Markup(learning_curves(leaders, _first_baseline(facts))) if leaders else "",  # noqa: S704 - escaped there
        "leaders": min(LEADERS, len(leaders)),
        "overview": Markup(all_trials(full, baseline)) if len(full) > 1 else "",  # noqa: S704 - likewise
        "breaking": {trial.trial for trial in facts.breaking},
        "front": members(facts),
        "front_title": title(facts),
        "front_headings": [HEADINGS[one.name] for one in facts.board.aims.objectives],
        "front_figure": Markup(_front_figure(facts)),  # noqa: S704 - likewise
        "failures": causes(facts, "failed"),
        "stops": causes(facts, "stopped"),
        "hand_run": hand,
        "hand_run_differ": differ,
        "hand_run_baseline": always_positive_f1(_HAND_RUN_POSITIVES, _HAND_RUN_TRACES),
        "splits": _splits(facts),
        "nothing": words.NOTHING,
    }


_STATUSES = ("finished", "stopped", "failed", "interrupted", "waiting", "running")
_HAND_RUN_POSITIVES, _HAND_RUN_TRACES = 3560, 30_000


def _front_figure(facts: Facts) -> str:
    """The trials by two objectives; none for more of them, or where nothing can be drawn."""
    aims = facts.board.aims
    if len(aims.objectives) != 2:
        return ""
    comparable = [trial for trial in facts.ranked if trial.pooled] or facts.ranked
    pairs = {trial.trial: _pair(aims.values(trial, "validation")) for trial in (*comparable, *facts.front)}
    if not any(math.isfinite(sum(pair)) for pair in pairs.values()):
        return ""
    breaking = {trial.trial for trial in facts.breaking}
    first, second = aims.objectives
    return front_of(
        [pair for name, pair in pairs.items() if name not in breaking],
        [pair for name, pair in pairs.items() if name in breaking],
        [(trial.trial, *pairs[trial.trial]) for trial in facts.front],
        axes=(HEADINGS[first.name], HEADINGS[second.name]),
        less=(first.less, second.less),
    )


def _pair(values: tuple[float, ...]) -> tuple[float, float]:
    first, second = values
    return first, second


def _tiles(facts: Facts, best: Trial | None) -> list[dict[str, str]]:
    """The numbers at the top: value, what it is, and a line below."""
    if best is None:
        return []
    validation, test = (judged(facts, best, split) or {} for split in ("validation", "test"))
    where = "validation"
    if facts.folds:
        where = "first fold only" if facts.on_first(best) else f"{facts.folds} folds pooled"
    trivial = words.score(baseline_of(facts, best))
    tiles = [
        {
            "value": words.score(best.val_f1),
            "what": f"F1, {where}" if facts.folds else f"{where} F1",
            "note": _spread(validation),
        },
        {"value": trivial, "what": f"always positive, {where}", "note": "F1"},
    ]
    if test:
        tiles.append({"value": words.score(test.get("f1")), "what": "test F1, used once", "note": _spread(test)})
        trivial = words.score(test["always_positive_f1"])
        tiles.append({"value": trivial, "what": "always positive, test", "note": "F1"})
    return tiles


def _spread(result: Mapping[str, Any]) -> str:
    spread = words.interval(result.get("f1_low"), result.get("f1_high"))
    return f"95 % interval {spread}" if spread else "no interval computed"


def _varying(facts: Facts, trials: list[Trial]) -> list[str]:
    """The dimensions in which these trials differ."""
    return [
        name
        for name in facts.run.dimensions
        if len({words.setting(trial.point.get(name), 10_000) for trial in trials}) > 1
    ]


def _splits(facts: Facts) -> list[dict[str, Any]]:
    """The rows of the table of splits: name, sizes and purpose."""
    data = facts.run.data
    known = {*data.splits, *data.traces_by_split, *data.positives}
    rows = [{"split": name, **facts.size(name), "purpose": _PURPOSES[name]} for name in _PURPOSES if name in known]
    if not facts.folds:
        return rows
    purpose = (
        "each once validation (ranking) and once tune (chosen epoch), otherwise weights; thresholds from the others"
    )
    folds = {"split": f"{facts.folds} folds", **facts.pooled_size(), "purpose": purpose}
    return [folds, *(row for row in rows if row["split"] == "test")]


def _first_baseline(facts: Facts) -> float | None:
    """F1 of always answering positive on the validation scans of the epochs that are drawn."""
    size = facts.size("validation")
    if facts.folds:
        return words.finite(always_positive_f1(size["positives"] or 0, size["traces"] or 0))
    return facts.run.always_positive_f1


@dataclass(frozen=True, kw_only=True, slots=True)
class HandRun:
    """A row of the table of hand-run results."""

    start: Start
    again: Trial | None
    """The same configuration run in this search."""
    same: bool
    """It is the winner."""
    differs: list[str]


def _hand_run(facts: Facts, best: Trial | None) -> tuple[list[HandRun], list[str]]:
    """The sixteen: what they scored on their data, here if they were run again, and how they differ from the winner.

    Returns:
        A row for each, and the differences that all of them have, which the rows leave out.
    """
    try:
        known = hand_run()
    except (TunelabError, OSError):  # an installation without its search spaces still makes reports
        return [], []
    named = {trial.name: trial for trial in facts.board.trials.values() if trial.name}
    # A name alone does not make it the same configuration.
    here = {start.name: named[start.name] for start in known if start.name in named and _is(named[start.name], start)}
    found = {}
    for start in known:
        if best and here.get(start.name) is not best:
            params = {**best.params, "family": best.family}
            found[start.name] = differences({**start.params, "family": start.family}, params)
    every = list(found.values())
    shared = [word for word in every[0] if all(word in words for words in every)] if every else []
    rows = [
        HandRun(
            start=start,
            again=here.get(start.name),
            same=best is not None and here.get(start.name) is best,
            differs=[word for word in found.get(start.name, []) if word not in shared],
        )
        for start in known
    ]
    return rows, shared


def _is(trial: Trial, start: Start) -> bool:
    """The trial set all that the hand-run one set; it may have set more, as preprocessing was not searched then."""
    theirs = {name: trial.params.get(name) for name in start.params}
    return not differences({**start.params, "family": start.family}, {**theirs, "family": trial.family})
