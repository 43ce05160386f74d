"""The domains of a search space: what one dimension may be, and how dimensions nest.

A :class:`Node` is a domain (a leaf), a :class:`Struct` of named nodes, or a :class:`Repeat` of one node. Each can be
walked two ways: ``propose`` asks for a value of every dimension and builds params from the answers, define by run;
``locate`` finds the values of the dimensions in given params. No file, no sampler, no family is known here.
"""

from __future__ import annotations

import json
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

Point = dict[str, Any]
"""Dimension -> value."""
Ask = Callable[[str, "Domain"], Any]
"""Answers a dimension, by name and domain, with a value."""


class Outside(ValueError):  # noqa: N818 - a state of params, caught where it matters
    """Params that lie outside a space; the message names the dimension."""


class Node(Protocol):
    """A piece of a space."""

    def propose(self, path: str, ask: Ask, built: Mapping[str, Any]) -> Any:
        """Build the value below ``path``; ``built`` holds the siblings that are already there."""

    def locate(self, path: str, value: Any, point: Point) -> None:
        """Put the dimensions' values below ``path`` into ``point``.

        Raises:
            Outside: the value cannot come from here.
        """

    def dimensions(self, path: str) -> Iterator[tuple[str, Domain]]:
        """Every dimension that can exist below ``path``, in a fixed order."""


class Domain(ABC):
    """A set of values that one dimension may take."""

    __slots__ = ()

    @abstractmethod
    def contains(self, value: Any) -> bool:
        """Whether the value is one of them."""

    @abstractmethod
    def sample(self, rng: np.random.Generator) -> Any:
        """One of them, evenly on the domain's scale."""

    @abstractmethod
    def corners(self) -> tuple[Any, ...]:
        """The extreme values, or all of them."""

    def propose(self, path: str, ask: Ask, built: Mapping[str, Any]) -> Any:
        """The answer."""
        return ask(path, self)

    def locate(self, path: str, value: Any, point: Point) -> None:
        """The value, or the single number that a list or mapping of equal numbers stands for."""
        if not self.contains(value):
            value = _broadcast(value)
        if not self.contains(value):
            raise Outside(f"{path}: {json.dumps(value)} is not in {self}")
        point[path] = value

    def dimensions(self, path: str) -> Iterator[tuple[str, Domain]]:
        """This one."""
        yield path, self


@dataclass(frozen=True, slots=True)
class Fixed:
    """One value; no dimension."""

    value: Any

    def propose(self, path: str, ask: Ask, built: Mapping[str, Any]) -> Any:
        """The value."""
        return self.value

    def locate(self, path: str, value: Any, point: Point) -> None:
        """Nothing to find; the value must be this one."""
        if not _same(value, self.value) and not _same(_broadcast(value), _broadcast(self.value)):
            raise Outside(f"{path}: {json.dumps(value)} is not {json.dumps(self.value)}, the only value there")

    def dimensions(self, path: str) -> Iterator[tuple[str, Domain]]:
        """None."""
        return iter(())


@dataclass(frozen=True, slots=True)
class Choice(Domain):
    """One of several values of any kind."""

    options: tuple[Any, ...]

    def contains(self, value: Any) -> bool:
        """Whether it is one of them; true and 1 differ, a mapping may hold a family's defaults besides."""
        return any(_same(value, option) for option in self.options)

    def locate(self, path: str, value: Any, point: Point) -> None:
        """The option as it was written; of several that a mapping matches, the one that says most."""
        found = [option for option in self.options if _same(value, option)]
        found = found or [option for option in self.options if _same(_broadcast(value), option)]
        if not found:
            raise Outside(f"{path}: {json.dumps(_broadcast(value))} is not in {self}")
        point[path] = max(found, key=_said)

    def sample(self, rng: np.random.Generator) -> Any:
        """One of them, all equally likely."""
        return self.options[int(rng.integers(len(self.options)))]

    def corners(self) -> tuple[Any, ...]:
        """All of them."""
        return self.options

    def __str__(self) -> str:
        return "{" + ", ".join(json.dumps(option) for option in self.options) + "}"


@dataclass(frozen=True, slots=True)
class Float(Domain):
    """A real number between low and high, both included, even on a linear or a logarithmic scale."""

    low: float
    high: float
    log: bool = False

    def contains(self, value: Any) -> bool:
        """Whether it is a number in the range."""
        return _is_number(value) and self.low <= value <= self.high

    def sample(self, rng: np.random.Generator) -> float:
        """A value in the range, evenly on its scale."""
        if self.log:
            drawn = float(np.exp(rng.uniform(math.log(self.low), math.log(self.high))))
        else:
            drawn = float(rng.uniform(self.low, self.high))
        return min(max(drawn, self.low), self.high)  # rounding can lead out of the range

    def corners(self) -> tuple[float, float]:
        """Both ends."""
        return self.low, self.high

    def __str__(self) -> str:
        return f"{'loguniform' if self.log else 'uniform'} [{self.low:g}, {self.high:g}]"


