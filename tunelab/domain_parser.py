"""Dimensions of a search space from the plain values of a YAML file.

Every error names the file and the key. Used by :mod:`tunelab.space` alone, which knows the rest of the file.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from tunelab.domains import Choice, Domain, Fixed, Float, Int, Node, Repeat, Struct
from tunelab.errors import SpaceError, did_you_mean

LIMIT_NAME = 60
LIMIT_VALUES = 10_000
"""Values that params may hold below one key."""
LARGEST = 2**53
"""Whole numbers are exact up to here."""
KINDS = ("choice", "uniform", "loguniform", "int", "log_int", "fixed", "repeat")


class DomainParser:
    """Dimensions from plain values; every error names the file and the key."""

    def __init__(self, source: str) -> None:
        self.source = source

    def error(self, key: str, what: str) -> SpaceError:
        """An error at a key of the file."""
        return SpaceError(f"{self.source}: {key}: {what}")

    def struct(self, key: str, value: Any) -> Struct:
        """A mapping of dimensions."""
        if not isinstance(value, dict):
            raise self.error(key, f"must be a mapping of dimensions, not {value!r}")
        children: dict[str, Node] = {}
        for name, below in value.items():
            if not name.isprintable() or "." in name or not 1 <= len(name) <= LIMIT_NAME:
                raise self.error(key, f"{name[:60]!r} is no name of a dimension; it has 1 to 60 letters and no dot")
            children[name] = self.node(f"{key}.{name}", below, {k for k in value if k != name}, value)
        return Struct(children)

    def node(self, key: str, value: Any, siblings: set[str], around: Mapping[str, Any]) -> Node:
        """Whatever stands at a key: a domain, a repeat, a mapping of dimensions, or a fixed value."""
        if not isinstance(value, dict):
            self.finite(key, value)
            return Fixed(value)
        kinds = [name for name in value if name in KINDS]
        if not kinds:
            if len(value) == 1 and isinstance(next(iter(value.values())), list):
                (word,) = value
                raise self.error(key, f"{word!r} is no kind of domain{did_you_mean(word, KINDS)}")
            return self.struct(key, value)
        kind = kinds[0]
        extra = [name for name in value if name != kind and not (kind == "repeat" and name == "of")]
        if extra:
            raise self.error(key, f"{extra[0]!r} cannot stand beside {kind!r}; leave it out")
        if kind == "repeat":
            return self.repeat(key, value, siblings, around)
        if kind == "fixed":
            self.finite(key, value[kind])
            return Fixed(value[kind])
        return self.domain(key, kind, value[kind])

    def domain(self, key: str, kind: str, value: Any) -> Domain:
        """A domain of one dimension."""
        if kind == "choice":
            if not isinstance(value, list) or not value:
                raise self.error(key, f"choice needs a list of at least one value, not {value!r}")
            self.finite(key, value)
            if any(option in value[:i] for i, option in enumerate(value)):
                raise self.error(key, f"choice names a value twice in {value!r}; remove one")
            return Choice(tuple(value))
        whole = kind in ("int", "log_int")
        lengths = (2, 3) if kind == "int" else (2,)
        if not isinstance(value, list) or len(value) not in lengths:
            wanted = "[low, high] or [low, high, step]" if kind == "int" else "[low, high]"
            raise self.error(key, f"{kind} needs {wanted}, not {value!r}")
        for end in value:
            if isinstance(end, bool) or not isinstance(end, int | float) or (whole and not isinstance(end, int)):
                raise self.error(key, f"{kind} needs {'whole ' if whole else ''}numbers, not {end!r}")
        self.finite(key, value)
        low, high, *step = value
        if low >= high:
            raise self.error(key, f"low {low} is not below high {high}; swap them, or write the one value")
        if kind in ("loguniform", "log_int") and low <= 0:
            raise self.error(
                key, f"{kind} starts at {low}, which has no logarithm; start above zero, or use a linear kind"
            )
        if not whole:
            return Float(float(low), float(high), log=kind == "loguniform")
        if step and (step[0] < 1 or (high - low) % step[0]):
            raise self.error(key, f"the step {step[0]} does not lead from {low} to {high}")
        return Int(low, high, log=kind == "log_int", step=step[0] if step else 1)

    def repeat(self, key: str, value: Mapping[str, Any], siblings: set[str], around: Mapping[str, Any]) -> Repeat:
        """A list of dimensions."""
        if "of" not in value:
            raise self.error(key, "repeat needs 'of', the dimension that is repeated")
        of = self.node(f"{key}.of", value["of"], set(), {})
        found = self.counted(key, value["repeat"], of, siblings, around)
        if (size := _size(found)) > LIMIT_VALUES:
            raise self.error(key, f"a list of up to {size:,} values is more than {LIMIT_VALUES:,}; repeat less often")
        return found

    def counted(self, key: str, count: Any, of: Node, siblings: set[str], around: Mapping[str, Any]) -> Repeat:
        """A list of dimensions, its length from a number, a domain or the lists beside it."""
        if isinstance(count, int) and not isinstance(count, bool) and count >= 1:
            return Repeat(count, of, count)
        if isinstance(count, dict) and list(count) == ["int"]:
            domain = self.domain(f"{key}.repeat", "int", count["int"])
            if not isinstance(domain, Int) or domain.low < 0:
                raise self.error(f"{key}.repeat", f"a list cannot have {count['int'][0]} items")
            return Repeat(domain, of, domain.high)
        names = (count,) if isinstance(count, str) else tuple(count) if isinstance(count, list) else ()
        if not names or not all(isinstance(name, str) for name in names):
            raise self.error(
                f"{key}.repeat", f"must be a number, {{int: [low, high]}}, or names of lists, not {count!r}"
            )
        most = 0
        for name in names:
            if name not in siblings:
                raise self.error(f"{key}.repeat", f"{name!r} stands not beside it{did_you_mean(name, siblings)}")
            most += self.longest(f"{key}.repeat", name, around[name])
        return Repeat(names, of, most)

    def longest(self, key: str, name: str, value: Any) -> int:
        """The longest list that the sibling's value can be."""
        if isinstance(value, list):
            return len(value)
        if isinstance(value, dict):
            if isinstance(value.get("choice"), list) and all(isinstance(o, list) for o in value["choice"]):
                return max((len(o) for o in value["choice"]), default=0)
            if isinstance(value.get("fixed"), list):
                return len(value["fixed"])
            count = value.get("repeat")
            if isinstance(count, int):
                return count
            ends = count.get("int") if isinstance(count, dict) else None
            if isinstance(ends, list) and len(ends) > 1 and isinstance(ends[1], int):
                return ends[1]
        raise self.error(key, f"{name!r} is no list of its own length")

    def finite(self, key: str, value: Any) -> None:
        """Refuse NaN, infinities and numbers too large to be exact, however deep."""
        if isinstance(value, float) and not math.isfinite(value):
            raise self.error(key, f"{value} is no number to search with; write a finite one")
        if isinstance(value, int | float) and abs(value) > LARGEST:
            raise self.error(key, f"{value} is too large to search with; stay within 2**53, about 9e15")
        for item in value if isinstance(value, list) else value.values() if isinstance(value, dict) else ():
            self.finite(key, item)


def _size(node: Node) -> int:
    """How many values a node can come to."""
    if isinstance(node, Struct):
        return 1 + sum(map(_size, node.children.values()))
    return 1 + node.most * _size(node.of) if isinstance(node, Repeat) else 1
