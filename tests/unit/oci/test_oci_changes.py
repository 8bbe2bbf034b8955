"""Dockerfile instructions: their text taken apart, and what they make of a configuration."""

from __future__ import annotations

from typing import Any

import pytest
from changes import BEYOND, DOCKERS, Outcome
from hypothesis import example, given
from hypothesis import strategies as st

from casstore.errors import BadInput, CasstoreError
from casstore.oci.changes import _VERBS, Runtime, changed, check
from casstore.oci.instructions import MAX_DOCUMENT, instruction, parse
from casstore.oci.shellwords import MAX_DEPTH, MAX_TEXT, expand, expand_words, words


def outcome(changes: list[str], config: dict[str, Any] | None = None) -> Outcome:
    try:
        return changed(config, changes)
    except BadInput as error:
        return str(error)


@pytest.mark.parametrize(("changes", "expected"), DOCKERS + BEYOND, ids=lambda value: repr(value)[:60])
def test_changes(changes: list[str], expected: Outcome) -> None:
    assert outcome(changes) == expected


def test_no_changes_change_nothing() -> None:
    assert changed({"Cmd": ["a"], "Custom": {}}, []) == {"Cmd": ["a"], "Custom": {}}
    assert changed(None, []) == {}


def test_what_was_there_lies_beneath() -> None:
    before = {
        "Env": ["PATH=/bin", "A=1"],
        "Cmd": ["old"],
        "Labels": {"kept": "1", "moved": "1"},
        "ExposedPorts": {"9/tcp": {}},
        "Volumes": {"/v": {}},
        "WorkingDir": "/w",
        "OnBuild": ["RUN a"],
        "Shell": ["/bin/bash", "-c"],
        "Hostname": "kept",
    }
    copy = {key: value.copy() if hasattr(value, "copy") else value for key, value in before.items()}
    after = changed(
        before,
        [
            "ENV PATH=$PATH:/x B=$A",
            "LABEL moved=2 new=3",
            "EXPOSE 80",
            "VOLUME /u",
            "WORKDIR x/../y",
            "ONBUILD RUN b",
            "ENTRYPOINT run it",
        ],
    )
    assert after == {
        "Env": ["PATH=/bin:/x", "A=1", "B=1"],
        "Labels": {"kept": "1", "moved": "2", "new": "3"},
        "ExposedPorts": {"80/tcp": {}, "9/tcp": {}},
        "Volumes": {"/v": {}, "/u": {}},
        "WorkingDir": "/w/y",
        "OnBuild": ["RUN a", "RUN b"],
        "Shell": ["/bin/bash", "-c"],
        "Entrypoint": ["/bin/bash", "-c", "run it"],  # and the inherited Cmd is gone
        "Hostname": "kept",
    }
    assert before == copy
    assert changed(before, ["CMD new", "ENTRYPOINT e"])["Cmd"] == ["/bin/bash", "-c", "new"]


def test_all_is_checked_before_any_is_carried_out() -> None:
    assert outcome(["ENV A", "RUN x"]) == "run is not a valid change command"
    assert outcome(["USER $Z", "ENV A"]) == "ENV must have two arguments"
    check(instruction("STOPSIGNAL $SIGNAL"))  # whose value only a configuration knows
    with pytest.raises(BadInput, match="unknown instruction: FOO"):
        Runtime({}).apply(instruction("foo x"))


def test_shell_is_for_builds_only() -> None:
    runtime = Runtime({})
    runtime.apply(instruction('SHELL ["/bin/bash", "-c"]'))
    runtime.apply(instruction("CMD x"))
    assert runtime.config() == {"Cmd": ["/bin/bash", "-c", "x"], "Shell": ["/bin/bash", "-c"]}
    assert outcome(['SHELL ["a"]']) == "shell is not a valid change command"
    for wrong, problem in (("SHELL x", "JSON form"), ("SHELL", "at least one argument")):
        with pytest.raises(BadInput, match=problem):
            Runtime({}).apply(instruction(wrong))


def test_lines() -> None:
    text = "\ufeff# escape=`\n# other\n\nENV A=1 `\n  # a comment\n\n  B=2\nRUN --x=1 --y='a b' -- c --d `\n"
    first, second = parse(text)
    assert (first.verb, first.rest, first.line) == ("env", "A=1   B=2", 4)
    assert (second.verb, second.flags, second.rest, second.line) == ("run", ("--x=1", "--y=a b"), "c --d", 8)
    with pytest.raises(BadInput, match="more than"):
        parse("#" * (MAX_DOCUMENT + 1))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a  b\tc", ["a", "b", "c"]),
        ('a=\'b c\' d\\ e "f \\" g"', ["a='b c'", "d\\ e", '"f \\" g"']),
        ("", []),
        ("'open x", ["'open x"]),
        ('""', ['""']),
    ],
)
def test_words(text: str, expected: list[str]) -> None:
    assert words(text) == expected


def test_words_of_values_are_cut_outside_quotes() -> None:
    env = {"P": "80  443", "E": ""}
    assert expand_words("$P", env) == ["80", "443"]
    assert expand_words('"$P"', env) == ["80  443"]
    assert expand_words("a$P'b c'", env) == ["a80", "443b c"]
    assert expand_words("$E $Z", env) == []
    assert expand_words('""', env) == [""]


def test_expansion_is_bounded() -> None:
    with pytest.raises(BadInput, match=f"more than {MAX_DEPTH} levels deep"):
        expand("${Z:-" * 60 + "}" * 60, {})
    with pytest.raises(BadInput, match=f"more than {MAX_TEXT} characters"):
        expand("$A$A$A", {"A": "x" * (MAX_TEXT // 2)})
    assert outcome([f"ENV A={'x' * 1000}", *["ENV A=$A$A$A$A"] * 10]) == (
        f'failed to process "$A$A$A$A": a word expands to more than {MAX_TEXT} characters'
    )


PIECES = st.sampled_from(
    ["$", "${", "}", "A", "Z", ":", "-", "+", "?", "#", "%", "/", "*", "'", '"', "\\", " ", "x", "\n", "`", "[", "]"]
)
VERBS = st.sampled_from(sorted(verb.upper() for verb in _VERBS))


@given(st.lists(st.tuples(VERBS, st.lists(PIECES, max_size=15).map("".join)), max_size=4))
@example([("ENV", "A=${"), ("WORKDIR", "\\")])
def test_no_change_is_fatal(changes: list[tuple[str, str]]) -> None:
    try:
        changed({"Env": ["A=a b"]}, [f"{verb} {rest}" for verb, rest in changes])
    except CasstoreError:
        pass


@given(st.text(alphabet=st.characters(exclude_characters="\0\r\n", exclude_categories=["Cs"]), max_size=30))
def test_what_is_quoted_arrives(text: str) -> None:
    """The two ways to write any text: within single quotes, and with each character that means something escaped."""
    double = "".join("\\" + each if each in '\\"$' else each for each in text)
    expected = {"Labels": {"a": text}}
    assert changed({}, [f'LABEL a="{double}"']) == expected
    if "'" not in text:
        assert changed({}, [f"LABEL a='{text}'"]) == expected
