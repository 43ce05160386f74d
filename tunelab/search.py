"""Search a space: ``python -m tunelab.search``, or ``from tunelab.search import search``.

Fills in every default, says what is going to happen, and hands over to :mod:`tunelab.tuning.run`. The command line
is in :mod:`tunelab.cli`.
"""

from __future__ import annotations

import os
import platform
import re
import sys
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from rich.console import Console

from tunelab import __version__, metrics
from tunelab.data.dataset import SPLITS
from tunelab.data.plan import SHOWN
from tunelab.data.prepared import CacheOptions, access_to
from tunelab.errors import UsageError
from tunelab.models import chains, check_space
from tunelab.progress import plain, progress_console, shown
from tunelab.space import load_space, shipped
from tunelab.storage import parse_s3
from tunelab.tuning.run import Plan, SearchResult, run_search

DEFAULT_TRIALS = 16
LOCAL_FOLDER = Path("runs")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_PACKAGES = ("ray", "optuna", "keras", "tensorflow", "numpy")


def search(
    space: Path | str | None = None,
    *,
    data: Path | str | None = None,
    storage: Path | str = LOCAL_FOLDER,
    name: str | None = None,
    trials: int | None = None,
    time_budget: float | None = None,
    max_epochs: int | None = None,
    concurrent: int | None = None,
    cpus_per_trial: float | None = None,
    gpus_per_trial: float | None = None,
    seed: int = 0,
    address: str | None = None,
    cache: CacheOptions | None = None,
    debug: bool = False,
    console: Console | None = None,
) -> SearchResult:
    """Search a space and write the run's folder.

    Args:
        space: YAML file; None: the quick space that comes with tunelab.
        data: folder or ``s3://bucket/prefix`` of scans; None: the embedded synthetic data set.
        storage: folder, or ``s3://bucket/prefix``; the run's folder is made below it (and below ``runs`` for S3).
        name: of the run; None: the space's name and the time.
        trials: how many; None: the space's number, or no limit under a time budget.
        time_budget: seconds from now.
        max_epochs: of a trial; None: the space's.
        concurrent: trials at once; None: as many as the resources carry.
        cpus_per_trial: cores; None: the space's.
        gpus_per_trial: a fraction shares a GPU; None: the space's, else one where Ray sees any.
        seed: fixes splits, proposals and trainings.
        address: of a running Ray; None: start one on this machine.
        cache: where prepared data sets are kept, and how they are made; None: as :class:`CacheOptions` says.
        debug: Ray's own messages, and tracebacks as causes of failed trials.
        console: where to show progress; None: standard output.

    Raises:
        TunelabError: one of :mod:`tunelab.errors`, whose message says what to do.
    """
    begun = time.monotonic()
    console = console or progress_console()
    found = load_space(Path(space) if space is not None else shipped("quick.yaml"))
    check_space(found)
    for option, value in (("--trials", trials), ("--max-epochs", max_epochs), ("--concurrent", concurrent)):
        if value is not None and value < 1:
            raise UsageError(f"{option}: {value} is less than one")
    if seed < 0:
        raise UsageError(f"--seed: {seed} is less than zero")
    run_name = name if name is not None else f"{_word(found.name)}-{datetime.now():%Y%m%d-%H%M%S}"
    if not _NAME.fullmatch(run_name):
        raise UsageError(f"--name: {run_name[:60]!r} must be 1 to 100 letters, digits, dots, dashes or underscores")
    folder, remote = _places(str(storage), run_name)
    access = access_to(
        data,
        options=found.data,
        chains=chains(found),
        seed=seed,
        cache=cache or CacheOptions(),
    )
    with shown(console) as progress:
        ready = access.ready(progress)
    scans = next(iter(ready.datasets.values()))
    wanted = trials if trials is not None else None if time_budget is not None else found.trials or DEFAULT_TRIALS
    if not found.families:
        wanted = min(wanted or len(found.start_from), len(found.start_from))
    plan = Plan(
        name=run_name,
        folder=folder,
        remote=remote,
        space=found,
        data=scans,
        access=ready.access,
        samples={chain: dataset.n_samples for chain, dataset in ready.datasets.items()},
        trials=wanted,
        time_budget=time_budget,
        begun=begun,
        max_epochs=max_epochs or found.epochs.max,
        patience=found.epochs.patience,
        concurrent=concurrent,
        cpus=cpus_per_trial if cpus_per_trial is not None else found.resources.cpus,
        gpus=gpus_per_trial if gpus_per_trial is not None else found.resources.gpus,
        seed=seed,
        address=address,
        debug=debug,
    )
    _announce(plan, console)
    result = run_search(plan, facts(plan), console)
    plain(console, result.report["verdict"])
    plain(console, f"Report: {folder / 'report.html'}")
    if result.report["best"] is not None:
        plain(console, f"Best configuration: {folder / 'best_config.yaml'}")
    if remote:
        plain(console, f"Also at {remote}")
    return result


