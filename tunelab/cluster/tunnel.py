"""A tunnel to the head's dashboard, where Ray's jobs are: ``ssh -N -L``, opened anew when it breaks.

The dashboard listens on the head's loopback only. Host keys are kept in a file of tunelab's own, under the instance
and not its address, which the next machine may have: a key is taken when a machine is met first, and has to stay.
"""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from tunelab.cluster.where import Cluster, Head, running
from tunelab.errors import ClusterError

DASHBOARD_PORT = 8265
OPEN_SECONDS = 30.0
_POLL_SECONDS = 0.05
KNOWN_HOSTS = Path("~/.ssh/tunelab_known_hosts")


class Tunnel:
    """A local port that leads to a port on the loopback of a cluster's head.

    Args:
        cluster: whose head.
        port: there.
    """

    def __init__(self, cluster: Cluster, port: int = DASHBOARD_PORT) -> None:
        self._cluster = cluster
        self._remote = port
        self._ssh: subprocess.Popen[bytes] | None = None
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the tunnel
        self.port = 0
        """On this machine's loopback; the same one when it is opened again, if it is still free."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.close()
        self._said.close()

    def open(self) -> str:
        """Open it, or open it anew to wherever the head is now.

        Returns:
            The address of this end.

        Raises:
            NoHeadError: there is none any more.
            ClusterError: says what ssh said.
        """
        check_ssh()
        if self._ssh is not None:  # it broke
            self._end()
            self._cluster = running(self._cluster.file)
        head = self._cluster.head
        self.port = self.port if self.port and _free(self.port) else free_port()
        self._said.seek(0)
        self._said.truncate()
        self._ssh = subprocess.Popen(
            ssh_command(head, "-N", "-L", f"127.0.0.1:{self.port}:127.0.0.1:{self._remote}"),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=self._said,
            start_new_session=True,  # Ctrl-C is for the command, which closes it
        )
        until = time.monotonic() + OPEN_SECONDS
        while time.monotonic() < until and self._ssh.poll() is None:
            if not _free(self.port):
                return f"http://127.0.0.1:{self.port}"
            time.sleep(_POLL_SECONDS)
        self._end()
        self._said.seek(0)
        said = self._said.read().decode(errors="replace").strip().splitlines()
        why = said[-1] if said else f"no connection within {OPEN_SECONDS:.0f} s"
        where = f"{head.user}@{head.host}"
        raise ClusterError(f"no tunnel to {where}: {why}; check auth.ssh_private_key, and that port 22 admits you")

    def close(self) -> None:
        """End it."""
        self._end()
        self._ssh = None

    def _end(self) -> None:
        if self._ssh is not None and self._ssh.poll() is None:
            self._ssh.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._ssh.wait(2)
            if self._ssh.poll() is None:
                self._ssh.kill()
                self._ssh.wait()


def check_ssh() -> None:
    """Refuse to go on without ssh.

    Raises:
        ClusterError: it is not installed.
    """
    if shutil.which("ssh") is None:
        raise ClusterError("ssh: not found; install an OpenSSH client")


def ssh_command(head: Head, *options: str, command: Sequence[str] = ()) -> list[str]:
    """How ssh is called for a head.

    Args:
        head: where to.
        options: of ssh, besides those that say whom to trust.
        command: to run there.
    """
    KNOWN_HOSTS.expanduser().parent.mkdir(mode=0o700, exist_ok=True)
    settings = {
        "BatchMode": "yes",
        "ConnectTimeout": "10",
        "ExitOnForwardFailure": "yes",
        "ServerAliveInterval": "5",
        "ServerAliveCountMax": "3",
        "StrictHostKeyChecking": "accept-new",
        "HostKeyAlias": head.identity,
        "UserKnownHostsFile": str(KNOWN_HOSTS.expanduser()),
        "IdentitiesOnly": "yes" if head.key else "no",
        "LogLevel": "ERROR",
    }
    said = [word for name, value in settings.items() for word in ("-o", f"{name}={value}")]
    key = ["-i", head.key] if head.key else []
    return ["ssh", *said, *key, *options, f"{head.user}@{head.host}", *command]


def _free(port: int) -> bool:
    with socket.socket() as asked:
        asked.settimeout(1)
        return asked.connect_ex(("127.0.0.1", port)) != 0


def free_port() -> int:
    """A port of the loopback that nobody listens at now."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        return int(bound.getsockname()[1])
