"""Numbers and text as a report shows them; text from outside comes out inert."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any

NOTHING = "\N{EN DASH}"
"""For a value that is undefined or not known."""

_ANSI = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-_])")
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ufffe\uffff]")
"""Control characters, those that turn the direction of reading, and those that XML does not allow."""


def clean(text: object, limit: int = 200) -> str:
    """One line of printable text: terminal codes and control characters taken out, a long one cut.

    Args:
        text: anything; what it prints as is used.
        limit: characters at most.
    """
    line = _CONTROL.sub("", _ANSI.sub("", str(text)).replace("\n", " ").replace("\t", " "))
    line = " ".join(line.encode("utf-8", "replace").decode("utf-8").split())
    return line if len(line) <= limit else line[: limit - 1] + "…"


def finite(value: object) -> float | None:
    """A number as JSON has it: None for what is undefined."""
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def score(value: object) -> str:
    """A measure between 0 and 1 with three digits."""
    number = finite(value)
    return NOTHING if number is None else f"{number:.3f}"


def interval(low: object, high: object) -> str:
    """``0.351 to 0.470``; empty when an end is undefined."""
    return "" if finite(low) is None or finite(high) is None else f"{score(low)} to {score(high)}"


def whole(value: object) -> str:
    """A count with commas between thousands."""
    number = finite(value)
    return NOTHING if number is None else f"{round(number):,}"


def duration(seconds: object) -> str:
    """``42 s``, ``3 min 10 s``, ``2 h 5 min``."""
    number = finite(seconds)
    if number is None:
        return NOTHING
    minutes, rest = divmod(round(number), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if minutes else f"{rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def setting(value: Any, limit: int = 200) -> str:
    """A value of a dimension: short numbers, lists and mappings as they stand in a search space."""
    return clean(_setting(value), limit)


def cell(value: Any) -> Any:
    """A value of a dimension as a cell of a table file: lists and mappings as JSON."""
    if isinstance(value, list | tuple | Mapping):
        return json.dumps(value)
    return clean(value, limit=10_000) if isinstance(value, str) else value


def _setting(value: Any) -> str:
    if value is None:
        return NOTHING
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return f"{value:.3g}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_setting, value)) + "]"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {_setting(item)}" for key, item in value.items()) + "}"
    return str(value)
