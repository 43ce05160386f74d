"""Where a search runs: in which order that is looked for, and that nobody is asked who need not be."""

from __future__ import annotations

import http.client
import json
import os
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import boto3
import pytest
import yaml
from cluster_files import GOOD, OWN

from tunelab.cluster import where
from tunelab.cluster.file import load_cluster_file
from tunelab.cluster.where import NoHeadError, Place, mark_of, place, running
from tunelab.errors import ClusterError, UsageError

HERE = f"this machine, {socket.gethostname()}, {os.cpu_count()} cores"
AUTOMATIC = GOOD.replace("  ssh_private_key: ~/.ssh/lab.pem\n", "").replace("      KeyName: lab\n", "")
"""Of a cluster whose key Ray makes."""


class Aws(ThreadingHTTPServer):
    """Stands before moto and counts; ``drip`` seconds pass before each byte where that is not zero."""

    daemon_threads = True

    def __init__(self, moto: int) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.moto = moto
        self.asked: list[str] = []
        """Actions."""
        self.hang = threading.Event()
        """Not to answer at all."""
        self.drip = 0.0
        self.over = threading.Event()


class Handler(BaseHTTPRequestHandler):
    server: Aws

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.asked.append(parse_qs(body.decode())["Action"][0])
        if self.server.hang.is_set():
            self.server.over.wait(60)
            return
        moto = http.client.HTTPConnection("127.0.0.1", self.server.moto, timeout=30)
        moto.request("POST", self.path, body, {key: value for key, value in self.headers.items() if key != "Host"})
        done = moto.getresponse()
        said = done.read()
        moto.close()
        self.send_response(done.status)
        self.send_header("Content-Length", str(len(said)))
        self.end_headers()
        for at in range(len(said)) if self.server.drip else (slice(None),):
            self.wfile.write(said[at : at + 1] if isinstance(at, int) else said)
            if self.server.drip and self.server.over.wait(self.server.drip):
                return

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def aws(s3_port: int, aws_at: Callable[[str], None], monkeypatch: pytest.MonkeyPatch) -> Iterator[Aws]:
    server = Aws(s3_port)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    aws_at(f"http://127.0.0.1:{server.server_address[1]}")
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)  # which keeps credentials
    yield server
    server.over.set()
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home, and a folder of temporary files, that nothing else uses."""
    (tmp_path / "tmp").mkdir()
    (tmp_path / ".ssh").mkdir(mode=0o700)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    return tmp_path


@pytest.fixture
def clone(tmp_path: Path) -> Callable[[str], Path]:
    """A folder that holds a cluster.yaml."""

    def write(text: str = GOOD) -> Path:
        folder = tmp_path / "clone"
        folder.mkdir(exist_ok=True)
        (folder / "cluster.yaml").write_text(text)
        return folder

    return write


def mark(text: str, *, name: str = "1", **auth: str) -> Path:
    """What `ray up` leaves of a file, as far as it is looked at."""
    made = yaml.safe_load(text)
    made["auth"].update(auth)
    path = Path(tempfile.gettempdir()) / f"ray-config-{name}"
    path.write_text(json.dumps({"_version": 1, "provider_log_info": {}, "config": made}))
    return path


@pytest.fixture
def ec2(s3_port: int) -> Iterator[Any]:
    """A client that asks moto itself; machines end with the test."""
    keys = {"aws_access_key_id": "a", "aws_secret_access_key": "b", "region_name": "us-west-2"}
    client = boto3.client("ec2", endpoint_url=f"http://127.0.0.1:{s3_port}", **keys)
    yield client
    found = client.describe_instances()["Reservations"]
    if ids := [one["InstanceId"] for reservation in found for one in reservation["Instances"]]:
        client.terminate_instances(InstanceIds=ids)


def start(ec2: Any, name: str = "lab", kind: str = "head") -> dict[str, Any]:
    """A machine as Ray's launcher starts and tags it."""
    tags = [{"Key": "ray-cluster-name", "Value": name}, {"Key": "ray-node-type", "Value": kind}]
    image = ec2.describe_images(Owners=["amazon"])["Images"][0]["ImageId"]
    made = ec2.run_instances(
        ImageId=image, MinCount=1, MaxCount=1, TagSpecifications=[{"ResourceType": "instance", "Tags": tags}]
    )["Instances"][0]
    (found,) = ec2.describe_instances(InstanceIds=[made["InstanceId"]])["Reservations"][0]["Instances"]
    return dict(found)


def at(folder: Path, **given: Any) -> Place:
    return place(**{"address": None, "local": False, "file": None, **given}, folder=folder)


