"""What a run has used up, folded from its journal alone: seconds of its sessions, and hours of GPUs.

A trial uses its GPUs from the ``start`` record, when Ray gave it a place, to its ``end`` or until it waits at a rung;
what waits uses none. A session whose driver was killed has no ends: its trials count up to its newest record. Sessions
of older versions have no ``start`` records, and count as no GPU-hour. Time is that of the journal's clock, which begins
anew with each session, so that no change of a machine's time moves it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from tunelab.errors import StateError

HOUR = 3600.0


@dataclass(slots=True)
class _Place:
    """A trial that has its place, by the clock of the session."""

    since: float
    gpus: float
    lost: float | None = None
    """When its process was lost, if nothing was heard of it since."""


class GpuSpending:
    """The GPU-hours of a run. Feed it records, oldest first."""

    def __init__(self, records: Iterable[Mapping[str, Any]] = ()) -> None:
        self._over = 0.0
        """GPU-seconds of what has no place any more."""
        self._places: dict[str, _Place] = {}
        self._newest = 0.0
        """Clock of the newest record of this session."""
        for record in records:
            self.apply(record)

    def apply(self, record: Mapping[str, Any]) -> None:
        """Take in one record of the journal; records that say nothing of places pass by.

        Raises:
            StateError: a record whose digest is right and whose content is not that of its kind.
        """
        try:
            self._apply(record, float(record.get("clock", 0.0)))
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            place = f"journal: record {record.get('seq')} ({record.get('kind')})"
            said = f"{type(error).__name__} {error!s:.200}"
            raise StateError(f"{place}: {said}; restore the journal from a copy") from error

    def hours(self, clock: float | None = None) -> float:
        """GPU-hours so far.

        Args:
            clock: seconds of the session that goes on; None: none does, and trials count up to its newest record.
        """
        now = self._newest if clock is None else max(clock, self._newest)
        return (self._over + sum((now - one.since) * one.gpus for one in self._places.values())) / HOUR

    def _apply(self, record: Mapping[str, Any], clock: float) -> None:
        kind = record["kind"]
        if kind == "session":
            for trial in list(self._places):
                self._leave(trial, self._newest)
            self._newest = clock
            return
        self._newest = max(self._newest, clock)
        if kind == "start":
            trial, gpus = record["trial"], float(record["gpus"])
            if not isinstance(trial, str) or not 0 <= gpus < math.inf:
                raise ValueError(f"{record['gpus']!r:.40} GPUs of trial {trial!r:.40}")
            before = self._places.get(trial)
            # a lost node's trial waited for another place meanwhile
            self._leave(trial, clock if before is None or before.lost is None else before.lost)
            self._places[trial] = _Place(clock, gpus)
        elif kind in ("end", "wait"):
            self._leave(record["trial"], clock)
        elif record.get("trial") in self._places:
            one = self._places[record["trial"]]
            if kind == "failure" and one.lost is None:
                one.lost = clock
            elif kind in ("result", "fold"):
                one.lost = None

    def _leave(self, trial: str, clock: float) -> None:
        one = self._places.pop(trial, None)
        if one is not None:
            self._over += max(clock - one.since, 0.0) * one.gpus


def session_seconds(records: Iterable[Mapping[str, Any]]) -> float:
    """Seconds that the sessions of a run but the newest one took, by their own clocks.

    Args:
        records: of the journal; the newest session is the one that goes on.
    """
    clocks: list[float] = []
    for record in records:
        if record["kind"] == "session" or not clocks:
            clocks.append(0.0)
        clocks[-1] = max(clocks[-1], float(record.get("clock", 0.0)))
    return sum(clocks[:-1])
