"""A cluster file with which nothing is wrong, on a machine that has what it names; tests break copies of it."""

from __future__ import annotations

from pathlib import Path

GOOD = """\
metadata:
  image: &image resolve:ssm:/aws/service/deeplearning/ami/x86_64/base-oss-nvidia-driver-gpu-ubuntu-24.04/latest/ami-id
cluster_name: lab
max_workers: 4
idle_timeout_minutes: 10
provider:
  type: aws
  region: us-west-2
  cache_stopped_nodes: false
  storage: s3://lab-radar/runs
auth:
  ssh_user: ubuntu
  ssh_private_key: ~/.ssh/lab.pem
head_node_type: head
available_node_types:
  head:
    resources: {CPU: 0}
    node_config: &machine
      InstanceType: m5.xlarge
      ImageId: *image
      KeyName: lab
      IamInstanceProfile: {Name: lab-head}
      InstanceInitiatedShutdownBehavior: terminate
      SecurityGroupIds: [sg-0123456789abcdef0]
      BlockDeviceMappings:
        - DeviceName: /dev/sda1
          Ebs: {VolumeSize: 150, VolumeType: gp3, Encrypted: true, DeleteOnTermination: true}
      MetadataOptions: {HttpTokens: required}
  spot:
    resources: {CPU: 4, GPU: 1}
    max_workers: 4
    node_config:
      <<: *machine
      InstanceType: g4dn.xlarge
      IamInstanceProfile: {Name: lab-worker}
      InstanceMarketOptions: {MarketType: spot}
  sure:
    resources: {CPU: 4, GPU: 1}
    max_workers: 2
    node_config:
      <<: *machine
      InstanceType: g4dn.xlarge
      IamInstanceProfile: {Name: lab-worker}
file_mounts:
  ~/.ray/auth_token: ~/.ray/auth_token
  ~/lab/code: code
head_setup_commands:
  - sudo shutdown +600
head_start_ray_commands:
  - ray stop
  - >-
    export RAY_AUTH_MODE=token;
    ray start --head --port=6379 --autoscaling-config=~/ray_bootstrap_config.yaml --dashboard-host=127.0.0.1
worker_start_ray_commands:
  - ray stop
  - export RAY_AUTH_MODE=token; ray start --address=$RAY_HEAD_IP:6379
"""

OWN = """\
cluster_name: lab
provider:
  type: local
  head_ip: 10.0.0.1
  worker_ips: [10.0.0.2, 10.0.0.3]
  storage: s3://lab-radar/runs
auth:
  ssh_user: lab
  ssh_private_key: ~/.ssh/lab.pem
file_mounts:
  ~/.ray/auth_token: ~/.ray/auth_token
head_start_ray_commands:
  - ray stop
  - >-
    export RAY_AUTH_MODE=token;
    ray start --head --port=6379 --autoscaling-config=~/ray_bootstrap_config.yaml --num-cpus=0
worker_start_ray_commands:
  - ray stop
  - export RAY_AUTH_MODE=token; ray start --address=$RAY_HEAD_IP:6379
"""


def furnish(folder: Path) -> None:
    """Put into a folder, which is both home and checkout, what the files name."""
    for name in (".ray/auth_token", ".ssh/lab.pem", "code/lab.py"):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("canary")
        path.chmod(0o600)


def line_of(text: str, part: str) -> int:
    """The line (from 1) of the only place where a part stands."""
    assert text.count(part) == 1, f"{part!r} stands {text.count(part)} times"
    return text[: text.index(part)].count("\n") + 1
