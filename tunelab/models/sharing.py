"""Which models can share a compiled step: what params must have in common, and what stands on dials.

The dials themselves are in :mod:`tunelab.models.dials`, the models that are kept in :mod:`tunelab.compiled`.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from typing import Any

from tunelab.models.table import checked, find_family

_OUTSIDE = frozenset(
    (
        "learning_rate",
        "rate_schedule",
        "averaging",
        "batch_size",
        "class_weight",
        "preprocessing",
        "augmentation",
        "protocol",
        "shard_epochs",
        "shard_patience",
    )
)
"""Keys of :class:`~tunelab.models.family.Params` that no compiled step depends on."""
_DIALS = frozenset(
    (
        "batch_norm_momentum",
        "dropout",
        "front_dropout",
        "conv_dropout",
        "l2",
        "focus",
        "cross_entropy_share",
        "edge_smoothing",
        "weight_decay",
    )
)
"""Keys of params, at any depth, whose numbers stand on dials, or in a variable of the optimizer. Whether such a number
is 0 may still decide what is built. Momentum and the norm to clip at do not stand there: Keras asks for them in Python
as it traces a step."""


def structure(params: Mapping[str, Any], *, dials: bool = True) -> str:
    """What params must have in common for their models to share a compiled step: all but what stands on dials.

    Learning rate, batch size, weights of traces and whatever concerns the order of training are no part of a model,
    and numbers of a loss or an optimizer of another kind are no part of anything.

    Args:
        params: ``{"family": ..., ...}``.
        dials: whether what stands on them may differ.
    """
    typed = checked(params)
    free = _DIALS if dials and has_dials(params) else frozenset()
    kept = {key: value for key, value in typed.model_dump(mode="json").items() if key not in _OUTSIDE}
    kept |= {"loss": typed.loss.needed(), "optimizer": typed.optimizer.needed()}
    return json.dumps(_masked(kept, free), sort_keys=True)


def has_dials(params: Mapping[str, Any]) -> bool:
    """Whether the model of these params has its numbers, and the statistics it normalises by, on dials."""
    return find_family(params["family"]).own is None and not checked(params).plain


def _masked(value: Any, dials: Collection[str], dialled: bool = False) -> Any:
    """The same, every number below a key of ``dials`` replaced by whether it is any."""
    if isinstance(value, dict):
        return {key: _masked(item, dials, dialled or key in dials) for key, item in value.items()}
    if isinstance(value, list):
        return [_masked(item, dials, dialled) for item in value]
    return value != 0 if dialled else value