def facts(plan: Plan) -> Mapping[str, Any]:
    """The content of ``run.yaml``: all that is needed to repeat the run, and nothing of the environment beside it."""
    data, judged = plan.data, plan.data.judged()
    parts = {split: data.part(split) for split in SPLITS}
    return {
        "name": plan.name,
        "version": __version__,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {"python": platform.python_version()} | {name: metadata.version(name) for name in _PACKAGES},
        "backend": os.environ.get("KERAS_BACKEND", "tensorflow"),
        "seed": plan.seed,
        "command": ["python", "-m", "tunelab.search", *sys.argv[1:]] if _is_command() else [],
        "resources": {"cpus": plan.cpus, "gpus": plan.gpus, "concurrent": plan.concurrent},
        "budget": {"trials": plan.trials, "seconds": plan.time_budget},
        "epochs": {"max": plan.max_epochs, "patience": plan.patience},
        "always_positive_f1": metrics.always_positive_f1(judged.positives, judged.n_traces),
        "positives": judged.positives,
        "validation_traces": judged.n_traces,
        "dimensions": plan.space.columns(),
        "space": dict(plan.space.document),
        "data": {
            "source": data.source,
            "fingerprint": data.fingerprint,
            "scans": data.n_scans,
            "traces": data.n_traces,
            "samples": sorted(set(plan.samples.values())),
            "dt": data.dt,
            "options": plan.space.data.model_dump(mode="json", exclude_defaults=True),
            "chains": [chain.describe() for chain in plan.samples],
            "notes": list(data.notes),
            "positives": {split: part.positives for split, part in parts.items()},
            "traces_by_split": {split: part.n_traces for split, part in parts.items()},
            "splits": {split: list(part.scans) for split, part in parts.items()},
            "folds": {k: list(data.fold(k).part("validation").scans) for k in range(data.n_folds)} or None,
        },
    }


def _is_command() -> bool:
    return Path(sys.argv[0]).name in ("search.py", "tunelab", "__main__.py", "cli.py")


def _word(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-._")[:60] or "run"


def _places(storage: str, name: str) -> tuple[Path, str]:
    """The run's local folder, and its URL when the storage is S3."""
    if storage.startswith("s3:"):
        bucket, prefix = parse_s3(storage)
        return (LOCAL_FOLDER / name).absolute(), "/".join(["s3:/", bucket, *filter(None, [prefix.strip("/")]), name])
    if "://" in storage:
        raise UsageError(f"--storage: {storage}: write a folder or s3://bucket/prefix")
    return (Path(storage).expanduser() / name).absolute(), ""


def _chains(plan: Plan) -> list[str]:
    """A line for each chain of preprocessing, or for the first few of many."""
    told = [f"Preprocessing: {chain.describe()}: {n:,} samples." for chain, n in plan.samples.items()]
    if len(told) == 1 and next(iter(plan.samples)).is_identity:
        return []
    return told if len(told) <= SHOWN else [*told[: SHOWN - 1], f"Preprocessing: {len(told) - SHOWN + 1} more chains."]


def _announce(plan: Plan, console: Console) -> None:
    data = plan.data
    names = ", ".join(plan.space.families) or f"{len(plan.space.start_from)} fixed configurations"
    limits = [f"{plan.trials} trials" if plan.trials else "", f"{plan.time_budget:.0f} s" if plan.time_budget else ""]
    where = f"Ray at {plan.address}" if plan.address else "this machine"
    widths = " or ".join(f"{n:,}" for n in sorted(set(plan.samples.values())))
    lines = [
        f"Searching {plan.space.name} ({names}) on {where}: {' or '.join(filter(None, limits))}, "
        f"{plan.max_epochs} epochs each at most.",
        f"Data: {data.source}: {data.n_scans} scans, {data.n_traces} traces of {widths} samples; {data.dealt}.",
        *_chains(plan),
        *(f"Note: {note}" for note in data.notes),
    ]
    for line in lines:
        plain(console, line)


if __name__ == "__main__":
    from tunelab.cli import main

    sys.exit(main(["search", *sys.argv[1:]]))
