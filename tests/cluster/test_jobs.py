"""Searches as jobs, on a real Ray of the tests' own that asks for a token, through a line that is cut."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from quick_run import children

from tunelab.cluster import jobs as room
from tunelab.cluster.bucket import NoWorkerError
from tunelab.cluster.job import Job
from tunelab.cluster.jobs import Jobs, token_of
from tunelab.cluster.on_worker import ask_worker
from tunelab.cluster.where import NoHeadError
from tunelab.errors import ClusterError

pytestmark = [
    pytest.mark.ray,
    # Ray's client and aiohttp leave sockets to the garbage collector
    pytest.mark.filterwarnings(
        "ignore::ResourceWarning",
        "ignore::pytest.PytestUnraisableExceptionWarning",
        "ignore:ssl=None is deprecated:DeprecationWarning",
    ),
]
TOKEN = "canary-" + "0" * 30
PATIENT = 120.0
COUNTS = """
import pathlib, sys, time
print("tränen → 涙", flush=True)
go = pathlib.Path(sys.argv[1])
for number in range(60):
    print(f"{number:03d} " + "ä" * (number * 37 % 211), flush=True, end="\\n" if number % 7 else "|")
    while number == 30 and not go.exists():
        time.sleep(0.05)
    time.sleep(0.02)
print("x" * 30000)
sys.exit(int(sys.argv[2]))
"""


def free_ports(count: int) -> list[int]:
    bound = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in bound]
    for one in bound:
        one.close()
    return ports


@dataclass(frozen=True)
class Dashboard:
    port: int
    address: str
    ray: str
    """Where machines join."""
    environment: dict[str, str]
    """Of all that belongs to it."""


@pytest.fixture(scope="module")
def dashboard() -> Iterator[Dashboard]:
    """A head that takes jobs from whoever has the token."""
    names = ("port", "dashboard-port", "dashboard-agent-listen-port", "dashboard-agent-grpc-port")
    names += ("runtime-env-agent-port", "metrics-export-port", "ray-client-server-port")
    ports = dict(zip(names, free_ports(len(names)), strict=True))
    with tempfile.TemporaryDirectory(prefix="jobs-", ignore_cleanup_errors=True) as folder:  # a short path, for sockets
        token = Path(folder) / "token"
        token.write_text(TOKEN)
        token.chmod(0o600)
        options = {name: str(port) for name, port in ports.items()}
        options |= {"num-cpus": "1", "node-ip-address": "127.0.0.1", "dashboard-host": "127.0.0.1"}
        options |= {"include-dashboard": "true", "temp-dir": folder, "object-store-memory": str(100 * 1024**2)}
        environment = {**os.environ, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token)}
        environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
        head = subprocess.Popen(
            [Path(sys.executable).with_name("ray"), "start", "--head", "--block", "--disable-usage-stats"]
            + [f"--{name}={value}" for name, value in options.items()],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        address = f"http://127.0.0.1:{ports['dashboard-port']}"
        asked = urllib.request.Request(f"{address}/api/jobs/", headers={"Authorization": f"Bearer {TOKEN}"})
        end = time.monotonic() + PATIENT
        try:
            while True:
                try:
                    urllib.request.urlopen(asked, timeout=10).close()
                    break
                except OSError:
                    assert head.poll() is None, head.stdout and head.stdout.read()
                    assert time.monotonic() < end
                    time.sleep(0.2)
            yield Dashboard(ports["dashboard-port"], address, f"127.0.0.1:{ports['port']}", environment)
        finally:
            for pid in [*children(head.pid), head.pid]:  # in good order it takes half a minute
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            head.communicate()


class Proxy:
    """A line to the dashboard that can be cut, as a tunnel is."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._listens = socket.create_server(("127.0.0.1", 0))
        self._pairs: list[socket.socket] = []
        self._whole = True
        self.opened = 0
        self.fails: list[Exception] = []
        """Raised when it is to be opened, one after another."""
        threading.Thread(target=self._serve, daemon=True).start()

    def open(self) -> str:
        if self.fails:
            raise self.fails.pop(0)
        self.opened += 1
        self._whole = True
        return f"http://127.0.0.1:{self._listens.getsockname()[1]}"

    def cut(self) -> None:
        """Nothing goes through any more until it is opened again."""
        self._whole = False
        for one in self._pairs:
            try:
                one.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
        self._pairs = []

    def close(self) -> None:
        self.cut()
        self._listens.close()

    def _serve(self) -> None:
        while True:
            try:
                here, _ = self._listens.accept()
            except OSError:
                return
            if not self._whole:
                here.close()
                continue
            try:
                there = socket.create_connection(("127.0.0.1", self._port))
            except OSError:
                here.close()
                continue
            self._pairs += [here, there]
            for pair in ((here, there), (there, here)):
                threading.Thread(target=self._pump, args=pair, daemon=True).start()

    @staticmethod
    def _pump(source: socket.socket, sink: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                sink.sendall(data)
        except OSError:
            pass
        for one in (source, sink):
            try:
                one.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass


@pytest.fixture
def line(dashboard: Dashboard, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    monkeypatch.setattr(room, "AGAIN_SECONDS", (0.05, 0.1))
    made = Proxy(dashboard.port)
    yield made
    made.close()


@pytest.fixture
def said() -> list[str]:
    """What the user is told of the line."""
    return []


@pytest.fixture
def jobs(line: Proxy, said: list[str]) -> Jobs:
    return Jobs(line, TOKEN, said.append)


@pytest.fixture
def submit(jobs: Jobs, tmp_path: Path) -> Callable[..., None]:
    def hand_over(run: str, script: str, *words: object, again: bool = False, **environment: str) -> None:
        folder = tmp_path / f"job-{run}"
        folder.mkdir(exist_ok=True)
        (folder / "script.py").write_text(script)
        command = shlex.join([sys.executable, "-u", "script.py", *map(str, words)])
        jobs.submit(run, command, folder, f"s3://lab/runs/{run}", environment, again=again)

    return hand_over


def said_by(run: str, log: str) -> str:
    """What a job said itself, behind Ray's own lines."""
    _, begun, rest = log.partition(f"Running entrypoint for job tunelab-{run}: ")
    assert begun
    return rest.partition("\n")[2]


def until(what: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENT
    while not what():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_line_that_is_cut_loses_no_character_and_tells_none_twice(
    jobs: Jobs, line: Proxy, submit: Callable[..., None], said: list[str], tmp_path: Path
) -> None:
    go = tmp_path / "go"
    submit("counts", COUNTS, go, 3)
    written: list[str] = []
    told = threading.Event()

    def write(text: str) -> None:
        written.append(text)
        if "020 " in text:
            told.set()

    def cut() -> None:
        told.wait(PATIENT)
        before = line.opened
        line.fails = [ClusterError("ssh: no route to host"), OSError("not yet")]
        line.cut()
        until(lambda: line.opened > before)
        go.touch()
        until(lambda: any("040 " in text for text in written))
        line.cut()

    cuts = threading.Thread(target=cut)
    cuts.start()
    job = jobs.follow("counts", write)
    cuts.join()
    whole = jobs.log("counts")
    assert "".join(written) == whole
    own = said_by("counts", whole)
    assert own.startswith("tränen → 涙\n000 |001 ")
    assert own.endswith("x" * 30000 + "\n")
    assert [word[:3] for word in own.replace("|", "\n").splitlines()[1:61]] == [f"{n:03d}" for n in range(60)]
    assert len(said) >= 2
    assert all(text.startswith("The line to the cluster broke (") for text in said)
    assert all(text.endswith("; opening it again. The search goes on there.") for text in said)
    assert (job.status, job.exit_code, job.over) == ("FAILED", 3, True)
    assert (job.run, job.storage) == ("counts", "s3://lab/runs/counts")

    late: list[str] = []
    again = jobs.follow("counts", late.append, skip=len(whole) - 6)
    assert again == job
    assert "".join(late) == "xxxxx\n", "what was told before is left out"


def test_what_a_job_gets_and_gives(jobs: Jobs, submit: Callable[..., None], capfd: pytest.CaptureFixture[str]) -> None:
    script = "import os, pathlib; print(sorted(p.name for p in pathlib.Path().iterdir()), os.environ['SAID'])"
    before = time.time()
    submit("gets", script, SAID="a b")
    written: list[str] = []
    job = jobs.follow("gets", written.append)
    assert said_by("gets", "".join(written)) == "['script.py'] a b\n"
    assert jobs.log("gets") == "".join(written)
    assert (job.status, job.exit_code) == ("SUCCEEDED", 0)
    assert job.begun is not None
    assert before - 60 < job.begun < time.time() + 60
    assert jobs.find("gets") == job
    assert jobs.all()[0] == job, "the newest first"
    assert capfd.readouterr() == ("", ""), "Ray's own news of uploads and closed lines are not for the user"
    with pytest.raises(ClusterError, match=r"--name: gets: the cluster knows a search of this name; choose another"):
        submit("gets", script)


def test_stop_ends_it_in_good_order(jobs: Jobs, submit: Callable[..., None], tmp_path: Path) -> None:
    script = (
        "import signal, sys, time\n"
        "def end(*_):\n    print('the report'); sys.exit(0)\n"
        "signal.signal(signal.SIGTERM, end)\nprint('begun')\ntime.sleep(600)"
    )
    submit("stops", script)
    until(lambda: "begun" in jobs.log("stops"))
    assert jobs.find("stops").status == "RUNNING"
    assert not jobs.find("stops").over
    assert jobs.stop("stops") is True
    written: list[str] = []
    job = jobs.follow("stops", written.append)
    assert job.status == "STOPPED"
    assert job.over
    assert said_by("stops", "".join(written)) == "begun\nthe report\n", "it had the time to end by itself"
    assert jobs.stop("stops") is False


@contextlib.contextmanager
def worker(dashboard: Dashboard) -> Iterator[None]:
    """A machine that joins, with one CPU."""
    names = (
        "dashboard-agent-listen-port",
        "dashboard-agent-grpc-port",
        "runtime-env-agent-port",
        "metrics-export-port",
    )
    options = dict(zip(names, map(str, free_ports(len(names))), strict=True))
    options |= {"address": dashboard.ray, "num-cpus": "1", "node-ip-address": "127.0.0.1"}
    options |= {"object-store-memory": str(100 * 1024**2)}
    with subprocess.Popen(
        [Path(sys.executable).with_name("ray"), "start", "--block", "--disable-usage-stats"]
        + [f"--{name}={value}" for name, value in options.items()],
        env={**dashboard.environment, "LAB_MACHINE": "worker"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    ) as joined:
        try:
            yield
        finally:
            for pid in [*children(joined.pid), joined.pid]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


def test_a_program_runs_on_a_worker_if_there_is_one(
    dashboard: Dashboard, jobs: Jobs, submit: Callable[..., None]
) -> None:
    program = "import os; print('it is', os.environ.get('LAB_MACHINE')); os.environ['NONE']"
    before = jobs.all()
    with pytest.raises(NoWorkerError, match="the head runs and no worker does"):
        ask_worker(jobs, program)
    with worker(dashboard):
        end = time.monotonic() + PATIENT
        while True:
            try:
                said = ask_worker(jobs, program)
                break
            except NoWorkerError:
                assert time.monotonic() < end
    assert said.startswith("it is worker\n")
    assert "KeyError: 'NONE'" in said
    assert jobs.all() == before, "it is no search"
    every = jobs.ask(lambda client: client.list_jobs())
    assert {job.status for job in every if str(job.submission_id).startswith("check-")} == {"SUCCEEDED"}


def test_names_that_are_none(jobs: Jobs) -> None:
    known = ", ".join(job.run for job in jobs.all()) or "none"
    with pytest.raises(ClusterError) as told:
        jobs.find("nowhere")
    assert str(told.value) == f"nowhere: no search of this name on the cluster; there are: {known}"
    for ask in (jobs.log, jobs.stop):
        with pytest.raises(ClusterError, match=r"^nowhere: no search of this name on the cluster"):
            ask("nowhere")
    assert jobs.newest("nowhere") is None


def test_the_newest_job_of_a_run_is_the_one_that_is_meant(
    jobs: Jobs, submit: Callable[..., None], tmp_path: Path
) -> None:
    submit("often", "print('first')")
    first = jobs.follow("often", lambda _: None)
    with pytest.raises(
        ClusterError, match=r"^--name: often: .* choose another, or go on with that one by tunelab resume$"
    ):
        submit("often", "print('second')")
    waits = "import pathlib, time\nprint('second')\nwhile not pathlib.Path({!r}).exists(): time.sleep(0.05)"
    submit("often", waits.format(str(tmp_path / "go")), again=True)
    until(lambda: "second" in jobs.log("often"))
    (second,) = [job for job in jobs.all() if job.run == "often"]
    assert (second.number, second.over) == (2, False)
    assert jobs.find("often") == jobs.newest("often") == second

    # who looks at a job goes on looking at it when another one goes on with its run
    seen: list[str] = []
    ended: list[Job] = []
    look = Jobs(jobs._line, TOKEN, lambda _: None)
    looks = threading.Thread(target=lambda: ended.append(look.follow("often", seen.append)))
    looks.start()
    until(lambda: "second" in "".join(seen))
    submit("often", "print('third')", again=True)
    (tmp_path / "go").touch()
    looks.join(PATIENT)
    assert [(job.number, job.status) for job in ended] == [(2, "SUCCEEDED")]
    assert said_by("often~2", "".join(seen)) == "second\n"
    third = jobs.follow("often", lambda _: None)
    assert (first.number, third.number) == (1, 3)
    assert said_by("often~3", jobs.log("often")) == "third\n"
    assert jobs.stop("often") is False


@pytest.mark.parametrize(
    ("token", "message"),
    [
        ("", "the cluster asks for a token, and there is none here; ~/.ray/auth_token has to be the file that ray up"),
        ("wrong" * 8, "the cluster takes another token than this one; ~/.ray/auth_token has to be the file"),
    ],
)
def test_a_token_that_does_not_open(line: Proxy, said: list[str], token: str, message: str) -> None:
    before = time.monotonic()
    with pytest.raises(ClusterError, match=message) as told:
        Jobs(line, token, said.append).all()
    assert time.monotonic() - before < 30
    assert "wrong" not in str(told.value), "a token is never told"
    assert said == []


def test_a_line_that_cannot_be_opened_at_first_is_said(line: Proxy, jobs: Jobs, said: list[str]) -> None:
    line.fails = [ClusterError("no tunnel to lab@10.0.0.1: refused")]
    with pytest.raises(ClusterError, match=r"no tunnel to lab@10\.0\.0\.1: refused"):
        jobs.all()
    line.open()
    line.cut()
    open_line, line.open = line.open, lambda: f"http://127.0.0.1:{line._listens.getsockname()[1]}"  # type: ignore[method-assign]
    with pytest.raises(ClusterError, match=r"the line to the cluster broke: .*; try again"):
        jobs.all()
    line.open = open_line  # type: ignore[method-assign]
    assert said == []
    jobs.all()


def test_a_cluster_that_is_gone_is_not_waited_for(line: Proxy, jobs: Jobs, said: list[str]) -> None:
    jobs.all()
    line.cut()
    line.fails = [ClusterError("no route"), NoHeadError("no head of lab runs in us-west-2")]
    with pytest.raises(NoHeadError, match="no head of lab runs"):
        jobs.all()
    assert len(said) == 1


def test_a_search_is_not_handed_over_twice(line: Proxy, jobs: Jobs, submit: Callable[..., None]) -> None:
    """Where the line breaks meanwhile, nobody knows whether it was heard."""
    jobs.all()
    client = jobs._client

    def broken(**_: object) -> None:
        raise ConnectionResetError("cut")

    client.submit_job, whole = broken, client.submit_job
    try:
        with pytest.raises(ClusterError, match="the line to the cluster broke: cut; try again"):
            submit("twice", "print()")
    finally:
        client.submit_job = whole
    assert not [job for job in jobs.all() if job.run == "twice"]


def test_the_token_is_found_as_ray_finds_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    assert token_of() == ""
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text("of home\n")
    assert token_of() == "of home"
    (tmp_path / "other").write_text(" of path\n")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", "~/other")
    assert token_of() == "of path"
    monkeypatch.setenv("RAY_AUTH_TOKEN", "said ")
    assert token_of() == "said"


def test_other_addresses_of_the_environment_are_not_taken(jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    jobs.all()
    assert os.environ["RAY_ADDRESS"] == os.environ["RAY_API_SERVER_ADDRESS"] == "http://127.0.0.1:9"
