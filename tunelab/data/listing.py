"""What a folder of scans holds, before any sample is read: files, labels, groups, splits, and what cannot be used.

``labels.csv`` (scan, trace, label) holds the labels of every scan whose file holds none. ``scans.csv`` (scan, and
file, group, split, shard where wanted) lists the scans; without it they are all scan files below the folder. What is
wrong with a table, or with the folder as a whole, is an error; what is wrong with one scan is kept as the reason to
leave it out, and the caller decides how many of those are too many.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tunelab.data.dataset import SPLITS
from tunelab.data.formats import SUFFIXES, WANTED_SUFFIXES, Header, read_header, scan_id
from tunelab.data.tables import ScanRow, check_id, first_five, read_labels, read_scans
from tunelab.data.workers import Workers
from tunelab.errors import DataError

SAME_DT = 1e-3
"""Relative difference up to which intervals count as equal: a sample's shift after a thousand."""
TABLES = ("labels.csv", "scans.csv")


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """A scan whose file can be read, as far as its header tells."""

    id: str
    file: Path
    group: str
    split: str | None
    shard: str | None
    """The name of its shard, as ``scans.csv`` gives it."""
    n_traces: int
    n_samples: int
    """Of all channels together."""
    channels: int
    dt: float | None
    """Seconds."""
    labels: NDArray[np.int8]
    """Shape (trace,)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftOut:
    """A scan that cannot be used."""

    scan: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """The scans of a folder."""

    scans: tuple[Listed, ...]
    """By id."""
    left_out: tuple[LeftOut, ...]
    notes: tuple[str, ...]
    """Messages for people."""


def stamps(folder: Path) -> list[tuple[str, int, int, int]]:
    """Name, bytes, and times of change of every file that a listing depends on, sorted: another value, another source.

    Contents are not read. The time of the last change of the inode is among them, which programs cannot set: a file
    that was edited and given its old time again is noticed.

    Raises:
        DataError: no such folder.
    """
    if not folder.is_dir():
        what = "is a file, not a folder of scans" if folder.exists() else "no such folder"
        raise DataError(f"{folder}: {what}; give the folder that holds labels.csv")
    found = []
    for place, names in _walk(folder):  # plain strings: a path object a file takes longer than asking the disk
        below = os.path.relpath(place, folder)
        prefix = "" if below == "." else f"{below}/"
        for name in names:
            if os.path.splitext(name)[1].lower() in WANTED_SUFFIXES or (not prefix and name in TABLES):
                try:
                    stat = os.stat(f"{place}/{name}")
                except OSError:  # a dangling or circular link; the listing names it if it matters
                    found.append((prefix + name, -1, 0, 0))
                else:
                    found.append((prefix + name, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns))
    return sorted(found)


def read_listing(folder: Path, *, components: Sequence[str], one_width: bool, workers: Workers) -> Listing:
    """Lists a folder.

    Args:
        folder: the folder.
        components: of gprMax files, as :func:`~tunelab.data.formats.read_header` takes them.
        one_width: leave out, with a note, the scans whose number of samples is not that of most.
        workers: who reads the headers.

    Raises:
        DataError: for tables that are damaged or contradict each other or the folder, a folder without scans, and
            scans that differ too much in width.
    """
    notes: list[str] = []
    rows, files = _listed(folder, notes)
    tasks = [(file, tuple(components)) for file in files]
    answers = list(workers.map(_header, tasks, short=True))
    headers = {row.scan: answer for row, answer in zip(rows, answers, strict=True) if isinstance(answer, Header)}
    reasons = {row.scan: answer for row, answer in zip(rows, answers, strict=True) if isinstance(answer, str)}
    labels = _labels(folder, {row.scan for row in rows}, headers, reasons)
    scans = [
        Listed(
            id=row.scan,
            file=file,
            group=row.group,
            split=row.split,
            shard=row.shard,
            n_traces=headers[row.scan].n_traces,
            n_samples=headers[row.scan].n_samples,
            channels=headers[row.scan].channels,
            dt=headers[row.scan].dt,
            labels=labels[row.scan],
        )
        for row, file in zip(rows, files, strict=True)
        if row.scan in labels
    ]
    left_out = tuple(LeftOut(scan=scan, reason=reasons[scan]) for scan in sorted(reasons))
    if scans:
        _check_channels(folder, scans)
        scans = _of_one_width(folder, scans, notes) if one_width else scans
        check_classes(folder, scans)
        _check_splits(folder, scans)
    return Listing(scans=tuple(scans), left_out=left_out, notes=tuple(notes))


def common_dt(intervals: Sequence[float | None], notes: list[str]) -> float | None:
    """The interval that all scans share, in seconds; None, and a note, where they do not."""
    known = [dt for dt in intervals if dt is not None]
    if not known:
        return None
    if len(known) < len(intervals):
        notes.append(
            f"{len(intervals) - len(known)} of {len(intervals)} scans do not say their dt: the interval is unknown"
        )
        return None
    if max(known) > (1 + SAME_DT) * min(known):
        notes.append(
            f"dt differs between scans, from {min(known):.4g} to {max(known):.4g} s: a sample is another time in each"
        )
        return None
    return float(np.median(known))


def _walk(folder: Path) -> Iterator[tuple[str, list[str]]]:
    """The folder and all below it, each with the names of its files; nothing hidden, such as a copy's ``._x.h5``."""
    seen = {os.path.realpath(folder)}
    for place, folders, names in os.walk(folder, onerror=_refuse, followlinks=True):
        below = [(name, os.path.realpath(f"{place}/{name}")) for name in folders if not name.startswith(".")]
        folders[:] = [name for name, path in below if path not in seen]  # a link may lead round in a circle
        seen.update(path for _, path in below)
        yield place, [name for name in names if not name.startswith(".")]


