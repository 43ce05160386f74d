"""The benchmark of search policies: virtual time, regret, the baselines, and what its files hold."""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path

import numpy as np
import optuna
import pytest

from benchmarks import policy as benchmark
from benchmarks.baselines import BASELINES, PATIENCE, Kind, OneEpochTopK, f1_like
from benchmarks.lines import lines_of
from benchmarks.policy import BUDGETS, COMPARED, KEPT_BACK, POLICIES, VARIANTS, main, searched, summary
from benchmarks.simulation import CHANCE, FLOOR, Epoch, Setting, read_curves, regret, setting_of, simulate, unit_cube

ROWS, EPOCHS = 90, 12
TASKS = ("small", KEPT_BACK[0])


def setting(losses, *, workers=2, budget=1000, seed=0):
    cube = np.linspace(0, 1, 2 * len(losses)).reshape(-1, 2)
    return Setting(cube=cube, epochs=losses.shape[1], workers=workers, budget=budget, seed=seed)


def falling(count: int, seed: int) -> np.ndarray:
    """Curves like the recorded ones: most stay at chance, some fall, some diverge on their way."""
    rng = np.random.default_rng(seed)
    losses = CHANCE + 0.02 * rng.standard_normal((count, EPOCHS)) ** 2
    for row in range(0, count, 6):
        losses[row] -= np.linspace(0, rng.uniform(0.1, 0.5), EPOCHS)
    for row in range(3, count, 5):
        losses[row, rng.integers(1, EPOCHS) :] = math.nan
    return losses


@pytest.fixture
def curves(tmp_path) -> Path:
    rng = np.random.default_rng(0)
    arrays = {task: falling(ROWS, seed) for seed, task in enumerate(TASKS)}
    rates = 10.0 ** rng.uniform(-6, 0, (ROWS, 2))
    path = tmp_path / "curves.npz"
    np.savez(path, configs=rates, config_names=np.array(["learning_rate", "l2"]), **arrays)
    return path


class Scripted:
    """Runs rows in the order given and stops each after the epochs given; a row may be named again."""

    def __init__(self, rows, stops=None):
        self.rows, self.stops, self.asked, self.heard = list(rows), set(stops or ()), [], []

    def next(self, now):
        self.asked.append(now)
        return self.rows.pop(0) if self.rows else None

    def told(self, row, epoch, loss):
        self.heard.append((row, epoch, loss))
        return (row, epoch) not in self.stops


def test_workers_take_rows_as_they_become_free():
    losses = np.arange(9.0).reshape(3, 3)
    policy = Scripted([0, 1, 2], {(0, 1)})
    spent = simulate(losses, policy, setting(losses))
    expected = [(1, 0, 1), (1, 1, 1), (2, 2, 1), (2, 1, 2), (3, 2, 2), (3, 1, 3), (4, 2, 3)]
    assert spent == [Epoch(*one) for one in expected]
    assert policy.heard == [(row, epoch, losses[row, epoch - 1]) for _, row, epoch in expected]


def test_a_stopped_row_that_is_taken_up_again_goes_on_at_its_next_epoch():
    losses = np.zeros((2, 3))
    spent = simulate(losses, Scripted([0, 1, 0], {(0, 2), (1, 1)}), setting(losses, workers=1))
    assert spent == [(1, 0, 1), (2, 0, 2), (3, 1, 1), (4, 0, 3)]


def test_a_worker_with_nothing_to_do_is_asked_for_again_when_an_epoch_is_over():
    class Late(Scripted):
        def next(self, now):
            return super().next(now) if now != 1 else None

    losses = np.zeros((3, 2))
    spent = simulate(losses, Late([0, 1, 2], {(0, 1)}), setting(losses))
    assert spent == [(1, 0, 1), (1, 1, 1), (2, 1, 2), (3, 2, 1), (4, 2, 2)]


