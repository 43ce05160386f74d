"""A trial's process as its parent holds it: started, asked, watched, replaced. Whatever happens in it has a name here.

The process may be killed, exit, hang, leak or print without end: the parent neither blocks for ever nor grows, and
:class:`Lost` says what it was. Trials are known only as tasks, Ray not at all.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from multiprocessing.connection import Connection
from socket import socketpair
from typing import Any

from tunelab.causes import innermost, signalled
from tunelab.errors import StorageError, TunelabError
from tunelab.output import Drain
from tunelab.storage import Store
from tunelab.task import Evaluation, Task
from tunelab.worker import STACKS_SIGNAL, STORE_VERBS

START_SECONDS = 600.0
"""Importing a framework takes 6 to 10 s on a quiet machine, minutes on one whose file system is remote."""
MAX_GROWTH = 300 * 10**6
"""Bytes by which a process may grow after its first trial. A Keras model leaves about 10 MB behind, and the framework
itself, some 500 MB, is there from the start."""
MAX_TRIALS = 100
"""Trials of one process: at 10 s for its start that is 0.1 s a trial, and whatever piles up unseen has an end."""

_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NPROC")
"""By which libraries learn how many threads to start: OpenMP, numpy's products, and XLA on a CPU."""
_POLL = 1.0
"""Seconds between two looks at a process that is silent; its end is noticed at once, as the connection closes."""
_STACK_SECONDS = 2.0


class Lost(Exception):  # noqa: N818 - it is no error of ours: a process can be lost
    """A process that is no more, with the cause in words, and what it had written."""

    def __init__(self, cause: str, output: str) -> None:
        super().__init__(cause)
        self.cause = cause
        self.output = output


