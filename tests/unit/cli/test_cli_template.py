"""Templates as Go would run them, where docker's users need them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from casstore.cli.template import Template
from casstore.errors import UsageError

ROW: dict[str, Any] = {
    "ID": "abc",
    "Size": "687kB",
    "stored_bytes": 12,
    "Names": ["a", "b"],
    "Labels": {"b": "2", "a": "1"},
    "Flag": True,
    "None": None,
}


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("", ""),
        ("plain", "plain"),
        ("{{.ID}}", "abc"),
        ("{{ .ID }}: {{.Size}}", "abc: 687kB"),
        (r"{{.ID}}\t{{.Size}}\n", "abc\t687kB\n"),
        ("{{.StoredBytes}} {{.stored_bytes}}", "12 12"),
        ("{{json .Labels}}", '{"b":"2","a":"1"}'),
        ("{{json .ID}}", '"abc"'),
        ("{{.Labels.a}}", "1"),
        ("{{.Labels}}", "map[a:1 b:2]"),
        ("{{.Names}}", "[a b]"),
        ("{{.Flag}} {{.None}}", "true <nil>"),
        ('{{join .Names ", "}}', "a, b"),
        ('{{index .Labels "a"}}{{index .Names 1}}{{index .Labels "absent"}}', "1b"),
        ("{{.ID | upper}}", "ABC"),
        ("{{.ID | upper | lower | title}}", "Abc"),
        ("{{truncate .ID 2}}", "ab"),
        ("{{len .Names}}", "2"),
        ("{{println .ID 5}}", "abc 5\n"),
        ('{{"a\\"}}b"}}', 'a"}}b'),
        ("{{`}}`}}", "}}"),
        ("a {{- .ID -}} b", "aabcb"),
        ("a{{/* a comment */}}b", "ab"),
        ("}}", "}}"),
        ("{", "{"),
    ],
)
def test_renders(source: str, text: str) -> None:
    assert Template(source).render(ROW) == text


def test_json_of_the_row_is_one_line() -> None:
    text = Template("{{json .}}").render(ROW)
    assert json.loads(text) == ROW
    assert "\n" not in text


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("{{", "unclosed action"),
        ("{{.ID", "unclosed action"),
        ('{{"}}', "unclosed action"),
        ("{{}}", "missing value"),
        ("{{.ID |}}", "missing value"),
        ("{{nosuch .ID}}", 'function "nosuch" not defined'),
        ("{{if .ID}}x{{end}}", 'function "if" not defined'),
        ("{{$x}}", "unexpected"),
    ],
)
def test_what_does_not_parse_is_a_usage_error(source: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Template(source)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("{{.Nosuch}}", "field Nosuch .*fields: ID, Size"),
        ("{{.ID.More}}", "field More"),
        ("{{.ID .Size}}", "can't give argument"),
        ("{{join .Names}}", "wrong arguments for join"),
        ('{{truncate .ID "x"}}', "wrong arguments for truncate"),
        ("{{index .Names 7}}", "wrong arguments for index"),
        ("{{len}}", "wrong arguments for len"),
        ("{{upper len}}", "wrong arguments for len"),
    ],
)
def test_what_does_not_fit_is_a_usage_error(source: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Template(source).render(ROW)


@given(st.one_of(st.text(max_size=60), st.text(alphabet='{}.|" \\`-json ID', max_size=60)))
def test_no_template_is_fatal(source: str) -> None:
    try:
        Template(source).render(ROW)
    except UsageError:
        pass
