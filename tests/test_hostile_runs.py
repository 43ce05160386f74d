"""Folders and buckets of runs that were made to do harm: refused or shown inertly, and nothing in them ever runs.

What reads runs is asked in one process, whose memory is watched. Only what needs a search starts one.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import re
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import boto3
import numpy as np
import pytest
import yaml
from quick_run import QuickRun, check_run

from tunelab import journal
from tunelab.archive import FileFacts, Manifest
from tunelab.cli import main
from tunelab.tuning.plan import FORMAT, Options

EVIL = '<script>alert("x")</script>\x1b[31mred\x1b]0;title\x07\x9b2J../../etc/passwd\r\n' + "x" * 10_000
COMMANDS = ("report", "status", "list", "resume")
MOST_MEMORY = 10**9
METRICS = {"val_f1": 0.5, "tune_average_precision": 0.4, "val_average_precision": 0.4, "threshold": 0.5, "loss": 0.1}

OWN = ("seq", "time", "clock", "kind", "digest")
"""What the journal writes by itself."""

ASK = """
import contextlib, io, json, re, sys
from pathlib import Path
from tunelab.cli import main

for run in sys.argv[1:]:
    for words in (["report", run], ["status", run], ["list", str(Path(run).parent)], ["resume", run, "--local"]):
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = main(words)
        peak = int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024
        print(json.dumps([run, words[0], code, out.getvalue(), err.getvalue(), peak]), flush=True)
"""


class Marker:
    """What makes a file where it is unpickled."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return os.mknod, (str(self._path),)


@dataclass(frozen=True, kw_only=True)
class Told:
    """What came of a command."""

    code: int
    out: str
    err: str
    peak: int
    """Bytes of memory that the process had at most so far."""


def records_of(text: str = "name", **changes: Any) -> list[tuple[str, dict[str, Any]]]:
    """A journal as a search writes it, with a text wherever there is one, and other values where they are named."""
    options = Options(space="", data=None, trials=3).model_dump()
    trial = {"trial": "0001", "name": text, "seed": 1, "family": text, "params": {"family": text, text: text}}
    made: list[tuple[str, dict[str, Any]]] = [
        ("run", {"name": text, "version": text, "format": FORMAT, "seed": 0, "options": options, "identity": {}}),
        ("session", {"by": text, "fence": 1, "owner": text, "version": text, "versions": {text: text}, "cut": 0}),
        ("suggestion", {**trial, "point": {text: text, "units": [text]}}),
        ("suggestion", {**trial, "trial": "0002", "point": {"units": {text: text}}}),
        *[
            ("result", {"trial": "0001", "epoch": n, "seconds": 1.0 * n, "parameters": 7, "weights": text,
                        "checkpoint": text, "ended": "", "metrics": METRICS | {text[:99]: 0.1}})
            for n in (1, 2)
        ],
        ("failure", {"trial": "0002", "cause": text, "counts": True}),
        ("note", {"trial": "0002", "text": text}),
        ("decision", {"trial": "0002", "epoch": 0, "action": "stop", "by": text, "status": "failed", "cause": text}),
        ("end", {"trial": "0002", "status": "failed", "cause": text}),
        ("end", {"trial": "0001", "status": "stopped", "cause": text}),
        ("close", {"status": text, "reason": text}),
    ]  # fmt: skip
    return [(kind, fields | {k: v for k, v in changes.items() if k in fields}) for kind, fields in made]


def write_run(run: Path, records: list[tuple[str, dict[str, Any]]], **facts: Any) -> Path:
    run.mkdir(parents=True, exist_ok=True)
    made = journal.Journal.open(run / "journal.jsonl")
    for kind, fields in records:
        made.append(kind, **fields)
    made.close()
    described = {"name": "run", "version": "0.1.0", "seed": 0, "dimensions": ["units"], **facts}
    (run / "run.yaml").write_text(yaml.safe_dump(described, allow_unicode=True))
    return run


def signed(record: dict[str, Any]) -> bytes:
    """A line with the right digest, whatever is in it."""
    return journal._line(record | {"digest": journal._digest(record)})


