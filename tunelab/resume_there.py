"""A run of a bucket that goes on on a cluster, when ``tunelab resume`` is typed on another machine.

What is not typed again stands in the run's journal, which is read from the bucket: the modules of its space's families
are looked for here and taken along, and what it may still cost is said. The head brings the run from the bucket and
does the rest (:mod:`tunelab.resume`).
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from tunelab import journal
from tunelab.cluster.file import ClusterFile
from tunelab.cluster.jobs import Jobs
from tunelab.cluster.package import HERE, space_of
from tunelab.cluster.remote import Task, at, check_data, check_limit, gpus_asked, handed_over, jobs_of, storage_of
from tunelab.cluster.where import Cluster
from tunelab.cluster.words import replaced, without
from tunelab.errors import RunBusyError, SpaceError, StateError, UsageError
from tunelab.naming import LOCAL_FOLDER, check_name, place_of, places
from tunelab.overview import JOURNAL, journal_of
from tunelab.s3 import S3Options
from tunelab.space import Space, load_space
from tunelab.spending import Spending, session_seconds
from tunelab.storage import open_store

OURS = ("--cluster", "--space")
"""Options whose values this side says anew."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Again:
    """A resume as it was typed, as far as this side has to know it; None: as it was."""

    words: Sequence[str]
    """All of the command line behind ``resume``."""
    run: str
    """A name, or a URL."""
    space: str | None = None
    data: str | None = None
    gpus: float | None = None
    time_budget: float | None = None
    """Seconds, in all."""
    max_cost: float | None = None
    """US dollars, in all; 0: no limit any more."""
    s3: S3Options = field(default_factory=S3Options)


def folder_here(run: str) -> Path | None:
    """The folder of a run that is on this machine; None: there is none.

    Args:
        run: its folder, or its name where it is in ``runs``; a URL is no folder.
    """
    if run.startswith("s3:") or not run.strip():
        return None
    named = Path(run).expanduser()
    places_of = [named] if len(named.parts) > 1 else [named, LOCAL_FOLDER / named]
    return next((folder for folder in places_of if (folder / JOURNAL).exists()), None)


def resume_there(cluster: Cluster, asked: Again) -> int:
    """Go on with a run on a cluster, and show what it says until it is over or the user goes.

    Args:
        cluster: that runs.
        asked: what was typed.

    Returns:
        The exit code: the command's, or 0 when the user went.

    Raises:
        UsageError: the run, its space or its scans cannot be had there.
        RunBusyError: it still runs there.
        StateError: there is no such run, or its journal is damaged.
        StorageError: the bucket cannot be read from here.
        ClusterError: the cluster cannot be reached or does not take it.
    """
    file = cluster.file
    if (folder := folder_here(asked.run)) is not None:
        raise UsageError(f"{asked.run}: {_only_here(folder, file)}")
    check_data(asked.data, file)
    with jobs_of(cluster) as jobs:
        name, url = _found(asked.run, jobs, file)
        records, _ = journal.parse(journal_of(open_store(url, asked.s3)), f"{url}/{JOURNAL}")
        begun_with = _newest(records, url)
        told = begun_with["options"]
        limit = told.get("max_cost") if asked.max_cost is None else asked.max_cost or None
        seconds = asked.time_budget or told.get("time_budget")
        check_limit(limit, file)
        path = Path(asked.space) if asked.space is not None else None
        space = space_of(path) if path is not None else _space(begun_with["identity"]["space"], url)
        words = replaced(without(asked.words, OURS), asked.run, url)
        if path is not None:
            words += ["--space", HERE + path.name]
        gpus = told.get("gpus_per_trial") if asked.gpus is None else asked.gpus
        words += ["--address", "auto", *gpus_asked(gpus, space, file)]
        task = Task(words=("resume", *words), name=name, url=url, space=space, path=path, again=True)
        left = None if limit is None else max(limit - Spending(records).dollars(), 0.0)
        return handed_over(cluster, jobs, task, None if seconds is None else _left(seconds, records), left)


def _only_here(folder: Path, file: ClusterFile) -> str:
    """Why a run in a folder does not go on elsewhere, and what does."""
    said = f"the run is in a folder of this machine, {folder}, and the cluster's machines cannot read its disk"
    records = journal.read(folder / JOURNAL)
    stored = next((r["options"].get("storage") for r in reversed(records) if r.get("kind") in ("run", "change")), "")
    remedy = "go on here: leave --cluster out"
    if stored:
        remedy += f"; or on the cluster, from its bucket: tunelab sync {folder}, then tunelab resume {stored}{at(file)}"
    return f"{said}; {remedy}"


def _found(run: str, jobs: Jobs, file: ClusterFile) -> tuple[str, str]:
    """A run's name and URL.

    Raises:
        UsageError: it names no run of a bucket.
        RunBusyError: the cluster is at it.
    """
    if run.startswith("s3:") or not run.strip():
        folder, url = place_of(run)
        name = folder.name
    else:
        name, url = run, ""
        if "/" in run:
            raise UsageError(
                f"RUN: {run}: no run is there on this machine; name one of the cluster by its name or its s3:// URL"
            )
        check_name(name)
    job = jobs.newest(name)
    if job is not None and not job.over:
        raise RunBusyError(
            f"{name}: runs on the cluster; look at it: tunelab attach {name}{at(file)}; end it first: tunelab stop "
            f"{name}{at(file)}"
        )
    if not url:
        url = job.storage if job is not None else places(storage_of(None, file), name)[1]
    return name, url


def _newest(records: Sequence[journal.Record], url: str) -> Mapping[str, Any]:
    """What the run was begun with, or changed to last.

    Raises:
        StateError: the journal does not tell.
    """
    there = [record for record in records if record.get("kind") in ("run", "change")]
    try:
        if not isinstance(there[-1]["options"].get("max_cost"), int | float | None):
            raise TypeError("max_cost is no number")
        if not isinstance(there[-1]["options"].get("time_budget"), int | float | None):
            raise TypeError("time_budget is no number")
        dict(there[-1]["identity"]["space"])
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        said = f"{type(error).__name__} {error!s:.100}"
        raise StateError(f"{url}/{JOURNAL}: is none of this version: {said}; restore the file from a copy") from error
    return there[-1]


def _space(document: Mapping[str, Any], url: str) -> Space:
    """The space that a run was begun with."""
    with tempfile.TemporaryDirectory(prefix="tunelab-space-") as temporary:
        path = Path(temporary) / "space.yaml"
        path.write_text(yaml.safe_dump(dict(document), sort_keys=False, allow_unicode=True), encoding="utf-8")
        try:
            return replace(load_space(path), source=f"{url}: its space")
        except SpaceError as error:
            raise StateError(str(error).replace(str(path), f"{url}/{JOURNAL}: its space")) from None


def _left(seconds: float, records: Sequence[journal.Record]) -> float:
    """Of a time in all, what a run's sessions have left."""
    return max(seconds - session_seconds([*records, {"kind": "session"}]), 0.0)
