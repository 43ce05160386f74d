"""Hosts on a switch of their own, and their end, whatever happens.

Nothing here has a name outside of the lab, so several labs do not meet: the switch is a network namespace that lives as
long as one process does, and so is every host. All of these processes end with the one that made the lab, even when
that is killed; then a folder below :data:`FOLDER` is all that is left.
"""

from __future__ import annotations

import itertools
import json
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from hosts import inside
from hosts.able import FOLDER
from hosts.host import TIED, UP_SECONDS, Host, children, until
from hosts.packages import unpacked

BITS = 16
"""Of all addresses, the network's; those of moto's machines are in 172.31.0.0/16."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """What all machines of a lab are born with."""

    files: Mapping[str, str] = field(default_factory=dict)
    """Path below each home -> content."""
    shell: Sequence[str] = ()
    """Lines for each ``.bashrc``."""


class Lab:
    """Hosts on a switch; a context manager, at whose end nothing of them is left.

    Args:
        image: of its hosts.
    """

    def __init__(self, image: Image | None = None) -> None:
        self.image = image or Image()
        """Of the hosts that are started from now on."""
        self._lock = threading.Lock()
        self._cables = itertools.count()
        self.hosts: dict[str, Host] = {}
        """By name, those that were unplugged too."""

    def __enter__(self) -> Self:
        self.folder = Path(tempfile.mkdtemp(prefix="tunelab-hosts-", dir=FOLDER))
        self.folder.chmod(0o755)
        try:
            self._packages = unpacked(self.folder / "packages")
            self._switch = subprocess.Popen([*TIED, "unshare", "--net", "sleep", "infinity"])
            before = Path("/proc/self/ns/net").readlink()
            there = Path(f"/proc/{self._switch.pid}/ns/net")
            until(lambda: there.readlink() != before, UP_SECONDS, "a network namespace")
            self._ip("link add br0 type bridge")
            self._ip("link set br0 up")
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End all hosts."""
        with self._lock:
            for host in self.hosts.values():
                host.unplug()
            if switch := getattr(self, "_switch", None):
                switch.kill()
                switch.wait()
            shutil.rmtree(self.folder, ignore_errors=True)

    def start(self, name: str, address: str, *, public: str = "", keys: str = "") -> Host:
        """Start a host and wait until its sshd answers.

        Args:
            name: of it.
            address: in the network.
            public: another address of it.
            keys: public key that its sshd lets in.

        Raises:
            RuntimeError: says what went wrong, from its console.
        """
        with self._lock:
            if not self.folder.exists():
                raise RuntimeError(f"{name}: the lab is closed")
            folder = self.folder / f"host-{name}"
            folder.mkdir()
            told = inside.Inside(
                name=name,
                address=address,
                bits=BITS,
                public=public,
                folder=str(folder),
                packages=str(self._packages or ""),
                venv=sys.prefix,
                keys=keys,
                files=dict(self.image.files),
                shell=list(self.image.shell),
            )
            console = self.folder / f"console-{name}.log"
            host = self._boot(told, console)
            self.hosts[name] = host
            try:
                until(lambda: inside.READY in console.read_text() or not host.up, UP_SECONDS, name)
            finally:
                if inside.READY not in console.read_text():
                    host.unplug()
                    raise RuntimeError(f"{name}: does not start:\n{console.read_text()[-4000:]}")
            return host

    def _boot(self, told: inside.Inside, console: Path) -> Host:
        spaces = ["--mount", "--uts", "--ipc", "--net", "--pid", "--fork", "--kill-child=KILL"]
        first = [sys.executable, "-S", "-E", inside.__file__, json.dumps(told)]
        with console.open("wb") as file:
            process = subprocess.Popen(
                [*TIED, "unshare", *spaces, "env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", *first],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for the test, which ends it
            )
        until(lambda: children(process.pid) or process.poll() is not None, UP_SECONDS, "a first process")
        if not (found := children(process.pid)):
            raise RuntimeError(f"{told['name']}: does not start:\n{console.read_text()[-4000:]}")
        number = next(self._cables)
        self._ip(f"link add v{number} type veth peer name eth0 netns {found[0]}")
        self._ip(f"link set v{number} master br0 up")
        return Host(told["name"], told["address"], process, found[0], self.folder)

    def _ip(self, line: str) -> None:
        subprocess.run(["nsenter", "-t", str(self._switch.pid), "-n", "ip", *line.split()], check=True)
