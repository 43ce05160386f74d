"""How a worker is asked: the job, what it says, what is left of it, and what the user is told."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from cluster_files import GOOD, OWN, furnish

from tunelab.cli import main
from tunelab.cluster import live, on_worker, worker_program
from tunelab.cluster.bucket import SAID, NoWorkerError
from tunelab.cluster.file import ClusterFile, load_cluster_file
from tunelab.cluster.job import PREFIX
from tunelab.cluster.on_worker import ask_worker, from_worker
from tunelab.cluster.where import Cluster, Head, NoHeadError
from tunelab.errors import ClusterError


class Client:
    """Stands for Ray's client for jobs: a job's command runs at once, with what is given for Ray's part."""

    def __init__(self, log: str | None = None) -> None:
        self.log = log
        self.status = "SUCCEEDED"
        self.there: list[str] = []
        self.entrypoints: list[str] = []
        self.stopped = 0

    def submit_job(self, *, entrypoint: str, submission_id: str) -> None:
        self.there.append(submission_id)
        self.entrypoints.append(entrypoint)
        *words, program = shlex.split(entrypoint)
        assert words == ["python", "-u", "-c", Path(worker_program.__file__).read_text()]
        if self.log is None:
            # Ray's part is another test's
            ran = json.dumps({"said": worker_program.run(program)})
            self.log = f"Running entrypoint for job x: {entrypoint}\n{worker_program.ANSWER}{ran}\n"

    def get_job_status(self, name: str) -> str:
        assert name in self.there
        return self.status

    def get_job_logs(self, name: str) -> str:
        return self.log or ""

    def stop_job(self, name: str) -> bool:
        self.stopped += 1
        return False

    def ask(self, ask: Callable[[Any], Any], *, once: bool = False) -> Any:
        """As :meth:`tunelab.cluster.jobs.Jobs.ask`."""
        assert once, "nothing here is worth waiting for a line that broke"
        return ask(self)


def answering(**answer: Any) -> Client:
    return Client(f"Running entrypoint\na warning\n{worker_program.ANSWER}{json.dumps(answer)}\n")


def ask(client: Client, program: str = "print(1)") -> str:
    return ask_worker(client, program)  # type: ignore[arg-type]


def test_what_it_prints_comes_back() -> None:
    client = Client()
    assert ask(client, "print('it\\'s'); import sys; print('err', file=sys.stderr)").split() == ["it's", "err"]
    assert len(client.there) == len(client.entrypoints) == 1
    assert client.stopped == 0


def test_it_is_none_of_the_searches() -> None:
    assert not on_worker.PREFIX.startswith(PREFIX)


@pytest.mark.parametrize(
    ("client", "kind", "said"),
    [
        (answering(none=True), NoWorkerError, "the head runs and no worker does"),
        (answering(failed="the node is gone"), ClusterError, "none of them did it: the node is gone"),
        (
            Client("Traceback\nImportError: ray\n"),
            ClusterError,
            "the head did not get through to one: ImportError: ray",
        ),
        (Client("Running entrypoint: tunelab-worker: {}\n"), ClusterError, "Running entrypoint: tunelab-worker: {}"),
        (Client(" "), ClusterError, "nothing was printed"),
    ],
)
def test_what_goes_wrong_there(client: Client, kind: type[ClusterError], said: str) -> None:
    with pytest.raises(ClusterError) as told:
        ask(client)
    assert type(told.value) is kind
    assert str(told.value).endswith(said)


def test_it_is_not_waited_for_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(on_worker, "SECONDS", 0.01)
    client = Client()
    client.status = "PENDING"
    with pytest.raises(ClusterError, match=r"no answer within 0\.01 s"):
        ask(client)
    assert client.stopped == 1


def test_which_machines_are_workers() -> None:
    head = {"NodeID": "a", "Alive": True, "Resources": {"node:__internal_head__": 1.0, "CPU": 2.0}}
    gone = {"NodeID": "b", "Alive": False, "Resources": {}}
    there = [{"NodeID": "c", "Alive": True, "Resources": {"CPU": 1.0}}, {"NodeID": "d", "Alive": True}]
    assert worker_program.workers([head, gone, *there]) == ["c", "d"]


def test_the_program_of_the_job_needs_nothing_of_ours(tmp_path: Path) -> None:
    code = f"import sys; sys.path[:] = [p for p in sys.path if p]; exec(open({worker_program.__file__!r}).read())"
    words = [sys.executable, "-S", "-E", "-c", code.replace("exec(", "__name__ = 'there'; exec(")]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ClusterFile:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    furnish(tmp_path)
    (tmp_path / "c.yaml").write_text(GOOD)
    return load_cluster_file(tmp_path / "c.yaml")


def there_is(monkeypatch: pytest.MonkeyPatch, answer: Client | ClusterError) -> None:
    """A cluster that answers so."""

    def running(file: ClusterFile) -> Cluster:
        if isinstance(answer, ClusterError):
            raise answer
        return Cluster(file=file, head=Head(host="10.0.0.1", identity="i-1", user="lab", key=""))

    @contextmanager
    def jobs_of(cluster: Cluster) -> Iterator[Any]:
        yield answer

    monkeypatch.setattr(on_worker, "running", running)
    monkeypatch.setattr(on_worker, "jobs_of", jobs_of)


def test_where_no_cluster_runs_nobody_is_asked(file: ClusterFile, monkeypatch: pytest.MonkeyPatch) -> None:
    rest = ", so the bucket was written from here, with the rights of this machine and not a worker's"
    there_is(monkeypatch, NoHeadError("c.yaml: no head of lab runs in us-west-2; ray up starts it"))
    assert from_worker(file, pytest.fail) == ([], f"no cluster runs{rest}")
    there_is(monkeypatch, ClusterError(f"{file.path}: no ssh answers at the head 10.0.0.1: timed out"))
    assert from_worker(file, pytest.fail) == ([], f"no ssh answers at the head 10.0.0.1: timed out{rest}")


def test_the_command_says_from_where(
    file: ClusterFile, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(live, "check_live", lambda file: [])
    there_is(monkeypatch, answering(said=f"{SAID}\n"))
    assert main(["cluster", "check", str(file.path), "--live"]) == 0
    out, err = capsys.readouterr()
    assert out.splitlines()[1:] == ["the bucket was written from here and from a worker"]
    assert err == "A worker of lab is asked to write to the bucket ...\n"

    there_is(monkeypatch, answering(none=True))
    assert main(["cluster", "check", str(file.path), "--live"]) == 0
    assert "\nthe head runs and no worker does, so the bucket was written from here, with" in capsys.readouterr().out

    there_is(monkeypatch, answering(said="botocore.exceptions.ClientError: An error occurred (AccessDenied)\n"))
    assert main(["cluster", "check", str(file.path), "--live"]) == ClusterError.exit_code
    first, *rest = capsys.readouterr().out.splitlines()
    assert first == (
        f"{file.path}:{file.line('provider', 'storage')}: error: provider.storage: a worker could not write: "
        "botocore.exceptions.ClientError: An error occurred (AccessDenied); give the role of the workers the rights "
        "that `tunelab cluster iam` prints"
    )
    assert rest == [f"{file.path}: 1 error, 0 warnings"]


def test_machines_of_ones_own_are_asked_as_well(
    file: ClusterFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own.yaml").write_text(OWN)
    there_is(monkeypatch, answering(said=f"{SAID}\n"))
    said: list[str] = []
    found, wrote = from_worker(load_cluster_file(tmp_path / "own.yaml"), said.append)
    assert (found, len(said)) == ([], 1)
    assert wrote == "the bucket was written from here and from a worker"
