"""On the head of a cluster: TensorBoard of a run there, for as long as somebody writes to this process's input.

    python -c "$(cat tensorboard_there.py)" NAME PORT

Sent there as text by :mod:`tunelab.cluster.curves`, so it takes the standard library alone. It listens on the head's
loopback, ends when its input does, and also when that has been silent for a while: a line that was cut may end nothing.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

RUNS = "~/tunelab-runs/runs"
"""Where searches that were handed over have their folders."""
QUIET_SECONDS = 60.0
NO_RUN, OVER = 93, 94
"""Exit codes: there is no such run, and those that are were printed; TensorBoard ended by itself."""
_LOOK_SECONDS = 0.5
_ENDING = 10.0


def main(name: str, port: str, quiet: float = QUIET_SECONDS) -> int:
    """Serve until nobody is there.

    Args:
        name: of the run.
        port: on the loopback.
        quiet: seconds without a sign after which nobody is taken to be there.
    """
    runs = Path(RUNS).expanduser()
    if not (runs / name / "journal.jsonl").is_file():
        print(", ".join(sorted(path.parent.name for path in runs.glob("*/journal.jsonl"))), flush=True)
        return NO_RUN
    words = ["--logdir", str(runs / name / "tensorboard"), "--host", "127.0.0.1", "--port", port]
    server = subprocess.Popen(
        [sys.executable, "-m", "tensorboard.main", *words],
        stdin=subprocess.DEVNULL,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        heard = time.monotonic()
        while server.poll() is None and time.monotonic() - heard < quiet:
            if select.select([0], [], [], _LOOK_SECONDS)[0]:
                if not os.read(0, 4096):
                    return 0
                heard = time.monotonic()
        return 0 if server.poll() is None else OVER
    finally:
        server.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            server.wait(_ENDING)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2]))
