"""When a search is given up since all fails alike: told from records, as a journal has them."""

from __future__ import annotations

from typing import Any

import pytest

from tunelab.tuning.in_vain import LEAST, InVain, alike

CAUSE = "the trial asked for 1 GPU and tensorflow sees none"


def begun(*trials: int) -> list[dict[str, Any]]:
    return [{"kind": kind, "trial": f"{one:04d}", "gpus": 1.0} for one in trials for kind in ("suggestion", "start")]


def failed(*trials: int, cause: str = CAUSE) -> list[dict[str, Any]]:
    return [{"kind": "end", "trial": f"{one:04d}", "status": "failed", "cause": cause} for one in trials]


def result(trial: int) -> dict[str, Any]:
    return {"kind": "result", "trial": f"{trial:04d}", "epoch": 1}


def one_after_another(*trials: int, **given: Any) -> list[dict[str, Any]]:
    return [record for one in trials for record in [*begun(one), *failed(one, **given)]]


FIRST = range(1, LEAST + 1)


def test_so_many_in_a_row_failed_alike() -> None:
    one = InVain()
    for record in one_after_another(*FIRST[:-1]):
        one.apply(record)
        assert (one.doubtful, one.trials) == (False, 0)
    for record in one_after_another(FIRST[-1]):
        one.apply(record)
    assert (one.doubtful, one.trials) == (True, LEAST)


@pytest.mark.parametrize("kind", ["result", "fold"])
@pytest.mark.parametrize("place", [2, 5, 3 * LEAST])
def test_one_result_is_hope(kind: str, place: int) -> None:
    records = one_after_another(*FIRST)
    records.insert(place, {**result(1), "kind": kind})
    one = InVain([*records, *one_after_another(*range(20, 40))])
    assert (one.doubtful, one.trials) == (False, 0)


def test_another_cause_begins_another_row() -> None:
    records = one_after_another(*FIRST[1:])
    odd = one_after_another(1, cause="ValueError: odd")
    assert InVain([*odd, *records]).trials == 0
    assert InVain([*records[:-3], *odd, *records[-3:]]).trials == 0
    assert InVain([*odd, *records, *one_after_another(20)]).trials == LEAST


def test_trials_that_train_are_waited_for_and_no_other_is_begun() -> None:
    """On another machine than those that fail."""
    records = [*begun(1), *one_after_another(*range(2, LEAST + 2))]
    waits = InVain(records)
    assert (waits.doubtful, waits.trials) == (True, 0)
    assert InVain([*records, *failed(1)]).trials == LEAST + 1
    hope = InVain([*records, result(1)])
    assert (hope.doubtful, hope.trials) == (False, 0)
    other = InVain([*records, *failed(1, cause="ValueError: odd")])
    assert (other.doubtful, other.trials) == (False, 0)


def test_what_was_only_made_ready_is_not_waited_for() -> None:
    """A trial may wait for a machine that comes in minutes, or never."""
    ready = [{"kind": "suggestion", "trial": "0099"}]
    assert InVain([*ready, *one_after_another(*FIRST)]).trials == LEAST


def test_a_session_counts_anew() -> None:
    before = [*begun(50), *one_after_another(*FIRST), {"kind": "session"}]
    one = InVain(before)
    assert (one.doubtful, one.trials) == (False, 0)
    assert InVain([*before, *one_after_another(*FIRST)]).trials == LEAST
    told = [*begun(1), result(1), {"kind": "session"}, *one_after_another(*FIRST)]
    assert InVain(told).trials == LEAST, "results of before are no hope"


def test_other_ends_are_no_failures() -> None:
    ends = [{**record, "status": "interrupted"} for record in failed(*FIRST)]
    assert InVain([*begun(*FIRST), *ends]).trials == 0


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("out of memory: tensor of shape [8,100,628]", "out of memory: tensor of shape [16,97,5028]", True),
        ("ValueError: layer lstm_3 at 0x7f66", "ValueError: layer lstm_12 at 0xab9", True),
        ("worker 10.0.0.3 said no", "worker 10.0.0.27 said no", True),
        ("ValueError: units", "ValueError: dropout", False),
        ("", "ValueError", False),
    ],
)
def test_causes_that_differ_in_numbers_are_one(one: str, other: str, *, same: bool) -> None:
    assert (alike(one) == alike(other)) is same
