"""While a search goes on: its report written again, and its folder copied to the bucket, once a period."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console

from tunelab.errors import RunBusyError, StateError, StorageError
from tunelab.mirror import Mirror
from tunelab.progress import plain
from tunelab.report import write_report
from tunelab.tuning.hold import Hold
from tunelab.tuning.record import Recorder

MOST = 0.03
"""Share of the time that reports may take; where they take longer they are written less often."""


@dataclass(slots=True)
class Spent:
    """Seconds that keeping took so far, beside the search."""

    reports: float = 0.0


@contextmanager
def kept(hold: Hold, mirror: Mirror | None, every: float, recorder: Recorder, console: Console) -> Iterator[Spent]:
    """Write the report and send what has changed, once a period, until the block ends.

    A bucket that cannot be reached is said, once for each way in which it cannot, and tried again; the search goes on.
    A run that another process took over ends the search.

    Args:
        hold: the run.
        mirror: of the folder; None: it has no bucket.
        every: seconds.
        recorder: told what must end the search.
        console: for warnings.

    Yields:
        What it takes.
    """
    spent = Spent()
    over = threading.Event()
    if hold.lease is not None and hold.lease.warning:
        plain(console, f"Warning: {hold.lease.warning}")

    def work() -> None:
        said, next_look = "", time.monotonic()  # a run is in its bucket as soon as it begins
        due = next_look + every
        while not over.wait(max(next_look - time.monotonic(), 0.0)):
            began = time.monotonic()
            next_look = began + every
            if began >= due:
                try:
                    write_report(hold.folder)
                except (StateError, StorageError):
                    pass  # tried again; at the end it is an error
                taken = time.monotonic() - began
                due = began + taken / MOST
                spent.reports += taken
            try:
                hold.journal.lease.check()
                if mirror is None:
                    continue
                mirror.sync()
            except (StateError, StorageError):
                pass  # `warning` says it; the next period tries again, and what does not pass is an error at the end
            except RunBusyError as error:
                recorder.fail(error)
                return
            if mirror is None:
                continue
            if mirror.warning and mirror.warning != said:
                plain(console, f"Warning: {mirror.warning}")
            said = mirror.warning

    thread = threading.Thread(target=work, name="keeper", daemon=True)
    thread.start()
    try:
        yield spent
    finally:
        over.set()
        thread.join()
