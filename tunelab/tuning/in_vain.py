"""Whether a search goes on in vain: trial after trial fails for one cause, and none has told any result.

A machine without its GPU, a package that is missing, scans that cannot be read, a fault in a family's function: what
fails every trial alike fails the rest too, within seconds each, until the budget is gone. After :data:`LEAST` of them
in a row no trial is begun any more. Those that have a place are waited for: on another machine a trial may still be in
its first epoch, and its result is hope. Once the last of them has failed alike, the search is over.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

LEAST = 8
"""Trials. Where every other model of a space cannot be trained here, 8 in a row fail at the beginning of one search in
256; 4 would in one of 16. To wait for 8 costs little: what fails so fails as it begins."""


class InVain:
    """What the newest session of a run has come to. Feed it records, oldest first."""

    def __init__(self, records: Iterable[Mapping[str, Any]] = ()) -> None:
        self._begin()
        for record in records:
            self.apply(record)

    def _begin(self) -> None:
        self._there: set[str] = set()
        """Trials that have a place."""
        self._cause = ""
        """Of the newest failures."""
        self._row = 0
        """How many have that one."""
        self._told = False
        """Whether there was a result."""

    def apply(self, record: Mapping[str, Any]) -> None:
        """Take in one record of the journal; a new session counts anew."""
        kind = record["kind"]
        if kind == "session":
            self._begin()
        elif kind == "start":
            self._there.add(record["trial"])
        elif kind in ("result", "fold"):
            self._told = True
        elif kind == "end":
            self._there.discard(record["trial"])
            if record["status"] == "failed":
                cause = alike(str(record["cause"]))
                self._row = self._row + 1 if cause == self._cause else 1
                self._cause = cause

    @property
    def doubtful(self) -> bool:
        """Whether no trial is to be begun before those that have a place have told something."""
        return not self._told and self._row >= LEAST

    @property
    def trials(self) -> int:
        """How many failed for one cause, when that ends the search; 0: there is hope."""
        return self._row if self.doubtful and not self._there else 0


def alike(cause: str) -> str:
    """A cause without what differs from trial to trial: words with digits in them, such as sizes, layers, addresses."""
    return re.sub(r"\w*\d\w*", "#", cause)
