"""What a run is doing, read from anywhere: its folder, or its place in a bucket. Takes no lease and changes nothing."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunelab import journal
from tunelab.archive import LEASE
from tunelab.errors import StateError, StorageError
from tunelab.progress import clock
from tunelab.ranking import Leaderboard
from tunelab.spending import Spending
from tunelab.storage import Store

JOURNAL = "journal.jsonl"


@dataclass(frozen=True, slots=True, kw_only=True)
class Overview:
    """A run, as far as its journal tells."""

    url: str
    name: str
    version: str
    state: str
    """``done``, ``interrupted``, or ``open``: it goes on, or its process was lost."""
    owner: str
    """Who held it last, where that is known."""
    board: Leaderboard
    records: int
    sessions: int
    trials: int | None
    """How many were asked for, where that is known."""
    gpu_hours: float
    """Used so far, as far as the newest record."""
    most_gpu_hours: float | None
    """How many were asked for at most, where that is known."""
    cost: float
    """US dollars that the machines cost so far, as far as that is known."""
    max_cost: float | None
    """How many were asked for at most, where that is known."""
    updated: float
    """When the newest record was written, seconds since the epoch by the clock of the machine that wrote it."""

    @property
    def counts(self) -> str:
        """``12 finished, 3 stopped, 2 running``."""
        counted = Counter(trial.state[:40] for trial in self.board.snapshot())
        return ", ".join(f"{number} {status}" for status, number in counted.most_common()) or "no trial yet"

    @property
    def tried(self) -> int:
        """How many configurations there are; those of a run without steps of fidelity are its trials."""
        return self.board.tried

    @property
    def _again(self) -> str:
        """How many more trials train what others tried at a lower fidelity, and how many of all are trained in full."""
        trials = self.board.snapshot()
        if not any(trial.fidelity for trial in trials):
            return ""
        again, full = sum(bool(trial.of) for trial in trials), sum(not trial.fidelity for trial in trials)
        return f" and {again} again at a higher fidelity, {full} in full"

    @property
    def best(self) -> str:
        """``0.823 (0012 lstm)``, or a dash."""
        one = self.board.best
        return f"{one.val_f1:.3f} ({one.trial} {one.family[:40]})" if one is not None else "-"

    @property
    def age(self) -> str:
        """How long ago the newest record was written."""
        return f"{clock(max(time.time() - self.updated, 0.0))} ago"

    def _aims(self) -> Iterator[str]:
        aims = self.board.aims
        if aims.constraints:
            ranked = self.board.ranked()
            keep = sum(not aims.broken(trial) for trial in ranked)
            said = ", ".join(map(str, aims.constraints))
            yield f"Constraints: {said}: {keep} of {len(ranked)} ranked trials keep them"
        if aims.several:
            trials = ", ".join(trial.trial for trial in self.board.front()) or "no trial yet"
            yield f"Front of {', '.join(map(str, aims.objectives))}: {trials}"

    def lines(self) -> list[str]:
        """For people; made of text from files, which a terminal is not to be trusted with as it is."""
        of = f" of {self.trials}" if self.trials else ""
        newest = f", the newest {self.age}" if self.records else ""
        said = [
            f"{self.name}: {self.state}, by tunelab {self.version}, at {self.url}",
            f"Trials: {self.tried}{of}{self._again}: {self.counts}",
            *self._spent(),
            f"Leads: validation F1 {self.best}",
            *self._aims(),
            f"Journal: {self.records:,} records in {self.sessions} sessions{newest}",
        ]
        if self.state == "open" and self.owner:
            said.append(
                f"Held by {self.owner}, unless that process was lost; then go on with: tunelab resume {self.url}"
            )
        elif self.state == "interrupted":
            said.append(f"Go on with: tunelab resume {self.url}")
        return said

    def _spent(self) -> list[str]:
        said = []
        if self.gpu_hours or self.most_gpu_hours is not None:
            of = f" of {self.most_gpu_hours:g}" if self.most_gpu_hours else ""
            said.append(f"GPU-hours: {self.gpu_hours:.2f}{of}")
        if self.cost or self.max_cost is not None:
            of = f" of {self.max_cost:g}" if self.max_cost else ""
            said.append(f"Cost: {self.cost:.2f}{of} US dollars")
        return said


class NoRunError(StateError):
    """There is no run at a place, or nothing of it yet."""


def look(store: Store) -> Overview:
    """Read a run's journal from wherever it is.

    Args:
        store: the run's folder, or its place in a bucket.

    Raises:
        NoRunError: there is no run.
        StateError: its journal is damaged.
        StorageError: the place cannot be read.
    """
    url = store.url
    records, _ = journal.parse(journal_of(store), f"{url}/{JOURNAL}")
    board = Leaderboard(records)
    try:
        return _told(url, records, board, _owner(store))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        said = f"{type(error).__name__} {error!s:.100}"
        raise StateError(f"{url}/{JOURNAL}: is none of this version: {said}; restore the file from a copy") from error


def journal_of(store: Store) -> bytes:
    """A run's journal, from wherever it is.

    Args:
        store: the run's folder, or its place in a bucket.

    Raises:
        NoRunError: there is no run.
        StorageError: the place cannot be read.
    """
    check_run(store)
    return store.get(JOURNAL)


def check_run(store: Store) -> None:
    """Refuse a place where no run is.

    Raises:
        StateError: none is.
        StorageError: the place cannot be read.
    """
    if JOURNAL not in store.list(JOURNAL):
        raise NoRunError(f"{store.url}: holds no run (no {JOURNAL}); check the name with: tunelab list")


def _told(url: str, records: list[journal.Record], board: Leaderboard, owner: str) -> Overview:
    first: dict[str, Any] = records[0] if records else {}
    last: dict[str, Any] = records[-1] if records else {}
    asked = [r.get("options", {}) for r in records if r["kind"] in ("run", "change")]
    trials, most, dollars = (asked[-1].get(name) if asked else None for name in ("trials", "gpu_hours", "max_cost"))
    spending = Spending(records)
    return Overview(
        url=url,
        name=str(first.get("name", Path(url).name))[:100],
        version=str(first.get("version", "?"))[:40],
        state=str(last.get("status", "done"))[:40] if last.get("kind") == "close" else "open",
        owner=owner,
        board=board,
        records=len(records),
        sessions=max(1, sum(record["kind"] == "session" for record in records)),
        trials=trials if trials is None else int(trials),
        gpu_hours=spending.hours(),
        most_gpu_hours=most if most is None else float(most),
        cost=spending.dollars(),
        max_cost=dollars if dollars is None else float(dollars),
        updated=float(last.get("time", 0.0)),
    )


def _owner(store: Store) -> str:
    """Who the lease tells of; nothing where it cannot be read, since it only informs."""
    try:
        told = json.loads(store.get(LEASE))
        owner = told["owner"]
        return "" if told.get("released") else f"process {int(owner['pid'])} on {str(owner['host'])[:80]}"
    except (StorageError, ValueError, KeyError, TypeError):
        return ""
