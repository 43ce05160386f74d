"""The sections of a space's file that are no dimensions: what each key may be, and what it means.

From these classes and their texts the table of docs/spaces.md is made.
"""

from __future__ import annotations

import math
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from tunelab.aims import DEFAULT, texts
from tunelab.fidelity import Fidelity


class Section(BaseModel):
    """Unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Epochs(Section):
    """How long a trial may train."""

    max: int = Field(default=30, ge=1)
    """Epochs of a trial that nothing stops."""
    patience: int = Field(default=10, ge=1)
    """Epochs without a better average precision on the tune split before a trial ends itself. A trial whose
    ``protocol`` is ``incremental`` ends with its last shard instead; each shard is one of its epochs."""


class EarlyStopping(Section):
    """Which trials end before their epochs do, by the average precision on the tune split. A trial is *on the floor*
    while that lies within two standard errors, over scans, of the share of positives."""

    scheduler: Literal["halving", "hyperband", "median", "none"] = "halving"
    """``halving``: asynchronous successive halving (ASHA, Li et al. 2020), one bracket; ``hyperband``: several, each
    with a longer grace; ``median``: a trial ends when its best is below the median of the others' means; ``none``:
    trials end by themselves."""
    grace: int = Field(default=3, ge=1)
    """Epochs before a trial can be stopped."""
    reduction: float = Field(default=3, gt=1)
    """At each rung the best 1/reduction go on."""
    promote: bool = True
    """Trials that are not among the best of a rung wait there, and go on when later ones turn out worse; false: they
    end."""
    waiting: int = Field(default=200, ge=1)
    """Trials that wait at most, each with a checkpoint on disk; the least likely to go on end first."""
    collapse: float = Field(default=0.3, gt=0, le=1)
    """Share of its epochs after which a trial that is still on the floor ends; 1: never for that."""


Sampler = Literal["tpe", "random", "qmc", "cmaes", "gp", "nsga2"]
"""What proposes params; :mod:`tunelab.tuning.proposals` says what each can model."""


class Resources(Section):
    """What one trial gets."""

    cpus: float = Field(default=1, gt=0)
    gpus: float | None = Field(default=None, ge=0)
    """Unset: one where Ray sees GPUs, none elsewhere."""
    custom: dict[str, float] = {}
    """Other resources of Ray that a trial takes, such as ``{T4: 1}``: it runs only on nodes that have them."""

    @field_validator("custom")
    @classmethod
    def _others(cls, custom: dict[str, float]) -> dict[str, float]:
        for name, amount in custom.items():
            if name.upper() in ("CPU", "GPU") or not 0 < amount < math.inf:
                raise ValueError(f"{name}: {amount:g}: cpus and gpus have keys of their own, and others are above zero")
        return custom


class DataOptions(Section):
    """What happens to scans as they are read."""

    resample: int | None = Field(default=None, ge=2)
    """Bring every scan to this number of samples."""
    dtype: Literal["float32", "float16"] = "float32"
    """Numbers that prepared samples are stored as; float16 halves the disk, and says what it changed."""
    components: tuple[str, ...] = ()
    """Receivers and components of gprMax files, joined along the samples; empty: rx1/Ez alone."""


class File(Section):
    """The file as a whole; dimensions are parsed by hand to name their place."""

    name: str = ""
    trials: int | None = Field(default=None, ge=1)
    objectives: tuple[str, ...] = DEFAULT
    """What is to be as good as can be; ``-`` before a name says that less is better: f1, average_precision, precision,
    recall, mean_jaccard, -parameters, -predict_ms (milliseconds to answer a scan). Several have a Pareto front."""
    constraints: tuple[str, ...] = ()
    """What a trial must keep to win or to stand on the front, of the same names: ``parameters <= 1e6``."""
    epochs: Epochs = Epochs()
    early_stopping: EarlyStopping = EarlyStopping()
    fidelity: Fidelity = Fidelity()
    """``epochs``: trials are compared over their epochs (``early_stopping``). Or steps of one kind: a configuration is
    trained at the lowest one first, and the best 1/reduction of a step are trained anew at the next, up to the full."""
    sampler: Sampler = "tpe"
    resources: Resources = Resources()
    data: DataOptions = DataOptions()
    shared: dict[str, Any] = {}
    families: dict[str, Any] = {}
    start_from: list[dict[str, Any]] = []

    @field_validator("objectives", "constraints", mode="before")
    @classmethod
    def _texts(cls, value: object, info: ValidationInfo) -> tuple[str, ...]:
        return texts(str(info.field_name), value)

    @model_validator(mode="after")
    def _compared_once(self) -> File:
        self.fidelity.check_alone(self.early_stopping.model_fields_set, searched=bool(self.families))
        return self
