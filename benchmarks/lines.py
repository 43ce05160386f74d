"""What long benchmarks share: results that accumulate in a file, a line for each, so that a killed one goes on."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any


def accumulate(
    file: Path,
    wanted: Iterable[Mapping[str, Any]],
    do: Callable[[Mapping[str, Any]], dict[str, Any]],
    minutes: float = math.inf,
) -> Iterator[dict[str, Any]]:
    """The lines of a file for all that is wanted: those that are there, and new ones until time is up.

    Args:
        file: of JSON lines; it is appended to, and goes on where it stopped.
        wanted: keys that tell one line from the others.
        do: what is to stand beside them.
        minutes: after which nothing new is begun; without it all is done.
    """
    end = time.monotonic() + 60 * minutes
    known = lines_of(file)
    for keys in wanted:
        found = next((line for line in known if all(line.get(key) == value for key, value in keys.items())), None)
        if found is None:
            if time.monotonic() > end:
                continue
            found = {**keys, **do(keys)}
            append(file, found)
        yield found


def lines_of(file: Path) -> list[dict[str, Any]]:
    """The lines of a file that are whole."""
    found = []
    for line in file.read_text(encoding="utf-8").splitlines() if file.exists() else ():
        try:
            found.append(json.loads(line))
        except ValueError:  # cut off when it was killed
            continue
    return found


def append(file: Path, record: Mapping[str, Any]) -> None:
    """A new line, also after one that was cut off."""
    with file.open("ab+") as opened:
        if size := opened.seek(0, 2):
            opened.seek(size - 1)
            opened.write(b"" if opened.read(1) == b"\n" else b"\n")
        opened.write(json.dumps(record).encode() + b"\n")
