"""On the head of a cluster: look whether what is installed there will do, then be the command line.

    python -m tunelab.cluster.inside search --address auto --storage s3://bucket/runs ...

Run by the job that :mod:`tunelab.cluster.remote` hands over, in the folder that was taken along. What the other side
has installed stands in :data:`ASKED`; the packages here have to meet what tunelab needs, and differences are told.
"""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from tunelab.cluster.package import SPACE
from tunelab.errors import ClusterError

ASKED = "TUNELAB_ASKED"
"""The environment's variable for what the other side has: a JSON object of ``versions`` and ``needs``."""
FOLDER = Path("~/tunelab-runs")
"""On the head; runs are made below it, in ``runs``."""
HERE = "@space"
"""Stands for the space that was taken along."""
_TOLD = ("ray", "optuna", "numpy", "keras", "tensorflow", "boto3", "pandas")


def asked() -> dict[str, Any]:
    """What this side has installed, for the other one; what is not installed here is left out."""
    versions = {"python": platform.python_version()}
    for name in _TOLD:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return {
        "versions": versions,
        "needs": [need for need in metadata.requires("tunelab") or () if "extra ==" not in need],
    }


def missing(needs: Sequence[str]) -> list[str]:
    """Which of tunelab's requirements are not met here, each with what there is."""
    from packaging.requirements import Requirement

    found = []
    for need in map(Requirement, needs):
        if need.marker is not None and not need.marker.evaluate():
            continue
        try:
            there = metadata.version(need.name)
        except metadata.PackageNotFoundError:
            found.append(f"{need} is not installed")
            continue
        if not need.specifier.contains(there, prereleases=True):
            found.append(f"{need} is needed, and there is {there}")
    return found


def differences(versions: Mapping[str, str]) -> list[str]:
    """A line for each package whose version here is another than there."""
    ours = asked()["versions"]
    return [
        f"{name} {ours[name]} on the cluster, {there} where the search was started"
        for name, there in versions.items()
        if name in ours and ours[name] != there
    ]


def main(argv: Sequence[str]) -> int:
    """Check, then run the command.

    Args:
        argv: of the command line; :data:`HERE` stands for the space that was taken along.
    """
    from tunelab.cli import main as command

    said = json.loads(os.environ.pop(ASKED, "{}"))
    if lacking := missing(said.get("needs", ())):
        what = f"the cluster lacks what tunelab needs: {'; '.join(lacking)}"
        print(f"tunelab: {what}; install it on all its machines with: ray up cluster.yaml", file=sys.stderr)
        return ClusterError.exit_code
    for line in differences(said.get("versions", {})):
        print(f"Note: {line}; the cluster's computes.", flush=True)
    taken = Path(SPACE).absolute()
    folder = FOLDER.expanduser()
    folder.mkdir(parents=True, exist_ok=True)
    os.chdir(folder)  # what was taken along is removed when no job needs it any more
    return command([str(taken) if word == HERE else word for word in argv])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
