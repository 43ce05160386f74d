"""A good cluster file has no findings; each thing that is broken in a copy is found, with its line and a remedy."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from cluster_files import GOOD, OWN, furnish, line_of

from tunelab.cli import main
from tunelab.cluster.check import Finding, check
from tunelab.cluster.file import load_cluster_file
from tunelab.errors import UsageError

Check = Callable[[str], list[Finding]]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home and checkout that has what the good files name."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("RAY_AUTH_TOKEN_PATH", raising=False)
    monkeypatch.chdir(tmp_path)
    furnish(tmp_path)
    return tmp_path


@pytest.fixture
def checked(home: Path) -> Check:
    def of(text: str) -> list[Finding]:
        path = home / "cluster.yaml"
        path.write_text(text)
        return check(load_cluster_file(path))

    return of


@pytest.mark.parametrize("text", [GOOD, OWN], ids=["aws", "own"])
def test_nothing_is_wrong_with_a_good_file(checked: Check, text: str) -> None:
    assert checked(text) == []


AT = "available_node_types"
SPOT = "\n  spot:\n    resources: {CPU: 4, GPU: 1}"
BROKEN = [
    # old, new, line (of the good file with the new text), key, part of what, part of remedy
    (
        "  region: us-west-2",
        "  regoin: us-west-2",
        "  regoin",
        "provider.regoin",
        "unknown key",
        "did you mean 'region'",
    ),
    ("  region: us-west-2\n", "", "provider:", "provider.region", "missing", "us-west-2"),
    ("  region: us-west-2", "  region: oregon", "region: oregon", "provider.region", "no region", "us-west-2"),
    ("  storage: s3://lab-radar/runs\n", "", "provider:", "provider.storage", "no bucket", "add storage"),
    ("s3://lab-radar/runs", "s3://BUCKET/runs", "storage:", "provider.storage", "placeholder", "your bucket"),
    ("s3://lab-radar/runs", "s3://my-bucket/runs", "storage:", "provider.storage", "placeholder", "your bucket"),
    ("s3://lab-radar/runs", "s3://a_b/runs", "storage:", "provider.storage", "no bucket name", "write s3://"),
    (
        "  storage:",
        "  prices: {m5.xlarge: cheap}\n  storage:",
        "prices:",
        "provider.prices.m5.xlarge",
        "no price",
        "0.526",
    ),
    (
        "  storage:",
        "  aws_credentials: {a: b}\n  storage:",
        "aws_cred",
        "provider.aws_credentials",
        "copied",
        "AWS_PROFILE",
    ),
    ("max_workers: 4\nidle_", "max_workers: 4\nidel: 1\nidle_", "idel:", "idel", "Ray refuses", "known are"),
    (
        "idle_timeout_minutes",
        "idle_timeout_minute",
        "idle_",
        "idle_timeout_minute",
        "unknown key",
        "idle_timeout_minutes",
    ),
    ("cluster_name: lab\n", "", "metadata:", "cluster_name", "missing", "add cluster_name"),
    ("cluster_name: lab\n", "cluster_name: 7\n", "cluster_name", "cluster_name", "7 is not a text", "write a text"),
    ("  ssh_user: ubuntu", "  ssh_usr: ubuntu", "ssh_usr", "auth.ssh_usr", "unknown key", "did you mean 'ssh_user'"),
    ("node_type: head", "node_type: haed", "head_node_type", "head_node_type", "'haed' is none", "did you mean 'head'"),
    (
        "GPU: 1}\n    max_workers: 4",
        "GPU: 1}\n    min_workers: 9",
        "max_workers: 4",
        "max_workers",
        "less than the min_workers of all types together, 9",
        "write 9 or more",
    ),
    (
        SPOT,
        "\n  spot:\n    resources: {CPU: 4, gpu: 1}",
        "gpu: 1",
        f"{AT}.spot.resources.gpu",
        "no resource",
        "did you mean 'GPU'",
    ),
    (
        SPOT,
        "\n  spot:\n    resources: {CPU: 4, GPU: 1, Memry: 1}",
        "Memry",
        f"{AT}.spot.resources.Memry",
        "no resource",
        "did you mean 'memory'",
    ),
    (
        SPOT,
        "\n  spot:\n    resources: {CPU: 4, GPU: 8}",
        "GPU: 8",
        f"{AT}.spot.resources.GPU",
        "has 4 CPUs and 1 GPU (T4, 16 GB)",
        "write GPU: 1",
    ),
    (
        SPOT,
        "\n  spot:\n    resources: {CPU: 16, GPU: 1}",
        "CPU: 16",
        f"{AT}.spot.resources.CPU",
        "has 4 CPUs",
        "write CPU: 4",
    ),
    (
        "resources: {CPU: 0}",
        "resources: {CPU: 4}",
        "{CPU: 4}",
        f"{AT}.head.resources.CPU",
        "beside the driver",
        "{CPU: 0}",
    ),
    ("resources: {CPU: 0}", "resources: {}", "resources: {}", f"{AT}.head.resources.CPU", "no CPU: 0", "{CPU: 0}"),
    ("    resources: {CPU: 0}\n", "", "\n  head:", f"{AT}.head.resources.CPU", "no CPU: 0", "{CPU: 0}"),
    (
        "{CPU: 0}",
        "{CPU: 0}\n    max_workers: 1",
        "max_workers: 1\n",
        f"{AT}.head.max_workers",
        "another head",
        "write 0",
    ),
    (
        "      ImageId: *image\n",
        "",
        "    node_config: &machine",
        f"{AT}.head.node_config.ImageId",
        "missing",
        "resolve:ssm",
    ),
    (
        "ImageId: *image",
        "ImageId: ubuntu",
        "ImageId: ubuntu",
        f"{AT}.head.node_config.ImageId",
        "neither an id",
        "resolve:ssm",
    ),
    ("      KeyName: lab\n", "", "    node_config: &machine", f"{AT}.head.node_config.KeyName", "missing", "key pair"),
    (
        "      IamInstanceProfile: {Name: lab-head}\n",
        "",
        "    node_config: &machine",
        f"{AT}.head.node_config.IamInstanceProfile",
        "no worker starts",
        "tunelab cluster iam",
    ),
    (
        "      IamInstanceProfile: {Name: lab-worker}\n      InstanceMarket",
        "      IamInstanceProfile: {}\n      InstanceMarket",
        "Profile: {}",
        f"{AT}.spot.node_config.IamInstanceProfile",
        "cannot write to the bucket",
        "tunelab cluster iam",
    ),
    (
        "    max_workers: 2",
        "    max_workers: 9",
        "workers: 9",
        f"{AT}.sure.max_workers",
        "9 of this type",
        "raise the cluster's",
    ),
    (
        "Encrypted: true, ",
        "",
        "          Ebs: {",
        f"{AT}.head.node_config.BlockDeviceMappings[0].Ebs.Encrypted",
        "not encrypted",
        "Encrypted: true",
    ),
    (
        "Encrypted: true",
        "Encryptd: true",
        "Encryptd",
        f"{AT}.head.node_config.BlockDeviceMappings[0].Ebs.Encryptd",
        "no parameter",
        "did you mean 'Encrypted'",
    ),
    (
        "      InstanceType: m5.xlarge",
        "      InstanceTyp: m5.xlarge",
        "InstanceTyp:",
        f"{AT}.head.node_config.InstanceTyp",
        "no parameter of EC2",
        "did you mean 'InstanceType'",
    ),
    ("KeyName: lab", "KeyName: 7", "KeyName: 7", f"{AT}.head.node_config.KeyName", "Invalid type", "correct the value"),
    (
        "HttpTokens: required",
        "HttpTokens: optional",
        "HttpTokens",
        f"{AT}.head.node_config.MetadataOptions.HttpTokens",
        "IMDSv1",
        "HttpTokens: required",
    ),
    (
        "      MetadataOptions: {HttpTokens: required}\n",
        "",
        "    node_config: &machine",
        f"{AT}.head.node_config.MetadataOptions.HttpTokens",
        "IMDSv1",
        "HttpTokens: required",
    ),
    (
        "Name: lab-head}",
        "Name: lab-head}\n      InstanceMarketOptions: {MarketType: spot}",
        "      InstanceMarketOptions: {MarketType: spot}\n      InstanceInit",
        f"{AT}.head.node_config.InstanceMarketOptions",
        "the head on spot",
        "remove",
    ),
    (
        "  ~/lab/code: code",
        "  ~/lab/code: cdoe",
        "~/lab/code",
        "file_mounts.~/lab/code",
        "no such file",
        "correct the path",
    ),
    (
        "  ~/.ray/auth_token: ~/.ray/auth_token\n",
        "",
        "file_mounts:",
        "file_mounts",
        "no ~/.ray/auth_token",
        "add ~/.ray",
    ),
    (
        " --autoscaling-config=~/ray_bootstrap_config.yaml",
        "",
        "\n  - >-",
        "head_start_ray_commands[1]",
        "no worker would",
        "--autoscaling-config",
    ),
    (
        "--dashboard-host=127.0.0.1",
        "--dashboard-host=0.0.0.0",
        "\n  - >-",
        "head_start_ray_commands[1]",
        "listens on 0.0.0.0",
        "127.0.0.1",
    ),
    (
        "--dashboard-host=127.0.0.1",
        "--include-dashboard=false",
        "\n  - >-",
        "head_start_ray_commands[1]",
        "no dashboard",
        "remove",
    ),
    (
        "export RAY_AUTH_MODE=token;\n",
        "\n",
        "\n  - >-",
        "head_start_ray_commands[1]",
        "without a token",
        "export RAY_AUTH_MODE=token",
    ),
    (
        "  - export RAY_AUTH_MODE=token; ray",
        "  - ray",
        "ray start --address",
        "worker_start_ray_commands[1]",
        "without a token",
        "export RAY_AUTH_MODE=token",
    ),
    (
        "  - export RAY_AUTH_MODE=token; ray",
        "  - export RAY_AUTH_MODE=token\n  - ray",
        "ray start --address",
        "worker_start_ray_commands[2]",
        "without a token",
        "in the same command",
    ),
    (
        "worker_start_ray_commands:",
        "worker_setup_commands:",
        "metadata:",
        "worker_start_ray_commands",
        "asks for no token",
        "cluster.yaml",
    ),
    (
        "  storage:",
        "  security_group: {IpPermissions: [{FromPort: 1, ToPort: 9, IpRanges: [{CidrIp: 0.0.0.0/0}]}]}\n  storage:",
        "IpPermissions",
        "provider.security_group.IpPermissions[0]",
        "opens ports 1 to 9 to the world",
        "your own address",
    ),
]
DOUBTFUL = [
    ("  cache_stopped_nodes: false\n", "", "provider:", "provider.cache_stopped_nodes", "stops machines", "false"),
    (
        "  - sudo shutdown +600",
        "  - echo up",
        "head_setup",
        "head_setup_commands",
        "nothing ends the head",
        "idle shutdown",
    ),
    (
        "      InstanceInitiatedShutdownBehavior: terminate\n",
        "",
        "    node_config: &machine",
        f"{AT}.head.node_config.InstanceInitiatedShutdownBehavior",
        "billed",
        "terminate",
    ),
    (
        "      SecurityGroupIds: [sg-0123456789abcdef0]\n",
        "",
        "    node_config: &machine",
        f"{AT}.head.node_config.SecurityGroupIds",
        "port 22",
        "SecurityGroupIds",
    ),
    (
        "    max_workers: 2",
        "    max_workers: 0",
        "      InstanceMarketOptions",
        f"{AT}.spot.node_config.InstanceMarketOptions",
        "without a type on demand",
        "without InstanceMarketOptions",
    ),
    (
        "DeleteOnTermination: true",
        "DeleteOnTermination: false",
        "          Ebs: {",
        f"{AT}.head.node_config.BlockDeviceMappings[0].Ebs.DeleteOnTermination",
        "the disk stays",
        "DeleteOnTermination: true",
    ),
    (
        SPOT,
        "\n  spot:\n    resources: {CPU: 2, GPU: 1}",
        "CPU: 2",
        f"{AT}.spot.resources.CPU",
        "paid for and not used",
        "write CPU: 4",
    ),
    (
        "    max_workers: 2",
        "    max_workers: 2\n    min_workers: 1",
        "min_workers: 1",
        f"{AT}.sure.min_workers",
        "whether trials wait",
        "min_workers: 0",
    ),
]


@pytest.mark.parametrize(
    ("severity", "old", "new", "place", "key", "what", "remedy"),
    [("error", *case) for case in BROKEN] + [("warning", *case) for case in DOUBTFUL],
)
def test_what_is_broken_is_found(
    checked: Check, severity: str, old: str, new: str, place: str, key: str, what: str, remedy: str
) -> None:
    assert GOOD.count(old) == 1, old
    text = GOOD.replace(old, new)
    found = [finding for finding in checked(text) if finding.key == key and what in finding.what]
    assert found, checked(text)
    (finding,) = found
    assert remedy in finding.remedy
    assert finding.severity == severity
    line = text[: text.index(place)].count("\n") + 1 + place.startswith("\n")
    assert finding.line == line
    assert finding.text("f.yaml").startswith(f"f.yaml:{line}: {severity}: {key}: ")


@pytest.mark.parametrize(
    ("name", "key", "make"),
    [
        (".ray/auth_token", "file_mounts.~/.ray/auth_token", "ray get-auth-token"),
        (".ssh/lab.pem", "auth.ssh_private_key", "aws ec2 create-key-pair"),
    ],
)
def test_files_that_must_be_private(checked: Check, home: Path, name: str, key: str, make: str) -> None:
    path = home / name
    path.chmod(0o640)
    (finding,) = checked(GOOD)
    assert (finding.key, finding.severity) == (key, "error")
    assert "others can read it (mode 640)" in finding.what
    assert finding.remedy == f"chmod 600 {path}"
    path.chmod(0o600)
    path.write_text("")
    (finding,) = checked(GOOD)
    assert "no file with something in it" in finding.what
    path.unlink()
    (finding,) = checked(GOOD)
    assert "No such file" in finding.what
    assert make in finding.remedy
    assert finding.line == line_of(GOOD, "  ~/.ray/auth_token" if "token" in name else "  ssh_private_key")


@pytest.mark.parametrize(
    ("old", "new", "key", "what"),
    [
        ("  head_ip: 10.0.0.1\n", "", "provider.head_ip", "missing"),
        ("  worker_ips: ", "  worker_ipps: ", "provider.worker_ipps", "unknown key"),
        (
            "provider:",
            "available_node_types: {a: {resources: {}, node_config: {}}}\nprovider:",
            "available_node_types",
            "one's own",
        ),
        (" --num-cpus=0", "", "head_start_ray_commands[1]", "takes trials on all its CPUs"),
        ("export RAY_AUTH_MODE=token;\n", "\n", "head_start_ray_commands[1]", "without a token"),
    ],
)
def test_machines_of_ones_own(checked: Check, old: str, new: str, key: str, what: str) -> None:
    assert OWN.count(old) == 1
    found = {finding.key: finding.what for finding in checked(OWN.replace(old, new))}
    assert what in found[key]


def test_what_only_rays_code_refuses_is_told_in_its_words(checked: Check) -> None:
    (finding,) = checked(GOOD + "docker: {image: a/b}\n")
    assert (finding.key, finding.severity) == ("docker", "error")
    assert finding.what == "Ray refuses it: Must provide a container & image name"


def test_resources_of_ones_own_names_are_no_mistake(checked: Check) -> None:
    assert checked(GOOD.replace("{CPU: 0}", "{CPU: 0, scratch_disk: 1}")) == []


def test_a_file_of_another_cloud_is_checked_by_ray_alone(checked: Check) -> None:
    found = checked(
        "cluster_name: a\nprovider: {type: awss, storage: s3://lab-radar/runs}\nhead_node_type: a\n"
        "available_node_types: {a: {resources: {}, node_config: {}}}\n"
    )
    assert ["Unsupported node provider: awss" in finding.what for finding in found] == [True]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- a\n", "holds a list, not a mapping of keys to values; start from cluster.yaml"),
        ("", "holds nothing"),
        ("a: 1\nb: [\n", "line 3: not YAML"),
        ("a: 1\nb: 2\na: 3\n", "line 3: not YAML: the key 'a' stands twice"),
        (
            "a: &a [x]\nb: &b [*a, *a]\n"
            + "".join(
                f"c{n}: &c{n} [*{'b' if n == 0 else f'c{n - 1}'}, *{'b' if n == 0 else f'c{n - 1}'}]\n"
                for n in range(30)
            ),
            "line 20: not YAML: nested or repeated more",
        ),
    ],
)
def test_files_that_are_none(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(text)
    with pytest.raises(UsageError) as caught:
        load_cluster_file(path)
    assert str(caught.value).startswith(f"{path}: {message}")


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read: No such file or directory; name the file of `ray up`"):
        load_cluster_file(tmp_path / "c.yaml")


def test_lines_lead_through_anchors_and_merges(home: Path) -> None:
    (home / "c.yaml").write_text(GOOD)
    file = load_cluster_file(home / "c.yaml")
    spot = (AT, "spot", "node_config")
    assert file.value(*spot, "KeyName") == "lab"
    assert file.line(*spot, "KeyName") == line_of(GOOD, "      KeyName: lab")  # where it is written
    assert GOOD.splitlines()[file.line(*spot, "InstanceType") - 1].strip() == "InstanceType: g4dn.xlarge"
    assert file.line(*spot, "Missing") == file.line(*spot)


def test_the_command(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = home / "c.yaml"
    path.write_text(GOOD)
    assert main(["cluster", "check", str(path)]) == 0
    assert capsys.readouterr().out == f"{path}: 0 errors, 0 warnings\n"
    path.write_text(GOOD.replace("region:", "regoin:").replace("  - sudo shutdown +600", "  - echo"))
    assert main(["cluster", "check", str(path)]) == UsageError.exit_code
    out = capsys.readouterr().out.splitlines()
    assert f"{path}:8: error: provider.regoin: unknown key, which Ray passes over; did you mean 'region'?" in out
    assert out[-1] == f"{path}: 2 errors, 1 warning"  # the region itself is missing, too
    path.write_text(GOOD.replace("  - sudo shutdown +600", "  - echo"))
    assert main(["cluster", "check", str(path)]) == 0
    assert main(["cluster", "check", str(home / "none.yaml")]) == UsageError.exit_code


def test_the_package_is_quick_to_import() -> None:
    names = "check, commands, file, findings, iam, instances, nodes, prices, schema"
    code = (
        f"import sys; from tunelab.cluster import {names}; import tunelab.cluster_commands\n"
        "heavy = {'ray', 'boto3', 'tensorflow', 'keras', 'numpy', 'jsonschema'}\n"
        "print(sorted(heavy & {n.split('.')[0] for n in sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.stderr) == ("[]\n", "")
