"""What machines cost: prices of the environment, what the journal is told, and what that comes to."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tunelab.errors import StateError, UsageError
from tunelab.journal import Journal
from tunelab.spending import HOUR, PRICES, Spending, check_max_cost, prices_here
from tunelab.tuning import cost
from tunelab.tuning.budget import Budget
from tunelab.tuning.cost import Meter, rate

OF = {"head": 0.2, "spot": 0.5}


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    with_it = Journal.open(tmp_path / "journal.jsonl")
    with_it.append("session")
    yield with_it
    with_it.close()


def record(clock: float, kind: str, **fields: Any) -> dict[str, Any]:
    return {"clock": clock, "kind": kind, **fields}


def dollars(*records: dict[str, Any], clock: float | None = None) -> float:
    return Spending(records).dollars(clock)


def test_money_is_price_times_time_between_changes() -> None:
    run = [record(0, "run"), record(1, "session"), record(11, "machines", dollars=3600.0)]
    assert dollars(*run) == 0
    assert dollars(*run, clock=16) == 5
    more = [*run, record(21, "machines", dollars=7200.0)]
    assert dollars(*more) == 10
    assert dollars(*more, clock=22) == 12
    assert dollars(*more, record(23, "machines", dollars=0.0), clock=1000) == 14
    assert dollars(clock=50) == 0


def test_a_killed_session_counts_to_its_newest_record_and_the_next_begins_at_nothing() -> None:
    first = [record(0, "session"), record(0, "machines", dollars=3600.0), record(60, "note", trial="0001")]
    assert dollars(*first) == 60
    second = [*first, record(5, "session")]
    assert dollars(*second, clock=90) == 60, "nobody looked yet"
    assert dollars(*second, record(10, "machines", dollars=3600.0), clock=13) == 63


@pytest.mark.parametrize(
    "fields", [{}, {"dollars": "x"}, {"dollars": -1}, {"dollars": float("nan")}, {"dollars": None}]
)
def test_a_rate_that_is_none_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(StateError, match=r"journal: record 7 \(machines\): .*; restore the journal from a copy"):
        Spending([{"seq": 7, "clock": 0, "kind": "machines", **fields}])


def test_an_hour_of_what_is_there() -> None:
    assert rate({}, OF) == 0
    assert rate({"head": 1, "spot": 3}, OF) == pytest.approx(1.7)
    assert rate({"head": 1, "": 2}, OF) == pytest.approx(1.2), "what is not known counts as the dearest"


def test_the_journal_is_told_of_changes_alone(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    there, looks = {"head": 1}, []

    def machines() -> dict[str, int]:
        looks.append(1)
        return there

    meter = Meter(journal, OF, machines)
    meter.look()
    meter.look()
    assert len(looks) == 1, "a look was a moment ago"
    monkeypatch.setattr(cost, "LOOK_SECONDS", 0.0)
    meter.look()
    there["spot"] = 2
    meter.look()
    meter.look()
    told = [(r["there"], r["dollars"]) for r in journal.records if r["kind"] == "machines"]
    assert told == [({"head": 1}, 0.2), ({"head": 1, "spot": 2}, pytest.approx(1.2))]
    assert len(looks) == 4


def test_money_ends_a_search_and_stays_spent(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cost, "LOOK_SECONDS", 0.0)
    meter = Meter(journal, {"head": 0.1 * HOUR}, lambda: {"head": 1})  # ten cents a second
    limits: dict[str, Any] = {"trials": None, "seconds": None, "gpu_hours": None, "begun": time.monotonic()}
    budget = Budget(journal, max_cost=0.01, meter=meter, **limits)
    free = Budget(journal, meter=meter, **limits)
    assert not budget.used()
    until = time.monotonic() + 30
    while not budget.used():
        assert time.monotonic() < until
    assert 0.01 <= budget.cost() < 3
    assert budget.cause() == "the maximum cost was reached"
    assert not free.used(), "without a limit nothing is ever used"
    assert free.cost() == pytest.approx(budget.cost(), abs=1)
    assert free.cause() == "the time was over"


def test_prices_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(PRICES, raising=False)
    assert prices_here() == {}
    monkeypatch.setenv(PRICES, " ")
    assert prices_here() == {}
    monkeypatch.setenv(PRICES, json.dumps(OF))
    assert prices_here() == OF
    for said in ("x", "[]", "3", '{"a": "b"}', '{"a": -1}', '{"a": NaN}', '{"a": null}'):
        monkeypatch.setenv(PRICES, said)
        with pytest.raises(UsageError, match=r'TUNELAB_PRICES: .*: write such as \{"head": 0\.192'):
            prices_here()


@pytest.mark.parametrize("said", ["", '{"head": 0}'])
def test_a_limit_without_prices_is_refused(monkeypatch: pytest.MonkeyPatch, said: str) -> None:
    monkeypatch.setenv(PRICES, said)
    check_max_cost(None)
    with pytest.raises(UsageError) as told:
        check_max_cost(5)
    assert str(told.value) == (
        "--max-cost: 5: what the machines here cost is not known; it comes along with a search that is handed over to "
        'a cluster. Use --time-budget, or set TUNELAB_PRICES=\'{"head": 0.192, "gpu_spot": 0.16}\' with your node '
        "types and US dollars an hour (tunelab resume --max-cost 0 takes the limit away)"
    )
    monkeypatch.setenv(PRICES, '{"head": 0.1}')
    check_max_cost(5)
