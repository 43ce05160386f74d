"""What every family is made of, and the params that all of them take."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from tunelab.augmentation import Augmentation
from tunelab.models.stack import Norm, Signal, Stack
from tunelab.objective import Loss, Optimizer, RateSchedule
from tunelab.preprocessing import Preprocessing

if TYPE_CHECKING:
    import keras

Rate = Annotated[float, Field(strict=True, ge=0, lt=1, allow_inf_nan=False)]
"""A share of units that dropout silences."""
Penalty = Annotated[float, Field(strict=True, ge=0, allow_inf_nan=False)]
"""Factor of the squared kernel weights in the loss."""
Size = Annotated[int, Field(strict=True, ge=1)]
Layers = Annotated[tuple[Size, ...], Field(min_length=1)]
"""Units of each layer, the first one first."""


class Section(BaseModel):
    """A part of params: unknown keys are errors, nothing changes after it was checked."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Params(Section):
    """What every family takes. The defaults are those of the sixteen hand-run models."""

    family: str
    learning_rate: float = Field(default=1e-3, strict=True, gt=0, allow_inf_nan=False)
    """Of the optimiser; where the rate is scheduled, its highest."""
    rate_schedule: RateSchedule = RateSchedule()
    optimizer: Optimizer = Optimizer()
    loss: Loss = Loss()
    averaging: Rate = 0.0
    """Share of the average over epochs' weights that each epoch keeps; the average is evaluated, chosen and exported in
    place of the weights, which train on as they are. It steadies curves that jump from epoch to epoch."""
    batch_size: Size = 32
    """Scans."""
    class_weight: float = Field(default=1.0, strict=True, gt=0, allow_inf_nan=False)
    """Weight of a positive trace in the loss; a negative one weighs 1."""
    batch_norm_momentum: Rate = 0.99
    """Share of the moving statistics that a step keeps."""
    precision: Literal["float32", "mixed_float16", "mixed_bfloat16"] = "float32"
    """What layers compute in; weights, statistics and losses stay in float32. The mixed ones are for GPUs that have
    units for them; under mixed_float16 the loss is scaled, so that small gradients do not vanish."""
    plain: bool = Field(default=False, strict=True)
    """Whether the model is a stack of plain Keras layers, to compare with: the same mathematics, but slower."""
    preprocessing: Preprocessing = Preprocessing()
    """What happens to each scan before the model sees it; searched by choices alone, of keys or of whole mappings."""
    augmentation: Augmentation = Augmentation()
    """What is varied of training scans each time they are read."""
    normalisation: Literal["none", "per_sample", "global"] = "none"
    """Input less its mean, over its standard deviation, both of the training scans: of each sample, or of all samples
    together."""
    protocol: Literal["pooled", "incremental"] = "pooled"
    """Whether an epoch goes over all training scans, or training stays on one shard before it goes to the next."""
    shard_epochs: Size = 5
    """Epochs on each shard before the next, at most; only where ``protocol`` is ``incremental``."""
    shard_patience: Size = 2
    """Epochs on a shard without a better average precision on the tune split before the next shard; likewise."""


class RecurrentParams(Params):
    """What families with recurrent layers take besides. The defaults are those of the sixteen hand-run models."""

    bidirectional: bool = Field(default=False, strict=True)
    """Whether recurrent layers go over the traces in both directions, with so many units each."""
    recurrent_dropout: Rate = 0.0
    """Of recurrent layers' states; Keras' own loop runs such layers, which is slower and not for cuDNN."""
    residual: bool = Field(default=False, strict=True)
    """Whether the input of each recurrent layer but the first is added to its output, by way of a linear layer where
    their widths differ."""
    norm: Norm = "batch"
    """What normalises between layers, and the traces in front of them: batch normalisation, layer normalisation, which
    goes by each trace alone, or nothing."""


def _always_fits(params: Params, n_samples: int) -> None:
    """Families that lose no positions at the ends fit every number of samples."""


def _not_assembled(params: Params, stack: Stack) -> Signal:
    """What a user's own function builds."""
    raise AssertionError(f"{params.family} is built by a function of its own")


P = TypeVar("P", bound=Params)


@dataclass(frozen=True, slots=True, kw_only=True)
class Family(Generic[P]):
    """An entry of the table: a family that is assembled, or a user's own, which is a function."""

    params: type[P]
    assemble: Callable[[P, Stack], Signal] = _not_assembled
    """Which layers follow each other, up to the softmax over negative and positive."""
    own: Callable[[P, int], keras.Model] | None = None
    """A user's function instead: params and samples a trace -> a model of ``{"traces": (scan, trace, sample),
    "lengths": (scan,)}``, which answers (scan, trace, 2)."""
    outline: Callable[[P], str]
    """The layers in a word without blanks, such as ``lstm100-lstm200``."""
    fits: Callable[[P, int], None] = _always_fits
    """Raises ModelError when the model cannot be built for this number of samples."""


def as_list(key: str, count: Callable[[dict[str, Any]], int]) -> Any:
    """A validator before all others: one number for ``key`` stands for as many as there are layers.

    Args:
        key: the params' key that may be one number.
        count: how many, from the raw params.
    """

    def fill(cls: type, raw: Any) -> Any:
        value = raw.get(key) if isinstance(raw, dict) else None
        if isinstance(value, int | float) and not isinstance(value, bool):
            return {**raw, key: [value] * count(raw)}
        return raw

    return classmethod(fill)


def check_lengths(key: str, count: Callable[[Any], int], of: str) -> Any:
    """A validator after all others: ``key`` has as many items as there are layers.

    Args:
        key: the list.
        count: how many, from the checked params.
        of: what it must match, in words.
    """

    def check(self: P) -> P:
        if len(getattr(self, key)) != count(self):
            raise ValueError(f"{key} has {len(getattr(self, key))} items, but {of} has {count(self)}")
        return self

    return check


def length(raw: dict[str, Any], key: str) -> int:
    """The length of a raw list, 0 when it is none."""
    value = raw.get(key)
    return len(value) if isinstance(value, list | tuple) else 0
