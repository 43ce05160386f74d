from __future__ import annotations

import math
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from tunelab import yamlfile
from tunelab.errors import SpaceError, UsageError


@pytest.fixture
def written(tmp_path):
    def write(content: str | bytes) -> Path:
        path = tmp_path / "space.yaml"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-5", 1e-5),
        ("1e5", 1e5),
        ("-2.5E+3", -2500.0),
        (".5", 0.5),
        ("3.", 3.0),
        ("-.inf", -math.inf),
        ("12", 12),
        ("-7", -7),
        ("+7", 7),
        ("010", 10),
        ("true", True),
        ("False", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("no", "no"),
        ("yes", "yes"),
        ("on", "on"),
        ("off", "off"),
        ("y", "y"),
        ("none", "none"),
        ("0x10", "0x10"),
        ("1_000", "1_000"),
        ("1:30", "1:30"),
        ("2024-01-02", "2024-01-02"),
        ("'1'", "1"),
        ("1e", "1e"),
        ("[1, no]", [1, "no"]),
        ("{a: 1e-3}", {"a": 1e-3}),
    ],
)
def test_plain_values_are_those_of_yaml_1_2(written, text, value):
    found = yamlfile.load(written(f"key: {text}\n"))["key"]
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize("text", [".nan", ".NaN", ".NAN"])
def test_every_spelling_of_nan_is_one_so_that_it_can_be_refused(written, text):
    assert math.isnan(yamlfile.load(written(f"key: {text}\n"))["key"])


ALIAS_BOMB = "a: &a [x, x]\n" + "".join(f"k{i}: &k{i} [*a, *a]\n" for i in range(40))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3\n", "line 3: the key 'a' stands twice; remove one"),
        ("a:\n  b: 1\n  'b': 2\n", "line 3: the key 'b' stands twice; remove one"),
        ("a: 1\nb: !!python/object:os.system x\n", "line 2: the tag tag:yaml.org,2002:python/object:os.system is not"),
        ("a: !!str 1\n", "line 1: the tag tag:yaml.org,2002:str is not taken; write a plain value"),
        ("a: ! 1\n", "line 1: the tag ! is not taken"),
        ("x: 0\na: &one 1\n", "line 2: anchors and aliases are not taken; write the value out"),
        ("x: 0\na: *one\n", "line 2: anchors and aliases are not taken; write the value out"),
        (ALIAS_BOMB, "line 1: anchors and aliases are not taken"),
        ("a: " + "[" * 40 + "]" * 40, "line 1: nested deeper than 30 levels"),
        ("a: 1\n" + "b: " + "{a: " * 40 + "1" + "}" * 40, "line 2: nested deeper than 30 levels"),
        ("? [a]\n: 1\n", "line 1: a key must be a plain word"),
        ("a: 1\n2: b\n", "line 2: the key '2' is no word; put it in quotes"),
        ("a: {true: 1}\n", "line 1: the key 'true' is no word; put it in quotes"),
        ("null: 1\n", "line 1: the key 'null' is no word"),
        ("a: 1\n---\nb: 2\n", "line 2: not YAML: but found another document"),
        ("a: 1\nb: [1, 2\n", "line 3: not YAML: expected ',' or ']'"),
        ("a: 1\n b: 2\n", "line 2: not YAML: mapping values are not allowed here"),
        ("a: 1\x00\n", "not YAML: special characters are not allowed"),
        ("a: 1\nb: " + "9" * 5000, "line 2: a number of 5,000 digits is not taken"),
        (b"a: 1\nb: \xff\n", "line 2: not UTF-8 text: invalid start byte"),
        ("", "holds nothing, not a mapping of keys to values"),
        ("# only a comment\n", "holds nothing, not a mapping"),
        ("- a\n- b\n", "holds a list, not a mapping of keys to values"),
        ("just words\n", "holds the one value 'just words', not a mapping"),
        ("a: 1\n" * 300_000, "larger than 1,000,000 bytes; this is no configuration"),
    ],
)
def test_what_is_refused_is_refused_with_file_line_and_remedy(written, text, message):
    path = written(text)
    with pytest.raises(UsageError) as caught:
        yamlfile.load(path)
    assert str(caught.value).startswith(f"{path}: {message}")
    assert caught.value.exit_code == 2


def test_a_bomb_of_aliases_is_refused_before_anything_is_built(written, monkeypatch):
    built = []
    real = yaml.constructor.SafeConstructor.construct_object

    def record(self, node, deep=False):
        built.append(node)
        return real(self, node, deep)

    monkeypatch.setattr(yaml.constructor.SafeConstructor, "construct_object", record)
    with pytest.raises(UsageError, match="line 1: anchors"):
        yamlfile.load(written(ALIAS_BOMB))
    assert built == []
    yamlfile.load(written("a: 1\n"))
    assert built  # the record works


def test_thirty_levels_are_taken(written):
    found = yamlfile.load(written("a: " + "[" * 28 + "]" * 28))["a"]
    levels = 0
    while found:
        levels, found = levels + 1, found[0]
    assert levels == 27


def test_files_that_cannot_be_read_are_named(tmp_path):
    with pytest.raises(UsageError, match=r"none\.yaml: cannot be read: No such file or directory; name a YAML file"):
        yamlfile.load(tmp_path / "none.yaml")
    with pytest.raises(UsageError, match=r"cannot be read: Is a directory"):
        yamlfile.load(tmp_path)


def test_the_caller_chooses_the_error(written):
    with pytest.raises(SpaceError):
        yamlfile.load(written("- a\n"), SpaceError)


def test_a_byte_order_mark_is_no_part_of_the_first_key(written):
    assert yamlfile.load(written(b"\xef\xbb\xbfa: 1\n")) == {"a": 1}


@settings(deadline=None)
@given(st.text() | st.text(alphabet="abn{}[]:,&*!-?|>#'\"%~ \n\t0.", max_size=40))
def test_no_text_ends_in_anything_but_a_mapping_or_a_usage_error(tmp_path_factory, text):
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    try:
        found = yamlfile.load(path)
    except UsageError:
        return
    assert isinstance(found, dict)
    assert all(isinstance(key, str) for key in found)