def _refuse(error: OSError) -> None:
    raise DataError(f"{error.filename}: cannot be read: {error.strerror}; check its permissions") from error


def _listed(folder: Path, notes: list[str]) -> tuple[list[ScanRow], list[Path]]:
    """The scans by id and the file of each."""
    found: dict[str, list[Path]] = {}
    for path in (Path(place, name) for place, names in _walk(folder) for name in names):
        if path.suffix.lower() in SUFFIXES:
            found.setdefault(scan_id(path), []).append(path)
    table = folder / "scans.csv"
    if table.exists():
        rows = sorted(read_scans(table), key=lambda row: row.scan)
    else:
        rows = [ScanRow(scan=scan, file=None, group=scan, split=None, shard=None) for scan in sorted(found)]
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
    reached = {path for paths in found.values() for path in paths}
    hidden = [
        str(f.relative_to(folder)) for f in files if f.exists() and f.suffix.lower() in SUFFIXES and f not in reached
    ]
    if hidden:
        raise DataError(f"{table}: {len(hidden)} files lie in hidden folders ({first_five(hidden)}); move them out")
    wrong = [str(f.relative_to(folder)) for f in files if f.suffix.lower() not in SUFFIXES]
    if wrong:
        raise DataError(f"{table}: {len(wrong)} files are no {', '.join(SUFFIXES)} ({first_five(wrong)})")
    unlisted = sorted({scan for scan, paths in found.items() if not set(paths) & set(files)})
    if unlisted:
        notes.append(f"{len(unlisted)} scans are left out: scans.csv does not list them ({first_five(unlisted)})")
    return rows, files


def _header(task: tuple[Path, tuple[str, ...]]) -> Header | str:
    """A file's header, or why it cannot be read."""
    file, components = task
    try:
        return read_header(file, components)
    except DataError as error:
        return str(error)


def _labels(
    folder: Path, listed: set[str], headers: Mapping[str, Header], reasons: dict[str, str]
) -> dict[str, NDArray[np.int8]]:
    """A label for every trace of every scan, from ``labels.csv`` or from the scan's own file."""
    table = folder / "labels.csv"
    given = read_labels(table) if table.exists() else {}
    place = f"{table}:" if table.exists() else f"{folder}: no labels.csv, and"
    unknown = sorted(set(given) - listed)
    if unknown:
        raise DataError(
            f"{place} labels for {len(unknown)} scans that are not there ({first_five(unknown)}); add the scans, or "
            "remove the rows"
        )
    labels = {}
    for scan, header in headers.items():
        own, n, by_trace = header.labels, header.n_traces, given.get(scan)
        if by_trace is None:
            if own is None:
                reasons[scan] = f"{place} {n} of {n} traces lack a label; give every trace 0 or 1"
            else:
                labels[scan] = own
            continue
        beyond = [trace for trace in by_trace if trace >= n]
        lacking = n - (len(by_trace) - len(beyond))
        label = np.array([by_trace.get(trace, 0) for trace in range(n)], dtype=np.int8)
        if beyond:
            reasons[scan] = f"{place} label for trace {min(beyond)}, but it has {n}; count traces from 0"
        elif lacking:
            reasons[scan] = f"{place} {lacking} of {n} traces lack a label; give every trace 0 or 1"
        elif own is not None and not np.array_equal(own, label):
            reasons[scan] = f"{place} other labels than in its own file (y); keep one of the two"
        else:
            labels[scan] = label
    return labels


def check_classes(place: Path | str, scans: Sequence[Listed]) -> None:
    """Raise DataError unless there are positives and negatives."""
    positives = sum(int(np.count_nonzero(scan.labels)) for scan in scans)
    total = sum(scan.n_traces for scan in scans)
    if positives in (0, total):
        only = "none" if positives == 0 else "every one"
        raise DataError(
            f"{place}: {only} of {total:,} traces is positive; a model learns from both classes: add the other"
        )


def _check_channels(folder: Path, scans: Sequence[Listed]) -> None:
    if len(channels := Counter(scan.channels for scan in scans)) > 1:
        table = ", ".join(f"{n}: {count} scans" for n, count in channels.most_common(5))
        raise DataError(f"{folder}: scans differ in channels ({table}); keep one kind, or make a data set of each")


def _check_splits(folder: Path, scans: Sequence[Listed]) -> None:
    given = {scan.split for scan in scans}
    lacking = [name for name in SPLITS if name not in given]
    if given != {None} and lacking:
        raise DataError(
            f"{folder / 'scans.csv'}: split: no scan is in {', '.join(lacking)}; each of {', '.join(SPLITS)} needs "
            "one, or leave the column out and splits are dealt"
        )


def _of_one_width(folder: Path, scans: list[Listed], notes: list[str]) -> list[Listed]:
    """The scans with the number of samples that most have; says which were left out."""
    widths = Counter(scan.n_samples for scan in scans).most_common()
    width, kept = widths[0]
    if 2 * kept <= len(scans) and len(widths) > 1:
        table = ", ".join(f"{n:,} samples: {count} scans" for n, count in widths[:5])
        raise DataError(f"{folder}: scans differ in samples, and no number is that of most ({table}); use resample")
    out = [scan.id for scan in scans if scan.n_samples != width]
    if out:
        found = ", ".join(f"{n:,}" for n in sorted(n for n, _ in widths[1:])[:5])
        notes.append(
            f"{len(out)} of {len(scans)} scans are left out: {found} samples a trace, not {width:,} as most "
            f"({first_five(out)}); resample = {width} keeps them"
        )
    return [scan for scan in scans if scan.n_samples == width]
