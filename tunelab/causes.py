"""An exception of a trial, or the end of its process -> the cause in a sentence, and whether the trial is to blame.

Frameworks are told by the names of their classes and by their texts, so that none is imported here.
"""

from __future__ import annotations

import errno
import re
import signal
import traceback

from tunelab.errors import StorageError, TunelabError

_LONGEST = 500
_FRAMES = 3
_FULL = (errno.ENOSPC, errno.EROFS, errno.EDQUOT)
_OUT_OF_MEMORY = ("RESOURCE_EXHAUSTED", "CUDA_ERROR_OUT_OF_MEMORY")
"""In texts of jax and of TensorFlow's runtime, whose classes are the same for other faults."""


def is_storage(error: BaseException) -> bool:
    """Whether a place that is full, read-only or gone is to blame, and not the trial."""
    return isinstance(error, StorageError) or (isinstance(error, OSError) and error.errno in _FULL)


def cause_of(error: BaseException, *, debug: bool = False) -> str:
    """Why a trial failed, in a sentence.

    Args:
        error: what was raised.
        debug: give the whole traceback where nothing better is known.
    """
    text = " ".join(str(error).split())[:_LONGEST]
    if isinstance(error, TunelabError):
        return str(error)
    if _out_of_memory(error):
        remedy = "lower batch_size or units, or give a trial more memory"
        return f"out of memory: {text or type(error).__name__}; {remedy}"
    if debug:
        return "".join(traceback.format_exception(error))
    return f"{type(error).__name__}: {text}"


def innermost(stacks: str) -> list[str]:
    """The innermost frames of the thread that was interrupted, ``step (trainer.py:42)``, innermost first.

    Args:
        stacks: as :mod:`faulthandler` writes them.
    """
    current = stacks.partition("Current thread")[2].partition("\n\n")[0]
    found = re.findall(r'File "(?:[^"]*/)?([^"]*)", line (\d+) in (.+)', current)
    return [f"{function} ({file}:{line})" for file, line, function in found[:_FRAMES]]


def signalled(number: int) -> str:
    """What a signal that ended a process says of it."""
    try:
        name = signal.Signals(number).name
    except ValueError:
        name = "unknown"
    perhaps = ", perhaps out of memory" if number == signal.SIGKILL else ""
    return f"killed by signal {number} ({name}){perhaps}"


def _out_of_memory(error: BaseException) -> bool:
    names = {kind.__name__ for kind in type(error).__mro__}
    return bool(names & {"MemoryError", "ResourceExhaustedError"}) or any(w in str(error) for w in _OUT_OF_MEMORY)
