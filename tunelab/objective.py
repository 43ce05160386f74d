"""The schema of what training minimises and how: loss, optimiser, and what becomes of the learning rate.

It is part of params, so a space can search it. It says nothing of the model. What is made of it is in
:mod:`tunelab.models.losses`, :mod:`tunelab.models.optimizers` and :mod:`tunelab.learning_rates`.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

Share = Annotated[float, Field(strict=True, ge=0, le=1, allow_inf_nan=False)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Kinds(_Section):
    """A section of which some keys matter to one kind alone."""

    of_kind: ClassVar[dict[str, str]]
    """Key -> the only kind to which it matters."""

    def needed(self) -> dict[str, Any]:
        """What is written, less the keys that do not matter to this kind."""
        full = self.model_dump(mode="json")
        return {key: value for key, value in full.items() if self.of_kind.get(key, full["kind"]) == full["kind"]}


class Loss(_Kinds):
    """What is minimised over the traces of a batch, beside the penalties of kernels."""

    of_kind = {"focus": "focal", "cross_entropy_share": "soft_f1"}

    kind: Literal["cross_entropy", "focal", "soft_f1"] = "cross_entropy"
    """Cross-entropy; focal loss (Lin et al. 2017), which counts traces that are answered well for less; or 1 - soft F1
    (also called Dice loss, Milletari et al. 2016): F1 of the batch with shares of "positive" in place of decisions."""
    focus: float = Field(default=2.0, strict=True, ge=0, le=10, allow_inf_nan=False)
    """Of focal loss: the exponent (gamma); 0 is cross-entropy."""
    cross_entropy_share: Share = 0.0
    """Of soft F1: the share of the loss that is cross-entropy, which has a slope where soft F1 has hardly any."""
    edge_smoothing: float = Field(default=0.0, strict=True, ge=0, lt=0.5, allow_inf_nan=False)
    """What traces on either side of an object's edge are labelled short of 1, or beyond 0."""


class Optimizer(_Kinds):
    """What makes steps of gradients."""

    of_kind = {"weight_decay": "adamw", "momentum": "sgd"}

    kind: Literal["adam", "adamw", "sgd"] = "adam"
    """Adam; AdamW, whose weights also decay (Loshchilov and Hutter 2019); or gradient descent with momentum."""
    weight_decay: float = Field(default=0.004, strict=True, ge=0, allow_inf_nan=False)
    """Of adamw: the share of each weight, times the learning rate, that a step takes away."""
    momentum: float = Field(default=0.9, strict=True, ge=0, lt=1, allow_inf_nan=False)
    """Of sgd, in Nesterov's form."""
    clip_norm: float | None = Field(default=None, strict=True, gt=0, allow_inf_nan=False)
    """Norm of all gradients together that a step is brought down to; null: any."""


class RateSchedule(_Section):
    """What becomes of ``learning_rate`` over the epochs that a trial may train."""

    kind: Literal["constant", "cosine", "one_cycle", "plateau"] = "constant"
    """Constant; falling as half a cosine to a hundredth; rising from a 25th for ``warm_up``, then falling as half a
    cosine to a ten thousandth (Smith and Topin 2018); or halved on plateaus of average precision on the tune split."""
    warm_up: Share = 0.3
    """Of one_cycle: the share of all steps in which the rate rises."""
    patience: int = Field(default=4, strict=True, ge=1)
    """Of plateau: epochs without a better average precision before the rate is halved."""
