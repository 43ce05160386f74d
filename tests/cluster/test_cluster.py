"""`ray up`, a search typed on a laptop, losses and cut lines, another laptop, and the end of all costs.

On hosts of its own (tests/hosts), with moto as AWS. What the machines print is kept in ``.evidence/cluster.txt``.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import yaml
from hosts.able import why_not
from hosts.aws import REGION, URL, Aws, prepare, terminate
from hosts.host import Host, until
from hosts.hypervisor import Hypervisor
from hosts.lab import Image, Lab
from hosts.laptop import Laptop, Story

pytestmark = pytest.mark.cluster
ROOT = Path(__file__).resolve().parents[2]
EVIDENCE = ROOT / ".evidence" / "cluster.txt"
BUCKET = "tunelab-lab"
RUNS = f"s3://{BUCKET}/runs"
SCANS = f"s3://{BUCKET}/scans"
CLONE = ("tunelab", "search_spaces", "pyproject.toml", "constraints.txt", "README.md", "LICENSE")
WORKER = "g4dn.xlarge"
KEY = f"ray-autoscaler_{REGION}"
TOOLS = ("hatchling", "trove-classifiers", "pathspec")
"""What the package is built with, and what that needs beside our own packages; a host has no network to fetch it."""
MOST_EPOCHS = 16
IMAGE = "/lab/image"
"""Parameter that names the machines' image; that of the repository's file is none of moto's."""
UPLOAD = (
    "import boto3, pathlib; s3 = boto3.client('s3'); "
    f"[s3.upload_file(str(path), '{BUCKET}', str(path)) for path in pathlib.Path('scans').rglob('*') if path.is_file()]"
)


@pytest.fixture(scope="module", autouse=True)
def _can() -> None:
    if why := why_not():
        pytest.skip(f"no hosts on this machine: {why}")


def image(tools: Path) -> Image:
    """What the machines have from birth: the way to AWS, and what pip would fetch from the internet."""
    return Image(
        files={
            ".aws/config": f"[default]\nregion = {REGION}\nendpoint_url = {URL}\n",
            ".aws/credentials": "[default]\naws_access_key_id = testing\naws_secret_access_key = testing\n",
        },
        shell=[
            f"export AWS_ENDPOINT_URL={URL} AWS_REGION={REGION} AWS_DEFAULT_REGION={REGION}",
            "export AWS_EC2_METADATA_DISABLED=true RAY_USAGE_STATS_ENABLED=0 TF_CPP_MIN_LOG_LEVEL=3",
            # 0 is how pip is told to isolate no build; dependencies are there, but those of CUDA
            "export PIP_NO_INDEX=1 PIP_NO_DEPS=1 PIP_NO_BUILD_ISOLATION=0 PIP_DISABLE_PIP_VERSION_CHECK=1",
            f"export PYTHONPATH={tools}",
        ],
    )


def derived() -> str:
    """The repository's cluster file, with a bucket, and machines of the size of this one."""
    told = yaml.safe_load((ROOT / "cluster.yaml").read_text())
    told["provider"]["storage"] = RUNS
    told["max_workers"] = 2
    told["idle_timeout_minutes"] = 0.5
    types = told["available_node_types"]
    for other in ("gpu_spot_bigger", "gpu_on_demand"):
        del types[other]
    for one in types.values():
        one["node_config"]["ImageId"] = f"resolve:ssm:{IMAGE}"
    types["gpu_spot"] |= {"resources": {"CPU": 1, "GPU": 0}, "max_workers": 2}  # else Ray goes by the instance type
    return yaml.safe_dump(told, sort_keys=False)


@contextmanager
def cloud(story: Story) -> Iterator[tuple[Lab, Aws]]:
    """AWS, and hosts for its machines; the transcript is written whatever happens."""
    with Lab() as lab:
        tools = lab.folder / "tools"
        pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(tools), *TOOLS]
        subprocess.run(pip, check=True, timeout=120, capture_output=True)
        lab.image = image(tools)
        aws = Aws(lab)
        prepare(aws, BUCKET, ["tunelab-head", "tunelab-worker"])
        born = aws.ask("ec2", "register_image", Name="lab", RootDeviceName="/dev/sda1")["ImageId"]
        aws.ask("ssm", "put_parameter", Name=IMAGE, Value=born, Type="String")
        with Hypervisor(lab, aws) as hypervisor:
            try:
                yield lab, aws
            finally:
                EVIDENCE.parent.mkdir(exist_ok=True)
                EVIDENCE.write_text(story.text(hypervisor.events))
        aws.close()
        assert hypervisor.failed is None


def workers(aws: Aws) -> list[str]:
    """The machines that take trials and run, the oldest first."""
    there = [one for one in aws.machines("pending", "running") if one["InstanceType"] == WORKER]
    return [one["InstanceId"] for one in sorted(there, key=lambda one: one["LaunchTime"])]


def parsed(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines() if line.endswith("}")]


def underway(records: list[dict[str, Any]]) -> dict[str, int]:
    """The trials that hold a place, and the newest epoch of each."""
    there: dict[str, int] = {}
    for record in records:
        if record["kind"] == "start":
            there.setdefault(record["trial"], 0)
        elif record["kind"] == "result":
            there[record["trial"]] = record["epoch"]
        elif record["kind"] in ("decision", "wait", "end"):
            there.pop(record["trial"], None)
    return there


def test_from_ray_up_to_the_end_of_all_costs() -> None:
    story = Story()
    with cloud(story) as (lab, aws):
        laptop = Laptop(lab.start("laptop", "172.31.0.5"), story)
        laptop.host.give(ROOT, CLONE, "clone")
        laptop.host.run("cat > clone/cluster.yaml", given=derived())
        laptop.do("pip install -q -c constraints.txt '.[cluster]'")

        # a clone that merely holds a cluster file asks nobody
        said = laptop.do("python -m tunelab.search --trials 1 --max-epochs 1 --name here", 180)
        assert "Where: this machine, laptop, " in said
        assert "cores: no ray up of cluster.yaml from here" in said
        assert aws.requests_of(laptop.host) == []

        laptop.do("(umask 077; ray get-auth-token --generate > /dev/null) && chmod 600 ~/.ray/auth_token")
        story.tell("ray up begins")
        laptop.do("ray up -y cluster.yaml", 400)
        assert aws.requests_of(laptop.host)
        (head,) = [one["InstanceId"] for one in aws.machines("running")]
        other = second_laptop(lab, laptop, story)

        # the search, which no one tells where to run
        search = laptop.type(f"python -m tunelab.search --trials 6 --max-epochs {MOST_EPOCHS} --name lab")
        search.until(rf"^Where: cluster tunelab, head \S+ \({head}\): cluster.yaml, brought up from here$", 60)
        search.until(f"^Handed over to .* as lab; results go to {RUNS}/lab$", 60)
        until(lambda: len(workers(aws)) == 2, 180, "two workers")
        search.until(r"leads: trial 000\d", 240)

        lost, trials = unplug_a_worker(lab.hosts[head], aws, story)
        search.until(f"goes on in another process: trial ({'|'.join(trials)}) ", 60)

        # the line breaks, and the laptop opens it again
        until(lambda: search.below("-N"), 5, "a tunnel")
        (tunnel,) = search.below("-N")
        story.tell("the tunnel is cut")
        os.kill(tunnel, signal.SIGKILL)
        search.until("^The line to the cluster broke .* opening it again. The search goes on there.$", 60)
        until(lambda: search.below("-N"), 60, "another tunnel")
        assert search.below("-N") != [tunnel]
        search.until(r"opening it again(?s:.*)trials, .*: trial \d{4} ", 120)

        # who goes leaves the search running
        story.tell("Ctrl-C on the laptop")
        search.interrupt()
        assert search.wait(30) == 0
        search.until("^The search goes on. Look again: tunelab attach lab; end it: tunelab stop lab; ", 1)
        assert search.below("-N") == []

        # from another laptop, which has the cluster's file, key and token, and no TensorFlow
        attached = other.type("tunelab attach")
        laptop.do("tunelab data synth scans --scans 64 --traces 24 --samples 96")
        laptop.do(f'python -c "{UPLOAD}"')
        assert attached.wait(600) == 0, attached.said[-6000:]
        assert "Why the search ended: all trials were over." in attached.said
        assert f"Also at {RUNS}/lab" in attached.said
        check_journal(aws, trials)
        assert "</html>" in aws.object(BUCKET, "runs/lab/report.html")
        assert lost not in workers(aws)

        said = other.do("tunelab logs lab")
        assert "Why the search ended: all trials were over." in said
        assert "lab" in other.do(f"tunelab list {RUNS}")
        look_at_another(lab, aws, lab.hosts[head], laptop, other)

        until(lambda: not workers(aws), 240, "an idle cluster without workers")
        story.tell("no worker is left")
        said = laptop.do("tunelab cluster check --live cluster.yaml")
        assert "the head runs and no worker does, so the bucket was written from here, with the rights of this" in said
        assert [one["InstanceId"] for one in aws.machines("pending", "running")] == [head], "asking starts no machine"

        said = laptop.do("tunelab cluster down cluster.yaml", 180)
        nothing_left(lab, aws, laptop, said)
    assert not lab.folder.exists()


