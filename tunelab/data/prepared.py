"""Data sets for those who train: by chain of preprocessing, opened where the trial runs, prepared there if need be.

An access is what a search hands to its trials. It is small and picklable; on every node it finds, or makes, that
node's own prepared data set, and makes sure that it holds the same scans as the driver's.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from tunelab.data.access import Ready
from tunelab.data.cache import default_cache, mark_used
from tunelab.data.dataset import Dataset
from tunelab.data.deal import deal
from tunelab.data.generated import Generated
from tunelab.data.manifest import LABELS, Manifest, check_digest, read_manifest
from tunelab.data.prepare import prepare
from tunelab.data.request import Progress, Request, is_remote, place_of
from tunelab.data.samples import read_only
from tunelab.data.shards import open_samples
from tunelab.data.workers import default_workers
from tunelab.errors import DataError, UsageError
from tunelab.preprocessing import Preprocessing
from tunelab.sections import DataOptions

AS_RECORDED = Preprocessing()


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheOptions:
    """Where prepared data sets are kept, and how they are made."""

    cache: Path | str | None = None
    """On every node; None: :func:`~tunelab.data.cache.default_cache`."""
    workers: int | None = None
    """Processes that read; None: one a core."""
    max_bad: int = 0
    """Scans that may be left out because they cannot be used."""
    limit: int | None = None
    """Bytes that the whole cache may hold."""

    def __post_init__(self) -> None:
        checks = (("--workers", self.workers, 1), ("--max-bad", self.max_bad, 0), ("--cache-limit", self.limit, 0))
        for option, value, least in checks:
            if value is not None and value < least:
                raise UsageError(f"{option}: {value} is less than {least}")
        if self.cache is not None and not str(self.cache).strip():
            raise UsageError("--cache: empty; name a folder")


def access_to(
    data: Path | str | None,
    *,
    options: DataOptions,
    chains: Sequence[Preprocessing],
    seed: int,
    cache: CacheOptions,
) -> Prepared | Generated:
    """The scans of a source, or the embedded data set for None; else as :func:`prepared_from`.

    Raises:
        UsageError: an option out of range, or one that the embedded data set does not take.
    """
    if data is not None:
        return prepared_from(data, options=options, chains=chains, seed=seed, cache=cache)
    if options != DataOptions():
        odd = ", ".join(f"{key}: {value}" for key, value in options.model_dump(exclude_defaults=True).items())
        raise UsageError(f"data: {odd}: the embedded data set is as it is; give --data PATH")
    from tunelab.data.synthetic import embedded  # not in every reader's memory

    return Generated(dataset=embedded(), chains=tuple(dict.fromkeys(chains)))


def prepared_from(
    source: Path | str,
    *,
    options: DataOptions,
    chains: Sequence[Preprocessing],
    seed: int,
    cache: CacheOptions,
) -> Prepared:
    """The scans of a folder or prefix; nothing is read yet.

    Args:
        source: folder, or ``s3://bucket/prefix``.
        options: how to read it.
        chains: the preprocessing that is wanted.
        seed: deals the splits.
        cache: where to, and how.

    Raises:
        UsageError: no source.
    """
    place = str(source)
    if not place.strip():
        raise UsageError("data: empty; name a folder of scans or s3://bucket/prefix")
    return Prepared(
        source=place if is_remote(place) else str(Path(place).expanduser().absolute()),
        options=options,
        chains=tuple(dict.fromkeys(chains)),
        seed=seed,
        cache=cache,
    )


# what this process has opened already
_opened: dict[tuple[str, int], Dataset] = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A folder or prefix of scans, by way of the cache."""

    source: str
    """A folder, or ``s3://bucket/prefix``."""
    options: DataOptions
    chains: tuple[Preprocessing, ...]
    """All that the search may choose; where one is missing on a node, all missing ones are made in one reading."""
    seed: int
    cache: CacheOptions
    stamp: str = ""
    """Of the driver's source: an entry of it is taken without another look at the source, which may have changed."""
    fingerprint: str = ""
    """That every node must find; empty: not known yet."""

    def request(self) -> Request:
        """What is to be prepared here; what was left open is filled in with what this node has."""
        cache = self.cache.cache
        return Request(
            source=self.source,
            cache=Path(cache).expanduser().absolute() if cache is not None else default_cache(),
            options=self.options,
            chains=self.chains,
            max_bad=self.cache.max_bad,
            workers=self.cache.workers or default_workers(),
            limit=self.cache.limit,
            seed=self.seed,
        )

    def open(self, chain: Preprocessing) -> Dataset:
        """See :class:`~tunelab.data.access.Access`."""
        request = self.request()
        path = place_of(request, self.stamp, chain)
        if not (self.stamp and path.is_dir()):
            path = prepare(request, Progress())[chain]
        return self._checked(open_prepared(path, self.seed))

    def ready(self, progress: Progress) -> Ready:
        """Prepare what is missing, and open the data set after each of the chains.

        Args:
            progress: whom to tell.

        Raises:
            DataError: as of :func:`~tunelab.data.prepare.prepare`, or a chain could not be computed for every scan.
        """
        places = prepare(self.request(), progress)
        opened = {chain: open_prepared(path, self.seed) for chain, path in places.items()}
        fingerprints = {dataset.fingerprint for dataset in opened.values()}
        if len(fingerprints) > 1:
            counts = "; ".join(f"{chain.describe()}: {dataset.n_scans}" for chain, dataset in opened.items())
            raise DataError(
                f"{self.source}: some scans were left out after one chain and not after another ({counts}), so trials "
                "could not be compared; correct or remove what tunelab data check names"
            )
        stamp = read_manifest(next(iter(places.values()))).stamp
        return Ready(datasets=opened, access=replace(self, stamp=stamp, fingerprint=fingerprints.pop()))

    def _checked(self, dataset: Dataset) -> Dataset:
        if self.fingerprint not in ("", dataset.fingerprint):
            raise DataError(
                f"{self.source}: the scans on this node ({os.uname().nodename}) are not those of the driver: "
                f"fingerprint {dataset.fingerprint[:12]}, not {self.fingerprint[:12]}; copy the same files to every "
                "node, or put them into a bucket"
            )
        return dataset


