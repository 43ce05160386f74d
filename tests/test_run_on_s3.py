"""Whole runs whose results go to S3: outages, lost machines, two machines, and what must never be in a bucket."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import boto3
import pytest
from fault_proxy import ALWAYS, Asked, FaultProxy
from quick_run import HERE, QuickRun, check_run

from tunelab.archive import is_of_a_run
from tunelab.cli import main
from tunelab.files import files_below
from tunelab.terms import Terms

ray = pytest.mark.ray

CANARIES = {
    "AWS_ACCESS_KEY_ID": "canary-id",
    "AWS_SECRET_ACCESS_KEY": "canary-secret-0123456789",
    "AWS_SESSION_TOKEN": "canary-session-0123456789",
    "SECRET_TOKEN": "canary-token-0123456789",
}
SLOW = 5_000.0
"""Bytes a second."""
LEASE = 3.0
"""Seconds, of a driver whose owner has no patience."""
SHORT_LEASE = f"""
import runpy
from tunelab.s3lease import S3Lease
S3Lease.take.__func__.__kwdefaults__["seconds"] = {LEASE}
runpy.run_path({{script!r}}, run_name="__main__")
"""


@dataclass(frozen=True, kw_only=True)
class Bucket:
    """A bucket as it really is, asked without the proxy."""

    name: str
    client: Any

    @property
    def url(self) -> str:
        return f"s3://{self.name}/lab"

    @property
    def run(self) -> str:
        return f"{self.url}/run"

    def objects(self) -> dict[str, bytes]:
        """All of them, by their keys below the bucket."""
        listed = self.client.list_objects_v2(Bucket=self.name).get("Contents", [])
        return {one["Key"]: self.get(one["Key"]) for one in listed}

    def get(self, key: str) -> bytes:
        return bytes(self.client.get_object(Bucket=self.name, Key=key)["Body"].read())

    def put(self, key: str, data: bytes) -> None:
        self.client.put_object(Bucket=self.name, Key=key, Body=data)

    def age(self, key: str) -> float:
        """Seconds since it was put."""
        there = self.client.head_object(Bucket=self.name, Key=key)
        return float((datetime.now(UTC) - there["LastModified"]).total_seconds())

    def knows(self) -> list[dict[str, Any]]:
        """The records of the run that the manifest there stands for."""
        try:
            manifest = json.loads(self.get("lab/run/manifest.json"))
        except self.client.exceptions.NoSuchKey:
            return []
        raw = self.get("lab/run/journal.jsonl")[: manifest["files"]["journal.jsonl"]["size"]]
        return [json.loads(line) for line in raw.splitlines()]


def bucket_at(port: int, name: str) -> Bucket:
    keys = {"aws_access_key_id": "a", "aws_secret_access_key": "b", "region_name": "us-east-1"}
    client = boto3.session.Session(**keys).client("s3", endpoint_url=f"http://127.0.0.1:{port}")
    client.create_bucket(Bucket=name)
    return Bucket(name=name, client=client)


@pytest.fixture
def bucket(s3_port: int, fault_proxy: FaultProxy, request: pytest.FixtureRequest) -> Bucket:
    """The test's own, reached by the drivers through the proxy."""
    return bucket_at(s3_port, f"run-{hashlib.sha256(request.node.name.encode()).hexdigest()[:12]}")


@pytest.fixture
def driven() -> Iterator[Callable[..., QuickRun]]:
    """Makes runs; a driver that a failed test leaves behind is killed."""
    made: list[QuickRun] = []

    def make(folder: Path, **environment: str) -> QuickRun:
        made.append(QuickRun(folder=folder, environment=environment))
        return made[-1]

    yield make
    for run in made:
        if run.process is not None and run.process.poll() is None:
            run.kill()


@dataclass(frozen=True, kw_only=True)
class Lost:
    """A run whose driver was killed after its bucket had been cut off for a while."""

    folder: Path
    """Of the machine, with more in it than in the bucket."""
    name: str
    """Of the bucket."""
    objects: dict[str, bytes]
    """What was in it."""


