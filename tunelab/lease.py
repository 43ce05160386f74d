"""One writer of a run: a lease on its folder; that on its copy in a bucket is :mod:`tunelab.s3lease`.

A lease is renewed by a thread. Who finds its owner dead takes it over with the next *fence*, a number that only grows:
it tells what an owner of before wrote from what the new one wrote. No two clocks are compared. What is written under a
lease, it does not know, and a write that is on its way when the lease ends still arrives. On a network file system
whose locks reach no other host, a lease is taken over by who has seen no renewal for its whole time.
"""

from __future__ import annotations

import fcntl
import os
import threading
import time
from contextlib import ExitStack, suppress
from io import FileIO
from pathlib import Path
from typing import Self

from tunelab.archive import LEASE
from tunelab.errors import RunBusyError, StorageError
from tunelab.files import write_file
from tunelab.storage import FolderStore
from tunelab.terms import Terms

_RENEWALS = 3  # in the time after which a lease ends
_MOST = 1 << 16  # bytes of a lease's file


class Lease:
    """A lease that is held; see :class:`FolderLease`. Released at the end of a ``with`` block."""

    def __init__(self, terms: Terms, where: str) -> None:
        self._terms = terms
        self._where = where
        self._lost: RunBusyError | None = None
        self._turn = threading.RLock()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._work, name="lease", daemon=True)
        self.warning = ""
        """Why this lease is less sure than it should be; empty when it is not."""

    @property
    def fence(self) -> int:
        """Greater than that of every owner before."""
        return self._terms.fence

    @property
    def owner(self) -> str:
        """``process 123 on HOST``: this one."""
        return str(self._terms.owner)

    def check(self) -> None:
        """Make sure that this process may still write.

        Raises:
            RunBusyError: another process has taken the lease over; that stays so.
            StorageError: it cannot be told, as the lease could not be renewed in time; try again.
        """
        with self._turn:
            if self._lost is None:
                self._check()
            if self._lost is not None:
                raise self._lost

    def release(self) -> None:
        """Let the next process take the lease at once; a second time does nothing."""
        self._over.set()
        if self._thread.is_alive():
            self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def _check(self) -> None:
        raise NotImplementedError

    def _renew(self) -> None:
        raise NotImplementedError

    def _work(self) -> None:
        pause = self._terms.seconds / _RENEWALS
        while self._lost is None and not self._over.wait(pause):
            with self._turn:
                try:
                    self._renew()
                    pause = self._terms.seconds / _RENEWALS
                except StorageError:  # tried again soon, while others still leave it to this process
                    pause = self._terms.seconds / _RENEWALS / 4

    def _lose(self, to: Terms | None) -> None:
        taken = f"taken over by {to.owner} (fence {to.fence})" if to is not None else "its lease was removed"
        self._lost = RunBusyError(f"{self._where}: {taken}; this process writes nothing more (fence {self.fence})")


