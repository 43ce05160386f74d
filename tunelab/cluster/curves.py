"""TensorBoard of a search on a cluster: it runs on the head, beside the run's own files, and is reached through ssh.

It listens on the loopback at both ends. One ssh carries the port and a sign of life, so whatever ends this process ends
TensorBoard there, and a line that breaks is opened anew. No bucket is asked, and nothing but ssh is needed here.
"""

from __future__ import annotations

import contextlib
import re
import secrets
import shlex
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tunelab.cluster import tensorboard_there as there
from tunelab.cluster.jobs import AGAIN_SECONDS
from tunelab.cluster.tunnel import check_ssh, free_port, ssh_command
from tunelab.cluster.where import Cluster, Head, NoHeadError, running
from tunelab.errors import ClusterError, TunelabError

HOST = "127.0.0.1"
SIGN_SECONDS = 5.0
"""Between two signs of life."""
_PORTS = range(20_000, 30_000)
"""Of the head: above those of Ray's workers, below those that a system gives away by itself."""
_TRIES = 5
_ADDRESS = re.compile(r"\bat https?://\S+")
_TAKEN = "in use"
_ENDING = 5.0  # seconds that ssh may take to end


class BrokenError(ClusterError):
    """The line to the head broke, or could not be opened."""


def curves(cluster: Cluster, run: str, *, port: int, say: Callable[[str], None]) -> None:
    """Show a run on a cluster in TensorBoard until the caller is interrupted.

    Args:
        cluster: whose head has it.
        run: its name.
        port: to listen at here; 0: any that is free.
        say: told the address, and what a user should know.

    Raises:
        NoHeadError: there is no head any more.
        ClusterError: the head cannot be reached at first, or has no such run.
        TunelabError: TensorBoard ended by itself.
    """
    check_ssh()
    port = port or free_port()
    opened, failed = False, 0
    while True:
        try:
            with _serving(cluster.head, run, port) as served:
                if opened:
                    say(f"TensorBoard is back: http://{HOST}:{port}/")
                else:
                    say(f"TensorBoard of {run} on {cluster.file.name}, {cluster.head.host}: http://{HOST}:{port}/")
                    say("It reads event files there as they are written. Ctrl-C ends TensorBoard.")
                opened, failed = True, 0
                why = served.wait()
            say(f"The line to the cluster broke ({why}); opening it again. The search goes on there.")
        except BrokenError:
            if not opened:
                raise
            failed += 1
        time.sleep(AGAIN_SECONDS[min(failed, len(AGAIN_SECONDS) - 1)])
        try:
            cluster = running(cluster.file)
        except NoHeadError:
            raise
        except ClusterError:  # AWS cannot be asked without a line either; then the head is where it was
            continue


class _Served:
    """TensorBoard on the head, through an ssh of its own."""

    def __init__(self, head: Head, run: str, here: int, port: int) -> None:
        self._where = f"{head.user}@{head.host}"
        self._run = run
        self._lines: deque[str] = deque(maxlen=20)
        program = Path(there.__file__).read_text(encoding="utf-8")
        line = f'export PATH="$HOME/venv/bin:$PATH"; exec {shlex.join(["python", "-c", program, run, str(port)])}'
        self._ssh = subprocess.Popen(
            ssh_command(head, "-L", f"{HOST}:{here}:{HOST}:{port}", command=[line]),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,  # Ctrl-C is for the command, which ends it
        )
        self._listens = threading.Event()
        self._known = threading.Event()
        self._reader = threading.Thread(target=self._read, name="tensorboard", daemon=True)
        self._reader.start()

    def listen(self) -> bool:
        """Wait until it listens; False: something else on the head has its port.

        Raises:
            ClusterError: it does not; says why.
        """
        while not self._known.wait(SIGN_SECONDS):
            self._sign()
        if self._listens.is_set():
            return True
        code = self._ssh.wait()
        if code == there.OVER and any(_TAKEN in line for line in self._lines):
            return False
        raise self._fault(code)

    def wait(self) -> str:
        """Until the line breaks; gives what ssh said.

        Raises:
            TunelabError: TensorBoard ended by itself.
        """
        while True:
            try:
                code = self._ssh.wait(SIGN_SECONDS)
            except subprocess.TimeoutExpired:
                self._sign()
                continue
            self._reader.join(_ENDING)  # what ssh started may outlive it, and hold its output open
            fault = self._fault(code)
            if isinstance(fault, BrokenError):
                return self._said()
            raise fault

    def end(self) -> None:
        """End it here, and so there."""
        with contextlib.suppress(OSError):
            self._ssh.stdin.close()  # type: ignore[union-attr]
        try:
            self._ssh.wait(_ENDING)
        except subprocess.TimeoutExpired:
            self._ssh.kill()
            self._ssh.wait()
        self._reader.join()
        self._ssh.stdout.close()  # type: ignore[union-attr]

    def _sign(self) -> None:
        with contextlib.suppress(OSError):
            self._ssh.stdin.write("\n")  # type: ignore[union-attr]
            self._ssh.stdin.flush()  # type: ignore[union-attr]

    def _read(self) -> None:
        for line in self._ssh.stdout or ():
            self._lines.append(line.strip())
            if _ADDRESS.search(line):
                self._listens.set()
                self._known.set()
        self._known.set()

    def _fault(self, code: int) -> TunelabError:
        if code == there.NO_RUN:
            known = self._said() if any(self._lines) else "none"
            return ClusterError(
                f"{self._run}: no run of this name on the head; there are: {known}; one of an earlier cluster is in "
                "its bucket: tunelab tensorboard s3://BUCKET/runs/NAME"
            )
        if code == there.OVER:
            return TunelabError(f"TensorBoard on the head ended by itself: {self._said()}; start it again")
        remedy = "check auth.ssh_private_key, and that port 22 admits you"
        return BrokenError(f"no TensorBoard through {self._where}: {self._said()}; {remedy}")

    def _said(self) -> str:
        return next((line for line in reversed(self._lines) if line), "nothing was said")


@contextmanager
def _serving(head: Head, run: str, here: int) -> Iterator[_Served]:
    """TensorBoard on the head, on a port of its own there, which listens.

    Raises:
        ClusterError: says why it does not.
    """
    for _ in range(_TRIES):
        served = _Served(head, run, here, _PORTS[secrets.randbelow(len(_PORTS))])
        try:
            if served.listen():
                yield served
                return
        finally:
            served.end()
    raise ClusterError(f"TensorBoard found no free port on the head in {_TRIES} tries; try again")
