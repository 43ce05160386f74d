"""What the two sides of a cluster have installed, and how that is told."""

from __future__ import annotations

import platform
from importlib import metadata

import pytest

from tunelab.cluster import versions
from tunelab.cluster.versions import asked, differences, missing


def test_this_side_tells_what_it_has_and_needs() -> None:
    told = asked()
    assert told["versions"]["python"] == platform.python_version()
    assert told["versions"]["ray"] == metadata.version("ray")
    assert any(need.startswith("ray") for need in told["needs"])
    assert not any("pytest" in need or "extra ==" in need for need in told["needs"])
    assert missing(told["needs"]) == [], "what runs these tests has what it needs"


def test_what_is_not_installed_here_is_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(versions, "_TOLD", ("ray", "no-such-package"))
    assert set(asked()["versions"]) == {"python", "ray"}


@pytest.mark.parametrize(
    ("need", "said"),
    [
        ("no-such-package>=1", ["no-such-package>=1 is not installed"]),
        ("numpy>=999", [f"numpy>=999 is needed, and there is {metadata.version('numpy')}"]),
        ("numpy<1", [f"numpy<1 is needed, and there is {metadata.version('numpy')}"]),
        ("numpy>=1", []),
        ("ray[default]>=2", []),
        ("no-such-package>=1; python_version < '3'", []),
        ("no-such-package>=1; python_version >= '3'", ['no-such-package>=1; python_version >= "3" is not installed']),
    ],
)
def test_what_is_missing(need: str, said: list[str]) -> None:
    assert missing([need, "numpy"]) == said


def test_what_differs_is_told_and_nothing_else() -> None:
    ours = asked()["versions"]
    assert differences(ours) == []
    there = {**ours, "ray": "1.0", "python": "3.9.1", "tensorrt": "8"}
    assert differences(there) == [
        f"python {ours['python']} on the cluster, 3.9.1 where the search was started",
        f"ray {ours['ray']} on the cluster, 1.0 where the search was started",
    ]
    assert differences({}) == []
