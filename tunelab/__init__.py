"""tunelab: hyperparameter search for Keras models that label every step of long, wide sequences.

Start at :mod:`tunelab.search`. Importing this package imports nothing heavy.
"""

__version__ = "0.1.0"
