"""A search handed over from here to a cluster, and how one comes back to it.

What was typed goes to the head as it was typed, with what only this side knows put in place: the space and the modules
of its families are taken along, the bucket stands in the cluster's file, GPUs are asked for where its workers have
them. Then the search's lines are shown until it is over or the user goes; it goes on without him.
"""

from __future__ import annotations

import json
import shlex
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tunelab.cluster.file import ClusterFile
from tunelab.cluster.job import Job
from tunelab.cluster.jobs import Jobs, token_of
from tunelab.cluster.package import HERE, packed, space_of
from tunelab.cluster.prices import ClusterPrice, price
from tunelab.cluster.tunnel import Tunnel
from tunelab.cluster.versions import ASKED, asked
from tunelab.cluster.where import FILE, Cluster
from tunelab.cluster.words import replaced, without
from tunelab.errors import EXIT_TERMINATED, UsageError
from tunelab.naming import places, run_name
from tunelab.space import Space, shipped
from tunelab.spending import HOUR, PRICES

OURS = ("--cluster", "--storage", "--name")
"""Options whose values this side says anew."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A search as it was typed, as far as this side has to know it."""

    words: Sequence[str]
    """All of the command line behind ``search``."""
    space: str | None
    data: str | None
    storage: str | None
    name: str | None
    gpus: float | None
    time_budget: float | None = None
    """Seconds."""
    max_cost: float | None = None
    """US dollars."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A command about a run, for the head."""

    words: Sequence[str]
    """Its command line."""
    name: str
    """Of the run."""
    url: str
    """Of the run."""
    space: Space
    """The modules of whose families are taken along."""
    path: Path | None
    """The file of it that is taken along; None: none."""
    again: bool = False
    """Whether it goes on with a run, which the cluster may know."""


@contextmanager
def jobs_of(cluster: Cluster) -> Iterator[Jobs]:
    """The jobs of a cluster, through a tunnel that is closed at the end."""
    with Tunnel(cluster) as tunnel:
        yield Jobs(tunnel, token_of(), say)


def hand_over(cluster: Cluster, search: Asked) -> int:
    """Run a search on a cluster, and show what it says until it is over or the user goes.

    Args:
        cluster: that runs.
        search: what was asked for.

    Returns:
        The exit code: the search's, or 0 when the user went.

    Raises:
        UsageError: no bucket is named, the data lie on this machine, or the cost is limited and no price is known.
        ClusterError: the cluster cannot be reached or does not take the search.
    """
    file = cluster.file
    storage = storage_of(search.storage, file)
    check_data(search.data, file)
    check_limit(search.max_cost, file)
    path = Path(search.space) if search.space is not None else None
    space = space_of(path or shipped("quick.yaml"))
    name = run_name(search.name, space.name)
    _, url = places(storage, name)
    words = without(search.words, OURS)
    if path is not None:
        words = replaced(words, str(search.space), HERE + path.name)
    words += ["--address", "auto", "--storage", storage, "--name", name]
    words += gpus_asked(search.gpus, space, file)
    with jobs_of(cluster) as jobs:
        task = Task(words=("search", *words), name=name, url=url, space=space, path=path)
        return handed_over(cluster, jobs, task, search.time_budget, search.max_cost)


def handed_over(cluster: Cluster, jobs: Jobs, task: Task, seconds: float | None, limit: float | None) -> int:
    """Let the head run a command about a run, and show what it says until it is over or the user goes.

    Args:
        cluster: that runs.
        jobs: of it.
        task: what is to be run.
        seconds: that it may take; None: no limit.
        limit: US dollars; None: no limit.

    Returns:
        The exit code: the command's, or 0 when the user went.

    Raises:
        UsageError: a module of the space's families is not found.
        ClusterError: the cluster does not take it.
    """
    file, name = cluster.file, task.name
    known = price(file)
    with tempfile.TemporaryDirectory(prefix="tunelab-job-") as temporary:
        folder = Path(temporary)
        packed(folder, task.space, task.path)
        for line in costs(known, seconds, limit):
            say(line)
        environment = {ASKED: json.dumps(asked()), **prices_of(known)}
        command = shlex.join(["python", "-u", "-m", "tunelab.handed_over", *task.words])
        jobs.submit(name, command, folder, task.url, environment, again=task.again)
    say(f"Handed over to {cluster.head.host} as {name}; results go to {task.url}")
    say(f"Ctrl-C leaves it running; tunelab attach {name}{at(file)} comes back.")
    return attach(jobs, name, file)


def prices_of(known: ClusterPrice | None) -> dict[str, str]:
    """The variable that tells the head what machines cost; none where a price is not known.

    Args:
        known: the cluster's; None: machines of one's own.
    """
    if known is None or known.unknown:
        return {}
    return {PRICES: json.dumps({node.name: node.dollars for node in (known.head, *known.workers)})}


