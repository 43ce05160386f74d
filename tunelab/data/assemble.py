"""The last step of a preparation: labels and manifest are written, and the finished folder gets its name."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from tunelab import __version__
from tunelab.data.build import ShardFacts
from tunelab.data.deal import Deal, deal
from tunelab.data.listing import LeftOut, Listed, Listing, check_classes, common_dt
from tunelab.data.manifest import (
    LABELS,
    NAME,
    SUM,
    Columns,
    FileFacts,
    LeftOutFacts,
    Loss,
    Manifest,
    read_manifest,
    write_manifest,
)
from tunelab.data.tables import first_five
from tunelab.errors import StateError
from tunelab.files import sync_folder, write_file
from tunelab.preprocessing import Preprocessing
from tunelab.sections import DataOptions


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """A data set all of whose shards are made."""

    root: Path
    """The folder that was read."""
    source: str
    stamp: str
    options: DataOptions
    seed: int
    listing: Listing
    left_out: Sequence[LeftOut]
    facts: Sequence[ShardFacts]
    """Of every shard."""
    chain: Preprocessing
    width: int
    """Samples of every trace."""
    intervals: Sequence[float | None]
    """Seconds between the samples of each listed scan."""


def assemble(finished: Finished, folder: Path, path: Path) -> None:
    """Write what describes the shards in ``folder``, and let it appear as ``path``.

    Raises:
        DataError: the scans that are left cannot be dealt to splits, or hold one class only.
        StorageError: the disk is full or read-only.
    """
    manifest, labels = _described(finished)
    write_file(folder / LABELS, labels)
    write_manifest(folder, manifest)
    publish(folder, path)


def publish(folder: Path, path: Path) -> bool:
    """Let a folder appear as ``path`` if its manifest is whole; whether it is."""
    try:
        manifest = read_manifest(folder)
    except StateError:
        return False
    for file in folder.iterdir():  # facts of shards, and what a killed preparation had half written
        if file.name not in {*manifest.files, NAME, SUM}:
            file.unlink()
    sync_folder(folder)
    folder.rename(path)
    sync_folder(path.parent)
    return True


def deal_listed(source: str, scans: Sequence[Listed], seed: int) -> Deal:
    """What each of some listed scans gets; raises as :func:`~tunelab.data.deal.deal` does."""
    return deal(
        source,
        given=[scan.split for scan in scans],
        groups=[scan.group for scan in scans],
        positives=[int(np.count_nonzero(scan.labels)) for scan in scans],
        lengths=[scan.n_traces for scan in scans],
        seed=seed,
    )


def _described(finished: Finished) -> tuple[Manifest, bytes]:
    stored = {scan.scan: (shard, scan) for shard, one in enumerate(finished.facts) for scan in one.scans}
    both = zip(finished.listing.scans, finished.intervals, strict=True)
    kept = [(scan, dt) for scan, dt in both if scan.id in stored]
    scans = [scan for scan, _ in kept]
    lost = {scan.id for scan in finished.listing.scans} - set(stored) - {one.scan for one in finished.left_out}
    if lost:
        raise AssertionError(f"{len(lost)} scans were neither stored nor left out ({first_five(sorted(lost))})")
    check_classes(finished.source, scans)
    notes = list(finished.listing.notes)
    dt = common_dt([dt for _, dt in kept], notes)
    dealt = deal_listed(finished.source, scans, finished.seed)
    labels = np.concatenate([scan.labels for scan in scans]).astype(np.int8).tobytes()
    files = {name: file for one in finished.facts for name, file in one.files.items()}
    files[LABELS] = FileFacts(bytes=len(labels), sha256=hashlib.sha256(labels).hexdigest())
    changed, total = sum(one.changed for one in finished.facts), sum(one.total for one in finished.facts)
    manifest = Manifest(
        version=__version__,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        source=finished.source,
        stamp=finished.stamp,
        options=finished.options.model_dump(mode="json"),
        preprocessing=finished.chain.model_dump(mode="json", exclude_defaults=True),
        seed=finished.seed,
        dtype=finished.options.dtype,
        samples=finished.width,
        channels=scans[0].channels,  # the same for all
        dt=dt,
        scans=Columns(
            scan=[scan.id for scan in scans],
            file=[os.path.relpath(scan.file, finished.root) for scan in scans],
            group=[scan.group for scan in scans],
            split=[scan.split for scan in scans],
            dealt=list(dealt.places),
            shard=[stored[scan.id][0] for scan in scans],
            row=[stored[scan.id][1].row for scan in scans],
            traces=[scan.n_traces for scan in scans],
            exponent=[stored[scan.id][1].exponent for scan in scans],
            silent=[stored[scan.id][1].silent for scan in scans],
            digest=[stored[scan.id][1].digest for scan in scans],
        ),
        loss=Loss(
            relative_rms=float(np.sqrt(changed / total)) if total else 0.0,
            largest=max(one.largest for one in finished.facts),
        ),
        left_out=[LeftOutFacts(scan=one.scan, reason=one.reason) for one in finished.left_out],
        notes=notes,
        files=files,
    )
    return manifest, labels
