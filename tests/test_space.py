from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from tunelab.aims import Aims
from tunelab.cli import main
from tunelab.domains import Choice, Fixed, Float, Int, Outside
from tunelab.errors import SpaceError
from tunelab.models import check_space, locate, normalise, starts
from tunelab.space import Space, load_space, shipped

SHIPPED = ["families.yaml", "quick.yaml", "seed.yaml"]
RNN = "families:\n  simple_rnn: {units: [8], dropout: 0.1, l2: 0.01}\n"


@pytest.fixture
def space(tmp_path):
    """A function: text of a space -> the space, checked by its families."""

    def make(text: str) -> Space:
        path = tmp_path / "my.yaml"
        path.write_text(text)
        found = load_space(path)
        check_space(found)
        return found

    return make


def draw(space: Space, seed: int = 0) -> dict:
    return space.sample(np.random.default_rng(seed))


# What is refused. `file: key` and the remedy are in the message, the exit code is 2.

REFUSED = [
    # unknown keys and their nearest ones
    ("trails: 3\n" + RNN, "trails: no such key; did you mean 'trials'?"),
    ("list: 3\n" + RNN, "list: no such key; known are constraints, data, early_stopping, epochs, families,"),
    ("epochs: {maximum: 3}\n" + RNN, "epochs.maximum: no such key; did you mean 'max'?"),
    ("early_stopping: {gracee: 3}\n" + RNN, "early_stopping.gracee: no such key; did you mean 'grace'?"),
    ("data: {resampel: 64}\n" + RNN, "data.resampel: no such key; did you mean 'resample'?"),
    ("resources: {cpu: 1}\n" + RNN, "resources.cpu: no such key; did you mean 'cpus'?"),
    ("families: {lsmt: {units: [8]}}\n", "families.lsmt: family: 'lsmt' is none; did you mean 'lstm'?"),
    (
        "families: {simple_rnn: {units: [8], dropuot: 0.1, l2: 0.01}}\n",
        "families.simple_rnn: dropuot: no such key; did you mean 'dropout'?",
    ),
    ("shared: {learning_rat: 0.1}\n" + RNN, "shared.learning_rat: simple_rnn has no such key; did you mean 'learning_"),
    ("families: {simple_rnn: {units: [8], l2: 0.01}}\n", "families.simple_rnn: dropout: missing; write a value"),
    (
        "families: {conv_rnn: {convolutions: [{filters: 4, kernal: 3, stride: 1}], reduce: flatten,"
        " dense: {units: 8, activation: relu}, units: [8], dropout: 0, l2: 0}}\n",
        "families.conv_rnn: convolutions.0.kernal: no such key; did you mean 'kernel'?",
    ),
    (
        "families: {conv_rnn: {convolutions: {repeat: 1, of: {filters: 4, kernel: {int: [3, 5]}, stride: 1, pool:"
        " {size: {choice: [2, 3]}, strid: 1}}}, reduce: flatten, dense: {units: 8, activation: relu}, units: [8],"
        " dropout: 0, l2: 0}}\n",
        "families.conv_rnn: convolutions.0.pool.strid: no such key; did you mean 'stride'?",
    ),
    (
        RNN + "start_from: [{name: a, family: simple_rnn, unit: [8]}]\n",
        "start_from.0 (a): unit: no such key; did you m",
    ),
    # aims
    ("objectives: f1\n" + RNN, "objectives: must be a list of texts, such as [f1, -parameters], not 'f1'"),
    ("objectives: []\n" + RNN, "objectives: names none; write [f1, -parameters], or leave the key out"),
    (
        "objectives: [{f1: 1}]\n" + RNN,
        "objectives: must be a list of texts, such as [f1, -parameters], not [{'f1",
    ),
    ("objectives: [f1, -parametrs]\n" + RNN, "objectives.1: 'parametrs' can be no aim; did you mean 'parameters'?"),
    ("objectives: [f1, parameters]\n" + RNN, "objectives.1: parameters: fewer are better; write -parameters"),
    ("objectives: [predict_ms]\n" + RNN, "objectives.0: predict_ms: less is better; write -predict_ms"),
    ("objectives: [-recall]\n" + RNN, "objectives.0: recall: more is better; write recall, without '-'"),
    ("objectives: [f1, recall, f1]\n" + RNN, "objectives.2: 'f1' stands twice; remove one"),
    (
        "constraints: parameters <= 1\n" + RNN,
        "constraints: must be a list of texts, such as [parameters <= 1e6, rec",
    ),
    ("constraints: [recall > 0.5]\n" + RNN, "constraints.0: 'recall > 0.5' is no constraint; write NAME <= NUMBER or"),
    ("constraints: [recal >= 0.5]\n" + RNN, "constraints.0: 'recal' can be no aim; did you mean 'recall'?"),
    ("constraints: [recall >= half]\n" + RNN, "constraints.0: 'half' is no number; write one such as 1e6 or 0.5"),
    ("constraints: [parameters <= 1e999]\n" + RNN, "constraints.0: '1e999' is no number; write one such as"),
    ("constraints: [parameters <= 1_000]\n" + RNN, "constraints.0: '1_000' is no number; write one such as"),
    ("constraints: [predict_ms <= 0]\n" + RNN, "constraints.0: the limit of predict_ms must be above 0, not 0; write"),
    ("constraints: [recall >= 50]\n" + RNN, "constraints.0: the limit of recall must be from 0 to 1, not 50; write su"),
    ("constraints: [f1 >= 0.1, f1 >= 0.2]\n" + RNN, "constraints.1: f1 has the limit f1 >= 0.1 already; remove one"),
    (
        "constraints: [parameters <= 10, parameters >= 11]\n" + RNN,
        "constraints.1: nothing keeps both parameters <= 10 and parameters >= 11; change one",
    ),
    # domains
    ("shared: {l2: {loguniforn: [1, 2]}}\n" + RNN, "shared.l2: 'loguniforn' is no kind of domain; did you mean 'logun"),
    ("shared: {l2: {uniform: [0.2, 0.1]}}\n" + RNN, "shared.l2: low 0.2 is not below high 0.1; swap them, or write"),
    ("shared: {l2: {uniform: [0.2, 0.2]}}\n" + RNN, "shared.l2: low 0.2 is not below high 0.2"),
    ("shared: {l2: {int: [5, 3]}}\n" + RNN, "shared.l2: low 5 is not below high 3"),
    (
        "shared: {l2: {loguniform: [0, 1]}}\n" + RNN,
        "shared.l2: loguniform starts at 0, which has no logarithm; start a",
    ),
    ("shared: {l2: {loguniform: [-1, 1]}}\n" + RNN, "shared.l2: loguniform starts at -1, which has no logarithm"),
    ("shared: {l2: {log_int: [0, 8]}}\n" + RNN, "shared.l2: log_int starts at 0, which has no logarithm"),
    ("shared: {l2: {uniform: [.nan, 1]}}\n" + RNN, "shared.l2: nan is no number to search with"),
    ("shared: {l2: {uniform: [0, .inf]}}\n" + RNN, "shared.l2: inf is no number to search with"),
    ("shared: {l2: .nan}\n" + RNN, "shared.l2: nan is no number to search with; write a finite one"),
    ("shared: {l2: {fixed: .nan}}\n" + RNN, "shared.l2: nan is no number"),
    ("shared: {l2: {choice: [{a: [.nan]}]}}\n" + RNN, "shared.l2: nan is no number"),
    ("shared: {l2: {int: [0, 99999999999999999999]}}\n" + RNN, "shared.l2: 99999999999999999999 is too large to sear"),
    ("shared: {l2: {uniform: [-1e308, 1e308]}}\n" + RNN, "shared.l2: -1e+308 is too large to search with"),
    ("shared: {l2: {choice: []}}\n" + RNN, "shared.l2: choice needs a list of at least one value, not []"),
    ("shared: {l2: {choice: 3}}\n" + RNN, "shared.l2: choice needs a list of at least one value, not 3"),
    ("shared: {l2: {choice: [1, 2, 1.0]}}\n" + RNN, "shared.l2: choice names a value twice in [1, 2, 1.0]; remove one"),
    ("shared: {l2: {uniform: [1]}}\n" + RNN, "shared.l2: uniform needs [low, high], not [1]"),
    ("shared: {l2: {uniform: [1, 2, 3]}}\n" + RNN, "shared.l2: uniform needs [low, high], not [1, 2, 3]"),
    ("shared: {l2: {int: [1, 2.5]}}\n" + RNN, "shared.l2: int needs whole numbers, not 2.5"),
    ("shared: {l2: {uniform: [no, 2]}}\n" + RNN, "shared.l2: uniform needs numbers, not 'no'"),
    ("shared: {l2: {uniform: [true, 2]}}\n" + RNN, "shared.l2: uniform needs numbers, not True"),
    ("shared: {l2: {int: [1, 8, 3]}}\n" + RNN, "shared.l2: the step 3 does not lead from 1 to 8"),
    ("shared: {l2: {int: [1, 8, 0]}}\n" + RNN, "shared.l2: the step 0 does not lead from 1 to 8"),
    (
        "shared: {l2: {int: [1, 8], uniform: [0, 1]}}\n" + RNN,
        "shared.l2: 'uniform' cannot stand beside 'int'; leave it",
    ),
    ("shared: {a.b: 1}\n" + RNN, "shared: 'a.b' is no name of a dimension"),
    (
        'shared: {"\\e[31m": 1}\n' + RNN,
        r"shared: '\x1b[31m' is no name of a dimension; it has 1 to 60 letters and no dot",
    ),
    ('"\\e[31m": 1\n' + RNN, r"'\x1b[31m': no such key; known are constraints, data,"),
    ("shared: {'': 1}\n" + RNN, "shared: '' is no name of a dimension"),
    ("shared: {family: {choice: [lstm, simple_rnn]}}\n" + RNN, "shared.family: is no dimension; families stand below"),
    (
        "families: {lstm: {family: simple_rnn, units: [8], dropout: 0, l2: 0}}\n",
        "families.lstm.family: is no dimension",
    ),
    # repeat
    ("shared: {l2: {repeat: 2}}\n" + RNN, "shared.l2: repeat needs 'of', the dimension that is repeated"),
    ("shared: {l2: {repeat: 0, of: 1}}\n" + RNN, "shared.l2.repeat: must be a number, {int: [low, high]}, or names of"),
    ("shared: {l2: {repeat: {int: [-1, 2]}, of: 1}}\n" + RNN, "shared.l2.repeat: a list cannot have -1 items"),
    ("shared: {l2: {repeat: {int: [3, 2]}, of: 1}}\n" + RNN, "shared.l2.repeat: low 3 is not below high 2"),
    (
        "shared: {unit: [1], l2: {repeat: units, of: 1}}\n" + RNN,
        "shared.l2.repeat: 'units' stands not beside it; did y",
    ),
    ("shared: {l2: {repeat: l2, of: 1}}\n" + RNN, "shared.l2.repeat: 'l2' stands not beside it"),
    (
        "shared: {a: {repeat: b, of: 1}, b: {repeat: a, of: 1}}\n" + RNN,
        "shared.a.repeat: 'b' is no list of its own len",
    ),
    ("shared: {a: {repeat: b, of: 1}, b: {int: [1, 2]}}\n" + RNN, "shared.a.repeat: 'b' is no list of its own length"),
    ("shared: {a: {repeat: b, of: 1}, b: {choice: []}}\n" + RNN, "shared.b: choice needs a list"),
    (
        "shared: {a: {repeat: b, of: 1}, b: {repeat: {int: [1, x]}, of: 1}}\n" + RNN,
        "shared.a.repeat: 'b' is no list of",
    ),
    ("shared: {a: {repeat: 1000000000, of: 1}}\n" + RNN, "shared.a: a list of up to 1,000,000,001 values is more than"),
    (
        "shared: {a: {repeat: 1000, of: {repeat: 1000, of: {int: [1, 2]}}}}\n" + RNN,
        "shared.a: a list of up to 1,001,001 values is more than 10,000; repeat less often",
    ),
    (
        "shared: {units: {repeat: {int: [1, 2]}, of: 8}, dropout: {repeat: units, of: {uniform: [0, 0.5]}}}\n"
        "families: {simple_rnn: {units: [4, 4, 4], l2: 0}}\n",
        "families.simple_rnn.units: shared.dropout is as long as the shared 'units'; write 'dropout' here as well",
    ),
    # the rest of the file
    ("name: x\n", "families: missing, and no start_from either; name at least one family"),
    ("families: {simple_rnn: 3}\n", "families.simple_rnn: must be a mapping of dimensions, not 3"),
    ("families: [lstm]\n", "families: Input should be a valid dictionary, not ['lstm']"),
    ("trials: 0\n" + RNN, "trials: Input should be greater than or equal to 1, not 0"),
    ("epochs: {max: .nan}\n" + RNN, "epochs.max: Input should be"),
    ("early_stopping: {reduction: .nan}\n" + RNN, "early_stopping.reduction: Input should be a finite number, not nan"),
    ("early_stopping: {reduction: .inf}\n" + RNN, "early_stopping.reduction: Input should be a finite number, not inf"),
    ("resources: {custom: {GPU: 1}}\n" + RNN, "resources.custom: GPU: 1: cpus and gpus have keys of their own"),
    (
        "resources: {custom: {T4: 0}}\n" + RNN,
        "resources.custom: T4: 0: cpus and gpus have keys of their own, and others",
    ),
    ("resources: {cpus: .inf}\n" + RNN, "resources.cpus: Input should be a finite number, not inf"),
    ("early_stopping: {reduction: 1}\n" + RNN, "early_stopping.reduction: Input should be greater than 1, not 1"),
    ("shared: {l2: 1}\nshared: {l2: 2}\n" + RNN, "line 2: the key 'shared' stands twice; remove one"),
    ("shared: {l2: 1, l2: 2}\n" + RNN, "line 1: the key 'l2' stands twice; remove one"),
    ("shared: {l2: !!python/object:os.system x}\n" + RNN, "line 1: the tag tag:yaml.org,2002:python/object:os.system"),
    ("shared: {1: 2}\n" + RNN, "line 1: the key '1' is no word; put it in quotes"),
    # configurations to try first
    (
        RNN + "start_from: [{name: a, family: simple_rnn, units: [9], dropout: 0.1, l2: 0.01}]\n",
        "start_from.0 (a): outside the space: units: [9] is not [8], the only value there; widen the space or change",
    ),
    (
        RNN + "start_from: [{name: a, family: lstm, units: [8], dropout: 0.1, l2: 0.01}]\n",
        "start_from.0 (a): outside the space: family: lstm is not in {simple_rnn}",
    ),
    (RNN + "start_from: [{units: [8]}]\n", "start_from.0.family: missing; name the family of this configuration"),
    (
        RNN + "start_from: [{family: lstm, name: ''}]\n",
        "start_from.0.name: must be 1 to 60 printable characters, not ''",
    ),
    (RNN + 'start_from: [{family: lstm, name: "a\\e[31m"}]\n', "start_from.0.name: must be 1 to 60 printable"),
    (
        RNN + "start_from: [&a {family: x}]\n",
        "line 3: anchors and aliases are not taken",
    ),
    (
        RNN + "start_from: [{family: x, name: a}, {family: x, name: a}]\n",
        "start_from.1.name: 'a' stands twice; rename one",
    ),
    (RNN + "start_from: [{family: x, known: 3}]\n", "start_from.0.known: must be a mapping of metrics, not 3"),
    (
        RNN + "start_from: [{family: x, known: {val_f1: high}}]\n",
        "start_from.0.known.val_f1: must be a number, not 'hig",
    ),
    (RNN + "start_from: [{family: x, known: {val_f1: .nan}}]\n", "start_from.0.known: nan is no number to search with"),
    (RNN + "start_from: [{family: x, l2: .nan}]\n", "start_from.0: nan is no number to search with"),
    (
        "shared: {l2: {uniform: [0, 1]}}\nstart_from: [{family: simple_rnn, units: [8], dropout: 0}]\n",
        "shared.l2: no family searches it; write one value, or name families",
    ),
]


