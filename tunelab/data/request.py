"""What is to be prepared, where its result lies, and whom to tell how far it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tunelab.data.cache import entry_name
from tunelab.preprocessing import Preprocessing
from tunelab.sections import DataOptions


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


def place_of(request: Request, stamp: str, chain: Preprocessing) -> Path:
    """Where the entry of a chain is, or would be, for a source in the state that a stamp tells."""
    return request.cache / entry_name(request.source, stamp, request.options, chain)


def is_remote(source: str) -> bool:
    """Whether a source is in a bucket."""
    return source.lower().startswith("s3:")
