"""The table of families, and what is asked of it: check params, check a space, build a model."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pydantic import ConfigDict, ValidationError

from tunelab.errors import ModelError, did_you_mean
from tunelab.faults import explain
from tunelab.models import (
    birnn,
    conv2d_rnn,
    conv_rnn,
    dense_rnn,
    lstm,
    simple_rnn,
    tcn,
    transformer,
    unet1d,
)
from tunelab.models.family import Family, Params
from tunelab.models.tally import Cost, Tally
from tunelab.statistics import Statistics

if TYPE_CHECKING:
    import keras

FAMILIES: Mapping[str, Family[Any]] = {
    "lstm": lstm.FAMILY,
    "simple_rnn": simple_rnn.FAMILY,
    "dense_rnn": dense_rnn.FAMILY,
    "conv_rnn": conv_rnn.FAMILY,
    "birnn": birnn.FAMILY,
    "conv2d_rnn": conv2d_rnn.FAMILY,
    "tcn": tcn.FAMILY,
    "unet1d": unet1d.FAMILY,
    "transformer": transformer.FAMILY,
}


class _AnyParams(Params):
    """Params of a user's own family: the common ones checked, the rest as written."""

    model_config = ConfigDict(extra="allow", frozen=True)


def find_family(name: str) -> Family[Any]:
    """The entry of a family: one of the table, or a user's own as ``package.module:function``.

    The function takes ``params`` (a mapping) and ``n_samples`` and returns a Keras model of the same inputs and
    outputs as the families here; see :class:`~tunelab.models.family.Family`.

    Raises:
        ModelError: no such family, module or function.
    """
    if name in FAMILIES:
        return FAMILIES[name]
    module, colon, function = name.partition(":")
    if not colon:
        raise ModelError(f"family: {name!r} is none{did_you_mean(name, FAMILIES)}; your own is package.module:function")
    try:
        build = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, ValueError, TypeError) as error:
        raise ModelError(f"family: {name}: {error}; put the module on PYTHONPATH") from error
    if not callable(build):
        raise ModelError(f"family: {name}: {function} is no function; name one that takes params and n_samples")

    def own(params: _AnyParams, n_samples: int) -> keras.Model:
        return build(params.model_dump(), n_samples)

    return Family(params=_AnyParams, own=own, outline=lambda params: function)


def checked(raw: Mapping[str, Any], place: str = "params") -> Any:
    """The params object of a family.

    Args:
        raw: ``{"family": ..., ...}`` as written or proposed.
        place: where they came from, for the message.

    Raises:
        ModelError: an unknown family, key or value.
    """
    name = raw.get("family")
    if not isinstance(name, str):
        raise ModelError(f"{place}: family: missing; known are {', '.join(FAMILIES)}")
    try:
        schema = find_family(name).params
        return schema.model_validate(dict(raw))
    except ValidationError as error:
        raise ModelError(f"{place}: {explain(error, schema)}") from None
    except ModelError as error:
        raise ModelError(f"{place}: {error}") from None


def normalise(raw: Mapping[str, Any], place: str = "params") -> dict[str, Any]:
    """Params in full: defaults filled in, one number for a list or for several penalties written out.

    Args:
        raw: ``{"family": ..., ...}`` as written or proposed.
        place: where they came from, for the message.

    Raises:
        ModelError: an unknown family, key or value.
    """
    full: dict[str, Any] = checked(raw, place).model_dump(mode="json")
    return full


def build_model(params: Mapping[str, Any], n_samples: int, statistics: Statistics | None = None) -> keras.Model:
    """The Keras model of these params, not compiled.

    Args:
        params: ``{"family": ..., ...}``.
        n_samples: samples a trace, after preprocessing.
        statistics: of the training scans after preprocessing; needed, and used, only where params ask for
            normalisation. They become part of the model, as constants in front of what the family builds.

    Returns:
        A model of ``{"traces": (scan, trace, sample), "lengths": (scan,)}`` that answers (scan, trace, 2).

    Raises:
        ModelError: params that the family does not take, a convolution that does not fit the samples, or
            statistics that are missing or of another number of samples.
    """
    family, typed = _fitting(params, n_samples)
    given = _given(typed, n_samples, statistics)
    import keras

    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(typed.precision)
    try:
        if family.own is None and not typed.plain:
            from tunelab.models.fast_stack import FastStack

            fast = FastStack(n_samples, typed.batch_norm_momentum, given)
            return fast.answer(family.assemble(typed, fast), typed.family)
        model = _plain(family, typed, n_samples)
        if given is None:
            return model
        from tunelab.models.layers import normalised_inputs

        return normalised_inputs(model, given)
    finally:
        keras.config.set_dtype_policy(before)


def _plain(family: Family[Any], typed: Any, n_samples: int) -> keras.Model:
    """The model of plain Keras layers."""
    if family.own is not None:
        return family.own(typed, n_samples)
    from tunelab.models.plain_stack import PlainStack

    stack = PlainStack(n_samples, typed.batch_norm_momentum)
    return stack.answer(family.assemble(typed, stack), typed.family)


def cost_of(params: Mapping[str, Any], n_samples: int) -> Cost | None:
    """What a model of these params costs, without building it; None for a family of one's own.

    Args:
        params: ``{"family": ..., ...}``.
        n_samples: samples a trace, after preprocessing.

    Raises:
        ModelError: as :func:`build_model`.
    """
    family, typed = _fitting(params, n_samples)
    if family.own is not None:
        return None
    tally = Tally(n_samples)
    return tally.cost(family.assemble(typed, tally))


def _given(typed: Params, n_samples: int, statistics: Statistics | None) -> Statistics | None:
    """What traces are normalised by."""
    if typed.normalisation == "none":
        return None
    if statistics is None:
        raise ModelError(
            f"normalisation: {typed.normalisation} needs the statistics of the training scans, and none are given; "
            "give them, or take none"
        )
    if len(statistics.mean) != n_samples:
        raise ModelError(
            f"normalisation: statistics of {len(statistics.mean)} samples do not fit a model of {n_samples}; gather "
            "them after the same preprocessing"
        )
    return (statistics.pooled() if typed.normalisation == "global" else statistics).clamped()


def outline(params: Mapping[str, Any]) -> str:
    """The model's layers in one word."""
    return find_family(params["family"]).outline(checked(params))


def check_fit(params: Mapping[str, Any], n_samples: int) -> None:
    """Raise ModelError when no model of these params can be built for this number of samples."""
    _fitting(params, n_samples)


def _fitting(params: Mapping[str, Any], n_samples: int) -> tuple[Family[Any], Any]:
    family, typed = find_family(params["family"]), checked(params)
    family.fits(typed, n_samples)
    return family, typed
