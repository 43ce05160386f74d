"""The commands about a cluster file: ``tunelab cluster COMMAND``."""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from tunelab.command import command
from tunelab.errors import ClusterError, UsageError

if TYPE_CHECKING:
    from tunelab.cluster.file import ClusterFile


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the commands."""
    cluster = commands.add_parser(
        "cluster",
        help="check a cluster file, price it, print the rights that it needs, and end the cluster",
        description="Check a cluster file, price it, print the rights that it needs, and end the cluster.",
        epilog="example: tunelab cluster check cluster.yaml",
    )
    kinds = cluster.add_subparsers(required=True, metavar="COMMAND")
    check = command(
        kinds, "check", "say what is wrong with a cluster file, and what to do", "tunelab cluster check cluster.yaml"
    )
    check.add_argument("file", metavar="FILE", help="the file of `ray up`")
    check.add_argument(
        "--live",
        action="store_true",
        help="ask AWS too: launches as dry runs, quotas, images, writing to the bucket; from a worker if one runs",
    )
    check.set_defaults(run=_check)

    iam = command(
        kinds,
        "iam",
        "print policies that allow what is needed and no more, and the commands that put them to use",
        "tunelab cluster iam cluster.yaml --account 123456789012",
    )
    iam.add_argument("file", nargs="?", metavar="FILE", help="take bucket, region and names from this cluster file")
    iam.add_argument("--account", metavar="ID", help="the account's twelve digits (default: a placeholder)")
    iam.add_argument("--bucket", metavar="NAME", help="of the results (default: the file's, else a placeholder)")
    iam.set_defaults(run=_iam)

    price = command(
        kinds,
        "price",
        "say what a cluster costs an hour, or for a time",
        "tunelab cluster price cluster.yaml --hours 8",
    )
    price.add_argument("file", metavar="FILE", help="the file of `ray up`")
    price.add_argument("--hours", type=_hours, metavar="H", help="that the cluster is up, such as 8 or 0.5")
    price.set_defaults(run=_price)

    down = command(
        kinds,
        "down",
        "end a cluster and its costs: machines, Ray's key pair, and what this machine remembers of it",
        "tunelab cluster down cluster.yaml",
    )
    down.add_argument("file", metavar="FILE", help="the file of `ray up`")
    down.add_argument("--yes", action="store_true", help="do not ask, on a terminal, when searches still run")
    down.set_defaults(run=_down)


def _check(args: argparse.Namespace) -> int:
    from tunelab.cluster.check import check
    from tunelab.cluster.file import load_cluster_file

    file = load_cluster_file(Path(args.file))
    found = check(file)
    code = UsageError.exit_code if any(finding.severity == "error" for finding in found) else 0
    wrote = ""
    if args.live:
        from tunelab.cluster.live import check_live
        from tunelab.cluster.on_worker import from_worker
        from tunelab.cluster.remote import say

        asked = check_live(file)
        of_worker, wrote = from_worker(file, say)
        asked += of_worker
        if not code and any(finding.severity == "error" for finding in asked):
            code = ClusterError.exit_code
        found = sorted([*found, *asked], key=lambda finding: finding.line)
    for finding in found:
        print(finding.text(file.path))
    errors = sum(finding.severity == "error" for finding in found)
    print(f"{file.path}: {_count(errors, 'error')}, {_count(len(found) - errors, 'warning')}")
    if wrote and not any(finding.key == "provider.storage" for finding in found):
        print(wrote)
    return code


def _iam(args: argparse.Namespace) -> int:
    from tunelab.cluster.file import load_cluster_file
    from tunelab.cluster.iam import names_of, script

    file = load_cluster_file(Path(args.file)) if args.file is not None else None
    names = names_of(file, account=args.account, bucket=args.bucket)
    print(script(names), end="")
    if names.missing:
        print(f"placeholders are left; give {' and '.join(names.missing)}", file=sys.stderr)
    return 0


def _price(args: argparse.Namespace) -> int:
    from tunelab.cluster.file import load_cluster_file
    from tunelab.cluster.prices import price

    file = load_cluster_file(Path(args.file))
    known = price(file)
    if known is None:
        print(f"{file.path}: machines of your own, which nobody bills by the hour")
        return 0
    print(known.line())
    if args.hours is not None and (cost := known.estimate(args.hours)) is not None:
        print(f"{args.hours:g} hours: {cost[0]:.2f} to {cost[1]:.2f} US dollars")
    return 0


def _down(args: argparse.Namespace) -> int:
    from tunelab.cluster.down import down
    from tunelab.cluster.file import load_cluster_file

    file = load_cluster_file(Path(args.file))
    if not args.yes and sys.stdin.isatty() and (why := _still_needed(file)):
        print(f"{why}; end the cluster all the same? [y/N] ", end="", flush=True)
        if sys.stdin.readline().strip().lower() not in ("y", "yes"):
            print("Nothing was ended.")
            return 0
    down(file, lambda line: print(line, flush=True))
    return 0


def _still_needed(file: ClusterFile) -> str:
    """Why somebody may want a cluster to go on; empty when nobody does."""
    from tunelab.cluster.remote import jobs_of
    from tunelab.cluster.where import NoHeadError, running

    try:
        with jobs_of(running(file)) as jobs:
            searches = [job.run for job in jobs.all() if not job.over]
    except NoHeadError:
        return ""
    except ClusterError as error:
        return f"The cluster does not say whether searches run on it ({error})"
    return f"{', '.join(searches)}: still running there, and unfinished trials lose epochs" if searches else ""


def _hours(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or value <= 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of hours; write such as 8 or 0.5")
    return value


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
