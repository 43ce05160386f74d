"""What a run was begun with against what it would go on with: the difference in words, and whether that is sound.

Results of other data, or of another space or seed, are not mixed in silence. Nothing is changed here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from tunelab.errors import StateError
from tunelab.planning import identity
from tunelab.tuning.hold import JOURNAL, Hold
from tunelab.tuning.plan import Plan
from tunelab.yamlfile import load_written

SPACE = "space.yaml"
"""The space as it was, in a run's folder."""
SOUND = {
    "space": "trials of before stay on the leaderboard; the sampler learns from those that the new space holds",
    "seed": "new proposals are drawn otherwise",
    "max_epochs": "new trials train for another number of epochs; rungs are filled anew",
    "backend": "trials that go on do so with other random numbers",
}
"""Changes that ``--accept-changes`` lets pass, and what they mean. Data and splits are not among them: F1 on other
scans is another F1."""


def compare(plan: Plan, hold: Hold, *, accept: bool) -> dict[str, str]:
    """What differs from what the run was begun with, or was changed to last.

    Args:
        plan: of what is to come.
        hold: the run.
        accept: go on where that is sound.

    Returns:
        For each part of a run's identity that differs, in what; all of it accepted.

    Raises:
        StateError: something does, and was not accepted or cannot be.
    """
    records = hold.journal.records
    newest = [record.get("identity") for record in records if record["kind"] in ("run", "change")][-1]
    if not isinstance(newest, Mapping):
        raise StateError(f"{plan.folder / JOURNAL}: identity: is no mapping; restore the file from a copy")
    here = json.loads(json.dumps(identity(plan)))
    found = {key: _difference(newest.get(key), here[key]) for key in here if newest.get(key) != here[key]}
    found |= _edited(plan.folder, newest)
    if not found:
        return {}
    lines = [
        f"{plan.folder}: is not what the run was begun with:",
        *(f"  {key}: {what}" for key, what in found.items()),
    ]
    if unsound := [key for key in found if key not in SOUND]:
        lines.append(
            f"results on other {' and '.join(unsound)} cannot be compared; bring back what was there, or search again "
            "under another --name"
        )
        raise StateError("\n".join(lines))
    if not accept:
        kept = f"go on as it was begun: tunelab resume {plan.folder} --space {plan.folder / SPACE}"
        lines.append(f"--accept-changes goes on ({'; '.join(SOUND[key] for key in found)}); or {kept}")
        raise StateError("\n".join(lines))
    return found


def _edited(folder: Path, known: Mapping[str, Any]) -> dict[str, str]:
    """What somebody changed in ``run.yaml``, which describes the run and does not rule it."""
    path = folder / "run.yaml"
    try:
        facts = load_written(path.read_bytes())
        told = {"space": facts["space"], "seed": facts["seed"], "data": facts["data"]["fingerprint"]}
    except (OSError, yaml.YAMLError, KeyError, TypeError):
        return {}  # gone or damaged: it is written again
    plain_told = json.loads(json.dumps(told, default=str))
    return {
        key: f"run.yaml says otherwise than the journal: {_difference(known.get(key), value)}"
        for key, value in plain_told.items()
        if value != known.get(key)
    }


def _difference(before: Any, now: Any) -> str:
    """What changed, in few words: of mappings the keys, of lists of scans how many."""
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        parts = [
            f"{name}: {_short(before.get(name))} -> {_short(now.get(name))}"
            for name in sorted({*before, *now})
            if before.get(name) != now.get(name)
        ]
        return "; ".join(parts[:5]) + (f"; {len(parts) - 5} more" if len(parts) > 5 else "")
    return f"{_short(before)} -> {_short(now)}"


def _short(value: Any) -> str:
    text = "nothing" if value is None else json.dumps(value, default=str)
    return text if len(text) <= 100 else f"{text[:97]}..."
