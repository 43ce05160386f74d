"""A run in the hands of this process: its journal open for writing, and the lease on its place in the bucket.

One place takes both, for a new run and for one that goes on, and gives them back in the other order. What a bucket and
a folder hold of the same run is compared here too, so that no record of either is written over.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tunelab import journal
from tunelab.archive import read_manifest
from tunelab.errors import StateError, UsageError
from tunelab.journal import Journal
from tunelab.mirror import Mirror, fetch
from tunelab.s3 import S3Options
from tunelab.s3lease import S3Lease
from tunelab.storage import S3Store, Source, open_store

JOURNAL = "journal.jsonl"
RUN = "run.yaml"


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """A run that nobody else writes to."""

    folder: Path
    journal: Journal
    store: Source | None
    """Its place in the bucket; None: it has none."""
    lease: S3Lease | None
    """On that place."""
    notes: tuple[str, ...] = ()
    """What a user should know of how it was come by."""

    @property
    def fence(self) -> int:
        """The number of this ownership; a later one has a higher number."""
        return self.journal.lease.fence

    def mirror(self, every: float, spare: Callable[[str], bool]) -> Mirror | None:
        """What copies the folder to the bucket; None where there is none.

        Args:
            every: seconds.
            spare: see :class:`~tunelab.mirror.Mirror`.
        """
        if self.store is None:
            return None
        if self.lease is None:
            return Mirror(self.folder, self.store, every, spare=spare)
        return Mirror(self.folder, self.store, every, fence=self.lease.fence, guard=self.lease.check, spare=spare)


@contextmanager
def new_run(folder: Path, url: str, s3: S3Options) -> Iterator[Hold]:
    """Take a place where there is no run yet.

    Args:
        folder: of the run.
        url: ``s3://bucket/prefix/name``, or empty.
        s3: how the bucket is asked.

    Raises:
        UsageError: there is a run.
        RunBusyError: another process is at it.
        StorageError: the folder or the bucket cannot be written.
    """
    with ExitStack() as stack:
        store = open_store(url, s3) if url else None
        if store is not None:
            _check_bucket(store, url)
        lease = _leased(stack, store)
        opened = _opened(stack, folder, lease)
        _check_folder(folder, opened.records)
        yield Hold(folder=folder, journal=opened, store=store, lease=lease)


def check_new(folder: Path, url: str, s3: S3Options) -> None:
    """Refuse what :func:`new_run` would, and take nothing; whether another process is at it is not looked at.

    Raises:
        UsageError: there is a run.
        StateError: there is a damaged one.
        StorageError: the bucket cannot be read.
    """
    if url:
        _check_bucket(open_store(url, s3), url)
    path = folder / JOURNAL
    _check_folder(folder, journal.read(path) if path.exists() else [])


def _check_bucket(store: Source, url: str) -> None:
    if any(key != "lease.json" for key in store.list()):
        raise UsageError(f"{url}: holds a run already; give another --name, or go on with: tunelab resume {url}")


def _check_folder(folder: Path, records: list[journal.Record]) -> None:
    if records or (folder / RUN).exists():
        go_on = f"go on with: tunelab resume {folder}"
        raise UsageError(f"{folder}: holds a run already; give another --name, or {go_on}")


@contextmanager
def old_run(folder: Path, url: str, s3: S3Options) -> Iterator[Hold]:
    """Take a run to go on with; what the folder lacks is brought from the bucket.

    Args:
        folder: where the run is, or is brought to.
        url: its place in the bucket, or empty.
        s3: how the bucket is asked.

    Raises:
        StateError: there is no run, it is damaged, or folder and bucket have each gone on without the other.
        RunBusyError: another process holds it.
        StorageError: the folder or the bucket cannot be read or written.
    """
    with ExitStack() as stack:
        store = open_store(url, s3) if url else None
        lease = _leased(stack, store)
        notes = _brought(folder, store) if store is not None else []
        if not (folder / JOURNAL).exists():
            raise StateError(f"{folder}: holds no run (no {JOURNAL}); name the folder of a run, or its s3:// URL")
        opened = _opened(stack, folder, lease)
        first = opened.records[0] if opened.records else None
        if first is None or first.get("kind") != "run":
            what = "is empty" if first is None else f"begins with a {first.get('kind')!r:.40} record"
            remedy = f"restore it from a copy{'' if url else ', or name the s3:// URL of the run if it has one'}"
            raise StateError(f"{folder / JOURNAL}: {what}, so there is no run to go on with; {remedy}")
        if opened.cut:
            notes.append(f"{JOURNAL}: an unfinished last line of {opened.cut:,} bytes was cut off.")
        yield Hold(folder=folder, journal=opened, store=store, lease=lease, notes=tuple(notes))


def _opened(stack: ExitStack, folder: Path, lease: S3Lease | None) -> Journal:
    """The journal, under a fence that is no smaller than that in the bucket, where other machines take theirs."""
    opened = Journal.open(folder / JOURNAL, above=lease.fence - 1 if lease is not None else 0)
    stack.callback(opened.close)
    return opened


def _leased(stack: ExitStack, store: Source | None) -> S3Lease | None:
    if not isinstance(store, S3Store):
        return None
    above = 0
    with suppress(StateError):  # a damaged manifest; the lease tells the fence as well
        manifest = read_manifest(store)
        above = manifest.fence if manifest is not None else 0
    return stack.enter_context(S3Lease.take(store, above=above))


def _brought(folder: Path, store: Source) -> list[str]:
    """Bring what the bucket has and the folder lacks; says what was brought.

    Raises:
        StateError: both have records that the other lacks, or the copy is damaged.
    """
    path = folder / JOURNAL
    here = path.read_bytes() if path.exists() else b""
    there = store.get(JOURNAL) if JOURNAL in store.list(JOURNAL) else b""
    whole = _whole(here, path)
    if there and whole == there[: len(whole)] and len(there) > len(whole):
        return _fetched(folder, store, known=bool(here))
    if there and there != whole[: len(there)]:
        raise StateError(
            f"{folder} and {store.url} have each gone on without the other, from the same beginning; move the folder "
            f"away to go on from the bucket, or go on from the folder by itself under another --name"
        )
    if not there and not here:
        raise StateError(f"{store.url}: holds no run (no {JOURNAL}); check the name with: tunelab list")
    return []


def _whole(raw: bytes, path: Path) -> bytes:
    """A journal up to its last whole line."""
    return raw[: journal.parse(raw, path)[1]]


def _fetched(folder: Path, store: Source, *, known: bool) -> list[str]:
    brought = fetch(store, folder, wanted=_needed)
    records = journal.read(folder / JOURNAL)
    behind = "The folder was behind its bucket. " if known else ""
    notes = [
        f"{behind}Brought {len(records):,} records from {store.url}; what was done elsewhere after "
        "the last of them was sent (--sync-every) is not there, and is done again."
    ]
    if brought.missing:
        names = ", ".join(sorted(brought.missing)[:5])
        notes.append(f"{len(brought.missing)} files are missing or damaged there and are done without: {names}.")
    return notes


def _needed(key: str) -> bool:
    return not key.startswith("lease.json")