def words(run: Path) -> None:
    facts = {"command": EVIL, "created": EVIL, "versions": {"ray": EVIL}, "dimensions": ["units", EVIL]}
    data = {"source": EVIL, "notes": [EVIL], "chains": [EVIL], "fingerprint": EVIL, "splits": {"train": [EVIL]}}
    write_run(run, records_of(EVIL), **facts, name=EVIL, version=EVIL, data=data)
    (run / "lease.json").write_text(json.dumps({"owner": {"pid": 1, "host": EVIL}, "fence": 1}))


def words_in_an_open_run(run: Path) -> None:
    write_run(run, records_of(EVIL)[:-1])
    (run / "lease.json").write_text(json.dumps({"owner": {"pid": 1, "host": EVIL}, "fence": 1}))


def words_as_options(run: Path) -> None:
    options = Options(space=EVIL, data=EVIL).model_dump()
    write_run(run, records_of(options={**options, EVIL: EVIL}))


def words_as_a_space(run: Path) -> None:
    write_run(run, records_of(options=Options(space=EVIL, data=EVIL).model_dump()))


def words_as_another_version(run: Path) -> None:
    write_run(run, records_of(format=99, version=EVIL))


def words_as_a_number(run: Path) -> None:
    write_run(run, records_of())
    lines = (run / "journal.jsonl").read_bytes()
    record = {"seq": EVIL, "time": 1.0, "kind": EVIL}
    (run / "journal.jsonl").write_bytes(lines + signed(record))


def words_as_a_status(run: Path) -> None:
    write_run(run, records_of(status=EVIL))


def words_as_the_final_result(run: Path) -> None:
    write_run(run, [*records_of(), ("final", {"trial": "0001", "epoch": 1, "validation": EVIL, "test": EVIL})])


def infinite(run: Path) -> None:
    write_run(run, records_of())
    path = run / "journal.jsonl"
    path.write_bytes(path.read_bytes().replace(b'"fence":1', b'"fence":1e999', 1))


def settings_nested_deep(run: Path) -> None:
    write_run(run, records_of())
    (run / "run.yaml").write_text("name: " + "[" * 200_000)


def words_as_times(run: Path) -> None:
    write_run(run, records_of())
    lines = (run / "journal.jsonl").read_bytes()
    count = len(lines.splitlines())
    (run / "journal.jsonl").write_bytes(lines + signed({"seq": count, "time": EVIL, "clock": EVIL, "kind": "close"}))


def times_beyond_all_calendars(run: Path) -> None:
    write_run(run, records_of())
    lines = (run / "journal.jsonl").read_bytes()
    record = {"seq": len(lines.splitlines()), "time": 1e300, "clock": 1e300, "kind": "close", "status": "done"}
    (run / "journal.jsonl").write_bytes(lines + signed(record))


def no_kinds(run: Path) -> None:
    write_run(run, [])
    (run / "journal.jsonl").write_bytes(signed({"seq": 0}))


def lists_for_mappings(run: Path) -> None:
    write_run(run, records_of(options=[EVIL], identity=[EVIL], versions=[EVIL], params=[EVIL], point=[EVIL]))


def metrics_of_text(run: Path) -> None:
    write_run(run, records_of(metrics={"val_f1": EVIL}))


def epochs_without_end(run: Path) -> None:
    write_run(run, records_of(epoch=10**40, parameters=10**400))


def nested_deep(run: Path) -> None:
    write_run(run, records_of())
    (run / "journal.jsonl").write_bytes(b"[" * 5_000_000 + b"]" * 5_000_000 + b"\n")


def nested_as_deep_as_can_be_read(run: Path) -> None:
    deep: Any = EVIL
    for _ in range(300):
        deep = [deep]
    write_run(run, records_of(params={"family": "lstm", "units": deep}, point={"units": deep}))


def nested_wide(run: Path) -> None:
    write_run(run, [*records_of(), ("note", {"trial": "0001", "text": [[[]]] * 500_000})])


def python_tags(run: Path) -> None:
    write_run(run, records_of())
    for name in ("run.yaml", "space.yaml", "best_config.yaml"):
        (run / name).write_text(f"name: !!python/object/apply:os.mknod ['{marker(run)}']\n")


def aliases(run: Path) -> None:
    """Nine levels of nine: 387,420,489 words when they are written out."""
    bomb = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    bomb += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 9)]
    write_run(run, records_of(), bomb="HERE")
    text = (run / "run.yaml").read_text().replace("bomb: HERE", "\n".join(bomb))
    where = "data: {options: {x: *a8}, notes: *a8, fingerprint: *a8}\nspace: {x: *a8}\ncommand: *a8\n"
    (run / "run.yaml").write_text(text + where)


def pickles(run: Path) -> None:
    write_run(run, records_of())
    for name in [*STATE_FILES, "journal.jsonl", "run.yaml"]:
        plant(run / name, run)


def pickles_beside_a_journal(run: Path) -> None:
    write_run(run, records_of())
    for name in STATE_FILES:
        plant(run / name, run)


STATE_FILES = (
    ".ray/tuner.pkl",
    ".ray/trainable.pkl",
    ".ray/experiment_state-2099-01-01_00-00-00.json",
    ".ray/searcher-state-2099-01-01_00-00-00.pkl",
    ".ray/search_gen_state-2099-01-01_00-00-00.json",
    ".ray/0001/checkpoint_000001/.metadata.pkl",
    "tuner.pkl",
    "experiment_state-2099-01-01_00-00-00.json",
    "checkpoints/0001/s000001.ckpt",
    "weights/0001-e0001.npz",
    "space.yaml",
    "best_config.yaml",
    "report.json",
    "report.html",
    "leaderboard.csv",
    "lease.json",
    "run.lock",
    "manifest.json",
    "tensorboard/0001/events.out.tfevents.1",
)
CASES: Mapping[str, tuple[Callable[[Path], None], Mapping[str, int]]] = {
    "words": (words, {"report": 0, "status": 0, "resume": 7}),
    "words in an open run": (words_in_an_open_run, {"report": 0, "status": 0, "resume": 7}),
    "words as options": (words_as_options, {"report": 0, "status": 0, "resume": 7}),
    "words as a space": (words_as_a_space, {"report": 0, "status": 0, "resume": 2}),
    "words as another version": (words_as_another_version, {"report": 0, "status": 0, "resume": 7}),
    "words as a number": (words_as_a_number, {"report": 7, "status": 7, "resume": 7}),
    "words as a status": (words_as_a_status, {"report": 7, "status": 7, "resume": 7}),
    "words as the final result": (words_as_the_final_result, {"report": 7, "status": 0, "resume": 7}),
    "infinite": (infinite, {"report": 7, "status": 7, "resume": 7}),
    "settings nested deep": (settings_nested_deep, {"report": 7, "status": 0, "resume": 7}),
    "words as times": (words_as_times, {"report": 7, "status": 7, "resume": 7}),
    "times beyond all calendars": (times_beyond_all_calendars, {"report": 7, "status": 7, "resume": 7}),
    "no kinds": (no_kinds, {"report": 7, "status": 7, "resume": 7}),
    "lists for mappings": (lists_for_mappings, {"report": 7, "status": 7, "resume": 7}),
    "metrics of text": (metrics_of_text, {"report": 7, "status": 7, "resume": 7}),
    "epochs without end": (epochs_without_end, {"report": 7, "status": 7, "resume": 7}),
    "nested deep": (nested_deep, {"report": 7, "status": 7, "resume": 7}),
    "nested as deep as can be read": (nested_as_deep_as_can_be_read, {"report": 0, "status": 0, "resume": 7}),
    "nested wide": (nested_wide, {"report": 0, "status": 0, "resume": 7}),
    "python tags": (python_tags, {"report": 7, "status": 0, "resume": 7}),
    "aliases": (aliases, {"report": 7, "status": 0, "resume": 7}),
    "pickles": (pickles, {"report": 7, "status": 0, "resume": 7}),
    "pickles beside a journal": (pickles_beside_a_journal, {"report": 0, "status": 0, "resume": 7}),
}


def marker(run: Path) -> Path:
    return run.parents[1] / f"{run.parents[0].name}-was-here"


