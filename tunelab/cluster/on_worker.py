"""Asks a worker of a running cluster whether it can write to the bucket: its rights are others than this machine's.

A short job on the head has a worker do it that runs (:mod:`tunelab.cluster.worker_program`); no machine is started. The
job is no search, and no command shows it as one; Ray's own list of jobs keeps it, since a job that is removed there
right after its end comes back as one that failed.
"""

from __future__ import annotations

import json
import shlex
import time
import uuid
from contextlib import suppress
from pathlib import Path

from tunelab.cluster import worker_program
from tunelab.cluster.bucket import NoWorkerError, only_from_here, write_from_worker
from tunelab.cluster.file import ClusterFile
from tunelab.cluster.findings import Finding, Notes
from tunelab.cluster.job import OVER
from tunelab.cluster.jobs import Jobs, Said
from tunelab.cluster.remote import jobs_of
from tunelab.cluster.where import NoHeadError, running
from tunelab.errors import ClusterError

PREFIX = "check-"
"""Of the job's name, by which it is none of the searches (:data:`tunelab.cluster.job.PREFIX`)."""
SECONDS = 150.0
"""That all of it may take; a worker that is busy starts a process for it."""
_POLL_SECONDS = 0.3


def from_worker(file: ClusterFile, say: Said) -> tuple[list[Finding], str]:
    """Whether a worker of the file's cluster can write to its bucket, if one runs.

    Args:
        file: the cluster file.
        say: told when a worker is asked, which takes some seconds.

    Returns:
        What is wrong; and where the bucket was written from, for people, where nothing is.
    """
    notes = Notes(file)
    try:
        cluster = running(file)
    except NoHeadError:
        return [], only_from_here("no cluster runs")
    except ClusterError as problem:
        return [], only_from_here(str(problem).removeprefix(f"{file.path}: ").partition("; ")[0])
    say(f"A worker of {file.name} is asked to write to the bucket ...")

    def on_worker(program: str) -> str:
        with jobs_of(cluster) as jobs:
            return ask_worker(jobs, program)

    wrote = write_from_worker(notes, on_worker)
    return notes.found, wrote


def ask_worker(jobs: Jobs, program: str) -> str:
    """Run a program of Python on a worker that runs; gives what it printed, errors too.

    Args:
        jobs: of the cluster.
        program: its text.

    Raises:
        NoWorkerError: no worker runs.
        ClusterError: the cluster cannot be asked, or no worker did it.
    """
    text = Path(worker_program.__file__).read_text(encoding="utf-8")
    said = _run(jobs, shlex.join(["python", "-u", "-c", text, program]))
    told = [line for line in said.splitlines() if line.startswith(worker_program.ANSWER)]
    if not told:
        last = (said.strip().splitlines() or ["nothing was printed"])[-1]
        raise ClusterError(f"the head did not get through to one: {last[-300:]}")
    answer = json.loads(told[-1].removeprefix(worker_program.ANSWER))
    if "none" in answer:
        raise NoWorkerError("the head runs and no worker does")
    if "failed" in answer:
        raise ClusterError(f"none of them did it: {answer['failed'][:300]}")
    return str(answer["said"])


def _run(jobs: Jobs, command: str) -> str:
    """What a job that is no search prints until it is over."""
    name = PREFIX + uuid.uuid4().hex
    jobs.ask(lambda client: client.submit_job(entrypoint=command, submission_id=name), once=True)
    end = time.monotonic() + SECONDS
    over = False
    try:
        while not over:
            if time.monotonic() > end:
                raise ClusterError(f"no answer within {SECONDS:g} s")
            time.sleep(_POLL_SECONDS)
            over = jobs.ask(lambda client: client.get_job_status(name), once=True) in OVER
    finally:
        if not over:
            with suppress(ClusterError):
                jobs.ask(lambda client: client.stop_job(name), once=True)
    return str(jobs.ask(lambda client: client.get_job_logs(name), once=True))
