"""Why Ray lost the process below a trial, in words, and whether its node went with it. Nothing is decided here.

Ray writes each error that it gave a trial's process up for into a text file of the driver's own; that is read. The
error itself lies beside it as a pickle, which is not.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import ray

UNKNOWN = "its process was lost"
_FAILURE = re.compile(r"^Failure # \d+ \(occurred at [^)]*\)$", re.MULTILINE)
_NODE_LOST = ("its node has died", "node crashed", "preempt", "node was terminated", "node it was running on is dead")
_UNAVAILABLE = "is unavailable: "
_IRRELEVANT = re.compile(r"^\s*(class_name|actor_id|pid|name|namespace|ip): .*$", re.MULTILINE)


def last_error(trial: Any) -> str:
    """What Ray wrote of the newest failure of a trial's process; empty where it wrote nothing.

    Args:
        trial: Ray's.
    """
    path = trial.error_file
    try:
        text = Path(path).read_text(encoding="utf-8", errors="replace") if path else ""
    except OSError:
        return ""
    return _FAILURE.split(text)[-1].strip()


def cause_of(text: str) -> str:
    """An error of Ray's in one line of words.

    Args:
        text: as :func:`last_error` gives it.
    """
    said = " ".join(_IRRELEVANT.sub("", text).split())[:300]
    if not said:
        return UNKNOWN
    if "running low on memory" in text:
        return "out of memory: Ray ended its process since the node had none left; lower --concurrent or batch_size"
    if is_doubtful(text) and not is_node_lost(text):
        return f"{UNKNOWN}: the connection to it closed"
    return f"its node was lost ({said})" if is_node_lost(text) else f"{UNKNOWN} ({said})"


def is_node_lost(text: str) -> bool:
    """Whether Ray says that the machine below the trial is gone, which is not the trial's doing.

    Args:
        text: as :func:`last_error` gives it.
    """
    return any(words in text.lower() for words in _NODE_LOST)


def is_doubtful(text: str) -> bool:
    """Whether Ray only saw a connection close, so that the process may be gone, or its node.

    Args:
        text: as :func:`last_error` gives it.
    """
    return _UNAVAILABLE in text


def nodes_alive() -> set[str]:
    """The nodes of the cluster that are there; none without a cluster."""
    if not ray.is_initialized():
        return set()
    return {str(node["NodeID"]) for node in ray.nodes() if node["Alive"]}
