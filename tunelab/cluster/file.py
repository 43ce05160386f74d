"""A cluster file as Ray's launcher reads it, with the line of every key. What the keys mean, it does not know.

Ray takes YAML 1.1 with anchors and aliases, which the files of :mod:`tunelab.yamlfile` may not have; the limits on
what an alias may stand for are the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tunelab.errors import UsageError
from tunelab.yamlfile import LIMIT_BYTES, load_written

Key = tuple[str | int, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class ClusterFile:
    """A Ray cluster file."""

    path: Path
    """Where it was read from."""
    document: Mapping[str, Any]
    """Its content, as Ray's launcher reads it."""
    lines: Mapping[Key, int]
    """Path of keys -> line (from 1) where the key stands; below an alias that of the anchor."""

    def line(self, *keys: str | int) -> int:
        """The line of a key, or of the nearest one above it that there is."""
        while keys and keys not in self.lines:
            keys = keys[:-1]
        return self.lines.get(keys, 1)

    def value(self, *keys: str | int) -> Any:
        """What stands at a path of keys; None where nothing does."""
        found: Any = self.document
        for key in keys:
            if isinstance(found, Mapping):
                found = found.get(key)
            elif isinstance(found, list) and isinstance(key, int) and key < len(found):
                found = found[key]
            else:
                return None
        return found

    def mapping(self, *keys: str | int) -> Mapping[str, Any]:
        """The mapping at a path of keys; an empty one where there is none."""
        found = self.value(*keys)
        return found if isinstance(found, Mapping) else {}

    def sequence(self, *keys: str | int) -> list[Any]:
        """The list at a path of keys; an empty one where there is none."""
        found = self.value(*keys)
        return found if isinstance(found, list) else []

    @property
    def provider(self) -> str:
        """``aws``, ``local`` and so on; empty when nothing is said."""
        return str(self.value("provider", "type") or "")

    @property
    def region(self) -> str:
        """Of the machines; empty where there are none of a cloud's."""
        return str(self.value("provider", "region") or "")

    @property
    def storage(self) -> str:
        """``s3://BUCKET/PREFIX`` where runs go (``provider.storage``); empty when nothing is said."""
        return str(self.value("provider", "storage") or "")

    @property
    def name(self) -> str:
        """Of the cluster; Ray tags every machine with it."""
        return str(self.value("cluster_name") or "")

    @property
    def head(self) -> str:
        """Name of the head's node type; empty for machines of one's own."""
        return str(self.value("head_node_type") or "")

    @property
    def node_types(self) -> Mapping[str, Mapping[str, Any]]:
        """Node types by name; what is no mapping is left out."""
        types = self.mapping("available_node_types")
        return {str(name): one for name, one in types.items() if isinstance(one, Mapping)}

    @property
    def workers(self) -> Mapping[str, Mapping[str, Any]]:
        """The node types but for the head's."""
        return {name: one for name, one in self.node_types.items() if name != self.head}

    @property
    def max_workers(self) -> int:
        """Workers at once, of all types; 2 is what Ray's launcher takes when nothing is said."""
        return _count(self.value("max_workers"), 2)

    def most_of(self, name: str) -> int:
        """Machines of a node type at once, within those of the cluster; the head's is one."""
        if name == self.head:
            return 1
        return min(_count(self.value("available_node_types", name, "max_workers"), self.max_workers), self.max_workers)

    def least_of(self, name: str) -> int:
        """Machines of a node type that always run; the head's is one."""
        return 1 if name == self.head else _count(self.value("available_node_types", name, "min_workers"), 0)


def _count(value: Any, otherwise: int) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else otherwise


def load_cluster_file(path: Path) -> ClusterFile:
    """Read a cluster file.

    Args:
        path: the file.

    Raises:
        UsageError: it cannot be read, is no YAML or no mapping, or a key stands twice.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(LIMIT_BYTES + 1)
    except OSError as problem:
        raise UsageError(f"{path}: cannot be read: {problem.strerror}; name the file of `ray up`") from problem
    if len(raw) > LIMIT_BYTES:
        raise UsageError(f"{path}: larger than {LIMIT_BYTES:,} bytes; this is no cluster file")
    try:
        document = load_written(raw)
        lines = _lines(raw.decode("utf-8-sig"))
    except UnicodeDecodeError as problem:
        line = raw.count(b"\n", 0, problem.start) + 1
        raise UsageError(f"{path}: line {line}: not UTF-8 text: {problem.reason}; save it as UTF-8") from None
    except yaml.YAMLError as problem:
        mark = getattr(problem, "problem_mark", None)
        where = f"line {mark.line + 1}: " if mark else ""
        why = getattr(problem, "problem", None) or "nested or repeated more than a cluster file is"
        raise UsageError(f"{path}: {where}not YAML: {why}; correct it there") from None
    if not isinstance(document, dict):
        kind = "nothing" if document is None else f"a {type(document).__name__}"
        raise UsageError(f"{path}: holds {kind}, not a mapping of keys to values; start from cluster.yaml")
    return ClusterFile(path=path, document=document, lines=lines)


def _lines(text: str) -> dict[Key, int]:
    loader = yaml.SafeLoader(text)
    try:
        root = loader.get_single_node()
        found: dict[Key, int] = {}
        if root is not None:
            _note(loader, root, (), found)
        return found
    finally:
        loader.dispose()  # type: ignore[no-untyped-call]


def _note(loader: yaml.SafeLoader, node: yaml.Node, above: Key, found: dict[Key, int]) -> None:
    if isinstance(node, yaml.SequenceNode):
        for index, one in enumerate(node.value):
            found[*above, index] = one.start_mark.line + 1
            _note(loader, one, (*above, index), found)
    elif isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, _ in node.value:
            if key.value in seen and key.tag != "tag:yaml.org,2002:merge":
                # Ray takes the last without a word
                raise yaml.MarkedYAMLError(problem=f"the key {key.value!r} stands twice", problem_mark=key.start_mark)
            seen.add(key.value)
        loader.flatten_mapping(node)
        for key, value in node.value:
            name = loader.construct_object(key, deep=True)  # type: ignore[no-untyped-call]
            found[*above, name] = key.start_mark.line + 1
            _note(loader, value, (*above, name), found)
