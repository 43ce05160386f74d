from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tunelab.data.tables import check_id, first_five, read_labels, read_scans
from tunelab.errors import DataError


def table(tmp_path, text: str, name="labels.csv"):
    path = tmp_path / name
    path.write_bytes(text.encode())
    return path


def refuse(read, path, message):
    with pytest.raises(DataError, match=message) as caught:
        read(path)
    assert str(path) in str(caught.value)


def test_labels_with_extra_columns_byte_order_mark_and_spaces(tmp_path):
    path = table(tmp_path, "\ufeffscan, trace,x_mid_m,label\r\na,0,0.1,1\r\n\r\na, 1 ,0.2, 0\r\nb,0,,0\r\n")
    assert read_labels(path) == {"a": {0: 1, 1: 0}, "b": {0: 0}}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no column scan, trace, label; the first line has nothing"),
        ("scan,trace\na,0\n", "no column label; the first line has 'scan', 'trace'"),
        ("scan,trace,label,label\na,0,1,1\n", "a column appears twice"),
        ("scan,trace,label\na,0,1,9\n", "line 2 has more values than the first line has columns"),
        ("scan,trace,label\na,0\n", r"1 rows of column label are neither 0 nor 1; .* \(line 2: ''\)"),
        ("scan,trace,label\na,0,2\na,1,yes\n", r"2 rows of column label .* \(line 2: '2', line 3: 'yes'\)"),
        ("scan,trace,label\na,-1,1\n", r"1 rows of column trace are no trace numbers; .* \(line 2: '-1'\)"),
        ("scan,trace,label\na,99999999999999,1\n", "no trace numbers"),
        ("scan,trace,label\na,²,1\n", "no trace numbers"),
        ("scan,trace,label\na,0,1\na,0,0\n", r"1 rows label a trace a second time; .* \(line 3: scan 'a', trace 0\)"),
        ('scan,trace,label\n"a,0,1\n', "cannot be read as CSV"),
    ],
)
def test_labels_that_cannot_be_used(tmp_path, text, message):
    refuse(read_labels, table(tmp_path, text), message)


def test_many_bad_rows_are_counted_and_five_shown_without_control_characters(tmp_path):
    path = table(tmp_path, "scan,trace,label\n" + "".join(f"a,{i},\x1b[31m{'x' * 200}\n" for i in range(9)))
    refuse(read_labels, path, r"9 rows of column label .* and 4 more\)")
    with pytest.raises(DataError) as caught:
        read_labels(path)
    assert "\x1b" not in str(caught.value)
    assert len(str(caught.value)) < 800


def test_bytes_that_are_no_text_and_a_missing_file(tmp_path):
    path = tmp_path / "labels.csv"
    refuse(read_labels, path, "cannot be read as CSV")
    path.write_bytes(b"scan,trace,label\n\xff\xfe,0,1\n")
    refuse(read_labels, path, "cannot be read as CSV .* write it as UTF-8")


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=200).map(lambda tail: b"scan,trace,label\n" + tail))
def test_any_bytes_are_labels_or_a_data_error(tmp_path, data):
    path = tmp_path / "labels.csv"
    path.write_bytes(data)
    try:
        labels = read_labels(path)
    except DataError as error:
        assert str(path) in str(error)  # noqa: PT017 - either outcome is right
    else:
        assert all(label in (0, 1) for traces in labels.values() for label in traces.values())


def test_scans_with_and_without_the_optional_columns(tmp_path):
    rows = read_scans(table(tmp_path, "scan,soil\na,wet\nb,dry\n", "scans.csv"))
    assert [(r.scan, r.file, r.group, r.split) for r in rows] == [("a", None, "a", None), ("b", None, "b", None)]
    text = "split,scan,file,group\ntest,a,x/a.out,field\ntest,b,,field\ntrain,c,,\n"
    rows = read_scans(table(tmp_path, text, "scans.csv"))
    assert [(r.scan, r.file, r.group, r.split) for r in rows] == [
        ("a", "x/a.out", "field", "test"),
        ("b", None, "field", "test"),
        ("c", None, "c", "train"),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file\na.out\n", "no column scan"),
        ("scan\n", "no scans; add a row for each, or remove the file"),
        ("scan\na\nb\na\n", r"1 scans are listed twice \(a\); keep one row"),
        ("scan,split\na,train\nb,tune\na,test\n", r"1 scans are in two splits \(a\)"),
        ("scan,split\na,train\nb,\n", r"1 of 2 scans have no split \(b\); give every scan one"),
        ("scan,split\na,valid\n", "scan 'a': 'valid' is no split; did you mean 'validation'"),
        ("scan,group,split\na,g,train\nb,g,tune\n", r"1 groups are in two splits \(g\); scans of a group are not"),
        ("scan,file\na,/etc/passwd\n", "file '/etc/passwd' leaves the folder"),
        ("scan,file\na,../a.out\n", "file '../a.out' leaves the folder"),
        ("scan,file\n,a.out\n", "scan '' is no id"),
        ("scan\n" + "a" * 121 + "\n", "use 1 to 120 printable characters, not 121 here"),
        ("scan\n\x1b[31ma\n", r"scan '\\x1b\[31ma' is no id"),
    ],
)
def test_scans_that_cannot_be_used(tmp_path, text, message):
    refuse(read_scans, table(tmp_path, text, "scans.csv"), message)


def test_first_five_and_ids():
    assert first_five("abc") == "a, b, c"
    assert first_five("abcdefg") == "a, b, c, d, e and 2 more"
    check_id("here", "Feld 7/Ä")
    with pytest.raises(DataError, match="here: scan 'a\\\\nb' is no id"):
        check_id("here", "a\nb")
