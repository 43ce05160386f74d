"""Why Ray lost the process below a trial, in words, and whether its node went with it. Nothing is decided here."""

from __future__ import annotations

from typing import Any

from ray.exceptions import ActorUnschedulableError, NodeDiedError, OutOfMemoryError, RayActorError, RayTaskError

_NODE_LOST = ("node has died", "node was terminated", "node died", "preempted")


def cause_of(error: Any) -> str:
    """An error of Ray's in one line of words.

    Args:
        error: what Ray gave up a trial with; None when it does not say.
    """
    if error is None:
        return "its process was lost"
    if isinstance(error, OutOfMemoryError):
        return "out of memory: Ray ended its process since the node had none left; lower --concurrent or batch_size"
    if is_node_lost(error):
        return f"its node was lost ({_short(error)})"
    if isinstance(error, RayTaskError):
        return f"{type(error.cause).__name__}: {_short(error.cause)}"
    return f"its process was lost ({_short(error)})"


def is_node_lost(error: Any) -> bool:
    """Whether the machine below the trial is gone, which is not the trial's doing."""
    if isinstance(error, ActorUnschedulableError | NodeDiedError):
        return True
    if not isinstance(error, RayActorError) or isinstance(error, OutOfMemoryError):
        return False
    return bool(getattr(error, "preempted", False)) or any(words in str(error).lower() for words in _NODE_LOST)


def _short(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]