def test_a_search_ends_when_its_budget_is_spent_or_nothing_is_left():
    losses = np.zeros((3, 4))
    for budget in (0, 1, 5, 12, 13):
        spent = simulate(losses, Scripted([0, 1, 2]), setting(losses, budget=budget))
        assert len(spent) == min(budget, 12)


@pytest.mark.parametrize(
    ("rows", "said"), [([0, 0], "row 0, which is running"), ([0, 1, 0], "trained all its 2 epochs")]
)
def test_a_policy_may_not_run_what_is_running_or_over(rows, said):
    losses = np.zeros((2, 2))
    with pytest.raises(ValueError, match=said):
        simulate(losses, Scripted(rows), setting(losses, workers=2 if rows == [0, 0] else 1))


def test_regret_is_the_share_of_the_way_from_chance_to_the_best():
    best = CHANCE - 0.4
    losses = np.array([[CHANCE - 0.1, 0.9], [CHANCE - 0.3, math.nan], [best, 0.5]])
    spent = [Epoch(1, 0, 1), Epoch(2, 0, 2), Epoch(3, 1, 1), Epoch(4, 1, 2), Epoch(5, 2, 1)]
    assert regret(losses, spent, 0.5) == pytest.approx(0.75)
    assert regret(losses, spent, 1) == pytest.approx(0.75)  # a worse epoch takes nothing back
    assert regret(losses, spent, 1.5) == pytest.approx(0.25)
    assert regret(losses, spent, 2) == pytest.approx(0.25)  # NaN neither
    assert regret(losses, spent, 2.5) == 0
    assert regret(losses, spent, 9) == 0  # ended early
    assert regret(losses, spent, 0) == 1


@pytest.mark.parametrize("loss", [math.nan, math.inf, 3.0])
def test_what_is_no_better_than_chance_is_chance(loss):
    losses = np.array([[loss, loss], [0.1, 0.1]])
    assert regret(losses, [Epoch(1, 0, 1), Epoch(2, 0, 2)], 1) == 1


def test_the_score_like_f1_is_zero_on_the_floor_and_rises_from_there():
    assert [f1_like(loss) for loss in (math.nan, math.inf, 2.0, CHANCE, FLOOR)] == [0] * 5
    assert f1_like(math.nextafter(FLOOR, 0)) == pytest.approx(0.02)
    assert f1_like(0.0) == 1


def test_columns_are_scaled_as_is_natural_for_them():
    configs = np.array([[1e-4, 0.9, 1.0], [1e-2, 0.99, 2.0], [1.0, 0.999, 3.0]])
    before = configs.copy()
    cube = unit_cube(configs, ["learning_rate", "beta2", "depth"])
    assert cube == pytest.approx(np.array([[0, 1, 0], [0.5, 0.5, 0.5], [1, 0, 1]]))
    assert np.array_equal(configs, before)
    assert unit_cube(np.full((2, 1), 3.0), ["same"]).tolist() == [[0], [0]]


@pytest.mark.parametrize("workers", [1, 3, 8])
@pytest.mark.parametrize("name", COMPARED)
def test_every_policy_keeps_to_its_workers_and_repeats_itself(name, workers):
    losses = falling(ROWS, 5)
    of = setting(losses, workers=workers, budget=40 * EPOCHS)
    spent = simulate(losses, POLICIES[name].make(of), of)
    assert max(Counter(one.end for one in spent).values()) <= workers
    assert len({(one.row, one.epoch) for one in spent}) == len(spent)
    assert regret(losses, spent, 40) < regret(losses, spent, 0) == 1
    np.random.default_rng().random()
    assert simulate(losses, POLICIES[name].make(of), of) == spent
    other = setting(losses, workers=workers, budget=40 * EPOCHS, seed=1)
    assert simulate(losses, POLICIES[name].make(other), other) != spent


