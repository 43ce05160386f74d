"""How far something is: a bar on a terminal, now and then a line elsewhere."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from tunelab import progress


def test_elsewhere_a_line_now_and_then(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    text = io.StringIO()
    with progress.shown(Console(file=text, width=40)) as told:
        told.say("Reading [bold]what[/bold] is in a folder whose name is longer than the console is wide ...")
        for done in range(0, 100, 10):
            told.step("scans", done, 100)
            now[0] += progress.LINE_SECONDS / 4
        now[0] += progress.LINE_SECONDS
        told.step("bytes", 3_000_000, 12_000_000_000)
    lines = text.getvalue().splitlines()
    assert lines[0] == "Reading [bold]what[/bold] is in a folder whose name is longer than the console is wide ..."
    assert lines[1:] == ["... 40 of 100 scans", "... 80 of 100 scans", "... 3 MB of 12 GB"]


@pytest.mark.parametrize("steps", [["scans"], ["bytes", "scans"]])
def test_on_a_terminal_a_bar_that_goes_away(steps):
    text = io.StringIO()
    with progress.shown(Console(file=text, force_terminal=True, width=100)) as told:
        for what in steps:
            told.step(what, 0, 40)
            told.step(what, 40, 40)
        told.say("done")
    shown = text.getvalue()
    assert all(what in shown for what in steps)
    assert "40/40" in shown
    assert "done" in shown
