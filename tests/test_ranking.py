from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunelab.aims import Aims
from tunelab.errors import StateError
from tunelab.ranking import Leaderboard

NAN = math.nan


def suggestion(trial: str, **more) -> dict:
    empty = {"name": "", "family": "lstm", "params": {}, "point": {}}
    return {"kind": "suggestion", "trial": trial, **empty, **more}


def result(trial: str, epoch: int, f1: float | None, dense: float | None, parameters: int = 100) -> dict:
    metrics = {"val_f1": f1, "tune_average_precision": dense}
    return {
        "kind": "result",
        "trial": trial,
        "epoch": epoch,
        "seconds": 1.0,
        "parameters": parameters,
        "weights": "",
        "metrics": {k: None if v is None or math.isnan(v) else v for k, v in metrics.items()},
    }


def end(trial: str, status: str = "finished", cause: str | None = None) -> dict:
    return {"kind": "end", "trial": trial, "status": status, "cause": cause}


def order(*records: dict) -> list[str]:
    return [t.trial for t in Leaderboard(records).ranked()]


def two(first: dict, second: dict) -> list[str]:
    return order(suggestion("0001"), suggestion("0002"), first, second)


def test_the_higher_f1_is_first():
    assert two(result("0001", 1, 0.3, 0.9), result("0002", 1, 0.4, 0.1)) == ["0002", "0001"]


def test_of_equal_f1_the_higher_average_precision_then_the_smaller_model_then_the_older():
    assert two(result("0001", 1, 0.3, 0.1), result("0002", 1, 0.3, 0.2)) == ["0002", "0001"]
    assert two(result("0001", 1, 0.3, NAN), result("0002", 1, 0.3, 0.2)) == ["0002", "0001"]
    assert two(result("0001", 1, 0.3, 0.2, 500), result("0002", 1, 0.3, 0.2, 400)) == ["0002", "0001"]
    assert two(result("0002", 1, 0.3, 0.2), result("0001", 1, 0.3, 0.2)) == ["0001", "0002"]


def test_older_is_earlier_in_the_journal_whatever_the_names():
    names = ["9999", "10000"]  # as text the second comes first
    records = [suggestion(n) for n in names] + [result(n, 1, 0.3, 0.2) for n in names]
    assert order(*records) == names


def test_nan_is_worst_also_below_zero():
    assert two(result("0001", 1, NAN, 0.9), result("0002", 1, 0.0, 0.1)) == ["0002", "0001"]


def test_failed_trials_and_trials_without_an_epoch_are_not_ranked():
    records = [suggestion("0001"), suggestion("0002"), suggestion("0003"), result("0001", 1, 0.9, 0.9)]
    records += [result("0002", 1, 0.1, 0.1), end("0001", "failed", "out of memory")]
    board = Leaderboard(records)
    assert [t.trial for t in board.ranked()] == ["0002"]
    assert board.trials["0001"].cause == "out of memory"
    assert board.best is board.trials["0002"]
    assert board.ended == 1


@pytest.mark.parametrize("status", ["finished", "stopped", "interrupted"])
def test_trials_that_ended_in_any_other_way_are_ranked(status):
    assert order(suggestion("0001"), result("0001", 1, 0.5, 0.5), end("0001", status)) == ["0001"]


def test_the_chosen_epoch_is_the_first_with_the_highest_average_precision_on_the_tune_split():
    dense = [NAN, 0.2, 0.5, 0.5, 0.4]
    f1 = [0.9, 0.8, 0.1, 0.7, 0.6]
    board = Leaderboard(
        [suggestion("0001"), *(result("0001", i + 1, f, d) for i, (f, d) in enumerate(zip(f1, dense, strict=True)))]
    )
    trial = board.trials["0001"]
    assert trial.chosen.epoch == 3
    assert trial.val_f1 == 0.1  # not the best one: nothing is chosen on the split that judges


def test_where_average_precision_was_never_defined_the_first_epoch_is_chosen():
    board = Leaderboard([suggestion("0001"), result("0001", 1, NAN, NAN), result("0001", 2, 0.3, None)])
    assert board.trials["0001"].chosen.epoch == 1
    assert math.isnan(board.trials["0001"].val_f1)
    assert board.best is None
    assert [t.trial for t in board.ranked()] == ["0001"]


def test_epochs_that_are_run_again_after_a_restart_replace_what_came_later():
    first = [result("0001", i, 0.1 * i, 0.1 * i) for i in (1, 2, 3, 4)]
    again = [result("0001", 3, 0.35, 0.15)]
    trial = Leaderboard([suggestion("0001"), *first, *again]).trials["0001"]
    assert [(e.epoch, e["val_f1"]) for e in trial.epochs] == [(1, 0.1), (2, 0.2), (3, 0.35)]
    assert trial.chosen.epoch == 2