@pytest.mark.parametrize(("text", "message"), REFUSED)
def test_a_space_that_cannot_be_searched_is_refused_with_file_key_and_remedy(space, tmp_path, text, message):
    with pytest.raises(SpaceError) as caught:
        space(text)
    assert str(caught.value).startswith(f"{tmp_path / 'my.yaml'}: {message}")
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("text", ["trails: 3\n" + RNN, "shared: {l2: {uniform: [2, 1]}}\n" + RNN])
def test_the_command_line_refuses_in_one_line_with_exit_code_2(tmp_path, capsys, text):
    (tmp_path / "my.yaml").write_text(text)
    assert main(["search", str(tmp_path / "my.yaml"), "--storage", str(tmp_path / "runs")]) == 2
    told = capsys.readouterr().err
    assert told.startswith(f"tunelab: {tmp_path / 'my.yaml'}: ")
    assert told.count("\n") == 1
    assert not (tmp_path / "runs").exists()


def test_the_dimension_outside_the_space_is_named(space):
    text = (
        "shared: {l2: {loguniform: [0.1, 0.3]}}\nfamilies: {simple_rnn: {units: {choice: [[8], [16]]}, dropout: 0}}\n"
    )
    start = "start_from: [{family: simple_rnn, name: a, units: %s, dropout: %s, l2: %s}]\n"
    space(text + start % ("[8]", "0", "0.1"))
    for values, told in [
        (("[8]", "0", "0.05"), r"outside the space: l2: 0\.05 is not in loguniform \[0\.1, 0\.3\]"),
        (("[4]", "0", "0.2"), r"outside the space: units: 4 is not in \{\[8\], \[16\]\}"),
        (("[8]", "0.1", "0.2"), r"outside the space: dropout: \[0\.1\] is not 0, the only value there"),
    ]:
        with pytest.raises(SpaceError, match=told):
            space(text + start % values)


