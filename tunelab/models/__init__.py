"""Families of models: params -> a Keras model that labels every trace of a scan.

One file a family, all of one shape: ``Params`` (what the family takes, checked where text enters), ``assemble`` (which
layers follow each other) and the :class:`~tunelab.models.family.Family` entry of the table. Keras is imported where a
model is built, so that the driver can check a space, and tell what its models cost, without it.
"""

from tunelab.models.sharing import has_dials, structure
from tunelab.models.spaces import chains, check_space, examples, locate, open_space, starts
from tunelab.models.table import FAMILIES, build_model, check_fit, cost_of, normalise, outline

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
    "open_space",
    "outline",
    "starts",
    "structure",
]