def plant(path: Path, run: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(Marker(marker(run))))


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Told]:
    """What each command says of each run, asked by one process."""
    root = tmp_path_factory.mktemp("hostile")
    runs = {}
    for number, (case, (make, _)) in enumerate(CASES.items()):
        run = root / f"runs{number}" / "run"
        make(run)
        runs[str(run)] = case
    done = subprocess.run(
        [sys.executable, "-c", ASK, *runs], capture_output=True, text=True, timeout=240, check=False, cwd=root
    )
    (root / "said.txt").write_text(done.stdout + done.stderr)
    found = {}
    for line in done.stdout.splitlines():
        run, command, code, out, err, peak = json.loads(line)
        found[runs[run], command] = Told(code=code, out=out, err=err, peak=peak)
    found["all", "process"] = Told(code=done.returncode, out="", err=done.stderr, peak=0)
    assert not list(root.glob("*-was-here")), "something was run"
    for run, case in runs.items():
        for name in ("report.html", "leaderboard.csv", "best_config.yaml", "report.json"):
            if found.get((case, "report"), Told(code=1, out="", err="", peak=0)).code == 0:
                written = Path(run, name)
                assert written.exists() or name == "best_config.yaml"
                found[case, name] = Told(code=0, out=written.read_text() if written.exists() else "", err="", peak=0)
    return found


def test_the_process_that_asked_lives_and_takes_little_memory(told: dict[tuple[str, str], Told]) -> None:
    assert told["all", "process"].code == 0, told["all", "process"].err[-2000:]
    assert max(one.peak for one in told.values()) < MOST_MEMORY


@pytest.mark.parametrize("case", CASES)
def test_what_is_hostile_is_refused_or_inert(case: str, told: dict[tuple[str, str], Told]) -> None:
    for command in COMMANDS:
        one = told[case, command]
        said = f"{command}: {one.code} {one.out!r:.300} {one.err!r:.600}"
        assert one.code == CASES[case][1].get(command, 0), said
        assert inert(one.out), said
        assert inert(one.err), said
        assert len(one.out) + len(one.err) < 8_000, said
        assert "Traceback" not in one.err, said
        assert (one.code == 0) == (not one.err), said
    if (case, "report.html") in told:
        page = told[case, "report.html"].out
        assert elements(page).isdisjoint({"script", "iframe", "object", "embed", "img", "link", "base", "form"})
        assert inert(page)
        assert inert(told[case, "leaderboard.csv"].out)
        assert inert(told[case, "best_config.yaml"].out)
        assert inert(told[case, "report.json"].out)


def inert(text: str) -> bool:
    """Whether nothing in a text could steer a terminal."""
    return not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f]", text)


