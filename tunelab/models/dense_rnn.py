"""dense_rnn: batch normalisation, linear dense layers within each trace, then plain recurrent layers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import model_validator

from tunelab.models.family import Family, Layers, Params, Penalty, Rate, as_list, check_lengths, length

if TYPE_CHECKING:
    import keras

    from tunelab.statistics import Statistics


class DenseRnnParams(Params):
    """Dense layers in front of recurrent ones."""

    family: Literal["dense_rnn"] = "dense_rnn"
    dense: Layers
    """Units of each dense layer."""
    units: Layers
    """Of each recurrent layer."""
    dropout: tuple[Rate, ...]
    """After each dense layer, then of each recurrent layer's inputs; one number stands for all."""
    l2: Penalty
    """On the kernels of dense layers and the input kernels of recurrent ones."""

    _fill = model_validator(mode="before")(
        as_list("dropout", lambda raw: length(raw, "dense") + length(raw, "units")),
    )
    _lengths = model_validator(mode="after")(
        check_lengths("dropout", lambda p: len(p.dense) + len(p.units), "dense and units together"),
    )


def build(params: DenseRnnParams, n_samples: int, given: Statistics | None) -> keras.Model:
    """The model of fast layers; shapes as in :class:`~tunelab.models.family.Family`."""
    import keras

    from tunelab.models.dials import penalty
    from tunelab.models.folded import FoldedDense, HoistedSimpleRNN, SampleNormalization
    from tunelab.models.layers import head, measured_inputs
    from tunelab.models.rows import RateDropout, RowNormalization

    inputs, x, mask = measured_inputs(n_samples)
    affine = SampleNormalization(params.batch_norm_momentum, given)(x, mask, inputs["moments"])
    for units, dropout in zip(params.dense, params.dropout, strict=False):
        if affine is not None:
            x, affine = FoldedDense(units, kernel_regularizer=penalty(params.l2))(x, affine), None
        else:
            x = keras.layers.Dense(units, kernel_regularizer=penalty(params.l2))(x)
        if dropout:
            x = RateDropout(dropout)(x)
        x = RowNormalization(params.batch_norm_momentum)(x, mask)
    for units, dropout in zip(params.units, params.dropout[len(params.dense) :], strict=True):
        x = HoistedSimpleRNN(units, dropout=dropout, kernel_regularizer=penalty(params.l2))(x)
    return head(inputs, x, "dense_rnn")


def plain(params: DenseRnnParams, n_samples: int) -> keras.Model:
    """The model of plain layers; shapes as in :class:`~tunelab.models.family.Family`."""
    import keras

    from tunelab.models.layers import batch_norm, head, penalty, radar_inputs, simple_rnn

    inputs, x, mask = radar_inputs(n_samples)
    x = batch_norm(x, mask, params.batch_norm_momentum)
    for units, dropout in zip(params.dense, params.dropout, strict=False):
        x = keras.layers.Dense(units, kernel_regularizer=penalty(params.l2))(x)
        if dropout:
            x = keras.layers.Dropout(dropout)(x)
        x = batch_norm(x, mask, params.batch_norm_momentum)
    for units, dropout in zip(params.units, params.dropout[len(params.dense) :], strict=True):
        x = simple_rnn(x, mask, units, dropout, params.l2)
    return head(inputs, x, "dense_rnn")


def outline(params: DenseRnnParams) -> str:
    """Such as ``dense100-rnn100``."""
    return "-".join([f"dense{units}" for units in params.dense] + [f"rnn{units}" for units in params.units])


FAMILY = Family(params=DenseRnnParams, plain=plain, build=build, dials=frozenset({"dropout", "l2"}), outline=outline)
