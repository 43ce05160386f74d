"""The end of a cluster, against moto over HTTP; `ray down` itself is a stand-in here, and real in test_cluster.py."""

from __future__ import annotations

import io
import json
import sys
import tempfile
import uuid
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import boto3
import pytest
from cluster_files import GOOD, OWN

from tunelab import cluster_commands
from tunelab.cli import main
from tunelab.cluster import down as down_module
from tunelab.cluster import remote, where
from tunelab.cluster.file import ClusterFile, load_cluster_file
from tunelab.cluster.job import Job
from tunelab.cluster.where import mark_of
from tunelab.errors import ClusterError

REGION = "us-west-2"
KEY = f"ray-autoscaler_{REGION}"


@pytest.fixture
def ec2(s3_port: int, aws_at: Callable[[str], None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """EC2; this machine's home and temporary files are the test's own."""
    aws_at(f"http://127.0.0.1:{s3_port}")
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "tmp").mkdir()
    (tmp_path / ".ssh").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    client = boto3.client("ec2", region_name=REGION)
    yield client
    for pair in client.describe_key_pairs()["KeyPairs"]:
        client.delete_key_pair(KeyName=pair["KeyName"])


@pytest.fixture
def file(tmp_path: Path) -> ClusterFile:
    """A cluster of a name of its own, whose key is Ray's."""
    path = tmp_path / "c.yaml"
    text = GOOD.replace("cluster_name: lab", f"cluster_name: lab-{uuid.uuid4().hex[:8]}")
    path.write_text(text.replace("      KeyName: lab\n", "").replace("  ssh_private_key: ~/.ssh/lab.pem\n", ""))
    return load_cluster_file(path)


@pytest.fixture
def start(ec2: Any, file: ClusterFile) -> Callable[..., str]:
    """Starts a machine as Ray does."""

    def one(role: str, *, key: str = KEY, cluster: str | None = None) -> str:
        if not ec2.describe_key_pairs(Filters=[{"Name": "key-name", "Values": [key]}])["KeyPairs"]:
            ec2.create_key_pair(KeyName=key)
        tags = {"ray-cluster-name": cluster or file.name, "ray-node-type": role}
        made = ec2.run_instances(
            ImageId="ami-12c6146b",
            InstanceType="m5.xlarge",
            KeyName=key,
            MinCount=1,
            MaxCount=1,
            TagSpecifications=[
                {"ResourceType": "instance", "Tags": [{"Key": name, "Value": tags[name]} for name in tags]}
            ],
        )
        return str(made["Instances"][0]["InstanceId"])

    return one


@pytest.fixture
def ray_down(ec2: Any, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What `ray down` does: ``ends`` machines, and exits with ``code``."""
    told: dict[str, Any] = {"ends": [], "code": 0, "calls": 0}

    def ray(_: ClusterFile) -> int:
        told["calls"] += 1
        if told["ends"]:
            ec2.terminate_instances(InstanceIds=told["ends"])
        return int(told["code"])

    monkeypatch.setattr(down_module, "_ray_down", ray)
    return told


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def mark(file: ClusterFile, **node: str) -> Path:
    """What `ray up` leaves on the machine where it was run."""
    path = Path(tempfile.gettempdir()) / f"ray-config-{uuid.uuid4().hex}"
    config = {
        "cluster_name": file.name,
        "provider": dict(file.mapping("provider")),
        "available_node_types": {"head": {"node_config": node}},
    }
    path.write_text(json.dumps({"config": config}))
    return path


def states(ec2: Any, *names: str) -> list[str]:
    found = ec2.describe_instances(InstanceIds=list(names))["Reservations"]
    by_name = {one["InstanceId"]: one["State"]["Name"] for reservation in found for one in reservation["Instances"]}
    return [by_name[name] for name in names]


def end(file: ClusterFile) -> list[str]:
    said: list[str] = []
    down_module.down(file, said.append)
    return said


def keys(ec2: Any) -> list[str]:
    return [pair["KeyName"] for pair in ec2.describe_key_pairs()["KeyPairs"]]


def test_what_ray_made_is_gone_and_said(
    ec2: Any, file: ClusterFile, start: Any, ray_down: dict[str, Any], tmp_path: Path
) -> None:
    head, worker = start("head"), start("worker")
    ray_down["ends"] = [head, worker]
    pem = tmp_path / ".ssh" / f"{KEY}.pem"
    pem.write_text("canary")
    known = tmp_path / ".ssh" / "tunelab_known_hosts"
    key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJqsRyhPhOHVtIcaeCfOc5hPeSb1hNErwbaGr3dxoSpe"
    known.write_text(f"{head} {key}\ni-other {key}\n")
    left = mark(file, KeyName=KEY)
    assert mark_of(file)

    assert end(file) == [
        f"Ended: {head} (head, m5.xlarge, running)",
        f"Ended: {worker} (worker, m5.xlarge, running)",
        f"Ended: key pair {KEY} and ~/.ssh/{KEY}.pem",
        f"Nothing of {file.name} is left in us-west-2 that costs; results stay in s3://lab-radar/runs",
    ]
    assert states(ec2, head, worker) == ["terminated", "terminated"]
    assert keys(ec2) == []
    assert not pem.exists()
    assert not left.exists()
    assert mark_of(file) is None
    assert known.read_text() == f"i-other {key}\n"
    assert sorted(path.name for path in known.parent.iterdir()) == ["tunelab_known_hosts"]


def test_what_ray_down_leaves_is_ended(ec2: Any, file: ClusterFile, start: Any, ray_down: dict[str, Any]) -> None:
    head, worker = start("head"), start("worker")
    ec2.stop_instances(InstanceIds=[head])  # as with cache_stopped_nodes
    ray_down["code"] = 1
    said = end(file)
    assert said[:3] == [
        "ray down ended with 1; EC2 is asked for what is left",
        f"ray down left {head} (head, m5.xlarge, stopped); terminating it",
        f"ray down left {worker} (worker, m5.xlarge, running); terminating it",
    ]
    assert states(ec2, head, worker) == ["terminated", "terminated"]


def test_other_clusters_and_keys_are_left_alone(
    ec2: Any, file: ClusterFile, start: Any, ray_down: dict[str, Any], tmp_path: Path
) -> None:
    other = start("head", cluster="another-cluster")
    own = start("worker", key="mine")
    ray_down["ends"] = [start("head"), own]
    pem = tmp_path / ".ssh" / f"{KEY}.pem"
    pem.write_text("canary")
    theirs = mark(file)
    theirs.write_text(theirs.read_text().replace(file.name, "another-cluster"))

    said = end(file)
    assert f"Kept: key pair {KEY}, which {other} was started with" in said
    assert states(ec2, other) == ["running"]
    assert sorted(keys(ec2)) == ["mine", KEY]
    assert pem.exists()
    assert theirs.exists()
    ec2.terminate_instances(InstanceIds=[other])


def test_a_key_that_the_file_names_is_the_users(
    ec2: Any, file: ClusterFile, start: Any, ray_down: dict[str, Any]
) -> None:
    file.path.write_text(file.path.read_text().replace("      ImageId: *image\n", f"      KeyName: {KEY}\n"))
    ray_down["ends"] = [start("head")]
    assert not any("key pair" in line for line in end(load_cluster_file(file.path)))
    assert keys(ec2) == [KEY]


def test_a_cluster_that_is_gone_already(ec2: Any, file: ClusterFile, ray_down: dict[str, Any]) -> None:
    left = mark(file, KeyName=KEY)
    assert end(file) == [f"Nothing of {file.name} is left in us-west-2 that costs; results stay in s3://lab-radar/runs"]
    assert not left.exists()
    assert ray_down["calls"] == 1


def test_whoever_cannot_ask_ec2_hears_how_to_look(
    ec2: Any, file: ClusterFile, ray_down: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setattr(down_module, "_ATTEMPTS", 1)
    left = mark(file)
    with pytest.raises(ClusterError, match=rf"c\.yaml: AWS does not say .*: aws ec2 describe-.*Values={file.name}"):
        end(file)
    assert ray_down["calls"] == 0
    assert left.exists(), "it may still run"


def test_machines_of_ones_own(ec2: Any, ray_down: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(OWN)
    file = load_cluster_file(path)
    left = mark(file)
    ray_down["code"] = 3
    with pytest.raises(ClusterError, match="ray down ended with 3; Ray may still run"):
        end(file)
    assert left.exists()
    ray_down["code"] = 0
    assert end(file) == ["Ended: Ray on the machines of lab"]
    assert not left.exists()


def test_ray_down_is_a_child_whose_output_is_the_users(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "broken.yaml"
    path.write_text("cluster_name: lab\n")
    assert down_module._ray_down(load_cluster_file(path)) != 0
    assert "KeyError: 'provider'" in capfd.readouterr().err


@pytest.mark.parametrize(("answer", "ended"), [("y\n", True), ("\n", False), ("n\n", False), ("", False)])
def test_it_asks_when_searches_run(
    ec2: Any,
    file: ClusterFile,
    ray_down: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    answer: str,
    ended: bool,
) -> None:
    monkeypatch.setattr(sys, "stdin", Terminal(answer))
    monkeypatch.setattr(cluster_commands, "_still_needed", lambda _: "first: still running there")
    assert main(["cluster", "down", str(file.path)]) == 0
    said = capsys.readouterr().out
    assert "first: still running there; end the cluster all the same? [y/N] " in said
    assert ray_down["calls"] == ended
    assert ("Nothing was ended." in said) != ended


@pytest.mark.parametrize("words", [("--yes",), ()])
def test_it_does_not_ask_a_script(
    ec2: Any, file: ClusterFile, ray_down: dict[str, Any], monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    monkeypatch.setattr(cluster_commands, "_still_needed", lambda _: pytest.fail("asked"))
    monkeypatch.setattr(sys, "stdin", Terminal() if words else io.StringIO())
    assert main(["cluster", "down", str(file.path), *words]) == 0
    assert ray_down["calls"] == 1


def test_without_a_head_nobody_is_asked(ec2: Any, file: ClusterFile) -> None:
    assert cluster_commands._still_needed(file) == ""


@pytest.mark.parametrize(
    ("jobs", "said"),
    [
        ({"first": "SUCCEEDED", "second": "STOPPED"}, ""),
        ({}, ""),
        ({"first": "RUNNING", "second": "FAILED", "third": "PENDING"}, "first, third: still running there, and "),
        (ClusterError("no tunnel"), "The cluster does not say whether searches run on it (no tunnel)"),
    ],
)
def test_searches_that_run_are_named(
    file: ClusterFile, monkeypatch: pytest.MonkeyPatch, jobs: dict[str, str] | ClusterError, said: str
) -> None:
    class Known:
        def all(self) -> list[Job]:
            if isinstance(jobs, ClusterError):
                raise jobs
            rest: Any = {"storage": "", "begun": None, "exit_code": None, "message": ""}
            return [Job(run=run, status=status, **rest) for run, status in jobs.items()]

    monkeypatch.setattr(where, "running", lambda _: None)
    monkeypatch.setattr(remote, "jobs_of", lambda _: nullcontext(Known()))
    found = cluster_commands._still_needed(file)
    assert found.startswith(said)
    assert bool(found) == bool(said)
