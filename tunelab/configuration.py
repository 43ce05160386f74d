"""One configuration as a file: what a search exports and ``tunelab train`` takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tunelab import yamlfile
from tunelab.errors import ModelError, UsageError, did_you_mean
from tunelab.faults import explain
from tunelab.models import FAMILIES, normalise
from tunelab.sections import DataOptions, Epochs


class _Data(DataOptions):
    split_seed: int = Field(default=0, ge=0)


class _Around(BaseModel):
    """Everything beside the params."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = ""
    epochs: Epochs = Epochs()
    data: _Data = _Data()
    seed: int = Field(default=0, ge=0)
    threshold: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Configuration:
    """Params with all that makes a training repeatable."""

    name: str
    params: Mapping[str, Any]
    """In full, ``family`` among them."""
    max_epochs: int
    patience: int
    options: DataOptions
    """How scans are read."""
    split_seed: int
    """Of the splits, where the data do not give them."""
    seed: int
    """Of weights, dropout and the order of scans."""


def load_configuration(path: Path) -> Configuration:
    """Read and check a configuration.

    Raises:
        UsageError: what is wrong, with file and key.
    """
    document = yamlfile.load(path)
    around = {key: document.pop(key) for key in list(document) if key in _Around.model_fields}
    try:
        beside = _Around.model_validate(around)
    except ValidationError as error:
        raise UsageError(f"{path}: {explain(error, _Around)}") from None
    if (family := FAMILIES.get(str(document.get("family")))) is not None:
        known = [*_Around.model_fields, *family.params.model_fields]
        for key in document:
            if key not in known:
                raise UsageError(
                    f"{path}: {key if key.isprintable() else ascii(key)}: no such key{did_you_mean(key, known)}"
                )
    try:
        params = normalise(document, str(path))
    except ModelError as error:
        raise UsageError(f"{error}") from None
    return Configuration(
        name=beside.name or path.stem,
        params=params,
        max_epochs=beside.epochs.max,
        patience=beside.epochs.patience,
        options=DataOptions.model_validate(beside.data.model_dump(exclude={"split_seed"})),
        split_seed=beside.data.split_seed,
        seed=beside.seed,
    )
