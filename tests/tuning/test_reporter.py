"""The live leaderboard: plain lines without a terminal, a ranked table at the end, nothing that steers a terminal."""

from __future__ import annotations

import io
import re
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from tunelab.aims import Aims
from tunelab.tuning.record import Recorder
from tunelab.tuning.reporter import Goal, Reporter, clock, number


@pytest.fixture
def recorder(tmp_path: Path, recorder_in: Callable[[Path], Recorder]) -> Recorder:
    return recorder_in(tmp_path)


def report(recorder: Recorder, *, terminal: bool, width: int = 150, name: str = "") -> str:
    out = io.StringIO()
    console = Console(file=out, force_terminal=terminal, width=width, height=60, legacy_windows=False)
    columns = ("l2", "units", "convolutions.0.filters")
    goal = Goal(trials=4, seconds=90.0, begun=time.monotonic(), always_positive_f1=0.212, columns=columns)
    with Reporter(recorder.board, goal, console) as reporter:
        recorder.listeners.append(reporter.told)
        for trial, f1, dense in (("0001", 0.3, 0.4), ("0002", 0.6, 0.5), ("0003", float("nan"), 0.1)):
            point = {"l2": 0.001 * int(trial), "units": [8]}
            recorder.suggestion(trial, name, 0, {"family": "lstm", **point}, point)
            metrics = {"tune_average_precision": dense, "val_f1": f1, "val_average_precision": dense}
            told = {
                "fold": 0,
                "epoch": 1,
                "seconds": 1.0,
                "parameters": 9,
                "weights": "",
                "checkpoint": "",
                "ended": "",
            }
            recorder.result(trial, {**told, "metrics": metrics})
            recorder.end(trial, "finished")
        recorder.suggestion("0004", "", 0, {"family": "lstm"}, {})
        recorder.end("0004", "failed", "no memory")
    return out.getvalue()


def test_plain_lines_and_a_last_table(recorder: Recorder) -> None:
    said = report(recorder, terminal=False)
    assert "\x1b" not in said
    lines = said.splitlines()
    assert "leads: trial 0001 lstm epoch 1/1 F1 0.300 average precision 0.400" in lines[0]
    assert lines[0].startswith("[0/4 trials, 0:00 of 1:30]")
    assert any("failed: trial 0004 lstm (no memory)" in line for line in lines)
    ranked = [line for line in lines if "│ 000" in line]
    assert [re.findall(r"\b000\d\b", line)[0] for line in ranked] == ["0002", "0001", "0003"]
    assert "l2=0.002" in ranked[0]
    assert "units" not in ranked[0], "a dimension that never varied is no news"
    assert "always answering positive: F1 0.212 on the validation split; 1 failed" in said


def test_trials_that_break_a_constraint_are_marked_rank_below_and_never_lead(recorder: Recorder) -> None:
    recorder.board.aims = Aims.of({"constraints": ["average_precision <= 0.45"]})
    lines = report(recorder, terminal=False).splitlines()
    assert [line for line in lines if "leads: trial 0002" in line] == []
    ranked = [line for line in lines if "│ 000" in line]
    assert [re.findall(r"\b000\d\b", line)[0] for line in ranked] == ["0001", "0003", "0002"]
    assert ["†" in line for line in ranked] == [False, False, True]
    below = " ".join(line.strip() for line in lines[lines.index(ranked[-1]) :])
    assert "† breaks a constraint (average_precision <= 0.45), ranked below those that break none" in below


def test_gpu_hours_are_told_where_they_are_limited(recorder: Recorder) -> None:
    out = io.StringIO()
    goal = Goal(
        trials=4, seconds=None, begun=time.monotonic(), always_positive_f1=0.2, columns=(), gpu_hours=2.5,
        spent=lambda: 0.123,
    )  # fmt: skip
    with Reporter(recorder.board, goal, Console(file=out, width=150)) as reporter:
        recorder.listeners.append(reporter.told)
        recorder.suggestion("0001", "", 0, {"family": "lstm"}, {})
        recorder.started("0001", 1.0)
        recorder.end("0001", "failed", "no memory")
    lines = out.getvalue().splitlines()
    assert lines[0].startswith("[1/4 trials, 0:00, 0.12 of 2.5 GPU-hours] failed: trial 0001")
    assert lines[1].startswith("1/4 trials, 0:00, 0.12 of 2.5 GPU-hours, 0 running")


def test_money_is_told_where_it_is_limited(recorder: Recorder) -> None:
    out = io.StringIO()
    goal = Goal(
        trials=4, seconds=None, begun=time.monotonic(), always_positive_f1=0.2, columns=(), max_cost=2.5,
        cost=lambda: 0.123,
    )  # fmt: skip
    with Reporter(recorder.board, goal, Console(file=out, width=150)):
        pass
    assert out.getvalue().splitlines()[0].startswith("0/4 trials, 0:00, 0.12 of 2.5 US dollars, 0 running")


def test_a_terminal_gets_a_table_that_is_drawn_anew(recorder: Recorder) -> None:
    said = report(recorder, terminal=True)
    assert "\x1b[" in said
    assert "0.600" in said
    assert "leads:" not in said