class FolderLease(Lease):
    """A lease on a local folder: a lock that ends with its process, and beside it ``lease.json``, which others read."""

    def __init__(self, terms: Terms, path: Path, lock: FileIO) -> None:
        super().__init__(terms, str(path.parent))
        self._store = FolderStore(path.parent)
        self._path = path.parent / LEASE
        self._lock = lock

    @classmethod
    def take(cls, path: Path, *, seconds: float = 30.0, above: int = 0) -> FolderLease:
        """Take the lease of a folder.

        The fence of before is read from both files: a damaged one does not set it back.

        Args:
            path: of the lock, in the folder; made where there is none, and never removed.
            seconds: without a renewal for so long, a process of a host that the lock does not reach may take it.
            above: the fence is greater than this: that of a manifest, should both files be lost.

        Raises:
            RunBusyError: another process holds it.
            StorageError: the folder cannot be written, or its file system has no locks.
        """
        folder = FolderStore(path.parent)
        with ExitStack() as opened:
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                lock = opened.enter_context(path.open("a+b", buffering=0))
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                lock.seek(0)
                copy = Terms.read(lock.read(_MOST))
            except BlockingIOError:
                raise RunBusyError(held(folder.url, _of_folder(folder))) from None
            except OSError as error:
                raise StorageError(f"{path}: cannot be locked: {error.strerror}; choose another --storage") from error
            there = _of_folder(folder)
            if there is not None and not (there.released or there.owner.is_of_this_host()):
                _watch(folder, there, seconds)
            before = [terms.fence for terms in (copy, there) if terms is not None]
            terms = Terms.first(seconds).but(fence=max([above, *before]) + 1)
            lease = cls(terms, path, lock)
            lease._write(terms)
            lease._thread.start()
            opened.pop_all()
            return lease

    def release(self) -> None:
        """See :meth:`Lease.release`."""
        super().release()
        with self._turn:
            if self._lock.closed:
                return
            if self._lost is None:
                with suppress(StorageError):  # on a full disk the lock alone says it
                    self._write(self._terms.but(released=True))
            self._lock.close()

    def _check(self) -> None:
        there = _of_folder(self._store)
        if there is None:  # removed or damaged by hand; the lock is still this process's
            self._write(self._terms)
        elif there.token != self._terms.token:
            self._lose(there)

    def _renew(self) -> None:
        self._check()
        if self._lost is None:
            self._write(self._terms.but(renewed=self._terms.renewed + 1))

    def _write(self, terms: Terms) -> None:
        if terms.renewed == 0:
            try:
                self._lock.truncate(0)
                self._lock.write(terms.written())
                self._lock.flush()
                os.fsync(self._lock.fileno())
            except OSError as error:
                say = f"cannot be written: {error.strerror}; free space or choose another folder"
                raise StorageError(f"{self._lock.name}: {say}") from error
        write_file(self._path, terms.written())
        self._terms = terms


class FencedStore:
    """A run's folder as one owner's processes write it: no longer once a later owner holds the lease.

    Processes of a driver that was killed end a moment after it; without this they could write, and remove, what those
    of the next driver count on.

    Args:
        root: the folder.
        fence: of the lease under which this process works.
    """

    def __init__(self, root: Path, fence: int) -> None:
        self._store = FolderStore(root)
        self._fence = fence

    @property
    def url(self) -> str:
        """The folder's path."""
        return self._store.url

    def put(self, key: str, data: bytes) -> None:
        """See :meth:`~tunelab.storage.Store.put`."""
        self._check()
        self._store.put(key, data)

    def get(self, key: str) -> bytes:
        """See :meth:`~tunelab.storage.Store.get`."""
        return self._store.get(key)

    def list(self, prefix: str = "") -> list[str]:
        """See :meth:`~tunelab.storage.Store.list`."""
        return self._store.list(prefix)

    def delete(self, key: str) -> None:
        """See :meth:`~tunelab.storage.Store.delete`."""
        self._check()
        self._store.delete(key)

    def _check(self) -> None:
        """Refuse what would be written too late.

        Raises:
            StorageError: a later owner has the folder.
        """
        there = _of_folder(self._store)
        if there is not None and there.fence > self._fence:
            raise StorageError(
                f"{self.url}: taken over by {there.owner} (fence {there.fence}); nothing more is written"
            )


def _of_folder(folder: FolderStore) -> Terms | None:
    return Terms.read(folder.read(LEASE, _MOST))


def _watch(folder: FolderStore, first: Terms, seconds: float) -> None:
    """Wait for a sign of life of an owner that no lock tells of.

    Raises:
        RunBusyError: it lives.
    """
    until = clock() + max(seconds, first.seconds)
    while clock() < until:
        time.sleep(min(1.0, seconds / 20))
        now = _of_folder(folder)
        if now is None or now.released:
            return
        if (now.token, now.renewed) != (first.token, first.renewed):
            raise RunBusyError(held(folder.url, now))


def held(url: str, terms: Terms | None, later: str = "") -> str:
    """That a lease is held, by whom, and what to do."""
    by = f"{terms.owner} since {terms.owner.started}" if terms is not None and not terms.released else "another process"
    return f"{url}: held by {by}; {later + '; ' if later else ''}wait for it, or give another --name"


def clock() -> float:
    """Seconds that also pass while the machine sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()
