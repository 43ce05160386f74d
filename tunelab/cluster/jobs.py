"""Searches as jobs of a cluster: handed over, followed, stopped, and found again from anywhere.

What is said of a run here is said of its newest job: one that goes on with a run has a name of its own. Everything goes
through a line that is opened anew as often as it breaks, so a closed lid or a cut line ends nothing but the view. No
TensorFlow in here, and Ray only when a cluster is asked.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol, TypeVar

from tunelab.cluster.job import Job, job_of, name_of
from tunelab.errors import ClusterError

Said = Callable[[str], None]
T = TypeVar("T")

STOP_SECONDS = 180
"""A search that is stopped has so long to write its report and to send it to its bucket."""
AGAIN_SECONDS = (1, 2, 4, 8, 15)
"""Between two tries to get through to a cluster; the last one for ever."""
_NO_TOKEN = (401, 403)
_TALKATIVE = (
    "ray.dashboard.modules.dashboard_sdk",
    "ray.dashboard.modules.job.sdk",
    "ray._private.runtime_env.packaging",
)
"""Loggers to which uploads and closed lines are news."""


class Line(Protocol):
    """A way to the dashboard of a cluster."""

    def open(self) -> str:
        """Open it, or open it anew; gives the dashboard's address.

        Raises:
            NoHeadError: there is no cluster any more.
            ClusterError: it cannot be opened now.
        """


class Jobs:
    """The jobs of one cluster.

    Args:
        line: to its dashboard.
        token: that it asks for; empty: none.
        say: tells the user what happens to the line.
    """

    def __init__(self, line: Line, token: str, say: Said) -> None:
        self._line = line
        self._token = token
        self._say = say
        self._client: Any = None

    def submit(
        self, run: str, command: str, folder: Path, storage: str, environment: Mapping[str, str], *, again: bool = False
    ) -> None:
        """Hand a search over.

        Args:
            run: its name.
            command: for a shell on the head.
            folder: that is taken along; the command runs in a copy of it.
            storage: URL of the run.
            environment: variables of the job and of all its processes.
            again: it goes on with a run, which the cluster may know.

        Raises:
            ClusterError: the cluster does not take it, or knows a search of that name.
        """
        before = self.newest(run)
        if before is not None and not again:
            raise ClusterError(
                f"--name: {run}: the cluster knows a search of this name; choose another, or go on with that one by "
                "tunelab resume"
            )
        asked = {
            "entrypoint": command,
            "submission_id": name_of(run, 1 if before is None else before.number + 1),  # Ray takes none twice
            "runtime_env": {
                "working_dir": str(folder),
                "env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": str(STOP_SECONDS), **environment},
            },
            "metadata": {"run": run, "storage": storage},
        }
        self.ask(lambda client: client.submit_job(**asked), once=True)

    def find(self, run: str) -> Job:
        """The newest job of a run.

        Raises:
            ClusterError: there is none of that name.
        """
        jobs = self.all()
        for job in jobs:
            if job.run == run:
                return job
        known = ", ".join(job.run for job in jobs) or "none"
        raise ClusterError(f"{run}: no search of this name on the cluster; there are: {known}")

    def newest(self, run: str) -> Job | None:
        """The newest job of a run; None where the cluster knows none."""
        return next((job for job in self.all() if job.run == run), None)

    def all(self) -> list[Job]:
        """The newest job of every run that the cluster knows, the newest first."""
        newest: dict[str, Job] = {}
        for job in sorted(self._all(), key=lambda job: job.number):
            newest[job.run] = job
        return sorted(newest.values(), key=lambda job: -(job.begun or 0.0))

    def _all(self) -> list[Job]:
        found = (job_of(details) for details in self.ask(lambda client: client.list_jobs()))
        return [job for job in found if job is not None]

    def stop(self, run: str) -> bool:
        """Ask a search to end in good order, and do not wait for it; gives whether it ran."""
        job = self.find(run)
        return bool(self.ask(lambda client: client.stop_job(job.name)))

    def log(self, run: str) -> str:
        """All that a search has said; of a run that was gone on with, since then."""
        return self._log(self.find(run).name)

    def _log(self, name: str) -> str:
        return str(self.ask(lambda client: client.get_job_logs(name)))

    def follow(self, run: str, write: Said, *, skip: int = 0) -> Job:
        """Hand on what a search says until it is over, through as many broken lines as there are.

        Args:
            run: its name.
            write: takes text as it comes, parts of lines too.
            skip: characters in front that are not handed on.

        Returns:
            It, when it is over.
        """
        told = skip
        job = self.find(run)
        name = job.name  # another one may go on with the run meanwhile

        def hand_on(whole: int, text: str) -> None:
            nonlocal told
            if (new := whole - told) > 0:
                write(text[-new:])
                told = whole

        while not (job := self._now(job)).over:
            self.ask(lambda client: asyncio.run(_tail(client, name, hand_on)))
        whole = self._log(name)
        hand_on(len(whole), whole)
        return job

    def _now(self, job: Job) -> Job:
        """The same job as it is now.

        Raises:
            ClusterError: the cluster knows it no more.
        """
        for one in self._all():
            if one.name == job.name:
                return one
        raise ClusterError(f"{job.run}: the cluster knows this search no more; what it wrote is at {job.storage}")

    def ask(self, ask: Callable[[Any], T], *, once: bool = False) -> T:
        """Ask, and open the line anew as often as it breaks.

        Args:
            ask: with Ray's client.
            once: the question changes something, and is not asked again where nobody knows whether it was heard.

        Raises:
            NoHeadError: there is no cluster any more.
            ClusterError: the cluster says no.
        """
        import aiohttp

        for tries in itertools.count():
            try:
                if self._client is None:
                    self._client = _client(self._line.open(), self._token)
                return ask(self._client)
            except (OSError, aiohttp.ClientError) as error:  # those of requests are OSErrors
                broken: Exception = error
            except RuntimeError as error:
                if "WebSocket" not in str(error):
                    raise ClusterError(f"the cluster says: {_short(error)}") from error
                broken = error
            if once or (self._client is None and tries == 0):
                raise ClusterError(f"the line to the cluster broke: {_short(broken)}; try again") from broken
            self._reopen(broken)
        raise AssertionError

    def _reopen(self, why: Exception) -> None:
        """Open the line anew, however long that takes.

        Raises:
            NoHeadError: there is no cluster any more.
        """
        from tunelab.cluster.where import NoHeadError

        self._say(f"The line to the cluster broke ({_short(why)}); opening it again. The search goes on there.")
        self._client = None
        for tries in itertools.count():
            try:
                self._client = _client(self._line.open(), self._token)
            except NoHeadError:
                raise
            except (ClusterError, OSError):
                time.sleep(AGAIN_SECONDS[min(tries, len(AGAIN_SECONDS) - 1)])
            else:
                return


async def _tail(client: Any, name: str, hand_on: Callable[[int, str], None]) -> None:
    """What a search says, from its beginning until it is over or the line breaks."""
    count = 0
    async for text in client.tail_job_logs(name):
        count += len(text)
        hand_on(count, text)


def _client(address: str, token: str) -> Any:
    """Ray's client for jobs.

    Raises:
        ClusterError: Ray's part for it is not installed, or the token is not taken.
        OSError: nobody answers.
    """
    try:
        import requests
        from ray.job_submission import JobSubmissionClient
    except ImportError as error:
        raise ClusterError(f"{error.name}: not installed; run: pip install 'ray[default]'") from error
    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(logging.WARNING)
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    answer = requests.get(f"{address}/api/version", headers=headers, timeout=20)
    if answer.status_code in _NO_TOKEN:
        missing = "takes another token than this one" if token else "asks for a token, and there is none here"
        raise ClusterError(
            f"the cluster {missing}; ~/.ray/auth_token has to be the file that ray up sent there, or set RAY_AUTH_TOKEN"
        )
    named = {name: os.environ.pop(name) for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS") if name in os.environ}
    try:
        return JobSubmissionClient(address, headers=headers)  # which asks these variables before its argument
    finally:
        os.environ.update(named)


def token_of() -> str:
    """The token of this user, as Ray finds it; empty where there is none."""
    if said := os.environ.get("RAY_AUTH_TOKEN", "").strip():
        return said
    path = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or "~/.ray/auth_token").expanduser()
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def _short(error: BaseException) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return (lines[-1] if lines else type(error).__name__)[:300]
