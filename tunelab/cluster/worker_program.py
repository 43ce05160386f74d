"""On the head of a cluster, as a job: run a program of Python on a worker that is there, and say what it printed.

    python -c "$(cat worker_program.py)" 'print(1)'

Sent there as text by :mod:`tunelab.cluster.on_worker`, so it takes Ray and the standard library alone. No worker is
ever started for it: it takes nothing of a machine's resources, and is bound to one that runs.
"""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

ANSWER = "tunelab-worker: "
"""Before the answer: ``said``, what the program printed; ``none``, no worker runs; or ``failed``, why none did it."""
SECONDS = 90
"""That the program may take."""


def run(program: str) -> str:
    """What a program prints here, errors too."""
    done = subprocess.run(
        [sys.executable, "-c", program],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        timeout=SECONDS,
        check=False,
    )
    return done.stdout


def workers(nodes: Sequence[dict[str, Any]]) -> list[str]:
    """The machines that run and are no head, of those that Ray knows."""
    return [
        str(node["NodeID"])
        for node in nodes
        if node["Alive"] and "node:__internal_head__" not in (node.get("Resources") or {})
    ]


def main(program: str) -> dict[str, Any]:
    """Run it on the first worker that takes it."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    ray.init(address="auto", log_to_driver=False, logging_level=logging.ERROR)
    failed = ""
    for node in workers(ray.nodes()):
        bound = NodeAffinitySchedulingStrategy(node, soft=False)
        task = ray.remote(num_cpus=0, max_retries=0, scheduling_strategy=bound)(run)
        try:
            return {"said": ray.get(task.remote(program), timeout=SECONDS + 30)}
        except Exception as error:  # noqa: BLE001 - it may have gone in this moment; another one may be there
            failed = str(error).strip() or type(error).__name__
    return {"failed": failed} if failed else {"none": True}


if __name__ == "__main__":
    print(ANSWER + json.dumps(main(sys.argv[1])), flush=True)
