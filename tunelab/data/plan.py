"""What a preparation comes to before a sample is read: shards, widths, bytes, and the tasks that are left to do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from tunelab.data.build import Piece, ShardTask, Target, read_facts
from tunelab.data.cache import bytes_below, check_room
from tunelab.data.dataset import deal_shards
from tunelab.data.listing import Listed, Listing
from tunelab.data.preprocess import outcome
from tunelab.data.request import Progress, Request
from tunelab.data.resample import resampled_dt
from tunelab.data.shards import STORED
from tunelab.errors import DataError
from tunelab.preprocessing import Preprocessing

SHOWN = 5
"""Chains whose sizes are told one by one; of more, the last are told together."""


def shards_of(scans: Sequence[Listed]) -> np.ndarray:
    """The shard of each scan: as ``scans.csv`` says, by name, else by size."""
    if scans[0].shard is not None:
        names = sorted({scan.shard for scan in scans}, key=lambda name: (len(str(name)), str(name)))
        number = {name: i for i, name in enumerate(names)}
        return np.array([number[scan.shard] for scan in scans], dtype=np.int64)
    return deal_shards(np.array([scan.n_traces * scan.n_samples * 4 for scan in scans], dtype=np.int64))


def outcome_of(request: Request, listing: Listing, chain: Preprocessing) -> tuple[int, list[float | None]]:
    """Samples a trace after a chain, and the interval of each scan."""
    channels = listing.scans[0].channels  # the same for all
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


def tell_room(
    request: Request,
    progress: Progress,
    listing: Listing,
    widths: Mapping[Preprocessing, tuple[int, list[float | None]]],
    targets: Mapping[Preprocessing, Target],
) -> None:
    """Say what is going to be written, and whether it fits.

    Raises:
        StorageError: it does not.
    """
    traces, scans = sum(scan.n_traces for scan in listing.scans), len(listing.scans)
    size = STORED[request.options.dtype].itemsize
    rest = traces + 500 * scans  # labels, and what the manifest says of a scan
    needed = [(chain.describe(), (traces * size + scans * 8) * n + rest) for chain, (n, _) in widths.items()]
    if len(needed) > SHOWN:
        rest = sum(size for _, size in needed[SHOWN - 1 :])
        needed = [*needed[: SHOWN - 1], (f"{len(needed) - SHOWN + 1} more chains of preprocessing", rest)]
    there = sum(bytes_below(target.folder) for target in targets.values())
    samples = " or ".join(f"{n:,}" for n in dict.fromkeys(n for n, _ in widths.values()))
    progress.say(
        f"{scans:,} scans, {traces:,} traces x {samples} samples x {size} bytes: "
        f"{check_room(request.cache, needed, there, request.limit)}."
    )


def tasks_for(request: Request, listing: Listing, shards: np.ndarray, targets: Sequence[Target]) -> list[ShardTask]:
    """The shards that some target lacks."""
    tasks = []
    for target in targets:
        target.folder.mkdir(parents=True, exist_ok=True)
    for shard in range(int(shards.max()) + 1):
        # scans may have been left out for a fault that has passed, of memory or of the disk
        facts = {target: read_facts(target.folder, shard) for target in targets}
        lacking = tuple(target for target, one in facts.items() if one is None or one.left_out)
        if not lacking:
            continue
        pieces = tuple(
            Piece(
                scan=listing.scans[i].id,
                file=listing.scans[i].file,
                traces=listing.scans[i].n_traces,
                samples=listing.scans[i].n_samples,
                channels=listing.scans[i].channels,
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