@pytest.fixture(scope="module")
def lost(s3_port: int, tmp_path_factory: pytest.TempPathFactory) -> Lost:
    there = bucket_at(s3_port, "lost-machine")
    folder = tmp_path_factory.mktemp("lost")
    proxy = FaultProxy(s3_port)
    proxy.start()
    run = QuickRun(
        folder=folder, environment=CANARIES | {"AWS_ENDPOINT_URL": proxy.url, "TUNELAB_QUICK_SECONDS": "0.3"}
    )
    run.search("--trials", "4", "--storage", there.url, "--sync-every", "1s")
    until(run, lambda: results(there.knows()) >= 3)
    proxy.down = True
    known = run.count("result")
    run.wait_for(lambda records: results(records) >= known + 2)
    run.kill_all()
    proxy.close()
    assert results(there.knows()) < run.count("result") < 24
    return Lost(folder=folder, name=there.name, objects=there.objects())


@pytest.fixture
def again(lost: Lost, s3_port: int, fault_proxy: FaultProxy) -> Bucket:
    """That bucket as it was."""
    there = bucket_at(s3_port, lost.name)
    for key in there.objects():
        there.client.delete_object(Bucket=lost.name, Key=key)
    for key, data in lost.objects.items():
        there.put(key, data)
    return there


def results(records: list[dict[str, Any]]) -> int:
    return sum(record["kind"] == "result" for record in records)


def until(run: QuickRun, what: Callable[[], bool]) -> None:
    """Until something holds outside of the journal, while the driver goes on."""
    deadline = time.monotonic() + 120
    while not what():
        assert run.process is not None
        assert run.process.poll() is None, run.said
        assert time.monotonic() < deadline, run.said
        time.sleep(0.05)


def whole(bucket: Bucket, run: Path) -> dict[str, bytes]:
    """What is in the bucket: the run, all of it, and nothing else; and nobody holds it."""
    there = bucket.objects()
    local = {key: (run / key).read_bytes() for key in files_below(run) if is_of_a_run(key)}
    assert there.keys() == {f"lab/run/{key}" for key in [*local, "manifest.json", "lease.json"]}
    assert {key: there[f"lab/run/{key}"] for key in local} == local
    named = json.loads(there["lab/run/manifest.json"])["files"]
    assert named == {k: {"sha256": hashlib.sha256(v).hexdigest(), "size": len(v)} for k, v in local.items()}
    assert json.loads(there["lab/run/lease.json"])["released"]
    return there


def is_put(asked: Asked) -> bool:
    return asked.method == "PUT"


def of_journal(asked: Asked) -> bool:
    return is_put(asked) and asked.path.endswith("/journal.jsonl")


def files_of(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and not path.is_symlink()}


