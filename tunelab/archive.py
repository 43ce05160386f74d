"""A run in a store: the manifest that says what it is made of, where runs are, and how one is brought back.

:class:`tunelab.mirror.Mirror` writes what is read here. Nothing that comes from a store is believed: keys stay below
the folder, sizes are bounded before a byte is taken, and every file is compared with its SHA-256.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from tunelab.errors import StateError
from tunelab.files import fault_of_key, size_text
from tunelab.storage import FolderStore, Source

MANIFEST = "manifest.json"
LEASE = "lease.json"
JOURNAL = "journal.jsonl"
LAST = ("run.yaml", JOURNAL)
"""What names the other files, in the order in which it is sent and brought: after them."""
NAMED = ("checkpoints/", "weights/")
"""Where the files are that the journal names."""

MOST_OF_A_FILE = 512 << 20
"""Bytes; a file is held in memory while it is sent or brought. Models here have a few million parameters."""
MOST_AT_ONCE = 256 << 20
"""Bytes of files in memory together, where each alone is smaller."""
AT_ONCE = 8
"""Files sent or brought at the same time."""
_MOST_OF_A_MANIFEST = 32 << 20  # bytes, for some 200,000 files

T = TypeVar("T")


class FileFacts(BaseModel):
    """One file of a run."""

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)

    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    size: int = Field(ge=0, le=MOST_OF_A_FILE)

    @classmethod
    def of(cls, data: bytes) -> FileFacts:
        """Those of a file that holds ``data``."""
        return cls(sha256=hashlib.sha256(data).hexdigest(), size=len(data))


class Manifest(BaseModel):
    """What a run in a store is made of; newer fields are ignored."""

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)

    format: Literal[1] = 1
    fence: int = Field(ge=0)
    """That of the lease of the process which wrote it."""
    files: dict[str, FileFacts]

    @field_validator("files")
    @classmethod
    def _keys_of_a_run(cls, files: dict[str, FileFacts]) -> dict[str, FileFacts]:
        for key in files:
            if fault := fault_of_key(key) or ("" if is_of_a_run(key) else "is no file of a run"):
                raise ValueError(f"the key {key[:100]!r} {fault}")
        return files


@dataclass(frozen=True, kw_only=True, slots=True)
class Fetched:
    """What :func:`fetch` brought."""

    files: int
    """How many were brought; those that were there already are not counted."""
    bytes: int
    """Of them together."""
    missing: tuple[str, ...]
    """Keys that the manifest names and that are not there, or not as it says."""


def is_of_a_run(key: str) -> bool:
    """Whether a file of this key is a part of a run; what tells runs apart, locks and hidden files are none."""
    return key not in (MANIFEST, LEASE) and not key.endswith(".lock") and "/." not in f"/{key}"


def read_manifest(store: Source) -> Manifest | None:
    """The manifest of the run in a store; None when there is none.

    Raises:
        StateError: it is none that this version can use.
        StorageError: it could not be read.
    """
    raw = store.read(MANIFEST, _MOST_OF_A_MANIFEST + 1)
    if raw is None:
        return None
    said = f"it has more than {size_text(_MOST_OF_A_MANIFEST)}"
    if len(raw) <= _MOST_OF_A_MANIFEST:
        try:
            return Manifest.model_validate_json(raw)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            at = ".".join(str(part)[:100] for part in first["loc"])
            said = f"{at!r}: {first['msg']}" if at else first["msg"]
    remedy = "use the version of tunelab that wrote it, or remove it and run tunelab sync where the run's folder is"
    raise StateError(f"{store.url}/{MANIFEST}: is no manifest of this version: {said}; {remedy}")


def runs_at(store: Source) -> list[str]:
    """The names of the runs below a prefix, sorted; their files are not listed.

    A run's own folder has a journal, a copy in a bucket counts once its manifest is there.

    Raises:
        StorageError: the place could not be read.
    """
    marks = (MANIFEST, JOURNAL) if isinstance(store, FolderStore) else (MANIFEST,)

    def is_run(name: str) -> bool:
        return any(store.read(f"{name}/{mark}", 1) is not None for mark in marks)

    names = store.folders()
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return [name for name, found in zip(names, pool.map(is_run, names), strict=True) if found]


def every_key(_: str) -> bool:
    """The whole run."""
    return True


def fetch(store: Source, folder: Path, *, wanted: Callable[[str], bool] = every_key) -> Fetched:
    """Bring a run from a store into a local folder; what is there already is not brought again.

    Every file is written whole or not at all, ``run.yaml`` and the journal last. A local journal that is longer than
    the store's, and begins with it, stays, as do the files beside it.

    Args:
        store: where the run is, its manifest directly below.
        folder: where to; made where there is none.
        wanted: says of a key whether to bring it.

    Raises:
        StateError: no run is there, its manifest, settings or journal are damaged, or the folder holds another run.
        StorageError: a file could not be read or written; what was brought is whole, and a new attempt goes on.
    """
    manifest = read_manifest(store)
    if manifest is None:
        raise StateError(f"{store.url}: holds no run of tunelab (no {MANIFEST})")
    here = FolderStore(folder)
    last = {key: _last(store, manifest, key) for key in LAST if wanted(key)}
    ahead = JOURNAL in last and _goes_on(here, last[JOURNAL], store.url)
    files = [(key, facts) for key, facts in manifest.files.items() if key not in LAST and wanted(key)]

    def bring(one: tuple[str, FileFacts]) -> int | None:
        key, facts = one
        local = here.read(key, facts.size + 1)
        if local is not None and (ahead or FileFacts.of(local) == facts):
            return 0
        data = store.read(key, facts.size)  # more may be there now: its beginning is what the manifest means
        if data is None or FileFacts.of(data) != facts:
            return None
        here.put(key, data)
        return 1

    brought, size, missing = 0, 0, []
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for batch in batches(files, lambda one: one[1].size):
            for (key, facts), count in zip(batch, list(pool.map(bring, batch)), strict=True):
                if count is None:
                    missing.append(key)
                else:
                    brought, size = brought + count, size + count * facts.size
    if JOURNAL in last and not ahead and len(last[JOURNAL]) > manifest.files[JOURNAL].size:
        # It was replaced since, after files that it names and the manifest does not: those tell their own digests.
        named = [key for prefix in NAMED for key in store.list(prefix) if key not in manifest.files]
        for key in filter(lambda key: wanted(key) and is_of_a_run(key) and here.read(key, 0) is None, named):
            data = store.read(key, MOST_OF_A_FILE)
            if data is not None:
                here.put(key, data)
                brought, size = brought + 1, size + len(data)
    for key, data in last.items():
        if not (ahead or here.read(key, len(data) + 1) == data):
            here.put(key, data)
            brought, size = brought + 1, size + len(data)
    return Fetched(files=brought, bytes=size, missing=tuple(sorted(missing)))


def _last(store: Source, manifest: Manifest, key: str) -> bytes:
    """A file without which there is no run; the journal as long as it is now."""
    facts = manifest.files.get(key)
    if facts is None:
        raise StateError(f"{store.url}/{MANIFEST}: names no {key}, so there is no whole run; send it again")
    data = store.read(key, MOST_OF_A_FILE if key == JOURNAL else facts.size)
    if data is None:
        raise StateError(f"{store.url}/{key}: is not there, although the manifest names it; restore it from a copy")
    if FileFacts.of(data[: facts.size]) != facts:
        raise StateError(f"{store.url}/{key}: does not match its digest in the manifest; restore it from a copy")
    return data


def _goes_on(here: FolderStore, stored: bytes, url: str) -> bool:
    """Whether the folder's journal is longer than the stored one, of the same run; False without one."""
    local = here.read(JOURNAL, MOST_OF_A_FILE)
    if local is None or stored.startswith(local[: local.rfind(b"\n") + 1]):  # a torn last line does not count
        return False
    if local.startswith(stored):
        return True
    raise StateError(f"{here.url}/{JOURNAL}: is of another run than that at {url}; choose another folder")


def batches(items: Iterable[T], size: Callable[[T], int]) -> Iterator[list[T]]:
    """Parts of a sequence, in order, of :data:`MOST_AT_ONCE` bytes at most; what is larger comes alone."""
    batch: list[T] = []
    total = 0
    for item in items:
        if batch and total + size(item) > MOST_AT_ONCE:
            yield batch
            batch, total = [], 0
        batch.append(item)
        total += size(item)
    if batch:
        yield batch