@dataclass(frozen=True, slots=True)
class Int(Domain):
    """A whole number between low and high, both included."""

    low: int
    high: int
    log: bool = False
    step: int = 1

    def contains(self, value: Any) -> bool:
        """Whether it is a whole number in the range that the step reaches."""
        whole = _is_number(value) and (isinstance(value, int) or value.is_integer())
        return whole and self.low <= value <= self.high and (int(value) - self.low) % self.step == 0

    def sample(self, rng: np.random.Generator) -> int:
        """A value in the range, evenly on its scale."""
        if self.log:
            drawn = int(np.exp(rng.uniform(math.log(self.low - 0.5), math.log(self.high + 0.5))).round())
            return min(max(drawn, self.low), self.high)
        return self.low + self.step * int(rng.integers((self.high - self.low) // self.step + 1))

    def corners(self) -> tuple[int, int]:
        """Both ends."""
        return self.low, self.high

    def __str__(self) -> str:
        step = f", {self.step}" if self.step != 1 else ""
        return f"{'log_int' if self.log else 'int'} [{self.low}, {self.high}{step}]"


@dataclass(frozen=True, slots=True)
class Struct:
    """Named nodes."""

    children: Mapping[str, Node]

    def propose(self, path: str, ask: Ask, built: Mapping[str, Any]) -> dict[str, Any]:
        """A mapping of the children's values; those whose number follows a sibling's come after it."""
        value: dict[str, Any] = {}
        for name, child in sorted(self.children.items(), key=lambda item: _follows(item[1])):
            value[name] = child.propose(_join(path, name), ask, value)
        return {name: value[name] for name in self.children}

    def locate(self, path: str, value: Any, point: Point) -> None:
        """Every child in the mapping; a single number stands for all of them."""
        for name, child in self.children.items():
            below = _join(path, name)
            if isinstance(value, Mapping):
                if name not in value:
                    raise Outside(f"{below}: missing")
                child.locate(below, value[name], point)
            else:
                child.locate(below, value, point)

    def dimensions(self, path: str) -> Iterator[tuple[str, Domain]]:
        """Those of the children."""
        for name, child in self.children.items():
            yield from child.dimensions(_join(path, name))


@dataclass(frozen=True, slots=True)
class Repeat:
    """A list: ``of`` as often as ``count`` says, a number or domain of its own or the lengths of sibling lists."""

    count: Int | int | tuple[str, ...]
    of: Node
    most: int
    """The longest list that can come out."""

    def propose(self, path: str, ask: Ask, built: Mapping[str, Any]) -> list[Any]:
        """The list."""
        if isinstance(self.count, tuple):
            number = sum(len(built[name]) for name in self.count)
        else:
            number = self.count if isinstance(self.count, int) else ask(_join(path, "count"), self.count)
        return [self.of.propose(_join(path, str(i)), ask, {}) for i in range(number)]

    def locate(self, path: str, value: Any, point: Point) -> None:
        """Every item of the list; whether a list is as long as its siblings is for the family to check."""
        if not isinstance(value, list):
            raise Outside(f"{path}: {json.dumps(value)} is no list")
        if isinstance(self.count, Int):
            self.count.locate(_join(path, "count"), len(value), point)
        elif isinstance(self.count, int) and self.count != len(value):
            raise Outside(f"{path}: has {len(value)} items, not {self.count}")
        for i, item in enumerate(value):
            self.of.locate(_join(path, str(i)), item, point)

    def dimensions(self, path: str) -> Iterator[tuple[str, Domain]]:
        """The count's and those of every item there can be."""
        if isinstance(self.count, Int):
            yield _join(path, "count"), self.count
        for i in range(self.most):
            yield from self.of.dimensions(_join(path, str(i)))


def _follows(node: Node) -> bool:
    return isinstance(node, Repeat) and isinstance(node.count, tuple)


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _is_number(value: Any) -> bool:
    return (isinstance(value, int) and not isinstance(value, bool)) or (
        isinstance(value, float) and math.isfinite(value)
    )


def _same(value: Any, written: Any) -> bool:
    """Whether a value is what was written: 1 is 1.0 but not true, and a mapping may hold defaults beside it."""
    if _is_number(written):
        return bool(_is_number(value) and value == written)
    if isinstance(written, Mapping):
        return isinstance(value, Mapping) and all(key in value and _same(value[key], written[key]) for key in written)
    if isinstance(written, list):
        return isinstance(value, list) and len(value) == len(written) and all(map(_same, value, written))
    return type(value) is type(written) and bool(value == written)


def _said(written: Any) -> int:
    """How many values were written, however deep."""
    items = written.values() if isinstance(written, Mapping) else written if isinstance(written, list) else ()
    return 1 + sum(map(_said, items))


def _broadcast(value: Any) -> Any:
    """The one value that a list or mapping of equal values stands for; anything else unchanged."""
    items = list(value.values()) if isinstance(value, Mapping) else value
    if isinstance(items, list) and items and all(_is_number(item) and item == items[0] for item in items):
        return items[0]
    return value
