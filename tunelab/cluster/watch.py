"""On a machine of a cluster: end it when nobody needs it any more. A forgotten cluster costs money for ever.

    python -m tunelab.cluster.watch head --minutes 60
    python -m tunelab.cluster.watch worker --head 10.0.0.7 --minutes 15

The head's watch asks Ray for its jobs, searches and other drivers alike, and shuts the machine down when none has run
for a while; Ray has ended idle workers long before. A worker's watch shuts its machine down when the head has not
answered for a while, since nobody else would. Whether a machine that shuts down is gone for good is for the
cluster's file to say (``InstanceInitiatedShutdownBehavior: terminate``).
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path

from tunelab.cluster.job import OVER
from tunelab.cluster.jobs import token_of

DASHBOARD = "http://127.0.0.1:8265"
GCS_PORT = 6379
SHUTDOWN = ("sudo", "shutdown", "-h", "now")
POLL_SECONDS = 20.0
PID_FILE = Path("~/.tunelab_watch")


def jobs_run(address: str = DASHBOARD) -> bool:
    """Whether a job runs, or waits to; a head that does not answer has none that could."""
    request = urllib.request.Request(f"{address}/api/jobs/")  # noqa: S310 - the loopback
    if token := token_of():
        request.add_header("Authorization", f"Bearer {token}")
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
            return any(job["status"] not in OVER for job in json.load(answer))
    except (OSError, ValueError, TypeError, LookupError, http.client.HTTPException):
        return False  # a watch that ended by what it was told would end nothing any more


def head_answers(host: str, port: int = GCS_PORT) -> bool:
    """Whether Ray's head is there."""
    try:
        socket.create_connection((host, port), timeout=5).close()
    except OSError:
        return False
    return True


def take_over(file: Path) -> None:
    """End the watch that an earlier `ray up` started on this machine, and stand in its place.

    Args:
        file: where the one that watches writes its process id.
    """
    try:
        earlier = int(file.read_text())
        if b"tunelab.cluster.watch" in Path(f"/proc/{earlier}/cmdline").read_bytes() and earlier != os.getpid():
            os.kill(earlier, signal.SIGTERM)
    except (OSError, ValueError):
        pass  # there is none, or it is over
    file.write_text(str(os.getpid()))


def watch(needed: Callable[[], bool], minutes: float, shutdown: Sequence[str], poll: float = POLL_SECONDS) -> int:
    """Wait until a machine has not been needed for a while, then shut it down.

    Args:
        needed: whether it is needed now.
        minutes: for so long it was not.
        shutdown: the command that ends the machine.
        poll: seconds between two looks.

    Returns:
        The command's exit code.
    """
    last = time.monotonic()
    while True:  # a look comes right before the end, however long the machine stood still between two
        if needed():
            last = time.monotonic()
        elif time.monotonic() - last >= minutes * 60:
            break
        time.sleep(poll)
    print(f"{datetime.now():%Y-%m-%d %H:%M:%S} nobody has needed this machine for {minutes:g} minutes", flush=True)
    return subprocess.run(shutdown, check=False).returncode


def main(argv: Sequence[str] | None = None) -> int:
    """Watch as the command line says."""
    parser = argparse.ArgumentParser(prog="python -m tunelab.cluster.watch", description=__doc__)
    parser.add_argument("role", choices=("head", "worker"))
    parser.add_argument("--minutes", type=float, required=True, metavar="N", help="without being needed")
    parser.add_argument("--head", metavar="ADDRESS", help="of a worker's head")
    parser.add_argument("--poll", type=float, default=POLL_SECONDS, metavar="SECONDS", help="between two looks")
    parser.add_argument(
        "--shutdown", nargs="+", default=SHUTDOWN, metavar="WORD", help="the command that ends the machine"
    )
    args = parser.parse_args(argv)
    if args.role == "worker" and not args.head:
        parser.error("--head: missing; a worker's watch has to know it")
    take_over(PID_FILE.expanduser())
    needed = jobs_run if args.role == "head" else lambda: head_answers(args.head)
    return watch(needed, args.minutes, args.shutdown, args.poll)


if __name__ == "__main__":
    sys.exit(main())