def test_records_of_other_kinds_pass_by_and_undefined_metrics_are_nan():
    board = Leaderboard([{"kind": "run", "name": "x"}, suggestion("0001", seed=7), result("0001", 1, None, 0.1)])
    board.apply({"kind": "final", "trial": "0001"})
    trial = board.trials["0001"]
    assert trial.seed == 7
    assert math.isnan(trial.chosen["val_f1"])
    assert math.isnan(trial.chosen["never reported"])


def test_an_empty_board():
    board = Leaderboard()
    assert board.ranked() == []
    assert board.best is None
    assert board.ended == 0


VALUES = st.sampled_from([NAN, 0.0, 0.1, 0.2, 1.0])


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(
            st.lists(st.tuples(VALUES, VALUES), max_size=4),
            st.integers(1, 3),
            st.sampled_from(["running", "finished", "stopped", "failed", "interrupted"]),
        ),
        max_size=8,
    ),
    st.randoms(use_true_random=False),
)
def test_the_best_is_that_of_a_search_over_all_pairs(trials, random):
    records = [suggestion(str(i)) for i in range(len(trials))]
    mixed = [(i, e) for i, (epochs, _, _) in enumerate(trials) for e in range(len(epochs))]
    random.shuffle(mixed)
    mixed.sort(key=lambda pair: pair[1])  # each trial's epochs stay in order, the trials run side by side
    records += [result(str(i), e + 1, *trials[i][0][e], trials[i][1]) for i, e in mixed]
    records += [end(str(i), status) for i, (_, _, status) in enumerate(trials) if status != "running"]
    board = Leaderboard()
    for record in records:
        board.apply(record)
        asked = board.trials[random.choice([*board.trials])]
        assert board.leads(asked) == (board.best is asked)
    assert board.tried == len(board.configurations)

    def chosen(epochs):
        best = epochs[0]
        for epoch in epochs[1:]:
            if not math.isnan(epoch[1]) and (math.isnan(best[1]) or epoch[1] > best[1]):
                best = epoch
        return best

    def beats(one, other):
        (f1, dense), (f1_other, dense_other) = chosen(trials[one][0]), chosen(trials[other][0])
        for mine, its in ((f1, f1_other), (dense, dense_other)):
            if math.isnan(mine) != math.isnan(its):
                return math.isnan(its)
            if not math.isnan(mine) and mine != its:
                return mine > its
        return (trials[one][1], one) < (trials[other][1], other)

    ranked = [i for i, (epochs, _, status) in enumerate(trials) if epochs and status != "failed"]
    assert {t.trial for t in board.ranked()} == {str(i) for i in ranked}
    found = [int(t.trial) for t in board.ranked()]
    assert all(beats(one, other) for i, one in enumerate(found) for other in found[i + 1 :])
    defined = [i for i in ranked if not math.isnan(chosen(trials[i][0])[0])]
    expected = [i for i in defined if all(beats(i, other) for other in defined if other != i)]
    assert (board.best.trial if board.best else None) == (str(expected[0]) if expected else None)


def fold(trial: str, number: int, epoch: int, dense: float | None) -> dict:
    metrics = {"tune_average_precision": dense, "val_f1": 0.7}
    fields = {"trial": trial, "fold": number, "epoch": epoch, "seconds": 1.0, "weights": f"{number}-{epoch}"}
    return {"kind": "fold", **fields, "metrics": metrics}


def pooled(trial: str, f1: float | None, dense: float | None = 0.2) -> dict:
    metrics = {"val_f1": f1, "tune_average_precision": dense, "precision": None}
    return {
        "kind": "pooled",
        "trial": trial,
        "metrics": metrics,
        "thresholds": [0.2, 0.3, 0.4],
        "scans": {"a": [1, 2, 3, 4], "b": [0, 1, 0, 5]},
    }


def test_trials_judged_on_all_folds_come_before_those_of_the_first_only():
    names = ["0001", "0002", "0003", "0004"]
    records = [
        *map(suggestion, names),
        *(result(n, 1, f1, 0.9) for n, f1 in zip(names, (0.9, 0.8, 0.1, 0.2), strict=True)),
    ]
    records += [pooled("0003", 0.3), pooled("0004", 0.4), end("0001", "stopped"), end("0002", "interrupted")]
    assert order(*records) == ["0004", "0003", "0001", "0002"]
    board = Leaderboard(records)
    assert board.best is board.trials["0004"]
    assert board.trials["0004"].val_f1 == 0.4
    assert board.trials["0004"].chosen["val_f1"] == 0.2
    assert math.isnan(board.trials["0004"].measured("precision"))
    assert math.isnan(board.trials["0004"].measured("threshold"))
    assert order(*records, pooled("0004", None)) == ["0003", "0001", "0002", "0004"]
    assert order(*records, end("0004", "failed")) == ["0003", "0001", "0002"]


