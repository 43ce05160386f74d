"""A source of scans -> prepared data sets in the cache, one for each chain of preprocessing, all in one reading.

Nothing becomes visible before it is whole. A preparation that was killed goes on with the shards that are missing;
processes that want the same at once wait for the first one and take what it made.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from tunelab.data.assemble import Finished, assemble, deal_listed, publish
from tunelab.data.build import ShardFacts, Target, build_shard, facts_path, read_facts
from tunelab.data.cache import BUILDING, DOWNLOADS, alone, bytes_below, check_room, make_cache, stamp_of
from tunelab.data.formats import WANTED_SUFFIXES, check_components
from tunelab.data.listing import LeftOut, Listing, read_listing, stamps
from tunelab.data.manifest import read_manifest
from tunelab.data.plan import outcome_of, shards_of, tasks_for, tell_room
from tunelab.data.request import Progress, Request, is_remote, place_of
from tunelab.data.resample import check_samples
from tunelab.data.workers import Workers
from tunelab.errors import DataError, StorageError
from tunelab.preprocessing import Preprocessing

if TYPE_CHECKING:
    from tunelab.data.s3source import RemoteFile


def prepare(request: Request, progress: Progress) -> Mapping[Preprocessing, Path]:
    """The entry of every chain, made where it is missing.

    Args:
        request: what.
        progress: whom to tell.

    Raises:
        DataError: too many scans that cannot be used, or a source that is wrong as a whole.
        StateError: an entry is damaged.
        StorageError: the cache cannot be written, is too small, or the source cannot be reached.
        UsageError: options out of range.
    """
    check_components(tuple(request.options.components))
    if request.options.resample is not None:
        check_samples(request.options.resample)
    remote = _listed(request.source) if is_remote(request.source) else None
    stamp = _stamp(request, remote)
    places = {chain: place_of(request, stamp, chain) for chain in request.chains}
    if _missing(places):
        make_cache(request.cache)
        work = place_of(request, stamp, Preprocessing()).name
        with alone(
            request.cache, work, lambda: progress.say("Another process prepares these scans; waiting for it ...")
        ):
            if missing := _missing(places):
                try:
                    _prepare(request, progress, stamp, missing, request.cache / BUILDING / work, remote)
                except OSError as error:
                    raise StorageError(
                        f"{error.filename or request.cache}: {error.strerror}; free space or correct permissions, or "
                        "choose another --cache, and run the command again: it goes on where it stopped"
                    ) from error
    for path in places.values():
        left_out = read_manifest(path).left_out
        _refuse(request, [LeftOut(scan=one.scan, reason=one.reason) for one in left_out])
    return places


def _listed(source: str) -> Sequence[RemoteFile]:
    from tunelab.data.s3source import list_files  # boto3 is not in every reader's memory

    return list_files(source, (*WANTED_SUFFIXES, ".csv"))


def _missing(places: Mapping[Preprocessing, Path]) -> dict[Preprocessing, Path]:
    return {chain: path for chain, path in places.items() if not path.is_dir()}


def _stamp(request: Request, remote: Sequence[RemoteFile] | None) -> str:
    if remote is None:
        return stamp_of(stamps(Path(request.source)))
    return stamp_of([(file.key, file.size, file.etag) for file in remote])


def _prepare(
    request: Request,
    progress: Progress,
    stamp: str,
    places: Mapping[Preprocessing, Path],
    work: Path,
    remote: Sequence[RemoteFile] | None,
) -> None:
    """Make the missing entries; the caller holds the lock."""
    # killed between its manifest and its name
    places = {chain: path for chain, path in places.items() if not publish(work / path.name, path)}
    folder = Path(request.source) if remote is None else request.cache / DOWNLOADS / work.name
    if places:
        _make(request, progress, stamp, places, work, remote, folder)
    if remote is not None:
        shutil.rmtree(folder, ignore_errors=True)
    if work.is_dir() and not any(work.iterdir()):
        work.rmdir()


def _make(
    request: Request,
    progress: Progress,
    stamp: str,
    places: Mapping[Preprocessing, Path],
    work: Path,
    remote: Sequence[RemoteFile] | None,
    folder: Path,
) -> None:
    """Read, preprocess and assemble what is missing; of a bucket, by way of ``folder``."""
    if remote is not None:
        _download(request, remote, folder, progress)
    with Workers(request.workers) as workers:
        progress.say(f"Reading what is in {request.source} ...")
        listing = _listing(request, folder, workers)
        _refuse(request, listing.left_out, len(listing.scans))
        deal_listed(request.source, listing.scans, request.seed)  # what cannot be dealt is told before all is read
        shards = shards_of(listing.scans)
        targets = {chain: Target(folder=work / path.name, chain=chain) for chain, path in places.items()}
        widths = {chain: outcome_of(request, listing, chain) for chain in places}
        tell_room(request, progress, listing, widths, targets)
        tasks = tasks_for(request, listing, shards, list(targets.values()))
        total = done = len(listing.scans)
        done -= sum(len(task.pieces) for task in tasks)
        progress.step("scans", done, total)
        for count in workers.map(build_shard, tasks):
            done += count
            progress.step("scans", done, total)
    if remote is None and _stamp(request, None) != stamp:
        raise DataError(f"{request.source}: changed while it was read; prepare again once nothing writes to it")
    count = int(shards.max()) + 1
    for chain, path in places.items():
        facts = [_facts(targets[chain].folder, shard) for shard in range(count)]
        late = [LeftOut(scan=o.scan, reason=_there(request, folder, o.reason)) for one in facts for o in one.left_out]
        bad = [*listing.left_out, *late]
        _refuse(request, bad, len(listing.scans) - len(late))
        assemble(
            Finished(
                root=folder,
                source=request.source,
                stamp=stamp,
                options=request.options,
                seed=request.seed,
                listing=listing,
                left_out=bad,
                facts=facts,
                chain=chain,
                width=widths[chain][0],
                intervals=widths[chain][1],
            ),
            targets[chain].folder,
            path,
        )


def _listing(request: Request, folder: Path, workers: Workers) -> Listing:
    try:
        listing = read_listing(
            folder,
            components=request.options.components,
            one_width=request.options.resample is None,
            workers=workers,
        )
    except DataError as error:
        raise DataError(_there(request, folder, str(error))) from error
    left_out = [LeftOut(scan=one.scan, reason=_there(request, folder, one.reason)) for one in listing.left_out]
    return replace(listing, left_out=tuple(left_out))


def _there(request: Request, folder: Path, text: str) -> str:
    """A message that names files where the user has them, not where they were brought to be read."""
    return text.replace(str(folder), request.source.rstrip("/"))


def _download(request: Request, remote: Sequence[RemoteFile], folder: Path, progress: Progress) -> None:
    from tunelab.data.s3source import download

    size, done = sum(file.size for file in remote), 0

    def step(count: int) -> None:
        nonlocal done
        done += count
        progress.step("bytes", min(done, size), size)

    there = bytes_below(folder)
    progress.say(check_room(request.cache, [("download", size)], min(there, size), request.limit))
    folder.mkdir(exist_ok=True)
    download(request.source, remote, folder, progress=step, warn=progress.say)


def _refuse(request: Request, bad: Sequence[LeftOut], good: int | None = None) -> None:
    """Raise when more scans cannot be used than may be left out."""
    if len(bad) <= request.max_bad and good != 0:
        return
    if not bad:
        raise DataError(f"{request.source}: no scans")
    of = "" if good is None else f" of {len(bad) + good}"
    lines = [f"  {one.scan}: {one.reason}" for one in bad[:5]]
    if len(bad) > 5:
        lines.append(f"  and {len(bad) - 5} more: {', '.join(one.scan for one in bad[5:25])}")
    remedy = "correct them" if good == 0 else f"correct them, or leave them out with --max-bad {len(bad)}"
    head = f"{request.source}: {len(bad)}{of} scans cannot be used ({request.max_bad} may be); {remedy}"
    raise DataError("\n".join([head, *lines]))


def _facts(folder: Path, shard: int) -> ShardFacts:
    facts = read_facts(folder, shard)
    if facts is None:
        raise StorageError(f"{facts_path(folder, shard)}: went away while the data set was made; prepare again")
    return facts
