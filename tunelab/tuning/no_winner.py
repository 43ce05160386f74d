"""Why a search has no winner, in a few lines for whoever began it."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path

from tunelab.ranking import Leaderboard


def why_no_winner(board: Leaderboard, folder: Path) -> str:
    """Equal causes together, the most frequent ones first.

    Args:
        board: of the run, without a best trial.
        folder: of the run.
    """
    report = folder / "report.html"
    trials = board.snapshot()
    whole = [trial for trial in board.ranked() if not trial.fidelity and not math.isnan(trial.val_f1)]
    if whole:
        broken = Counter(str(one) for trial in whole for one in board.aims.broken(trial))
        lines = [f"  {count} x {one} is broken" for one, count in broken.most_common()]
        return "\n".join([f"no trial of this search keeps the constraints; loosen them; report: {report}", *lines])
    causes = Counter(trial.cause or trial.status for trial in trials)
    lines = [f"  {count} x {cause}" for cause, count in causes.most_common(5)]
    if trials and all(trial.fidelity for trial in trials):
        lines.append(f"  none was trained in full; allow more: tunelab resume {folder} --time-budget TIME")
    if not lines:
        lines = ["  no trial was started in the time given; allow more with --time-budget"]
    return "\n".join([f"no trial of this search can be ranked; report: {report}", *lines])
