"""The document at the end of a run, or in its midst: leaderboard, configurations, report as JSON and as a page.

Made from ``run.yaml`` and ``journal.jsonl`` alone; Ray's files and pickles are never opened. The same two files give
the same report, byte for byte.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tunelab.files import write_file
from tunelab.report.facts import read_facts

FILES = ("leaderboard.csv", "best_config.yaml", "report.json", "report.html")
"""What :func:`write_report` writes into a run's folder; beside them the folder ``front`` where there is a front."""


def write_report(run: Path) -> dict[str, Any]:
    """Write :data:`FILES` into a run's folder, and a configuration for each trial of the front.

    The run may still go on, have no trial, or failed ones only; without a winner there is no ``best_config.yaml``, and
    one of an earlier report is removed. Each file is replaced as a whole.

    Args:
        run: the run's folder.

    Returns:
        The content of ``report.json``.

    Raises:
        StateError: there is no run there, or its files are damaged.
        StorageError: a file could not be written.
    """
    # Drawing and tables are slow to import, and a search that only starts does without them.
    from tunelab.report.best_config import best_config_yaml, front_config_yaml
    from tunelab.report.front import write_front
    from tunelab.report.html import report_html
    from tunelab.report.leaderboard import leaderboard_csv
    from tunelab.report.summary import summary

    facts = read_facts(run)
    content = summary(facts)
    write_file(run / "leaderboard.csv", leaderboard_csv(facts))
    if facts.board.best:
        write_file(run / "best_config.yaml", best_config_yaml(facts, facts.board.best).encode())
    else:
        (run / "best_config.yaml").unlink(missing_ok=True)
    write_front(run, {trial.trial: front_config_yaml(facts, trial) for trial in facts.front})
    write_file(run / "report.html", report_html(facts).encode())
    write_file(run / "report.json", json.dumps(content, indent=2, allow_nan=False).encode() + b"\n")
    return content
