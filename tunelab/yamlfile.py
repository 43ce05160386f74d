"""Reading YAML that people write: strict, and nothing in it can surprise.

YAML 1.2's plain scalars (``1e-5`` is a number, ``no`` is a word); duplicate keys, tags, anchors and aliases, several
documents and deep nesting are refused with file and line. Nothing here knows what the content means.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from tunelab.errors import UsageError

LIMIT_BYTES = 1_000_000
LIMIT_DEPTH = 30
LIMIT_DIGITS = 100
LIMIT_NODES = 2_000_000
"""Of what a search wrote; a list of 100,000 scans for each split and fold has some 300,000."""


class _RefusedError(Exception):
    """A construct that is not taken, and its line (from 1)."""

    def __init__(self, line: int, why: str) -> None:
        super().__init__(f"line {line}: {why}")


class _Loader(yaml.SafeLoader):
    """A safe loader without implicit types of YAML 1.1, tags, anchors, aliases or duplicate keys."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 - the name and place are PyYAML's
    depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        line = event.start_mark.line + 1
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise _RefusedError(line, "anchors and aliases are not taken; write the value out")
        if getattr(event, "tag", None):
            raise _RefusedError(line, f"the tag {event.tag} is not taken; write a plain value")
        self.depth += 1
        if self.depth > LIMIT_DEPTH:
            raise _RefusedError(line, f"nested deeper than {LIMIT_DEPTH} levels")
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode):
                raise _RefusedError(line, "a key must be a plain word")
            if key.tag != "tag:yaml.org,2002:str":  # 1 and 1.0 would be one key, true and no word two
                raise _RefusedError(line, f"the key {key.value!r} is no word; put it in quotes")
            if key.value in seen:
                raise _RefusedError(line, f"the key {key.value!r} stands twice; remove one")
            seen.add(key.value)
        return super().construct_mapping(node, deep)


for _tag, _pattern, _first in (
    ("bool", r"true|false|True|False|TRUE|FALSE", "tfTF"),
    ("null", r"null|Null|NULL|~|", "nN~\0"),
    ("int", r"[-+]?[0-9]+", "-+0123456789"),
    (
        "float",
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        "-+0123456789.",
    ),
):
    for _char in _first:
        _Loader.yaml_implicit_resolvers.setdefault("" if _char == "\0" else _char, []).append(
            (f"tag:yaml.org,2002:{_tag}", re.compile(rf"^(?:{_pattern})$"))
        )


def _int(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> int:
    if len(node.value) > LIMIT_DIGITS:
        raise _RefusedError(node.start_mark.line + 1, f"a number of {len(node.value):,} digits is not taken")
    return int(node.value)


def _float(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> float:
    return float(node.value.lower().replace(".inf", "inf").replace(".nan", "nan"))


_Loader.add_constructor("tag:yaml.org,2002:int", _int)
_Loader.add_constructor("tag:yaml.org,2002:float", _float)


def load(path: Path, error: type[UsageError] = UsageError) -> dict[str, Any]:
    """The mapping in a YAML file.

    Args:
        path: the file.
        error: what to raise.

    Raises:
        UsageError: (or ``error``) no such file, too large, not UTF-8, not YAML, a refused construct, not a mapping.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(LIMIT_BYTES + 1)
    except OSError as problem:
        raise error(f"{path}: cannot be read: {problem.strerror}; name a YAML file") from problem
    if len(raw) > LIMIT_BYTES:
        raise error(f"{path}: larger than {LIMIT_BYTES:,} bytes; this is no configuration")
    try:
        value = yaml.load(raw.decode(), Loader=_Loader)  # noqa: S506 - a stricter SafeLoader
    except _RefusedError as problem:
        raise error(f"{path}: {problem}") from None
    except UnicodeDecodeError as problem:
        line = raw.count(b"\n", 0, problem.start) + 1
        raise error(f"{path}: line {line}: not UTF-8 text: {problem.reason}") from None
    except yaml.YAMLError as problem:
        mark = getattr(problem, "problem_mark", None)
        where = f"line {mark.line + 1}: " if mark else ""
        why = getattr(problem, "problem", None) or getattr(problem, "reason", None) or "no more is known"
        raise error(f"{path}: {where}not YAML: {why}") from None
    if not isinstance(value, dict):
        raise error(f"{path}: holds {_kind(value)}, not a mapping of keys to values")
    return value


def load_written(raw: bytes) -> Any:
    """What a search wrote itself, and what somebody else may have put in its place.

    Aliases that stand for more than :data:`LIMIT_NODES`, and deep nesting, for which libyaml takes hours, are refused.

    Raises:
        yaml.YAMLError: it is no YAML, or none that a search writes.
    """
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    if (line := _surprise(yaml.parse(raw, loader))) is not None:
        raise yaml.MarkedYAMLError(problem_mark=yaml.Mark("", 0, line, 0, "", 0))
    try:
        return yaml.load(raw, loader)  # noqa: S506 - both safe
    except ValueError as error:  # a date that no calendar has
        raise yaml.YAMLError(str(error)) from error


def _surprise(events: Iterable[Any]) -> int | None:
    """The line (from 0) where a document gets too deep, or too large with its aliases written out."""
    sizes: dict[str, int] = {}
    above: list[tuple[str | None, int]] = []
    size = 0
    for event in events:
        if isinstance(event, yaml.CollectionStartEvent):
            above.append((event.anchor, size))
            size = 1
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, before = above.pop()
            if anchor:
                sizes[anchor] = size
            size += before
        elif isinstance(event, yaml.AliasEvent):
            size += sizes.get(str(event.anchor), LIMIT_NODES)  # one within what it stands for has no end
        elif isinstance(event, yaml.ScalarEvent):
            size += 1
            if event.anchor:
                sizes[event.anchor] = 1
        if len(above) > LIMIT_DEPTH + 10 or size > LIMIT_NODES:
            return int(event.start_mark.line)
    return None


def _kind(value: object) -> str:
    return "nothing" if value is None else "a list" if isinstance(value, list) else f"the one value {value!r:.60}"
