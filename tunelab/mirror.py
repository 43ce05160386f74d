"""Keeps a run's local folder copied to a store, in the background, so that the store always holds a whole run.

Whatever a journal that is seen there names is there, too: the journal is read before the other files are listed and
sent after them, the manifest comes last of all, and what the folder no longer has is removed after that; not what this
mirror never saw there, as a folder may hold a part of its run. It does not know what the files mean, and never writes
into the folder; :mod:`tunelab.archive` brings a run back.
"""

from __future__ import annotations

import shlex
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from pathlib import Path
from typing import TypeVar

from tunelab.archive import (
    AT_ONCE,
    JOURNAL,
    LAST,
    MANIFEST,
    NAMED,
    Fetched,
    FileFacts,
    Manifest,
    batches,
    fetch,
    is_of_a_run,
    read_manifest,
    runs_at,
)
from tunelab.errors import RunBusyError, StateError, StorageError, TunelabError
from tunelab.files import files_below, size_text
from tunelab.readings import Reading, Readings
from tunelab.storage import Source

__all__ = ["Fetched", "Manifest", "Mirror", "fetch", "read_manifest", "runs_at"]

T = TypeVar("T")


class Mirror:
    """Keeps a run's local folder copied to a store.

    A failure in the background is remembered in :attr:`warning` and tried again after the next period; the search
    never hears of it.

    Args:
        folder: the run's local folder; it may not exist yet.
        store: where it is copied to; another search must not write there.
        every: seconds between two looks at the folder.
        fence: that of the lease under which this process writes; kept in the manifest.
        guard: called before anything is sent, and again before the manifest is. Raises RunBusyError when the lease is
            lost: then nothing is sent any more, ever.
        spare: whether a file of :data:`NAMED` that the folder never had may go; None: none may. An earlier process may
            have been killed, or cut off, after it had removed it here and before it did there.
    """

    def __init__(
        self,
        folder: Path,
        store: Source,
        every: float = 60.0,
        *,
        fence: int = 0,
        guard: Callable[[], None] | None = None,
        spare: Callable[[str], bool] | None = None,
    ) -> None:
        self._folder = folder
        self._store = store
        self._every = every
        self._fence = fence
        self._guard = guard or (lambda: None)
        self._spare = spare
        self._unseen: set[str] = set()  # what was there before this mirror, of which some may go
        self._local = Readings(folder)
        self._there: dict[str, FileFacts] = {}  # what the store holds, as far as this mirror and the manifest know
        self._had: set[str] = set()  # what was seen in the folder
        self._manifest: Manifest | None = None  # as it is in the store
        self._asked = False
        self._turn = threading.Lock()
        self._tally = threading.Lock()
        self._bytes = 0
        self._began: float | None = None
        self._warning = ""
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None
        self.lost: TunelabError | None = None
        """Why nothing is sent any more; None while it is."""
        self.seconds = 0.0
        """Spent in looks so far."""

    @property
    def warning(self) -> str:
        """Why the newest look failed, or that it takes longer than a period; empty after a good one."""
        began = self._began
        taken = 0.0 if began is None else time.monotonic() - began
        return self._slow(taken) or self._warning

    def start(self) -> None:
        """Begin to look at the folder, at once and then once a period."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="mirror", daemon=True)
            self._thread.start()

    def sync(self) -> int:
        """Send what has changed, now.

        Returns:
            The number of files sent; the manifest is not counted.

        Raises:
            StorageError: the first file that could not be sent; others may be there, the manifest is as it was. Or a
                local file that could not be read; all others are there.
            RunBusyError: the lease is lost.
            StateError: the store holds another run, or more of this one than the folder.
        """
        with self._turn:
            if self.lost is not None:
                raise self.lost
            self._bytes, self._began = 0, time.monotonic()
            try:
                sent = self._look()
            except TunelabError as error:
                self._warning = str(error)
                if isinstance(error, RunBusyError | StateError):
                    self.lost = error
                raise
            finally:
                taken, self._began = time.monotonic() - self._began, None
                self.seconds += taken
            self._warning = self._slow(taken)
            return sent

    def close(self) -> None:
        """Stop the background work and send the rest.

        Raises:
            StorageError: it could not be sent; says where everything is kept and how to send it later.
            RunBusyError: as :meth:`sync`, and so are the others.
        """
        self._closing.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        try:
            self.sync()
        except StorageError as error:
            later = f"send it later with: tunelab sync {shlex.quote(str(self._folder))}"
            raise StorageError(f"{error}\neverything is kept in {self._folder}; {later}") from error

    def _work(self) -> None:
        while not self._closing.is_set() and self.lost is None:
            try:
                self.sync()
            except TunelabError:
                pass  # remembered in `warning`, and tried again after the next period unless the run is lost
            except Exception as error:  # noqa: BLE001 - whatever it is, the search must not lose its mirror to it
                self._warning = f"{self._store.url}: {type(error).__name__}: {error}"
            self._closing.wait(self._every)

    def _slow(self, taken: float) -> str:
        if taken <= self._every:
            return ""
        size = self._bytes
        pace = f"{size_text(size)} in {taken:.{0 if taken >= 10 else 1}f} s ({size_text(size / taken)}/s)"
        slower = f"slower than --sync-every {self._every:g} s"
        return f"{self._store.url}: {pace}, {slower}; results arrive late, training goes on"

    def _look(self) -> int:
        self._guard()
        if not self._asked:
            self._ask()
        # Before the others are listed: so what it names is among them, or was removed after it had been there.
        known = {key: self._unchanged(key) for key in LAST}
        last = {key: self._local.read(key) for key in reversed(LAST) if known[key] is None}
        keys = [key for key in files_below(self._folder) if is_of_a_run(key)]
        self._had.update(keys)
        known |= {key: self._unchanged(key) for key in keys if key not in LAST}
        files = {key: facts for key in keys if (facts := known[key]) is not None}
        changed = [key for key in keys if key not in files and key not in LAST]
        sent, faults = 0, []
        with ThreadPoolExecutor(AT_ONCE, "mirror-put") as pool:
            for named in (True, False):
                for batch in batches((k for k in changed if k.startswith(NAMED) == named), self._local.size):
                    self._guard()
                    for key, (facts, fresh, fault) in zip(batch, _all(pool, self._send, batch), strict=True):
                        sent += fresh
                        faults += [fault] if fault else []
                        files |= {key: facts} if facts else {}
            for key in LAST:
                reading = last.get(key) if key in keys else None  # a link is not listed
                if reading is not None:
                    sent += self._put(key, reading)
                    files[key] = reading.facts
            if JOURNAL in files and not [key for key in LAST if key in self._had and key not in files]:
                gone = {key for key in self._unseen - self._had if self._spare is not None and self._spare(key)}
                files |= {key: facts for key, facts in self._there.items() if key not in self._had | gone}
                self._conclude(Manifest(fence=self._fence, files=dict(sorted(files.items()))), gone, pool)
        if faults:
            raise faults[0]
        return sent

    def _ask(self) -> None:
        """What the store holds already, so that a resumed run does not send its files again."""
        manifest = read_manifest(self._store)
        if manifest is not None:
            facts = manifest.files.get(JOURNAL)
            if facts is not None and not self._local.begins_with(JOURNAL, facts):
                # the manifest would forget, and the store lose, what the folder does not have
                say = f"holds another run, or more of this one than {self._folder}; nothing was sent"
                raise StateError(f"{self._store.url}: {say}; give another --name, or resume it from there")
            self._there = dict(manifest.files)
        if self._spare is not None:
            self._unseen = {key for prefix in NAMED for key in self._store.list(prefix)}
        self._manifest, self._asked = manifest, True

    def _unchanged(self, key: str) -> FileFacts | None:
        """The facts of a file that is in the store and was not touched since it was read."""
        facts = self._local.untouched(key)
        return facts if facts is not None and facts == self._there.get(key) else None

    def _send(self, key: str) -> tuple[FileFacts | None, bool, StorageError | None]:
        """Facts of the file in the store, whether it was sent, and why it could not be read here."""
        try:
            reading = self._local.read(key)
        except StorageError as fault:
            return self._there.get(key), False, fault
        return (None, False, None) if reading is None else (reading.facts, self._put(key, reading), None)

    def _put(self, key: str, reading: Reading) -> bool:
        if self._there.get(key) == reading.facts:
            return False
        self._store.put(key, reading.data)
        self._there[key] = reading.facts
        with self._tally:
            self._bytes += reading.facts.size
        return True

    def _conclude(self, manifest: Manifest, gone: set[str], pool: ThreadPoolExecutor) -> None:
        """Put the manifest if it is another one, then remove what it does not name any more."""
        if manifest != self._manifest:
            self._guard()
            self._store.put(MANIFEST, manifest.model_dump_json(indent=1).encode())
            self._manifest = manifest
        _all(pool, self._remove, sorted((self._there.keys() | gone) - manifest.files.keys()))

    def _remove(self, key: str) -> None:
        self._store.delete(key)
        self._there.pop(key, None)
        self._unseen.discard(key)


def _all(pool: ThreadPoolExecutor, act: Callable[[str], T], keys: Iterable[str]) -> list[T]:
    """What ``act`` answers for each key; after a failure no more are begun, and it is raised once none runs."""
    asked = [pool.submit(act, key) for key in keys]
    wait(asked, return_when=FIRST_EXCEPTION)
    for one in asked:
        one.cancel()
    wait(asked)
    for one in asked:
        if not one.cancelled() and (error := one.exception()) is not None:
            raise error
    return [one.result() for one in asked]
