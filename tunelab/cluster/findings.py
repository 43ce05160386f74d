"""One thing that is wrong with a cluster file: where it is, what it is, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from tunelab.cluster.file import ClusterFile

Severity = Literal["error", "warning"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One thing that is wrong with a cluster file."""

    severity: Severity
    """``error``: the cluster would not work, be open, or cost what nobody wants; ``warning``: it may be meant."""
    line: int
    """In the file, from 1; of the key above where the key is missing."""
    key: str
    """Such as ``provider.region``."""
    what: str
    """What is wrong."""
    remedy: str
    """What to do about it."""

    def text(self, path: object) -> str:
        """``cluster.yaml:7: error: provider.regoin: unknown key; did you mean 'region'?``."""
        return f"{path}:{self.line}: {self.severity}: {self.key}: {self.what}; {self.remedy}"


class Notes:
    """Collects findings about a file.

    Args:
        file: the file.
    """

    def __init__(self, file: ClusterFile) -> None:
        self.file = file
        self.found: list[Finding] = []

    def error(self, keys: Iterable[str | int], what: str, remedy: str) -> None:
        """Note an error at a path of keys."""
        self._add("error", tuple(keys), what, remedy)

    def warn(self, keys: Iterable[str | int], what: str, remedy: str) -> None:
        """Note a warning at a path of keys."""
        self._add("warning", tuple(keys), what, remedy)

    def _add(self, severity: Severity, keys: tuple[str | int, ...], what: str, remedy: str) -> None:
        key = "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in keys).lstrip(".")
        line = self.file.line(*keys)
        self.found.append(Finding(severity=severity, line=line, key=key, what=what, remedy=remedy))
