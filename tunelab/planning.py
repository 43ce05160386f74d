"""From options to a plan, and the first lines of a run: every default filled in, the data set ready, all recorded.

A search and a resume come through here alike; what either is about to do is said by :func:`announce`. Nothing is run.
"""

from __future__ import annotations

import math
import os
import platform
import sys
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console

from tunelab import __version__, metrics
from tunelab.data.dataset import SPLITS
from tunelab.data.plan import SHOWN
from tunelab.data.prepared import CacheOptions, access_to
from tunelab.data.shares import sizes_of
from tunelab.errors import UsageError
from tunelab.fidelity import words
from tunelab.files import write_file
from tunelab.models import chains, check_space
from tunelab.progress import plain, shown
from tunelab.space import Space
from tunelab.spending import check_max_cost
from tunelab.tuning.hold import Hold
from tunelab.tuning.plan import FORMAT, Options, Plan

DEFAULT_TRIALS = 16
_PACKAGES = ("ray", "optuna", "keras", "tensorflow", "numpy")


def plan_of(
    options: Options,
    space: Space,
    folder: Path,
    *,
    begun: float,
    address: str | None,
    cache: CacheOptions | None,
    debug: bool,
    console: Console,
) -> Plan:
    """Fill in every default, and make the data set ready.

    Args:
        options: what was asked for.
        space: what to search.
        folder: the run's, whose last part is its name.
        begun: ``time.monotonic()`` when the command started.
        address: of a running Ray; None: start one.
        cache: this machine's.
        debug: see :func:`search`.
        console: where to show progress.

    Raises:
        UsageError: an option out of range.
        DataError: scans that cannot be used.
    """
    check_space(space)
    for option, value, least in (
        ("--trials", options.trials, 1),
        ("--max-epochs", options.max_epochs, 1),
        ("--concurrent", options.concurrent, 1),
        ("--keep", options.keep, 1),
        ("--max-failures", options.max_failures, 0),
        ("--seed", options.seed, 0),
    ):
        if value is not None and value < least:
            raise UsageError(f"{option}: {value} is less than {('zero', 'one')[least]}")
    if options.gpu_hours is not None and not 0 < options.gpu_hours < math.inf:
        raise UsageError(f"--gpu-hours: {options.gpu_hours:g} is not above zero")
    if options.max_cost is not None and not 0 < options.max_cost < math.inf:
        raise UsageError(f"--max-cost: {options.max_cost:g} is not above zero")
    check_max_cost(options.max_cost)
    access = access_to(
        options.data,
        options=space.data,
        chains=chains(space),
        seed=options.seed,
        cache=replace(cache or CacheOptions(), max_bad=options.max_bad),
    )
    with shown(console) as progress:
        ready = access.ready(progress)
    whole = next(iter(ready.datasets.values()))
    shares = sizes_of(whole, space.fidelity.data, options.seed)  # so that no step repeats another
    trials = options.trials
    if trials is None and (options.time_budget, options.gpu_hours, options.max_cost) == (None, None, None):
        trials = space.trials or DEFAULT_TRIALS
    if not space.families:
        trials = min(trials or len(space.start_from), len(space.start_from))
    cpus, gpus = options.cpus_per_trial, options.gpus_per_trial
    return Plan(
        name=folder.name,
        folder=folder,
        options=options,
        space=space,
        data=whole,
        shares=shares,
        access=ready.access,
        samples={chain: dataset.n_samples for chain, dataset in ready.datasets.items()},
        trials=trials,
        begun=begun,
        max_epochs=options.max_epochs or space.epochs.max,
        patience=space.epochs.patience,
        cpus=cpus if cpus is not None else space.resources.cpus,
        gpus=gpus if gpus is not None else space.resources.gpus,
        custom=space.resources.custom,
        address=address,
        debug=debug,
    )


def begin(plan: Plan, hold: Hold) -> None:
    """Write the first lines of a new run's journal, and what people read beside it.

    Raises:
        StorageError: the folder cannot be written.
    """
    first = {"name": plan.name, "version": __version__, "format": FORMAT, "seed": plan.options.seed}
    hold.journal.append("run", **first, options=plan.options.model_dump(), identity=identity(plan))
    open_session("search", hold)
    describe(plan)


def open_session(by: str, hold: Hold) -> None:
    """Record who goes on with a run from here.

    Args:
        by: the command.
        hold: the run.
    """
    journal = hold.journal
    journal.append(
        "session",
        by=by,
        fence=hold.fence,
        owner=journal.lease.owner,
        version=__version__,
        versions=versions(),
        cut=journal.cut,
    )