def command(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    capsys.readouterr()
    code = main(list(words))
    told = capsys.readouterr()
    return code, told.out + told.err


@ray
def test_a_run_lands_there_whole_and_no_secret_with_it(
    bucket: Bucket,
    driven: Callable[..., QuickRun],
    fault_proxy: FaultProxy,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    quick = driven(tmp_path, **CANARIES)
    options = ("--s3-endpoint", fault_proxy.url, "--s3-sse", "AES256")
    assert quick.search("--trials", "2", "--storage", bucket.url, "--sync-every", "1s", *options).end() == 0, quick.said
    check_run(quick.run)
    there = whole(bucket, quick.run)
    assert f"Also at {bucket.run}" in quick.said
    for canary in CANARIES.values():
        assert canary not in quick.said
        assert not [key for key, data in there.items() if canary.encode() in data]
        assert not [path for path, data in files_of(tmp_path).items() if canary.encode() in data]

    puts = [asked for asked in fault_proxy.asked if is_put(asked)]
    assert {asked.headers.get("x-amz-server-side-encryption") for asked in puts} == {"AES256"}
    options_told = quick.records()[0]["options"]
    assert (options_told["s3_endpoint"], options_told["s3_sse"]) == (fault_proxy.url, "AES256")

    # what was said once holds for those who name the folder only
    fault_proxy.clear()
    monkeypatch.chdir(tmp_path)
    told = f"Note: {bucket.run} is asked for at {fault_proxy.url}, as the run was begun with.\n"
    assert command(capsys, "sync", "runs/run") == (0, f"{told}{bucket.run} has everything already\n")
    code, said = command(capsys, "resume", "runs/run", "--local", "--seed", "5")
    assert (code, "seed: 0 -> 5" in said) == (7, True)
    puts = [asked for asked in fault_proxy.asked if is_put(asked)]
    assert {asked.path.rpartition("/")[2] for asked in puts} == {"lease.json", "manifest.json"}, "no file twice"
    assert {asked.headers.get("x-amz-server-side-encryption") for asked in puts} == {"AES256"}
    whole(bucket, quick.run)


@ray
def test_outages_and_slow_links_are_said_and_cost_no_trial(
    bucket: Bucket, driven: Callable[..., QuickRun], fault_proxy: FaultProxy, tmp_path: Path
) -> None:
    quick = driven(tmp_path, TUNELAB_QUICK_SECONDS="0.3")
    quick.search("--trials", "90", "--storage", bucket.url, "--sync-every", "1s")
    until(quick, lambda: results(bucket.knows()) >= 1)
    fault_proxy.down = True
    until(quick, lambda: f"Warning: {bucket.run}" in quick.said)
    assert "cannot be reached (" in quick.said
    known = quick.count("result")
    quick.wait_for(lambda records: results(records) > known)
    fault_proxy.down = False
    until(quick, lambda: results(bucket.knows()) > known)
    fault_proxy.slow(SLOW, when=of_journal)
    arithmetic = re.compile(
        rf"Warning: {bucket.run}: [0-9.]+ [kM]B in [0-9.]+ s \([0-9.]+ [kM]B/s\), slower than --sync-every 1 s; "
        "results arrive late, training goes on"
    )
    until(quick, lambda: arithmetic.search(quick.said) is not None)
    fault_proxy.clear()
    quick.kill(signal.SIGTERM)
    assert quick.end() == 143, quick.said
    check_run(quick.run, done=False)
    whole(bucket, quick.run)
    ends = [record["status"] for record in quick.records() if record["kind"] == "end"]
    assert set(ends) <= {"finished", "stopped", "interrupted"}
    assert not quick.count("failure")
    assert f"Go on with: tunelab resume {bucket.run}" in quick.said


@ray
def test_when_the_machine_is_lost_another_goes_on_from_the_bucket(
    lost: Lost,
    again: Bucket,
    driven: Callable[..., QuickRun],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    known = lost.objects["lab/run/journal.jsonl"]
    quick = driven(tmp_path)
    assert quick.resume("--sync-every", "1s", run=again.run).end() == 0, quick.said
    assert check_run(quick.run, before=known).trials == 4
    records = len(known.splitlines())
    assert (
        f"Note: Brought {records:,} records from {again.run}; what was done elsewhere after the last of them was sent "
        "(--sync-every) is not there, and is done again."
    ) in quick.said
    there = whole(again, quick.run)

    # the lost machine comes back: what it did alone is not mixed with what was done without it
    mine = tmp_path / "found"
    shutil.copytree(lost.folder, mine, ignore=shutil.ignore_patterns(".ray"))
    monkeypatch.chdir(mine)
    before = files_of(mine / "runs")
    for name in ("runs/run", again.run):
        code, said = command(capsys, "resume", name, "--local")
        assert code == 7, said
        assert f"{mine}/runs/run and {again.run} have each gone on without the other" in said
    code, said = command(capsys, "sync", "runs/run")
    assert code == 7, said
    after = files_of(mine / "runs")
    assert {p: d for p, d in after.items() if p.name not in ("lease.json", "run.lock")} == {
        p: d for p, d in before.items() if p.name not in ("lease.json", "run.lock")
    }
    assert without_lease(again.objects()) == without_lease(there)


def without_lease(objects: dict[str, bytes]) -> dict[str, bytes]:
    return {key: data for key, data in objects.items() if not key.endswith("/lease.json")}


def test_a_folder_behind_its_bucket_is_brought_up_to_date(
    lost: Lost, again: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "runs" / "run"
    shutil.copytree(lost.folder / "runs" / "run", run, ignore=shutil.ignore_patterns(".ray", "weights", "checkpoints"))
    stored = lost.objects["lab/run/journal.jsonl"]
    (run / "journal.jsonl").write_bytes(b"".join(stored.splitlines(keepends=True)[:5]) + b'{"seq":5,')
    monkeypatch.chdir(tmp_path)
    code, said = command(capsys, "resume", again.run, "--local", "--seed", "5")  # another seed: brought, then refused
    assert (code, "seed: 0 -> 5" in said) == (7, True), said
    assert f"The folder was behind its bucket. Brought {len(stored.splitlines()):,} records from {again.run}; " in said
    assert (run / "journal.jsonl").read_bytes() == stored
    named = json.loads(lost.objects["lab/run/manifest.json"])["files"]
    assert {key for key in files_below(run) if key.startswith(("weights/", "checkpoints/"))} == {
        key for key in named if key.startswith(("weights/", "checkpoints/"))
    }
    assert without_lease(again.objects()) == without_lease(lost.objects)


def test_a_run_that_a_living_owner_elsewhere_holds_is_left_to_it(
    again: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    there = Terms.read(again.get("lab/run/lease.json"))
    assert there is not None
    elsewhere = there.owner.model_copy(update={"host": "elsewhere", "pid": 4711, "numbers": ""})
    again.put("lab/run/lease.json", there.but(owner=elsewhere).written())
    before = again.objects()
    monkeypatch.chdir(tmp_path)
    code, said = command(capsys, "resume", again.run, "--local")
    assert code == 6, said
    assert f"{again.run}: held by process 4711 on elsewhere since " in said
    assert re.search(r"unless it goes on, it can be taken over in \d+ s", said)
    assert again.objects() == before
    assert list(tmp_path.glob("runs/*")) == []


def test_runs_are_listed_and_looked_at_from_anywhere(
    again: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    before = again.objects()
    suggested = sum(record["kind"] == "suggestion" for record in again.knows())
    code, said = command(capsys, "list", again.url)
    assert code == 0
    assert re.fullmatch(rf"run +open +{suggested} trials  best 0\.\d+ \(000\d \w+\) +\d+:\d\d ago\n", said)
    code, said = command(capsys, "status", again.run)
    assert code == 0
    assert said.startswith(f"run: open, by tunelab 0.1.0, at {again.run}\nTrials: {suggested} of 4: ")
    assert f"then go on with: tunelab resume {again.run}" in said
    assert command(capsys, "list", f"s3://{again.name}/nothing") == (0, f"no runs at s3://{again.name}/nothing\n")
    code, said = command(capsys, "status", f"{again.url}/other")
    assert code == 7
    assert "holds no run (no journal.jsonl); check the name with: tunelab list" in said
    assert again.objects() == before
    assert not list(tmp_path.iterdir())


@ray
@pytest.mark.parametrize("fault", ["down", "denied"])
def test_with_the_bucket_away_at_the_end_all_is_kept_and_sent_later(
    fault: str,
    bucket: Bucket,
    driven: Callable[..., QuickRun],
    fault_proxy: FaultProxy,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    fault_proxy.unconditional = fault == "down"  # of such a server the user hears, too
    quick = driven(tmp_path)
    quick.search("--trials", "2", "--storage", bucket.url, "--sync-every", "1s")
    quick.wait_for(lambda records: results(records) >= 2)
    if fault == "down":
        fault_proxy.down = True
    else:
        fault_proxy.answer(403, "AccessDenied", times=ALWAYS)
    assert quick.end(90) == 5, quick.said
    check_run(quick.run)
    assert (quick.run / "report.html").exists()
    why = (
        "cannot be reached (" if fault == "down" else "access denied (AccessDenied); the credentials need s3:PutObject"
    )
    assert why in quick.said
    assert f"everything is kept in {quick.run}; send it later with: tunelab sync {quick.run}" in quick.said
    assert "Traceback" not in quick.said
    assert ("the server knows no conditional writes" in quick.said) == (fault == "down")

    monkeypatch.chdir(tmp_path)
    if fault == "denied":
        code, said = command(capsys, "sync", "runs/run")
        assert (code, why in said) == (5, True)
    fault_proxy.down = False
    fault_proxy.clear()
    code, said = command(capsys, "sync", str(quick.run))
    assert code == 0
    assert re.fullmatch(rf"sent \d+ files to {bucket.run}\n", said)
    assert fault_proxy.count(of_journal) == 1
    whole(bucket, quick.run)
    fault_proxy.clear()
    assert command(capsys, "sync", str(quick.run)) == (0, f"{bucket.run} has everything already\n")
    puts = {asked.path.rpartition("/")[2] for asked in fault_proxy.asked if is_put(asked)}
    assert puts == {"lease.json", "manifest.json"}, "whose it is, and no file"


def test_a_bucket_that_denies_is_said_before_anything_is_trained(
    bucket: Bucket, fault_proxy: FaultProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    fault_proxy.answer(403, "AccessDenied", times=ALWAYS)
    begun = time.monotonic()
    code, said = command(capsys, "search", "--storage", bucket.url, "--name", "run", "--trials", "1", "--local")
    assert code == 5, said
    assert time.monotonic() - begun < 60
    assert f"s3://{bucket.name}: access denied (AccessDenied); the credentials need s3:PutObject" in said
    assert list(tmp_path.glob("runs/*")) == []
    assert bucket.objects() == {}


@ray
def test_who_was_cut_off_and_taken_over_writes_nothing_more(
    bucket: Bucket,
    driven: Callable[..., QuickRun],
    fault_proxy: FaultProxy,
    s3_port: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Two machines, each with its own way to the bucket; the lease of the first lasts seconds instead of a minute."""
    direct = f"http://127.0.0.1:{s3_port}"
    first = driven(tmp_path / "first", TUNELAB_QUICK_SECONDS="0.3", PYTHONPATH=str(HERE))
    second = driven(tmp_path / "second", AWS_ENDPOINT_URL=direct)
    for one in (first, second):
        one.folder.mkdir()
    (tmp_path / "quick_run.py").write_text(SHORT_LEASE.format(script=str(HERE / "quick_run.py")))
    with monkeypatch.context() as patched:
        patched.setattr("quick_run.HERE", tmp_path)
        first.search("--trials", "99", "--storage", bucket.url, "--sync-every", "1s")
    until(first, lambda: results(bucket.knows()) >= 2)
    assert first.process is not None
    fault_proxy.down = True
    monkeypatch.chdir(second.folder)
    code, said = command(capsys, "resume", bucket.run, "--local", "--s3-endpoint", direct)
    assert code == 6, said
    assert f"{bucket.run}: held by process {first.process.pid} on " in said
    until(first, lambda: bucket.age("lab/run/lease.json") > LEASE + 3)
    assert second.resume("--sync-every", "1s", "--trials", "2", run=bucket.run).end() == 0, second.said
    assert first.process.poll() is None, "the first one goes on by itself meanwhile"
    known = whole(bucket, second.run)
    fault_proxy.down = False
    assert first.end() == 6, first.said
    assert f"{bucket.run}: taken over by process " in first.said
    assert "Traceback" not in first.said
    assert bucket.objects() == known
    check_run(first.run, done=False)
    assert json.loads(known["lab/run/manifest.json"])["fence"] == 2
