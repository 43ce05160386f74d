"""Seconds of an epoch, measured where trials would be trained and as they would be, before there are any.

A Ray task for each place, with the resources of a trial, holds a process like a trial's and trains a few epochs of some
params in it, one after another. Nothing is kept: weights and checkpoints go to a folder that is removed.
"""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import ray

from tunelab.process import Lost, WorkerProcess
from tunelab.task import Task

TIMED = 3
"""Epochs after the first that are timed at most, and as long as they are short."""
SHORT = 1.0
"""Seconds; after so many of timed epochs the mean is good enough."""
PATIENCE = 120.0
"""Seconds beyond those of the probe in which a place on a cluster has to come free and a process to start."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Probed:
    """What was measured of one task."""

    seconds: float = math.nan
    """Of an epoch after the first; NaN: none ended in time."""
    first: float = math.nan
    """Of the first epoch, its model's making included; NaN likewise."""
    least: float = 0.0
    """Seconds after which an epoch was still going on when time was up."""
    fault: str = ""
    """Why it could not be trained."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Probes:
    """What was measured of all tasks."""

    probed: Sequence[Probed]
    """In the order of the tasks."""
    start: float
    """Seconds until a process was ready to train."""
    taken: float
    """Seconds of all of it."""


def probe(
    tasks: Sequence[Task], *, trainer: str, places: int, limit: float, custom: Mapping[str, float]
) -> Probes | None:
    """Train some epochs of each task; the first ones first, as many at a time as there are places.

    Args:
        tasks: all with the same resources.
        trainer: the module that trains.
        places: trials at a time.
        limit: seconds for the training at each place; what does not fit in is not measured.
        custom: other resources of Ray that a trial takes.

    Returns:
        What was measured; None when no place came free.
    """
    begun = time.monotonic()
    shares = [tasks[i::places] for i in range(min(places, len(tasks)))]
    cpus, gpus = tasks[0].cpus, tasks[0].gpus
    task = ray.remote(measure).options(num_cpus=cpus, num_gpus=gpus, resources=dict(custom), max_retries=0)
    threads = max(1, int(cpus))
    asked = [task.remote(share, trainer=trainer, threads=threads, limit=limit) for share in shares]
    try:
        answers = ray.get(asked, timeout=limit + PATIENCE)
    except ray.exceptions.GetTimeoutError:
        for one in asked:
            ray.cancel(one, force=True)
        return None
    taken = time.monotonic() - begun
    probed = [answers[i % places][0][i // places] for i in range(len(tasks))]
    slowest = max(answers, key=lambda answer: answer[2])  # what Ray itself took is told by the last one to end
    return Probes(probed=probed, start=slowest[1] + max(taken - slowest[2], 0.0), taken=taken)


def measure(tasks: Sequence[Task], *, trainer: str, threads: int, limit: float) -> tuple[list[Probed], float, float]:
    """A Ray task: what was measured of each, the seconds until the process was ready, and those of all of it."""
    begun = time.monotonic()
    found: list[Probed] = []
    ready: float | None = None
    process: WorkerProcess | None = None
    with tempfile.TemporaryDirectory(prefix="tunelab-probe-") as folder:
        try:
            for task in tasks:
                if ready is not None and time.monotonic() >= begun + ready + limit:
                    found.append(Probed())
                    continue
                if process is None:
                    process = WorkerProcess.start(trainer, store_url=folder, threads=threads)
                try:
                    process.begin(task)
                    ready = time.monotonic() - begun if ready is None else ready
                    found.append(_epochs(process, begun + ready + limit))
                except Lost as fault:
                    found.append(Probed(fault=fault.cause))
                    process = None
        finally:
            if process is not None:
                process.close()
    taken = time.monotonic() - begun
    return found, taken if ready is None else ready, taken


def _epochs(process: WorkerProcess, until: float) -> Probed:
    first = math.nan
    timed: list[float] = []
    while math.isnan(first) or (len(timed) < TIMED and sum(timed) < SHORT):
        begun = time.monotonic()
        if begun >= until:
            break
        try:
            result = process.step(until - begun)
        except Lost:
            if time.monotonic() < until:
                raise
            return Probed(first=first, seconds=_mean(timed), least=time.monotonic() - begun)
        taken = time.monotonic() - begun
        if why := result["failed"] or result["storage"]:
            return Probed(fault=why)
        if math.isnan(first):
            first = taken
        else:
            timed.append(taken)
        if result["ended"]:
            break
    return Probed(first=first, seconds=_mean(timed) if timed else math.nan)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else math.nan
