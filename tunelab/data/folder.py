"""A folder of scans as a data set: ``labels.csv``, ``scans.csv`` where there is one, and a file for each scan."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from tunelab.data.dataset import SPLITS, Dataset, make_dataset
from tunelab.data.formats import SUFFIXES, Header, read_header, read_traces, scan_id
from tunelab.data.resample import check_samples, resample_traces, resampled_dt
from tunelab.data.splits import NO_TEST, assign_splits, without_positives
from tunelab.data.tables import ScanRow, check_id, first_five, read_labels, read_scans
from tunelab.errors import DataError

SAME_DT = 1e-3
"""Relative difference up to which intervals count as equal: a sample's shift after a thousand."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Scan:
    id: str
    file: Path
    group: str
    split: str | None
    header: Header
    labels: NDArray[np.int8]

    @property
    def positives(self) -> int:
        return int(np.count_nonzero(self.labels))


def load_folder(path: str | Path, *, resample: int | None = None, seed: int = 0) -> Dataset:
    """Reads and checks a data set.

    ``labels.csv`` (scan, trace, label) holds the labels of every scan whose file holds none. ``scans.csv`` (scan, and
    file, group, split where wanted) lists the scans; without it they are all ``.out``, ``.h5`` and ``.npz`` files
    below the folder. Splits given there are used as they are, otherwise :func:`~tunelab.data.splits.assign_splits`
    deals them. Scans whose number of samples is not that of most scans are left out, and noted.

    Args:
        path: the folder.
        resample: brings every scan to this many samples over its time window; nothing is left out then.
        seed: fixes the splits that are dealt.

    Raises:
        DataError: for anything missing, damaged or contradictory: file, field, count, first five ids, remedy.
        UsageError: for ``resample`` out of range.
    """
    folder = Path(path)
    if resample is not None:
        check_samples(resample)
    if not folder.is_dir():
        what = "is a file, not a folder of scans" if folder.exists() else "no such folder"
        raise DataError(f"{folder}: {what}; give the folder that holds labels.csv")
    notes: list[str] = []
    rows, files = _listed(folder, notes)
    headers = _each(folder, [row.scan for row in rows], files, lambda _, file: read_header(file))
    labels = _labels(folder, rows, headers)
    scans = [
        _Scan(id=row.scan, file=file, group=row.group, split=row.split, header=header, labels=label)
        for row, file, header, label in zip(rows, files, headers, labels, strict=True)
    ]
    if resample is None:
        scans = _of_one_width(folder, scans, notes)
    splits = _splits(folder, scans, seed, notes)
    traces = _traces(folder, scans, resample)
    return make_dataset(
        scans={scan.id: own for scan, own in zip(scans, traces, strict=True)},
        labels={scan.id: scan.labels for scan in scans},
        splits={scan.id: split for scan, split in zip(scans, splits, strict=True)},
        groups={scan.id: scan.group for scan in scans},
        dt=_common_dt(scans, resample, notes),
        source=str(path),
        notes=notes,
    )


def _listed(folder: Path, notes: list[str]) -> tuple[list[ScanRow], list[Path]]:
    """The scans by id and the file of each."""
    found: dict[str, list[Path]] = {}
    for place, _, names in os.walk(folder):
        for name in names:
            if Path(name).suffix in SUFFIXES:
                found.setdefault(scan_id(Path(name)), []).append(Path(place, name))
    table = folder / "scans.csv"
    if table.exists():
        rows = sorted(read_scans(table), key=lambda row: row.scan)
    else:
        rows = [ScanRow(scan=scan, file=None, group=scan, split=None) for scan in sorted(found)]
        for row in rows:
            check_id(found[row.scan][0], row.scan)
    if not rows:
        raise DataError(f"{folder}: no scans; put {', '.join(SUFFIXES)} files there, or list them in scans.csv")
    files = []
    for row in rows:
        if row.file:
            files.append(folder / row.file)
            continue
        candidates = sorted(found.get(row.scan, []))
        if len(candidates) > 1:
            where = first_five(str(c.relative_to(folder)) for c in candidates)
            raise DataError(
                f"{folder}: {len(candidates)} files for scan {row.scan} ({where}); name one in scans.csv: file"
            )
        if not candidates:
            raise DataError(f"{table}: no file for scan {row.scan}; add {row.scan}.out, or name it in column file")
        files.append(candidates[0])
    wrong = [str(f.relative_to(folder)) for f in files if f.suffix not in SUFFIXES]
    if wrong:
        raise DataError(f"{table}: {len(wrong)} files are no {', '.join(SUFFIXES)} ({first_five(wrong)})")
    unlisted = sorted({scan for scan, paths in found.items() if not set(paths) & set(files)})
    if unlisted:
        notes.append(f"{len(unlisted)} scans are left out: scans.csv does not list them ({first_five(unlisted)})")
    return rows, files


def _each(folder: Path, ids: Sequence[str], files: Sequence[Path], read: Callable[[int, Path], T]) -> list[T]:
    """``read`` of every file; one error that counts them when several fail."""
    done: list[T] = []
    failed: list[tuple[str, DataError]] = []
    for i, file in enumerate(files):
        try:
            done.append(read(i, file))
        except DataError as error:
            failed.append((ids[i], error))
    if len(failed) == 1:
        raise failed[0][1]
    if failed:
        raise DataError(
            f"{folder}: {len(failed)} of {len(files)} scans cannot be used ({first_five(scan for scan, _ in failed)}); "
            f"the first: {failed[0][1]}"
        ) from failed[0][1]
    return done


