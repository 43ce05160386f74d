"""What a search is after: objectives, constraints, and the front of the trials that no other one beats. Pure numbers.

A space names them in words, ``objectives: [f1, -parameters]`` and ``constraints: [parameters <= 1e6]``. Each is looked
at twice: on the tune split, by whoever decides what is tried next, and on the validation split, by whoever shows and
ranks what came out. Nothing that decides sees validation.

A value that is not known, NaN, is the worst of an objective and breaks a constraint.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, TypeVar

from tunelab.errors import did_you_mean

Split = Literal["tune", "validation"]

_METRICS = {  # where more is better: the metric on the tune split, and the one that ranks
    "f1": ("tune_f1", "val_f1"),
    "average_precision": ("tune_average_precision", "val_average_precision"),
    "precision": ("tune_precision", "precision"),
    "recall": ("tune_recall", "recall"),
    "mean_jaccard": ("tune_mean_jaccard", "mean_jaccard"),
}
_SIZES = {"parameters": "fewer are better", "predict_ms": "less is better"}
_KNOWN_BEFORE = ("parameters",)
NAMES = (*_METRICS, *_SIZES)
"""What an objective or a constraint can be about."""
DEFAULT = ("f1",)
EXAMPLES = {"objectives": "[f1, -parameters]", "constraints": "[parameters <= 1e6, recall >= 0.5]"}

_CONSTRAINT = re.compile(r"\s*(?P<name>[^\s<>=]+)\s*(?P<sign><=|>=)\s*(?P<limit>[^\s<>=]+)\s*")
_NUMBER = re.compile(r"[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?")


class Judged(Protocol):
    """What is asked of a trial; :class:`tunelab.ranking.Trial` is one."""

    @property
    def status(self) -> str:
        """``failed`` keeps it off the front."""

    @property
    def parameters(self) -> int:
        """Of the model; 0 while they are not known."""

    @property
    def predict_ms(self) -> float:
        """Milliseconds to answer a scan; NaN while they are not known."""

    def measured(self, name: str) -> float:
        """The metric that ranks; NaN while there is none."""

    def decided_by(self, name: str) -> float:
        """The metric that decisions go by; NaN while there is none."""


class Cost(Protocol):
    """What a model costs, known before it is trained; :func:`tunelab.models.cost_of` tells it."""

    @property
    def parameters(self) -> int:
        """All of them."""


T = TypeVar("T", bound=Judged)


@dataclass(frozen=True, slots=True)
class Objective:
    """Something that is to be as good as can be."""

    name: str

    @property
    def less(self) -> bool:
        """Whether less is better."""
        return self.name in _SIZES

    def __str__(self) -> str:
        """As a space names it."""
        return f"-{self.name}" if self.less else self.name


@dataclass(frozen=True, slots=True)
class Constraint:
    """Something that is good enough, or not."""

    name: str
    sign: Literal["<=", ">="]
    limit: float

    def excess(self, value: float) -> float:
        """By how much a value breaks the constraint, as a share of the limit; 0 when it keeps it.

        Shares can be compared: 1.5 million parameters where a million are allowed are as bad as a recall of 0.25
        where 0.5 is asked for. A limit of 0 has no shares, and the difference is taken as it is.
        """
        if math.isnan(value):
            return math.inf
        over = value - self.limit if self.sign == "<=" else self.limit - value
        return max(over / (self.limit or 1.0), 0.0)

    def __str__(self) -> str:
        """As a space writes it, the number in its shortest form."""
        return f"{self.name} {self.sign} {self.limit:.15g}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Aims:
    """All that a search is after."""

    objectives: tuple[Objective, ...] = (Objective("f1"),)
    """One at least, each name once."""
    constraints: tuple[Constraint, ...] = ()

    @classmethod
    def of(cls, document: Mapping[str, object]) -> Aims:
        """Those of a space, from its file or from a journal; without any, F1 alone.

        Args:
            document: the space as written.

        Raises:
            ValueError: what is wrong, as ``key: what; remedy``.
        """
        wanted = texts("objectives", document.get("objectives", DEFAULT))
        if not wanted:
            raise ValueError(f"objectives: names none; write {EXAMPLES['objectives']}, or leave the key out")
        objectives: list[Objective] = []
        for i, text in enumerate(wanted):
            one = _objective(f"objectives.{i}", text)
            if one in objectives:
                raise ValueError(f"objectives.{i}: {text!r} stands twice; remove one")
            objectives.append(one)
        constraints: list[Constraint] = []
        for i, text in enumerate(texts("constraints", document.get("constraints", ()))):
            constraint = _constraint(f"constraints.{i}", text)
            _fits(f"constraints.{i}", constraint, constraints)
            constraints.append(constraint)
        return cls(objectives=tuple(objectives), constraints=tuple(constraints))

    @property
    def several(self) -> bool:
        """Whether there is more than one objective, and so a front."""
        return len(self.objectives) > 1

    def values(self, trial: Judged, split: Split) -> tuple[float, ...]:
        """What a trial comes to, an objective each, as they are: more or less is better as the objective says.

        Args:
            trial: the trial.
            split: ``tune``, all that a decision may go by, or ``validation``, what is shown and ranked.
        """
        return tuple(_value(trial, one.name, split) for one in self.objectives)

    def violations(self, trial: Judged, split: Split) -> tuple[float, ...]:
        """By how much a trial breaks each constraint: above 0 where it does (see :meth:`Constraint.excess`), else 0.

        Args:
            trial: the trial.
            split: as of :meth:`values`.
        """
        return tuple(one.excess(_value(trial, one.name, split)) for one in self.constraints)

    def known_violations(self, cost: Cost | None) -> tuple[float, ...]:
        """As :meth:`violations`, of those constraints alone that can be judged before a model is trained.

        Args:
            cost: of the model; None: nobody knows, and nothing is broken yet.
        """
        if cost is None:
            return ()
        known = {"parameters": float(cost.parameters)}
        return tuple(one.excess(known[one.name]) for one in self.constraints if one.name in _KNOWN_BEFORE)

    def broken(self, trial: Judged) -> tuple[Constraint, ...]:
        """The constraints that a trial breaks, by what is shown of it."""
        found = self.violations(trial, "validation")
        return tuple(one for one, excess in zip(self.constraints, found, strict=True) if excess > 0)

    def front(self, trials: Sequence[T]) -> list[T]:
        """The trials that no other one beats: as good in every objective, and better in one. By what is shown of them.

        Failed trials, and those that break a constraint, are not on it and beat nobody. Equal ones are all on it.

        Args:
            trials: in any order, which is kept.
        """
        there = [trial for trial in trials if trial.status != "failed" and not self.broken(trial)]
        scores = [self._scores(trial) for trial in there]
        # who beats another stands before it, and what beats a beaten one beats all that this one does
        kept: list[tuple[float, ...]] = []
        for score in sorted(set(scores), reverse=True):
            if not any(all(a >= b for a, b in zip(one, score, strict=True)) for one in kept):
                kept.append(score)
        best = set(kept)
        return [trial for trial, score in zip(there, scores, strict=True) if score in best]

    def _scores(self, trial: Judged) -> tuple[float, ...]:
        """Higher is better."""
        values = zip(self.objectives, self.values(trial, "validation"), strict=True)
        return tuple(-math.inf if math.isnan(value) else -value if one.less else value for one, value in values)


def texts(key: str, value: object) -> tuple[str, ...]:
    """A list of texts.

    Args:
        key: ``objectives`` or ``constraints``.
        value: whatever stands there.

    Raises:
        ValueError: it is none; what it should be, without the key.
    """
    if not isinstance(value, list | tuple) or not all(isinstance(one, str) for one in value):
        raise ValueError(f"must be a list of texts, such as {EXAMPLES[key]}")
    return tuple(value)


def _objective(key: str, text: str) -> Objective:
    name = text.removeprefix("-")
    one = Objective(_named(key, name))
    if one.less and name == text:
        raise ValueError(f"{key}: {name}: {_SIZES[name]}; write -{name}")
    if not one.less and name != text:
        raise ValueError(f"{key}: {name}: more is better; write {name}, without '-'")
    return one


def _constraint(key: str, text: str) -> Constraint:
    found = _CONSTRAINT.fullmatch(text)
    if found is None:
        raise ValueError(f"{key}: {text!r:.100} is no constraint; write NAME <= NUMBER or NAME >= NUMBER")
    name, number = _named(key, found["name"]), found["limit"]
    limit = float(number) if _NUMBER.fullmatch(number) else math.nan
    if not math.isfinite(limit):
        raise ValueError(f"{key}: {number!r:.40} is no number; write one such as 1e6 or 0.5")
    if name in _SIZES and limit <= 0:
        raise ValueError(f"{key}: the limit of {name} must be above 0, not {number}; write a larger one")
    if name in _METRICS and not 0 <= limit <= 1:
        raise ValueError(f"{key}: the limit of {name} must be from 0 to 1, not {number}; write such a number")
    return Constraint(name, "<=" if found["sign"] == "<=" else ">=", limit)


def _fits(key: str, constraint: Constraint, before: Sequence[Constraint]) -> None:
    """Raise ValueError where a constraint makes another one idle, or impossible."""
    for other in before:
        if other.name != constraint.name:
            continue
        if other.sign == constraint.sign:
            raise ValueError(f"{key}: {constraint.name} has the limit {other} already; remove one")
        if constraint.excess(other.limit) > 0:
            raise ValueError(f"{key}: nothing keeps both {other} and {constraint}; change one")


def _named(key: str, name: str) -> str:
    if name not in NAMES:
        raise ValueError(f"{key}: {name!r:.40} can be no aim{did_you_mean(name, NAMES)}")
    return name


def _value(trial: Judged, name: str, split: Split) -> float:
    if name == "parameters":
        return float(trial.parameters) if trial.parameters else math.nan
    if name == "predict_ms":
        return trial.predict_ms
    tune, validation = _METRICS[name]
    return trial.decided_by(tune) if split == "tune" else trial.measured(validation)
