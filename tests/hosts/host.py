"""A host that is up: what is typed on it, what is given to it, and its plug."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

UP_SECONDS = 60.0
"""A host, or what it takes, has so long to come up or to end."""
TIED = ("setpriv", "--pdeathsig", "KILL")
"""Before a command: it ends with the process that started it."""
_POLL = 0.05


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
                [*TIED, *words],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                # as on a terminal; a test in the background of a script was born deaf to it
                preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
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


def children(pid: int) -> list[int]:
    """The processes that a process has started."""
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []
