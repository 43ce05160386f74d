"""When a search is over before its trials are: its time, GPU-hours, cost, a signal, or that it goes on in vain.

Whichever comes first. GPU-hours and cost are those of the journal (:mod:`tunelab.spending`), and so is what was in vain
(:mod:`tunelab.tuning.in_vain`), looked at again whenever Ray asks whether to go on.
"""

from __future__ import annotations

import threading
import time
from typing import Any

from tunelab.errors import UsageError
from tunelab.journal import Journal
from tunelab.ranking import Leaderboard
from tunelab.spending import Spending, session_seconds
from tunelab.tuning.cost import Meter
from tunelab.tuning.in_vain import InVain

ALL_OVER = "all trials were over"


class Budget:
    """What one session of a search may use.

    Args:
        journal: of the run, in its newest session.
        trials: how many there are to be; None: no limit.
        seconds: over all sessions; None: no limit.
        gpu_hours: likewise.
        begun: ``time.monotonic()`` when this session began.
        max_cost: US dollars, over all sessions; None: no limit.
        meter: writes into the journal what machines cost; None: nobody knows.
    """

    def __init__(
        self,
        journal: Journal,
        *,
        trials: int | None,
        seconds: float | None,
        gpu_hours: float | None,
        begun: float,
        max_cost: float | None = None,
        meter: Meter | None = None,
    ) -> None:
        self.seconds = seconds
        self.gpu_hours = gpu_hours
        self.max_cost = max_cost
        self._meter = meter
        self.begun = begun - session_seconds(journal.records)
        """When the run would have begun, had it gone on without a break."""
        self._trials = trials
        self._journal = journal
        self._spending = Spending()
        self._in_vain = InVain()
        self.vain = 0
        """How many trials in a row failed for one cause, which ended the session; 0: it did not."""
        self._read = 0
        """Records that were folded."""
        self._lock = threading.Lock()  # a terminal's table is drawn by a thread of its own
        self._used = ""
        """What is used, in words."""

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Ray pickles what it is given, and the journal alone is trusted."""
        return {}

    def left(self) -> float | None:
        """Seconds; None: there is no end."""
        return None if self.seconds is None else self.begun + self.seconds - time.monotonic()

    def spent(self) -> float:
        """GPU-hours so far, over all sessions.

        Raises:
            StateError: a record that is not what its kind says.
        """
        with self._lock:
            return self._folded().hours(self._journal.clock)

    def cost(self) -> float:
        """US dollars so far, over all sessions.

        Raises:
            StateError: as :meth:`spent`.
        """
        with self._lock:
            return self._folded().dollars(self._journal.clock)

    def _folded(self) -> Spending:
        for record in self._journal.records[self._read :]:
            self._spending.apply(record)
            self._in_vain.apply(record)
            self._read += 1
        return self._spending

    def used(self) -> bool:
        """Whether GPU-hours or money are used, or all is in vain, after a look at the machines; what was so, stays so.

        Raises:
            StateError: as :meth:`spent`.
        """
        if self._meter is not None:
            self._meter.look()
        if self.gpu_hours is not None and not self._used and self.spent() >= self.gpu_hours:
            self._used = "the GPU-hours were used"
        if self.max_cost is not None and not self._used and self.cost() >= self.max_cost:
            self._used = "the maximum cost was reached"
        if not self._used and (trials := self._in_vain_now().trials):
            self.vain = trials
            self._used = f"{trials} trials in a row failed for the same cause"
        return bool(self._used)

    def doubtful(self) -> bool:
        """Whether so many trials failed alike that no other is to be begun before those that train have told something.

        Raises:
            StateError: as :meth:`spent`.
        """
        return self._in_vain_now().doubtful

    def _in_vain_now(self) -> InVain:
        with self._lock:
            self._folded()
            return self._in_vain

    def cause(self) -> str:
        """What ended the trials that had to end."""
        if _received():
            return "ended by the user"
        return self._used or "the time was over"

    def reason(self, board: Leaderboard, *, exhausted: bool = False, more: bool = False) -> str:
        """Why no more is done: what ended the search, or that there is nothing left to do.

        Args:
            board: with the trials there are.
            exhausted: whether the space has nothing more to offer.
            more: whether a trial that waited would have gone on.
        """
        trials = board.snapshot()
        enough = exhausted or (self._trials is not None and len(trials) >= self._trials)
        over = enough and not more and not any(one.unfinished for one in trials)
        return ALL_OVER if over and not _received() else self.cause()


def check_gpu_hours(limit: float | None, gpus: float) -> None:
    """Refuse a limit of GPU-hours for trials without a GPU: nothing would ever count, and nothing end the search.

    Raises:
        UsageError: says so.
    """
    if limit is not None and not gpus:
        raise UsageError(
            f"--gpu-hours: {limit:g}: trials use no GPU here, so that nothing would ever count and the search never "
            "end by it; use --time-budget, or --gpus-per-trial where there are GPUs (tunelab resume --gpu-hours 0 "
            "takes the limit away)"
        )


def _received() -> int:
    from tunelab.tuning.interrupt import received  # with Ray, which is imported when its environment is ready

    return received()
