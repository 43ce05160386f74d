"""How far something long is, shown where a person waits: a bar on a terminal, now and then a line elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from tunelab.data.request import Progress as Told
from tunelab.files import size_text

LINE_SECONDS = 30.0
"""Between two lines where there is no terminal."""


def progress_console() -> Console:
    """Standard output; wide enough for the table when it is a file or a pipe."""
    console = Console()
    return console if console.is_terminal else Console(width=150)


def clean(text: str) -> str:
    """Text from files without what could steer a terminal."""
    return "".join(c if c.isprintable() else "?" for c in text)


def plain(console: Console, line: str) -> None:
    """Print a line as it is: no markup, no colours, no breaks; what could steer a terminal is shown as ``?``."""
    console.print(clean(line), soft_wrap=True, highlight=False, markup=False)


def clock(seconds: float) -> str:
    """``3:07`` or ``1:03:07``."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


@contextmanager
def shown(console: Console) -> Iterator[Told]:
    """Whom :func:`~tunelab.data.prepare.prepare` tells how far it is."""
    if not console.is_terminal:
        yield _Lines(console).told
        return
    count = MofNCompleteColumn()
    with Progress(
        TextColumn("{task.description}"), BarColumn(), count, TimeRemainingColumn(), console=console, transient=True
    ) as bar:
        tasks = {}

        def step(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bar.add_task(what, total=total)
            bar.update(tasks[what], completed=done)

        yield Told(say=lambda line: plain(console, line), step=step)


class _Lines:
    def __init__(self, console: Console) -> None:
        self.told = Told(say=lambda line: plain(console, line), step=self._step)
        self._console = console
        self._next = time.monotonic() + LINE_SECONDS

    def _step(self, what: str, done: int, total: int) -> None:
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + LINE_SECONDS
            far = f"{size_text(done)} of {size_text(total)}" if what == "bytes" else f"{done:,} of {total:,} {what}"
            plain(self._console, f"... {far}")
