"""``tunelab data prepare s3://...`` as a person types it: moto's real HTTP server behind a proxy that misbehaves."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config

from tunelab.cli import main
from tunelab.data import prepared as prepared_module
from tunelab.data.cache import DOWNLOADS
from tunelab.data.prepared import open_prepared
from tunelab.data.s3source import STATE
from tunelab.data.synthetic import SyntheticSettings, write_folder
from tunelab.files import files_below

SETTINGS = SyntheticSettings(scans=12, traces=12, samples=64, shortest=0.5, seed=4)
TRACES = [[i * j % 50 for j in range(64)] for i in range(10)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Scans of gprMax and of two instruments, whose headers are files of their own, with both tables."""
    folder = tmp_path / "survey"
    write_folder(SETTINGS, folder)
    data = b""
    for trace in TRACES:
        numbers = [0.0] * 25
        numbers[2], numbers[5], numbers[8] = 64, 2, 300
        data += struct.pack("<25f28s64h", *numbers, b"", *trace)
    (folder / "line 1.DT1").write_bytes(data)
    (folder / "line 1.HD").write_text(
        "NUMBER OF TRACES   = 10\r\nNUMBER OF PTS/TRC  = 64\r\nTOTAL TIME WINDOW  = 300\r\n"
    )
    (folder / "line2.rd3").write_bytes(b"".join(struct.pack("<64h", *trace) for trace in TRACES))
    (folder / "line2.rad").write_text("SAMPLES:64\nFREQUENCY:10000\nLAST TRACE:10\nTIMEWINDOW:50\n")
    with (folder / "labels.csv").open("a", newline="") as file:
        rows = csv.writer(file)
        for scan in ("line 1", "line2"):
            rows.writerows((scan, trace, int(trace in {4, 5})) for trace in range(10))
    scans = [path for path in sorted(folder.rglob("*")) if path.suffix in {".out", ".DT1", ".rd3"}]
    with (folder / "scans.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("scan", "file", "group"))
        for n, path in enumerate(scans):
            scan = path.stem.removesuffix("_merged")
            rows.writerow((scan, path.relative_to(folder).as_posix(), f"road{n // 2}"))
    (folder / "photo.jpg").write_bytes(b"no scan")
    return folder


@pytest.fixture
def url(folder: Path, fault_proxy: Any, s3_port: int, request: pytest.FixtureRequest) -> str:
    """The same below a prefix of a bucket, put there without the proxy."""
    bucket = f"survey-{hashlib.sha256(request.node.name.encode()).hexdigest()[:20]}"
    client = boto3.session.Session().client(
        "s3", endpoint_url=f"http://127.0.0.1:{s3_port}", config=Config(retries={"mode": "standard"})
    )
    client.create_bucket(Bucket=bucket)
    for key in files_below(folder):
        client.put_object(Bucket=bucket, Key=f"2026/scans/{key}", Body=(folder / key).read_bytes())
    return f"s3://{bucket}/2026/scans"


@pytest.fixture
def prepare(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[int, str]]:
    """The command on a source, with a cache of this name: exit code and what it printed."""
    monkeypatch.setattr(prepared_module, "_opened", {})

    def act(source: str | Path, cache: str) -> tuple[int, str]:
        code = main(["data", "prepare", str(source), "--cache", str(tmp_path / cache), "--workers", "1"])
        out, error = capfd.readouterr()
        return code, out + error

    return act


def entry(cache: Path) -> Path:
    (found,) = (path for path in cache.iterdir() if not path.name.startswith("."))
    return found


def content(path: Path) -> dict[str, Any]:
    """All that an entry holds, but for the name of its source and the time when it was made."""
    manifest = json.loads((path / "manifest.json").read_bytes())
    facts = {key: value for key, value in manifest.items() if key not in {"source", "stamp", "created"}}
    sums = {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in path.iterdir() if "manifest" not in p.name}
    return {**facts, "sums": sums}


def read(asked: Any) -> bool:
    return asked.method == "GET" and "list-type" not in asked.query


def test_what_is_prepared_is_what_the_folder_holds(
    folder: Path, url: str, prepare: Any, fault_proxy: Any, tmp_path: Path
) -> None:
    code, out = prepare(url, "remote")
    assert code == 0, out
    assert "14 scans, " in out
    assert prepare(folder, "local")[0] == 0
    remote, local = entry(tmp_path / "remote"), entry(tmp_path / "local")
    assert content(remote) == content(local)
    one, other = open_prepared(remote, 0), open_prepared(local, 0)
    assert one.fingerprint == other.fingerprint
    assert one.scans == other.scans
    assert {"line 1", "line2"} <= set(one.scans)
    assert len(set(json.loads((remote / "manifest.json").read_bytes())["scans"]["group"])) == 7
    # everything but the photograph was asked for, once; nothing is left of the download
    names = [key for key in files_below(folder) if key != "photo.jpg"]
    assert fault_proxy.count(read) == len(names)
    assert fault_proxy.sent() == sum((folder / key).stat().st_size for key in names)
    assert list((tmp_path / "remote" / DOWNLOADS).iterdir()) == []
    fault_proxy.clear()
    assert prepare(url, "remote")[0] == 0
    assert [asked.query[:11] for asked in fault_proxy.asked] == ["list-type=2"]


def test_a_download_that_was_killed_goes_on(
    folder: Path, url: str, prepare: Any, fault_proxy: Any, tmp_path: Path
) -> None:
    fault_proxy.hang(when=lambda asked: asked.path.endswith("/line2.rd3"), times=9)
    command = [sys.executable, "-m", "tunelab", "data", "prepare", url, "--cache", str(tmp_path / "remote")]
    process = subprocess.Popen([*command, "--workers", "1"], env=dict(os.environ))
    try:
        fault_proxy.wait_for_held(1)
    finally:
        process.kill()
        process.wait()
    (download,) = (tmp_path / "remote" / DOWNLOADS).iterdir()
    noted = [json.loads(line)["key"] for line in (download / STATE / "finished.jsonl").read_bytes().splitlines()]
    assert "line2.rd3" not in noted
    assert set(noted) <= set(files_below(download))
    fault_proxy.clear()
    code, out = prepare(url, "remote")
    assert code == 0, out
    assert fault_proxy.count(read) == len(files_below(folder)) - 1 - len(noted)
    assert prepare(folder, "local")[0] == 0
    assert content(entry(tmp_path / "remote")) == content(entry(tmp_path / "local"))
    assert list((tmp_path / "remote" / DOWNLOADS).iterdir()) == []


@pytest.mark.parametrize(
    ("status", "code", "exit_code", "said"),
    [
        (403, "AccessDenied", 5, "access denied (AccessDenied); the credentials need s3:GetObject and s3:ListBucket"),
        (404, "NoSuchKey", 3, "was removed since it was listed; start again, once nothing writes there"),
    ],
)
def test_a_failure_says_what_to_do_and_no_secret(
    url: str, prepare: Any, fault_proxy: Any, tmp_path: Path, status: int, code: str, exit_code: int, said: str
) -> None:
    fault_proxy.answer(status, code, when=lambda asked: asked.path.endswith("/line2.rad"))
    found, out = prepare(url, "remote")
    assert found == exit_code
    assert f"tunelab: {url}/line2.rad: {said}" in out
    assert "canary" not in out
    assert ("the same command goes on from there" in out) == (exit_code == 5)
    assert prepare(url, "remote")[0] == 0


def test_a_bad_file_is_named_by_its_place_in_the_bucket(
    folder: Path, prepare: Callable[..., tuple[int, str]], request: pytest.FixtureRequest
) -> None:
    path = folder / "line2.rd3"
    path.write_bytes(path.read_bytes()[:-7])
    url = request.getfixturevalue("url")  # put there once the file is bad
    code, said = prepare(url, "bad")
    assert code == 3
    assert f"  line2: {url}/line2.rd3: " in said
    assert DOWNLOADS not in said
