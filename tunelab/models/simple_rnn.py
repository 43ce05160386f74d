"""simple_rnn: one batch normalisation, then plain recurrent layers, every sample of a trace an input."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import model_validator

from tunelab.models.family import Family, Layers, Params, Penalty, Rate, as_list, check_lengths, length

if TYPE_CHECKING:
    import keras

    from tunelab.statistics import Statistics


class SimpleRnnParams(Params):
    """A stack of plain recurrent layers."""

    family: Literal["simple_rnn"] = "simple_rnn"
    units: Layers
    """Of each layer, the first one first."""
    dropout: tuple[Rate, ...]
    """Of each layer's inputs; one number stands for all."""
    l2: Penalty
    """On the layers' input kernels."""

    _fill = model_validator(mode="before")(as_list("dropout", lambda raw: length(raw, "units")))
    _lengths = model_validator(mode="after")(check_lengths("dropout", lambda p: len(p.units), "units"))


def build(params: SimpleRnnParams, n_samples: int, given: Statistics | None) -> keras.Model:
    """The model of fast layers; shapes as in :class:`~tunelab.models.family.Family`."""
    from tunelab.models.dials import penalty
    from tunelab.models.folded import HoistedSimpleRNN, SampleNormalization
    from tunelab.models.layers import head, measured_inputs

    inputs, x, mask = measured_inputs(n_samples)
    affine = SampleNormalization(params.batch_norm_momentum, given)(x, mask, inputs["moments"])
    for units, dropout in zip(params.units, params.dropout, strict=True):
        x = HoistedSimpleRNN(units, dropout=dropout, kernel_regularizer=penalty(params.l2))(x, affine)
        affine = None
    return head(inputs, x, "simple_rnn")


def plain(params: SimpleRnnParams, n_samples: int) -> keras.Model:
    """The model of plain layers; shapes as in :class:`~tunelab.models.family.Family`."""
    from tunelab.models.layers import batch_norm, head, radar_inputs, simple_rnn

    inputs, x, mask = radar_inputs(n_samples)
    x = batch_norm(x, mask, params.batch_norm_momentum)
    for units, dropout in zip(params.units, params.dropout, strict=True):
        x = simple_rnn(x, mask, units, dropout, params.l2)
    return head(inputs, x, "simple_rnn")


def outline(params: SimpleRnnParams) -> str:
    """Such as ``rnn100-rnn100``."""
    return "-".join(f"rnn{units}" for units in params.units)


FAMILY = Family(params=SimpleRnnParams, plain=plain, build=build, dials=frozenset({"dropout", "l2"}), outline=outline)