def costs(known: ClusterPrice | None, seconds: float | None, limit: float | None) -> list[str]:
    """What the cluster costs, and what the search can come to where that has a bound; for people.

    Args:
        known: as of :func:`prices_of`.
        seconds: that the search may take; None: no limit.
        limit: US dollars; None: no limit.
    """
    if known is None:
        return []
    lines = [f"Price: {known.line()}"]
    most = [limit] if limit is not None else []
    if seconds is not None and (estimated := known.estimate(seconds / HOUR)) is not None:
        most.append(estimated[1])
    if most:
        lines.append(
            f"Estimated cost of the search: {min(most):.2f} US dollars at most; the cluster costs until its end."
        )
    return lines


def check_limit(limit: float | None, file: ClusterFile) -> None:
    """Refuse a limit of cost where nobody knows what machines cost.

    Args:
        limit: US dollars; None: no limit.
        file: of the cluster.

    Raises:
        UsageError: says which prices are lacking.
    """
    known = price(file)
    if limit is None or (known is not None and not known.unknown):
        return
    if known is None:
        why = "nobody bills machines of your own by the hour; leave it out, or use --time-budget"
    else:
        fields = ", ".join(f"{kind or 'INSTANCE_TYPE'}: dollars an hour" for kind in known.unknown)
        why = f"not all prices are known; add provider.prices: {{{fields}}} to {file.path}"
    raise UsageError(f"--max-cost: {limit:g}: {why}")


def attach(jobs: Jobs, run: str, file: ClusterFile, *, skip: int = 0) -> int:
    """Show what a search says until it is over or the user goes.

    Returns:
        The search's exit code, or 0 when the user went.
    """
    try:
        return finished(jobs.follow(run, _write, skip=skip), file)
    except KeyboardInterrupt:
        say(
            f"\nThe search goes on. Look again: tunelab attach {run}{at(file)}; end it: tunelab stop {run}{at(file)}; "
            f"end the cluster: tunelab cluster down {file.path}"
        )
        return 0


def finished(job: Job, file: ClusterFile) -> int:
    """Say how a search ended, and that the cluster still costs; gives the exit code."""
    if job.status == "STOPPED":
        say(f"{job.run} was stopped; go on with: tunelab resume {job.storage}{at(file)}")
    elif job.status == "FAILED" and job.exit_code is None:
        say(f"{job.run} ended: {job.message}")
    say(f"The cluster goes on running, and costs; end it: tunelab cluster down {file.path}")
    if job.status == "SUCCEEDED":
        return 0
    return EXIT_TERMINATED if job.status == "STOPPED" else job.exit_code or 1


def at(file: ClusterFile) -> str:
    """What a command needs behind it to mean this cluster; empty for the usual file."""
    return "" if file.path.name == FILE else f" --cluster {file.path}"


def storage_of(given: str | None, file: ClusterFile) -> str:
    """The bucket's URL that a search on a cluster writes to.

    Raises:
        UsageError: none is named.
    """
    storage = given or file.storage
    if not storage.startswith("s3:"):
        where = f"--storage: {given}" if given else f"{file.path}: provider.storage: missing"
        raise UsageError(
            f"{where}: a cluster's disks go with its machines, so results of a search there go to a bucket; "
            "write provider.storage: s3://BUCKET/runs, or give --storage"
        )
    places(storage, "run")  # whether it can be one
    return storage


def check_data(data: str | None, file: ClusterFile) -> None:
    """Refuse scans that no node can read.

    Raises:
        UsageError: says where they have to be.
    """
    mounted = [str(target).rstrip("/") for target in file.mapping("file_mounts")]
    if data is None or data.startswith("s3:") or any(data == at or data.startswith(f"{at}/") for at in mounted):
        return
    raise UsageError(
        f"--data: {data}: the cluster's machines cannot read this machine's disk; copy the scans to the bucket (aws s3 "
        f"sync {data} s3://BUCKET/scans) and name that, or put them under file_mounts and name the folder there"
    )


def gpus_asked(given: float | None, space: Space, file: ClusterFile) -> list[str]:
    """The option that asks for GPUs where the workers have them and nobody said how many a trial takes.

    Args:
        given: by the user; None: nothing.
        space: which may say it.
        file: of the cluster.
    """
    return ["--gpus-per-trial", "1"] if given is None and space.resources.gpus is None and gpus_there(file) else []


def gpus_there(file: ClusterFile) -> bool:
    """Whether workers of a cluster have GPUs."""
    return any((node.get("resources") or {}).get("GPU", 0) >= 1 for node in file.workers.values())


def say(line: str) -> None:
    """To the user, beside what a search says."""
    print(line, file=sys.stderr, flush=True)


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()