class WorkerProcess:
    """A process that trains one trial after another. Make one with :meth:`start`; after :class:`Lost` it is closed."""

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        connection: Connection,
        *,
        lifeline: int,
        stacks: int,
        output: int,
        store: Store | None,
    ) -> None:
        self._process = process
        self._connection = connection
        self._lifeline = lifeline
        self._stacks = stacks
        self._store = store
        self._drain = Drain(os.fdopen(output, "rb", buffering=0))
        self._ready = False
        self._closed = False
        self._first = 0
        """Bytes after the first trial."""
        self.trials = 0
        """That were begun in it."""

    @classmethod
    def start(
        cls,
        trainer: str,
        *,
        store_url: str = "",
        fence: int = 0,
        store: Store | None = None,
        threads: int = 1,
        environment: Mapping[str, str] | None = None,
    ) -> WorkerProcess:
        """Start a process; it imports its trainer while the caller goes on.

        Args:
            trainer: a module, see :mod:`tunelab.task`.
            store_url: folder of the run, where every process of this machine can reach it; or empty.
            fence: of the lease on that folder under which the process works; see :class:`~tunelab.lease.FencedStore`.
            store: asked for by the process where there is no folder.
            threads: that a library may start there; trials beside each other then do not crowd each other out.
            environment: added to this process's own.
        """
        if bool(store_url) == (store is not None):
            raise ValueError("give either the folder of the run or a store that is asked for it")
        ours, its = socketpair()
        alive, lifeline = os.pipe()
        stacks, into = os.pipe()
        output, said = os.pipe()
        told = {"trainer": trainer, "store": store_url, "fence": fence}
        told |= {"connection": its.fileno(), "lifeline": alive, "stacks": into}
        try:
            process = subprocess.Popen(
                # -P: a file of the working directory shadows no module; what is found here is found there
                [sys.executable, "-P", "-m", "tunelab.worker", *(f"--{key}={value}" for key, value in told.items())],
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                pass_fds=(its.fileno(), alive, into),
                env=_environment({**dict.fromkeys(_THREADS, str(threads)), **(environment or {})}),
                start_new_session=True,  # a terminal's Ctrl-C is the parent's concern; and all it starts ends with it
            )
        except BaseException:
            ours.close()
            for descriptor in (lifeline, stacks, output):
                os.close(descriptor)
            raise
        finally:
            its.close()
            for descriptor in (alive, into, said):
                os.close(descriptor)
        connection = Connection(ours.detach())
        return cls(process, connection, lifeline=lifeline, stacks=stacks, output=output, store=store)

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    def begin(self, task: Task) -> None:
        """Take the next trial; the one before is dropped. Its model is built in the first step.

        Raises:
            Lost: the process ended, or its trainer could not be imported.
        """
        if self.trials == 1:
            self._first = self.memory()
        self.trials += 1
        self._send("begin", task)

    def step(self, timeout: float) -> dict[str, Any]:
        """The result of the trial's next epoch, see :meth:`tunelab.trial.Underway.step`.

        Args:
            timeout: seconds, without those in which the process waits for the store.

        Raises:
            Lost: the process ended, or has not answered in time and was killed.
        """
        self._send("step")
        return self._answer(timeout)

    def evaluate(self, evaluation: Evaluation, timeout: float) -> dict[str, Any]:
        """What stored weights are worth; the trial under way is dropped.

        Raises:
            Lost: as :meth:`step`.
            TunelabError: they could not be evaluated.
        """
        self._send("evaluate", evaluation)
        return self._answer(timeout)

    def memory(self) -> int:
        """Bytes in memory, 0 when the process is gone."""
        try:
            with open(f"/proc/{self.pid}/statm", "rb") as file:
                return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        except (OSError, IndexError):
            return 0

    def worn(self) -> bool:
        """Whether it should be replaced before its next trial: grown by :data:`MAX_GROWTH`, or :data:`MAX_TRIALS`."""
        return self.trials >= MAX_TRIALS or (self.trials > 1 and self.memory() - self._first > MAX_GROWTH)

    def output(self) -> str:
        """What the process and those that it started have written so far: the beginning and the end of it."""
        return self._drain.text()

    def close(self) -> None:
        """End the process and all that it started. It holds nothing that is not in the store."""
        if self._closed:
            return
        self._closed = True
        self._connection.close()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()
        for descriptor in (self._lifeline, self._stacks):
            os.close(descriptor)
        self._drain.close()

    def _send(self, *request: object) -> None:
        if self._closed:
            raise Lost("it was closed", self.output())
        if not self._ready:
            self._receive(START_SECONDS, f"not ready after {START_SECONDS:,.0f} s")
            self._ready = True
        self._talk(lambda: self._connection.send(request))

    def _answer(self, timeout: float) -> dict[str, Any]:
        kind, *content = self._receive(timeout, f"no answer for {timeout:,.0f} s (--step-timeout)")
        if kind == "error":
            raise content[0]
        return dict(content[0])

    def _receive(self, timeout: float, silent: str) -> tuple[Any, ...]:
        """The next message that is no request for the store; those are answered."""
        deadline = time.monotonic() + timeout
        try:
            while True:
                if not self._arrived(max(0.0, min(_POLL, deadline - time.monotonic()))):
                    if time.monotonic() >= deadline:
                        raise self._hung(silent)
                    continue
                message = self._talk(self._connection.recv)
                if message[0] not in STORE_VERBS:
                    return tuple(message)
                begun = time.monotonic()
                answer = self._ask_store(*message)
                self._talk(partial(self._connection.send, answer))
                deadline += time.monotonic() - begun
        except BaseException:  # its answer would be taken for the next one's
            self.close()
            raise

    def _arrived(self, wait: float) -> bool:
        if self._talk(lambda: self._connection.poll(wait)):
            return True
        # something that it started may hold the connection open
        if self._process.poll() is not None and not self._talk(lambda: self._connection.poll(0)):
            raise self._lost()
        return False

    def _talk(self, how: Callable[[], Any]) -> Any:
        try:
            return how()
        except (EOFError, OSError):
            raise self._lost() from None

    def _ask_store(self, verb: str, *arguments: Any) -> tuple[str, object]:
        if self._store is None:
            return "error", StorageError(f"{verb}: the process has a folder of its own, and no store is asked")
        try:
            return "done", getattr(self._store, verb)(*arguments)
        except TunelabError as error:
            return "error", error

    def _lost(self) -> Lost:
        """Why the process is no more."""
        try:
            code = self._process.wait(timeout=_STACK_SECONDS)
        except subprocess.TimeoutExpired:  # it closed the connection and lives on
            cause = "closed its connection"
        else:
            cause = signalled(-code) if code < 0 else f"exit code {code}"
        self.close()
        output = self.output()
        if cause.startswith("exit code") and (lines := output.split("\n")):
            last = next((line.strip() for line in reversed(lines) if line.strip()), "")
            cause += f" ({last[:300]})" if last else ""
        return Lost(cause, output)

    def _hung(self, silent: str) -> Lost:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, STACKS_SIGNAL)
        stacks = b""
        # all of it comes at once; what comes later than a moment after the first of it is not worth waiting for
        wait = _STACK_SECONDS
        while select.select([self._stacks], [], [], wait)[0] and (more := os.read(self._stacks, 65536)):
            stacks += more
            wait = 0.2
        self.close()
        frames = innermost(stacks.decode(errors="replace"))
        where = f"; hung in: {' < '.join(frames)}" if frames else ""
        return Lost(silent + where, self.output())


def _environment(more: Mapping[str, str]) -> dict[str, str]:
    """This process's own, and more: what can be imported here can be imported there."""
    found = {**os.environ, "PYTHONUNBUFFERED": "1", **more}
    path = [more.get("PYTHONPATH", ""), *(entry or os.getcwd() for entry in sys.path)]
    found["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(entry for entry in path if entry))
    return found
