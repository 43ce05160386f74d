"""The commands about runs that there are: status, list, dashboard, tensorboard, sync, report."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from tunelab.command import add_s3, command, s3_options, seconds

if TYPE_CHECKING:
    from tunelab.cluster.job import Job
    from tunelab.cluster.where import Cluster


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the commands."""
    status = command(commands, "status", "say what a run is doing", "tunelab status s3://bucket/runs/quick")
    status.add_argument("folder", metavar="RUN", help="a run's folder, its s3:// URL, or the name of one on a cluster")
    _add_cluster(status)
    add_s3(status)
    status.set_defaults(run=_status)

    listed = command(
        commands, "list", "list the runs of a folder or bucket, or of a cluster", "tunelab list s3://bucket/runs"
    )
    listed.add_argument(
        "place",
        nargs="?",
        metavar="DIR|s3://...",
        help="(default: runs, and those of a cluster brought up from here)",
    )
    _add_cluster(listed)
    add_s3(listed)
    listed.set_defaults(run=_list)

    shown = command(
        commands,
        "dashboard",
        "show a run in a browser, with optuna-dashboard",
        "tunelab dashboard runs/quick --port 0",
    )
    shown.add_argument("folder", metavar="RUN", help="a run's folder, or its s3:// URL")
    shown.add_argument(
        "--port", type=int, default=8080, metavar="N", help="to listen at; 0: any that is free (default: 8080)"
    )
    shown.add_argument(
        "--host", default="127.0.0.1", help="to listen at; others than the default let others look (default: 127.0.0.1)"
    )
    add_s3(shown)
    shown.set_defaults(run=_dashboard)

    curves = command(
        commands,
        "tensorboard",
        "show a run in TensorBoard, while it goes on too",
        "tunelab tensorboard s3://bucket/runs/quick --port 0",
    )
    curves.add_argument("folder", metavar="RUN", help="a run's folder, its s3:// URL, or the name of one on a cluster")
    _add_cluster(curves)
    curves.add_argument(
        "--port", type=int, default=6006, metavar="N", help="to listen at; 0: any that is free (default: 6006)"
    )
    curves.add_argument("--host", default="127.0.0.1", help="to listen at, of the loopback (default: 127.0.0.1)")
    add_s3(curves)
    curves.set_defaults(run=_tensorboard)

    sync = command(
        commands, "sync", "send a run to its bucket, when that was away at its end", "tunelab sync runs/quick"
    )
    sync.add_argument("folder", metavar="RUN", help="a run's folder")
    add_s3(sync)
    sync.set_defaults(run=_sync)

    report = command(commands, "report", "write a run's report again", "tunelab report runs/quick")
    report.add_argument("folder", metavar="RUN", help="a run's folder")
    report.set_defaults(run=_report)


def _add_cluster(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--cluster", metavar="FILE", help="of a cluster (default: cluster.yaml, if ray up was run with it from here)"
    )


def add_care(parser: argparse.ArgumentParser, *, defaults: bool) -> None:
    """The options of what a run survives.

    Args:
        parser: of a command.
        defaults: whether an option that is not given has one; otherwise it is as it was.
    """

    def told(text: str) -> str:
        return f"(default: {text if defaults else 'as it was'})"

    parser.add_argument(
        "--max-failures",
        type=int,
        default=3 if defaults else None,
        metavar="N",
        help=f"how many losses of its process a trial survives; lost nodes are not counted {told('3')}",
    )
    parser.add_argument(
        "--step-timeout",
        type=seconds,
        default=3600.0 if defaults else None,
        metavar="TIME",
        help=f"an epoch that takes longer is taken for hung {told('1h')}",
    )
    parser.add_argument(
        "--sync-every",
        type=seconds,
        default=60.0 if defaults else None,
        metavar="TIME",
        help=f"between two copies to S3 storage, and two reports {told('60s')}",
    )


def add_where(parser: argparse.ArgumentParser) -> None:
    """The options of which machines are used: those of a Ray, this one, or a cluster's."""
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "--address",
        metavar="ADDR",
        help="a running Ray, such as auto or HOST:PORT (default: RAY_ADDRESS, else this machine)",
    )
    where.add_argument("--local", action="store_true", help="this machine, whatever else there is")
    where.add_argument(
        "--cluster",
        metavar="FILE",
        help="hand over to this cluster (default: that of cluster.yaml, if ray up was run with it from here)",
    )