@pytest.mark.parametrize("width", [60, 80, 200])
def test_a_row_is_a_line_at_any_width(recorder: Recorder, width: int) -> None:
    lines = report(recorder, terminal=False, width=width).splitlines()
    table = lines[next(i for i, line in enumerate(lines) if line.startswith("┏")) :]
    assert sum(line.startswith("│") for line in table) == 3
    assert max(map(len, table[: table.index(next(x for x in table if x.startswith("└")))])) <= width


def test_names_cannot_steer_the_terminal(recorder: Recorder) -> None:
    said = report(recorder, terminal=False, name="\x1b[2J[bold]evil")
    assert "\x1b" not in said
    assert "[bold]evil" in said


def test_times_and_numbers() -> None:
    assert [clock(s) for s in (7.9, 187, 3787)] == ["0:07", "3:07", "1:03:07"]
    assert number(float("nan")) == "–"  # noqa: RUF001
    assert number(0.12345) == "0.123"


def test_trials_may_be_added_while_the_table_is_drawn(recorder: Recorder) -> None:
    """The terminal's table is drawn by a thread of its own; here a trial comes between two others."""
    for trial in ("0001", "0002"):
        recorder.suggestion(trial, "", 0, {"family": "lstm"}, {})
    drawn = []
    for trial in recorder.board.snapshot():
        drawn.append(trial.trial)
        recorder.suggestion(f"1{trial.trial}", "", 0, {"family": "lstm"}, {})
    assert drawn == ["0001", "0002"]
    assert len(recorder.board.snapshot()) == 4


def test_the_table_takes_a_small_share_of_the_time(recorder: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it takes 2 s to make, it is made once in 40 s, and once more in the end."""
    now, made = [0.0], []
    monkeypatch.setattr("tunelab.tuning.reporter.time", SimpleNamespace(monotonic=lambda: now[0]))
    out = io.StringIO()
    goal = Goal(trials=4, seconds=None, begun=0.0, always_positive_f1=0.2, columns=())
    reporter = Reporter(recorder.board, goal, Console(file=out, force_terminal=True, width=150))
    render = reporter._render

    def slow() -> Any:
        now[0] += 2.0
        made.append(now[0])
        return render()

    monkeypatch.setattr(reporter, "_render", slow)
    for _ in range(200):
        reporter._table()
        now[0] += 0.5
    assert made == pytest.approx([2.0 + 42.5 * turn for turn in range(3)], abs=1.0)
    with reporter:
        recorder.suggestion("0001", "", 0, {"family": "lstm"}, {})
        recorder.suggestion("0002", "", 0, {"family": "lstm"}, {})
        recorder.started("0001", 0.0)
    assert "1 running, 1 to begin" in out.getvalue()


def test_without_a_terminal_the_table_comes_every_five_minutes(
    recorder: Recorder, monkeypatch: pytest.MonkeyPatch, told: Callable[..., dict[str, object]]
) -> None:
    now = [0.0]
    monkeypatch.setattr("tunelab.tuning.reporter.time", SimpleNamespace(monotonic=lambda: now[0]))
    out = io.StringIO()
    goal = Goal(trials=None, seconds=None, begun=0.0, always_positive_f1=0.2, columns=())
    with Reporter(recorder.board, goal, Console(file=out, width=150)) as reporter:
        recorder.listeners.append(reporter.told)
        recorder.suggestion("0001", "", 0, {"family": "lstm"}, {})
        for minute in range(1, 12):
            now[0] = 60.0 * minute
            recorder.result("0001", told(minute, val_f1=0.5, tune_average_precision=0.5))
        tables = [line for line in out.getvalue().splitlines() if line.rstrip().endswith("1 running")]
    assert [line.rstrip() for line in tables] == ["0 trials, 6:00, 1 running"]


def test_trials_at_a_lower_fidelity_are_shown_as_such(
    recorder: Recorder, told: Callable[..., dict[str, object]]
) -> None:
    out = io.StringIO()
    goal = Goal(trials=2, seconds=None, begun=time.monotonic(), always_positive_f1=0.2, columns=())
    with Reporter(recorder.board, goal, Console(file=out, force_terminal=False, width=150)) as reporter:
        recorder.listeners.append(reporter.told)
        low, params = {"data": 0.1}, {"family": "lstm"}
        for trial, f1, at, of in (("0001", 0.9, low, ""), ("0002", 0.8, low, ""), ("0003", 0.4, {}, "0001")):
            recorder.suggestion(trial, "", 0, params, {}, fidelity=at, of=of)
            recorder.result(trial, told(1, val_f1=f1, tune_average_precision=f1))
            recorder.end(trial, "finished")
    lines = out.getvalue().splitlines()
    assert any("finished: trial 0002" in line and line.endswith("at 10 % of the data") for line in lines)
    assert [line for line in lines if "leads" in line] == [line for line in lines if "leads: trial 0003" in line]
    assert any(line.startswith("[2/2 trials and 1 again at a higher fidelity, 0:0") for line in lines)
    rows = [re.sub(r"\s+", " ", line) for line in lines if "│ 000" in line]
    assert [re.findall(r"\b000\d\b", row)[0] for row in rows] == ["0003", "0001", "0002"]
    assert "0.400 │" in rows[0]
    assert "│ finished │" in rows[0]
    assert "0.900~ │" in rows[1]
    assert "│ finished at 10 % of the data │" in rows[1]
    assert "~ at a lower fidelity, ranked below those trained in full" in out.getvalue()
