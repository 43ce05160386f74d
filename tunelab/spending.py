"""What a run has used up, folded from its journal alone: seconds of its sessions, hours of GPUs, and money.

A trial uses its GPUs from the ``start`` record, when Ray gave it a place, to its ``end`` or until it waits at a rung;
what waits uses none. A session whose driver was killed has no ends: its trials count up to its newest record. Sessions
of older versions have no ``start`` records, and count as no GPU-hour. Time is that of the journal's clock, which begins
anew with each session, so that no change of a machine's time moves it.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from tunelab.errors import StateError, UsageError

HOUR = 3600.0
PRICES = "TUNELAB_PRICES"
"""The environment's variable for what machines cost: a JSON object of Ray's node types, each with US dollars an hour.
The side that hands a search over to a cluster sets it."""
_SUCH_AS = '{"head": 0.192, "gpu_spot": 0.16}'


@dataclass(slots=True)
class _Place:
    """A trial that has its place, by the clock of the session."""

    since: float
    gpus: float
    lost: float | None = None
    """When its process was lost, if nothing was heard of it since."""


class Spending:
    """The GPU-hours of a run, and what its machines cost. Feed it records, oldest first."""

    def __init__(self, records: Iterable[Mapping[str, Any]] = ()) -> None:
        self._over = 0.0
        """GPU-seconds of what has no place any more."""
        self._places: dict[str, _Place] = {}
        self._newest = 0.0
        """Clock of the newest record of this session."""
        self._paid = 0.0
        """US dollars, up to the newest change of the machines that are there."""
        self._rate = 0.0
        """US dollars an hour since then."""
        self._since = 0.0
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

    def dollars(self, clock: float | None = None) -> float:
        """What the machines cost so far, while the run's sessions went on.

        Args:
            clock: as of :meth:`hours`.
        """
        now = self._newest if clock is None else max(clock, self._newest)
        return self._paid + (now - self._since) * self._rate / HOUR

    def _apply(self, record: Mapping[str, Any], clock: float) -> None:
        kind = record["kind"]
        if kind == "session":
            self._costs(0.0, self._newest)
            self._since = clock
            for trial in list(self._places):
                self._leave(trial, self._newest)
            self._newest = clock
            return
        self._newest = max(self._newest, clock)
        if kind == "machines":
            self._costs(float(record["dollars"]), clock)
        elif kind == "start":
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

    def _costs(self, rate: float, clock: float) -> None:
        if not 0 <= rate < math.inf:
            raise ValueError(f"{rate!r:.40} US dollars an hour")
        self._paid += max(clock - self._since, 0.0) * self._rate / HOUR
        self._rate, self._since = rate, clock

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


def prices_here() -> dict[str, float]:
    """Ray's node types, each with what a machine costs in US dollars an hour; nothing where that is not known.

    Raises:
        UsageError: the variable holds something else.
    """
    said = os.environ.get(PRICES, "")
    if not said.strip():
        return {}
    try:
        prices = {str(name): float(value) for name, value in json.loads(said).items()}
    except (ValueError, TypeError, AttributeError):
        prices = {"": math.nan}
    if not all(0 <= value < math.inf for value in prices.values()):
        raise UsageError(f"{PRICES}: {said:.60}: write such as {_SUCH_AS}, in US dollars an hour")
    return prices


def check_max_cost(limit: float | None) -> None:
    """Refuse a limit of money where nobody knows what machines cost.

    Raises:
        UsageError: says so.
    """
    if limit is not None and not any(prices_here().values()):
        raise UsageError(
            f"--max-cost: {limit:g}: what the machines here cost is not known; it comes along with a search that is "
            f"handed over to a cluster. Use --time-budget, or set {PRICES}='{_SUCH_AS}' with your node types and US "
            "dollars an hour (tunelab resume --max-cost 0 takes the limit away)"
        )
