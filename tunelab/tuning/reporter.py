"""The live leaderboard of a running search: a table on a terminal, plain lines and now and then the table elsewhere.

It is told by the recorder after each record is on disk, and ranks by validation F1 as every report does.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from tunelab import fidelity
from tunelab.progress import clean, clock
from tunelab.ranking import Leaderboard, Trial

ROWS = 20
QUIET_SECONDS = 60.0
"""Without a terminal, a line of progress after this long without any other."""
TABLE_SECONDS = 300.0
"""Without a terminal, the whole table after this long, where something came."""
_SHARE = 0.05
"""Of the time that may go into the table: ranking a hundred thousand trials takes long, and the search waits for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """What progress is measured against."""

    trials: int | None
    seconds: float | None
    begun: float
    """``time.monotonic()`` when the command started."""
    always_positive_f1: float
    columns: Sequence[str]
    """The dimensions."""
    folds: int = 0
    """That trials are judged on; 0: on the validation split."""
    gpu_hours: float | None = None
    spent: Callable[[], float] = lambda: 0.0
    """GPU-hours so far."""
    max_cost: float | None = None
    cost: Callable[[], float] = lambda: 0.0
    """US dollars so far."""


class Reporter:
    """Shows a leaderboard while it changes. Use as a context manager."""

    def __init__(self, board: Leaderboard, goal: Goal, console: Console) -> None:
        self._board = board
        self._goal = goal
        self._console = console
        self._shown: Group | None = None
        self._again = 0.0
        """When the table is to be made anew, in the seconds of ``time.monotonic()``."""
        self._live = Live(get_renderable=self._table, console=console, refresh_per_second=2, transient=False)
        self._spoke = self._tabled = time.monotonic()
        self._best = ("", True)

    def __enter__(self) -> Reporter:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._console.is_terminal:
            self._again = 0.0  # the last table stays
            self._live.stop()
        else:
            self._console.print(self._render())

    def told(self, kind: str, trial: Trial) -> None:
        """A listener of the recorder."""
        if self._console.is_terminal:
            return
        if kind == "end":
            self._say(f"{trial.status}: {self._line(trial)}{f' ({trial.cause})' if trial.cause else ''}")
        elif kind in ("result", "pooled") and self._newly_leads(trial):
            self._say(f"leads: {self._line(trial)}")
        elif kind == "wait":
            self._say(f"waits: {self._line(trial)}")
        elif kind == "resumed":
            self._say(f"goes on: {self._line(trial)}")
        elif kind == "failure":
            self._say(f"goes on in another process: {self._line(trial)} ({trial.loss})")
        elif time.monotonic() - self._spoke > QUIET_SECONDS:
            self._say("goes on")
        if time.monotonic() - self._tabled > TABLE_SECONDS:
            self._console.print(self._render())
            self._tabled = time.monotonic()

    def _newly_leads(self, trial: Trial) -> bool:
        now = (trial.trial, trial.pooled is None)
        if now == self._best or not self._board.leads(trial):
            return False
        self._best = now
        return True

    def _say(self, what: str) -> None:
        self._spoke = time.monotonic()
        self._console.print(Text(clean(f"[{self._progress()}] {what}")), soft_wrap=True)

    def _line(self, trial: Trial) -> str:
        epoch = trial.chosen
        words = [f"trial {trial.trial} {clean(trial.name or trial.family)}"]
        if epoch is not None:
            words.append(f"epoch {epoch.epoch}/{trial.epochs[-1].epoch}")
            dense = trial.measured("val_average_precision")
            words.append(f"F1 {number(trial.val_f1)} average precision {number(dense)}")
        if self._goal.folds and epoch is not None:
            words.append(f"over {self._goal.folds} folds" if trial.pooled else "on the first fold")
        if trial.fidelity:
            words.append(fidelity.words(trial.fidelity))
        return " ".join(words)

    def _progress(self) -> str:
        goal, seconds = self._goal, time.monotonic() - self._goal.begun
        trials = f"{self._board.ended}{f'/{goal.trials}' if goal.trials else ''} trials"
        if again := len(self._board.trials) - self._board.tried:
            trials += f" and {again} again at a higher fidelity"
        used = "" if goal.gpu_hours is None else f", {goal.spent():.2f} of {goal.gpu_hours:g} GPU-hours"
        if goal.max_cost is not None:
            used += f", {goal.cost():.2f} of {goal.max_cost:g} US dollars"
        return f"{trials}, {clock(seconds)}{f' of {clock(goal.seconds)}' if goal.seconds else ''}{used}"

    def _table(self) -> Group:
        """The newest table, made anew as often as its share of the time allows."""
        began = time.monotonic()
        if self._shown is None or began >= self._again:
            self._shown = self._render()
            now = time.monotonic()
            self._again = now + (now - began) / _SHARE
        return self._shown

    def _render(self) -> Group:
        states = Counter(trial.state for trial in self._board.snapshot())
        now = f"{states['running']} running" + (f", {states['to begin']} to begin" if states["to begin"] else "")
        table = Table(title=f"{self._progress()}, {now}", title_justify="left", expand=True)
        for title in ("rank", "trial", "family", "varied", "epoch", "F1", "AP", "prec.", "recall", "status"):
            right = title in ("rank", "epoch", "F1", "AP", "prec.", "recall")
            flexible = title == "varied"
            table.add_column(
                title,
                justify="right" if right else "left",
                no_wrap=True,
                overflow="ellipsis",
                min_width=None if flexible else len(title),
                ratio=1 if flexible else None,
            )
        ranked, varied = self._board.ranked(), self._varied()
        for rank, trial in enumerate(ranked[:ROWS], start=1):
            epoch = trial.chosen
            values = [number(trial.measured(name)) for name in _SHOWN]
            if self._on_first(trial):
                values[0] += _FIRST_ONLY
            if self._board.aims.broken(trial):
                values[0] += _BREAKS
            if trial.fidelity:
                values[0] += _LOWER
            name = f"{trial.trial} {clean(trial.name)}".strip()
            place = "" if math.isnan(trial.val_f1) else str(rank)
            when = f"{epoch.epoch}/{trial.epochs[-1].epoch}" if epoch else ""
            here = clean(" ".join(f"{key}={short(trial.point[key])}" for key in varied if key in trial.point))
            state = f"{trial.status} {fidelity.words(trial.fidelity)}".strip()
            row = [place, name, clean(trial.family), here, when, *values, state]
            table.add_row(*(Text(cell) for cell in row))
        baseline = number(self._goal.always_positive_f1)
        where = f"the scans of all {self._goal.folds} folds" if self._goal.folds else "the validation split"
        below = f"AP: average precision; always answering positive: F1 {baseline} on {where}"
        if any(map(self._on_first, ranked[:ROWS])):
            below += f"; {_FIRST_ONLY} on the first fold only, ranked below those judged on all"
        if any(map(self._board.aims.broken, ranked[:ROWS])):
            said = ", ".join(map(str, self._board.aims.constraints))
            below += f"; {_BREAKS} breaks a constraint ({said}), ranked below those that break none"
        if any(trial.fidelity for trial in ranked[:ROWS]):
            below += f"; {_LOWER} at a lower fidelity, ranked below those trained in full"
        if len(ranked) > ROWS:
            below = f"{len(ranked) - ROWS} more; {below}"
        if states["failed"]:
            below += f"; {states['failed']} failed"
        return Group(table, Text(below))

    def _on_first(self, trial: Trial) -> bool:
        """Whether there are folds, and the trial was judged on the first only, though it was trained in full."""
        return self._goal.folds > 0 and trial.pooled is None and not trial.fidelity

    def _varied(self) -> list[str]:
        """The dimensions whose values differ between trials."""
        seen: dict[str, set[str]] = {name: set() for name in self._goal.columns}
        for trial in self._board.snapshot():
            for name, value in trial.point.items():
                seen.setdefault(name, set()).add(repr(value))  # a space may have changed since
        return [name for name, values in seen.items() if len(values) > 1]


_FIRST_ONLY, _BREAKS, _LOWER = "*", "†", "~"
_SHOWN = ("val_f1", "val_average_precision", "precision", "recall")


def number(value: float) -> str:
    """Three places, a dash when undefined."""
    return "–" if math.isnan(value) else f"{value:.3f}"  # noqa: RUF001 - the dash of tables


def short(value: Any) -> str:
    """A dimension's value in few characters."""
    return f"{value:.3g}" if isinstance(value, float) else str(value).replace(" ", "")
