"""What a cluster costs an hour: by the table, by the user's own prices, and where nothing is known."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from cluster_files import GOOD, OWN

from tunelab.cli import main
from tunelab.cluster.file import load_cluster_file
from tunelab.cluster.instances import instance_of
from tunelab.cluster.prices import PRICES_DATE, ClusterPrice, price, table
from tunelab.errors import UsageError

Priced = Callable[[str], ClusterPrice]


@pytest.fixture
def priced(tmp_path: Path) -> Priced:
    def of(text: str) -> ClusterPrice:
        path = tmp_path / "c.yaml"
        path.write_text(text)
        found = price(load_cluster_file(path))
        assert found is not None
        return found

    return of


def with_prices(prices: str) -> str:
    return GOOD.replace("  storage:", f"  prices: {prices}\n  storage:")


def test_by_the_table(priced: Priced) -> None:
    found = priced(GOOD)
    assert (found.head.dollars, found.head.spot) == (0.192, False)
    assert [(node.name, node.dollars, node.most) for node in found.workers] == [("spot", 0.16, 4), ("sure", 0.526, 2)]
    assert found.low == pytest.approx(0.192)
    # four at once: both that are on demand, and two on spot
    assert found.high == pytest.approx(0.192 + 2 * 0.526 + 2 * 0.16)
    assert found.estimate(10) == (pytest.approx(1.92), pytest.approx(15.64))
    assert found.line() == (
        "head m5.xlarge 0.19, up to 4 x g4dn.xlarge spot 0.16, up to 2 x g4dn.xlarge 0.53, 4 at once "
        f"(prices of {PRICES_DATE}, typical, not a quote): 0.19 to 1.56 US dollars an hour"
    )


def test_workers_that_always_run_are_in_the_least(priced: Priced) -> None:
    found = priced(GOOD.replace("    max_workers: 2", "    max_workers: 2\n    min_workers: 1"))
    assert found.low == pytest.approx(0.192 + 0.526)


def test_a_users_prices_go_before(priced: Priced) -> None:
    found = priced(with_prices("{m5.xlarge: 0.3, g4dn.xlarge: {spot: 0.2}}"))
    assert (found.head.dollars, [node.dollars for node in found.workers]) == (0.3, [0.2, 0.526])
    assert "(prices of provider.prices; prices of " in found.line()
    both = priced(with_prices("{m5.xlarge: 0, g4dn.xlarge: 1}"))
    assert (both.low, both.high) == (0, 4)
    assert "(prices of provider.prices): 0.00 to 4.00 US dollars" in both.line()


def test_elsewhere_the_table_is_not_that_of_the_region(priced: Priced) -> None:
    assert "in us-west-2, eu-west-1 differs, typical" in priced(GOOD.replace("us-west-2", "eu-west-1")).line()


def test_what_has_no_price_is_named_with_the_field_to_add(priced: Priced) -> None:
    found = priced(GOOD.replace("InstanceType: m5.xlarge", "InstanceType: x9.huge"))
    assert (found.low, found.high, found.estimate(1), found.unknown) == (None, None, None, ("x9.huge",))
    assert "head x9.huge price unknown" in found.line()
    assert found.line().endswith("add provider.prices: {x9.huge: dollars an hour} to the cluster file")
    text = GOOD.replace(
        "InstanceType: g4dn.xlarge\n      IamInstanceProfile: {Name: lab-worker}\n      Inst",
        "InstanceType: x9.huge\n      IamInstanceProfile: {Name: lab-worker}\n      Inst",
    )
    worker = priced(text)
    assert (worker.low, worker.high) == (0.192, None)
    assert ": 0.19 US dollars an hour and more; add provider.prices: {x9.huge: dollars an hour}" in worker.line()


@pytest.mark.parametrize("value", ["cheap", "-1", ".nan", "true", "{spot: x}", "{spt: 1}", "{}"])
def test_prices_that_are_none(priced: Priced, value: str) -> None:
    with pytest.raises(UsageError, match=r"line 10: provider\.prices\.m5\.xlarge: .*write g4dn\.xlarge: 0\.526"):
        priced(with_prices(f"{{m5.xlarge: {value}}}"))


def test_the_table_has_what_users_name_and_spot_is_cheaper() -> None:
    names = """g4dn.xlarge g4dn.2xlarge g4dn.12xlarge g5.xlarge g5.2xlarge g5.12xlarge g6.xlarge p3.2xlarge p4d.24xlarge
        p5.48xlarge m5.large m5.xlarge m6i.xlarge m7i.large t3.nano t3.small t3.2xlarge c5.large c5.18xlarge"""
    assert set(names.split()) <= set(table())
    assert all(0 < spot < on_demand for on_demand, spot in table().values())
    assert all(instance_of(name) for name in table())  # a name that is none would have a price
    assert re.fullmatch(r"20\d\d-\d\d", PRICES_DATE)
    assert table()["t3.medium"][0] == 0.0416  # a list price that is not written out


@pytest.mark.parametrize(
    ("name", "cpus", "gpus", "gb"),
    [
        ("g4dn.12xlarge", 48, 4, 16),
        ("g5.xlarge", 4, 1, 24),
        ("g5.16xlarge", 64, 1, 24),
        ("p4d.24xlarge", 96, 8, 40),
        ("p5.48xlarge", 192, 8, 80),
        ("p3.2xlarge", 8, 1, 16),
        ("m7i.large", 2, 0, 0),
        ("t3.medium", 2, 0, 0),
    ],
)
def test_what_machines_have(name: str, cpus: int, gpus: int, gb: float) -> None:
    found = instance_of(name)
    assert found is not None
    assert (found.cpus, found.gpus, found.gpu_gb) == (cpus, gpus, gb)


@pytest.mark.parametrize("name", ["x9.xlarge", "m5.medium", "m5.metal", "g5", "", "g5.large"])
def test_what_the_table_does_not_know(name: str) -> None:
    assert instance_of(name) is None


def test_the_table_agrees_with_ec2s(monkeypatch: pytest.MonkeyPatch) -> None:
    """As moto carries it."""
    import boto3
    from moto import mock_aws

    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "canary")
    with mock_aws():
        asked = boto3.session.Session().client("ec2", "us-west-2").get_paginator("describe_instance_types")
        entries = [entry for page in asked.paginate() for entry in page["InstanceTypes"]]
    seen = 0
    for entry in entries:
        found = instance_of(entry["InstanceType"])
        if found is None:
            continue
        seen += 1
        gpus = entry.get("GpuInfo", {}).get("Gpus", [])
        there = (entry["VCpuInfo"]["DefaultVCpus"], sum(gpu["Count"] for gpu in gpus))
        assert (found.cpus, found.gpus) == there, entry["InstanceType"]
        for gpu in gpus:
            # Amazon gives some in GiB that can be used, others as printed on the box
            assert found.gpu == gpu["Name"]
            assert found.gpu_gb == pytest.approx(gpu["MemoryInfo"]["SizeInMiB"] / 1024, rel=0.08)
    assert seen > 90


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(GOOD)
    assert main(["cluster", "price", str(path), "--hours", "10"]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first.endswith("0.19 to 1.56 US dollars an hour")
    assert second == "10 hours: 1.92 to 15.64 US dollars"
    path.write_text(OWN)
    assert main(["cluster", "price", str(path)]) == 0
    assert "machines of your own" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["cluster", "price", str(path), "--hours", "0"])
    assert "'0' is no number of hours; write such as 8 or 0.5" in capsys.readouterr().err
