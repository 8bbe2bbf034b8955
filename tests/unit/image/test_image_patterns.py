"""Patterns over names, as Go matches them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from casstore.errors import InvalidReference
from casstore.image.patterns import compile_pattern


@pytest.mark.parametrize(
    ("pattern", "text", "fits"),
    [
        ("", "", True),
        ("a", "a", True),
        ("a", "ab", False),
        ("*", "", True),
        ("*", "team/one", False),
        ("*/*", "team/one", True),
        ("*:1", "one:1", True),
        ("a*b*c", "axxbyybzc", True),
        ("a*b*c", "axxbyyc!", False),
        ("**", "ab", True),
        ("a?c", "abc", True),
        ("a?c", "a/c", False),
        ("[a-c]x", "bx", True),
        ("[^a-c]x", "bx", False),
        ("[!a]", "!", True),
        ("[c-a]", "b", False),
        ("[^c-a]", "b", True),
        ("[\\]]", "]", True),
        ("\\*", "*", True),
        ("\\*", "x", False),
        ("a.c", "abc", False),
    ],
)
def test_what_fits(pattern: str, text: str, fits: bool) -> None:
    assert (compile_pattern(pattern).fullmatch(text) is not None) == fits


@pytest.mark.parametrize("pattern", ["[", "[]", "[]a]", "[^]", "[a", "[a-", "[a-]", "[-a]", "a\\", "[\\"])
def test_what_is_malformed(pattern: str) -> None:
    with pytest.raises(InvalidReference, match="syntax error in pattern"):
        compile_pattern(pattern)


@given(st.text("ab*?[]^-\\/:", max_size=12), st.text("ab/:", max_size=8))
def test_every_pattern_is_an_expression_or_malformed(pattern: str, text: str) -> None:
    try:
        compiled = compile_pattern(pattern)
    except InvalidReference:
        return
    compiled.fullmatch(text)
    plain = not set(pattern) & set("*?[\\")
    assert not plain or bool(compiled.fullmatch(text)) == (pattern == text)


def test_no_pattern_takes_long() -> None:
    assert compile_pattern("*a" * 100 + "b").fullmatch("a" * 200 + "c") is None
