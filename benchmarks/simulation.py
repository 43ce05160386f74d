"""Searches on recorded learning curves, in virtual time: what a policy is asked, what it is told, and what it came to.

A trial is a row of the curves, an epoch a column, and every epoch of every trial takes one unit of time. No Ray and no
clock; what a policy is made of is its own affair (:mod:`benchmarks.baselines`).
"""

from __future__ import annotations

import hashlib
import heapq
import itertools
import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

CHANCE = math.log(2)
"""Validation loss of a model that answers as if it had learned nothing, on two classes."""
FLOOR = 0.98 * CHANCE
"""A loss that is not below this one is on the floor."""
LOG_OF_REST = ("beta1", "beta2")
"""Columns that are close to 1 where it matters; they are looked at as log(1 - b)."""
DECADES = 2
"""Columns of positive numbers that span as many are looked at on a log scale."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Curves:
    """A file of recorded learning curves."""

    digest: str
    """SHA-256 of the file."""
    cube: Floats
    """The configurations, scaled to the unit cube: (row, dimension)."""
    tasks: Mapping[str, Floats]
    """Task -> validation loss (row, epoch); NaN where training diverged."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What a policy knows of a search before it begins."""

    cube: Floats
    """See :attr:`Curves.cube`."""
    epochs: int
    """Of a trial that is trained to its end."""
    workers: int
    """Trials that run at the same time, at most."""
    budget: int
    """Epochs that the search spends, in all; a policy that has to know this is run once for each budget."""
    seed: int

    def drawn(self) -> list[int]:
        """All rows in a random order, the same for every policy: they differ in what they do with it."""
        return np.random.default_rng(self.seed).permutation(len(self.cube)).tolist()


class Policy(Protocol):
    """Decides a search: which trial a free worker runs, and after each of its epochs whether it goes on."""

    def next(self, now: int) -> int | None:
        """A row to start, or one that was stopped to go on with, at its next epoch.

        Args:
            now: virtual time, in epochs since the search began.

        Returns:
            One that is not running and has epochs left; None for none: asked again when the next epoch is over, and
            when none is running any more the search ends.
        """

    def told(self, row: int, epoch: int, loss: float) -> bool:
        """Take in an epoch of a row.

        Args:
            row: which.
            epoch: the one that is over, from 1.
            loss: of its validation; NaN where training diverged.

        Returns:
            Whether the row goes on at once. One that does not may be taken up again by :meth:`next`. After its last
            epoch it is over, whatever is said.
        """


class Epoch(NamedTuple):
    """One that a search spent."""

    end: int
    """In virtual time."""
    row: int
    epoch: int
    """Of the row, from 1."""


def read_curves(file: Path, skip: int = 0) -> Curves:
    """Recorded curves.

    Args:
        file: npz with ``configs`` (row, dimension), ``config_names``, and else one array (row, epoch) for each task.
        skip: epochs to leave out in front.
    """
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    with np.load(file) as opened:
        arrays = {name: opened[name] for name in opened.files}
    for name in ("configs", "config_names"):
        if name not in arrays:
            raise SystemExit(f"{file}: {name}: missing; an npz needs configs (row, dimension), config_names and tasks")
    configs, names = arrays.pop("configs").astype(float), arrays.pop("config_names").tolist()
    if configs.ndim != 2 or configs.shape[1] != len(names) or not np.isfinite(configs).all():
        raise SystemExit(f"{file}: configs: shape {configs.shape}; finite numbers (row, dimension), {len(names)} names")
    tasks = {}
    for name, array in arrays.items():
        if array.ndim != 2 or len(array) != len(configs) or array.shape[1] < skip + 2:
            say = f"{len(configs)} rows and {skip + 2} epochs at least"
            raise SystemExit(f"{file}: {name}: shape {array.shape}; a task has {say}")
        tasks[name] = array[:, skip:].astype(float)
        if not np.nanmin(tasks[name], initial=math.inf) < CHANCE:
            raise SystemExit(f"{file}: {name}: no loss is below ln 2, so regret has no meaning; leave the task out")
    if not tasks:
        raise SystemExit(f"{file}: no task; an array (row, epoch) is needed for each")
    return Curves(digest=digest, cube=unit_cube(configs, names), tasks=tasks)