def second_laptop(lab: Lab, laptop: Laptop, story: Story) -> Laptop:
    """One with an installed tunelab, the file, the key and the token, on which TensorFlow cannot be imported."""
    host = lab.start("other", "172.31.0.6")
    host.give(ROOT, CLONE, "source")
    host.run("cd source && pip install -q -c constraints.txt '.[cluster]'; cd; rm -r source; mkdir clone", seconds=120)
    for path, to in (
        ("clone/cluster.yaml", "clone/cluster.yaml"),
        (f".ssh/{KEY}.pem", ".ssh/id_rsa"),
        (".ray/auth_token", ".ray/auth_token"),
    ):
        host.run(f"(umask 077; mkdir -p $(dirname {to}); cat > {to})", given=laptop.host.run(f"cat {path}"))
    host.run("mkdir stubs; echo 'raise ImportError(\"a light install has none\")' | tee stubs/{tensorflow,keras}.py")
    host.run("echo 'export PYTHONPATH=~/stubs' >> ~/.bashrc")
    other = Laptop(host, story)
    assert "a light install has none" in other.do("python -c 'import tensorflow'", code=1)
    return other


def unplug_a_worker(head: Host, aws: Aws, story: Story) -> tuple[str, set[str]]:
    """Take the older worker away while both train, until that costs a trial its process; gives it, and the trials."""
    trials: dict[str, int] = {}

    def journal() -> list[dict[str, Any]]:
        return parsed(head.run("cat /home/ubuntu/tunelab-runs/runs/lab/journal.jsonl"))

    def both_train() -> bool:
        nonlocal trials
        trials = underway(journal())
        return len(trials) == 2 and all(1 <= epoch <= MOST_EPOCHS * 0.6 for epoch in trials.values())

    for _ in range(3):  # a trial may end in the second before its machine does
        until(both_train, 180, "two trials in mid-training")
        machine = workers(aws)[0]
        story.tell(f"AWS takes {machine} back; on it and the other one, trials and their epochs: {trials}")
        terminate(aws, machine)
        with suppress(TimeoutError):
            until(lambda: any(record["kind"] == "failure" for record in journal()), 60, "a lost trial")
            return machine, set(trials)
    raise AssertionError("no trial was lost with its machine")


def check_journal(aws: Aws, trials: set[str]) -> None:
    """One of the trials was lost, went on from where it was, and was told no epoch twice."""
    records = parsed(aws.object(BUCKET, "runs/lab/journal.jsonl"))
    assert [record["seq"] for record in records] == list(range(len(records)))
    losses = [record for record in records if record["kind"] == "failure"]
    assert losses
    assert not any(record["counts"] for record in losses), "a lost machine is not the trial's doing"
    epochs: dict[str, list[int]] = {}
    for record in records:
        if record["kind"] == "result":
            epochs.setdefault(record["trial"], []).append(record["epoch"])
    assert all(told == list(range(1, len(told) + 1)) for told in epochs.values()), epochs
    assert len(epochs) == 6
    (lost,) = {record["trial"] for record in losses}
    assert lost in trials
    before = [
        r["epoch"] for r in records if r["kind"] == "result" and r["trial"] == lost and r["seq"] < losses[0]["seq"]
    ]
    after = [
        r["epoch"] for r in records if r["kind"] == "result" and r["trial"] == lost and r["seq"] > losses[0]["seq"]
    ]
    assert before
    assert after
    assert records[-1]["kind"] == "close"
    assert records[-1]["status"] == "done"


