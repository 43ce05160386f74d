"""TensorBoard on a head, through a small ssh of the tests' own: asked over HTTP, and nothing is left of it."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from quick_run import children, command_of

from tunelab import run_commands, tensorboard
from tunelab.cli import main
from tunelab.cluster import curves as room
from tunelab.cluster import tensorboard_there
from tunelab.cluster.curves import curves
from tunelab.cluster.file import ClusterFile
from tunelab.cluster.tunnel import free_port
from tunelab.cluster.where import Cluster, Head, Place
from tunelab.errors import ClusterError, TunelabError, UsageError
from tunelab.ranking import Epoch, Trial
from tunelab.tuning.hparams import TensorBoardLogs

PATIENT = 120.0
SCRIPT = """
import sys
from pathlib import Path
from tunelab.cluster import curves
from tunelab.cluster.file import ClusterFile
from tunelab.cluster.where import Cluster, Head
from tunelab.tensorboard import tensorboard_there
file = ClusterFile(path=Path("cluster.yaml"), document={"cluster_name": "lab"}, lines={})
cluster = Cluster(file=file, head=Head(host="10.0.0.1", identity="i-1", user="lab", key=""))
curves.running = lambda file: cluster
curves.AGAIN_SECONDS = (0.1,)
tensorboard_there(cluster, "mine", port=0, say=lambda line: print(line, flush=True))
"""
CLUSTER = Cluster(
    file=ClusterFile(path=Path("cluster.yaml"), document={"cluster_name": "lab"}, lines={}),
    head=Head(host="10.0.0.1", identity="i-1", user="lab", key=""),
)


@pytest.fixture
def stub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the small ssh; the head's home is the user's, and has the run ``mine`` with one epoch."""
    folder, path = tmp_path / "stub", tmp_path / "bin"
    folder.mkdir()
    path.mkdir()
    script = Path(__file__).with_name("stub_ssh.py")
    (path / "ssh").write_text(f'#!/bin/sh\nexec "{sys.executable}" -S -E "{script}" "$@"\n')
    (path / "ssh").chmod(0o755)
    (tmp_path / "venv").symlink_to(sys.prefix)
    monkeypatch.setenv("STUB_SSH", str(folder))
    monkeypatch.setenv("PATH", f"{path}:{os.environ['PATH']}")
    monkeypatch.setenv("HOME", str(tmp_path))
    run = tmp_path / "tunelab-runs/runs/mine"
    run.mkdir(parents=True)
    (run / "journal.jsonl").touch()
    logs = TensorBoardLogs(run / "tensorboard", ["units"])
    trial = Trial(trial="0001", name="", family="lstm", params={"family": "lstm"}, point={"units": 8})
    trial.epochs.append(
        Epoch(epoch=1, seconds=1.0, metrics={"loss": 0.5, "tune_average_precision": 0.5, "val_f1": 0.5})
    )
    logs.epoch(trial)
    logs.close()
    return folder


class Shown:
    """The command in a process of its own."""

    def __init__(self, log: Path) -> None:
        self._log = log
        with log.open("w") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-c", SCRIPT], stdout=file, stderr=subprocess.STDOUT, start_new_session=True
            )
        self.until(lambda: "Ctrl-C ends TensorBoard." in self.said)
        first = self.said.splitlines()[0]
        assert first.startswith("TensorBoard of mine on lab, 10.0.0.1: http://127.0.0.1:")
        self.url = first.split()[-1]

    @property
    def said(self) -> str:
        return self._log.read_text()

    def until(self, what: Callable[[], object]) -> None:
        end = time.monotonic() + PATIENT
        while not what():
            assert time.monotonic() < end, self.said
            time.sleep(0.05)

    def tree(self) -> list[int]:
        return children(self.process.pid)

    def answers(self) -> bool:
        url = f"{self.url}data/plugin/scalars/scalars?run=0001_lstm&tag=train/loss"
        try:
            with urllib.request.urlopen(url, timeout=PATIENT) as answer:
                return b"0.5" in answer.read()
        except (urllib.error.URLError, OSError):
            return False


@pytest.fixture
def shown(stub: Path, tmp_path: Path) -> Iterator[Shown]:
    made = Shown(tmp_path / "said")
    yield made
    with contextlib.suppress(ProcessLookupError):
        made.process.kill()
    made.process.wait()


def test_it_is_served_through_broken_lines_until_ctrl_c(shown: Shown) -> None:
    shown.until(shown.answers)
    before = shown.tree()
    (ssh,) = [pid for pid in before if b"stub_ssh.py" in command_of(pid)]
    os.kill(ssh, signal.SIGKILL)
    shown.until(lambda: f"TensorBoard is back: {shown.url}\n" in shown.said)
    broke, _ = shown.said.splitlines()[2:]
    assert broke.startswith("The line to the cluster broke (")
    assert broke.endswith("); opening it again. The search goes on there.")
    shown.until(shown.answers)
    shown.until(lambda: not any(command_of(pid) for pid in before))
    tree = shown.tree()
    assert any(b"tensorboard.main" in command_of(pid) for pid in tree)
    shown.process.send_signal(signal.SIGINT)
    assert shown.process.wait(PATIENT) == 0
    shown.until(lambda: not any(command_of(pid) for pid in tree))


def test_what_a_killed_command_started_there_ends_too(shown: Shown) -> None:
    tree = shown.tree()
    assert any(b"tensorboard.main" in command_of(pid) for pid in tree)
    shown.process.kill()
    shown.until(lambda: not any(command_of(pid) for pid in tree))


