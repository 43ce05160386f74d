"""The report of a run over folds: says which was used, marks trials of the first fold only, compares like with like."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable
from html import unescape
from typing import Any

import pytest
import yaml

from tunelab.configuration import load_configuration
from tunelab.metrics import Counts, always_positive_f1
from tunelab.models import normalise
from tunelab.ranking import Pooled
from tunelab.report import write_report

FOLDS = {k: [f"s{k}{n}" for n in range(9 if k < 3 else 8)] for k in range(5)}
TEST = [f"t{n}" for n in range(8)]
SCANS = [scan for scans in FOLDS.values() for scan in scans]
POSITIVES, TRACES = 516, 4300
FIRST_POSITIVES, FIRST_TRACES = 90, 900
DATA = {
    "source": "field/few",
    "scans": 51,
    "positives": {"train": 326, "tune": 100, "validation": FIRST_POSITIVES, "test": 96},
    "traces_by_split": {"train": 2500, "tune": 900, "validation": FIRST_TRACES, "test": 800},
    "splits": {"train": FOLDS[2] + FOLDS[3] + FOLDS[4], "tune": FOLDS[1], "validation": FOLDS[0], "test": TEST},
    "folds": FOLDS,
}
FACTS = {
    "data": DATA,
    "always_positive_f1": always_positive_f1(POSITIVES, TRACES),
    "positives": POSITIVES,
    "validation_traces": TRACES,
    "dimensions": ["units"],
}


def pooled(tp: int, fp: int) -> Pooled:
    """A scan's counts times 43: 12 positives of 100 traces each."""
    counts = Counts(tp, fp, 12 - tp, 88 - fp)
    total = Counts(43 * tp, 43 * fp, 43 * (12 - tp), 43 * (88 - fp))
    measures = {"val_f1": total.f1, "precision": total.precision, "recall": total.recall, "tp": 43.0 * tp}
    measures |= {"val_average_precision": 0.47, "tune_average_precision": 0.49, "val_f1_at_half": 0.3}
    thresholds = (0.31, 0.32, 0.33, 0.34, 0.35)
    return Pooled(metrics=measures, thresholds=thresholds, scans=tuple(SCANS), counts=(counts,) * 43)


def fill(run: Any, measured: Any, *, all_folds: bool = True) -> None:
    """A leader on all folds, one on all folds below always positive, and one that was stopped with a higher F1."""
    for trial, f1, dense in (("0001", 0.6, 0.5), ("0002", 0.2, 0.3), ("0003", 0.9, 0.1)):
        given = {"units": [8], "dropout": 0.1, "l2": 0.0, "learning_rate": 0.01}
        params = normalise({"family": "lstm", **given})
        run.begin(
            trial,
            "lstm",
            given,
            **{k: v for k, v in params.items() if k not in ("family", "batch_size", "batch_norm_momentum", *given)},
        )
        run.epoch(trial, 1, measured(f1, dense))
        if trial != "0003" and all_folds:
            for fold in range(1, 5):
                fields = {"trial": trial, "fold": fold, "epoch": 1, "seconds": 2, "weights": "d"}
                run.journal.append("fold", **fields, metrics=measured(f1, dense))
            run.journal.append("pooled", trial=trial, **pooled(6, 6 if trial == "0001" else 88).record())
            run.end(trial)
        else:
            run.end(trial, "stopped", "not among the best at epoch 1")


def text_of(run: Any) -> str:
    page = (run.folder / "report.html").read_text(encoding="utf-8")
    return " ".join(unescape(re.sub(r"<style.*?</style>|<svg.*?</svg>|<[^>]*>", " ", page, flags=re.DOTALL)).split())


@pytest.fixture
def run(begin_run: Callable[..., Any], measured: Any) -> Any:
    made = begin_run(**FACTS)
    fill(made, measured)
    return made


def judge(run: Any) -> None:
    sizes = {"scans": 43, "traces": TRACES, "positives": POSITIVES, "folds": 5, "average_precision": 0.47}
    validation = {**sizes, "f1": 0.5, "f1_low": 0.41, "f1_high": 0.58}
    test = {"scans": 8, "traces": 800, "positives": 96, "f1": 0.45, "f1_low": 0.3, "f1_high": 0.6, "models": 5}
    run.journal.append("final", trial="0001", epoch=1, validation=validation, test=test)


