"""The main module of a trial's process: trains what its parent asks for, one trial after another.

Started by :class:`tunelab.process.WorkerProcess` only, with three inherited descriptors: a connection, a lifeline that
the parent holds open while it lives, and a pipe for stacks. Requests are answered one by one; while one is worked on,
the parent may be asked for what its store holds. Nothing is kept here: what counts is in the store.
"""

from __future__ import annotations

import argparse
import faulthandler
import fcntl
import gc
import importlib
import os
import signal
import threading
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from tunelab.causes import cause_of
from tunelab.errors import TunelabError
from tunelab.lease import FencedStore
from tunelab.reclaim import Notice, endpoint
from tunelab.storage import Store
from tunelab.task import Evaluation
from tunelab.trial import Underway

STACKS_SIGNAL = signal.SIGUSR1
"""Upon it the process writes its stacks into the pipe for stacks, whatever it is doing."""
STORE_VERBS = ("put", "get", "list", "delete")


class ParentStore:
    """The parent's store, asked over the connection while the parent waits for an answer."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.url = "the run's storage"

    def put(self, key: str, data: bytes) -> None:
        """See :meth:`Store.put`."""
        self._ask("put", key, data)

    def get(self, key: str) -> bytes:
        """See :meth:`Store.get`."""
        return bytes(self._ask("get", key))

    def list(self, prefix: str = "") -> list[str]:
        """See :meth:`Store.list`."""
        return [str(key) for key in self._ask("list", prefix)]

    def delete(self, key: str) -> None:
        """See :meth:`Store.delete`."""
        self._ask("delete", key)

    def _ask(self, *request: object) -> Any:
        self._connection.send(request)
        kind, answer = self._connection.recv()
        if kind == "error":
            raise answer
        return answer


def main() -> None:
    """Answer requests until the parent closes the connection.

    ``("begin", task)`` has no answer; ``("step",)`` and ``("evaluate", evaluation)`` have ``("answer", dict)`` or
    ``("error", exception)``. The first message of all, ``("ready",)``, says that the trainer has been imported.
    """
    parser = argparse.ArgumentParser()
    parser.add_argument("--trainer", required=True)
    parser.add_argument("--store", required=True)
    for name in ("fence", "connection", "lifeline", "stacks"):
        parser.add_argument(f"--{name}", type=int, required=True)
    options = parser.parse_args()
    for descriptor in (options.connection, options.lifeline, options.stacks):
        os.set_inheritable(descriptor, False)
    faulthandler.enable()
    faulthandler.register(STACKS_SIGNAL, options.stacks)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {STACKS_SIGNAL})  # whatever the thread of the parent had blocked
    _end_with(options.lifeline)
    connection = Connection(options.connection)
    trainer = importlib.import_module(options.trainer)
    gc.collect()
    gc.freeze()  # the framework's own objects: each later collection looks at what trials made alone
    connection.send(("ready",))
    store = FencedStore(Path(options.store), options.fence) if options.store else ParentStore(connection)
    notice = Notice(endpoint())
    notice.watch()
    try:
        _serve(connection, store, trainer, notice)
    except (EOFError, ConnectionError):  # closed by the parent
        pass


def _serve(connection: Connection, store: Store, trainer: Any, notice: Notice) -> None:
    underway: Underway | None = None
    while True:
        kind, *content = connection.recv()
        if kind == "step" and underway is not None:
            connection.send(("answer", underway.step()))
            continue
        underway = None  # before the next one takes memory
        gc.collect()
        if kind == "begin":
            underway = Underway(content[0], store, trainer.begin, lambda: notice.said)
        elif kind == "evaluate":
            connection.send(_evaluated(trainer, content[0]))
        else:
            raise ValueError(f"{kind}: no request that can be answered now")


def _evaluated(trainer: Any, evaluation: Evaluation) -> tuple[str, object]:
    try:
        return "answer", trainer.evaluate(evaluation)
    except TunelabError as error:
        return "error", error
    except Exception as error:  # noqa: BLE001 - the parent decides what it means
        return "error", TunelabError(f"evaluating stored weights: {cause_of(error)}")


def _end_with(lifeline: int) -> None:
    """End this process and those that it started when the other end of the pipe is closed, however the parent died.

    The kernel kills at once, also while native code keeps every thread from running; where it cannot, a thread does.
    """
    if hasattr(fcntl, "F_SETSIG"):
        fcntl.fcntl(lifeline, fcntl.F_SETOWN, -os.getpgrp())
        fcntl.fcntl(lifeline, fcntl.F_SETSIG, signal.SIGKILL)
        fcntl.fcntl(lifeline, fcntl.F_SETFL, fcntl.fcntl(lifeline, fcntl.F_GETFL) | os.O_ASYNC)
    threading.Thread(target=_watch, args=(lifeline,), name="lifeline", daemon=True).start()


def _watch(lifeline: int) -> None:
    os.read(lifeline, 1)  # nothing is ever written
    os.killpg(os.getpgrp(), signal.SIGKILL)


if __name__ == "__main__":
    main()
