"""A search space: a YAML file -> :class:`Space`, validated before anything starts.

A space says which families compete, the dimensions of each, the dimensions that all share, configurations to try
first, and how long a trial may train. Whether a family knows a dimension is checked where families are known, in
:mod:`tunelab.models`; nothing here imports a model, a sampler or Ray.

Names: a *dimension* is named by its place, ``l2`` or ``units.0``. Families that have one of the same name keep it
apart for the sampler (``lstm.l2``); shared ones are the same for all. One column serves all dimensions of a name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from tunelab import yamlfile
from tunelab.aims import Aims
from tunelab.domain_parser import DomainParser
from tunelab.domains import Ask, Choice, Domain, Outside, Point, Repeat, Struct
from tunelab.errors import SpaceError
from tunelab.faults import explain
from tunelab.fidelity import Fidelity
from tunelab.sections import DataOptions, EarlyStopping, Epochs, File, Resources, Sampler


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """A configuration to try first."""

    name: str
    family: str
    params: Mapping[str, Any]
    """As written, the shared fixed values filled in."""
    known: Mapping[str, float]
    """Results it had elsewhere; shown in reports, never mixed with measured ones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Space:
    """What may be searched."""

    source: str
    """The file it came from."""
    name: str
    trials: int | None
    aims: Aims
    epochs: Epochs
    early_stopping: EarlyStopping
    fidelity: Fidelity
    sampler: Sampler
    resources: Resources
    data: DataOptions
    shared: Struct
    families: Mapping[str, Struct]
    """Empty: only the configurations in ``start_from`` are run."""
    start_from: tuple[Start, ...]
    document: Mapping[str, Any]
    """The file's content, for the record."""

    @property
    def over_epochs(self) -> EarlyStopping:
        """What stops trials early: nothing where steps of fidelity compare them."""
        return self.early_stopping.model_copy(update={"scheduler": "none"} if self.fidelity.steps else {})

    def propose(self, ask: Ask) -> dict[str, Any]:
        """Build params by asking for each dimension that exists, the family first.

        Args:
            ask: called with a dimension's sampler name (``family``, ``learning_rate``, ``lstm.units.0``) and domain.

        Returns:
            ``{"family": ..., **values}``, not yet checked by the family.
        """
        names = tuple(self.families)
        return self._of(names[0] if len(names) == 1 else ask("family", Choice(names)), ask)

    def _of(self, family: str, ask: Ask) -> dict[str, Any]:
        shared = self._shared_by(family).propose("", ask, {})
        own = self.families[family].propose("", lambda path, domain: ask(f"{family}.{path}", domain), {})
        return {"family": family, **shared, **own}

    def locate(self, params: Mapping[str, Any]) -> Point:
        """The sampler names and values at which :meth:`propose` builds these params.

        Raises:
            Outside: they cannot come from this space; the message names the dimension.
        """
        family = params["family"]
        if family not in self.families:
            raise Outside(f"family: {family} is not in {{{', '.join(self.families)}}}")
        point: Point = {} if len(self.families) == 1 else {"family": family}
        own: Point = {}
        self._shared_by(family).locate("", params, point)
        self.families[family].locate("", params, own)
        return point | {f"{family}.{path}": value for path, value in own.items()}

    def _shared_by(self, family: str) -> Struct:
        """The shared dimensions that a family does not set itself."""
        own = self.families[family].children
        return Struct({name: node for name, node in self.shared.children.items() if name not in own})

    def sample(self, rng: np.random.Generator, family: str | None = None) -> dict[str, Any]:
        """Params drawn evenly from the space, or from one family of it."""
        if family is not None:
            return self._of(family, lambda _, domain: domain.sample(rng))
        return self.propose(lambda _, domain: domain.sample(rng))

    def corners(self, family: str) -> Iterator[dict[str, Any]]:
        """Params that show each corner of each dimension of a family at least once."""
        tree = Struct({**self.shared.children, **self.families[family].children})
        most = max((len(domain.corners()) for _, domain in tree.dimensions("")), default=1)
        for turn in range(most):

            def ask(_: str, domain: Domain, turn: int = turn) -> Any:
                return domain.corners()[min(turn, len(domain.corners()) - 1)]

            yield {"family": family, **tree.propose("", ask, {})}

    def columns(self) -> list[str]:
        """The name of every dimension, once, in the order of the file; ``family`` is not one."""
        trees = [self.shared, *self.families.values()]
        return list(dict.fromkeys(path for tree in trees for path, _ in tree.dimensions("")))

    def column_values(self, params: Mapping[str, Any]) -> Point:
        """Column -> value of the dimensions that exist in these params; nothing for a space of fixed configurations."""
        if not self.families:
            return {}
        family = params["family"]
        return {name.removeprefix(f"{family}."): v for name, v in self.locate(params).items() if name != "family"}


