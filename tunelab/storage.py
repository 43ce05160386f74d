"""Where a run's files are kept beside the local folder: put, get, list, on a folder or on S3.

A :class:`Store` is a place with keys below one prefix; it does not know what the files mean. A :class:`Mirror` keeps
the local folder of a run copied to a store while the search goes on. Files removed locally stay in the store.
"""

from __future__ import annotations

import hashlib
import re
import threading
from pathlib import Path
from typing import Protocol

from tunelab.errors import StorageError, UsageError
from tunelab.files import check_key, check_prefix, files_below, write_file
from tunelab.s3 import S3Store, parse_s3

__all__ = ["FolderStore", "Mirror", "S3Store", "Store", "open_store", "parse_s3"]

_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*:/", re.IGNORECASE)


class Store(Protocol):
    """A place with files below one prefix. Keys are relative, parted by ``/``, and never leave the prefix."""

    @property
    def url(self) -> str:
        """The place, as a user would write it."""

    def put(self, key: str, data: bytes) -> None:
        """Store ``data`` under ``key``, whole or not at all.

        Raises:
            StorageError: it could not be stored; what was there before is still there.
        """

    def get(self, key: str) -> bytes:
        """What is stored under ``key``.

        Raises:
            StorageError: nothing is, or it could not be read.
        """

    def list(self, prefix: str = "") -> list[str]:
        """The keys that begin with ``prefix``, sorted.

        Raises:
            StorageError: the place could not be read. An empty or absent folder has no keys.
        """


class FolderStore:
    """A folder of this machine, or one that is mounted on it."""

    def __init__(self, root: Path) -> None:
        self._root = root

    @property
    def url(self) -> str:
        """The folder's path."""
        return str(self._root)

    def put(self, key: str, data: bytes) -> None:
        """See :meth:`Store.put`."""
        path = self._path(key)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(f"{path.parent}: cannot be made: {error.strerror}; choose another --storage") from error
        write_file(path, data)

    def get(self, key: str) -> bytes:
        """See :meth:`Store.get`."""
        path = self._path(key)
        try:
            return path.read_bytes()
        except OSError as error:
            raise StorageError(
                f"{path}: cannot be read: {error.strerror}; check the name and the permissions"
            ) from error

    def list(self, prefix: str = "") -> list[str]:
        """See :meth:`Store.list`."""
        check_prefix(prefix, self.url)
        return [key for key in files_below(self._root) if key.startswith(prefix)]

    def _path(self, key: str) -> Path:
        check_key(key, self.url)
        path = self._root / key
        if not path.resolve().is_relative_to(self._root.resolve()):
            raise StorageError(f"{path}: a link leads out of {self._root}; remove the link")
        return path


def open_store(url: str) -> Store:
    """The store that a URL names; nothing is read or written yet.

    Args:
        url: ``s3://bucket/prefix``, or the path of a folder.

    Raises:
        UsageError: the URL means neither.
    """
    if not url.strip():
        raise UsageError("storage: empty; write a folder or s3://bucket/prefix")
    if url.lower().startswith("s3:"):
        return S3Store(*parse_s3(url))
    if _SCHEME.match(url):
        raise UsageError(f"storage: {url.split(':')[0]}: is no known scheme; write a folder or s3://bucket/prefix")
    return FolderStore(Path(url).expanduser())


class Mirror:
    """Keeps a run's local folder copied to a store, in the background.

    A failure in the background is remembered in :attr:`warning` and tried again after the next period; the search
    never hears of it. Digests of what was sent are kept in memory only: a resumed run sends its files once again.

    Args:
        folder: the run's local folder; it may not exist yet.
        store: where it is copied to.
        every: seconds between two looks at the folder.
    """

    def __init__(self, folder: Path, store: Store, every: float = 60.0) -> None:
        self._folder = folder
        self._store = store
        self._every = every
        self._sent: dict[str, bytes] = {}
        self._turn = threading.Lock()
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None
        self.warning = ""
        """Why the newest look failed; empty after one that succeeded."""

    def start(self) -> None:
        """Begin to look at the folder, at once and then once a period."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="mirror", daemon=True)
            self._thread.start()

    def sync(self) -> int:
        """Send what has changed, now.

        The digest is that of the bytes sent, so that a file that changed while it was read differs at the next look.

        Returns:
            The number of files sent.

        Raises:
            StorageError: the first file that could not be sent; those before it are there.
        """
        with self._turn:
            try:
                sent = sum(self._send(key) for key in sorted(files_below(self._folder), key=_order))
            except StorageError as error:
                self.warning = str(error)
                raise
            self.warning = ""
            return sent

    def close(self) -> None:
        """Stop the background work and send the rest.

        Raises:
            StorageError: it could not be sent; says where everything is kept and how to send it later.
        """
        self._closing.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        try:
            self.sync()
        except StorageError as error:
            kept = f"all files are kept in {self._folder}"
            later = f"send them later: {_copy_command(self._folder, self._store.url)}"
            raise StorageError(f"{error}\n{kept}; {later}") from error

    def _work(self) -> None:
        while not self._closing.is_set():
            try:
                self.sync()
            except StorageError:
                pass  # remembered in `warning`, tried again after the next period
            except Exception as error:  # noqa: BLE001 - whatever it is, the search must not lose its mirror to it
                self.warning = f"{self._store.url}: {type(error).__name__}: {error}"
            self._closing.wait(self._every)

    def _send(self, key: str) -> bool:
        path = self._folder / key
        try:
            data = path.read_bytes()
        except FileNotFoundError:  # renamed or removed since it was listed
            return False
        except OSError as error:
            raise StorageError(f"{path}: cannot be read: {error.strerror}; check its permissions") from error
        digest = hashlib.sha256(data).digest()
        if self._sent.get(key) == digest:
            return False
        self._store.put(key, data)
        self._sent[key] = digest
        return True


def _order(key: str) -> tuple[int, str]:
    """What a run cannot be resumed or read without goes first, should the connection break."""
    return {"journal.jsonl": 0, "run.yaml": 1}.get(key, 2), key


def _copy_command(folder: Path, url: str) -> str:
    return f"aws s3 sync {folder} {url}" if url.startswith("s3://") else f"cp -r {folder}/. {url}"
