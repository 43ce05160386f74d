"""The front: the trials that no other one beats in all objectives together, as rows and as files.

Nothing here is of account where a space has one objective; the winner is then all that there is to hand over.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunelab.aims import Objective
from tunelab.errors import StorageError
from tunelab.files import write_file
from tunelab.ranking import Trial
from tunelab.report.facts import Facts
from tunelab.report.words import NOTHING, finite, score, whole

FOLDER = "front"
"""In a run's folder, a configuration for each trial of the front."""
HEADINGS = {
    "f1": "F1",
    "average_precision": "average precision",
    "precision": "precision",
    "recall": "recall",
    "mean_jaccard": "mean Jaccard",
    "parameters": "parameters",
    "predict_ms": "ms a scan",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Member:
    """A trial of the front, as a row of its table."""

    trial: Trial
    rank: int | None
    """On the leaderboard; None without a defined validation F1."""
    values: Sequence[str]
    """An objective each, as text."""
    file: str
    """Of its configuration, below the run's folder."""
    tested: bool
    """Whether it is the one that answered the test split."""


def members(facts: Facts) -> list[Member]:
    """The front's rows, best validation F1 first."""
    ranks = {trial.trial: rank for rank, trial in enumerate(facts.ranked, start=1)}
    return [
        Member(
            trial=trial,
            rank=ranks.get(trial.trial),
            values=[shown(one, value) for one, value in _values(facts, trial)],
            file=f"{FOLDER}/{trial.trial}.yaml",
            tested=facts.final_of(trial, "test") is not None,
        )
        for trial in facts.front
    ]


def front_json(facts: Facts) -> list[dict[str, Any]] | None:
    """The front as ``report.json`` has it; None where there is one objective."""
    if not facts.board.aims.several:
        return None
    return [
        {
            "trial": member.trial.trial,
            "name": member.trial.name,
            "family": member.trial.family,
            "rank": member.rank,
            "values": {one.name: finite(value) for one, value in _values(facts, member.trial)},
            "config": member.file,
            "tested": member.tested,
        }
        for member in members(facts)
    ]


def shown(objective: Objective, value: float) -> str:
    """A value of an objective as people read it."""
    if objective.name == "parameters":
        return whole(value)
    if objective.name == "predict_ms":
        return NOTHING if finite(value) is None else f"{value:.3g}"
    return score(value)


def write_front(run: Path, configurations: Mapping[str, str]) -> None:
    """Write the configurations of the front into the run's folder, and remove those of an earlier report.

    What has not changed is left alone, so that it need not be sent to a bucket again.

    Args:
        run: the run's folder.
        configurations: trial to text.

    Raises:
        StorageError: a file could not be written or removed.
    """
    folder = run / FOLDER
    wanted = {f"{trial}.yaml": text.encode() for trial, text in configurations.items()}
    try:
        if wanted:
            folder.mkdir(exist_ok=True)
        there = _contents(folder)
        for name in there.keys() - wanted.keys():
            (folder / name).unlink(missing_ok=True)
        if not wanted:
            with contextlib.suppress(OSError):  # it was never made, or somebody put something there
                folder.rmdir()
    except OSError as error:
        raise StorageError(f"{folder}: cannot be written: {error.strerror}; free space there") from error
    for name, content in wanted.items():
        if there.get(name) != content:
            write_file(folder / name, content)


def _contents(folder: Path) -> Mapping[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.yaml") if path.is_file()}


def _values(facts: Facts, trial: Trial) -> list[tuple[Objective, float]]:
    aims = facts.board.aims
    return list(zip(aims.objectives, aims.values(trial, "validation"), strict=True))


def title(facts: Facts) -> str:
    """``F1 and parameters``."""
    names = [HEADINGS[one.name] for one in facts.board.aims.objectives]
    return f"{', '.join(names[:-1])} and {names[-1]}" if len(names) > 1 else names[0]
