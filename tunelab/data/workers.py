"""Processes that read scans side by side. HDF5 holds one lock for a whole process, so threads would take turns."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait
from types import TracebackType
from typing import TypeVar

from tunelab.errors import DataError

T = TypeVar("T")
R = TypeVar("R")

MANY = 1000
"""Short tasks from which the processes of a pool are used: below it they would be done before those have started."""


class Workers:
    """A pool whose processes start at once and are ready by the time they are needed; with one worker, no pool.

    Args:
        count: processes.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> Workers:
        if self.count > 1:
            # spawned ones hold nothing of a parent that may run threads
            self._pool = ProcessPoolExecutor(
                self.count, mp_context=multiprocessing.get_context("spawn"), initializer=_end_with_parent
            )
            # a terminal sends Ctrl-C to all processes, and the parent decides what it means; a process inherits what
            # is blocked, so that it stays silent while it still imports
            before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
            try:
                for _ in range(self.count):  # each task starts a process while none is idle
                    self._pool.submit(os.getpid)
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def map(self, function: Callable[[T], R], tasks: Sequence[T], *, short: bool = False) -> Iterator[R]:
        """The function of every task, in order, as they become known.

        Args:
            function: of a module, not a closure.
            tasks: picklable.
            short: a task takes milliseconds; only many of them are worth a process.

        Raises:
            DataError: a process was lost, as for want of memory.
        """
        if self._pool is None or (short and len(tasks) < MANY):
            yield from map(function, tasks)
            return
        try:
            yield from self._pool.map(function, tasks, chunksize=MANY // 20 if short else 1)
        except BrokenProcessPool as error:
            raise DataError(
                "a process that read scans was lost, perhaps for want of memory; run the command again with "
                "--workers 1, it goes on where it stopped"
            ) from error


def default_workers() -> int:
    """As many as this process may use cores."""
    return len(os.sched_getaffinity(0))


def _end_with_parent() -> None:
    """Let this process end when its parent was killed; a pool's process would wait for tasks for ever.

    Ctrl-C is the parent's alone: it lets the tasks in work come to their end and takes no more.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def watch(sentinel: int) -> None:
        wait([sentinel])
        os._exit(1)

    threading.Thread(target=watch, args=(parent.sentinel,), daemon=True).start()
