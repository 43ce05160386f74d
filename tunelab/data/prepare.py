"""A source of scans -> prepared data sets in the cache, one for each chain of preprocessing, all in one reading.

Nothing becomes visible before it is whole. A preparation that was killed goes on with the shards that are missing;
processes that want the same at once wait for the first one and take what it made.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tunelab.data.assemble import Finished, assemble
from tunelab.data.build import Piece, ShardFacts, ShardTask, Target, build_shard, facts_path, read_facts
from tunelab.data.cache import BUILDING, DOWNLOADS, alone, check_room, entry_name, make_cache, stamp_of
from tunelab.data.dataset import deal_shards
from tunelab.data.formats import WANTED_SUFFIXES, check_components
from tunelab.data.listing import LeftOut, Listed, Listing, read_listing, stamps
from tunelab.data.manifest import read_manifest
from tunelab.data.preprocess import outcome
from tunelab.data.resample import check_samples, resampled_dt
from tunelab.data.shards import STORED
from tunelab.data.workers import Workers
from tunelab.errors import DataError, StorageError
from tunelab.preprocessing import Preprocessing
from tunelab.space import DataOptions

if TYPE_CHECKING:
    from tunelab.data.s3source import RemoteFile


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What is to be prepared, and how."""

    source: str
    """A folder, or ``s3://bucket/prefix``."""
    cache: Path
    options: DataOptions
    chains: tuple[Preprocessing, ...]
    max_bad: int
    """Scans that may be left out because they cannot be used."""
    workers: int
    limit: int | None
    """Bytes that the whole cache may hold."""
    seed: int
    """Of the splits that the manifest records."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """Whom to tell; by default nobody."""

    say: Callable[[str], None] = lambda line: None
    """A line for people."""
    step: Callable[[str, int, int], None] = lambda what, done, total: None
    """What is being done, and how far: scans or bytes."""


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
                _prepare(request, progress, stamp, missing, request.cache / BUILDING / work, remote)
    for path in places.values():
        left_out = read_manifest(path).left_out
        _refuse(request, [LeftOut(scan=one.scan, reason=one.reason) for one in left_out])
    return places


def place_of(request: Request, stamp: str, chain: Preprocessing) -> Path:
    """Where the entry of a chain is, or would be, for a source in the state that a stamp tells."""
    return request.cache / entry_name(request.source, stamp, request.options, chain)


def is_remote(source: str) -> bool:
    """Whether a source is in a bucket."""
    return source.lower().startswith("s3:")


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
    folder = Path(request.source)
    if remote is not None:
        folder = request.cache / DOWNLOADS / work.name
        _download(request, remote, folder, progress)
    with Workers(request.workers) as workers:
        progress.say(f"Reading what is in {request.source} ...")
        listing = read_listing(
            folder,
            components=request.options.components,
            one_width=request.options.resample is None,
            workers=workers,
        )
        _refuse(request, listing.left_out, len(listing.scans))
        shards = _shards(listing.scans)
        targets = {chain: Target(folder=work / path.name, chain=chain) for chain, path in places.items()}
        widths = {chain: _outcome(request, listing, chain) for chain in places}
        _check_room(request, progress, listing, widths, targets)
        tasks = _tasks(request, listing, shards, list(targets.values()))
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
        bad = [*listing.left_out, *(LeftOut(scan=o.scan, reason=o.reason) for one in facts for o in one.left_out)]
        _refuse(request, bad, len(listing.scans) - len(bad) + len(listing.left_out))
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
    if remote is not None:
        shutil.rmtree(folder)
    if not any(work.iterdir()):
        work.rmdir()


def _download(request: Request, remote: Sequence[RemoteFile], folder: Path, progress: Progress) -> None:
    from tunelab.data.s3source import download

    size, done = sum(file.size for file in remote), 0

    def step(count: int) -> None:
        nonlocal done
        done += count
        progress.step("bytes", min(done, size), size)

    there = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) if folder.is_dir() else 0
    progress.say(check_room(request.cache, {"download": size}, min(there, size), request.limit))
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


def _shards(scans: Sequence[Listed]) -> np.ndarray:
    """The shard of each scan: as ``scans.csv`` says, by name, else by size."""
    if scans[0].shard is not None:
        names = sorted({scan.shard for scan in scans}, key=lambda name: (len(str(name)), str(name)))
        return np.array([names.index(scan.shard) for scan in scans], dtype=np.int64)
    return deal_shards(np.array([scan.n_traces * scan.n_samples * 4 for scan in scans], dtype=np.int64))


def _outcome(request: Request, listing: Listing, chain: Preprocessing) -> tuple[int, list[float | None]]:
    """Samples a trace after a chain, and the interval of each scan."""
    channels = max(1, len(request.options.components))
    found: dict[tuple[int, float | None], tuple[int, float | None]] = {}
    results = []
    for scan in listing.scans:
        n, dt = scan.n_samples // channels, scan.dt
        if request.options.resample is not None:
            dt = None if dt is None else resampled_dt(dt, n, request.options.resample)
            n = request.options.resample
        if (n, dt) not in found:
            try:
                found[n, dt] = outcome(n * channels, dt, chain, channels=channels)
            except DataError as error:
                raise DataError(f"{scan.file}: preprocessing ({chain.describe()}): {error}") from error
        results.append(found[n, dt])
    widths = Counter(n for n, _ in results)
    if len(widths) > 1:
        sizes = ", ".join(f"{n:,} samples: {count} scans" for n, count in widths.most_common(5))
        raise DataError(
            f"{request.source}: preprocessing ({chain.describe()}) leaves another number of samples where dt differs "
            f"({sizes}); give samples instead of rate, or resample"
        )
    return results[0][0], [dt for _, dt in results]


def _check_room(
    request: Request,
    progress: Progress,
    listing: Listing,
    widths: Mapping[Preprocessing, tuple[int, list[float | None]]],
    targets: Mapping[Preprocessing, Target],
) -> None:
    traces, scans = sum(scan.n_traces for scan in listing.scans), len(listing.scans)
    size = STORED[request.options.dtype].itemsize
    rest = traces + 500 * scans  # labels, and what the manifest says of a scan
    needed = {chain.describe(): (traces * size + scans * 8) * n + rest for chain, (n, _) in widths.items()}
    there = sum(
        file.stat().st_size for target in targets.values() if target.folder.is_dir() for file in target.folder.iterdir()
    )
    samples = ", ".join(f"{n:,}" for n, _ in widths.values())
    progress.say(
        f"{scans:,} scans, {traces:,} traces x {samples} samples x {size} bytes: "
        f"{check_room(request.cache, needed, there, request.limit)}."
    )


def _tasks(request: Request, listing: Listing, shards: np.ndarray, targets: Sequence[Target]) -> list[ShardTask]:
    """The shards that some target lacks."""
    tasks = []
    for target in targets:
        target.folder.mkdir(parents=True, exist_ok=True)
    for shard in range(int(shards.max()) + 1):
        lacking = tuple(target for target in targets if read_facts(target.folder, shard) is None)
        if not lacking:
            continue
        pieces = tuple(
            Piece(
                scan=listing.scans[i].id,
                file=listing.scans[i].file,
                traces=listing.scans[i].n_traces,
                samples=listing.scans[i].n_samples,
                dt=listing.scans[i].dt,
            )
            for i in np.flatnonzero(shards == shard)
        )
        tasks.append(
            ShardTask(
                shard=shard,
                pieces=pieces,
                targets=lacking,
                components=tuple(request.options.components),
                resample=request.options.resample,
                dtype=request.options.dtype,
            )
        )
    return tasks


def _facts(folder: Path, shard: int) -> ShardFacts:
    facts = read_facts(folder, shard)
    if facts is None:
        raise StorageError(f"{facts_path(folder, shard)}: went away while the data set was made; prepare again")
    return facts
