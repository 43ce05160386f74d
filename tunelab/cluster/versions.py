"""What tunelab needs and what is installed, here and on the other side of a cluster, and how the two differ."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from importlib import metadata
from typing import Any

ASKED = "TUNELAB_ASKED"
"""The environment's variable for what the other side has: a JSON object of ``versions`` and ``needs``."""
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