@pytest.mark.parametrize("name", COMPARED)
def test_no_policy_minds_when_everything_diverges(name):
    losses = np.full((ROWS, EPOCHS), math.nan)
    losses[:, 0] = np.where(np.arange(ROWS) % 2, CHANCE, math.nan)
    of = setting(losses, budget=10 * ROWS * EPOCHS)
    spent = simulate(losses, POLICIES[name].make(of), of)
    assert len({one.row for one in spent}) == ROWS


@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_searches_otherwise(name):
    losses = falling(ROWS, 5)
    of = setting(losses, workers=3, budget=20 * EPOCHS)
    spent = simulate(losses, VARIANTS[name].make(of), of)
    assert regret(losses, spent, 20) < 1
    if name in ("tunelab_stopping", "tunelab_random"):
        assert spent != simulate(losses, POLICIES["tunelab"].make(of), of)


def test_random_rows_are_trained_to_their_end():
    losses = falling(10, 0)
    of = setting(losses)
    epochs = Counter(one.row for one in simulate(losses, BASELINES["random"].make(of), of))
    assert list(epochs) == of.drawn()
    assert set(epochs.values()) == {EPOCHS}


def test_patience_ends_a_trial_so_many_epochs_after_its_lowest_loss():
    losses = np.full((3, 4 * PATIENCE), 2.0)
    losses[0, 4] = 1.0  # the lowest at epoch 5
    losses[1] = math.nan
    losses[2] = -np.arange(4.0 * PATIENCE)
    of = setting(losses)
    epochs = Counter(one.row for one in simulate(losses, BASELINES["random_patience"].make(of), of))
    assert epochs == {0: 5 + PATIENCE, 1: PATIENCE, 2: 4 * PATIENCE}


def test_ray_stops_what_is_worse_than_the_upper_quarter_of_those_before_and_no_nan():
    losses = np.tile(np.random.default_rng(0).permutation(np.arange(40.0))[:, None], EPOCHS)
    losses[::5] = math.nan
    of = setting(losses, workers=1)
    epochs = Counter(one.row for one in simulate(losses, BASELINES["ray_asha_loss"].make(of), of))
    before: list[float] = []
    for row in of.drawn():
        loss = losses[row, 0]
        numbers = [one for one in before if one == one]
        assert (epochs[row] == 1) == bool(numbers and loss > np.percentile(numbers, 25))
        assert epochs[row] == EPOCHS or loss == loss
        before.append(loss)
    assert 20 < Counter(epochs.values())[1] < 32


def test_on_a_score_that_is_zero_for_most_ray_stops_none_of_them():
    losses = np.full((40, EPOCHS), 0.69)
    losses += np.random.default_rng(0).uniform(0, 0.003, losses.shape)
    losses[::20] = 0.3
    of = setting(losses)
    by_score, by_loss = (
        Counter(one.row for one in simulate(losses, BASELINES[name].make(of), of))
        for name in ("ray_asha_f1", "ray_asha_loss")
    )
    assert set(by_score.values()) == {EPOCHS}
    assert Counter(by_loss.values())[1] > 20
    assert {by_loss[0], by_loss[20]} == {EPOCHS}


def test_the_best_of_one_epoch_are_trained_to_their_end_when_all_were_screened():
    losses = np.tile(np.arange(10.0)[:, None], 5)
    losses[9] = math.nan
    of = setting(losses, workers=3, budget=20)
    spent = simulate(losses, OneEpochTopK(of), of)
    assert [one.row for one in spent[:10]] == of.drawn()
    assert all(one.epoch == 1 for one in spent[:10])
    # 10 epochs are left, and 4 train a row to its end
    assert Counter(one.row for one in spent[10:]) == {0: 4, 1: 4}
    assert {one.end for one in spent[10:]} == {5, 6, 7, 8}  # three workers screened in 4


def test_half_of_a_small_budget_is_spent_on_screening():
    losses = np.tile(np.arange(100.0)[:, None], 5)
    of = setting(losses, budget=48)
    spent = simulate(losses, OneEpochTopK(of), of)
    assert Counter(one.epoch for one in spent) == {1: 24, **dict.fromkeys(range(2, 6), 6)}
    screened = {one.row for one in spent}
    assert {one.row for one in spent if one.epoch > 1} == set(sorted(screened)[:6])


