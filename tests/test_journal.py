from __future__ import annotations

import hashlib
import json
import math
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunelab import journal as module
from tunelab.errors import RunBusyError, StateError, StorageError
from tunelab.journal import Journal, read

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run" / "journal.jsonl"


def fill(path: Path, lines: int) -> list[dict]:
    journal = Journal.open(path)
    for i in range(lines):
        journal.append("result", trial=f"{i:04d}", note="µ\n\u2028")
    journal.close()
    return journal.records


def test_what_comes_after_known_records_is_parsed_by_itself(path):
    records = fill(path, 5)
    raw = path.read_bytes()
    first = raw.index(b"\n", raw.index(b"\n") + 1) + 1
    assert module.parse(raw[first:], path, known=2) == (records[2:], len(raw) - first)
    assert module.parse(raw[first:-3], path, known=2)[0] == records[2:4]
    with pytest.raises(StateError, match="line 4: has sequence number 2, not 3"):
        module.parse(raw[first:], path, known=3)
    with pytest.raises(StateError, match="line 4: does not match its digest"):
        module.parse(raw[first:].replace(b'"0003"', b'"0013"'), path, known=2)


@settings(deadline=None)
@given(st.lists(st.dictionaries(st.sampled_from(["trial", "metrics", "params", "cause"]), PLAIN), max_size=4))
def test_what_was_appended_is_read_back_in_order(tmp_path_factory, entries):
    path = tmp_path_factory.mktemp("journal") / "journal.jsonl"
    journal = Journal.open(path)
    for entry in entries:
        journal.append("result", **entry)
    journal.close()
    found = read(path)
    assert found == journal.records
    assert [record["seq"] for record in found] == list(range(len(entries)))
    again = Journal.open(path)
    again.close()
    assert again.records == found


def test_a_line_is_json_with_a_digest_of_everything_else(path):
    fill(path, 2)
    for line in path.read_bytes().splitlines():
        record = json.loads(line)
        digest = record.pop("digest")
        plain = json.dumps(record, separators=(",", ":")).encode() + b"\n"
        assert digest == hashlib.sha256(plain).hexdigest()[:16]
        assert list(record)[:4] == ["seq", "time", "clock", "kind"]


def test_a_line_is_on_disk_before_append_returns(path, monkeypatch):
    journal = Journal.open(path)
    seen = []
    real = os.fsync

    def record(number):
        seen.append(path.read_bytes())
        real(number)

    monkeypatch.setattr(os, "fsync", record)
    told = journal.append("result", trial="0001")
    assert len(seen) == 1
    assert json.loads(seen[0]) == told
    journal.close()


def test_the_name_of_a_new_journal_is_on_disk_too(path, monkeypatch):
    synced = []
    monkeypatch.setattr(os, "fsync", lambda number: synced.append(os.readlink(f"/proc/self/fd/{number}")))
    Journal.open(path).close()
    assert str(path.parent) in synced


def test_undefined_and_numpy_values_become_plain_json(path):
    journal = Journal.open(path)
    values = {"a": math.nan, "b": math.inf, "c": np.float32(0.5), "d": np.int64(3), "e": (1, -math.inf), 4: np.True_}
    journal.append("result", metrics=values)
    journal.close()
    assert read(path)[0]["metrics"] == {"a": None, "b": None, "c": 0.5, "d": 3, "e": [1, None], "4": True}
    assert math.isnan(values["a"])
    assert values["e"] == (1, -math.inf)


def test_a_last_line_torn_at_any_byte_is_cut_off_and_writing_goes_on(path):
    kept = fill(path, 3)
    whole = path.read_bytes()
    start = whole.rindex(b"\n", 0, len(whole) - 1) + 1
    for end in range(start, len(whole)):
        path.write_bytes(whole[:end])
        assert read(path) == kept[:2]
        assert path.read_bytes() == whole[:end]  # reading changes nothing
        journal = Journal.open(path)
        assert journal.records == kept[:2]
        assert path.read_bytes() == whole[:start]
        journal.append("close", status="done")
        journal.close()
        found = read(path)
        assert found[:2] == kept[:2]
        assert [(record["seq"], record["kind"]) for record in found[2:]] == [(2, "close")]


