"""Rows as tables, JSON lines and templates."""

from __future__ import annotations

import json

import pytest

from casstore.cli.output import aligned, show
from casstore.cli.units import visible
from casstore.errors import UsageError

HEADERS = {"Repository": "REPOSITORY", "ID": "IMAGE ID", "Size": "SIZE"}
ROWS = [
    {"Repository": "busybox", "ID": "b28afe738d2e", "Size": "1.24MB"},
    {"Repository": "registry.example:5000/team/tool", "ID": "f0faaa6cb4ff", "Size": "9B"},
]


def test_a_table_is_dockers(capsys: pytest.CaptureFixture[str]) -> None:
    show(ROWS, None, HEADERS, ("Repository", "ID", "Size"))
    assert capsys.readouterr().out == (
        "REPOSITORY                        IMAGE ID       SIZE\n"
        "busybox                           b28afe738d2e   1.24MB\n"
        "registry.example:5000/team/tool   f0faaa6cb4ff   9B\n"
    )


def test_an_empty_table_is_its_header(capsys: pytest.CaptureFixture[str]) -> None:
    show([], "table", HEADERS, ("ID", "Size"))
    assert capsys.readouterr().out == "IMAGE ID   SIZE\n"


def test_json_is_one_object_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    show(iter(ROWS), "json", HEADERS, ("ID",))
    lines = capsys.readouterr().out.splitlines()
    assert [json.loads(each) for each in lines] == ROWS


def test_templates_and_table_templates(capsys: pytest.CaptureFixture[str]) -> None:
    show(ROWS, "{{.ID}}/{{.Size}}", HEADERS, ())
    show(ROWS[:1], r"table {{.Size}}\t{{.ID}}", HEADERS, ())
    assert capsys.readouterr().out == (
        "b28afe738d2e/1.24MB\nf0faaa6cb4ff/9B\nSIZE      IMAGE ID\n1.24MB    b28afe738d2e\n"
    )


@pytest.mark.parametrize("form", ["{{.Nosuch}}", "table {{.Nosuch}}"])
def test_an_unknown_field_is_an_error_without_rows_too(form: str) -> None:
    with pytest.raises(UsageError, match="Nosuch"):
        show([], form, HEADERS, ())


def test_columns_are_ten_wide_at_least() -> None:
    assert list(aligned([["a", "b", "c"], ["aaaaaaaaaa", "b", "c"]])) == [
        "a            b         c",
        "aaaaaaaaaa   b         c",
    ]


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("plain ü 漢\n\t", "plain ü 漢\n\t"),
        ("\x1b[2Jgone\x07", "\\x1b[2Jgone\\x07"),
        ("\x9b31m\x7f\r", "\\x9b31m\\x7f\\x0d"),
        ("a\u202eb\u2066", "a\\u202eb\\u2066"),
    ],
)
def test_control_characters_are_made_visible(text: str, seen: str) -> None:
    assert visible(text) == seen
