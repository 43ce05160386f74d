"""The commands that come back to searches on a cluster: attach, stop, logs."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from tunelab.command import command

if TYPE_CHECKING:
    from tunelab.cluster.jobs import Jobs
    from tunelab.cluster.where import Cluster


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the commands."""
    attach = command(commands, "attach", "look at a search on a cluster again", "tunelab attach quick-20260102-030405")
    add_run(attach)
    attach.set_defaults(run=_attach)

    stop = command(commands, "stop", "end a search on a cluster in good order", "tunelab stop quick-20260102-030405")
    add_run(stop)
    stop.set_defaults(run=_stop)

    logs = command(commands, "logs", "print all that a search on a cluster said", "tunelab logs quick-20260102-030405")
    add_run(logs)
    logs.set_defaults(run=_logs)


def add_run(parser: argparse.ArgumentParser) -> None:
    """Which search, on which cluster."""
    parser.add_argument("name", nargs="?", metavar="NAME", help="of the run (default: the newest search there)")
    parser.add_argument(
        "--cluster", default="cluster.yaml", metavar="FILE", help="of the cluster (default: cluster.yaml)"
    )


@contextmanager
def _there(args: argparse.Namespace) -> Iterator[tuple[Cluster, Jobs, str]]:
    """The cluster that is meant, its jobs, and the name of the search that is."""
    from tunelab.cluster.file import load_cluster_file
    from tunelab.cluster.remote import jobs_of
    from tunelab.cluster.where import running
    from tunelab.errors import ClusterError

    cluster = running(load_cluster_file(Path(args.cluster)))
    with jobs_of(cluster) as jobs:
        if args.name is not None:
            yield cluster, jobs, jobs.find(args.name).run
        elif there := jobs.all():
            yield cluster, jobs, there[0].run
        else:
            raise ClusterError(f"{args.cluster}: the cluster knows no search; start one: python -m tunelab.search")


def _attach(args: argparse.Namespace) -> int:
    from tunelab.cluster.remote import attach

    with _there(args) as (cluster, jobs, run):
        return attach(jobs, run, cluster.file)


def _stop(args: argparse.Namespace) -> int:
    from tunelab.cluster.remote import attach, say

    with _there(args) as (cluster, jobs, run):
        skip = len(jobs.log(run))
        if not jobs.stop(run):
            say(f"{run} was over already")
            return 0
        say(f"{run} ends its trials, and writes its report ...")
        attach(jobs, run, cluster.file, skip=skip)
        return 0


def _logs(args: argparse.Namespace) -> int:
    with _there(args) as (_, jobs, run):
        print(jobs.log(run), end="")
    return 0
