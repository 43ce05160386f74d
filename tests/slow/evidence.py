"""What the long loops saw: a JSON line a round, on disk before the next begins; a loop goes on where its file stops.

As a script it tells what a file holds: ``python tests/slow/evidence.py FILE``.
"""

from __future__ import annotations

import json
import os
import random
import statistics
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

MUST_BE_NONE = ("lost", "duplicated", "hangs", "different", "unnoticed", "broken")
"""Fields of a round that tell of a fault of the code; absent, zero or empty in a good one."""


@dataclass(kw_only=True)
class Loop:
    """One loop over rounds that are drawn from a seed and their number, and nothing else."""

    name: str
    version: int
    """Of the loop: another one begins anew. It changes when a round means something else."""
    seed: int
    count: int
    """How many rounds there are to be, those of earlier sessions included."""
    path: Path
    deadline: float | None = None
    """``time.monotonic()`` after which no round is begun."""
    bad: list[dict[str, Any]] = field(default_factory=list)
    """Rounds of this session that saw a fault of the code."""

    def numbers(self) -> Iterator[int]:
        """The rounds that are left, while there is time; one that saw a fault is done again by the next session."""
        for number in sorted(set(range(self.count)) - self.done()):
            if self.deadline is not None and time.monotonic() > self.deadline:
                return
            yield number

    def done(self) -> set[int]:
        """The good rounds that the file holds."""
        mine = (self.name, self.version, self.seed)
        lines = (one for one in read(self.path) if (one["loop"], one["version"], one["seed"]) == mine)
        return {one["round"] for one in lines if one["round"] is not None and not faults_of(one)}

    def draw(self, what: object) -> random.Random:
        """Random numbers of a round, or of something else that has a name."""
        return random.Random(f"{self.name} {self.version} {self.seed} {what}")

    def write(self, number: int | None, **facts: object) -> None:
        """Add a line; without a number it tells of something that is no round."""
        line = {"loop": self.name, "version": self.version, "seed": self.seed, "round": number}
        line |= {"at": datetime.now(UTC).isoformat(timespec="seconds"), **facts}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("ab") as file:
            file.write(json.dumps(line, separators=(",", ":")).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        if faults_of(line):
            self.bad.append(line)

    def end(self) -> None:
        """Nothing may have been lost, and nothing be left to do but for lack of time."""
        assert not self.bad, "\n".join(json.dumps(one)[:3000] for one in self.bad)
        if left := self.count - len(self.done() & set(range(self.count))):
            pytest.skip(f"time is over: {self.count - left} of {self.count} rounds are done")


def faults_of(line: dict[str, Any]) -> dict[str, Any]:
    """What went wrong in a round."""
    return {name: line[name] for name in MUST_BE_NONE if line.get(name)}


def read(path: Path) -> list[dict[str, Any]]:
    """The lines of a file of evidence; one that was torn by a kill is left out."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_bytes().rpartition(b"\n")[0].splitlines()]


def summary(lines: Iterable[dict[str, Any]]) -> list[str]:
    """For each loop what its rounds came to."""
    loops: dict[str, list[dict[str, Any]]] = {}
    for line in lines:
        loops.setdefault(f"{line['loop']} (version {line['version']}, seed {line['seed']})", []).append(line)
    told = []
    for name, some in sorted(loops.items()):
        sums = {key: sum(int(one.get(key, 0)) for one in some) for key in ("kills", "acknowledged", "compared")}
        sums |= {key: sum(_times(one.get(key)) for one in some) for key in MUST_BE_NONE}
        rounds = len({one["round"] for one in some if one["round"] is not None})
        seconds = [one["seconds"] for one in some if one.get("seconds") is not None]
        times = (
            f"; seconds to resume: median {statistics.median(seconds):.1f}, at most {max(seconds):.1f}"
            if seconds
            else ""
        )
        told.append(f"{name}: {rounds} rounds, " + ", ".join(f"{n:,} {key}" for key, n in sums.items()) + times)
        kinds: dict[str, int] = {}
        for one in some:
            if "outcome" in one:
                kinds[one["outcome"]] = kinds.get(one["outcome"], 0) + 1
        if kinds:
            told.append("  " + ", ".join(f"{n:,} {kind}" for kind, n in sorted(kinds.items())))
    return told


def _times(value: object) -> int:
    """How often: a number is one, of a list its length, words are one time."""
    if isinstance(value, list):
        return len(value)
    return value if isinstance(value, int) else int(bool(value))


if __name__ == "__main__":
    print("\n".join(summary(read(Path(sys.argv[1])))))
