"""The text file beside a scan that says how to read it: ``line.HD`` of ``line.DT1``, ``line.rad`` of ``line.rd3``.

Lines of ``KEY = value`` or ``KEY:value``. Instruments write both spellings of suffixes, and any code page in comments:
the suffix is found in either case, and bytes that are no UTF-8 are let through where no number is expected.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path

from tunelab.errors import DataError

COMPANIONS = {".dt1": (".hd",), ".rd3": (".rad",), ".rd7": (".rad",)}
"""Suffix of a scan file -> suffixes of the files that it cannot be read without, all in lower case."""
MAX_TEXT = 2**16
"""How much of a companion is read; those of instruments are under 3 kB."""

_NUMBER = re.compile(r"[+-]?[0-9]{1,20}(\.[0-9]{0,20})?([eE][+-]?[0-9]{1,3})?")
_MOST = 2**31 - 1


def companions(path: Path) -> tuple[Path, ...]:
    """The files beside a scan file that belong to it, as far as they are there.

    Args:
        path: a scan file; ``line.DT1`` has ``line.HD`` or ``line.hd``.
    """
    found: dict[tuple[int, int], Path] = {}
    for suffix in COMPANIONS.get(path.suffix.lower(), ()):
        for spelling in (suffix, suffix.upper(), suffix.title()):
            beside = path.with_suffix(spelling)
            if beside.is_file():
                status = beside.stat()  # one file under two spellings where case does not count
                found.setdefault((status.st_dev, status.st_ino), beside)
    return tuple(found.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class Companion:
    """What a companion says."""

    path: Path
    fields: dict[str, str]
    """Key in upper case -> what follows it."""

    def count(self, key: str) -> int:
        """A whole number from 1 on that has to be there."""
        value = self.positive(key)
        if value is None or not value.is_integer() or value > _MOST:
            written = self.fields.get(key, "")[:40]
            raise DataError(
                f"{self.path}: {key} is {written!r}; a whole number from 1 to {_MOST:,} is needed: correct it, or copy "
                "the file again"
            )
        return int(value)

    def positive(self, key: str) -> float | None:
        """A number above 0; None when the key is missing or the number is 0, as instruments write for "unknown"."""
        written = self.fields.get(key)
        if not written:
            return None
        value = float(written) if _NUMBER.fullmatch(written) else math.nan
        if not math.isfinite(value) or value < 0:
            raise DataError(
                f"{self.path}: {key} is {written[:40]!r}; a number above 0 is needed: correct it, or copy the "
                "file again"
            )
        return value or None


def read_companion(path: Path, separator: str) -> Companion:
    """The companion of a scan file; of a key that stands there twice the first counts.

    Args:
        path: the scan file.
        separator: what parts key and value.

    Raises:
        DataError: when there is none, or more than one.
    """
    found = companions(path)
    if len(found) != 1:
        wanted = " or ".join(
            path.with_suffix(spelling).name
            for suffix in COMPANIONS[path.suffix.lower()]
            for spelling in (suffix, suffix.upper())
        )
        if found:
            raise DataError(f"{path}: both {' and '.join(f.name for f in found)} are there; keep the one that is true")
        raise DataError(f"{path}: no plain file {wanted} beside it, which says how to read it; put it there")
    with found[0].open("rb") as file:
        text = file.read(MAX_TEXT).decode("utf-8", errors="replace")
    fields: dict[str, str] = {}
    for line in text.splitlines():
        key, parted, value = line.partition(separator)
        if parted:
            fields.setdefault(" ".join(key.upper().split()), value.strip())
    return Companion(path=found[0], fields=fields)
