"""Runs whose files are damaged and that are gone on with, without Ray and its processes so that it takes no second.

What goes on is the real thing but for those: the command, the journal, the replay, searcher, scheduler, trials with
their stores, retention, the judgement, the mirror and the report. Trials take turns in this process.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import quick_trainer
from quick_run import QuickRun
from rich.console import Console

import tunelab.tuning.run
from tunelab.errors import StorageError
from tunelab.files import files_below
from tunelab.lease import FencedStore
from tunelab.ranking import Trial
from tunelab.report import write_report
from tunelab.storage import FolderStore
from tunelab.task import Evaluation, Task
from tunelab.trial import Underway
from tunelab.tuning.budget import Budget
from tunelab.tuning.hold import Hold
from tunelab.tuning.plan import Plan, SearchResult
from tunelab.tuning.record import Recorder
from tunelab.tuning.retention import WEIGHTS, Retention


def run_in_turns(plan: Plan, hold: Hold, console: Console) -> SearchResult:
    """What :func:`tunelab.tuning.run.run_search` does, in this process alone."""
    recorder = Recorder(hold.journal)
    search = tunelab.tuning.run._Search(
        plan=plan,
        recorder=recorder,
        console=console,
        gpus=0,
        concurrent=1,
        fence=hold.fence,
        budget=Budget(hold.journal, trials=plan.trials, seconds=None, gpu_hours=None, begun=plan.begun),
    )
    tunelab.tuning.run._assemble(search)
    retention = Retention(plan.folder, recorder.board, plan.options.keep)
    for note in retention.clean():
        console.print(note, soft_wrap=True)
    recorder.listeners.append(retention.told)
    mirror = hold.mirror(plan.options.sync_every, retention.spare)
    if not any(record["kind"] == "final" for record in recorder.records):
        _go_on(search)
        best = recorder.board.best
        assert best is not None
        _judge(search, best)
    recorder.other("close", status="done", reason="")
    report = write_report(plan.folder)
    if mirror is not None:
        mirror.close()
    return SearchResult(folder=plan.folder, report=report, exit_code=0)


def _go_on(search: Any) -> None:
    recorder, searcher = search.recorder, search.searcher
    search.scheduler.settle()
    for trial in [t for t in recorder.board.snapshot() if t.unfinished and recorder.decided(t.trial)]:
        recorder.end(trial.trial, "interrupted")
        searcher.ended(trial.trial)
    left = max(search.plan.trials - searcher.suggested, 0) + searcher.go_on()
    for number in range(left):
        config = searcher.suggest(f"r{number}")
        for result in _steps(search, config):
            if search.scheduler.on_trial_result(None, SimpleNamespace(config=config), result) == "STOP":
                break
        searcher.on_trial_complete(f"r{number}")


def _steps(search: Any, config: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    plan = search.plan
    task = Task(
        trial=config["trial"], seed=config["seed"], params=config["params"], data=plan.access,
        max_epochs=plan.max_epochs, patience=plan.patience, cpus=1, gpus=0, debug=False,
    )  # fmt: skip
    underway = Underway(task, FencedStore(plan.folder, search.fence), quick_trainer.begin)
    while True:
        result = underway.step()
        metrics = {f"metrics/{name}": value for name, value in result.pop("metrics").items()}
        yield {**result, **metrics, "lost": ""}  # as Ray hands it on


def _judge(search: Any, best: Trial) -> None:
    plan, store = search.plan, FolderStore(search.plan.folder / WEIGHTS)
    models = [(store.get(stored.file), stored) for stored in best.stored()]
    answer = quick_trainer.evaluate(
        Evaluation(params=dict(best.params), data=plan.access, models=models, pooled=best.pooled, cpus=1, gpus=0)
    )
    assert best.chosen is not None
    search.recorder.other("final", trial=best.trial, epoch=best.chosen.epoch, **answer)


@dataclass(frozen=True, kw_only=True)
class Damage:
    """What was done to a file."""

    file: str
    """In the run's folder; ``s3://manifest.json`` is that of its copy in a bucket."""
    how: str
    """In words."""
    raw: bytes
    """What it holds now."""
    tail: int
    """Bytes of the whole lines that it holds."""


def cut(raw: bytes, rng: random.Random) -> tuple[bytes, str]:
    """The beginning of a file."""
    at = rng.randrange(len(raw)) if raw else 0
    return raw[:at], f"cut to {at} of {len(raw)} bytes"


def flip(raw: bytes, rng: random.Random) -> tuple[bytes, str]:
    """One bit otherwise."""
    at, bit = rng.randrange(len(raw)), rng.randrange(8)
    return raw[:at] + bytes([raw[at] ^ 1 << bit]) + raw[at + 1 :], f"bit {bit} of byte {at} of {len(raw)}"


KINDS = (
    "journal.jsonl",
    "run.yaml",
    "space.yaml",
    "lease.json",
    "run.lock",
    "checkpoints/",
    "weights/",
    "leaderboard.csv",
    "report.json",
    "s3://manifest.json",
)
"""Files, or folders of which one file is drawn."""


def file_of(kind: str, run: Path, rng: random.Random) -> str:
    """A file of the run in a folder, by what it is."""
    return rng.choice([key for key in files_below(run) if key.startswith(kind)]) if kind.endswith("/") else kind


def copied(run: QuickRun, to: Path) -> QuickRun:
    """A run in a folder of its own; its space stays where it was, and is there."""
    shutil.copytree(run.folder, to, ignore=shutil.ignore_patterns(".ray"))
    return QuickRun(folder=to, environment=run.environment)


def forget(run: QuickRun, last: bytes) -> None:
    """Put a run back to the end of the first line that holds such bytes, as a kill would have left it there."""
    lines = run.journal.read_bytes().splitlines(keepends=True)
    (first, *_) = [i for i, line in enumerate(lines) if last in line]
    if not lines:
        raise StorageError(f"{run.journal}: is empty")
    run.journal.write_bytes(b"".join(lines[:first]))
