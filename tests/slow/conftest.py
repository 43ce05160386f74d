"""The long loops: their options, their evidence, and the data sets that they share.

``pytest -m slow --seed 0 --minutes 30``; without ``-m slow`` they are left out.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
sys.path.append(str(HERE))  # the modules that the loops share

from evidence import Loop, read, summary  # noqa: E402
from runs import Scans  # noqa: E402

EVIDENCE = HERE.parents[1] / ".evidence" / "slow.jsonl"


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("slow", "the long loops (-m slow)")
    group.addoption("--seed", type=int, default=0, help="of what is drawn")
    group.addoption("--count", type=int, default=None, help="rounds of each loop (default: its own number)")
    group.addoption("--evidence", type=Path, default=EVIDENCE, help=f"file of JSON lines (default: {EVIDENCE.name})")
    group.addoption("--minutes", type=float, default=None, help="begin no round after so many, in all")


def pytest_sessionstart(session: pytest.Session) -> None:
    session.config.stash[BEGUN] = time.monotonic()


BEGUN = pytest.StashKey[float]()
USED = pytest.StashKey[Path]()


@pytest.fixture
def loop(request: pytest.FixtureRequest) -> Callable[[str, int, int], Loop]:
    """Makes a loop of a name, a version and a number of rounds."""
    config = request.config
    begun = config.stash.get(BEGUN, time.monotonic())
    minutes = config.getoption("minutes", None)

    def make(name: str, version: int, count: int) -> Loop:
        path = config.getoption("evidence", EVIDENCE).absolute()
        config.stash[USED] = path
        return Loop(
            name=name,
            version=version,
            seed=config.getoption("seed", 0),
            count=config.getoption("count", None) or count,
            path=path,
            deadline=None if minutes is None else begun + 60 * minutes,
        )

    return make


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if (path := config.stash.get(USED, None)) is not None:
        terminalreporter.section(f"evidence in {path}")
        for line in summary(read(path)):
            terminalreporter.line(line)


@pytest.fixture(scope="session")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Scans:
    """Folders of scans with splits of their own, and without, so that they are dealt to folds."""
    return Scans.write(tmp_path_factory.mktemp("scans"))