def test_of_equal_pooled_f1_the_higher_mean_average_precision_is_first():
    records = [suggestion("0001"), suggestion("0002"), result("0001", 1, 0.5, 0.9), result("0002", 1, 0.5, 0.1)]
    assert order(*records, pooled("0001", 0.4, 0.3), pooled("0002", 0.4, 0.5)) == ["0002", "0001"]
    assert order(*records, pooled("0001", 0.4, None), pooled("0002", 0.4, 0.5)) == ["0002", "0001"]


def test_stored_weights_are_those_of_each_folds_own_chosen_epoch():
    one = {**result("0001", 1, 0.5, 0.9), "weights": "0-1"}
    one["metrics"]["threshold"] = 0.6
    records = [suggestion("0001"), one, fold("0001", 1, 1, 0.1), fold("0001", 1, 2, 0.8), fold("0001", 1, 3, 0.7)]
    records += [fold("0001", 2, 1, None), fold("0001", 2, 2, None)]
    trial = Leaderboard(records).trials["0001"]
    assert [(s.file, s.digest, s.threshold) for s in trial.stored()] == [("0001-e0001.npz", "0-1", 0.6)]
    trial = Leaderboard([*records, pooled("0001", 0.4)]).trials["0001"]
    assert [(s.file, s.fold, s.digest, s.threshold) for s in trial.stored()] == [
        ("0001-e0001.npz", 0, "0-1", 0.2),
        ("0001-fold1-e0002.npz", 1, "1-2", 0.3),
        ("0001-fold2-e0001.npz", 2, "2-1", 0.4),
    ]
    assert [c.f1 for c in trial.pooled.counts] == [2 / 7, 0.0]


def test_what_is_told_again_after_a_restart_replaces_later_epochs_and_folds():
    records = [suggestion("0001"), result("0001", 1, 0.5, 0.9)]
    records += [fold("0001", 1, 1, 0.1), fold("0001", 1, 2, 0.2), fold("0001", 2, 1, 0.3), pooled("0001", 0.4)]
    trial = Leaderboard([*records, fold("0001", 1, 2, 0.25)]).trials["0001"]
    assert {k: [(e.epoch, e["tune_average_precision"]) for e in epochs] for k, epochs in trial.folds.items()} == {
        1: [(1, 0.1), (2, 0.25)]
    }
    assert trial.pooled is None
    trial = Leaderboard([*records, result("0001", 1, 0.5, 0.9)]).trials["0001"]
    assert (trial.folds, trial.pooled, len(trial.epochs)) == ({}, None, 1)


# Aims: those of the newest `run` or `change` record.


def aiming(*constraints: str, objectives: tuple[str, ...] = ("f1",), kind: str = "run") -> dict:
    space = {"objectives": list(objectives), "constraints": list(constraints)}
    return {"kind": kind, "seq": 0, "identity": {"space": space}}


def sized(*trials: tuple[str, float, int]) -> list[dict]:
    return [one for name, f1, n in trials for one in (suggestion(name), result(name, 1, f1, 0.5, n))]


def test_a_trial_that_breaks_a_constraint_ranks_below_all_that_keep_them():
    records = sized(("0001", 0.9, 2000), ("0002", 0.3, 10), ("0003", 0.8, 1001), ("0004", NAN, 10))
    assert order(*records) == ["0001", "0003", "0002", "0004"]
    assert order(aiming("parameters <= 1000"), *records) == ["0002", "0004", "0001", "0003"]
    board = Leaderboard([aiming("parameters <= 1000"), *records])
    assert board.best is board.trials["0002"]
    assert [trial.trial for trial in board.front()] == ["0002"]


def test_where_none_keeps_the_constraints_there_is_no_winner():
    records = [aiming("parameters <= 5"), *sized(("0001", 0.9, 2000), ("0002", 0.3, 10))]
    board = Leaderboard(records)
    assert [trial.trial for trial in board.ranked()] == ["0001", "0002"]
    assert board.best is None
    assert board.front() == []
    records += sized(("0003", NAN, 5))
    assert Leaderboard(records).best is None, "one that keeps them has no F1"