# What a space proposes.


def test_all_repeat_forms_and_columns(space):
    found = space(
        "families:\n  dense_rnn:\n"
        "    dense: {repeat: 2, of: {choice: [4, 8]}}\n"
        "    units: {repeat: {int: [1, 3]}, of: {int: [2, 8, 2]}}\n"
        "    dropout: {repeat: [dense, units], of: {uniform: [0, 0.5]}}\n"
        "    l2: {loguniform: [1e-4, 1e-2]}\n"
    )
    assert found.columns() == [
        "dense.0",
        "dense.1",
        "units.count",
        "units.0",
        "units.1",
        "units.2",
        *(f"dropout.{i}" for i in range(5)),
        "l2",
    ]
    lengths = set()
    for seed in range(40):
        params = draw(found, seed)
        assert params["family"] == "dense_rnn"
        assert len(params["dense"]) == 2
        assert len(params["dropout"]) == 2 + len(params["units"])
        assert set(params["units"]) <= {2, 4, 6, 8}
        lengths.add(len(params["units"]))
    assert lengths == {1, 2, 3}


def test_a_list_as_long_as_a_choice_a_fixed_list_or_a_written_one(space):
    for units, longest in [("{choice: [[8], [8, 8, 8]]}", 3), ("{fixed: [8, 8]}", 2), ("[8]", 1)]:
        found = space(
            f"families: {{lstm: {{dropout: {{repeat: units, of: {{uniform: [0, 0.5]}}}}, units: {units}, l2: 0}}}}\n"
        )
        assert [c for c in found.columns() if c.startswith("dropout")] == [f"dropout.{i}" for i in range(longest)]
        for seed in range(5):
            params = draw(found, seed)
            assert len(params["dropout"]) == len(params["units"])


TWO = """
shared:
  learning_rate: {loguniform: [1e-4, 1e-2]}
  batch_size: {choice: [8, 16]}
families:
  lstm: {units: {choice: [[8], [16]]}, dropout: 0, l2: {uniform: [0, 1]}}
  simple_rnn: {units: [8], dropout: 0.1, l2: {uniform: [0, 1]}, learning_rate: {loguniform: [0.5, 1]}}
"""


def test_a_dimension_exists_only_for_its_family_and_a_family_may_set_a_shared_one_itself(space):
    found = space(TWO)
    assert found.columns() == ["learning_rate", "batch_size", "units", "l2"]
    asked: dict[str, set[str]] = {}

    def ask_as(family: str):
        names: set[str] = set()
        rng = np.random.default_rng(0)

        def ask(name, domain):
            names.add(name)
            return family if name == "family" else domain.sample(rng)

        params = found.propose(ask)
        asked[family] = names
        return params

    assert ask_as("lstm")["learning_rate"] <= 1e-2
    assert ask_as("simple_rnn")["learning_rate"] >= 0.5
    assert asked["lstm"] == {"family", "learning_rate", "batch_size", "lstm.units", "lstm.l2"}
    assert asked["simple_rnn"] == {"family", "batch_size", "simple_rnn.l2", "simple_rnn.learning_rate"}
    point = locate(
        found,
        normalise(
            {"family": "simple_rnn", "batch_size": 8, "units": [8], "dropout": 0.1, "l2": 0.5} | {"learning_rate": 0.7}
        ),
    )
    assert point == {
        "family": "simple_rnn",
        "batch_size": 8,
        "simple_rnn.l2": 0.5,
        "simple_rnn.learning_rate": 0.7,
    }
    with pytest.raises(Outside, match=r"learning_rate: 0\.001 is not in loguniform \[0\.5, 1\]"):
        locate(found, {"family": "simple_rnn", "batch_size": 8, "units": [8], "dropout": 0.1, "l2": 0.5})


def test_shared_values_fill_the_configurations_to_try_first_unless_the_family_sets_them(space):
    found = space(
        "shared: {learning_rate: 0.01, l2: {convolution: 0.2, rest: 0.05}}\n"
        "start_from:\n"
        "  - {family: conv_rnn, convolutions: [{filters: 4, kernel: 3, stride: 1}], reduce: flatten,"
        " dense: {units: 8, activation: relu}, units: [8], dropout: 0}\n"
    )
    ((start, params),) = starts(found)
    assert start.name == "start1"
    assert params["learning_rate"] == 0.01
    assert params["l2"] == {"convolution": 0.2, "rest": 0.05}
    own = space(
        "shared: {learning_rate: 0.01}\n"
        "families: {simple_rnn: {units: [8], dropout: 0, l2: 0, learning_rate: {uniform: [0.0005, 0.002]}}}\n"
        "start_from: [{family: simple_rnn, units: [8], dropout: 0, l2: 0}]\n"
    )
    assert starts(own)[0][1]["learning_rate"] == 0.001


@settings(deadline=None, max_examples=60)
@given(st.sampled_from(["families.yaml", "quick.yaml"]), st.integers(0, 2**32))
def test_what_a_shipped_space_proposes_is_found_in_it_again(name, seed):
    found = SPACES[name]
    params = normalise(draw(found, seed))
    point = locate(found, params)
    assert set(point) <= {"family", *found.columns(), *(f"{params['family']}.{c}" for c in found.columns())}
    assert normalise(found.propose(lambda asked, _: point[asked])) == params
    values = found.column_values(params)
    assert set(values) <= set(found.columns())
    assert len(values) == len(point) - 1


SPACES = {name: load_space(shipped(name)) for name in SHIPPED}

WRITTEN_OTHERWISE = """
families:
  conv_rnn:
    convolutions: {choice: [[{filters: 4, kernel: 3, stride: 1}], [{filters: 4, kernel: 3, stride: 1, dropout: 0.5}]]}
    reduce: flatten
    dense: {fixed: {activation: relu, units: 8}}
    units: [8, 8]
    dropout: {choice: [[0, 0], [0.5, 0], 1e-1]}
    l2: {choice: [0, {rest: 1, convolution: 0}]}
  lstm:
    units: {choice: [[8], 4]}
    dropout: 0
    l2: {int: [0, 1]}
"""


def test_lists_and_mappings_are_found_however_they_were_written(space):
    found = space(WRITTEN_OTHERWISE.replace(", 4]", "]"))
    seen = set()
    for seed in range(60):
        raw = draw(found, seed)
        point = locate(found, normalise(raw))
        assert normalise(found.propose(lambda name, _, point=point: point[name])) == normalise(raw)
        seen |= {json.dumps(value) for value in point.values()}
    # options come back as they were written, which is what a sampler knows them by
    assert {"[0, 0]", "[0.5, 0]", "0.1", '{"rest": 1, "convolution": 0}'} <= seen
    assert {'[{"filters": 4, "kernel": 3, "stride": 1}]'} <= seen


@pytest.mark.parametrize(
    ("domain", "inside", "outside"),
    [
        (Choice((1, "a", None, [2, 3])), [1, 1.0, "a", None, [2, 3], [2.0, 3]], [True, 2, "b", [3, 2], False]),
        (Choice((True, 0.5)), [True, 0.5], [1, False, 0]),
        (Float(0.1, 1, log=True), [0.1, 1, 0.5], [0.0999, True, "1", None, float("nan")]),
        (Int(1, 9, step=4), [1, 5, 9, 5.0], [2, 9.5, 13, True, 10**400]),
        (Int(1, 9, log=True), [1, 9], [0, 10]),
    ],
)
def test_what_a_domain_holds(domain, inside, outside):
    assert all(domain.contains(value) for value in inside)
    assert not any(domain.contains(value) for value in outside)
    rng = np.random.default_rng(0)
    assert all(domain.contains(domain.sample(rng)) for _ in range(200))
    assert all(domain.contains(value) for value in domain.corners())


class Last:
    """A generator that draws the last number of every range."""

    def uniform(self, low, high):
        return high


@pytest.mark.parametrize("high", [0.3, 1e-5, 7e-4, 0.011, 3.3])
def test_rounding_leads_no_float_out_of_its_range(high):
    domain = Float(1e-9, high, log=True)
    assert domain.contains(domain.sample(Last()))


def test_one_value_is_no_dimension_and_true_is_not_one():
    Fixed(0.2).locate("x", [0.2, 0.2], {})
    for value, written in [([0.2, 0.3], 0.2), (1, True), (True, 1), ("1", 1)]:
        with pytest.raises(Outside, match=r"is not .*, the only value there"):
            Fixed(written).locate("x", value, {})


def test_every_shipped_space_passes_its_families_and_can_be_recorded():
    for name, found in SPACES.items():
        check_space(found)
        assert found.name == Path(name).stem
        assert yaml.safe_load(yaml.safe_dump(dict(found.document))) == found.document


def test_nothing_is_searched_where_only_fixed_configurations_are_run():
    seed = SPACES["seed.yaml"]
    assert seed.columns() == []
    assert all(seed.column_values(params) == {} for _, params in starts(seed))


# The sixteen hand-run configurations.

NAMES = [*(f"lstm{i}" for i in range(1, 7)), *(f"rnn{i}" for i in range(2, 7)), *(f"convrnn{i}" for i in range(2, 7))]
DEEP = [100, 200, 300, 500, 500, 300, 200, 100]
HALF = [0.2] * 4 + [0.5] * 4
RECURRENT = {  # family, units, dropout, l2, dense
    "lstm1": ("lstm", [100, 200, 200, 100], [0.5] * 4, 0.2, None),
    "lstm2": ("lstm", DEEP, [0.5] * 8, 0.2, None),
    "lstm3": ("lstm", DEEP, HALF, 0.01, None),
    "lstm4": ("lstm", DEEP, HALF, 0.05, None),
    "lstm5": ("lstm", DEEP, HALF, 0.03, None),
    "lstm6": ("simple_rnn", [100], [0.2], 0.03, None),
    "rnn2": ("simple_rnn", [100], [0.2], 0.05, None),
    "rnn3": ("simple_rnn", [100], [0.2], 0.1, None),
    "rnn4": ("dense_rnn", [100], [0.2] * 4, 0.05, [100, 200, 250]),
    "rnn5": ("dense_rnn", [100], [0.2] * 2, 0.05, [100]),
}


def block(filters, kernel, stride, pool=True, batch_norm="none", dropout=0.0) -> dict:
    return {
        "filters": filters,
        "kernel": kernel,
        "stride": stride,
        "activation": "relu",
        "pool": {"size": 5, "stride": 2} if pool else None,
        "batch_norm": batch_norm,
        "dropout": dropout,
    }


FIRST, SECOND = block(50, 12, 4, batch_norm="after_pool", dropout=0.5), block(20, 12, 4)
CONVOLUTIONAL = {  # blocks, reduce, batch normalisation before dense, activation of dense, l2 of convolutions
    "rnn6": ([block(50, 5, 10)], "flatten", False, "linear", 0.05),
    "convrnn2": ([block(50, 10, 2)], "flatten", False, "linear", 0.05),
    "convrnn3": ([block(50, 10, 2, batch_norm="before_pool")], "flatten", True, "relu", 0.05),
    "convrnn4": (
        [block(50, 12, 4, batch_norm="after_pool"), block(20, 12, 4, pool=False)],
        "global_average",
        True,
        "relu",
        0.05,
    ),
    "convrnn5": ([FIRST, SECOND], "flatten", True, "relu", 0.05),
    "convrnn6": ([FIRST, SECOND], "flatten", True, "relu", 0.2),
}
TRAINING = {
    "learning_rate": 0.001,
    "rate_schedule": {"kind": "constant", "warm_up": 0.3, "patience": 4},
    "optimizer": {"kind": "adam", "weight_decay": 0.004, "momentum": 0.9, "clip_norm": None},
    "loss": {"kind": "cross_entropy", "focus": 2.0, "cross_entropy_share": 0.0, "edge_smoothing": 0.0},
    "averaging": 0.0,
    "batch_size": 32,
    "class_weight": 1.0,
    "batch_norm_momentum": 0.99,
    "precision": "float32",
    "plain": False,
    "preprocessing": {  # as recorded
        "dewow": None,
        "window": None,
        "samples": None,
        "rate": None,
        "background": "none",
        "gain": 0.0,
        "compression": 0.0,
    },
    "augmentation": {
        "background": 0.0,
        "mirror": 0.0,
        "polarity": 0.0,
        "gain_db": 0.0,
        "shift": 0.0,
        "noise_db": None,
        "drop": 0.0,
    },
    "bidirectional": False,
    "recurrent_dropout": 0.0,
    "residual": False,
    "norm": "batch",
    "normalisation": "none",
    "protocol": "incremental",
    "shard_epochs": 30,
    "shard_patience": 10,
}


def expected(name: str) -> dict:
    if name in RECURRENT:
        family, units, dropout, l2, dense = RECURRENT[name]
        own = {"family": family, "units": units, "dropout": dropout, "l2": l2}
        return TRAINING | own | ({"dense": dense} if dense else {})
    blocks, reduce, normal, activation, l2 = CONVOLUTIONAL[name]
    return TRAINING | {
        "family": "conv_rnn",
        "convolutions": blocks,
        "reduce": reduce,
        "batch_norm_before_dense": normal,
        "dense": {"units": 100, "activation": activation},
        "units": [100],
        "dropout": [0.2],
        "l2": {"convolution": l2, "rest": 0.05},
    }


def test_seed_yaml_holds_the_sixteen_by_name_in_order_and_exactly():
    found = starts(SPACES["seed.yaml"])
    assert [start.name for start, _ in found] == NAMES
    assert {start.name: params for start, params in found} == {name: expected(name) for name in NAMES}


def test_all_sixteen_configurations_of_seed_yaml_are_inside_families_yaml():
    families = SPACES["families.yaml"]
    for start, params in starts(SPACES["seed.yaml"]):
        point = locate(families, params)
        assert normalise(families.propose(lambda name, _, point=point: point[name])) == params, start.name


def test_the_sixteen_are_those_of_the_hand_run_log_entry_by_entry():
    log = Path(__file__).resolve().parents[1] / "../shared/seed/runs.yaml"
    if not log.exists():
        pytest.skip("the hand-run log is not beside this checkout")
    runs = yaml.safe_load(log.read_text())["runs"]
    found = starts(SPACES["seed.yaml"])
    assert [run["name"] for run in runs] == [start.name for start, _ in found]
    for run, (start, params) in zip(runs, found, strict=True):
        keys = ("family", "units", "dropout", "l2", "dense", "convolutions", "reduce", "batch_norm_before_dense")
        written = {key: run[key] for key in keys if key in run}
        if run["family"] == "conv_rnn":
            written["units"] = [100]  # the log says it once, for all of them
        assert normalise(TRAINING | written) == params
        assert start.known["val_f1"] == run["f1"]
        for key in ("tp", "fp", "fn", "recall", "mean_jaccard"):
            assert start.known.get(key) == run["logged"].get(key), (start.name, key)


# Anything else.

WORDS = st.sampled_from(
    ["choice", "uniform", "loguniform", "int", "log_int", "fixed", "repeat", "of", "units", "dropout", "l2", "dense",
     "lstm", "simple_rnn", "conv_rnn", "families", "shared", "start_from", "family", "name", "known", "list", "dict",
     "epochs", "max", "data", "convolutions", "filters", "trials", "x", "a.b", ""]
)  # fmt: skip
LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-3, 12)
    | st.sampled_from([10**20, 1e-5, 0.5, 1e308, float("nan"), float("-inf")])
    | WORDS
)
ANYTHING = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3), max_leaves=6
)
NODES = st.recursive(
    LEAVES
    | st.builds(lambda kind, value: {kind: value}, WORDS, st.lists(LEAVES, max_size=3))
    | st.builds(lambda count, of: {"repeat": count, "of": of}, WORDS | st.integers(0, 4), LEAVES),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.builds(lambda count, of: {"repeat": {"int": count}, "of": of}, st.lists(LEAVES, max_size=3), inner)
        | st.builds(lambda options: {"choice": options}, st.lists(inner, max_size=3))
    ),
    max_leaves=4,
)
TREES = st.dictionaries(WORDS, NODES, max_size=4)
DOCUMENTS = st.dictionaries(WORDS, ANYTHING, max_size=3) | st.fixed_dictionaries(
    {"families": st.dictionaries(st.sampled_from(["lstm", "simple_rnn", "dense_rnn", "conv_rnn"]), TREES, max_size=2)},
    optional={
        "shared": TREES,
        "start_from": st.lists(st.dictionaries(WORDS, NODES, max_size=4), max_size=2),
        "trials": ANYTHING,
        "epochs": ANYTHING,
    },
)


@settings(deadline=None, max_examples=400)
@given(DOCUMENTS)
def test_any_other_file_is_a_space_or_a_space_error(tmp_path_factory, document):
    path = tmp_path_factory.getbasetemp() / "fuzzed.yaml"
    path.write_text(json.dumps(document).replace("NaN", ".nan").replace("-Infinity", "-.inf"))
    try:
        found = load_space(path)
        check_space(found)
    except SpaceError:
        return
    for family in found.families:
        found.column_values(normalise(found.sample(np.random.default_rng(0), family)))


def test_aims_are_read_and_stand_in_the_record(space):
    text = "objectives: [f1, -parameters]\nconstraints: [parameters <= 1e6, predict_ms <= 5, recall >= 0.5]\n"
    found = space(text + RNN)
    assert [str(one) for one in found.aims.objectives] == ["f1", "-parameters"]
    assert [str(one) for one in found.aims.constraints] == [
        "parameters <= 1000000",
        "predict_ms <= 5",
        "recall >= 0.5",
    ]
    assert Aims.of(found.document) == found.aims
    assert space(RNN).aims == Aims()
    assert "objectives" not in space(RNN).document