def test_the_verdict_names_what_was_judged(run: Any) -> None:
    judge(run)
    said = write_report(run.folder)
    trivial, on_test = always_positive_f1(POSITIVES, TRACES), always_positive_f1(96, 800)
    assert said["verdict"] == (
        "Trial 0001 (lstm) reaches a validation F1 of 0.500, pooled out-of-fold over 5 folds (43 scans, 4,300 traces, "
        f"516 positive, 95 % interval 0.410 to 0.580), against {trivial:.3f} for always answering positive. On test, "
        "used once, the F1 of its 5 models together is 0.450 (8 scans, 800 traces, 96 positive, 95 % interval 0.300 to "
        f"0.600), against {on_test:.3f} for always answering positive."
    )
    assert (said["dealt"], said["folds"]) == ("cross-fitted over 5 folds of 43 scans, 8 test scans", 5)
    assert (said["positives"], said["validation_traces"]) == (POSITIVES, TRACES)
    assert (said["best"]["pooled"], said["best"]["threshold"]) == (True, None)
    assert said["best"]["thresholds"] == [0.31, 0.32, 0.33, 0.34, 0.35]


def test_before_the_test_the_pooled_counts_speak(run: Any) -> None:
    said = write_report(run.folder)
    best = said["best"]["validation"]
    assert (best["scans"], best["traces"], best["positives"], best["tp"]) == (43, TRACES, POSITIVES, 43 * 6)
    assert best["f1"] == pytest.approx(0.5)
    assert "(43 scans, 4,300 traces, 516 positive, no interval computed)" in said["verdict"]


def test_the_page_says_which_was_used_and_marks_the_first_fold_only(run: Any) -> None:
    judge(run)
    write_report(run.folder)
    text = text_of(run)
    assert "scans dealt cross-fitted over 5 folds of 43 scans, 8 test scans" in text
    assert "F1, 5 folds pooled 0.500" in text
    ranking = text[text.index("Ranking") : text.index("Best configuration")]
    order = [ranking.index(word) for word in ("0.500", "always positive", " 0002 ", "on the first fold only", "0.90")]
    assert order == sorted(order)
    assert re.findall(r"0\.\d{3}\*", ranking) == [f"{float(rows(run)[2]['val_f1']):.3f}*"]
    assert "5 folds 43 4,300 516 12.0 %" in text
    assert "test 8 800 96 12.0 % the winner, once" in text
    assert "validation, 5 folds pooled test, 5 models together" in text


def rows(run: Any) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO((run.folder / "leaderboard.csv").read_text())))


def test_the_leaderboard_ranks_all_folds_first_and_says_so(run: Any) -> None:
    write_report(run.folder)
    found = rows(run)
    assert [(row["rank"], row["trial"], row["judged_on"]) for row in found] == [
        ("1", "0001", "5 folds"),
        ("2", "0002", "5 folds"),
        ("3", "0003", "first fold"),
    ]
    assert float(found[2]["val_f1"]) > float(found[0]["val_f1"]) == pytest.approx(0.5)
    assert (found[0]["threshold"], found[0]["tune_average_precision"], found[0]["tp"]) == ("", "0.49", "258")
    assert found[2]["threshold"] == "0.31"


def test_the_exported_configuration_can_be_trained_and_tells_the_thresholds(run: Any) -> None:
    write_report(run.folder)
    path = run.folder / "best_config.yaml"
    text = path.read_text()
    assert "# Validation F1 0.500 pooled out-of-fold over 5 folds, 43 scans, 4,300 traces, 516 positive, no" in text
    assert "# Thresholds of its models, a fold each: 0.310, 0.320, 0.330, 0.340, 0.350." in text
    assert yaml.safe_load(text)["threshold"] is None
    assert load_configuration(path).params["units"] == [8]


def test_a_winner_of_the_first_fold_only_is_compared_with_that_fold(
    begin_run: Callable[..., Any], measured: Any
) -> None:
    run = begin_run(**FACTS)
    fill(run, measured, all_folds=False)
    said = write_report(run.folder)
    assert said["best"]["trial"] == "0003"
    trivial = always_positive_f1(FIRST_POSITIVES, FIRST_TRACES)
    assert (
        f"of {said['best']['val_f1']:.3f} on the first fold only (9 scans, 900 traces, 90 positive" in said["verdict"]
    )
    assert f"against {trivial:.3f} for always answering positive" in said["verdict"]
    assert "at epoch 1 of the first fold only, 9 scans" in (run.folder / "best_config.yaml").read_text()
    assert "F1, first fold only" in text_of(run)


@pytest.mark.parametrize("folds", [None, {}])
def test_a_run_of_four_splits_says_so(begin_run: Callable[..., Any], measured: Any, folds: Any) -> None:
    run = begin_run()
    path = run.folder / "run.yaml"
    content = yaml.safe_load(path.read_text())
    content["data"]["folds"] = folds
    path.write_text(yaml.safe_dump(content))
    run.begin("0001", "lstm", {"units": [8]})
    run.epoch("0001", 1, measured(0.4, 0.4))
    said = write_report(run.folder)
    assert (said["dealt"], said["folds"]) == ("four splits: train 240, tune 40, validation 40, test 80", 0)
    assert "scans dealt four splits: train 240" in text_of(run)
    assert "fold" not in said["verdict"]
    assert rows(run)[0]["judged_on"] == "validation"
