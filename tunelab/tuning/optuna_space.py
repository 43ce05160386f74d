"""A space in Optuna's words: how a dimension is asked for, and where params lie among its parameters."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from typing import Any

import optuna
from optuna.distributions import BaseDistribution

from tunelab.domains import Choice, Domain, Float, Int
from tunelab.models import locate
from tunelab.space import Space


def ask_for(space: Space, asked: optuna.trial.BaseTrial) -> dict[str, Any]:
    """Params built of what a trial of Optuna answers, not yet checked by the family."""
    return space.propose(partial(suggest, asked))


def place(space: Space, params: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, BaseDistribution]]:
    """The values and distributions of Optuna's parameters at which a space yields these params.

    Raises:
        Outside: it cannot.
        ModelError: the family does not take them.
    """
    fixed = optuna.trial.FixedTrial({name: _code(value) for name, value in locate(space, params).items()})
    ask_for(space, fixed)
    return fixed.params, fixed.distributions


def suggest(asked: optuna.trial.BaseTrial, name: str, domain: Domain) -> Any:
    """A value of a dimension, by its name and domain."""
    if isinstance(domain, Float):
        return asked.suggest_float(name, domain.low, domain.high, log=domain.log)
    if isinstance(domain, Int):
        return asked.suggest_int(name, domain.low, domain.high, log=domain.log, step=domain.step)
    if isinstance(domain, Choice):
        by_code = {_code(option): option for option in domain.options}
        return by_code[asked.suggest_categorical(name, list(by_code))]
    raise TypeError(f"{name}: {type(domain).__name__}")


def _code(value: Any) -> Any:
    """A value as Optuna takes it: lists and mappings as JSON."""
    return json.dumps(value) if isinstance(value, list | dict) else value
