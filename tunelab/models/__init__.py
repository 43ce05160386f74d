"""Families of models: params -> a Keras model that labels every trace of a scan.

One file a family, all of one shape: ``Params`` (what the family takes, checked where text enters), ``build`` and the
:class:`~tunelab.models.family.Family` entry of the table. Keras is imported inside the builders, so that the driver
can check a space without it.
"""

from tunelab.models.sharing import has_dials, structure
from tunelab.models.table import (
    FAMILIES,
    build_model,
    chains,
    check_fit,
    check_space,
    cost_of,
    examples,
    locate,
    normalise,
    outline,
    starts,
)

__all__ = [
    "FAMILIES",
    "build_model",
    "chains",
    "check_fit",
    "check_space",
    "cost_of",
    "examples",
    "has_dials",
    "locate",
    "normalise",
    "outline",
    "starts",
    "structure",
]
