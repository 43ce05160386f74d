"""Search a space: ``python -m tunelab.search``, or ``from tunelab.search import search``.

Fills in every default, says what is going to happen, and hands over to :mod:`tunelab.tuning.run`. The command line
is in :mod:`tunelab.cli`.
"""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TypedDict, Unpack

from rich.console import Console

from tunelab.data.prepared import CacheOptions
from tunelab.data.request import is_remote
from tunelab.models import open_space
from tunelab.naming import LOCAL_FOLDER, places, run_name
from tunelab.planning import announce, begin, plan_of
from tunelab.progress import plain, progress_console
from tunelab.s3 import S3Options
from tunelab.space import shipped
from tunelab.tuning.hold import new_run
from tunelab.tuning.plan import Options, Plan, SearchResult
from tunelab.tuning.run import run_search

_KEPT = (
    *("trials", "time_budget", "gpu_hours", "max_epochs", "concurrent", "cpus_per_trial", "gpus_per_trial", "seed"),
    *("max_cost", "sync_every", "max_failures", "step_timeout", "keep"),
)
"""What goes into a run's record as it was given."""


class SearchOptions(TypedDict, total=False):
    """What :func:`search` takes beside the space and the console; what each means, and is by default, stands there."""

    data: Path | str | None
    storage: Path | str
    name: str | None
    trials: int | None
    time_budget: float | None
    gpu_hours: float | None
    max_cost: float | None
    max_epochs: int | None
    concurrent: int | None
    cpus_per_trial: float | None
    gpus_per_trial: float | None
    seed: int
    address: str | None
    where: str
    cache: CacheOptions | None
    sync_every: float
    s3: S3Options | None
    max_failures: int
    step_timeout: float
    keep: int
    debug: bool


def search(
    space: Path | str | None = None,
    *,
    data: Path | str | None = None,
    storage: Path | str = LOCAL_FOLDER,
    name: str | None = None,
    trials: int | None = None,
    time_budget: float | None = None,
    gpu_hours: float | None = None,
    max_cost: float | None = None,
    max_epochs: int | None = None,
    concurrent: int | None = None,
    cpus_per_trial: float | None = None,
    gpus_per_trial: float | None = None,
    seed: int = 0,
    address: str | None = None,
    where: str = "",
    cache: CacheOptions | None = None,
    sync_every: float = 60.0,
    s3: S3Options | None = None,
    max_failures: int = 3,
    step_timeout: float = 3600.0,
    keep: int = 10,
    debug: bool = False,
    console: Console | None = None,
) -> SearchResult:
    """Search a space and write the run's folder.

    Args:
        space: YAML file; None: the quick space that comes with tunelab.
        data: folder or ``s3://bucket/prefix`` of scans; None: the embedded synthetic data set.
        storage: folder, or ``s3://bucket/prefix``; the run's folder is made below it (and below ``runs`` for S3).
        name: of the run; None: the space's name and the time.
        trials: how many; None: the space's number, or no limit where time, GPU-hours or cost have one.
        time_budget: seconds from now.
        gpu_hours: of all trials together, from when each got its place; whichever limit comes first ends the search.
        max_cost: US dollars for all machines together while the search goes on; what each costs has to be known.
        max_epochs: of a trial; None: the space's.
        concurrent: trials at once; None: as many as the resources carry.
        cpus_per_trial: cores; None: the space's.
        gpus_per_trial: a fraction shares a GPU; None: the space's, else one where Ray sees any.
        seed: fixes splits, proposals and trainings.
        address: of a running Ray; None: start one on this machine.
        where: which machine or Ray that is and why, for people; empty: only what is searched is said.
        cache: where prepared data sets are kept, and how they are made; None: as :class:`CacheOptions` says.
        sync_every: seconds between two copies to S3 storage, and two reports.
        s3: how S3 storage is asked; None: with the endpoint of the environment, and the bucket's own encryption.
        max_failures: how many losses of its process a trial survives; lost nodes are not counted.
        step_timeout: seconds that an epoch may take before its training is taken for hung.
        keep: of how many of the best trials that are over the weights are kept.
        debug: Ray's own messages, and tracebacks as causes of failed trials.
        console: where to show progress; None: standard output.

    Raises:
        TunelabError: one of :mod:`tunelab.errors`, whose message says what to do.
    """
    begun = time.monotonic()
    console = console or progress_console()
    plan = planned(
        space,
        begun,
        console,
        data=data,
        storage=storage,
        name=name,
        trials=trials,
        time_budget=time_budget,
        gpu_hours=gpu_hours,
        max_cost=max_cost,
        max_epochs=max_epochs,
        concurrent=concurrent,
        cpus_per_trial=cpus_per_trial,
        gpus_per_trial=gpus_per_trial,
        seed=seed,
        address=address,
        where=where,
        cache=cache,
        sync_every=sync_every,
        s3=s3,
        max_failures=max_failures,
        step_timeout=step_timeout,
        keep=keep,
        debug=debug,
    )
    announce(plan, console)
    with new_run(plan.folder, plan.options.storage, plan.options.s3) as hold:
        begin(plan, hold)
        result = run_search(plan, hold, console)
    conclude(result, plan.options, console)
    return result


def planned(space: Path | str | None, begun: float, console: Console, **given: Unpack[SearchOptions]) -> Plan:
    """The plan of a search, its data set ready; nothing is begun.

    Args:
        space: as of :func:`search`.
        begun: ``time.monotonic()`` when the command started.
        console: where to show progress.
        given: as of :func:`search`.

    Raises:
        TunelabError: as :func:`search`, as far as it can be told before anything is begun.
    """
    found = open_space(Path(space) if space is not None else shipped("quick.yaml"))
    cache, s3 = given.get("cache"), given.get("s3") or S3Options()
    folder, remote = places(str(given.get("storage", LOCAL_FOLDER)), run_name(given.get("name"), found.name))
    options = Options(
        space=str(Path(space).expanduser().absolute()) if space is not None else "",
        data=absolute(given.get("data")),
        max_bad=cache.max_bad if cache else 0,
        storage=remote,
        s3_endpoint=s3.endpoint,
        s3_sse=s3.sse,
        s3_kms_key=s3.kms_key,
        **{name: given[name] for name in _KEPT if name in given},  # type: ignore[literal-required]
    )
    plan = plan_of(
        options,
        found,
        folder,
        begun=begun,
        address=given.get("address"),
        cache=cache,
        debug=given.get("debug", False),
        console=console,
    )
    return replace(plan, where=given.get("where", ""))


def conclude(result: SearchResult, options: Options, console: Console) -> None:
    """Say what came out, and where it is."""
    folder = result.folder
    if reason := result.report["reason"]:
        plain(console, f"Why the search ended: {reason}.")
    plain(console, result.report["verdict"])
    plain(console, f"Report: {folder / 'report.html'}")
    if result.report["best"] is not None:
        plain(console, f"Best configuration: {folder / 'best_config.yaml'}")
    if result.report["front"]:
        plain(console, f"Configurations of the front: {folder / 'front'}")
    if options.storage:
        plain(console, f"Also at {options.storage}")
    if result.exit_code:
        plain(console, f"Go on with: tunelab resume {options.storage or folder}")


def absolute(data: Path | str | None) -> str | None:
    """Where scans are, whatever the current folder is; a URL, or what names nothing, is as it was."""
    if data is None or is_remote(str(data)) or not str(data).strip():
        return None if data is None else str(data)
    return str(Path(data).expanduser().absolute())


if __name__ == "__main__":
    from tunelab.cli import main

    sys.exit(main(["search", *sys.argv[1:]]))