def _status(args: argparse.Namespace) -> int:
    from tunelab.overview import NoRunError, look
    from tunelab.report.words import clean
    from tunelab.storage import open_store

    place, runs = args.folder, False
    if (cluster := _cluster_of(place, args)) is not None:
        from tunelab.cluster.remote import jobs_of

        with jobs_of(cluster) as jobs:
            job = jobs.find(place)
        print(clean(f"On {cluster.file.name}, {cluster.head.host}: {job.status.lower()}"))
        place, runs = job.storage, not job.over
    try:
        lines = look(open_store(place, s3_options(args))).lines()
    except NoRunError:
        if not runs:
            raise
        print(f"Nothing of it is at {place} yet; what it says: tunelab logs {args.folder}")
        return 0
    for line in lines:
        print(clean(line, 1000))
    return 0


def _cluster(args: argparse.Namespace) -> Cluster | None:
    """The cluster that is named, or that was brought up from here; None: there is none."""
    from tunelab.cluster.where import place

    return place(address=None, local=False, file=args.cluster, folder=Path.cwd()).cluster


def _cluster_of(run: str, args: argparse.Namespace) -> Cluster | None:
    """The cluster on which a run is known by its name; None: it is a place, or there is no cluster."""
    return None if "/" in run or Path(run).exists() else _cluster(args)


def _list(args: argparse.Namespace) -> int:
    from tunelab.archive import runs_at
    from tunelab.errors import TunelabError
    from tunelab.overview import look
    from tunelab.report.words import clean
    from tunelab.storage import open_store

    place = open_store(args.place or "runs", s3_options(args))
    names = runs_at(place) if args.place or Path("runs").is_dir() else []
    there = _jobs(args) if args.place is None else []
    for job in there:
        print(f"{clean(job.run):<32} {job.status.lower():<12} on the cluster, {clean(job.storage, 1000)}")
    if not names and not there:
        print(f"no runs at {place.url}")
    for name in names:
        try:
            one = look(open_store(f"{place.url.rstrip('/')}/{name}", s3_options(args)))
            said = f"{clean(one.state):<12} {one.tried:>5} trials  best {clean(one.best):<24} {one.age}"
        except TunelabError as error:
            said = clean(f"cannot be read: {error}", 500)
        print(f"{clean(name):<32} {said}")
    return 0


def _jobs(args: argparse.Namespace) -> list[Job]:
    """The searches of the cluster that is named, or that was brought up from here."""
    if (cluster := _cluster(args)) is None:
        return []
    from tunelab.cluster.remote import jobs_of

    with jobs_of(cluster) as jobs:
        return jobs.all()


def _dashboard(args: argparse.Namespace) -> int:
    from tunelab.dashboard import dashboard
    from tunelab.storage import open_store

    dashboard(open_store(args.folder, s3_options(args)), host=args.host, port=args.port, say=_say)
    return 0


def _tensorboard(args: argparse.Namespace) -> int:
    from tunelab.storage import open_store
    from tunelab.tensorboard import tensorboard, tensorboard_there

    if (cluster := _cluster_of(args.folder, args)) is not None:
        tensorboard_there(cluster, args.folder, host=args.host, port=args.port, say=_say)
        return 0
    tensorboard(open_store(args.folder, s3_options(args)), host=args.host, port=args.port, say=_say)
    return 0


def _say(line: str) -> None:
    from tunelab.report.words import clean

    print(clean(line, 1000), flush=True)


def _sync(args: argparse.Namespace) -> int:
    from tunelab.resume import sync

    url, sent = sync(Path(args.folder), s3_options(args))
    print(f"sent {sent} files to {url}" if sent else f"{url} has everything already")
    return 0


def _report(args: argparse.Namespace) -> int:
    from tunelab.report import FILES, write_report

    content = write_report(Path(args.folder))
    print(content["verdict"])
    names = [*FILES, "front"] if content["front"] else FILES
    print("wrote " + ", ".join(str(Path(args.folder) / name) for name in names if (Path(args.folder) / name).exists()))
    return 0
