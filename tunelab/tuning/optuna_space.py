"""A space in Optuna's words: its dimensions as suggestions of a trial of Optuna, its values as Optuna takes them."""

from __future__ import annotations

import json
from functools import partial
from typing import Any

import optuna
from optuna.distributions import BaseDistribution

from tunelab.domains import Choice, Domain, Float, Int, Point
from tunelab.space import Space


def ask_for(space: Space, asked: optuna.trial.BaseTrial) -> dict[str, Any]:
    """Params built of what a trial of Optuna answers, not yet checked by the family."""
    return space.propose(partial(suggest, asked))


def place(space: Space, point: Point) -> tuple[dict[str, Any], dict[str, BaseDistribution]]:
    """Optuna's parameters at a point of a space, and what each of them could have been."""
    fixed = optuna.trial.FixedTrial(encode(point))
    ask_for(space, fixed)
    return fixed.params, fixed.distributions


def suggest(asked: optuna.trial.BaseTrial, name: str, domain: Domain) -> Any:
    """Ask a trial of Optuna for the value of a dimension, and so tell it of what kind and range that is."""
    if isinstance(domain, Float):
        return asked.suggest_float(name, domain.low, domain.high, log=domain.log)
    if isinstance(domain, Int):
        return asked.suggest_int(name, domain.low, domain.high, log=domain.log, step=domain.step)
    if isinstance(domain, Choice):
        by_code = {_code(option): option for option in domain.options}
        return by_code[asked.suggest_categorical(name, list(by_code))]
    raise TypeError(f"{name}: {type(domain).__name__}")


def encode(point: Point) -> dict[str, Any]:
    """The values of a point as :func:`suggest` asks for them."""
    return {name: _code(value) for name, value in point.items()}


def _code(value: Any) -> Any:
    """A value as Optuna takes it: lists and mappings as JSON."""
    return json.dumps(value) if isinstance(value, list | dict) else value
