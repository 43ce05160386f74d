"""What a report is made from: ``run.yaml`` and ``journal.jsonl`` of a run's folder, and nothing else.

Ray's files and pickles are never opened. A journal that is still being written is read up to its last whole line.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError

from tunelab import journal
from tunelab.data.dataset import SPLITS
from tunelab.errors import StateError
from tunelab.ranking import Leaderboard, Trial
from tunelab.yamlfile import load_written


def _text(value: object) -> object:
    if isinstance(value, list):
        return shlex.join(map(str, value))
    return value.isoformat() if isinstance(value, date) else "" if value is None else value


def _listed(value: object) -> object:
    return [value] if isinstance(value, int) else value


Text = Annotated[str, BeforeValidator(_text)]


class _Section(BaseModel):
    # Other keys pass by: a later version's run.yaml may say more, and its report must still be made.
    model_config = ConfigDict(extra="ignore", frozen=True)


class EpochsFacts(_Section):
    """How long a trial could train."""

    max: int | None = None
    patience: int | None = None


class DataFacts(_Section):
    """What was trained and judged on; the counts are by split."""

    source: Text = ""
    fingerprint: Text = ""
    scans: int | None = None
    traces: int | None = None
    samples: Annotated[list[int], BeforeValidator(_listed)] = []
    """Of a trace, after any of the chains; 0.1.0 wrote one number."""
    dt: float | None = None
    options: dict[str, Any] = {}
    """How the source was read, without defaults."""
    chains: list[Text] = []
    """Of preprocessing, in words."""
    positives: dict[str, int] = {}
    traces_by_split: dict[str, int] = {}
    splits: dict[str, list[str | int]] = {}
    folds: dict[int, list[str | int]] | None = None
    """The scans of each fold, where trials are cross-fitted; ``splits`` and the counts are then those of fold 0."""
    notes: list[Text] | Text = ""


class RunFile(_Section):
    """``run.yaml``, written by the search before its first trial."""

    name: Text
    version: Text = ""
    created: Text = ""
    versions: dict[str, Text] = {}
    seed: int | None = None
    command: Text = ""
    space: dict[str, Any] = {}
    dimensions: list[str] = []
    data: DataFacts = DataFacts()
    always_positive_f1: float | None = None
    """On the scans that rank trials, as the next two: those of validation, or of all folds."""
    positives: int | None = None
    validation_traces: int | None = None
    epochs: EpochsFacts = EpochsFacts()


@dataclass(frozen=True, kw_only=True, slots=True)
class Facts:
    """A run, as far as its files tell."""

    run: RunFile
    board: Leaderboard
    final: Mapping[str, Any] | None
    """The newest ``final`` record: the winner judged on test, once."""
    closed: str
    """How the search ended; empty while it goes on or when it was killed."""
    reason: str
    """Why it ended then; empty where that was not recorded."""
    updated: str
    """When the newest record was written, UTC; empty without one."""

    @property
    def ranked(self) -> list[Trial]:
        """Trials with a defined validation F1, best first."""
        return [trial for trial in self.board.ranked() if trial.val_f1 == trial.val_f1]

    @property
    def full(self) -> list[Trial]:
        """Those of :attr:`ranked` that were trained in full, and can be compared."""
        return [trial for trial in self.ranked if not trial.fidelity]

    @property
    def stepped(self) -> bool:
        """Whether any trial was trained at a lower fidelity."""
        return any(trial.fidelity for trial in self.board.trials.values())

    @property
    def unranked(self) -> list[Trial]:
        """The others, oldest first."""
        ranked = {trial.trial for trial in self.ranked}
        return [trial for trial in self.board.trials.values() if trial.trial not in ranked]

    @property
    def front(self) -> list[Trial]:
        """The trials that no other one beats in all objectives together; none where there is one objective."""
        return self.board.front() if self.board.aims.several else []

    @property
    def breaking(self) -> list[Trial]:
        """Those of :attr:`ranked` that break a constraint, and so rank below all others."""
        return [trial for trial in self.ranked if self.board.aims.broken(trial)]

    @property
    def aimed_at(self) -> set[str]:
        """What objectives and constraints are about."""
        aims = self.board.aims
        return {one.name for one in aims.objectives} | {one.name for one in aims.constraints}

    @property
    def constraints(self) -> str:
        """``parameters <= 1000000, recall >= 0.5``; empty without any."""
        return ", ".join(map(str, self.board.aims.constraints))

    def final_of(self, trial: Trial, split: str) -> Mapping[str, Any] | None:
        """What the ``final`` record says of this trial on a split; None when it speaks of another one."""
        if self.final is None or self.final.get("trial") != trial.trial:
            return None
        return self.final.get(split)

    @property
    def folds(self) -> int:
        """Over how many folds trials are cross-fitted; 0: there are the four splits."""
        return len(self.run.data.folds or {})

    def on_first(self, trial: Trial) -> bool:
        """Whether there are folds, and the trial was judged on the first alone, though it was trained in full."""
        return self.folds > 0 and trial.pooled is None and not trial.fidelity

    @property
    def dealt(self) -> str:
        """``cross-fitted over 5 folds of 43 scans, 8 test scans``, or the size of each of four splits."""
        splits = self.run.data.splits
        if self.folds:
            test = f", {len(splits['test'])} test scans" if "test" in splits else ""
            return f"cross-fitted over {self.folds} folds of {self.pooled_size()['scans']} scans{test}"
        sizes = ", ".join(f"{name} {len(splits[name])}" for name in SPLITS if name in splits)
        return f"four splits: {sizes}" if sizes else "four splits"

    def pooled_size(self) -> dict[str, int | None]:
        """Scans, traces and positive traces of all folds."""
        scans = sum(map(len, (self.run.data.folds or {}).values()))
        return {"scans": scans, "traces": self.run.validation_traces, "positives": self.run.positives}

    def size(self, split: str) -> dict[str, int | None]:
        """Scans, traces and positive traces of a split; where there are folds, as it is for the first of them."""
        data = self.run.data
        traces, positives = data.traces_by_split.get(split), data.positives.get(split)
        if split == "validation" and not self.folds:
            traces = self.run.validation_traces if traces is None else traces
            positives = self.run.positives if positives is None else positives
        scans = len(data.splits[split]) if split in data.splits else None
        return {"scans": scans, "traces": traces, "positives": positives}


def read_facts(run: Path) -> Facts:
    """Read a run's folder; it may belong to a search that still goes on, or that has no trial yet.

    Raises:
        StateError: there is no run, or one of the two files is damaged.
    """
    path = run / "run.yaml"
    try:
        described = RunFile.model_validate(load_written(path.read_bytes()))
    except OSError as error:
        raise StateError(f"{path}: cannot be read: {error.strerror}; name the folder of a run") from error
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "the file"
        raise StateError(f"{path}: {place}: {first['msg']}; restore the file from a copy") from error
    except yaml.YAMLError as error:
        line = getattr(getattr(error, "problem_mark", None), "line", 0) + 1
        raise StateError(f"{path}: line {line}: is no YAML; restore the file from a copy") from error
    records = journal.read(run / "journal.jsonl") if (run / "journal.jsonl").exists() else []
    finals = [record for record in records if record["kind"] == "final"]
    if not all(isinstance(record.get(split, {}), dict) for record in finals for split in ("validation", "test")):
        raise StateError(f"{run / 'journal.jsonl'}: the final result is no mapping; restore the file from a copy")
    closed = records[-1].get("status", "") if records and records[-1]["kind"] == "close" else ""
    return Facts(
        run=described,
        board=Leaderboard(records),
        final=finals[-1] if finals else None,
        closed=closed,
        reason=str(records[-1].get("reason") or "") if closed else "",
        updated=f"{datetime.fromtimestamp(records[-1]['time'], UTC):%Y-%m-%d %H:%M} UTC" if records else "",
    )
