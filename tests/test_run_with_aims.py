"""A search with several objectives and a constraint, to its report; and what becomes of it when they change."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from quick_run import QuickRun, check_run

from tunelab.cli import main
from tunelab.configuration import load_configuration

pytestmark = pytest.mark.ray

SPACE = """
name: aimed
epochs: {max: 4, patience: 9}
early_stopping: {grace: 4, reduction: 2}
objectives: [f1, -parameters]
constraints: [predict_ms <= 3]
start_from:
  - {name: large, family: simple_rnn, units: [40], dropout: 0.1, l2: 1e-4, learning_rate: 0.5}
  - {name: small, family: simple_rnn, units: [2], dropout: 0.1, l2: 1e-4, learning_rate: 0.1}
  - {name: twin, family: simple_rnn, units: [2], dropout: 0.2, l2: 1e-4, learning_rate: 0.3}
  - {name: middle, family: simple_rnn, units: [12], dropout: 0.1, l2: 1e-4, learning_rate: 1.0}
"""


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> QuickRun:
    """A search that came to its end; the weights of one trial are kept, and those of the front."""
    run = QuickRun(folder=tmp_path_factory.mktemp("aims")).search("--keep", "1", space=SPACE)
    assert run.end() == 0, run.said
    return run


def report(run: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((run / "report.json").read_text())
    return content


def test_the_report_has_a_front_and_what_breaks_the_constraint_is_not_on_it(done: QuickRun) -> None:
    check_run(done.run)
    content = report(done.run)
    by_name = {record["name"]: record["trial"] for record in done.records() if record["kind"] == "suggestion"}
    told = {r["trial"]: r for r in done.records() if r["kind"] == "result"}
    for name in by_name:
        taken = told[by_name[name]]
        assert taken["metrics"]["predict_ms"] == taken["parameters"] / 1000
        assert (taken["metrics"]["predict_ms"] > 3) == (name == "large")
    assert content["breaking"] == 1
    assert content["best"]["name"] != "large"
    front = {one["name"]: one for one in content["front"]}
    assert content["best"]["name"] in front
    assert "large" not in front
    assert front.keys() & {"small", "twin"}, "the smallest are beaten by each other alone"
    assert [one["name"] for one in content["front"] if one["tested"]] == [content["best"]["name"]]
    for one in front.values():
        config = load_configuration(done.run / one["config"])
        assert config.params["family"] == "simple_rnn"
        assert list((done.run / "weights").glob(f"{one['trial']}-e*.npz")), "its weights are kept"
    assert {path.stem for path in (done.run / "front").iterdir()} == {one["trial"] for one in front.values()}
    kept = {path.name.partition("-")[0] for path in (done.run / "weights").iterdir()}
    assert kept == {one["trial"] for one in front.values()}
    assert f"On the front of f1, -parameters: {len(front)} trial" in done.said
    assert f"Configurations of the front: {done.run / 'front'}" in done.said
    assert "† breaks a constraint (predict_ms <= 3), ranked below" in " ".join(done.said.split())


def test_status_tells_the_aims(done: QuickRun, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", str(done.run)]) == 0
    said = capsys.readouterr().out.splitlines()
    assert "Constraints: predict_ms <= 3: 3 of 4 ranked trials keep them" in said
    front = ", ".join(one["trial"] for one in report(done.run)["front"])
    assert f"Front of f1, -parameters: {front}" in said


def test_other_constraints_are_another_space_and_rank_anew(done: QuickRun, capsys: pytest.CaptureFixture[str]) -> None:
    space = done.folder / "space.yaml"
    space.write_text(SPACE.replace("predict_ms <= 3", "parameters <= 1"))
    whole = done.journal.read_bytes()
    assert main(["resume", str(done.run), "--local"]) == 7
    said = capsys.readouterr().err
    assert 'space: constraints: ["predict_ms <= 3"] -> ["parameters <= 1"]' in said
    assert "--accept-changes goes on (trials of before stay on the leaderboard" in said
    space.write_text(SPACE.replace("objectives: [f1, -parameters]", "objectives: [f1, -predict_ms]"))
    assert main(["resume", str(done.run), "--local"]) == 7
    assert 'space: objectives: ["f1", "-parameters"] -> ["f1", "-predict_ms"]' in capsys.readouterr().err
    assert done.journal.read_bytes() == whole

    space.write_text(SPACE.replace("predict_ms <= 3", "parameters <= 1"))
    assert done.resume("--accept-changes").end() == 4, done.said
    assert "no trial of this search keeps the constraints; loosen them; report: " in done.said
    assert "4 x parameters <= 1 is broken" in done.said
    content = report(done.run)
    assert content["best"] is None
    assert content["front"] == []
    assert "Nearest comes trial" in content["verdict"]
    assert not (done.run / "best_config.yaml").exists()
    assert not (done.run / "front").exists()
