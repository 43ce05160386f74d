"""Why Ray lost a process, in words, and whether it was the trial's own doing; the texts are Ray's."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from tunelab.tuning.losses import UNKNOWN, cause_of, is_doubtful, is_node_lost, last_error

ACTOR = """The actor died unexpectedly before finishing this task.
\tclass_name: with_resources.<locals>.ResourceTrainable
\tactor_id: 1a0083389d8acd1d3d75fcaa01000000
\tpid: 17353
\tip: 127.0.0.1
"""
BEGINNING = "The actor died unexpectedly before finishing this task."


@pytest.mark.parametrize(
    ("text", "cause", "node"),
    [
        ("", UNKNOWN, False),
        (
            f"{ACTOR}The actor is dead because its worker process has died. Worker exit type: SYSTEM_ERROR",
            f"{UNKNOWN} ({BEGINNING} The actor is dead because its worker process has died. "
            "Worker exit type: SYSTEM_ERROR)",
            False,
        ),
        (
            f"{ACTOR}The actor died because its node has died. Node Id: 12",
            f"its node was lost ({BEGINNING} The actor died because its node has died. Node Id: 12)",
            True,
        ),
        (f"{ACTOR}Actor died by preemption.", f"its node was lost ({BEGINNING} Actor died by preemption.)", True),
        (
            "1 worker(s) were killed due to the node running low on memory. Worker: 3",
            "out of memory: Ray ended its process since the node had none left; lower --concurrent or batch_size",
            False,
        ),
    ],
)
def test_causes(text: str, cause: str, node: bool) -> None:
    assert is_node_lost(text) == node
    assert cause_of(text) == cause
    assert not is_doubtful(text)


def test_a_connection_that_closed_leaves_it_open_what_was_lost() -> None:
    text = "The actor d404 is unavailable: The actor is temporarily unavailable: RpcError: RPC error: Socket closed"
    assert is_doubtful(text)
    assert not is_node_lost(text)
    assert cause_of(text) == f"{UNKNOWN}: the connection to it closed"


def test_the_newest_failure_counts(tmp_path: Path) -> None:
    path = tmp_path / "error.txt"
    trial = SimpleNamespace(error_file=str(path))
    assert last_error(trial) == ""
    assert last_error(SimpleNamespace(error_file=None)) == ""
    first = "Failure # 1 (occurred at 2026-11-25_10-00-00)\nits node has died\n"
    path.write_text(f"{first}Failure # 2 (occurred at 2026-11-25_10-00-09)\nsomething\nelse\n")
    assert last_error(trial) == "something\nelse"
