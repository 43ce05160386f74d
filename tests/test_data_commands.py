"""The commands about data sets, as a person types them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import h5py
import numpy as np
import pytest

from tunelab.cli import main
from tunelab.data.synthetic import SyntheticSettings, write_folder

SPACE = """
name: chains
shared:
  preprocessing: {choice: [{}, {samples: 32, background: scan}]}
families:
  simple_rnn: {units: [4], dropout: 0.1, l2: 0.001}
"""


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """A command with a cache of the test's own: exit code and what it printed."""
    write_folder(SyntheticSettings(scans=24, traces=16, samples=64, shortest=0.5, seed=2), tmp_path / "scans")
    (tmp_path / "space.yaml").write_text(SPACE)
    monkeypatch.setenv("TUNELAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)

    def command(line: str) -> tuple[int, str, str]:
        code = main(["data", *line.split()])
        out, error = capsys.readouterr()
        return code, out, error

    return command


def test_prepare_list_use_and_prune(run, tmp_path):
    code, out, _ = run("prepare scans --space space.yaml --workers 1")
    assert code == 0
    assert re.search(r"24 scans, 281 traces x 64 or 32 samples x 4 bytes: .* \(as recorded\) \+ .* to write, ", out)
    assert "24 scans, 281 traces of 64 samples, as recorded; cross-fitted over 5 folds of 20 scans, 4 test scans" in out
    assert "24 scans, 281 traces of 32 samples, 32 samples, background scan; cross-fitted" in out
    code, again, _ = run("prepare scans --space space.yaml --workers 1")
    assert (code, "to write" in again) == (0, False)
    code, out, _ = run("list")
    assert out.count("in use") == 2  # by this very process
    assert f"24 scans x 64 float32, as recorded: {tmp_path / 'scans'}" in out
    assert re.search(r"^2 entries, \d+ kB, in ", out, re.MULTILINE)
    assert run("prune")[2] == "tunelab: data prune: say what to remove: names, --older-than, --keep or --all\n"
    code, out, _ = run("prune --all")
    assert (code, out) == (0, "0 removed, 0 bytes freed\n")


def test_dest_is_the_cache(run, tmp_path):
    code, out, _ = run("prepare scans elsewhere --dtype float16 --resample 48 --seed 3 --workers 1")
    assert code == 0
    assert str(tmp_path / "elsewhere" / "scans-") in out
    assert "traces of 48 samples" in out
    assert "note: stored as float16: samples changed by" in out
    assert not (tmp_path / "cache").exists()
    code, _, error = run("prepare scans one --cache two")
    assert (code, error) == (2, "tunelab: DEST one and --cache two both say where to; give one\n")


def test_check_reads_prepares_verifies_and_draws(run, tmp_path):
    code, out, _ = run("check scans --plot sheet.png --workers 1")
    assert code == 0
    assert "scans         24" in out
    assert "drawn: sheet.png" in out
    assert (tmp_path / "sheet.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    (entry,) = [path for path in (tmp_path / "cache").iterdir() if not path.name.startswith(".")]
    code, prepared, _ = run(f"check {entry}")
    assert (code, prepared) == (0, out.replace("drawn: sheet.png\n", "").split(" ...\n")[1].split("\n", 1)[1])
    assert run(f"check {entry} --resample 32")[0] == 2
    shard = entry / "00003.samples"
    raw = bytearray(shard.read_bytes())
    raw[100] ^= 1
    shard.write_bytes(raw)
    for path in ("scans", str(entry)):
        code, _, error = run(f"check {path}")
        assert code == 7
        assert error.startswith(f"tunelab: {shard}: does not match its digest")


def test_bad_scans_are_listed_with_3_and_can_be_left_out(run, tmp_path):
    path = sorted((tmp_path / "scans").rglob("*.out"))[4]
    path.write_bytes(path.read_bytes()[:1000])
    code, _, error = run("check scans --workers 1")
    assert code == 3
    assert (
        "1 of 24 scans cannot be used (0 may be); correct them, or leave them out with --max-bad 1\n  syn004: " in error
    )
    code, out, _ = run("check scans --workers 1 --max-bad 1")
    assert code == 0
    assert "note: 1 scans are left out because they cannot be used (syn004)" in out


def test_components_of_gprmax(run, tmp_path):
    for path in (tmp_path / "scans").rglob("*.out"):
        with h5py.File(path, "r+") as file:
            ez = file["rxs/rx1/Ez"][...]
            file.create_dataset("rxs/rx2/Hx", data=2 * ez)
    code, out, _ = run("prepare scans --component rx1/Ez --component rx2/Hx --workers 1")
    assert code == 0
    assert "traces of 128 samples" in out
    (entry,) = [path for path in (tmp_path / "cache").iterdir() if not path.name.startswith(".")]
    stored = np.memmap(entry / "00000.samples", "<f4", "r").reshape(-1, 128)
    np.testing.assert_array_equal(stored[:, 64:], 2 * stored[:, :64])
    code, _, error = run("prepare scans --component Ez --workers 1")
    assert code == 2
    assert "Ez" in error


@pytest.mark.parametrize(
    ("line", "code", "message"),
    [
        ("prepare nowhere", 3, "no such folder"),
        ("check scans --resample 1", 2, "resample = 1"),
        ("prepare scans --workers 0", 2, "--workers: 0 is less than 1"),
        ("prepare scans --space scans/labels.csv", 2, "labels.csv"),
        ("prepare scans --cache-limit 1kB --workers 1", 5, "is more than the limit of 1 kB"),
        ("prepare scans --seed -1 --workers 1", 2, "--seed: -1 is less than zero"),
        ("check scans --plot sheet.jpg", 2, "--plot: sheet.jpg: write a file name that ends with .png"),
        ("prune none", 2, "'none' means no entry of the cache"),
        ("prepare s3://", 2, "no bucket name"),
    ],
)
def test_errors(run, line, code, message):
    found, _, error = run(line)
    assert (found, message in error) == (code, True), error


def test_a_prepared_shard_can_be_read_as_the_documents_say(run, tmp_path, monkeypatch):
    text = (Path(__file__).resolve().parents[1] / "docs" / "data.md").read_text()
    (line,) = [line for line in text.splitlines() if line.startswith("samples = np.memmap(")]
    run("prepare scans --workers 1")
    (entry,) = [path for path in (tmp_path / "cache").iterdir() if not path.name.startswith(".")]
    monkeypatch.chdir(entry)
    found: dict[str, np.ndarray] = {"np": np}
    exec(line.replace("10057", "64"), found)
    columns = json.loads((entry / "manifest.json").read_text())["scans"]
    first = found["samples"][columns["row"][0] : columns["row"][0] + columns["traces"][0]]
    with h5py.File(tmp_path / "scans" / columns["file"][0]) as file:
        np.testing.assert_array_equal(first, file["rxs/rx1/Ez"][...].T)