def test_optuna_knows_the_rows_that_were_trained_and_how_they_ended():
    losses = falling(ROWS, 2)
    of = setting(losses, workers=1, budget=20 * EPOCHS)
    policy = BASELINES["optuna_hyperband"].make(of)
    spent = simulate(losses, policy, of)
    epochs = Counter(one.row for one in spent)
    trials = policy.study.trials
    assert len(trials) == len(epochs)
    states = optuna.trial.TrialState
    for row, trial in zip(epochs, trials, strict=True):
        assert list(trial.params.values()) == of.cube[row].tolist()
        seen = losses[row, : epochs[row]]
        assert list(trial.intermediate_values) == list(range(1, epochs[row] + 1))
        assert list(trial.intermediate_values.values()) == pytest.approx(seen.tolist(), nan_ok=True)
        if trial.state == states.COMPLETE:
            assert trial.value == np.nanmin(seen)
            assert epochs[row] == EPOCHS
        elif trial is not trials[-1]:
            assert trial.state == states.PRUNED
    assert {trial.state for trial in trials} >= {states.COMPLETE, states.PRUNED}


def test_a_policy_that_depends_on_its_budget_searches_once_for_each(curves, monkeypatch):
    made = []

    def make(of):
        made.append(of.budget)
        return Scripted(of.drawn())

    found = read_curves(curves)
    monkeypatch.setitem(benchmark.POLICIES, "plain", Kind(make=make))
    monkeypatch.setitem(benchmark.POLICIES, "planned", Kind(make=make, per_budget=True))
    plain, planned = (searched(found, name, TASKS[0], 0, 8) for name in ("plain", "planned"))
    assert made == [max(BUDGETS) * EPOCHS, *(budget * EPOCHS for budget in BUDGETS)]
    assert plain == planned
    assert list(plain) == ["regret_16", "regret_40"]


def test_the_error_is_that_of_the_mean_over_the_tasks_there_are():
    values = {"a": (0.1, 0.2, 0.6), "b": (0.5, 0.9)}
    lines = [{"task": task, "regret_16": v, "regret_40": v / 2} for task, of in values.items() for v in of]
    found = summary(lines)
    assert found["regret_16"] == pytest.approx((0.3 + 0.7) / 2)
    # sample variances 0.07 and 0.08
    assert found["se_16"] == pytest.approx(math.sqrt(0.07 / 3 + 0.08 / 2) / 2)
    assert found["se_40"] == pytest.approx(found["se_16"] / 2)
    assert summary(lines[:1])["se_16"] is None


def run(curves: Path, to: Path, *more: str) -> dict:
    main(["--curves", str(curves), "--json", str(to), "--seeds", "2", "--policies", "random", "one_epoch_top_k", *more])
    return json.loads(to.read_text())


def test_tasks_kept_back_stand_apart_from_the_others(curves, tmp_path, capsys):
    found = run(curves, tmp_path / "deep" / "found.json")
    assert [set(one) for one in found["results"]] == [{"policy", "regret_16", "regret_40", "se_16", "se_40"}] * 2
    by_task = {(one["task"], one["policy"]): one for one in found["tasks"]}
    for i, name in enumerate(("random", "one_epoch_top_k")):
        apart = [by_task[TASKS[0], name], by_task[TASKS[1], name]]
        assert [one["kept_back"] for one in apart] == [False, True]
        for part, one in zip(("others", "kept_back"), apart, strict=True):
            assert found[part][i] == {key: one[key] for key in found[part][i]}
        assert found["results"][i]["regret_16"] == pytest.approx(sum(one["regret_16"] for one in apart) / 2)
    out = capsys.readouterr().out.splitlines()
    assert out[0] == "tasks: small; 2 seeds"
    assert out[4] == f"kept back: {KEPT_BACK[0]}; 2 seeds"
    assert [line.split()[0] for line in out[2:4]] == ["random", "one_epoch_top_k"]
    assert out[2].split()[1] == f"{found['others'][0]['regret_16']:.3f}"


