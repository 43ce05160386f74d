"""What AWS is asked about a cluster file, against moto over HTTP; what moto does not know is answered before it."""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import boto3
import pytest
from cluster_files import GOOD, OWN, furnish

from tunelab.cli import main
from tunelab.cluster.bucket import SAID, NoWorkerError, OnWorker, worker_program, write_from_worker
from tunelab.cluster.file import ClusterFile, load_cluster_file
from tunelab.cluster.findings import Finding, Notes
from tunelab.cluster.live import QUOTAS, check_live, family_of
from tunelab.errors import ClusterError, UsageError

AT = "available_node_types"


class Aws(ThreadingHTTPServer):
    """Answers what a test says, for quotas and launches; anything else goes on to moto."""

    daemon_threads = True

    def __init__(self, moto: int) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.moto = moto
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.quotas = {code: 1000.0 for code, _ in QUOTAS.values()}
        self.refused: dict[str, tuple[str, str]] = {}
        """Action of EC2 or SSM, method of S3 -> code and message."""
        self.asked: list[dict[str, str]] = []
        """Parameters of requests to EC2."""


class Handler(BaseHTTPRequestHandler):
    server: Aws
    protocol_version = "HTTP/1.1"  # which knows Expect: 100-continue

    def answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        target = self.headers.get("X-Amz-Target", "")
        form = {key: value[0] for key, value in parse_qs(body.decode("latin-1")).items()} if not target else {}
        action = form.get("Action") or target.rpartition(".")[2] or self.command
        if "Action" in form:
            self.server.asked.append(form)
        if action in self.server.refused:
            code, message = self.server.refused[action]
            if target:
                self.reply(400, json.dumps({"__type": code, "message": message}).encode())
            else:
                error = f"<Error><Code>{code}</Code><Message>{message}</Message></Error>"
                self.reply(403, f"<Response><Errors>{error}</Errors></Response>".encode() if form else error.encode())
        elif action == "GetServiceQuota":
            quota = self.server.quotas[json.loads(body)["QuotaCode"]]
            self.reply(200, json.dumps({"Quota": {"Value": quota}}).encode())
        else:
            kept = {key: value for key, value in self.headers.items() if key not in ("Connection", "Expect")}
            moto = http.client.HTTPConnection("127.0.0.1", self.server.moto, timeout=30)
            moto.request(self.command, self.path, body or None, kept)
            done = moto.getresponse()
            self.reply(done.status, done.read(), dict(done.headers))
            moto.close()

    do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = answer  # noqa: N815 - the names of http.server

    def reply(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for key, value in (headers or {}).items():
            if key.lower() not in ("content-length", "connection", "transfer-encoding", "date", "server"):
                self.send_header(key, value)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def aws(s3_port: int, aws_at: Callable[[str], None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Aws]:
    server = Aws(s3_port)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    aws_at(server.url)
    monkeypatch.setenv("HOME", str(tmp_path))
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="module")
def moto(s3_port: int) -> Callable[[str], Any]:
    """Clients that ask moto itself."""
    keys = {"aws_access_key_id": "a", "aws_secret_access_key": "b", "region_name": "us-west-2"}
    session = boto3.session.Session(**keys)
    made = {
        name: session.client(name, endpoint_url=f"http://127.0.0.1:{s3_port}") for name in ("s3", "ec2", "ssm", "iam")
    }
    for name in ("lab-head", "lab-worker"):
        made["iam"].create_instance_profile(InstanceProfileName=name)
    return made.__getitem__


@pytest.fixture
def text(aws: Aws, moto: Any) -> str:
    """The good file with a bucket and an image that there are."""
    bucket = f"lab-{uuid.uuid4().hex[:12]}"
    moto("s3").create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": "us-west-2"})
    image = moto("ec2").register_image(Name=bucket, RootDeviceName="/dev/sda1")["ImageId"]
    moto("ssm").put_parameter(Name=f"/{bucket}/image", Value=image, Type="String")
    start, _, rest = GOOD.partition("resolve:ssm:")
    return (f"{start}resolve:ssm:/{bucket}/image\n" + rest.partition("\n")[2]).replace("lab-radar", bucket)


@pytest.fixture
def read(tmp_path: Path) -> Callable[[str], ClusterFile]:
    def of(content: str) -> ClusterFile:
        path = tmp_path / "c.yaml"
        path.write_text(content)
        return load_cluster_file(path)

    return of


def objects(moto: Any, file: ClusterFile) -> list[str]:
    bucket = file.storage.removeprefix("s3://").split("/")[0]
    return [one["Key"] for one in moto("s3").list_objects_v2(Bucket=bucket).get("Contents", [])]


def machines(moto: Any) -> set[str]:
    """All that this AWS has; other tests have started theirs there."""
    return {one["InstanceId"] for of in moto("ec2").describe_instances()["Reservations"] for one in of["Instances"]}


def only(found: list[Finding]) -> Finding:
    (finding,) = found
    return finding


def test_a_good_file_starts_nothing_and_leaves_nothing(aws: Aws, moto: Any, text: str, read: Any) -> None:
    file = read(text)
    before = machines(moto)
    assert check_live(file) == []
    launches = [form for form in aws.asked if form["Action"] == "RunInstances"]
    assert [form["InstanceType"] for form in launches] == ["m5.xlarge", "g4dn.xlarge", "g4dn.xlarge"]
    assert all(form["DryRun"] == "true" for form in launches)
    assert [form.get("InstanceMarketOptions.MarketType") for form in launches] == [None, "spot", None]
    tags = [form[key] for form in launches for key in form if key.startswith("TagSpecification") and "Tag.1." in key]
    assert tags == ["ray-cluster-name", "lab"] * 3  # the policies ask for it
    assert objects(moto, file) == []
    assert machines(moto) == before


@pytest.mark.parametrize(
    ("code", "message", "key", "remedy"),
    [
        ("UnauthorizedOperation", "You may not. Encoded authorization failure message: xyz", "", "tunelab cluster iam"),
        ("InvalidKeyPair.NotFound", "The key pair 'lab' does not exist", ".KeyName", "aws ec2 create-key-pair"),
        ("InvalidGroup.NotFound", "no such group", ".SecurityGroupIds", "group of this region"),
        ("Unsupported", "not in this zone", ".InstanceType", "take a type"),
        ("InvalidParameterValue", "Invalid IAM Instance Profile name", ".IamInstanceProfile", "tunelab cluster iam"),
        ("SomethingNew", "no idea", "", "correct what it names"),
    ],
)
def test_a_launch_that_is_refused(
    aws: Aws, text: str, read: Any, code: str, message: str, key: str, remedy: str
) -> None:
    aws.refused["RunInstances"] = (code, message)
    found = check_live(read(text))
    wanted = {f"{AT}.{name}.node_config{key}" for name in ("head", "spot", "sure")}
    assert {finding.key for finding in found} == wanted
    for finding in found:
        assert finding.severity == "error"
        assert f"would not launch ({code}): {message.split(' Encoded')[0]}" in finding.what
        assert "xyz" not in finding.what
        assert remedy in finding.remedy


def test_a_profile_that_is_not_there(aws: Aws, text: str, read: Any) -> None:
    finding = only(check_live(read(text.replace("lab-head", "lab-haed"))))
    assert finding.key == f"{AT}.head.node_config.IamInstanceProfile"
    assert "would not launch (NoSuchEntity): Instance profile lab-haed not found" in finding.what
    assert "tunelab cluster iam" in finding.remedy


def test_quotas_count_virtual_cpus_of_all_types_of_a_market(aws: Aws, text: str, read: Any) -> None:
    aws.quotas |= {"L-3819A6DF": 16, "L-DB2E81BA": 8, "L-1216C47A": 4}
    assert check_live(read(text)) == []
    aws.quotas |= {"L-3819A6DF": 15, "L-DB2E81BA": 0}
    spot, sure = check_live(read(text))
    assert (spot.key, spot.severity) == (f"{AT}.spot.node_config.InstanceType", "error")
    assert spot.what == (
        "16 virtual CPUs at most, but the quota 'All G and VT Spot Instance Requests' (L-3819A6DF) of us-west-2 is 15"
    )
    assert "request-service-quota-increase" in spot.remedy
    assert "--desired-value 16 --region us-west-2" in spot.remedy
    assert sure.what.startswith("8 virtual CPUs at most, but the quota 'Running On-Demand G and VT instances'")


@pytest.mark.parametrize(
    ("kind", "family"),
    [("g4dn.xlarge", "g"), ("gr6.4xlarge", "g"), ("p3.2xlarge", "p"), ("p5en.48xlarge", "p5"), ("m5.large", "standard"),
     ("t3.small", "standard"), ("inf2.xlarge", None), ("trn1.2xlarge", None), ("x2idn.16xlarge", None),
     ("p6-b200.48xlarge", None), ("", None)],
)  # fmt: skip
def test_families_of_quotas(kind: str, family: str | None) -> None:
    assert family_of(kind) == family


def test_types_that_the_table_does_not_know_are_asked_of_ec2(aws: Aws, text: str, read: Any) -> None:
    old = "\n  spot:\n    resources: {CPU: 4, GPU: 1}"
    broken = text.replace(old, old.replace("GPU: 1", "GPU: 2")).replace(
        "InstanceType: g4dn.xlarge", "InstanceType: gr6.4xlarge", 1
    )
    finding = only(check_live(read(broken)))
    assert finding.key == f"{AT}.spot.resources.GPU"
    assert "GPU: 2, but a gr6.4xlarge has 1" in finding.what
    found = check_live(read(text.replace("InstanceType: m5.xlarge", "InstanceType: m55.xlarge")))
    assert "m55.xlarge is no instance type of us-west-2" in [finding.what for finding in found]


def test_what_may_not_be_asked_is_a_warning(aws: Aws, text: str, read: Any) -> None:
    aws.refused["GetServiceQuota"] = ("AccessDeniedException", "no")
    found = check_live(read(text))
    assert {finding.severity for finding in found} == {"warning"}
    assert len(found) == 3
    assert "could not be looked up (servicequotas:GetServiceQuota: AccessDeniedException)" in found[0].what
    aws.refused = {"GetParameters": ("AccessDeniedException", "no")}
    assert {finding.what for finding in check_live(read(text))} == {
        "could not be looked up (ssm:GetParameters: AccessDeniedException)"
    }


def test_images_that_are_not_there(aws: Aws, text: str, read: Any) -> None:
    found = check_live(read(text.replace("/image\n", "/imag\n")))
    assert {finding.key for finding in found} == {
        f"{AT}.{name}.node_config.ImageId" for name in ("head", "spot", "sure")
    }
    assert "there is no parameter /lab-" in found[0].what
    assert "aws ssm get-parameters-by-path" in found[0].remedy
    parameter = text.partition("&image ")[2].partition("\n")[0]
    other = check_live(read(text.replace(parameter, "ami-00000000000000000")))
    assert {finding.what for finding in other} == {"there is no image ami-00000000000000000 in us-west-2"}


def test_a_disk_that_is_not_the_images(aws: Aws, text: str, read: Any) -> None:
    finding = check_live(read(text.replace("/dev/sda1", "/dev/xvda")))[0]
    assert "the image starts from /dev/sda1, but /dev/xvda is described" in finding.what
    assert finding.remedy == "write DeviceName: /dev/sda1"


def test_a_bucket_far_from_the_machines(aws: Aws, text: str, read: Any) -> None:
    bucket = f"lab-{uuid.uuid4().hex[:12]}"
    boto3.session.Session(region_name="us-east-1").client("s3").create_bucket(Bucket=bucket)
    file = read(text.replace("storage: s3://", f"storage: s3://{bucket}/"))
    finding = only(check_live(file))
    assert (finding.key, finding.line) == ("provider.storage", file.line("provider", "storage"))
    assert "the bucket is in us-east-1, the machines in us-west-2" in finding.what
    assert finding.remedy == "take a bucket in us-west-2, or machines in us-east-1"


def test_a_bucket_that_is_not_there_or_cannot_be_written(aws: Aws, text: str, read: Any) -> None:
    finding = only(check_live(read(text.replace("storage: s3://lab-", "storage: s3://lob-"))))
    assert finding.what.endswith("no such bucket")
    assert "aws s3 mb s3://lob-" in finding.remedy
    aws.refused["PUT"] = ("AccessDenied", "no")
    finding = only(check_live(read(text)))
    assert "access denied (AccessDenied)" in finding.what
    assert "s3:PutObject" in finding.remedy
    aws.refused = {"DELETE": ("AccessDenied", "no")}
    assert "access denied" in only(check_live(read(text))).what


def here(program: str) -> str:
    """What a worker would print: the program runs in a process of its own, as it does there."""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    return done.stdout + done.stderr


def asked_of(file: ClusterFile, on_worker: OnWorker) -> tuple[list[Finding], str]:
    notes = Notes(file)
    wrote = write_from_worker(notes, on_worker)
    return notes.found, wrote


def test_a_worker_that_writes(aws: Aws, moto: Any, text: str, read: Any) -> None:
    file = read(text)
    ran: list[str] = []

    def on_worker(program: str) -> str:
        ran.append(here(program))
        return ran[-1]

    assert asked_of(file, on_worker) == ([], "the bucket was written from here and from a worker")
    assert ran == [f"{SAID}\n"]
    assert objects(moto, file) == []

    gone = read(text.replace("storage: s3://lab-", "storage: s3://lob-"))
    finding = only(asked_of(gone, on_worker)[0])
    assert (finding.severity, finding.key) == ("error", "provider.storage")
    assert finding.line == gone.line("provider", "storage")
    assert finding.what.startswith("a worker could not write: ")
    assert "NoSuchBucket" in finding.what
    assert "tunelab cluster iam" in finding.remedy


def test_a_worker_that_does_not_reach_s3(aws: Aws, text: str, read: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    finding = only(asked_of(read(text), here)[0])
    assert "a worker could not write: botocore.exceptions.EndpointConnectionError: " in finding.what
    assert finding.remedy == "let the workers reach S3: a public address, or a gateway endpoint in their VPC"


def test_a_worker_that_is_silent_away_or_not_there(aws: Aws, text: str, read: Any) -> None:
    file = read(text)
    finding = only(asked_of(file, lambda _: "")[0])
    assert (finding.severity, finding.what) == ("error", "a worker could not write: nothing was printed")
    finding = only(asked_of(file, lambda program: f"SyntaxError in {program}")[0])
    assert finding.severity == "error", "what it was to print is not what it printed"

    def raising(error: ClusterError) -> OnWorker:
        def on_worker(_: str) -> str:
            raise error

        return on_worker

    found, wrote = asked_of(file, raising(ClusterError("no tunnel to a@b: refused; check the key")))
    assert wrote == ""
    finding = only(found)
    assert (finding.severity, finding.key) == ("warning", "provider.storage"), "it says nothing about the file"
    assert finding.what == "no worker could be asked to write: no tunnel to a@b: refused"
    assert finding.remedy == "check the key"
    finding = only(asked_of(file, raising(ClusterError("no answer within 150 s")))[0])
    assert (finding.what, finding.remedy) == (
        "no worker could be asked to write: no answer within 150 s",
        "look at the cluster: ray status",
    )
    found, wrote = asked_of(file, raising(NoWorkerError("none")))
    assert found == []
    assert wrote == (
        "the head runs and no worker does, so the bucket was written from here, with the rights of this machine and "
        "not a worker's"
    )


def test_the_program_for_a_worker_takes_any_name() -> None:
    program = worker_program("s3://lab-radar/it's runs")
    compile(program, "program", "exec")
    assert "it's runs/.tunelab-check-" in program
    with pytest.raises(UsageError):
        worker_program("runs")


def test_without_credentials_nothing_is_asked(aws: Aws, text: str, read: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    file = read(text)
    asked = len(aws.asked)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    with pytest.raises(ClusterError, match=r"c\.yaml: --live: NoCredentialsError: .*; set AWS_PROFILE"):
        check_live(file)
    assert len(aws.asked) == asked


def test_of_machines_of_ones_own_only_the_bucket_is_asked(aws: Aws, text: str, read: Any) -> None:
    bucket = text.partition("s3://")[2].partition("/")[0]
    asked = len(aws.asked)
    assert check_live(read(OWN.replace("lab-radar", bucket))) == []
    assert len(aws.asked) == asked


def test_the_command(
    aws: Aws, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    furnish(tmp_path)
    path = tmp_path / "c.yaml"
    path.write_text(text)
    assert main(["cluster", "check", str(path), "--live"]) == 0
    counted, wrote = capsys.readouterr().out.splitlines()
    assert counted == f"{path}: 0 errors, 0 warnings"
    assert wrote.startswith("no cluster runs, so the bucket was written from here")
    aws.refused = {"RunInstances": ("Unsupported", "not here"), "PUT": ("AccessDenied", "no")}
    assert main(["cluster", "check", str(path), "--live"]) == ClusterError.exit_code
    out = capsys.readouterr().out
    assert "error: available_node_types.head.node_config.InstanceType: would not launch (Unsupported): not here" in out
    assert "was written from here" not in out
