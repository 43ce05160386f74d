"""``labels.csv`` and ``scans.csv``: which label each trace has, which file, group and split each scan."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tunelab.data.dataset import SPLITS
from tunelab.errors import DataError, did_you_mean

LONGEST_ID = 120
"""Characters of a scan's id; ids become lines of tables and of reports."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScanRow:
    """One row of ``scans.csv``."""

    scan: str
    file: str | None
    """Relative to the folder; None where the column is missing or empty."""
    group: str
    """The id itself where the column is missing or empty."""
    split: str | None
    """None where the column is missing or empty, which then holds for every row."""
    shard: str | None
    """The name of its shard; None where the column is missing or empty, which then holds for every row."""


def first_five(items: Iterable[str]) -> str:
    """The first five of some ids, and how many more there are."""
    every = list(items)
    return ", ".join(every[:5]) + (f" and {len(every) - 5} more" if len(every) > 5 else "")


def shown(value: str) -> str:
    """Text from a file as it may appear in a message: quoted, escaped, cut."""
    return repr(value if len(value) <= 60 else value[:57] + "...")


def check_id(path: Path | str, scan: str) -> None:
    """Refuses an id that could not be printed.

    Raises:
        DataError: for an empty, overlong or unprintable id.
    """
    if not scan or len(scan) > LONGEST_ID or not scan.isprintable():
        raise DataError(
            f"{path}: scan {shown(scan)} is no id; use 1 to {LONGEST_ID} printable characters, not {len(scan)} here"
        )


def read_labels(path: Path) -> dict[str, dict[int, int]]:
    """Labels by scan and trace.

    Args:
        path: a CSV file with the columns scan, trace (from 0) and label (0 or 1); others are ignored.

    Raises:
        DataError: for missing columns, bad values and repeated traces, with counts and the first five.
    """
    labels: dict[str, dict[int, int]] = {}
    traces, values, repeated = [], [], []
    for line, row in _rows(path, ("scan", "trace", "label")):
        scan, trace, label = row["scan"], row["trace"], row["label"]
        if not (trace.isascii() and trace.isdigit() and len(trace) <= 9):
            traces.append(f"line {line}: {shown(trace)}")
        elif label not in ("0", "1"):
            values.append(f"line {line}: {shown(label)}")
        elif int(trace) in labels.setdefault(scan, {}):
            repeated.append(f"line {line}: scan {shown(scan)}, trace {trace}")
        else:
            labels[scan][int(trace)] = int(label)
    for wrong, rule in (
        (traces, "of column trace are no trace numbers; count traces from 0"),
        (values, "of column label are neither 0 nor 1; write 1 where the trace is positive, otherwise 0"),
        (repeated, "label a trace a second time; keep one label for each"),
    ):
        if wrong:
            raise DataError(f"{path}: {len(wrong)} rows {rule} ({first_five(wrong)})")
    return labels


def read_scans(path: Path) -> list[ScanRow]:
    """The scans of a data set, as ``scans.csv`` lists them.

    Args:
        path: a CSV file with the column scan, and file, group, split and shard where wanted; others are ignored.

    Raises:
        DataError: for missing columns, repeated scans, unknown or incomplete splits and parted groups.
    """
    rows = []
    for _, row in _rows(path, ("scan",)):
        check_id(path, row["scan"])
        file, group, split, shard = (row.get(column) or None for column in ("file", "group", "split", "shard"))
        if file and (Path(file).is_absolute() or ".." in Path(file).parts or "\0" in file):
            raise DataError(f"{path}: scan {shown(row['scan'])}: file {shown(file)} leaves the folder; name one inside")
        if split and split not in SPLITS:
            raise DataError(
                f"{path}: scan {shown(row['scan'])}: {shown(split)} is no split{did_you_mean(split, SPLITS)}"
            )
        rows.append(ScanRow(scan=row["scan"], file=file, group=group or row["scan"], split=split, shard=shard))
    _check_scans(path, rows)
    return rows


def _check_scans(path: Path, rows: Sequence[ScanRow]) -> None:
    if not rows:
        raise DataError(f"{path}: no scans; add a row for each, or remove the file to read every scan of the folder")
    splits: dict[str, set[str]] = {}
    groups: dict[str, set[str]] = {}
    for row in rows:
        splits.setdefault(row.scan, set()).add(row.split or "")
        groups.setdefault(row.group, set()).add(row.split or "")
    twice = [scan for scan, n in Counter(row.scan for row in rows).items() if n > 1]
    parted = [scan for scan in twice if len(splits[scan]) > 1]
    if parted:
        raise DataError(f"{path}: {len(parted)} scans are in two splits ({first_five(parted)}); keep one row for each")
    if twice:
        raise DataError(f"{path}: {len(twice)} scans are listed twice ({first_five(twice)}); keep one row for each")
    for column, otherwise in (("split", "splits are dealt"), ("shard", "shards are cut by size")):
        without = [row.scan for row in rows if getattr(row, column) is None]
        if without and len(without) < len(rows):
            raise DataError(
                f"{path}: {len(without)} of {len(rows)} scans have no {column} ({first_five(without)}); give every "
                f"scan one, or leave the column out and {otherwise}"
            )
    parted = [group for group, names in groups.items() if len(names) > 1]
    if parted:
        raise DataError(
            f"{path}: {len(parted)} groups are in two splits ({first_five(parted)}); scans of a group are not "
            "independent: keep each group in one split"
        )


def _rows(path: Path, required: tuple[str, ...]) -> Iterator[tuple[int, dict[str, str]]]:
    """Line number and stripped values of each row."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, restkey="", strict=True)
            columns = [c.strip() for c in reader.fieldnames or ()]
            reader.fieldnames = columns
            missing = [c for c in required if c not in columns]
            if missing:
                has = ", ".join(shown(c) for c in columns[:20]) or "nothing"
                raise DataError(f"{path}: no column {', '.join(missing)}; the first line has {has}")
            if len(set(columns)) < len(columns):
                raise DataError(f"{path}: a column appears twice in the first line; keep one of each")
            for row in reader:
                if "" in row and isinstance(row[""], list):
                    raise DataError(f"{path}: line {reader.line_num} has more values than the first line has columns")
                yield reader.line_num, {column: (value or "").strip() for column, value in row.items()}
    except (OSError, UnicodeError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read as CSV ({error}); write it as UTF-8 text, one row a line") from error
