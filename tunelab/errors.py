"""The exceptions that tunelab raises on purpose, and the exit code of each.

::

    TunelabError                  1
    ├── UsageError                2   a wrong option, name or configuration
    │   ├── SpaceError            2   a search space that cannot be searched
    │   └── ModelError            2   params that no model can be built from
    ├── DataError                 3   scans, labels or splits that cannot be used
    ├── NoTrialSucceededError     4   a search that ended without a winner
    ├── StorageError              5   a folder or bucket that cannot be written or read
    ├── RunBusyError              6   another process holds the run
    ├── StateError                7   stored state that is corrupt or incompatible
    └── ClusterError              8   cluster, token, tunnel, or a GPU that is not there

A message says the value, the rule it breaks, the place (file: key) and the next step. It is all that a user sees; the
traceback comes with ``--debug``. Interrupted searches end with 130 (SIGINT) or 143 (SIGTERM), and a command whose
output is read no more with 141 (SIGPIPE), which are no errors.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

EXIT_INTERRUPTED = 130
EXIT_UNREAD = 141
EXIT_TERMINATED = 143


class TunelabError(Exception):
    """Base of every error that tunelab raises on purpose."""

    exit_code = 1


class UsageError(TunelabError):
    """A command line, name or configuration that means nothing."""

    exit_code = 2


class SpaceError(UsageError):
    """A search space that cannot be searched; names the file and the key."""


class ModelError(UsageError):
    """Params from which no model can be built on these data."""


class DataError(TunelabError):
    """Scans, labels or splits that cannot be used; names the file."""

    exit_code = 3


class NoTrialSucceededError(TunelabError):
    """Every trial of a search failed, or none keeps the constraints; the causes are grouped."""

    exit_code = 4


class StorageError(TunelabError):
    """A folder or bucket that cannot be written or read."""

    exit_code = 5


class RunBusyError(TunelabError):
    """Another process writes to this run."""

    exit_code = 6


class StateError(TunelabError):
    """Stored state that is corrupt, or was written by an incompatible version."""

    exit_code = 7


class ClusterError(TunelabError):
    """A cluster that cannot be reached, or that lacks what a trial asked for."""

    exit_code = 8


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A hint ``; did you mean 'dropout'?`` for a misspelled word, or the known words when none is near.

    Args:
        word: what was written.
        known: what could have been written.
    """
    names = sorted(known)
    near = difflib.get_close_matches(word, names, n=1, cutoff=0.6)
    if near:
        return f"; did you mean {near[0]!r}?"
    return f"; known are {', '.join(names)}" if names else ""