def elements(page: str) -> set[str]:
    """The names of the elements of a page, as a browser finds them; those with a handler of events, too."""
    found: set[str] = set()

    class Reader(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            found.add(tag)
            found.update("script" for name, _ in attrs if name.startswith("on"))

    Reader().feed(page)
    return found


def test_names_of_folders_steer_no_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("<script>", "$(touch x)", "\x9b31mred", "\u202ered"):
        write_run(tmp_path / name, records_of())
    write_run(tmp_path / "broken", []).joinpath("journal.jsonl").write_bytes(b"x\ny\n")
    assert main(["list", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert inert(said)
    assert len(said.splitlines()) == 5
    assert "cannot be read: " in said


def npz(header: bytes, values: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("0000.npy", b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + values)
    return buffer.getvalue()


def of_objects(path: Path) -> bytes:
    return npz(b"{'descr': '|O', 'fortran_order': False, 'shape': (4,), }\n", pickle.dumps(Marker(path)))


def of_terabytes() -> bytes:
    return npz(b"{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000,), }\n", bytes(32))


@pytest.mark.ray
def test_a_run_goes_on_beside_hostile_files_and_refuses_hostile_weights(tmp_path: Path) -> None:
    """Even such weights as the journal names, with their right digest in it."""
    quick = QuickRun(folder=tmp_path, environment={"TUNELAB_QUICK_SECONDS": "0.2", "TUNELAB_QUICK_SHARE": "0"})
    quick.search("--trials", "2")
    quick.wait_for(lambda records: sum(r["kind"] == "result" for r in records) >= 3)
    quick.kill_all()
    known = quick.journal.read_bytes()
    here = tmp_path / "was-here"
    attacks = [of_terabytes(), of_objects(here), pickle.dumps(Marker(here))]
    found = sorted(quick.run.glob("checkpoints/*/*"))
    assert len(found) >= 2
    for number, path in enumerate(found):
        raw = attacks[number % len(attacks)]
        path.write_bytes(hashlib.sha256(raw).hexdigest().encode() + b"\n" + raw)
    over = {r["trial"] for r in quick.records() if r["kind"] == "end"}
    for path in quick.run.glob("weights/*"):
        if path.name[:4] not in over:
            path.write_bytes(attacks[-1])
    for name in STATE_FILES:
        if not name.startswith(("checkpoints", "weights", "space.yaml")):
            (quick.run / name).parent.mkdir(parents=True, exist_ok=True)
            (quick.run / name).write_bytes(attacks[-1])
    assert quick.resume().end() == 0, quick.said
    check_run(quick.run, before=known)
    notes = [record["text"] for record in quick.records() if record["kind"] == "note"]
    assert notes
    assert all("is no checkpoint of this version (" in note for note in notes)
    assert any(note.endswith("; begins anew") for note in notes)

    (final,) = [record for record in quick.records() if record["kind"] == "final"]
    weights = quick.run / "weights" / f"{final['trial']}-e{final['epoch']:04d}.npz"
    raw = of_objects(here)
    weights.write_bytes(raw)
    kept = [record for record in quick.records() if record["kind"] not in ("final", "close")]
    for record in kept:
        if record["kind"] == "result" and (record["trial"], record["epoch"]) == (final["trial"], final["epoch"]):
            record["weights"] = hashlib.sha256(raw).hexdigest()
    quick.journal.unlink()
    (quick.run / "run.yaml").unlink()  # it is written again
    made = journal.Journal.open(quick.journal)
    for record in kept:
        made.append(record["kind"], **{k: v for k, v in record.items() if k not in OWN})
    made.close()
    assert quick.resume().end() == 7, quick.said
    assert "objects are never unpickled" in quick.said
    assert "Traceback" not in quick.said
    assert not here.exists()


MANIFESTS: Mapping[str, tuple[dict[str, Any], str]] = {
    "leaves the folder": ({"../../owned": {"sha256": "0" * 64, "size": 1}}, "holds '..'"),
    "is absolute": ({"/tmp/owned": {"sha256": "0" * 64, "size": 1}}, "is absolute"),
    "is huge": ({"weights/0001-e0001.npz": {"sha256": "0" * 64, "size": 10**13}}, "less than or equal to"),
    "is a hidden file": ({".ssh/authorized_keys": {"sha256": "0" * 64, "size": 1}}, "is no file of a run"),
    "steers a terminal": ({EVIL: {"sha256": "0" * 64, "size": 1}}, "holds a backslash or a control character"),
}


@pytest.mark.parametrize("what", MANIFESTS)
def test_a_hostile_manifest_brings_nothing(
    what: str,
    s3_port: int,
    fault_proxy: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    client = boto3.session.Session().client("s3", endpoint_url=f"http://127.0.0.1:{s3_port}")
    name = f"hostile-{what.replace(' ', '-')}"
    client.create_bucket(Bucket=name)
    raw = (write_run(tmp_path / "made", records_of()) / "journal.jsonl").read_bytes()
    files, why = MANIFESTS[what]
    whole = Manifest(fence=1, files={"journal.jsonl": FileFacts.of(raw)}).model_dump()
    whole["files"] |= files
    for key, data in (("run/journal.jsonl", raw), ("run/manifest.json", json.dumps(whole).encode())):
        client.put_object(Bucket=name, Key=key, Body=data)
    there = tmp_path / "here"
    there.mkdir()
    monkeypatch.chdir(there)
    assert main(["resume", f"s3://{name}/run", "--local"]) == 7
    said = capsys.readouterr().err
    assert f"s3://{name}/run/manifest.json: is no manifest of this version: " in said
    assert why in said
    assert inert(said)
    assert not list(there.rglob("*"))
    for words in (["status", f"s3://{name}/run"], ["list", f"s3://{name}"]):
        assert main(words) == 0
        assert inert(capsys.readouterr().out)


def test_objects_that_numpy_would_unpickle_do_run_when_they_are_let_to(tmp_path: Path) -> None:
    """The attacks above are real ones."""
    np.load(io.BytesIO(of_objects(tmp_path / "made")), allow_pickle=True)["0000"]
    assert (tmp_path / "made").exists()