def unit_cube(configs: Floats, names: Sequence[str]) -> Floats:
    """Configurations with every column from 0 to 1, on a log scale where that is natural.

    Args:
        configs: (row, dimension).
        names: of the columns; see :data:`LOG_OF_REST` and :data:`DECADES`.
    """
    columns = []
    for name, column in zip(names, configs.T, strict=True):
        scaled = column
        if name in LOG_OF_REST:
            scaled = np.log(1 - column)
        elif column.min() > 0 and column.max() >= 10**DECADES * column.min():
            scaled = np.log(column)
        span = float(np.ptp(scaled))
        columns.append((scaled - scaled.min()) / (span or 1.0))
    return np.stack(columns, axis=1)


def setting_of(curves: Curves, task: str, *, seed: int, workers: int, budget: float) -> Setting:
    """Of one search on one task.

    Args:
        curves: the task's.
        task: its name.
        seed: of the search; each task draws differently from it.
        workers: see :class:`Setting`.
        budget: in full runs.
    """
    epochs = curves.tasks[task].shape[1]
    drawn = np.random.SeedSequence([seed, zlib.crc32(task.encode())]).generate_state(1)
    return Setting(cube=curves.cube, epochs=epochs, workers=workers, budget=round(budget * epochs), seed=int(drawn[0]))


def simulate(losses: Floats, policy: Policy, setting: Setting) -> list[Epoch]:
    """Run a search until its budget is spent or its policy has nothing left to run.

    Epochs that end at the same time are told in the order in which they were begun, and a worker that became free is
    given its next trial before the next epoch is told.

    Args:
        losses: of the task, (row, epoch).
        policy: new.
        setting: with which the policy was made.

    Returns:
        The epochs that were spent, in the order in which they were told.

    Raises:
        ValueError: the policy named a row that is running or has no epoch left.
    """
    spent: list[Epoch] = []
    ends: list[tuple[int, int, int]] = []  # when, number of the epoch as begun, row
    trained = [0] * len(losses)
    running: set[int] = set()
    numbers = itertools.count()
    now = 0
    while len(spent) < setting.budget:
        while len(running) < setting.workers and (row := policy.next(now)) is not None:
            if row in running or trained[row] == setting.epochs:
                state = "is running" if row in running else f"has trained all its {setting.epochs} epochs"
                raise ValueError(f"{type(policy).__name__}: next gave row {row}, which {state}")
            running.add(row)
            heapq.heappush(ends, (now + 1, next(numbers), row))
        if not ends:
            break
        now, _, row = heapq.heappop(ends)
        trained[row] += 1
        spent.append(Epoch(now, row, trained[row]))
        goes_on = policy.told(row, trained[row], float(losses[row, trained[row] - 1]))
        if goes_on and trained[row] < setting.epochs:
            heapq.heappush(ends, (now + 1, next(numbers), row))
        else:
            running.remove(row)
    return spent


def regret(losses: Floats, spent: Sequence[Epoch], budget: float) -> float:
    """How far a search was from the best of the task after so many full runs: 0 found it, 1 is chance or worse.

    The lowest loss of the epochs that were spent by then, less the lowest of the task, as a share of ln 2 less the
    lowest of the task, and no more than 1. Epochs of trials that were under way count, both as spent and as seen.

    Args:
        losses: of the task, (row, epoch).
        spent: as :func:`simulate` gives them; what a search that ended early had found stands.
        budget: in full runs.
    """
    within = spent[: round(budget * losses.shape[1])]
    seen = np.array([losses[one.row, one.epoch - 1] for one in within])
    best, lowest = np.nanmin(seen, initial=CHANCE), np.nanmin(losses)
    return float((best - lowest) / (CHANCE - lowest))