def open_prepared(path: Path, seed: int) -> Dataset:
    """An entry of the cache as a data set, and the process's claim on it; no shard is touched.

    Args:
        path: the entry.
        seed: deals the splits where ``scans.csv`` gives none.

    Raises:
        StateError: the entry is damaged.
        DataError: the scans cannot be dealt.
    """
    key = (str(path), seed)
    if key not in _opened:
        manifest = read_manifest(path)
        _opened[key] = _dataset(path, manifest, seed)
    mark_used(path)
    return _opened[key]


def _dataset(path: Path, manifest: Manifest, seed: int) -> Dataset:
    check_digest(path / LABELS, manifest.files[LABELS].sha256)
    labels = np.frombuffer((path / LABELS).read_bytes(), np.int8)
    columns = manifest.scans
    lengths = np.array(columns.traces, dtype=np.int64)
    positives = np.add.reduceat(labels, np.cumsum(lengths) - lengths, dtype=np.int64)
    dealt = deal(
        manifest.source,
        given=columns.split,
        groups=columns.group,
        positives=positives.tolist(),
        lengths=columns.traces,
        seed=seed,
    )
    notes = list(manifest.notes)
    if manifest.left_out:
        names = ", ".join(one.scan for one in manifest.left_out[:5])
        notes.append(f"{len(manifest.left_out)} scans are left out because they cannot be used ({names})")
    if manifest.dtype == "float16":
        notes.append(
            f"stored as float16: samples changed by {manifest.loss.relative_rms:.1e} of their root mean square, and by "
            f"{manifest.loss.largest:.1e} of the scan's largest at most"
        )
    dataset = Dataset(
        samples=open_samples(path, manifest),
        labels=read_only(labels),
        lengths=read_only(lengths),
        scans=tuple(columns.scan),
        groups=tuple(columns.group),
        shards=read_only(np.array(columns.shard, dtype=np.int64)),
        splits=dealt.splits or ("test",) * len(columns.scan),
        digests=tuple(columns.digest),
        silent=read_only(np.array(columns.silent, dtype=np.int64)),
        dt=manifest.dt,
        channels=manifest.channels,
        source=manifest.source,
        notes=(*notes, *dealt.notes),
    )
    return dataset.with_folds(dealt.folds) if dealt.folds else dataset