def look_at_another(lab: Lab, aws: Aws, head: Host, laptop: Laptop, other: Laptop) -> None:
    """A search on scans of a bucket while it goes on, with room for two trials a machine; not all laptops are whole."""
    size = "--cpus-per-trial 0.5 --concurrent 3 --trials 200 --max-epochs 8"
    search = other.type(f"python -m tunelab.search --cluster cluster.yaml --data {SCANS} {size} --name second")
    search.until(r"\[0/200 trials", 180)
    search.interrupt()
    assert search.wait(30) == 0

    until(lambda: len(workers(aws)) == 2, 180, "two workers")
    there = sorted(workers(aws))
    check = laptop.type("tunelab cluster check --live cluster.yaml")  # and while it waits for the worker:
    curves_on_the_head(head, laptop, other)
    assert check.wait(180) == 0, check.said
    said = check.said
    assert "\nthe bucket was written from here and from a worker\n" in said
    assert said.count("could not be looked up (servicequotas:GetServiceQuota: ") == 2, "moto knows no quotas"
    wrote = [
        machine
        for machine in there
        if any(f" /{BUCKET}/runs/.tunelab-check-" in one for one in asked(aws, lab, machine))
    ]
    assert len(wrote) == 1
    assert sorted(workers(aws)) == there

    status = laptop.type("tunelab status second")
    said = laptop.do("tunelab list")
    assert re.search(rf"^second +running +on the cluster, {RUNS}/second$", said, re.MULTILINE)
    assert re.search(rf"^lab +succeeded +on the cluster, {RUNS}/lab$", said, re.MULTILINE)
    assert len(said.splitlines()) == 3, "what asked the worker is no search"
    assert re.search("^here +done +1 trials ", said, re.MULTILINE)
    assert status.wait(120) == 0, status.said
    assert re.search(r"^On tunelab, \S+: running$", status.said, re.MULTILINE)
    assert re.search(rf"^second: open, by tunelab \S+, at {RUNS}/second$", status.said, re.MULTILINE)

    records = parsed(head.run("cat /home/ubuntu/tunelab-runs/runs/second/journal.jsonl"))
    prepared_once(lab, aws, there, records)
    said = other.do("tunelab stop second", 200)
    assert f"second was stopped; go on with: tunelab resume {RUNS}/second" in said
    said = other.do("tunelab resume second --cluster cluster.yaml --trials 2", 240)
    assert f"as second; results go to {RUNS}/second" in said
    assert re.search(
        r"^Goes on: \d+ trials and \d+ epochs are known, [123] trials are unfinished; 1 sessions", said, re.M
    )
    assert "Why the search ended: all trials were over." in said
    assert "Goes on: " in other.do("tunelab logs second --cluster cluster.yaml"), "the newest job of a run"


def asked(aws: Aws, lab: Lab, machine: str) -> list[str]:
    """What a machine has asked of AWS."""
    return aws.requests_of(lab.hosts[machine])