def describe(plan: Plan) -> None:
    """Write ``run.yaml``, and the space as it was, into the run's folder.

    Raises:
        StorageError: they cannot be written.
    """
    for name, content in (("space.yaml", plan.space.document), ("run.yaml", facts(plan))):
        text = yaml.safe_dump(dict(content), sort_keys=False, allow_unicode=True)
        write_file(plan.folder / name, text.encode())


def identity(plan: Plan) -> dict[str, Any]:
    """What results of one run must have in common to be compared."""
    data = plan.data
    return {
        "space": dict(plan.space.document),
        "data": data.fingerprint,
        "splits": {split: list(data.part(split).scans) for split in SPLITS},
        "folds": [list(data.fold(k).part("validation").scans) for k in range(data.n_folds)],
        "seed": plan.options.seed,
        "max_epochs": plan.max_epochs,
        "backend": os.environ.get("KERAS_BACKEND", "tensorflow"),
    }


def versions() -> dict[str, str]:
    """Of what computes here."""
    return {"python": platform.python_version()} | {name: metadata.version(name) for name in _PACKAGES}


def facts(plan: Plan) -> Mapping[str, Any]:
    """The content of ``run.yaml``: all that is needed to repeat the run, and nothing of the environment beside it."""
    data, judged = plan.data, plan.data.judged()
    parts = {split: data.part(split) for split in SPLITS}
    return {
        "name": plan.name,
        "version": __version__,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": versions(),
        "backend": os.environ.get("KERAS_BACKEND", "tensorflow"),
        "seed": plan.options.seed,
        "command": ["python", "-m", "tunelab.search", *sys.argv[1:]] if _is_command() else [],
        "resources": {"cpus": plan.cpus, "gpus": plan.gpus, "concurrent": plan.options.concurrent},
        "budget": {
            "trials": plan.trials,
            "seconds": plan.options.time_budget,
            "gpu_hours": plan.options.gpu_hours,
            "max_cost": plan.options.max_cost,
        },
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


def _chains(plan: Plan) -> list[str]:
    """A line for each chain of preprocessing, or for the first few of many."""
    told = [f"Preprocessing: {chain.describe()}: {n:,} samples." for chain, n in plan.samples.items()]
    if len(told) == 1 and next(iter(plan.samples)).is_identity:
        return []
    return told if len(told) <= SHOWN else [*told[: SHOWN - 1], f"Preprocessing: {len(told) - SHOWN + 1} more chains."]


def _steps(plan: Plan) -> list[str]:
    """A line on the steps of fidelity, where there are any."""
    space, reduction = plan.space, plan.space.early_stopping.reduction
    if not space.fidelity.steps:
        return []
    told = [words(at) for at in space.fidelity.steps]
    if space.fidelity.data:
        told = [f"{said} ({size} scans)" for said, size in zip(told, plan.shares, strict=False)]
    folds = ", on the first fold alone" if plan.data.folds else ""
    return [f"Fidelity: each first {', then '.join(told)}{folds}; the best 1/{reduction:g} go on, up to all of it."]


def announce(plan: Plan, console: Console) -> None:
    """Say what is going to happen."""
    data = plan.data
    names = ", ".join(plan.space.families) or f"{len(plan.space.start_from)} fixed configurations"
    seconds, hours = plan.options.time_budget, plan.options.gpu_hours
    limits = [f"{plan.trials} trials" if plan.trials else "", f"{seconds:.0f} s" if seconds else ""]
    limits += [f"{hours:g} GPU-hours"] if hours else []
    limits += [f"{plan.options.max_cost:g} US dollars"] if plan.options.max_cost else []
    where = f"Ray at {plan.address}" if plan.address else "this machine"
    widths = " or ".join(f"{n:,}" for n in sorted(set(plan.samples.values())))
    lines = [
        f"Searching {plan.space.name} ({names}) on {where}: {' or '.join(filter(None, limits))}, "
        f"{plan.max_epochs} epochs each at most.",
        f"Data: {data.source}: {data.n_scans} scans, {data.n_traces} traces of {widths} samples; {data.dealt}.",
        *_chains(plan),
        *_steps(plan),
        *(f"Note: {note}" for note in data.notes),
        *([f"Where: {plan.where}."] if plan.where else []),
    ]
    for line in lines:
        plain(console, line)
