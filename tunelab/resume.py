"""Go on with a run: ``tunelab resume RUN``, here or on another machine.

What is known comes from the journal alone. The plan is made anew from the options that its first line holds, and what
it comes to is compared with what the run was begun with: results of other data, or of another space or seed, are not
mixed in silence. The search itself is that of :mod:`tunelab.tuning.run`, which replays the journal and does the rest.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import yaml
from pydantic import ValidationError
from rich.console import Console

from tunelab import __version__, journal
from tunelab.data.prepared import CacheOptions
from tunelab.difference import SPACE, compare
from tunelab.errors import StateError, UsageError
from tunelab.faults import explain
from tunelab.files import write_file
from tunelab.models import open_space
from tunelab.naming import place_of
from tunelab.planning import announce, describe, identity, open_session, plan_of, versions
from tunelab.progress import plain, progress_console
from tunelab.ranking import Leaderboard
from tunelab.report.words import clean
from tunelab.s3 import S3Options
from tunelab.search import absolute, conclude
from tunelab.space import Space, shipped
from tunelab.tuning.hold import JOURNAL, Hold, old_run
from tunelab.tuning.plan import FORMAT, Options, SearchResult
from tunelab.tuning.retention import Retention
from tunelab.tuning.run import run_search


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """What a user may want otherwise from here on; None: as it was."""

    space: Path | str | None = None
    data: str | None = None
    seed: int | None = None
    trials: int | None = None
    time_budget: float | None = None
    """In all, what the run has taken before included."""
    gpu_hours: float | None = None
    """Likewise; 0: no limit any more."""
    max_cost: float | None = None
    """Likewise, in US dollars."""
    concurrent: int | None = None
    cpus_per_trial: float | None = None
    gpus_per_trial: float | None = None
    sync_every: float | None = None
    max_failures: int | None = None
    step_timeout: float | None = None
    accept: bool = False
    """Go on where that is sound, although space or seed changed."""


def resume(
    run: Path | str,
    *,
    changes: Changes | None = None,
    address: str | None = None,
    where: str = "",
    cache: CacheOptions | None = None,
    s3: S3Options | None = None,
    debug: bool = False,
    console: Console | None = None,
) -> SearchResult:
    """Go on with a run that was interrupted, killed, or is to have more trials or time.

    Args:
        run: its folder, or its ``s3://`` URL; then a local copy is made or brought up to date in ``runs/NAME``.
        changes: what is to be otherwise.
        address: of a running Ray; None: start one on this machine.
        where: which machine or Ray that is and why, for people; empty: that is not said.
        cache: this machine's.
        s3: how the bucket is asked; None: as the run was begun with, or as the environment says.
        debug: Ray's own messages, and tracebacks as causes of failed trials.
        console: where to show progress; None: standard output.

    Raises:
        StateError: there is no run, it is damaged, of an incompatible version, or something changed.
        RunBusyError: another process holds the run.
        TunelabError: as of :func:`tunelab.search.search`.
    """
    begun = time.monotonic()
    console = console or progress_console()
    changes = changes or Changes()
    folder, url = place_of(str(run))
    if not url and (folder / JOURNAL).exists():
        told = _options(journal.read(folder / JOURNAL), folder)
        url, s3 = told.storage, _asked_how(told, s3, console)
    with old_run(folder, url, s3 or S3Options()) as hold:
        for note in hold.notes:
            plain(console, clean(f"Note: {note}", 1000))
        board = Leaderboard(hold.journal.records)  # whose records are known to be what they say from here on
        options = _options(hold.journal.records, folder)
        _check_final(hold, changes, folder)
        asked = _asked(options, changes, url)
        space = _space(hold, asked, options, changes)
        plan = plan_of(asked, space, folder, begun=begun, address=address, cache=cache, debug=debug, console=console)
        plan = replace(plan, where=where)
        accepted = compare(plan, hold, accept=changes.accept)
        announce(plan, console)
        _say(hold, board, accepted, console)
        open_session("resume", hold)
        if accepted or asked != options:
            hold.journal.append("change", changes=accepted, options=asked.model_dump(), identity=identity(plan))
        describe(plan)
        result = run_search(plan, hold, console)
    conclude(result, asked, console)
    return result


def sync(run: Path, s3: S3Options | None = None) -> tuple[str, int]:
    """Send a run's files to its bucket, when that was away at the end of the search.

    Args:
        run: its folder.
        s3: how the bucket is asked; None, or nothing said: as the run was begun with.

    Returns:
        The run's place in the bucket, and how many files were sent.

    Raises:
        UsageError: the run has no bucket.
        RunBusyError: a search holds the run, and sends its files itself.
        StorageError: the bucket cannot be reached.
    """
    folder, _ = place_of(str(run))
    told = _options(journal.read(folder / JOURNAL), folder)
    if not told.storage:
        raise UsageError(f"{folder}: was begun without a bucket, so there is none to send it to; copy the folder")
    with old_run(folder, told.storage, _asked_how(told, s3, progress_console())) as hold:
        retention = Retention(folder, Leaderboard(hold.journal.records), told.keep)
        mirror = hold.mirror(told.sync_every, retention.spare)
        return told.storage, mirror.sync() if mirror is not None else 0


def _asked_how(told: Options, s3: S3Options | None, console: Console) -> S3Options:
    """How the bucket is asked: as was said now, or else as the run was begun with, which is told where it matters."""
    if s3 not in (None, S3Options()):
        return s3 or S3Options()
    if told.storage and told.s3_endpoint:
        plain(console, f"Note: {told.storage} is asked for at {told.s3_endpoint}, as the run was begun with.")
    return told.s3


def _options(records: list[journal.Record], folder: Path) -> Options:
    """What the run was begun with, or as it was changed last.

    Raises:
        StateError: an incompatible version, or options that are none.
    """
    first = records[0] if records else {}
    if first.get("kind") != "run":
        return Options(space="", data=None)  # `old_run` says what is wrong, with the lease in hand
    if first.get("format") != FORMAT:
        version = clean(first.get("version", ""), 40)
        older = first.get("format") is None or first["format"] == 1
        what = (
            "whose runs kept no checkpoints but Ray's own, which are not opened"
            if older
            else f"in format {first['format']!r:.40}, and this is {__version__}, which knows formats up to {FORMAT}"
        )
        remedy = (
            f"tunelab report {folder} and tunelab status still read it; search again with: tunelab search --name NAME"
            if older
            else "go on with that version or a later one"
        )
        raise StateError(f"{folder}: was written by tunelab {version}, {what}; {remedy}")
    newest = [record for record in records if record.get("kind") == "change"]
    try:
        return Options.model_validate(newest[-1]["options"] if newest else first["options"])
    except (KeyError, ValidationError) as error:
        said = explain(error, Options) if isinstance(error, ValidationError) else f"{error} is missing"
        raise StateError(f"{folder / JOURNAL}: options: {clean(said)}; restore the file from a copy") from None


def _check_final(hold: Hold, changes: Changes, folder: Path) -> None:
    """The test split answers once: a run that has used it has its winner."""
    more = changes.trials or changes.time_budget or changes.gpu_hours or changes.max_cost
    if more and any(record["kind"] == "final" for record in hold.journal.records):
        raise UsageError(
            f"{folder}: has used its test split, which answers once, so that more trials could not be judged by it; "
            "search again under another --name, with this run's best_config.yaml in start_from"
        )


def _asked(options: Options, changes: Changes, url: str) -> Options:
    given = {
        "space": str(Path(changes.space).expanduser().absolute()) if changes.space is not None else None,
        "data": None if changes.data is None else absolute(changes.data),
        **{name: getattr(changes, name) for name in _KEPT},
    }
    update = {name: value for name, value in given.items() if value is not None} | {"storage": url}
    gone = {name: None for name in ("gpu_hours", "max_cost") if getattr(changes, name) == 0}
    return options.model_copy(update=update | gone)


_KEPT = (
    *("seed", "trials", "time_budget", "gpu_hours", "max_cost", "concurrent", "sync_every", "max_failures"),
    *("cpus_per_trial", "gpus_per_trial", "step_timeout"),
)
"""Changes that are options of the same name."""


def _space(hold: Hold, asked: Options, options: Options, changes: Changes) -> Space:
    """The space that was named; else the file it came from, where that is there; else as the journal has it."""
    if changes.space is not None:
        return open_space(Path(asked.space))
    source, kept = Path(options.space) if options.space else shipped("quick.yaml"), hold.folder / SPACE
    try:
        there = source.exists()
    except OSError:  # no name that a file can have
        there = False
    if there:
        return open_space(source)
    known = [record.get("identity") for record in hold.journal.records if record["kind"] in ("run", "change")][-1]
    document = known.get("space") if isinstance(known, Mapping) else None
    if isinstance(document, Mapping):  # the copy beside it only describes, and may be damaged
        write_file(kept, yaml.safe_dump(dict(document), sort_keys=False, allow_unicode=True).encode())
    return open_space(kept)


def _say(hold: Hold, board: Leaderboard, accepted: Mapping[str, str], console: Console) -> None:
    records = hold.journal.records
    results = sum(record["kind"] in ("result", "fold") for record in records)
    unfinished = sum(trial.unfinished for trial in board.snapshot())
    lines = [
        f"Goes on: {len(board.trials)} trials and {results:,} epochs are known, {unfinished} trials are unfinished; "
        f"{sum(record['kind'] == 'session' for record in records)} sessions before."
    ]
    lines += [f"Changed: {key}: {what}" for key, what in accepted.items()]
    told = next((r.get("versions") for r in reversed(records) if r["kind"] == "session"), None)
    before: Mapping[str, str] = told if isinstance(told, Mapping) else {}
    other = {name: (before.get(name), now) for name, now in versions().items() if before.get(name) != now}
    if other:
        differ = ", ".join(f"{name} {clean(old, 40)} -> {new}" for name, (old, new) in other.items())
        lines.append(f"Note: other versions than before: {differ}; results may differ in their last digits.")
    for line in lines:
        plain(console, line)
