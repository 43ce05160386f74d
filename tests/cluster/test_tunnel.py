"""The tunnel to a head: through a real sshd where one is installed, and through a small ssh of the tests' own."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tunelab.cluster import tunnel as tunnels
from tunelab.cluster.file import ClusterFile
from tunelab.cluster.tunnel import Tunnel, ssh_command
from tunelab.cluster.where import Cluster, Head
from tunelab.errors import ClusterError

FILE = ClusterFile(path=Path("cluster.yaml"), document={"cluster_name": "lab"}, lines={})
SSHD = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin")
SSH = shutil.which("ssh")


class Dashboard(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def dashboard() -> Iterator[int]:
    """Port of what is at the other end."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Dashboard)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield server.server_address[1]
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that comes first on PATH, and a home."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.setenv("HOME", str(tmp_path))
    return folder


def program(path: Path, script: str) -> None:
    path.write_text(script)
    path.chmod(0o755)


@pytest.fixture
def stub(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the small ssh."""
    folder = tmp_path / "stub"
    folder.mkdir()
    monkeypatch.setenv("STUB_SSH", str(folder))
    script = Path(__file__).with_name("stub_ssh.py")
    program(path / "ssh", f'#!/bin/sh\nexec "{sys.executable}" -S -E "{script}" "$@"\n')
    return folder


@pytest.fixture
def sshd(path: Path, tmp_path: Path) -> Iterator[Path]:
    """A real sshd of the test's own on a free port, which its ssh is led to; gives the private key that it takes."""
    if SSHD is None or SSH is None:
        pytest.skip("no sshd is installed")
    if os.geteuid() == 0:
        try:
            pwd.getpwnam("sshd")
        except KeyError:
            pytest.skip("sshd is installed, but not its user")
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    keys = tmp_path / "keys"
    keys.mkdir(mode=0o700)
    for name in ("host", "mine", "other"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(keys / name)], check=True, timeout=30)
    shutil.copyfile(keys / "mine.pub", keys / "authorized")
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        port = bound.getsockname()[1]
    settings = {
        "Port": port,
        "ListenAddress": "127.0.0.1",
        "HostKey": keys / "host",
        "AuthorizedKeysFile": keys / "authorized",
        "PidFile": "none",
        "StrictModes": "no",
        "PasswordAuthentication": "no",
        "KbdInteractiveAuthentication": "no",
        "UsePAM": "no",
        "PermitRootLogin": "yes",
    }
    (keys / "config").write_text("".join(f"{name} {value}\n" for name, value in settings.items()))
    serves = subprocess.Popen([SSHD, "-D", "-e", "-f", str(keys / "config")], stderr=subprocess.PIPE)
    until = time.monotonic() + 30
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            break
        except OSError:
            assert serves.poll() is None, serves.stderr and serves.stderr.read()
            assert time.monotonic() < until
            time.sleep(0.05)
    program(path / "ssh", f'#!/bin/sh\nexec "{SSH}" -F none -p {port} "$@"\n')
    yield keys / "mine"
    serves.terminate()
    serves.communicate()


@pytest.fixture(params=["stub", "sshd"])
def head(request: pytest.FixtureRequest) -> Head:
    """A head that is reached, by either ssh."""
    if request.param == "stub":
        request.getfixturevalue("stub")
        return Head(host="127.0.0.1", identity="i-1", user="lab", key="")
    key = request.getfixturevalue("sshd")
    return Head(host="127.0.0.1", identity="i-1", user=pwd.getpwuid(os.geteuid()).pw_name, key=str(key))


