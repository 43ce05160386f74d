"""Someone's machine on which commands are typed, and the transcript of all that was."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from hosts.host import Host, Typed


@dataclass
class Story:
    """What happened, for the transcript."""

    begun: float = field(default_factory=time.time)
    lines: list[tuple[float, str]] = field(default_factory=list)
    typed: list[tuple[float, str, Typed]] = field(default_factory=list)

    def tell(self, what: str) -> None:
        """Something that happened now."""
        self.lines.append((time.time(), f"-- {what}"))

    def text(self, events: Sequence[tuple[float, str]]) -> str:
        """All of it in order, with what else happened and when."""
        told = [*self.lines, *((when, f"-- {what}") for when, what in events)]
        told += [(when, f"{host}$ {typed.line}\n{typed.said}") for when, host, typed in self.typed]
        return "\n".join(
            f"[{(when - self.begun) // 60:.0f}:{(when - self.begun) % 60:02.0f}] {what}" for when, what in sorted(told)
        )


class Laptop:
    """Someone's machine, in a folder with a cluster file."""

    def __init__(self, host: Host, story: Story) -> None:
        self.host = host
        self._story = story

    def type(self, line: str) -> Typed:
        """Start a line of a shell there."""
        typed = self.host.type(f"cd ~/clone && {line}")
        typed.line = line
        self._story.typed.append((time.time(), self.host.name, typed))
        return typed

    def do(self, line: str, seconds: float = 120, code: int = 0) -> str:
        """Type a line and wait for its end; gives what it printed."""
        typed = self.type(line)
        assert typed.wait(seconds) == code, f"{line}:\n{typed.said[-6000:]}"
        return typed.said
