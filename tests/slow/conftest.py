"""The long loops: their evidence, and the data sets that they share; their options are in tests/conftest.py.

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

BEGUN = time.monotonic()
"""When this file was loaded: before the first loop."""
USED = pytest.StashKey[Path]()


@pytest.fixture
def loop(request: pytest.FixtureRequest) -> Callable[[str, int, int], Loop]:
    """Makes a loop of a name, a version and a number of rounds."""
    config = request.config
    minutes = config.getoption("minutes")

    def make(name: str, version: int, count: int) -> Loop:
        path = config.getoption("evidence").absolute()
        config.stash[USED] = path
        return Loop(
            name=name,
            version=version,
            seed=config.getoption("seed"),
            count=config.getoption("count") or count,
            path=path,
            deadline=None if minutes is None else BEGUN + 60 * minutes,
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
