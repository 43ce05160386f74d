"""What spaces ask of families: dimensions of a user's own, what lies in a space, whether a family takes all of it."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tunelab.domains import Outside, Point
from tunelab.errors import DataError, ModelError, SpaceError, did_you_mean
from tunelab.models.chains import MOST_CHAINS, chains_of
from tunelab.models.table import FAMILIES, check_fit, find_family, normalise
from tunelab.preprocessing import Preprocessing, chain_of, thinned
from tunelab.space import Space, Start, load_space


def open_space(path: Path) -> Space:
    """Read a space; a user's own family that stands there without dimensions brings its own.

    Raises:
        SpaceError: as :func:`tunelab.space.load_space`, or a family has no dimensions to bring.
    """

    def own(name: str) -> Any:
        place = f"{path}: families.{name}"
        if name in FAMILIES:
            raise SpaceError(f"{place}: has no dimensions; write them below it, as search_spaces/families.yaml does")
        try:
            find_family(name)
        except ModelError as error:
            raise SpaceError(f"{place}: {error}") from None
        module, _, function = name.partition(":")
        found = getattr(getattr(importlib.import_module(module), function), "dimensions", None)
        if not isinstance(found, dict):
            given = "has no dimensions" if found is None else f"has dimensions that are no dict but {found!r:.100}"
            raise SpaceError(
                f"{place}: nothing stands below it, and {function} {given}; write them below it, or set "
                f"{function}.dimensions = {{...}} in its module"
            )
        try:
            return json.loads(json.dumps(found, allow_nan=False))
        except (TypeError, ValueError) as error:
            raise SpaceError(f"{place}: {function}.dimensions: {error}; use what YAML can hold") from None

    return load_space(path, own)


def locate(space: Space, params: Mapping[str, Any]) -> Point:
    """The sampler's names and values at which a space yields exactly these params.

    Raises:
        Outside: it cannot; the message names the dimension.
        ModelError: params that the family does not take.
    """
    wanted = normalise(params)
    point = space.locate(wanted)
    built = normalise(space.propose(lambda name, _: point[name] if name != "family" else wanted["family"]))
    for key, value in wanted.items():
        if built.get(key) != value:
            raise Outside(f"{key}: {json.dumps(value)} cannot be built there, only {json.dumps(built.get(key))}")
    return point


def starts(space: Space) -> list[tuple[Start, dict[str, Any]]]:
    """The configurations to try first, their params in full.

    Raises:
        SpaceError: one that its family does not take, or that lies outside the space.
    """
    checked = []
    for i, start in enumerate(space.start_from):
        place = f"{space.source}: start_from.{i} ({start.name})"
        try:
            params = normalise({"family": start.family, **start.params}, place)
            if space.families:
                locate(space, params)
        except Outside as error:
            raise SpaceError(f"{place}: outside the space: {error}; widen the space or change the value") from None
        except ModelError as error:
            raise SpaceError(str(error)) from None
        checked.append((start, params))
    return checked


def chains(space: Space) -> list[Preprocessing]:
    """Every chain of preprocessing that a space can come to: of its families in order, then of ``start_from``.

    Each stands once; the one that changes nothing is among them where it can occur. Behind them those of its families
    as trials at a lower fidelity have them, where that thins samples.

    Raises:
        SpaceError: a dimension that is no choice, a chain that is none, or more than :data:`MOST_CHAINS`; names the
            file, the key and the remedy. Whatever :func:`starts` raises.
    """
    searched = list(dict.fromkeys(chain for name in space.families for chain in chains_of(space, name)))
    thinner = [thinned(chain, factor) for factor in space.fidelity.decimation for chain in searched]
    distinct = list(dict.fromkeys([*searched, *(chain_of(params) for _, params in starts(space)), *thinner]))
    if len(distinct) > MOST_CHAINS:
        counts = [f"{len(set(chains_of(space, name)))} of {name}" for name in space.families]
        counts += [f"{len(thinner)} thinned ones"] if thinner else []
        raise SpaceError(
            f"{space.source}: preprocessing: {' + '.join([*counts, f'{len(space.start_from)} of start_from'])} come to "
            f"{len(distinct)} different chains, more than {MOST_CHAINS}; offer fewer, or the same to all below shared"
        )
    return distinct


def examples(space: Space, n_samples: Callable[[Mapping[str, Any]], int]) -> list[tuple[str, dict[str, Any]]]:
    """Names and params to show a space by: its fixed configurations, or one that fits of each family.

    Args:
        space: a space that :func:`check_space` passed.
        n_samples: of a trace, after the preprocessing of these params; a family of which nothing fits is shown by
            what does not.
    """
    if not space.families:
        return [(start.name, params) for start, params in starts(space)]
    found = []
    for name in space.families:
        rng = np.random.default_rng(0)
        for _ in range(1000):
            params = normalise(space.sample(rng, name), space.source)
            try:
                check_fit(params, n_samples(params))
            except (ModelError, DataError):
                continue
            break
        found.append((f"{name}-example", params))
    return found


def check_space(space: Space) -> None:
    """Whether every family takes what the space proposes, shown on the corners of all its dimensions.

    Raises:
        SpaceError: names the file, the family and the key.
    """
    for name in space.families:
        place = f"{space.source}: families.{name}"
        try:
            known = find_family(name).params
            for key in space.shared.children:
                if known.model_config["extra"] == "forbid" and key not in known.model_fields:
                    hint = did_you_mean(key, known.model_fields)
                    raise ModelError(f"{space.source}: shared.{key}: {name} has no such key{hint}")
            chains_of(space, name)
            for corner in space.corners(name):
                space.column_values(normalise(corner, place))
        except Outside as error:
            raise SpaceError(f"{place}: {error}; the family changes what was written") from None
        except ModelError as error:
            raise SpaceError(str(error) if str(error).startswith(space.source) else f"{place}: {error}") from None
    chains(space)
