"""lstm: [batch normalisation -> LSTM] for each layer, every sample of a trace an input."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import model_validator

from tunelab.models.family import Family, Layers, Params, Penalty, Rate, as_list, check_lengths, length

if TYPE_CHECKING:
    import keras

    from tunelab.statistics import Statistics


class LstmParams(Params):
    """A stack of LSTM layers."""

    family: Literal["lstm"] = "lstm"
    units: Layers
    """Of each layer, the first one first."""
    dropout: tuple[Rate, ...]
    """Of each layer's inputs; one number stands for all."""
    l2: Penalty
    """On the layers' input kernels."""

    _fill = model_validator(mode="before")(as_list("dropout", lambda raw: length(raw, "units")))
    _lengths = model_validator(mode="after")(check_lengths("dropout", lambda p: len(p.units), "units"))


def build(params: LstmParams, n_samples: int, given: Statistics | None) -> keras.Model:
    """The model of fast layers; shapes as in :class:`~tunelab.models.family.Family`."""
    from tunelab.models.dials import penalty
    from tunelab.models.folded import HoistedLSTM, SampleNormalization
    from tunelab.models.layers import head, measured_inputs
    from tunelab.models.rows import RowNormalization

    inputs, x, mask = measured_inputs(n_samples)
    affine = SampleNormalization(params.batch_norm_momentum, given)(x, mask, inputs["moments"])
    for units, dropout in zip(params.units, params.dropout, strict=True):
        x = x if affine is not None else RowNormalization(params.batch_norm_momentum)(x, mask)
        x = HoistedLSTM(units, dropout=dropout, kernel_regularizer=penalty(params.l2))(x, affine)
        affine = None
    return head(inputs, x, "lstm")


def plain(params: LstmParams, n_samples: int) -> keras.Model:
    """The model of plain layers; shapes as in :class:`~tunelab.models.family.Family`."""
    import keras

    from tunelab.models.layers import batch_norm, head, penalty, radar_inputs

    inputs, x, mask = radar_inputs(n_samples)
    for units, dropout in zip(params.units, params.dropout, strict=True):
        x = batch_norm(x, mask, params.batch_norm_momentum)
        x = keras.layers.LSTM(units, return_sequences=True, dropout=dropout, kernel_regularizer=penalty(params.l2))(
            x, mask=mask
        )
    return head(inputs, x, "lstm")


def outline(params: LstmParams) -> str:
    """Such as ``lstm100-lstm200``."""
    return "-".join(f"lstm{units}" for units in params.units)


FAMILY = Family(params=LstmParams, plain=plain, build=build, dials=frozenset({"dropout", "l2"}), outline=outline)