def test_the_newest_aims_count_and_a_record_without_any_changes_none():
    records = [aiming("parameters <= 5"), *sized(("0001", 0.9, 2000), ("0002", 0.3, 10))]
    board = Leaderboard([*records, aiming("parameters <= 100", kind="change"), {"kind": "change", "options": {}}])
    assert board.best is board.trials["0002"]
    board.apply(aiming(kind="change"))
    assert board.best is board.trials["0001"]


def test_aims_in_a_journal_that_are_none_are_said():
    with pytest.raises(StateError, match=r"record 0 \(run\): ValueError constraints\.0: 'speed' can be no aim"):
        Leaderboard([aiming("speed <= 5")])
    for identity in (None, "x", {}, {"space": None}):
        assert Leaderboard([{"kind": "run", "identity": identity}]).aims == Aims()


def test_the_front_is_of_trials_that_can_be_compared():
    two = aiming(objectives=("f1", "-parameters"))
    records = [two, *sized(("0001", 0.9, 100), ("0002", 0.8, 50), ("0003", 0.7, 80), ("0004", 0.1, 10))]
    assert [t.trial for t in Leaderboard(records).front()] == ["0001", "0002", "0004"]
    records += [pooled("0003", 0.4), pooled("0001", 0.2)]
    assert [t.trial for t in Leaderboard(records).front()] == ["0003"], "the others were judged on the first fold alone"
    board = Leaderboard([*records, end("0003", "failed")])
    assert [t.trial for t in board.front()] == ["0001"]
    assert [t.trial for t in board.front([board.trials["0002"], board.trials["0004"]])] == ["0002", "0004"]


def test_pooled_counts_do_not_decide_and_are_shown():
    trial = Leaderboard([*sized(("0001", 0.9, 10)), pooled("0001", 0.4, 0.3)]).trials["0001"]
    assert (trial.decided_by("val_f1"), trial.measured("val_f1")) == (0.9, 0.4)
    assert math.isnan(Leaderboard([suggestion("0001")]).trials["0001"].decided_by("val_f1"))


def test_the_time_to_answer_is_the_median_over_all_epochs_that_tell_it():
    records = [suggestion("0001")]
    assert math.isnan(Leaderboard(records).trials["0001"].predict_ms)
    for epoch, taken in enumerate((NAN, 9.0, 1.0, 2.0), start=1):
        records.append(result("0001", epoch, 0.5, 0.5))
        records[-1]["metrics"]["predict_ms"] = None if math.isnan(taken) else taken
    assert Leaderboard(records).trials["0001"].predict_ms == 2.0
    records.append(fold("0001", 1, 1, 0.1))
    records[-1]["metrics"]["predict_ms"] = 4.0
    assert Leaderboard(records).trials["0001"].predict_ms == 3.0
    assert math.isnan(Leaderboard(sized(("0001", 0.9, 10))).trials["0001"].predict_ms)


def at(trial: str, f1: float, *, status: str = "finished", **more) -> list[dict]:
    return [suggestion(trial, **more), result(trial, 1, f1, f1), end(trial, status)]


def test_a_trial_at_a_lower_fidelity_ranks_below_all_in_full_and_never_leads() -> None:
    low = [*at("0001", 0.9, fidelity={"data": 0.1}), *at("0002", 0.8, fidelity={"data": 0.3}, of="0001")]
    board = Leaderboard(low)
    assert board.best is None
    assert [t.trial for t in board.ranked()] == ["0002", "0001"], "the higher one first, whatever they came to"
    for record in [*at("0003", 0.1), *at("0004", NAN), *at("0005", 0.7, fidelity={}, of="0001")]:
        board.apply(record)
    assert [t.trial for t in board.ranked()] == ["0005", "0003", "0004", "0002", "0001"]
    assert board.best is not None
    assert board.best.trial == "0005"
    assert [t.trial for t in board.configurations] == ["0001", "0003", "0004"]
    assert board.ended == 3
    assert [t.configuration for t in board.snapshot()] == ["0001", "0001", "0003", "0004", "0001"]


@pytest.mark.parametrize(
    "more", [{"fidelity": {"shards": 2}}, {"fidelity": 0.1}, {"of": "0009"}, {"of": "0002"}, {"fidelity": {"data": 7}}]
)
def test_a_fidelity_that_is_none_is_damage(more: dict) -> None:
    board = Leaderboard([*at("0001", 0.5, fidelity={"data": 0.5}), *at("0002", 0.5, of="0001")])
    with pytest.raises(StateError, match=r"journal: record None \(suggestion\)"):
        board.apply(suggestion("0003", **more))