def curves_on_the_head(head: Host, laptop: Laptop, other: Laptop) -> None:
    """TensorBoard of a search that goes on, from where there is none, by the loopback of both ends alone."""
    other.host.run("echo 'raise ImportError(\"a light install has none\")' > stubs/tensorboard.py")
    shown = other.type("tunelab tensorboard second --cluster cluster.yaml --port 0")
    port = int(shown.until(r"^TensorBoard of second on tunelab, \S+: http://127\.0\.0\.1:(\d+)/$", 60)[1])

    def points() -> list[list[float]]:
        url = f"http://127.0.0.1:{port}/data/plugin/scalars"
        code = (
            "import json, urllib.request as ask; "
            f"told = json.load(ask.urlopen('{url}/tags')); "
            "runs = [run for run, tags in told.items() if 'train/loss' in tags]; "
            f"ask_of = lambda run: json.load(ask.urlopen(f'{url}/scalars?run={{run}}&tag=train/loss')); "
            "print(json.dumps([len(ask_of(run)) for run in sorted(runs)]))"
        )
        return json.loads(other.host.run(f'python -c "{code}"'))

    until(points, 60, "scalars of a trial")
    before = sum(points())
    until(lambda: sum(points()) > before, 60, "more of them while it goes on")

    (served,) = [line for line in commands(head) if "-m tensorboard.main " in line]
    ports = {head: int(re.search(r"--port (\d+)", served)[1]), other.host: port}  # type: ignore[index]
    for host, listens in ports.items():
        connects = f"python -c 'import socket; socket.create_connection((\"{{}}\", {listens}), 5)'"
        host.run(connects.format("127.0.0.1"))
        refused = laptop.host.run(f"{connects.format(host.address)} 2>&1 || true")
        assert "ConnectionRefusedError" in refused
    shown.interrupt()
    assert shown.wait(30) == 0
    until(lambda: not [line for line in commands(head) if "tensorboard" in line], 30, "the end of TensorBoard there")


def prepared_once(lab: Lab, aws: Aws, machines: list[str], records: list[dict[str, Any]]) -> None:
    """Each machine fetched every scan once, into one prepared data set, which all of its trials have open."""
    below = "/home/ubuntu/.cache/tunelab"
    look = f"find /proc/[0-9]*/fd -lname '{below}/*/manifest.sha256' 2> /dev/null || true"

    def opened() -> list[int]:
        return sorted(len(lab.hosts[machine].run(look).split()) for machine in machines)

    until(lambda: opened() == [1, 2], 120, "three trials that have their data open, two of them on one machine")
    made = []
    for machine in machines:
        host = lab.hosts[machine]
        (entry,) = host.run(f"ls {below}").split()
        made.append(float(host.run(f"stat -c %.Y {below}/{entry}/manifest.json")))
        assert host.run(f"ls -A {below}/.building {below}/.downloads | grep -v : || true").strip() == ""
        fetched = re.findall(rf"GET /{BUCKET}/scans/scans/(\S+)", "\n".join(asked(aws, lab, machine)))
        assert len(fetched) == len(set(fetched)) == 64, fetched
    # the journal does not tell where a trial ran
    assert min(made) < min(record["time"] for record in records if record["kind"] == "result")


def nothing_left(lab: Lab, aws: Aws, laptop: Laptop, said: str) -> None:
    """No machine, no key, no process, and no mark."""
    assert {one["State"]["Name"] for one in aws.machines()} <= {"terminated", "shutting-down"}
    assert aws.ask("ec2", "describe_key_pairs")["KeyPairs"] == []
    until(
        lambda: [host.name for host in lab.hosts.values() if host.up] == ["aws", "laptop", "other"],
        30,
        "the end of all machines",
    )
    assert f"Ended: key pair {KEY} and ~/.ssh/{KEY}.pem" in said
    assert f"Nothing of tunelab is left in {REGION} that costs; results stay in {RUNS}" in said
    assert "ray-" not in laptop.host.run("ls ~/.ssh; ls -d /tmp/ray-config-* 2> /dev/null || true")
    assert laptop.host.run("cat ~/.ssh/tunelab_known_hosts") == ""
    until(lambda: busy(laptop.host) == [], 30, "a laptop without processes of ssh and Ray")
    asked = len(aws.requests_of(laptop.host))
    where = "from pathlib import Path; from tunelab.cluster.where import place"
    why = laptop.do(f"python -c '{where}; print(place(address=None, local=False, file=None, folder=Path()).why)'")
    assert "no ray up of cluster.yaml from here" in why
    assert len(aws.requests_of(laptop.host)) == asked


def busy(host: Host) -> list[str]:
    """The command lines of Ray and of ssh's clients there."""
    return [line for line in commands(host) if re.match(r"ssh |ray|\S*/ray/|\S*python\S* .*ray", line)]


def commands(host: Host) -> list[str]:
    """All command lines there."""
    lines = host.run("for one in /proc/[0-9]*; do tr '\\0' ' ' < $one/cmdline && echo; done 2> /dev/null || true")
    return lines.splitlines()
