"""Processes that read side by side: order, short tasks, and a process that is lost."""

from __future__ import annotations

import os
import signal

import pytest

from tunelab.data.workers import MANY, Workers, default_workers
from tunelab.errors import DataError


def where(task: int) -> tuple[int, int]:
    return task, os.getpid()


def die(task: int) -> int:
    if task == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return task


def refuse(task: int) -> int:
    raise DataError(f"task {task} is no good")


def test_one_worker_is_the_caller_itself():
    with Workers(1) as workers:
        assert list(workers.map(where, range(3))) == [(i, os.getpid()) for i in range(3)]


def test_answers_come_in_order_from_other_processes_but_few_short_tasks_stay_here():
    with Workers(2) as workers:
        answers = list(workers.map(where, range(40)))
        assert [task for task, _ in answers] == list(range(40))
        assert os.getpid() not in {process for _, process in answers}
        assert {process for _, process in workers.map(where, range(MANY - 1), short=True)} == {os.getpid()}
        assert os.getpid() not in {process for _, process in workers.map(where, range(MANY), short=True)}


def test_an_error_of_a_task_is_the_caller_s():
    with Workers(2) as workers, pytest.raises(DataError, match="task 0 is no good"):
        list(workers.map(refuse, range(4)))


def test_a_lost_process_is_told_with_a_remedy():
    with Workers(2) as workers, pytest.raises(DataError, match=r"was lost, perhaps for want of memory; .*--workers 1"):
        list(workers.map(die, range(8)))


def blocks_ctrl_c(task: int) -> bool:
    return signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, ())


def test_ctrl_c_is_the_parent_s_alone_from_a_process_s_first_moment():
    with Workers(2) as workers:
        assert all(workers.map(blocks_ctrl_c, range(4)))
    assert not blocks_ctrl_c(0)


def test_as_many_as_this_process_may_use(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 5, 7})
    assert default_workers() == 3