def _labels(folder: Path, rows: Sequence[ScanRow], headers: Sequence[Header]) -> list[NDArray[np.int8]]:
    """A label for every trace of every scan, from ``labels.csv`` or from the scan's own file."""
    table = folder / "labels.csv"
    given = read_labels(table) if table.exists() else {}
    place = str(table) if table.exists() else f"{folder}: no labels.csv, and"
    known = {row.scan: header for row, header in zip(rows, headers, strict=True)}
    unknown = sorted(set(given) - set(known))
    if unknown:
        raise DataError(
            f"{place}: labels for {len(unknown)} scans that are not there ({first_five(unknown)}); add the scans, or "
            "remove the rows"
        )
    missing, extra, contrary, labels = [], [], [], []
    for scan, header in known.items():
        own, n = header.labels, header.n_traces
        by_trace = given.get(scan)
        if by_trace is None:
            if own is None:
                missing.append(f"{scan}: {n} of {n} traces")
            else:
                labels.append(own)
            continue
        beyond = [trace for trace in by_trace if trace >= n]
        lacking = n - (len(by_trace) - len(beyond))
        if beyond:
            extra.append(f"{scan}: trace {min(beyond)}, but it has {n}")
        elif lacking:
            missing.append(f"{scan}: {lacking} of {n} traces")
        else:
            label = np.array([by_trace[trace] for trace in range(n)], dtype=np.int8)
            if own is not None and not np.array_equal(own, label):
                contrary.append(scan)
            labels.append(label)
    for wrong, rule in (
        (extra, "have labels for traces that do not exist; count traces from 0, and remove the rows"),
        (missing, "lack labels; give every trace 0 or 1, or leave the scan out (scans.csv)"),
        (contrary, "have other labels in their own file (y); keep one of the two"),
    ):
        if wrong:
            raise DataError(f"{place}: {len(wrong)} scans {rule} ({first_five(wrong)})")
    positives, total = sum(int(label.sum()) for label in labels), sum(label.size for label in labels)
    if positives in (0, total):
        only = "none" if positives == 0 else "every one"
        raise DataError(
            f"{place}: {only} of {total:,} traces is positive; a model learns from both classes: add the other"
        )
    return labels


def _of_one_width(folder: Path, scans: list[_Scan], notes: list[str]) -> list[_Scan]:
    """The scans with the number of samples that most have; says which were left out."""
    widths = Counter(scan.header.n_samples for scan in scans).most_common()
    width, kept = widths[0]
    if 2 * kept <= len(scans) and len(widths) > 1:
        table = ", ".join(f"{n:,} samples: {count} scans" for n, count in widths[:5])
        raise DataError(f"{folder}: scans differ in samples, and no number is that of most ({table}); use resample")
    out = [scan.id for scan in scans if scan.header.n_samples != width]
    if out:
        found = ", ".join(f"{n:,}" for n in sorted(n for n, _ in widths[1:])[:5])
        notes.append(
            f"{len(out)} of {len(scans)} scans are left out: {found} samples a trace, not {width:,} as most "
            f"({first_five(out)}); resample = {width} keeps them"
        )
    return [scan for scan in scans if scan.header.n_samples == width]


def _splits(folder: Path, scans: Sequence[_Scan], seed: int, notes: list[str]) -> list[str]:
    groups, positives = [scan.group for scan in scans], [scan.positives for scan in scans]
    splits = [scan.split for scan in scans if scan.split is not None]
    place = f"{folder / 'scans.csv'}: split" if splits else str(folder)
    lacking = [name for name in SPLITS if splits and name not in splits]
    if lacking:
        raise DataError(
            f"{place}: no scan is in {', '.join(lacking)}; each of {', '.join(SPLITS)} needs one, or leave the "
            "column out and splits are dealt"
        )
    try:
        splits = splits or list(assign_splits(groups, positives, [scan.header.n_traces for scan in scans], seed))
        without = without_positives(splits, groups, positives)
    except DataError as error:
        raise DataError(f"{place}: {error}") from None
    if without:
        notes.append(NO_TEST)
    return splits


def _traces(folder: Path, scans: Sequence[_Scan], resample: int | None) -> list[NDArray[np.float32]]:
    """The samples of each scan."""
    lengths = [scan.header.n_traces for scan in scans]
    width = resample or scans[0].header.n_samples
    size, memory = sum(lengths) * width * 4, _memory()
    if 2 * size > memory:
        raise DataError(
            f"{folder}: {sum(lengths):,} traces x {width:,} samples x 4 bytes = {size:,}, more than half of this "
            f"machine's memory of {memory:,}; use resample = {max(2, memory // (16 * sum(lengths))):,} or fewer"
        )

    def read(i: int, file: Path) -> NDArray[np.float32]:
        recording = read_traces(file)
        if recording.shape != (lengths[i], scans[i].header.n_samples):
            raise DataError(f"{file}: changed while it was read; read again once nothing writes to it")
        return recording if resample is None else resample_traces(recording, resample)

    return _each(folder, [scan.id for scan in scans], [scan.file for scan in scans], read)


def _memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _common_dt(scans: Sequence[_Scan], resample: int | None, notes: list[str]) -> float | None:
    known: list[float] = []
    for scan in scans:
        header = scan.header
        if header.dt is not None:
            known.append(resampled_dt(header.dt, header.n_samples, resample) if resample else header.dt)
    if not known:
        return None
    if len(known) < len(scans):
        notes.append(f"{len(scans) - len(known)} of {len(scans)} scans do not say their dt: the interval is unknown")
        return None
    if max(known) > (1 + SAME_DT) * min(known):
        notes.append(
            f"dt differs between scans, from {min(known):.4g} to {max(known):.4g} s: a sample is another time in each"
        )
        return None
    return float(np.median(known))
