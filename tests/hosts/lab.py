"""Hosts on a switch of their own, and their end, whatever happens.

Nothing here has a name outside of the lab, so several labs do not meet: the switch is a network namespace that lives as
long as one process does, and so is every host. All of these processes end with the one that made the lab, even when
that is killed; then a folder below :data:`FOLDER` is all that is left.
"""

from __future__ import annotations

import itertools
import json
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from hosts import inside
from hosts.able import FOLDER
from hosts.packages import unpacked

BITS = 16
"""Of all addresses, the network's; those of moto's machines are in 172.31.0.0/16."""
UP_SECONDS = 60.0
_POLL = 0.05
_TIED = ("setpriv", "--pdeathsig", "KILL")
"""Before a command: it ends with the process that started it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """What all machines of a lab are born with."""

    files: Mapping[str, str] = field(default_factory=dict)
    """Path below each home -> content."""
    shell: Sequence[str] = ()
    """Lines for each ``.bashrc``."""


def until(true: Callable[[], object], seconds: float, what: str) -> None:
    """Wait for something.

    Raises:
        TimeoutError: it did not come true; names it.
    """
    end = time.monotonic() + seconds
    while not true():
        if time.monotonic() > end:
            raise TimeoutError(f"not within {seconds:g} s: {what}")
        time.sleep(_POLL)


class Typed:
    """A command that was typed on a host, and what it prints.

    Args:
        words: that start it from here.
        line: as it was typed.
        log: where its output is kept.
    """

    def __init__(self, words: Sequence[str], line: str, log: Path) -> None:
        self.line = line
        self._log = log
        with log.open("wb") as file:
            self.process = subprocess.Popen(
                [*_TIED, *words], stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT
            )

    @property
    def said(self) -> str:
        """All that it has printed."""
        return self._log.read_text(errors="replace")

    def until(self, pattern: str, seconds: float) -> re.Match[str]:
        """Wait for something that it prints; a pattern's ``^`` and ``$`` are those of lines.

        Raises:
            TimeoutError: it did not come.
            ChildProcessError: the command ended without it.
        """
        end = time.monotonic() + seconds
        while True:
            over = self.process.poll() is not None
            if found := re.search(pattern, self.said, re.MULTILINE):
                return found
            if over:
                raise ChildProcessError(f"{self.line}: ended without {pattern!r}:\n{self.said[-4000:]}")
            if time.monotonic() > end:
                raise TimeoutError(f"{self.line}: no {pattern!r} within {seconds:g} s:\n{self.said[-4000:]}")
            time.sleep(_POLL)

    def interrupt(self) -> None:
        """Ctrl-C."""
        for pid in children(self.process.pid):  # the entrance itself would not hand it on
            subprocess.run(["kill", "-s", "INT", str(pid)], check=False)

    def below(self, word: str) -> list[int]:
        """The processes that it has started, at any depth, whose command line holds a word."""
        found, left = [], children(self.process.pid)
        while left:
            pid = left.pop()
            left += children(pid)
            try:
                if word in Path(f"/proc/{pid}/cmdline").read_text().split("\0"):
                    found.append(pid)
            except OSError:
                continue
        return found

    def wait(self, seconds: float) -> int:
        """Wait for its end; gives the exit code."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise TimeoutError(f"{self.line}: not over within {seconds:g} s:\n{self.said[-4000:]}") from None


class Host:
    """A machine that is up.

    Args:
        name: of it.
        address: in the lab's network.
        process: that holds its namespaces; killing it pulls the plug.
        first: its first process.
        folder: for what is typed.
    """

    def __init__(self, name: str, address: str, process: subprocess.Popen[bytes], first: int, folder: Path) -> None:
        self.name = name
        self.address = address
        self._process = process
        self._first = first
        self._folder = folder
        self._typed: list[Typed] = []

    @property
    def up(self) -> bool:
        """Whether it is."""
        return self._process.poll() is None

    def entrance(self, line: str) -> list[str]:
        """The command that runs a line of bash in it, as root, at home, with what ``.bashrc`` says."""
        into = ["nsenter", "-t", str(self._first), "-m", "-u", "-i", "-n", "-p"]
        clean = ["env", "-i", "HOME=/root", "USER=root", "LOGNAME=root", "LANG=C.UTF-8", "TERM=dumb"]
        path = f"PATH={sys.prefix}/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        return [*into, *clean, path, "bash", "-c", f"cd; . ~/.bashrc; {line}"]

    def run(self, line: str, *, seconds: float = 60, given: str = "") -> str:
        """Run a line of a shell that has to succeed; gives what it printed.

        Args:
            line: of bash.
            seconds: that it may take.
            given: standard input.
        """
        done = subprocess.run(
            self.entrance(line),
            input=given,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=seconds,
            check=False,
        )
        if done.returncode:
            raise ChildProcessError(f"{self.name}: {line}: exit code {done.returncode}:\n{done.stdout[-4000:]}")
        return done.stdout

    def give(self, folder: Path, names: Sequence[str], to: str) -> None:
        """Copy files and folders into it.

        Args:
            folder: that holds them here.
            names: of them.
            to: a folder there, which may not exist yet.
        """
        words = ["tar", "-C", str(folder), "--exclude", "__pycache__", "-cf", "-", *names]
        with subprocess.Popen(words, stdout=subprocess.PIPE) as packed:
            there = self.entrance(f"mkdir -p {to} && tar -C {to} --no-same-owner -xf -")
            subprocess.run(there, stdin=packed.stdout, check=True)
        if packed.returncode:
            raise ChildProcessError(f"{self.name}: tar of {names} fails")

    def type(self, line: str) -> Typed:
        """Start a line of a shell, whose last command takes the shell's place."""
        before, _, last = line.rpartition("&& ")
        log = self._folder / f"{self.name}-{len(self._typed)}.log"
        typed = Typed(self.entrance(f"{before}{'&& ' if before else ''}exec {last}"), line, log)
        self._typed.append(typed)
        return typed

    def unplug(self) -> None:
        """Pull its plug."""
        self._process.kill()
        self._process.wait()
        until(lambda: not Path(f"/proc/{self._first}").exists(), UP_SECONDS, f"the end of {self.name}")
        for typed in self._typed:
            typed.wait(UP_SECONDS)


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
            self._switch = subprocess.Popen([*_TIED, "unshare", "--net", "sleep", "infinity"])
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
                [*_TIED, "unshare", *spaces, "env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", *first],
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


def children(pid: int) -> list[int]:
    """The processes that a process has started."""
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []
