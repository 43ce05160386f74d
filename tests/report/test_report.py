"""What every report keeps to, whatever the run: finished, going on, empty, failed, hostile."""

from __future__ import annotations

import io
import json
import math
import os
import pickle
import re
import subprocess
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tunelab import yamlfile
from tunelab.errors import StateError, StorageError
from tunelab.report import FILES, write_report
from tunelab.report.compare import hand_run
from tunelab.report.leaderboard import BASE

ROOT = Path(__file__).resolve().parents[2]
HOSTILE = '<script>alert("x")</script>\x1b[31mred\x1b[0m\x00\u202e{{ 1234*1000 }} $x_1$ & \u07fb \ud800'


def strictly(text: str) -> Any:
    def refuse(word: str) -> Any:
        raise AssertionError(f"{word} is no JSON")

    return json.loads(text, parse_constant=refuse)


class Page(HTMLParser):
    """The tags, links and text of a page, and whether its tags close."""

    VOID = frozenset({"meta", "br", "link", "path", "use"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str]] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def checked(run: Path) -> tuple[dict[str, Any], str]:
    """Write a report, check what every one must keep to, and return its JSON and its page's text."""
    content = write_report(run)
    assert strictly((run / "report.json").read_text()) == content
    page = Page((run / "report.html").read_text(encoding="utf-8"))
    assert page.open == []
    assert "script" not in page.tags
    assert page.tags.isdisjoint({"img", "link", "iframe", "object", "base", "form", "a"})
    for name, value in page.attributes:
        assert not name.startswith("on")
        if name in {"href", "xlink:href", "src"}:
            assert value.startswith("#")
        if name == "style":
            assert not re.search(r"url\((?!#)|@import|expression", value)
    assert "@import" not in (run / "report.html").read_text(encoding="utf-8")
    assert "\x1b" not in page.text
    table = pd.read_csv(run / "leaderboard.csv", dtype=str, keep_default_na=False)
    assert tuple(table.columns[: len(BASE)]) == BASE
    assert len(table) == content["trials"]
    assert (run / "best_config.yaml").exists() == (content["best"] is not None)
    known = {*FILES, "front", "run.yaml", "journal.jsonl", "run.lock", "lease.json"}
    assert {path.name for path in run.iterdir()} <= known
    return content, page.text


class TestFinished:
    def test_the_numbers_agree_everywhere(self, realistic_run: Path) -> None:
        content, text = checked(realistic_run)
        best = content["best"]
        table = pd.read_csv(realistic_run / "leaderboard.csv", dtype={"trial": str})
        assert content["trials"] == 22
        assert content["failed"] == 3
        assert content["status_counts"] == table["status"].value_counts().to_dict()
        assert content["positives"] == 480
        assert content["validation_traces"] == 4000
        assert content["always_positive_f1"] == pytest.approx(2 * 0.12 / 1.12, abs=1e-6)
        assert best["trial"] == table["trial"][0]
        assert best["val_f1"] == table["val_f1"][0] == table["val_f1"].max()
        assert best["test_f1"] == pytest.approx(best["val_f1"] - 0.04)
        assert best["test_f1_low"] < best["test_f1"] < best["test_f1_high"]
        assert best["test_average_precision_low"] < best["test_average_precision"]
        assert best["chosen_epoch"] == table["chosen_epoch"][0]
        assert best["test"]["split"] == "test"
        assert (best["test"]["scans"], best["test"]["positives"]) == (80, 951)
        said = (
            f"Trial {best['trial']} (conv_rnn) reaches a validation F1 of {best['val_f1']:.3f} "
            f"(40 scans, 4,000 traces, 480 positive, 95 % interval {best['val_f1_low']:.3f} to "
            f"{best['val_f1_high']:.3f}), "
            f"against 0.214 for always answering positive. On test, used once, its F1 is {best['test_f1']:.3f} "
            f"(80 scans, 8,000 traces, 951 positive, 95 % interval {best['test_f1_low']:.3f} to "
            f"{best['test_f1_high']:.3f}), against 0.212 for always answering positive."
        )
        assert content["verdict"] == said
        assert said in text
        assert "Closed (finished: all trials are over)" in text

    def test_the_same_files_give_the_same_bytes(self, realistic_run: Path) -> None:
        write_report(realistic_run)
        first = {name: (realistic_run / name).read_bytes() for name in FILES}
        script = "import sys, pathlib, tunelab.report; tunelab.report.write_report(pathlib.Path(sys.argv[1]))"
        environment = {**os.environ, "TZ": "Asia/Tokyo", "PYTHONHASHSEED": "5", "LC_ALL": "C"}
        subprocess.run([sys.executable, "-c", script, str(realistic_run)], check=True, cwd=ROOT, env=environment)
        assert {name: (realistic_run / name).read_bytes() for name in FILES} == first

    def test_the_page_says_how_to_repeat_the_run(self, realistic_run: Path) -> None:
        _, text = checked(realistic_run)
        for said in (
            "python -m tunelab.search search_spaces/gpr.yaml --data field --name field-7 --trials 22 --seed 7",
            "keras 3.15.0, tensorflow 2.21.0",
            "sha256:4f1c0e5b9a7d2368",
            "212 or 10,057 samples a trace; read with resample 512",
            "preprocessing as recorded; 212 samples, background scan",
            "scans of one survey line are kept in one split",
            "test 80 8,000 951 11.9 %",
        ):
            assert said in text

    def test_failures_are_grouped(self, realistic_run: Path) -> None:
        content, text = checked(realistic_run)
        assert content["causes"] == [
            {
                "cause": "ResourceExhaustedError: OOM when allocating tensor with shape[32,…,512]",
                "count": 3,
                "trials": ["0005", "0011", "0017"],
            }
        ]
        assert "failed 3 ResourceExhaustedError: OOM when allocating tensor with shape[32,…,512]" in text

    def test_the_hand_run_results_stand_beside_the_winner(self, realistic_run: Path) -> None:
        _, text = checked(realistic_run)
        assert "300 validation scans, 30,000 traces, 3,560 of them positive" in text
        assert "other data and other splits" in text
        for name in ("lstm1", "lstm6", "rnn5", "convrnn6"):
            assert f" {name} " in text
        assert "8 recurrent layers (100, 200, 300, 500, 500, 300, 200, 100), not 1 (" in text
        assert "All of them, and not the winner: class weight 1, not " in text

    def test_a_hand_run_configuration_that_was_run_again_is_shown(
        self, begin_run: Callable[..., Any], measured: Any
    ) -> None:
        run, known = begin_run(), {start.name: start for start in hand_run()}
        for trial, name, f1 in (("0001", "rnn5", 0.4), ("0002", "lstm1", 0.3), ("0003", "rnn2", 0.2)):
            params = dict(known[name].params) | ({"l2": 0.9} if name == "rnn2" else {})
            params.pop("family", None)
            run.begin(trial, known[name].family, {}, name=name, **params, decimate=4)
            run.epoch(trial, 1, measured(f1, f1))
        content, text = checked(run.folder)
        assert f" rnn5 dense_rnn 0.212 0.700 0.120 {content['best']['val_f1']:.3f} this is the winner" in text
        assert re.search(r" lstm1 lstm 0\.172 0\.620 0\.100 0\.300 lstm, not dense_rnn; ", text)
        assert re.search(r" rnn2 simple_rnn 0\.129 0\.310 0\.080 simple_rnn, not dense_rnn; ", text)

    def test_leaders_are_drawn(self, realistic_run: Path) -> None:
        content, text = checked(realistic_run)
        assert f"1 {content['best']['trial']}" in text
        assert "Average precision on tune" in text
        page = (realistic_run / "report.html").read_text()
        assert page.count("<svg") == 2
        identities = re.findall(r'\bid="([^"]+)"', page)
        assert len(identities) == len(set(identities))
        assert set(re.findall(r'url\(#([^)]+)\)|href="#([^"]+)"', page)) <= {(i, "") for i in identities} | {
            ("", i) for i in identities
        }

    def test_nothing_of_ray_is_opened(self, realistic_run: Path) -> None:
        class Trap:
            def __reduce__(self) -> Any:
                return (Path.touch, (realistic_run / "sprung",))

        for name in ("tuner.pkl", "experiment_state-2026.json", "searcher.pkl"):
            (realistic_run / name).write_bytes(pickle.dumps(Trap()))
        write_report(realistic_run)
        assert not (realistic_run / "sprung").exists()


class TestBestConfig:
    def test_it_holds_the_params_flat(self, realistic_run: Path) -> None:
        content, _ = checked(realistic_run)
        text = (realistic_run / "best_config.yaml").read_text()
        config = yamlfile.load(realistic_run / "best_config.yaml")
        best = content["best"]
        own = {"name", "epochs", "data", "seed", "threshold"}
        assert {key: value for key, value in config.items() if key not in own} == best["params"]
        assert config["name"] == f"field-7-{best['trial']}"
        assert config["epochs"] == {"max": 30, "patience": 10}
        assert config["data"] == {"resample": 512, "split_seed": 7}
        assert config["seed"] == 0, "the trial's own, not the run's"
        assert config["threshold"] == 0.31
        assert text.startswith(
            f"# The best configuration of the run field-7: trial {best['trial']}.\n# Validation F1 0."
        )
        assert "40 scans, 4,000 traces, 480 positive, 95 % interval 0." in text

    def test_words_that_look_like_numbers_stay_words(self, begin_run: Callable[..., Any], measured: Any) -> None:
        run = begin_run()
        shared = [1, 2]
        odd = {"a": "1e-5", "b": "no", "c": "0x1F", "d": 1e-5, "e": None, "f": shared, "g": shared, "h": "a: b # c\nd"}
        run.begin("0001", "lstm", {}, name="12", **odd)
        run.epoch("0001", 1, measured(0.4, 0.4))
        checked(run.folder)
        config = yamlfile.load(run.folder / "best_config.yaml")
        assert {key: config[key] for key in odd} == odd
        assert config["name"] == "12"
        assert yaml.safe_load((run.folder / "best_config.yaml").read_text()) == config

    def test_one_of_an_earlier_report_is_removed_when_nothing_leads(
        self, begin_run: Callable[..., Any], measured: Any
    ) -> None:
        run = begin_run()
        run.begin("0001", "lstm", {})
        run.epoch("0001", 1, measured(0.4, 0.4))
        assert checked(run.folder)[0]["best"]["trial"] == "0001"
        run.end("0001", "failed", "ValueError: NaN loss")
        assert checked(run.folder)[0]["best"] is None


class TestUnfinished:
    def test_no_journal_yet(self, begin_run: Callable[..., Any]) -> None:
        folder = begin_run().stop()
        (folder / "journal.jsonl").unlink()
        content, text = checked(folder)
        assert content["verdict"] == "No trial has begun yet."
        assert content["best"] is None
        assert content["trials"] == content["failed"] == 0
        assert "Nothing recorded yet." in text

    def test_a_trial_without_an_epoch(self, begin_run: Callable[..., Any]) -> None:
        run = begin_run()
        run.begin("0001", "lstm", {"units": [100]})
        content, _ = checked(run.folder)
        assert content["verdict"] == "No trial has a validation F1 yet: 1 running."
        assert content["status_counts"] == {"running": 1}

    def test_a_run_going_on(self, begin_run: Callable[..., Any], measured: Any) -> None:
        run = begin_run()
        run.begin("0001", "lstm", {"units": [100]})
        run.epoch("0001", 1, measured(0.3, 0.3))
        content, text = checked(run.folder)
        assert "Not closed: still going on, or cut off" in text
        assert content["best"]["test_f1"] is None
        assert content["best"]["val_f1_low"] is None
        assert content["best"]["validation"]["scans"] == 40
        assert content["verdict"].endswith(
            "(40 scans, 4,000 traces, 480 positive, no interval computed), "
            "against 0.214 for always answering positive. It has not been judged on test yet."
        )

    def test_a_torn_last_line(self, begin_run: Callable[..., Any], measured: Any) -> None:
        run = begin_run()
        run.begin("0001", "lstm", {})
        run.epoch("0001", 1, measured(0.3, 0.3))
        with (run.folder / "journal.jsonl").open("ab") as journal:
            journal.write(b'{"seq":3,"ki')
        assert checked(run.folder)[0]["best"]["trial"] == "0001"

    def test_the_test_result_of_another_trial_is_not_the_winners(
        self, begin_run: Callable[..., Any], measured: Any
    ) -> None:
        run = begin_run()
        for trial, f1 in (("0001", 0.3), ("0002", 0.5)):
            run.begin(trial, "lstm", {})
            run.epoch(trial, 1, measured(f1, f1))
            run.end(trial)
            if trial == "0001":
                run.final("0001", 1)
        content, _ = checked(run.folder)
        assert content["best"]["trial"] == "0002"
        assert content["best"]["test_f1"] is None
        said = "Test was used for trial 0001, the leader of that time; this one was not judged there."
        assert content["verdict"].endswith(said)


class TestPoor:
    def test_every_trial_failed(self, begin_run: Callable[..., Any], measured: Any) -> None:
        run = begin_run()
        for number, cause in enumerate(["ValueError: at 0x7f11", "ValueError: at 0x7f22", "MemoryError", ""]):
            run.begin(f"{number:04}", "lstm", {})
            if number == 0:
                run.epoch("0000", 1, measured(0.9, 0.9))
            run.end(f"{number:04}", "failed", cause)
        content, text = checked(run.close())
        assert content["verdict"] == "No trial succeeded: all 4 failed; the causes are below."
        assert content["best"] is None
        assert [(group["cause"], group["count"]) for group in content["causes"]] == [
            ("ValueError: at …", 2),
            ("MemoryError", 1),
            ("not said", 1),
        ]
        assert "failed 2 ValueError: at …" in text

    def test_undefined_f1_is_never_ranked(self, begin_run: Callable[..., Any], measured: Any) -> None:
        run = begin_run()
        run.begin("0001", "lstm", {})
        run.epoch("0001", 1, dict.fromkeys(measured(0.1, 0.1), math.nan))
        content, _ = checked(run.folder)
        assert content["best"] is None
        table = (run.folder / "leaderboard.csv").read_text().splitlines()[1]
        assert table.startswith(",0001,,lstm,running,1,11.5,52000,,,,")
        run.begin("0002", "lstm", {})
        run.epoch("0002", 1, measured(0.0, 0.1))
        assert checked(run.folder)[0]["best"]["trial"] == "0002"

    @pytest.mark.parametrize(
        ("low", "said"),
        [
            (0.3, "against 0.214 for always answering positive"),
            (0.2, "not clearly above always answering positive, which scores 0.214"),
        ],
    )
    def test_a_doubtful_winner_is_called_so(
        self, begin_run: Callable[..., Any], measured: Any, low: float, said: str
    ) -> None:
        run = begin_run()
        run.begin("0001", "lstm", {})
        run.epoch("0001", 1, measured(0.33, 0.3))
        run.final("0001", 1, validation=low + 0.07)
        assert said in checked(run.folder)[0]["verdict"]

    def test_a_winner_below_always_positive_is_called_so(self, begin_run: Callable[..., Any], measured: Any) -> None:
        run = begin_run()
        run.begin("0001", "lstm", {})
        run.epoch("0001", 1, measured(0.15, 0.13))
        said = "no better than always answering positive, which scores 0.214"
        assert said in checked(run.folder)[0]["verdict"]

    def test_a_run_that_says_little(self, begin_run: Callable[..., Any], measured: Any) -> None:
        run = begin_run()
        run.begin("0001", "lstm", {})
        run.epoch("0001", 1, {"tune_average_precision": 0.2, "val_f1": 0.3})
        (run.folder / "run.yaml").write_text("name: small\nfuture: {key: 1}\n")
        content, _ = checked(run.folder)
        assert content["always_positive_f1"] is None
        assert content["best"]["threshold"] is None
        assert content["verdict"].startswith(
            "Trial 0001 (lstm) reaches a validation F1 of 0.300 (no interval computed). "
        )


class TestHostile:
    def test_nothing_comes_alive(self, begin_run: Callable[..., Any], measured: Any) -> None:
        run = begin_run(name=HOSTILE[:-1], command=HOSTILE[:-1], dimensions=["a", "rank", HOSTILE[:-1]])
        point = {"a": HOSTILE, "rank": [HOSTILE], HOSTILE[:-1]: {"x": HOSTILE}}
        run.begin("0001", HOSTILE, point, name=HOSTILE)
        run.epoch("0001", 1, measured(0.3, 0.3))
        run.begin("0002", "lstm", {"a": "=1+1"})
        run.epoch("0002", 1, measured(0.2, 0.2))
        run.begin("0003", "lstm", {"a": "x" * 10_000}, name="n" * 10_000)
        run.end("0003", "failed", HOSTILE * 500)
        _, text = checked(run.folder)
        shown = '<script>alert("x")</script>red{{ 1234*1000 }} $x_1$ & \u07fb'
        assert shown in text
        assert "1234000" not in text
        assert "<script" not in (run.folder / "report.html").read_text()
        table = (run.folder / "leaderboard.csv").read_text()
        assert "\x1b" not in table
        assert "\x00" not in table
        assert "x" * 300 not in text
        assert yamlfile.load(run.folder / "best_config.yaml")["name"].startswith("<script>")

    def test_a_trial_whose_name_could_be_a_path_is_refused(self, begin_run: Callable[..., Any]) -> None:
        run = begin_run()
        run.begin("../0001", "lstm", {"a": 1})
        with pytest.raises(StateError, match=r"record 1 \(suggestion\): ValueError '\.\./0001' is no trial"):
            write_report(run.folder)


class TestLeaderboard:
    def test_ranked_first_and_undefined_empty(self, begin_run: Callable[..., Any], measured: Any) -> None:
        run = begin_run(dimensions=["units", "threshold", "l2"])
        run.begin("0001", "lstm", {"units": [100, 200], "threshold": 3})
        run.end("0001", "failed", "boom")
        run.begin("0002", "lstm", {"units": [64], "l2": 1e-4})
        run.epoch("0002", 1, measured(0.0, 0.2))
        run.begin("0003", "conv_rnn", {"l2": 0.5}, name="known")
        run.epoch("0003", 1, measured(0.4, 0.4))
        run.epoch("0003", 2, measured(0.5, 0.3))
        write_report(run.folder)
        table = pd.read_csv(io.StringIO((run.folder / "leaderboard.csv").read_text()), dtype=str, keep_default_na=False)
        assert list(table.columns) == [
            "rank", "trial", "name", "family", "status", "epochs", "seconds", "parameters", "val_f1", "threshold",
            "val_f1_at_half", "val_average_precision", "precision", "recall", "tp", "fp", "fn", "mean_jaccard",
            "chosen_epoch", "tn", "tune_average_precision", "cause", "judged_on", "predict_ms", "breaks", "front",
            "fidelity", "of",
            "units", "threshold_param", "l2",
        ]  # fmt: skip
        rows = table.to_dict("records")
        assert [(row["rank"], row["trial"], row["status"]) for row in rows] == [
            ("1", "0003", "running"),
            ("2", "0002", "running"),
            ("", "0001", "failed"),
        ]
        assert (rows[0]["epochs"], rows[0]["chosen_epoch"], rows[0]["name"]) == ("2", "1", "known")
        assert float(rows[0]["val_f1"]) == pytest.approx(0.4, abs=0.01)
        assert rows[0]["units"] == ""
        assert (rows[1]["units"], rows[1]["l2"], rows[1]["precision"]) == ("[64]", "0.0001", "0.0")
        assert (rows[1]["tp"], rows[1]["fp"], rows[1]["fn"]) == ("0", "12", "480")
        assert (rows[2]["units"], rows[2]["threshold_param"]) == ("[100, 200]", "3")
        assert (rows[2]["epochs"], rows[2]["val_f1"], rows[2]["parameters"], rows[2]["cause"]) == ("", "", "", "boom")


class TestDamage:
    def test_no_run(self, tmp_path: Path) -> None:
        with pytest.raises(StateError) as caught:
            write_report(tmp_path)
        said = "cannot be read: No such file or directory; name the folder of a run"
        assert str(caught.value) == f"{tmp_path}/run.yaml: {said}"

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("name: [", "line 2: is no YAML; restore the file from a copy"),
            ("name: a\nseed: seven\n", "seed: Input should be a valid integer"),
            ("- a\n", "the file: Input should be a valid dictionary"),
            ("name: !!python/object/apply:os.system [id]\n", "line 1: is no YAML; restore the file from a copy"),
        ],
    )
    def test_a_damaged_run_file(self, begin_run: Callable[..., Any], text: str, said: str) -> None:
        folder = begin_run().stop()
        (folder / "run.yaml").write_text(text)
        with pytest.raises(StateError) as caught:
            write_report(folder)
        assert str(caught.value).startswith(f"{folder}/run.yaml: {said}")

    def test_a_damaged_journal(self, realistic_run: Path) -> None:
        lines = (realistic_run / "journal.jsonl").read_bytes().splitlines(keepends=True)
        lines[5] = lines[5].replace(b"0", b"1", 1)
        (realistic_run / "journal.jsonl").write_bytes(b"".join(lines))
        with pytest.raises(StateError, match=r"journal.jsonl: line 6: does not match its digest"):
            write_report(realistic_run)

    def test_a_folder_in_the_way(self, realistic_run: Path) -> None:
        (realistic_run / "leaderboard.csv").mkdir()
        with pytest.raises(StorageError, match=r"leaderboard.csv: cannot be written: Is a directory"):
            write_report(realistic_run)
        assert not list(realistic_run.glob(".*"))


def test_a_report_needs_no_framework() -> None:
    script = (
        "import sys, tunelab.report, tunelab.report.html, tunelab.report.leaderboard, tunelab.storage\n"
        "print({name.split('.')[0] for name in sys.modules} & {'tensorflow', 'keras', 'ray', 'torch', 'jax', 'optuna'})"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT)
    assert ran.stdout == "set()\n"


NUMBERS = st.one_of(st.none(), st.floats(0, 1), st.sampled_from([0.0, 1.0, math.inf]))
POINTS = st.dictionaries(
    st.sampled_from(["units", "l2", "rank", "a b"]),
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text(),
              st.lists(st.integers(0, 500), max_size=4)),
)  # fmt: skip
TRIALS = st.lists(
    st.tuples(
        st.text(max_size=12),
        st.sampled_from(["lstm", "conv_rnn"]),
        POINTS,
        st.lists(st.tuples(NUMBERS, NUMBERS, NUMBERS), max_size=3),
        st.sampled_from(["running", "finished", "stopped", "failed", "interrupted"]),
        st.text(max_size=30),
    ),
    max_size=6,
)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(trials=TRIALS)
def test_any_table_of_trials_has_a_report(begin_run: Callable[..., Any], trials: list[Any]) -> None:
    run = begin_run(dimensions=["units", "l2", "rank", "a b"])
    for number, (name, family, point, epochs, status, cause) in enumerate(trials):
        trial = f"{number:04}"
        run.begin(trial, family, point, name=name)
        for epoch, (f1, dense, counted) in enumerate(epochs, start=1):
            run.epoch(
                trial, epoch, {"val_f1": f1, "tune_average_precision": dense, "tp": counted, "threshold": counted}
            )
        if status != "running":
            run.end(trial, status, cause)
    content, _ = checked(run.stop())
    table = pd.read_csv(run.folder / "leaderboard.csv", dtype=str, keep_default_na=False)
    ranks = [rank for rank in table["rank"] if rank]
    assert ranks == [str(n) for n in range(1, len(ranks) + 1)]
    assert (content["best"] is None) == (not ranks)
    if ranks:
        assert table["val_f1"][0] == str(content["best"]["val_f1"])
        yamlfile.load(run.folder / "best_config.yaml")


class TestAims:
    """Objectives and constraints; ``begin_run`` gives a run without any, and a change sets them."""

    TRIALS = (
        *(("0001", 0.5, 9000), ("0002", 0.6, 200_000), ("0003", 0.3, 4000)),
        *(("0004", 0.2, 5000), ("0005", 0.9, 10**6)),
    )

    def fill(self, run: Any, measured: Any, *constraints: str, objectives: tuple[str, ...]) -> None:
        aims = {"objectives": list(objectives), "constraints": list(constraints)}
        run.journal.append("change", changes={}, identity={"space": aims})
        for trial, f1, parameters in self.TRIALS:
            run.begin(trial, "lstm", {"units": [8]}, name="=1+1" if trial == "0003" else "")
            told = measured(f1, f1) | {"predict_ms": parameters / 1e5}
            run.epoch(trial, 1, told, parameters=parameters)
            run.end(trial)
        run.begin("0006", "lstm", {"units": [8]})
        run.end("0006", "failed", "boom")

    def test_the_front_is_told_everywhere_and_test_judges_the_winner_alone(
        self, begin_run: Callable[..., Any], measured: Any
    ) -> None:
        run = begin_run()
        self.fill(run, measured, "parameters <= 5e5", objectives=("f1", "-parameters"))
        run.final("0002", 1)
        content, text = checked(run.folder)
        assert content["best"]["trial"] == "0002"
        assert (content["objectives"], content["constraints"]) == (["f1", "-parameters"], ["parameters <= 500000"])
        assert content["breaking"] == 1
        front = content["front"]
        assert [(one["trial"], one["rank"], one["tested"]) for one in front] == [
            ("0002", 1, True),
            ("0001", 2, False),
            ("0003", 3, False),
        ]
        assert front[2]["values"] == {"f1": pytest.approx(0.3, abs=0.01), "parameters": 4000}
        assert content["verdict"].endswith(
            "1 of 5 trials break the constraints (parameters <= 500000) and rank below all that keep them. "
            "On the front of f1, -parameters: 3 trials; test judges the winner alone."
        )
        table = pd.read_csv(run.folder / "leaderboard.csv", dtype=str, keep_default_na=False).set_index("trial")
        assert table["breaks"].to_dict() == dict.fromkeys(table.index, "") | {"0005": "parameters <= 500000"}
        assert table["front"].to_dict() == {
            **dict.fromkeys(("0001", "0002", "0003"), "True"),
            **dict.fromkeys(("0004", "0005"), "False"),
            "0006": "",
        }
        assert list(table["rank"]) == ["1", "2", "3", "4", "5", ""]
        assert table["predict_ms"]["0003"] == "0.04"
        assert "The front: F1 and parameters" in text
        assert "Test was kept for the winner; the others were not judged there" in text
        assert re.search(r"3 0003 =1\+1 lstm 0\.300 4,000 front/0003\.yaml not judged", text)
        assert re.search(r"1 0002 lstm 0\.\d{3} 200,000 front/0002\.yaml judged once", text)
        assert "below here a constraint is broken: parameters <= 500000" in text
        assert text.count("†") == 2, "beside the one trial, and where the mark is explained"
        assert "ms a scan" not in text, "nothing aims at it"
        assert (run.folder / "report.html").read_text().count('aria-label="Trials by') == 1

    def test_each_trial_of_the_front_has_a_configuration_and_only_those_have(
        self, begin_run: Callable[..., Any], measured: Any
    ) -> None:
        run = begin_run()
        self.fill(run, measured, objectives=("f1", "-parameters"))
        checked(run.folder)
        folder = run.folder / "front"
        assert sorted(path.name for path in folder.iterdir()) == ["0001.yaml", "0002.yaml", "0003.yaml", "0005.yaml"]
        config = yamlfile.load(folder / "0003.yaml")
        assert (config["family"], config["units"], config["threshold"]) == ("lstm", [8], 0.31)
        assert config.keys() == yamlfile.load(run.folder / "best_config.yaml").keys()
        head = (folder / "0003.yaml").read_text().splitlines()[:4]
        assert head[0] == "# On the front of f1, -parameters of the run field-7: trial 0003 (=1+1)."
        assert head[3] == "# Train it again: tunelab train 0003.yaml --data PATH"
        before = {path.name: path.stat().st_ino for path in folder.iterdir()}
        run.begin("0007", "lstm", {"units": [4]})
        run.epoch("0007", 1, measured(0.4, 0.4), parameters=3000)
        checked(run.folder)
        names = {path.name: path.stat().st_ino for path in folder.iterdir()}
        assert sorted(names) == ["0001.yaml", "0002.yaml", "0005.yaml", "0007.yaml"], "0003 is beaten now"
        assert names["0001.yaml"] == before["0001.yaml"], "what has not changed is not written again"
        run.journal.append("change", changes={}, identity={"space": {}})
        assert checked(run.folder)[0]["front"] is None
        assert not folder.exists()

    def test_where_none_keeps_the_constraints_the_report_says_so_and_who_comes_nearest(
        self, begin_run: Callable[..., Any], measured: Any
    ) -> None:
        run = begin_run()
        self.fill(run, measured, "parameters <= 3900", "f1 >= 0.4", objectives=("f1", "-parameters"))
        content, text = checked(run.folder)
        assert content["best"] is None
        assert content["front"] == []
        assert content["breaking"] == 5
        assert content["verdict"] == (
            "No winner: none of 5 trials with a validation F1 keeps the constraints (parameters <= 3900, f1 >= 0.4). "
            "Nearest comes trial 0003 (lstm, 4,000 parameters, validation F1 0.300), which breaks "
            "parameters <= 3900, f1 >= 0.4. Loosen them, or widen the space."
        )
        assert content["verdict"] in text
        assert "No trial is on it yet." in text
        assert not (run.folder / "front").exists()

    def test_one_objective_has_no_front_and_three_have_no_figure(
        self, begin_run: Callable[..., Any], measured: Any
    ) -> None:
        run = begin_run()
        self.fill(run, measured, "predict_ms <= 5", objectives=("f1",))
        content, text = checked(run.folder)
        assert content["front"] is None
        assert content["best"]["trial"] == "0002"
        assert "The front" not in text
        assert "Milliseconds that a model takes to answer a scan" in text
        table = pd.read_csv(run.folder / "leaderboard.csv", dtype=str, keep_default_na=False)
        assert set(table["front"]) == {""}
        self_aims = {"objectives": ["f1", "-parameters", "-predict_ms"]}
        run.journal.append("change", changes={}, identity={"space": self_aims})
        content, text = checked(run.folder)
        assert [one["trial"] for one in content["front"]] == ["0005", "0002", "0001", "0003"]
        assert "The front: F1, parameters and ms a scan" in text
        assert "3 0001 lstm 0." in text
        assert "9,000 0.09 front/0001.yaml" in text
        assert "Trials by" not in (run.folder / "report.html").read_text()

    def test_undefined_values_are_drawn_by_nobody(self, begin_run: Callable[..., Any], measured: Any) -> None:
        run = begin_run()
        run.journal.append("change", identity={"space": {"objectives": ["f1", "-predict_ms"]}})
        run.begin("0001", "lstm", {})
        run.epoch("0001", 1, measured(0.4, 0.4))
        content, _ = checked(run.folder)
        assert content["front"][0]["values"] == {"f1": pytest.approx(0.4, abs=0.01), "predict_ms": None}
        assert "Trials by" not in (run.folder / "report.html").read_text()
        run.begin("0002", "lstm", {})
        run.epoch("0002", 1, dict.fromkeys(measured(0.1, 0.1), math.nan) | {"predict_ms": 2.0})
        content, text = checked(run.folder)
        assert [(one["trial"], one["rank"]) for one in content["front"]] == [("0001", 1), ("0002", None)]
        assert "– 0002 lstm – 2 front/0002.yaml" in text  # noqa: RUF001 - the dash of tables


def test_trials_at_a_lower_fidelity_never_lead_and_are_told_apart(begin_run: Callable[..., Any], measured: Any) -> None:
    run = begin_run()
    low, params = {"decimation": 4}, {"family": "lstm"}

    def trial(name: str, f1: float, **more: Any) -> None:
        fields = {"name": "", "seed": 0, "family": "lstm", "params": params, "point": {}}
        run.journal.append("suggestion", trial=name, **fields, **more)
        run.epoch(name, 1, measured(f1, f1))
        run.end(name)

    trial("0001", 0.7, fidelity=low, of="")
    trial("0002", 0.6, fidelity=low, of="")
    found, page = checked(run.folder)
    assert found["best"] is None
    assert found["verdict"] == "No trial has been trained in full yet: 2 finished."
    trial("0003", 0.3, fidelity={}, of="0001")
    found, page = checked(run.folder)
    assert (found["best"]["trial"], found["trials"], found["configurations"]) == ("0003", 3, 2)
    table = pd.read_csv(run.folder / "leaderboard.csv", dtype=str, keep_default_na=False)
    assert table[["rank", "trial", "fidelity", "of"]].to_numpy().tolist() == [
        ["1", "0003", "full", "0001"],
        ["2", "0001", "at 1/4 of the samples", ""],
        ["3", "0002", "at 1/4 of the samples", ""],
    ]
    assert "at 1/4 of the samples, not comparable with those above" in page
    assert "finished at 1/4 of the samples" in page
    assert "below those trained in full, trials at a lower fidelity" in page
