"""Why a search has no winner, in a few lines for whoever began it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tunelab.errors import NoTrialSucceededError
from tunelab.ranking import Leaderboard, Trial
from tunelab.tuning.plan import Plan


def check_winner(report: Mapping[str, Any], board: Leaderboard, plan: Plan, in_vain: int) -> None:
    """Tell a search that ended without a winner, or in vain, from one that did not.

    Args:
        report: of the run, which is written.
        board: of the run.
        plan: of the search.
        in_vain: how many trials failed for one cause, which ended it; 0: it did not.

    Raises:
        NoTrialSucceededError: says why, and what to do.
    """
    again = plan.options.storage or str(plan.folder)
    if in_vain:
        raise NoTrialSucceededError(why_in_vain(board, plan.folder, again, in_vain))
    if report["best"] is None:
        raise NoTrialSucceededError(why_no_winner(board, plan.folder, again))


def why_no_winner(board: Leaderboard, folder: Path, again: str) -> str:
    """Equal causes together, the most frequent ones first.

    Args:
        board: of the run, without a best trial.
        folder: of the run.
        again: what the run is called for a resume: its folder or its URL.
    """
    report = folder / "report.html"
    trials = board.snapshot()
    whole = [trial for trial in board.ranked() if not trial.fidelity and not math.isnan(trial.val_f1)]
    if whole:
        broken = Counter(str(one) for trial in whole for one in board.aims.broken(trial))
        lines = [f"  {count} x {one} is broken" for one, count in broken.most_common()]
        return "\n".join([f"no trial of this search keeps the constraints; loosen them; report: {report}", *lines])
    lines = _grouped(trials)
    if trials and all(trial.fidelity for trial in trials):
        lines.append(f"  none was trained in full; allow more: tunelab resume {again} --time-budget TIME")
    if not lines:
        lines = ["  no trial was started in the time given; allow more with --time-budget"]
    return "\n".join([f"no trial of this search can be ranked; report: {report}", *lines])


def why_in_vain(board: Leaderboard, folder: Path, again: str, trials: int) -> str:
    """Why a search ended before its budget did, and what to do.

    Args:
        board: of the run.
        folder: of the run.
        again: as of :func:`why_no_winner`.
        trials: how many failed for one cause.
    """
    said = f"{trials} trials in a row failed for the same cause, and none told a result, so the search ended early"
    remedy = f"mend that, then go on with: tunelab resume {again}"
    failed = [trial for trial in board.snapshot() if trial.status == "failed"]
    return "\n".join([f"{said}; {remedy}; report: {folder / 'report.html'}", *_grouped(failed)])


def _grouped(trials: Sequence[Trial]) -> list[str]:
    causes = Counter(trial.cause or trial.status for trial in trials)
    return [f"  {count} x {cause}" for cause, count in causes.most_common(5)]
