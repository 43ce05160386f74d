"""A run in TensorBoard while it goes on, from the run's folder, its place in a bucket, or on a cluster.

TensorBoard is a process of its own, which ends with this one. It reads the ``tensorboard/`` folder of a local run; of a
run in a bucket a copy in a temporary folder, which is kept up to date and removed in the end; of one on a cluster it
runs on the head. Nothing is written to the run. It listens on the loopback only: it asks nobody who they are.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from tunelab.archive import AT_ONCE, MOST_OF_A_FILE
from tunelab.errors import StorageError, TunelabError, UsageError
from tunelab.files import files_below, size_text
from tunelab.following import HOST, check_free, check_loopback, ended_by_signals, following
from tunelab.overview import check_run
from tunelab.storage import FolderStore, S3Store

if TYPE_CHECKING:
    from tunelab.cluster.where import Cluster

PORT = 6006
SECONDS = 10.0
"""Between two looks at a bucket; a search sends its files there once a minute if it is not told otherwise."""
BELOW = "tensorboard/"
"""Where a run has its event files."""
_EVENTS = "tfevents"  # in the name of every file that TensorBoard reads
_ADDRESS = re.compile(r"\bat (https?://\S+)")
_ENDING = 10.0  # seconds that TensorBoard may take to end
_DIES_WITH_PARENT = 1  # PR_SET_PDEATHSIG of Linux


class EventFiles:
    """A copy of the event files of a run in a bucket.

    An object that grew is added to in place: TensorBoard goes on reading a file where it stopped, and would not look
    at another one of the same name. What is removed from the bucket stays in the copy.

    Args:
        store: the run's place.
        folder: of the copy, which is there; once it is gone nothing is written any more.
        over: once it is set, what is not yet copied is left.
    """

    def __init__(self, store: S3Store, folder: Path, over: threading.Event | None = None) -> None:
        self._store = store
        self._folder = folder
        self._over = over or threading.Event()
        self._known: dict[str, tuple[int, str]] = {}

    def look(self) -> int:
        """Copy what is new or has grown since the last look.

        Returns:
            How many files that were.

        Raises:
            StorageError: the bucket cannot be read, or the copy not be written; other files were copied.
        """
        there = self._store.marks(BELOW)
        new = [key for key, mark in there.items() if _EVENTS in key and self._known.get(key) != mark]
        with ThreadPoolExecutor(AT_ONCE, "event-files") as pool:
            faults = [fault for fault in pool.map(lambda key: self._copy(key, there[key]), new) if fault]
        if faults:
            raise faults[0]
        return len(new)

    def _copy(self, key: str, mark: tuple[int, str]) -> StorageError | None:
        if self._over.is_set():
            return None
        if mark[0] > MOST_OF_A_FILE:
            said = f"has {size_text(mark[0])}, more than {size_text(MOST_OF_A_FILE)}; it is not shown"
            return StorageError(f"{self._store.url}/{key}: {said}")
        try:
            data = self._store.read(key, MOST_OF_A_FILE)
            if data is not None and self._folder.is_dir() and not self._over.is_set():
                _bring_up_to(self._folder / key, data)
        except StorageError as error:
            return error
        except OSError as error:
            said = f"cannot be written: {error.strerror}; free space, or set TMPDIR"
            return StorageError(f"{self._folder / key}: {said}")
        self._known[key] = mark
        return None


def tensorboard(
    store: FolderStore | S3Store, *, host: str = HOST, port: int = PORT, say: Callable[[str], None]
) -> None:
    """Show a run until Ctrl-C.

    Args:
        store: the run's folder, or its place in a bucket.
        host: where to listen, on the loopback.
        port: likewise; 0: any that is free.
        say: told the address, and what a user should know.

    Raises:
        UsageError: TensorBoard is not installed, or the address is not the loopback or cannot be listened at.
        StateError: there is no run.
        StorageError: the place cannot be read.
        TunelabError: TensorBoard ended by itself.
    """
    check_loopback(host, "TensorBoard")
    if importlib.util.find_spec("tensorboard") is None:
        raise UsageError("TensorBoard is not installed; pip install tensorboard")
    check_free(host, port)
    check_run(store)
    with ended_by_signals(), contextlib.suppress(KeyboardInterrupt), _event_files(store, say) as folder:
        count = sum(_EVENTS in key for key in files_below(folder, BELOW))
        with _serving(folder / BELOW.rstrip("/"), host, port) as server:
            say(f"TensorBoard of {store.url}: {server.address()}")
            known = f"{count} event files; more are read" if count else "No event files yet; they are read"
            say(f"{known} as they are written. Ctrl-C ends TensorBoard.")
            server.wait()


def tensorboard_there(
    cluster: Cluster, run: str, *, host: str = HOST, port: int = PORT, say: Callable[[str], None]
) -> None:
    """Show a run on a cluster until Ctrl-C.

    Args:
        cluster: whose head has it.
        run: its name.
        host: where to listen here; 127.0.0.1, by this or another name.
        port: likewise; 0: any that is free.
        say: told the address, and what a user should know.

    Raises:
        UsageError: the address cannot be listened at.
        ClusterError: the head cannot be reached, or has no such run.
        TunelabError: TensorBoard ended by itself.
    """
    from tunelab.cluster.curves import curves

    check_loopback(host, "TensorBoard")
    if host not in (HOST, "localhost"):
        raise UsageError(f"--host {host}: a tunnel to a cluster listens on {HOST}; leave out --host")
    check_free(HOST, port)
    with ended_by_signals(), contextlib.suppress(KeyboardInterrupt):
        curves(cluster, run, port=port, say=say)


@contextmanager
def _event_files(store: FolderStore | S3Store, say: Callable[[str], None]) -> Iterator[Path]:
    """The folder of a run, or one like it with its event files alone."""
    if isinstance(store, FolderStore):
        yield Path(store.url)
        return
    over = threading.Event()
    with tempfile.TemporaryDirectory(prefix="tunelab-tensorboard-", ignore_cleanup_errors=True) as made:
        copied = EventFiles(store, Path(made), over)
        copied.look()
        with following(copied.look, SECONDS, say, stop=over):
            yield Path(made)


class _Server:
    """TensorBoard, and what it said last."""

    def __init__(self, process: subprocess.Popen[str], asked: str) -> None:
        self._process = process
        self._asked = asked
        self._address = ""
        self._known = threading.Event()
        self._lines: deque[str] = deque(maxlen=20)
        self._reader = threading.Thread(target=self._read, name="tensorboard", daemon=True)
        self._reader.start()

    def address(self) -> str:
        """Its page, once it listens."""
        self._known.wait()
        if not self._address:
            raise UsageError(f"{self._asked}: TensorBoard did not start: {self._said()}; give another --port")
        return self._address

    def wait(self) -> None:
        """Until it ends, which it does by itself only when something is wrong."""
        code = self._process.wait()
        raise TunelabError(f"TensorBoard ended by itself (exit code {code}): {self._said()}; start it again")

    def end(self) -> None:
        """End it and all that it started."""
        try:
            self._process.terminate()
            self._process.wait(timeout=_ENDING)
        except subprocess.TimeoutExpired:
            pass
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._reader.join()
            if self._process.stdout is not None:
                self._process.stdout.close()

    def _read(self) -> None:
        for line in self._process.stdout or ():
            self._lines.append(line.strip())
            if found := _ADDRESS.search(line):
                self._address = self._address or found[1]
                self._known.set()
        self._known.set()

    def _said(self) -> str:
        return next((line for line in reversed(self._lines) if line), "it said nothing")


@contextmanager
def _serving(logs: Path, host: str, port: int) -> Iterator[_Server]:
    words = ["--logdir", str(logs), "--host", host, "--port", str(port)]
    process = subprocess.Popen(
        [sys.executable, "-m", "tensorboard.main", *words],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,  # a terminal's Ctrl-C is the parent's concern; and all it starts ends with it
        preexec_fn=_dies_with_parent,
    )
    server = _Server(process, f"--host {host} --port {port}")
    try:
        yield server
    finally:
        server.end()


def _bring_up_to(path: Path, data: bytes) -> None:
    """Let a file hold ``data``; what it holds of it already is not touched."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab+") as file:
        file.seek(0)
        known = file.read()
        if not data.startswith(known):  # another file of the same name
            file.truncate(0)
            known = b""
        file.write(data[len(known) :])


_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


def _dies_with_parent() -> None:
    """Also of one that was killed, and could do nothing about it."""
    if _LIBC is not None:
        _LIBC.prctl(_DIES_WITH_PARENT, signal.SIGTERM)