def test_what_was_typed_goes_before_what_was_found(
    aws: Aws, ec2: Any, clone: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, machine = clone(), start(ec2)
    mark(GOOD)
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.9:6379")
    named = str(folder / "cluster.yaml")
    assert at(folder, local=True) == Place(why=f"{HERE}: --local")
    assert at(folder, address="10.0.0.1:6379").address == "10.0.0.1:6379"
    assert at(folder, address="10.0.0.1:6379").why == "Ray at 10.0.0.1:6379: --address"
    assert at(folder) == Place(why="Ray at 10.0.0.9:6379: RAY_ADDRESS", address="10.0.0.9:6379")
    assert aws.asked == [], "none of these needs to know"
    cluster = at(folder, file=named).cluster
    assert cluster is not None, "a file that is named goes before the variable"
    assert cluster.head.host == machine["PublicIpAddress"]
    monkeypatch.delenv("RAY_ADDRESS")
    found = at(folder)
    assert found.cluster == cluster
    host, identity = machine["PublicIpAddress"], machine["InstanceId"]
    assert found.why == f"cluster lab, head {host} ({identity}): cluster.yaml, brought up from here"
    (folder / "cluster.yaml").unlink()
    assert at(folder) == Place(why=HERE)


def test_a_clone_that_merely_holds_a_file_asks_nobody(
    aws: Aws, ec2: Any, clone: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    start(ec2)
    with monkeypatch.context() as closed:
        closed.setattr(socket.socket, "connect", lambda *_: pytest.fail("a connection was tried"))
        assert at(clone()) == Place(why=f"{HERE}: no ray up of cluster.yaml from here")
    assert aws.asked == []
    mark(GOOD)
    assert at(clone()).cluster is not None, "with a mark it is found"
    assert aws.asked == ["DescribeInstances"], "one question, which changes nothing"


def test_marks_of_other_clusters_are_none(aws: Aws, clone: Callable[..., Path]) -> None:
    folder = clone()
    mark(GOOD.replace("cluster_name: lab", "cluster_name: another"), name="name")
    mark(GOOD.replace("us-west-2", "eu-west-1"), name="region")
    mark(OWN, name="type")
    mark(GOOD, name="good").rename(Path(tempfile.gettempdir()) / "other-config-1")
    assert mark_of(load_cluster_file(folder / "cluster.yaml")) is None
    assert at(folder).cluster is None
    assert aws.asked == []


@pytest.mark.parametrize("content", ["", "[]", "{", '{"config": []}', '{"config": {"cluster_name": "lab"}}', "\xff"])
def test_marks_that_are_none(clone: Callable[..., Path], content: str) -> None:
    path = Path(tempfile.gettempdir()) / "ray-config-1"
    path.write_text(content, encoding="latin-1")
    (path.parent / "ray-config-folder").mkdir()
    assert at(clone()).why == f"{HERE}: no ray up of cluster.yaml from here"


def test_the_mark_of_another_user_is_not_trusted(
    aws: Aws, clone: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    mark(GOOD, ssh_private_key="/tmp/theirs.pem")
    file = load_cluster_file(clone() / "cluster.yaml")
    assert mark_of(file) is not None
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    assert mark_of(file) is None
    assert at(clone()).cluster is None
    assert aws.asked == []


def test_the_newest_mark_names_the_key_that_ray_made(aws: Aws, ec2: Any, clone: Callable[..., Path]) -> None:
    start(ec2)
    folder = clone(AUTOMATIC)
    file = load_cluster_file(folder / "cluster.yaml")
    assert running(file).head.key == "", "without a mark it is ssh's to find one"
    os.utime(mark(AUTOMATIC, name="older", ssh_private_key="/keys/older.pem"), (1, 1))
    mark(AUTOMATIC, name="newer", ssh_private_key="~/.ssh/ray-autoscaler_us-west-2.pem")
    cluster = at(folder).cluster
    assert cluster is not None
    assert cluster.head.key == str(Path("~/.ssh/ray-autoscaler_us-west-2.pem").expanduser())
    assert cluster.head.user == "ubuntu"


# Ray warns of images that moto does not know
@pytest.mark.filterwarnings("ignore::PendingDeprecationWarning", "ignore::ResourceWarning")
def test_what_ray_itself_leaves_is_a_mark(
    aws: Aws, ec2: Any, clone: Callable[..., Path], s3_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ray.autoscaler._private.aws.utils import client_cache, resource_cache
    from ray.autoscaler._private.commands import _bootstrap_config

    iam = boto3.client("iam", region_name="us-east-1", endpoint_url=f"http://127.0.0.1:{s3_port}")
    for profile in ("where-head", "where-worker"):
        iam.create_instance_profile(InstanceProfileName=profile)
    text = AUTOMATIC.replace("lab-head", "where-head").replace("lab-worker", "where-worker")
    text = text.replace("      SecurityGroupIds: [sg-0123456789abcdef0]\n", "")
    folder, machine = clone(text), start(ec2)
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{s3_port}")
    try:
        made = _bootstrap_config(yaml.safe_load(text))
    finally:
        client_cache.cache_clear()
        resource_cache.cache_clear()
    cluster = at(folder).cluster
    assert cluster is not None
    assert cluster.head.identity == machine["InstanceId"]
    assert cluster.head.key == made["auth"]["ssh_private_key"]
    assert Path(cluster.head.key).is_file()


def test_a_head_that_does_not_run(aws: Aws, ec2: Any, clone: Callable[..., Path]) -> None:
    folder = clone()
    mark(GOOD)
    start(ec2, name="another")
    start(ec2, kind="worker")
    stopped = start(ec2)["InstanceId"]
    ec2.stop_instances(InstanceIds=[stopped])
    file = folder / "cluster.yaml"
    none = f"{file}: no head of lab runs in us-west-2; ray up starts it"
    assert at(folder) == Place(why=f"{HERE}: {none}")
    with pytest.raises(NoHeadError) as told:
        at(folder, file=str(file))
    assert str(told.value) == none, "where it was named, nothing else is taken"


def test_of_several_heads_the_newest(aws: Aws, ec2: Any, clone: Callable[..., Path]) -> None:
    mark(GOOD)
    first = start(ec2)
    while (second := start(ec2))["LaunchTime"] <= first["LaunchTime"]:  # whole seconds
        ec2.terminate_instances(InstanceIds=[second["InstanceId"]])
    cluster = at(clone()).cluster
    assert cluster is not None
    assert cluster.head.identity == second["InstanceId"]


def test_inside_the_network_its_own_address(aws: Aws, ec2: Any, clone: Callable[..., Path]) -> None:
    machine = start(ec2)
    text = GOOD.replace("  storage:", "  use_internal_ips: true\n  storage:")
    assert running(load_cluster_file(clone(text) / "cluster.yaml")).head.host == machine["PrivateIpAddress"]
    assert running(load_cluster_file(clone() / "cluster.yaml")).head.host == machine["PublicIpAddress"]


@pytest.mark.parametrize("how", ["hangs", "drips", "refuses"])
def test_aws_that_does_not_answer_is_not_waited_for(
    aws: Aws, ec2: Any, clone: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    start(ec2)
    folder = clone()
    mark(GOOD)
    assert at(folder).cluster is not None
    if how == "hangs":
        aws.hang.set()
    elif how == "drips":
        aws.drip = 0.2
    else:
        with socket.socket() as closed:
            closed.bind(("127.0.0.1", 0))
            monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{closed.getsockname()[1]}")
    before = time.monotonic()
    found = at(folder)
    assert time.monotonic() - before < where.ASK_SECONDS + 2
    assert found.cluster is None
    assert found.why.startswith(f"{HERE}: {folder / 'cluster.yaml'}: AWS (us-west-2) does not say whether the head ")
    with pytest.raises(ClusterError, match="does not say whether the head runs"):
        at(folder, file=str(folder / "cluster.yaml"))


def test_without_credentials_it_is_said(aws: Aws, clone: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    mark(GOOD)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    assert "Unable to locate credentials" in at(clone()).why
    assert aws.asked == []


@pytest.fixture
def ssh_port(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listens:
        monkeypatch.setattr(where, "SSH_PORT", listens.getsockname()[1])
        yield where.SSH_PORT


def test_machines_of_ones_own(ssh_port: int, clone: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    text = OWN.replace("10.0.0.1", "127.0.0.1")
    folder = clone(text)
    assert at(folder).why == f"{HERE}: no ray up of cluster.yaml from here"
    mark(text.replace("127.0.0.1", "10.0.0.8"), name="other")
    assert at(folder).cluster is None, "a mark of other machines"
    mark(text)
    found = at(folder)
    assert found.why == "cluster lab, head 127.0.0.1: cluster.yaml, brought up from here"
    assert found.cluster is not None
    head = found.cluster.head
    assert (head.host, head.identity, head.user) == ("127.0.0.1", "127.0.0.1", "lab")
    assert head.key == str(Path("~/.ssh/lab.pem").expanduser())
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        monkeypatch.setattr(where, "SSH_PORT", closed.getsockname()[1])
        assert "no ssh answers at the head 127.0.0.1: " in at(folder).why


@pytest.mark.usefixtures("ssh_port")
@pytest.mark.parametrize(
    ("text", "message"),
    [
        (OWN.replace("  head_ip: 10.0.0.1\n", ""), "provider.head_ip: missing; write the head's address"),
        (OWN.replace("10.0.0.1", "127.0.0.1").replace("  ssh_user: lab\n", ""), "auth.ssh_user: missing; ssh needs it"),
        (
            OWN.replace("type: local", "type: gcp"),
            "provider.type: gcp: only aws and local are looked up; open ",
        ),
    ],
)
def test_files_of_which_no_head_is_found(clone: Callable[..., Path], text: str, message: str) -> None:
    with pytest.raises(ClusterError, match=message):
        running(load_cluster_file(clone(text) / "cluster.yaml"))


def test_a_file_that_cannot_be_read(clone: Callable[..., Path]) -> None:
    folder = clone("provider: [")
    assert f"{HERE}: cluster.yaml cannot be read (" in at(folder).why
    with pytest.raises(UsageError, match="not YAML"):
        at(folder, file=str(folder / "cluster.yaml"))