def load_space(path: Path, own: Callable[[str], Any] | None = None) -> Space:
    """Read and validate a space.

    Args:
        path: the file.
        own: dimensions of a family that stands there without any, from wherever the family is; None: it has none.

    Raises:
        SpaceError: what is wrong, with file, key and remedy.
    """
    document = yamlfile.load(path, SpaceError)
    try:
        file = File.model_validate(document)
        aimed = Aims.of({"objectives": file.objectives, "constraints": file.constraints})
    except ValidationError as error:  # which is a ValueError too
        raise SpaceError(f"{path}: {explain(error, File)}") from None
    except ValueError as error:
        raise SpaceError(f"{path}: {error}") from None
    parse = DomainParser(str(path))
    if not file.families and not file.start_from:
        raise parse.error("families", "missing, and no start_from either; name at least one family")
    shared = parse.struct("shared", file.shared)
    trees = {name: own(name) if tree is None and own else tree for name, tree in file.families.items()}
    families = {name: parse.struct(f"families.{name}", tree) for name, tree in trees.items()}
    _check_shared(parse, shared, families)
    return Space(
        source=str(path),
        name=file.name or path.stem,
        trials=file.trials,
        aims=aimed,
        epochs=file.epochs,
        early_stopping=file.early_stopping,
        fidelity=file.fidelity,
        sampler=file.sampler,
        resources=file.resources,
        data=file.data,
        shared=shared,
        families=families,
        start_from=tuple(_starts(parse, file.start_from, shared, families)),
        # with the dimensions that families brought along: they may change, what a run searched may not
        document={**document, "families": trees} if trees else document,
    )


def shipped(name: str) -> Path:
    """A space that comes with tunelab, such as ``quick.yaml``: from the installed package or the checkout."""
    package = Path(__file__).parent
    inside = package / "search_spaces" / name
    return inside if inside.exists() else package.parent / "search_spaces" / name


def _check_shared(parse: DomainParser, shared: Struct, families: Mapping[str, Struct]) -> None:
    if not families and (searched := next(shared.dimensions(""), None)):
        raise parse.error(f"shared.{searched[0]}", "no family searches it; write one value, or name families")
    for name, tree in families.items():
        for key, node in shared.children.items():
            lists = node.count if isinstance(node, Repeat) and isinstance(node.count, tuple) else ()
            if key not in tree.children and (own := [one for one in lists if one in tree.children]):
                what = f"shared.{key} is as long as the shared {own[0]!r}; write {key!r} here as well"
                raise parse.error(f"families.{name}.{own[0]}", what)
    for key, tree in (("shared", shared), *((f"families.{name}", tree) for name, tree in families.items())):
        if "family" in tree.children:
            raise parse.error(f"{key}.family", "is no dimension; families stand below 'families'")


def _starts(
    parse: DomainParser, entries: list[dict[str, Any]], shared: Struct, families: Mapping[str, Struct]
) -> Iterator[Start]:
    one = Struct({name: node for name, node in shared.children.items() if not any(node.dimensions(""))})
    fixed = one.propose("", _no_dimension, {})
    seen: set[str] = set()
    for i, entry in enumerate(entries):
        key = f"start_from.{i}"
        rest = dict(entry)
        family, name, known = rest.pop("family", None), rest.pop("name", f"start{i + 1}"), rest.pop("known", {})
        if not isinstance(family, str):
            raise parse.error(f"{key}.family", "missing; name the family of this configuration")
        if not isinstance(name, str) or not name.isprintable() or not 1 <= len(name) <= 60:
            raise parse.error(f"{key}.name", f"must be 1 to 60 printable characters, not {name!r}")
        if name in seen:
            raise parse.error(f"{key}.name", f"{name!r} stands twice; rename one")
        if not isinstance(known, dict):
            raise parse.error(f"{key}.known", f"must be a mapping of metrics, not {known!r}")
        for metric, value in known.items():
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise parse.error(f"{key}.known.{metric}", f"must be a number, not {value!r}; leave it out")
        parse.finite(f"{key}.known", known)
        parse.finite(key, rest)
        seen.add(name)
        own = families[family].children if family in families else {}
        filled = {dimension: value for dimension, value in fixed.items() if dimension not in own}
        yield Start(name=name, family=family, params={**filled, **rest}, known=known)


def _no_dimension(path: str, domain: Domain) -> Any:
    raise AssertionError(f"{path} has one value")
