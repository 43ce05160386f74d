"""A run in optuna-dashboard: the trials that are over, in a browser, from the run's folder or its place in a bucket.

Shown is a study in memory, made from the journal, as everything is, and brought up to date while that grows. Nothing
is written to the run, and the browser cannot change what it is shown.
"""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from socketserver import ThreadingMixIn
from typing import TYPE_CHECKING, Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import optuna
import yaml

from tunelab import journal
from tunelab.archive import JOURNAL
from tunelab.errors import SpaceError, StateError, TunelabError, UsageError
from tunelab.following import HOST, SECONDS, SECONDS_OF_A_BUCKET, cannot_listen, ended_by_signals, following
from tunelab.journal import Record
from tunelab.overview import journal_of
from tunelab.space import Space, load_space
from tunelab.storage import FolderStore, Store
from tunelab.tuning.optuna_log import Endings, frozen, new_study
from tunelab.yamlfile import load_written

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

PORT = 8080
_DIGEST = 64  # bytes at the end of a journal's line, more than its digest takes


class Followed:
    """A run whose trials are added to a study as they end.

    Args:
        store: the run's folder, or its place in a bucket.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._known = 0  # records
        self._size = 0  # bytes of them
        self._newest = b""  # of those bytes the last ones, the last record's digest among them
        self._endings = Endings()
        self._document: object = None
        self.space: Space | None = None
        """What is searched; None where the run does not say so in words of this version."""
        self.storage = optuna.storages.InMemoryStorage()
        """Of Optuna; holds the one study once there was a look."""
        self.study: optuna.Study | None = None
        self.over = 0
        """How many trials are over."""

    def look(self) -> int:
        """Read what the journal has more than at the last look, and add what is over.

        Returns:
            How many trials were added.

        Raises:
            StateError: there is no run, its journal is damaged, or it is not the one that it was.
            StorageError: the place cannot be read.
        """
        raw = journal_of(self._store)
        if not raw[: self._size].endswith(self._newest):
            raise StateError(f"{self._store.url}: is not the run that it was; start the dashboard again")
        records, size = journal.parse(raw[self._size :], f"{self._store.url}/{JOURNAL}", known=self._known)
        if self.study is None:
            name = records[0].get("name") if records else None
            self.study = new_study(self.storage, str(name or Path(self._store.url).name)[:100])
        self._known += len(records)
        self._size += size
        self._newest = raw[max(self._size - _DIGEST, 0) : self._size]
        if records:
            self._look_at_space(records)
        before = self.over
        for one in filter(None, map(self._endings.told, records)):
            self.study.add_trial(frozen(self.space, one))
            self.over += 1
        return self.over - before

    def _look_at_space(self, records: Iterable[Record]) -> None:
        """The space as it was changed last; runs of 0.1.0 have it in their ``run.yaml`` alone."""
        told = [record.get("identity") for record in records if record["kind"] in ("run", "change")]
        document = told[-1].get("space") if told and isinstance(told[-1], Mapping) else None
        if document is None and self._document is None:
            document = _written_space(self._store)
        if document is not None and document != self._document:
            self._document, self.space = document, _space(document)


def dashboard(store: Store, *, host: str = HOST, port: int = PORT, say: Callable[[str], None]) -> None:
    """Show a run until Ctrl-C.

    Args:
        store: the run's folder, or its place in a bucket.
        host: where to listen; anything but the loopback lets others look.
        port: likewise; 0: any that is free.
        say: told the address, and what a user should know.

    Raises:
        UsageError: optuna-dashboard is not installed, or the address cannot be listened at.
        StateError: there is no run, or its journal is damaged.
        StorageError: the place cannot be read.
    """
    try:
        from optuna_dashboard import wsgi
    except ImportError:
        what = "the dashboard needs optuna-dashboard, which is not installed"
        raise UsageError(f"{what}; pip install 'tunelab[dashboard]'") from None
    followed = Followed(store)
    followed.look()
    every = SECONDS if isinstance(store, FolderStore) else SECONDS_OF_A_BUCKET
    with (
        ended_by_signals(),
        contextlib.suppress(KeyboardInterrupt),
        _listening(host, port, _read_only(wsgi(followed.storage))) as server,
    ):
        for line in _said(store.url, followed, server):
            say(line)
        with following(followed.look, every, say):
            server.serve_forever()


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Server6(_Server):
    address_family = socket.AF_INET6


class _Handler(WSGIRequestHandler):
    """Does not write a line for each request."""

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing."""


def _listening(host: str, port: int, app: WSGIApplication) -> WSGIServer:
    try:
        kind = _Server6 if ":" in host else _Server
        return make_server(host, port, app, server_class=kind, handler_class=_Handler)
    except (OSError, OverflowError, UnicodeError) as error:
        raise cannot_listen(host, port, error) from error


def _said(run: str, followed: Followed, server: WSGIServer) -> list[str]:
    host, port = str(server.server_address[0]), server.server_port
    shown = f"[{host}]" if ":" in host else host
    study = 0 if followed.study is None else followed.storage.get_study_id_from_name(followed.study.study_name)
    lines = [
        f"Dashboard of {run}: http://{shown}:{port}/dashboard/studies/{study}",
        f"{followed.over} trials are over; more are shown as they end. Ctrl-C ends the dashboard.",
    ]
    if followed.space is None:
        lines.append("Note: the run does not say which space was searched; params are shown as user attributes.")
    if not ipaddress.ip_address(host).is_loopback:
        lines.append("Note: whoever reaches this address sees the run; nobody is asked who they are.")
    return lines


def _read_only(app: WSGIApplication) -> WSGIApplication:
    """Without what changes a study: the run would not know of it."""

    def answer(environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        if environ["REQUEST_METHOD"] in ("GET", "HEAD"):
            return app(environ, start)
        start("405 Method Not Allowed", [("Allow", "GET, HEAD"), ("Content-Type", "application/json")])
        return [b'{"reason": "tunelab dashboard only shows; nothing is changed"}']

    return answer


def _written_space(store: Store) -> object:
    """What ``run.yaml`` says of the space, or None."""
    try:
        told = load_written(store.get("run.yaml"))
    except (TunelabError, yaml.YAMLError, ValueError, RecursionError):
        return None
    return told.get("space") if isinstance(told, Mapping) else None


def _space(document: object) -> Space | None:
    """A space from its document, its families not asked: nothing that a journal names is imported for a look."""
    if not isinstance(document, Mapping):
        return None
    with tempfile.TemporaryDirectory(prefix="tunelab-dashboard-") as folder:
        path = Path(folder) / "space.yaml"
        try:
            path.write_text(yaml.safe_dump(dict(document), sort_keys=False), encoding="utf-8")
            return load_space(path)
        except (SpaceError, yaml.YAMLError, RecursionError):
            return None
