"""What the trials of a run come to when nothing disturbs them, and where the run's journal says otherwise.

As a script it compares a run of Keras models: ``python tests/slow/reference.py RUN``.
"""

from __future__ import annotations

import importlib
import json
import math
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tunelab import journal
from tunelab.data.prepared import CacheOptions, access_to
from tunelab.data.request import Progress
from tunelab.models import chains
from tunelab.ranking import Leaderboard, Trial
from tunelab.space import load_space
from tunelab.storage import FolderStore
from tunelab.task import Task
from tunelab.trial import Underway
from tunelab.tuning.plan import Options

FIELDS = ("fold", "epoch", "weights", "metrics")


def differences(run: Path, trainer: str) -> tuple[int, list[str]]:
    """How many results of a run were compared with those of undisturbed trainings, and those that differ."""
    records = journal.read(run / "journal.jsonl")
    board = Leaderboard(records)
    options = Options.model_validate(records[0]["options"])
    space = load_space(run / "space.yaml")
    source = access_to(
        options.data, options=space.data, chains=chains(space), seed=options.seed, cache=CacheOptions()
    ).ready(Progress())
    compared, found = 0, list[str]()
    for trial in board.snapshot():
        task = Task(
            trial=trial.trial,
            seed=trial.seed,
            params=dict(trial.params),
            data=source.access,
            max_epochs=records[0]["identity"]["max_epochs"],
            patience=space.epochs.patience,
            cpus=1,
            gpus=0,
            debug=False,
        )
        told = _told(records, trial)
        expected = _undisturbed(task, trainer, len(told))
        compared += len(told)
        found += [
            f"{trial.trial}: {_shown(one, other)}"
            for one, other in zip(told, [*expected, *[{}] * len(told)], strict=False)
            if one != other
        ]
    return compared, found


def _told(records: list[dict[str, Any]], trial: Trial) -> list[dict[str, Any]]:
    """A trial's results in the order of training; of one that was told twice, what counts."""
    kinds = ("result", "fold", "pooled")
    mine = [r for r in records if r["kind"] in kinds and r["trial"] == trial.trial]
    newest = {(r.get("fold", 0), r["epoch"]): r for r in mine if r["kind"] != "pooled"}
    told = [_compared(r) for _, r in sorted(newest.items())]
    for record in mine:
        if record["kind"] == "pooled":
            told.append({name: record[name] for name in ("metrics", "thresholds", "scans")})
    return told


def _undisturbed(task: Task, trainer: str, count: int) -> list[dict[str, Any]]:
    """The first so many results, and what they come to together, of a training in this process."""
    found: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        underway = Underway(task, FolderStore(Path(folder)), importlib.import_module(trainer).begin)
        while len(found) < count:
            result = underway.step()
            found.append(_plain(_compared(result)))
            found += [_plain({name: p[name] for name in ("metrics", "thresholds", "scans")}) for p in result["pooled"]]
            if result["ended"] or result["failed"] or result["storage"]:
                break
    return found


def _compared(result: Mapping[str, Any]) -> dict[str, Any]:
    """What two trainings of one trial have in common: not what a clock says."""
    metrics = {name: value for name, value in result["metrics"].items() if name != "predict_ms"}
    return {name: result.get(name, 0) for name in FIELDS} | {"metrics": metrics}


def _plain(value: Any) -> Any:
    """As a journal holds it."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _shown(one: dict[str, Any], other: dict[str, Any]) -> str:
    keys = [key for key in one if one[key] != other.get(key)]
    return "; ".join(f"{key}: {str(one[key])[:300]} and not {str(other.get(key))[:300]}" for key in keys)


if __name__ == "__main__":
    print(json.dumps(differences(Path(sys.argv[1]), "tunelab.keras_trainer")))