def test_zeros_after_a_power_cut_are_a_torn_line_too(path):
    kept = fill(path, 2)
    with path.open("ab") as file:
        file.write(b"\0" * 500)
    journal = Journal.open(path)
    assert journal.records == kept
    journal.close()


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        (b"{ no json\n", "is no JSON"),
        (b"\n", "is no JSON"),
        (b"\xff\xfe\n", "is no JSON"),
        (b"[" * 100_000 + b"\n", "is no JSON"),
        (b'{"seq":1,"loss":NaN,"digest":"0"}\n', "is no JSON"),
        (b'{"seq":1,"digest":"0000000000000000"}\n', "does not match its digest"),
        (b'{"seq":1}\n', "does not match its digest"),
        (b"[1, 2]\n", "does not match its digest"),
    ],
)
@pytest.mark.parametrize("behind", [True, False])
def test_a_damaged_line_is_named_and_nothing_is_changed(path, line, fault, behind):
    fill(path, 3)
    lines = path.read_bytes().splitlines(keepends=True)
    lines[1] = line
    damaged = b"".join(lines if behind else lines[:2])
    path.write_bytes(damaged)
    for attempt in (read, Journal.open, Journal.open):  # a failed opening holds no lock
        with pytest.raises(StateError) as caught:
            attempt(path)
        assert str(caught.value) == f"{path}: line 2: {fault}; restore the file from a copy"
        assert caught.value.exit_code == 7
    assert path.read_bytes() == damaged


def test_any_flipped_bit_before_the_last_line_is_noticed(path):
    fill(path, 3)
    whole = path.read_bytes()
    first, second = whole.index(b"\n") + 1, whole.index(b"\n", whole.index(b"\n") + 1)
    for i in range(first, second + 1):
        path.write_bytes(whole[:i] + bytes([whole[i] ^ 1]) + whole[i + 1 :])
        with pytest.raises(StateError, match=r"line 2: "):
            read(path)


def test_lines_that_are_missing_doubled_or_swapped_are_noticed(path):
    fill(path, 3)
    one, two, three = path.read_bytes().splitlines(keepends=True)
    for lines, message in [
        ([one, three], "line 2: has sequence number 2, not 1"),
        ([one, two, two], "line 3: has sequence number 1, not 2"),
        ([two, one, three], "line 1: has sequence number 1, not 0"),
    ]:
        path.write_bytes(b"".join(lines))
        with pytest.raises(StateError, match=message):
            read(path)


def test_the_order_is_that_of_the_sequence_even_when_the_clock_goes_back(path, monkeypatch):
    journal = Journal.open(path)
    for now in (1000.0, 500.0):
        monkeypatch.setattr(module.time, "time", lambda now=now: now)
        journal.append("result", trial="0001")
    journal.close()
    assert [(r["seq"], r["time"]) for r in read(path)] == [(0, 1000.0), (1, 500.0)]


def test_a_journal_that_is_not_there(path):
    with pytest.raises(StateError, match=r"no journal \(No such file or directory\); name the folder of a run"):
        read(path)


HOLDER = """
import sys, time
from pathlib import Path
from tunelab.journal import Journal
journal = Journal.open(Path(sys.argv[1]))
journal.append("run", name="held")
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def holder(path):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def test_a_second_process_is_told_who_holds_the_run_until_the_holder_dies(path, holder):
    with pytest.raises(RunBusyError) as caught:
        Journal.open(path)
    assert str(caught.value).startswith(f"{path.parent}: held by process {holder.pid} on ")
    assert str(caught.value).endswith("; wait for it, or give another --name")
    assert caught.value.exit_code == 6
    assert read(path)[0]["name"] == "held"  # readers wait for nobody
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    journal = Journal.open(path)
    journal.append("run", name="taken over")
    journal.close()
    assert [r["name"] for r in read(path)] == ["held", "taken over"]


def test_the_same_process_cannot_open_a_journal_twice_but_again_after_closing(path):
    journal = Journal.open(path)
    with pytest.raises(RunBusyError, match=f"held by process {os.getpid()} on"):
        Journal.open(path)
    journal.close()
    Journal.open(path).close()


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError) as caught:
        Journal.open(tmp_path / "file" / "journal.jsonl")
    assert caught.value.exit_code == 5
    assert "journal.jsonl: cannot be written: " in str(caught.value)
    assert str(caught.value).endswith("; choose another --storage")


def test_a_disk_that_is_full_in_the_middle_of_a_line_tears_nothing(path):
    journal = Journal.open(path)
    journal.append("result", trial="0001")
    before = path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 20, limits[1]))
    try:
        with pytest.raises(StorageError, match=r"cannot be written: File too large; free space and run again"):
            journal.append("result", trial="0002")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == before
    journal.append("result", trial="0003")
    journal.close()
    assert [r["trial"] for r in read(path)] == ["0001", "0003"]
