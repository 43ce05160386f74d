"""The average of weights over epochs, newer ones counting for more. No framework is known here."""

from __future__ import annotations

import numpy as np

from tunelab.checkpoint import Arrays


def averaged(average: Arrays, weights: Arrays, share: float, epoch: int) -> Arrays:
    """The average with one more epoch: ``m = a m + (1 - a) w`` from zero, over ``1 - a ** epoch`` as in Adam.

    That quotient itself is what goes in and comes out: it is a mean of the quotient before and the new weights, by
    what each counts. So nothing is divided by a small number, and variances stay above zero.

    Args:
        average: of the epochs before, in the order of ``weights``; not looked at in the first epoch.
        weights: after this epoch, floats among them and what else a model counts, which is taken as it is.
        share: of the average that is kept (a).
        epoch: the number of this one, from 1.
    """
    if epoch == 1:
        return weights
    new = (1 - share) / (1 - share**epoch)
    return [
        ((1 - new) * old + new * own).astype(own.dtype) if np.issubdtype(own.dtype, np.floating) else own
        for old, own in zip(average, weights, strict=True)
    ]