def test_a_run_that_is_not_there(stub: Path) -> None:
    with pytest.raises(ClusterError) as told:
        curves(CLUSTER, "other", port=0, say=pytest.fail)
    assert str(told.value) == (
        "other: no run of this name on the head; there are: mine; one of an earlier cluster is in its bucket: tunelab "
        "tensorboard s3://BUCKET/runs/NAME"
    )


def test_a_head_that_is_not_reached(stub: Path) -> None:
    (stub / "refuse").write_text("a banner\nlab@10.0.0.1: Permission denied (publickey).\n")
    with pytest.raises(ClusterError) as told:
        curves(CLUSTER, "mine", port=0, say=pytest.fail)
    assert str(told.value) == (
        "no TensorBoard through lab@10.0.0.1: lab@10.0.0.1: Permission denied (publickey).; check "
        "auth.ssh_private_key, and that port 22 admits you"
    )


def test_without_ssh_it_says_so(stub: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ClusterError, match="ssh: not found; install an OpenSSH client"):
        curves(CLUSTER, "mine", port=0, say=pytest.fail)


def stand_in(tmp_path: Path, code: str) -> None:
    """A program in place of the head's Python."""
    (tmp_path / "venv").unlink()
    (tmp_path / "venv/bin").mkdir(parents=True)
    (tmp_path / "venv/bin/python").write_text(f"#!/bin/sh\n{code}\n")
    (tmp_path / "venv/bin/python").chmod(0o755)


def test_one_that_ends_by_itself_is_said(stub: Path, tmp_path: Path) -> None:
    stand_in(tmp_path, f"echo No module named tensorboard; exit {tensorboard_there.OVER}")
    with pytest.raises(
        TunelabError, match="TensorBoard on the head ended by itself: No module named tensorboard; start"
    ):
        curves(CLUSTER, "mine", port=0, say=pytest.fail)


def test_a_port_that_is_taken_there_is_not_the_last_word(stub: Path, tmp_path: Path) -> None:
    count = tmp_path / "count"
    taken = f"echo x >> {count}; echo port 20001 was already in use; exit {tensorboard_there.OVER}"
    stand_in(tmp_path, f"if [ -e {count} ]; then echo at http://127.0.0.1:1/; echo why; exit 94; fi; {taken}")
    said: list[str] = []
    with pytest.raises(TunelabError, match="ended by itself: why; start it again"):
        curves(CLUSTER, "mine", port=0, say=said.append)
    assert len(said) == 2
    stand_in_again = tmp_path / "venv/bin/python"
    stand_in_again.write_text(f"#!/bin/sh\n{taken}\n")
    with pytest.raises(ClusterError, match="TensorBoard found no free port on the head in 5 tries; try again"):
        curves(CLUSTER, "mine", port=0, say=pytest.fail)
    assert len(count.read_text().split()) == 1 + room._TRIES


@pytest.mark.parametrize("quiet", ["0.6", "600"])
def test_the_head_does_not_wait_for_ever_for_who_is_gone(stub: Path, quiet: str) -> None:
    """Without a sign, or without an input, it ends what it started; a sign keeps it."""
    code = f"import sys; from tunelab.cluster import tensorboard_there as t; sys.exit(t.main('mine', '0', {quiet}))"
    words = [sys.executable, "-c", code]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as there:
        assert there.stdin is not None
        if quiet == "600":
            there.stdin.write(b"\n")
            there.stdin.flush()
            with pytest.raises(subprocess.TimeoutExpired):
                there.wait(1.5)
            there.stdin.close()
        assert there.wait(PATIENT) == 0


@pytest.fixture
def there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[tuple[str, int]]:
    """A cluster was brought up from here; runs that are shown there, and their ports."""
    shown: list[tuple[str, int]] = []

    def place(**_: object) -> Place:
        return Place(why="a test", cluster=CLUSTER)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tunelab.cluster.where.place", place)
    monkeypatch.setattr(room, "curves", lambda cluster, run, *, port, say: shown.append((run, port)))
    return shown


def test_a_name_is_looked_for_on_the_cluster_and_a_place_is_not(there: list[tuple[str, int]], tmp_path: Path) -> None:
    port = free_port()
    assert main(["tensorboard", "mine", "--port", str(port)]) == 0
    assert there == [("mine", port)]
    (tmp_path / "here").mkdir()
    for place in ("here", "runs/mine"):
        assert main(["tensorboard", place, "--port", "0"]) == 7, "holds no run"
    assert len(there) == 1
    assert run_commands._cluster_of("s3://lab/runs/mine", None) is None  # type: ignore[arg-type]


def test_it_listens_on_the_loopback_that_a_tunnel_has(there: list[tuple[str, int]]) -> None:
    tensorboard.tensorboard_there(CLUSTER, "mine", host="localhost", port=0, say=pytest.fail)
    for host, message in (
        ("0.0.0.0", "--host 0.0.0.0: is not the loopback; TensorBoard asks nobody who they are"),
        ("127.0.0.2", r"--host 127\.0\.0\.2: a tunnel to a cluster listens on 127\.0\.0\.1; leave out --host"),
    ):
        with pytest.raises(UsageError, match=message):
            tensorboard.tensorboard_there(CLUSTER, "mine", host=host, port=0, say=pytest.fail)
    with (
        socket.create_server(("127.0.0.1", 0)) as taken,
        pytest.raises(UsageError, match="Address already in use; give another --port"),
    ):
        tensorboard.tensorboard_there(CLUSTER, "mine", port=taken.getsockname()[1], say=pytest.fail)
    assert len(there) == 1
