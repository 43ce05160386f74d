"""What a prepared data set says of itself: ``manifest.json``, and beside it the manifest's own SHA-256.

Names every other file with its size and SHA-256, so that nothing in the folder can change unnoticed. ``sha256sum -c
manifest.sha256`` checks the manifest as well as this module does.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tunelab.errors import StateError
from tunelab.files import write_file

FORMAT = 1
NAME = "manifest.json"
SUM = "manifest.sha256"


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class FileFacts(_Section):
    """One file of a prepared data set."""

    bytes: int = Field(ge=0)
    sha256: str = Field(pattern="^[0-9a-f]{64}$")


class LeftOutFacts(_Section):
    """A scan that could not be used."""

    scan: str
    reason: str


class Loss(_Section):
    """What storing numbers in fewer bits changed."""

    relative_rms: float
    """Root mean square of the change over that of the samples, all scans together."""
    largest: float
    """The largest change of a sample over the largest magnitude of its scan."""


class Columns(_Section):
    """A row a scan, by id."""

    scan: list[str]
    file: list[str]
    """Relative to the source."""
    group: list[str]
    split: list[str | None]
    """As ``scans.csv`` gives it; none of them, or all."""
    dealt: list[str]
    """What the seed of the preparation deals, or what is given: a split, or a fold."""
    shard: list[int]
    row: list[int]
    """The scan's first trace within its shard."""
    traces: list[int]
    exponent: list[int]
    """Stored samples times two to this power are the samples; 0 in float32."""
    silent: list[int]
    """Traces that hold one value only."""
    digest: list[str]
    """SHA-256 of the samples as little-endian float32, before they were stored in fewer bits."""


def _components(manifest: dict[str, Any]) -> int:
    return max(1, len(manifest["options"].get("components", ())))


class Manifest(_Section):
    """The whole description."""

    format: Literal[1] = 1
    """:data:`FORMAT`."""
    version: str
    """Of tunelab."""
    created: str
    source: str
    stamp: str
    """Of the source's files, :func:`tunelab.data.cache.stamp_of`."""
    options: dict[str, Any]
    """How the source was read: resample, dtype, components."""
    preprocessing: dict[str, Any]
    """The chain, without defaults."""
    seed: int
    """That dealt ``dealt``; another one deals anew."""
    dtype: Literal["float32", "float16"]
    samples: int
    """Of every trace, all channels together."""
    channels: int = Field(default_factory=_components, ge=1)
    """Joined along the samples. Data sets that were prepared before this was told have as many as components were asked
    for, and else one."""
    dt: float | None
    scans: Columns
    loss: Loss
    left_out: list[LeftOutFacts]
    notes: list[str]
    files: dict[str, FileFacts]


def shard_name(shard: int) -> str:
    """The file of a shard's samples, (trace, sample), little-endian, nothing before or between them."""
    return f"{shard:05d}.samples"


def moments_name(shard: int) -> str:
    """The file of the scans' means and standard deviations, (scan, 2, sample), little-endian float32."""
    return f"{shard:05d}.moments"


LABELS = "labels"
"""The file of the labels, a byte a trace, the scans by id."""


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write both files.

    Raises:
        StorageError: they could not be written.
    """
    raw = manifest.model_dump_json(indent=None).encode()
    write_file(folder / NAME, raw)
    write_file(folder / SUM, f"{hashlib.sha256(raw).hexdigest()}  {NAME}\n".encode())


def read_manifest(folder: Path) -> Manifest:
    """Read and check a manifest, and that the files it names are there in their size.

    Raises:
        StateError: it is damaged or of another version, or a file is missing or cut.
    """
    remedy = f"remove it with: tunelab data prune {folder.name}"
    try:
        raw = (folder / NAME).read_bytes()
        told = (folder / SUM).read_bytes()
    except OSError as error:
        raise StateError(f"{folder}: no whole prepared data set: {error.strerror}; {remedy}") from error
    if told != f"{hashlib.sha256(raw).hexdigest()}  {NAME}\n".encode():
        raise StateError(f"{folder / NAME}: does not match its digest; {remedy}")
    try:
        manifest = Manifest.model_validate_json(raw)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise StateError(f"{folder / NAME}: {place}: {first['msg']}; {remedy}") from error
    for name, facts in manifest.files.items():
        path = folder / name
        size = path.stat().st_size if path.is_file() else -1
        if size != facts.bytes:
            there = f"has {size:,} bytes, not {facts.bytes:,}" if size >= 0 else "is missing"
            raise StateError(f"{path}: {there}; {remedy}")
    return manifest


def check_digest(path: Path, expected: str) -> None:
    """Compare a file's content with its digest; it is read, not mapped, and not kept in memory.

    Raises:
        StateError: it differs, or cannot be read.
    """
    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise StateError(f"{path}: cannot be read: {error.strerror}") from error
    if found != expected:
        raise StateError(
            f"{path}: does not match its digest; the disk or a program changed it: remove the data set with: "
            f"tunelab data prune {path.parent.name}, it is prepared again when it is needed"
        )