def test_an_interrupted_benchmark_goes_on_where_it_stopped(curves, tmp_path):
    whole = run(curves, tmp_path / "whole.json")
    lines = (tmp_path / "whole.json.lines").read_text().splitlines()
    assert len(lines) == 8
    cut = tmp_path / "cut.json.lines"
    cut.write_text("\n".join([*lines[:3], lines[3][:40]]))
    assert run(curves, tmp_path / "cut.json") == whole
    assert sorted(map(json.dumps, lines_of(cut))) == sorted(lines)

    marked = [json.loads(line) | {"regret_16": 0.25} for line in lines]  # what is there is not searched again
    cut.write_text("".join(json.dumps(line) + "\n" for line in marked))
    assert {one["regret_16"] for one in run(curves, tmp_path / "cut.json")["results"]} == {0.25}
    more = run(curves, tmp_path / "cut.json", "--seeds", "3")
    assert len(lines_of(cut)) == 12
    assert more["seeds"] == 3


def test_a_benchmark_does_not_go_on_with_other_arguments_or_curves(curves, tmp_path):
    to = tmp_path / "found.json"
    run(curves, to, "--tasks", "small")
    for option, value in (("workers", "3"), ("skip", "1")):
        with pytest.raises(SystemExit, match=rf"found\.json\.lines: {option}: made with \d, not with {value}; use"):
            run(curves, to, f"--{option}", value)
    with np.load(curves) as opened:
        arrays = {name: opened[name] for name in opened.files}
    arrays["small"][0, 0] += 1
    np.savez(curves, **arrays)
    with pytest.raises(SystemExit, match=r"found\.json\.lines: curves: made with"):
        run(curves, to)


def test_tasks_and_seeds_draw_differently_and_policies_alike(curves):
    found = read_curves(curves)
    drawn = [
        setting_of(found, task, seed=seed, workers=8, budget=budget).drawn()
        for task in TASKS
        for seed in (0, 1)
        for budget in BUDGETS
    ]
    assert drawn[::2] == drawn[1::2]
    assert len(set(map(tuple, drawn))) == 4


def test_epochs_in_front_can_be_left_out(curves):
    with np.load(curves) as opened:
        expected = opened["small"][:, 1:]
    assert np.array_equal(read_curves(curves, 1).tasks["small"], expected, equal_nan=True)


def test_names_that_are_not_there_are_refused(curves, tmp_path):
    with pytest.raises(SystemExit, match=r"--tasks: .*curves\.npz: other: unknown; there are small, patch32"):
        run(curves, tmp_path / "found.json", "--tasks", "other", "small")
    with pytest.raises(
        SystemExit, match="--policies: best: unknown; there are tunelab, ray_asha_loss, ray_asha_f1, random"
    ):
        run(curves, tmp_path / "found.json", "--policies", "best")
    assert not (tmp_path / "found.json").exists()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"configs": None}, "configs: missing"),
        ({"config_names": np.array(["one"])}, r"configs: shape \(90, 2\); finite numbers \(row, dimension\), 1 names"),
        ({"small": np.zeros((ROWS, 1))}, r"small: shape \(90, 1\); a task has 90 rows and 2 epochs at least"),
        ({"small": np.zeros((3, 5))}, r"small: shape \(3, 5\)"),
        ({"small": np.full((ROWS, 3), math.nan)}, "small: no loss is below ln 2"),
        (dict.fromkeys(TASKS), "no task"),
    ],
)
def test_files_that_are_no_curves_are_refused(curves, change, said):
    with np.load(curves) as opened:
        arrays = {name: opened[name] for name in opened.files} | change
    np.savez(curves, **{name: array for name, array in arrays.items() if array is not None})
    with pytest.raises(SystemExit, match=said):
        read_curves(curves)