@pytest.fixture
def tunnel(head: Head, dashboard: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[Tunnel]:
    cluster = Cluster(file=FILE, head=head)
    monkeypatch.setattr(tunnels, "running", lambda file: cluster)
    with Tunnel(cluster, dashboard) as made:
        yield made


def answer(address: str) -> str:
    with urllib.request.urlopen(f"{address}/api/version", timeout=10) as said:
        return str(said.read().decode())


def open_ports(address: str) -> bool:
    with socket.socket() as asked:
        return asked.connect_ex(("127.0.0.1", int(address.rpartition(":")[2]))) == 0


def test_what_goes_in_here_comes_out_there(tunnel: Tunnel) -> None:
    address = tunnel.open()
    assert address == f"http://127.0.0.1:{tunnel.port}"
    assert answer(address) == "ok"
    assert answer(address) == "ok"


def test_a_killed_ssh_is_replaced_on_the_same_port(tunnel: Tunnel) -> None:
    address = tunnel.open()
    for _ in range(2):
        assert tunnel._ssh is not None
        broken = tunnel._ssh.pid
        os.kill(broken, signal.SIGKILL)
        tunnel._ssh.wait(10)
        assert not open_ports(address)
        assert tunnel.open() == address
        assert tunnel._ssh.pid != broken
        assert answer(address) == "ok"


def test_one_that_is_whole_is_replaced_too(tunnel: Tunnel) -> None:
    """It may lead nowhere any more, without knowing it."""
    address = tunnel.open()
    assert tunnel._ssh is not None
    before = tunnel._ssh
    assert tunnel.open() == address
    assert before.poll() is not None
    assert answer(address) == "ok"


def test_closing_leaves_no_process_and_no_port(tunnel: Tunnel) -> None:
    address = tunnel.open()
    assert tunnel._ssh is not None
    pid = tunnel._ssh.pid
    assert Path(f"/proc/{pid}").exists()
    tunnel.close()
    assert not Path(f"/proc/{pid}").exists()
    assert not open_ports(address)
    tunnel.close()
    assert answer(tunnel.open()) == "ok"


def test_an_error_inside_closes_it_too(head: Head, dashboard: int) -> None:
    with pytest.raises(KeyError), Tunnel(Cluster(file=FILE, head=head), dashboard) as tunnel:  # noqa: PT012
        tunnel.open()
        assert tunnel._ssh is not None
        pid = tunnel._ssh.pid
        raise KeyError
    assert not Path(f"/proc/{pid}").exists()


def test_where_another_took_the_port_meanwhile_it_is_another(tunnel: Tunnel) -> None:
    address = tunnel.open()
    tunnel.close()
    with socket.create_server(("127.0.0.1", tunnel.port)):
        other = tunnel.open()
        assert other != address
        assert answer(other) == "ok"


def test_a_key_that_is_refused_is_said_as_ssh_says_it(sshd: Path, dashboard: int) -> None:
    user = pwd.getpwuid(os.geteuid()).pw_name
    head = Head(host="127.0.0.1", identity="i-1", user=user, key=str(sshd.with_name("other")))
    with (
        Tunnel(Cluster(file=FILE, head=head), dashboard) as tunnel,
        pytest.raises(ClusterError, match=r"no tunnel to .*@127\.0\.0\.1: .*Permission denied \(publickey\)\.; check"),
    ):
        tunnel.open()
    assert tunnel._ssh is None


def test_another_machine_in_its_place_is_not_trusted(sshd: Path, dashboard: int, tmp_path: Path) -> None:
    """The host key is kept under the instance, and has to stay."""
    user = pwd.getpwuid(os.geteuid()).pw_name
    first = Head(host="127.0.0.1", identity="i-1", user=user, key=str(sshd))
    with Tunnel(Cluster(file=FILE, head=first), dashboard) as tunnel:
        assert answer(tunnel.open()) == "ok"
    known = tmp_path / ".ssh" / "tunelab_known_hosts"
    assert known.read_text().startswith("i-1 ssh-ed25519 ")
    other = sshd.with_name("other.pub").read_text().split()[1]
    known.write_text(f"i-1 ssh-ed25519 {other}\n")
    with (
        Tunnel(Cluster(file=FILE, head=first), dashboard) as tunnel,
        pytest.raises(ClusterError, match="Host key verification failed"),
    ):
        tunnel.open()
    again = Head(host="127.0.0.1", identity="i-2", user=user, key=str(sshd))
    with Tunnel(Cluster(file=FILE, head=again), dashboard) as tunnel:
        assert answer(tunnel.open()) == "ok", "another instance at this address"


def test_what_ssh_says_last_is_told(stub: Path, dashboard: int) -> None:
    (stub / "refuse").write_text("a banner\nlab@10.0.0.1: Permission denied (publickey).\n")
    head = Head(host="10.0.0.1", identity="i-1", user="lab", key="/keys/lab.pem")
    with (
        Tunnel(Cluster(file=FILE, head=head), dashboard) as tunnel,
        pytest.raises(ClusterError) as told,
    ):
        tunnel.open()
    assert str(told.value) == (
        "no tunnel to lab@10.0.0.1: lab@10.0.0.1: Permission denied (publickey).; check auth.ssh_private_key, and that "
        "port 22 admits you"
    )


def test_a_host_that_says_nothing(stub: Path, dashboard: int, monkeypatch: pytest.MonkeyPatch) -> None:
    (stub / "hang").touch()
    monkeypatch.setattr(tunnels, "OPEN_SECONDS", 1.0)
    head = Head(host="10.0.0.1", identity="i-1", user="lab", key="")
    with (
        Tunnel(Cluster(file=FILE, head=head), dashboard) as tunnel,
        pytest.raises(ClusterError, match=r"no tunnel to lab@10\.0\.0\.1: no connection within 1 s; check"),
    ):
        tunnel.open()
    (call,) = calls(stub)
    assert not Path(f"/proc/{call['pid']}").exists()


def test_opened_again_it_leads_to_where_the_head_is_now(
    stub: Path, dashboard: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = Head(host="10.0.0.1", identity="i-1", user="lab", key="")
    new = Cluster(file=FILE, head=Head(host="10.0.0.2", identity="i-2", user="lab", key=""))
    monkeypatch.setattr(tunnels, "running", lambda file: new)
    with Tunnel(Cluster(file=FILE, head=old), dashboard) as tunnel:
        tunnel.open()
        tunnel.open()
    assert [call["words"][-1] for call in calls(stub)] == ["lab@10.0.0.1", "lab@10.0.0.2"]
    assert ["HostKeyAlias=i-1" in call["words"] for call in calls(stub)] == [True, False]


def calls(stub: Path) -> list[dict[str, object]]:
    return [json.loads(path.read_text()) for path in sorted(stub.glob("call-*"))]


def test_without_ssh_it_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, dashboard: int) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    head = Head(host="10.0.0.1", identity="i-1", user="lab", key="")
    with (
        Tunnel(Cluster(file=FILE, head=head), dashboard) as tunnel,
        pytest.raises(ClusterError, match="ssh: not found; install an OpenSSH client"),
    ):
        tunnel.open()


@pytest.mark.parametrize(("key", "only"), [("/keys/lab.pem", "yes"), ("", "no")])
def test_how_ssh_is_called(path: Path, key: str, only: str) -> None:
    head = Head(host="10.0.0.1", identity="i-1", user="lab", key=key)
    words = ssh_command(head, "-N", command=["true"])
    assert words[0] == "ssh"
    assert words[-2:] == ["lab@10.0.0.1", "true"]
    assert f"IdentitiesOnly={only}" in words
    assert ("-i" in words, key in words) == (bool(key), bool(key))
    for setting in ("BatchMode=yes", "StrictHostKeyChecking=accept-new", "HostKeyAlias=i-1"):
        assert words[words.index(setting) - 1] == "-o"
    assert not any("ForwardAgent=yes" in word for word in words)
    assert (path.parent / ".ssh").stat().st_mode & 0o777 == 0o700
