"""Every command and group says in one line what it does, and gives an example that its parser takes."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator
from typing import Any

import click
import pytest

from casstore.cli.examples import EXAMPLES, of
from casstore.cli.root import root


def tree(command: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    yield path, command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            found = command.get_command(context, name)
            assert found is not None
            yield from tree(found, (*path, name))


COMMANDS = dict(tree(root))
named = pytest.mark.parametrize("path", COMMANDS, ids=lambda path: " ".join(path) or "casstore")


@named
def test_one_line_says_what_it_does(path: tuple[str, ...]) -> None:
    first = (COMMANDS[path].help or "").strip().partition("\n")[0]
    assert re.fullmatch(r"[A-Z].{5,118}[.:]( .*)?", first), (
        "the docstring's first line (casstore/cli/README says no more)"
    )


@named
def test_help_ends_with_an_example(casstore: Callable[..., Any], path: tuple[str, ...]) -> None:
    shown = re.sub(r"\s+", " ", casstore(*path, "--help").out)
    examples = of(" ".join(["casstore", *path]))
    assert examples, f"an example for {' '.join(path)} is missing in casstore/cli/examples.py"
    assert shown.rstrip().endswith(re.sub(r"\s+", " ", examples))


def calls(example: str) -> Iterator[list[str]]:
    """The calls of casstore in a line of shell, without its name."""
    for part in re.split(r"\||<\(|\)", example):
        words = shlex.split(part)
        if words[:1] == ["casstore"]:
            yield words[1:]


@pytest.mark.parametrize("example", [each for examples in EXAMPLES.values() for each in examples])
def test_examples_parse(example: str) -> None:
    found = list(calls(example))
    assert found
    for argv in found:
        command: click.Command = root
        context = root.make_context("casstore", list(argv))
        while isinstance(command, click.Group):
            name, inner, rest = command.resolve_command(context, [*context._protected_args, *context.args])
            assert inner is not None
            command, context = inner, inner.make_context(name, rest, parent=context)


def test_examples_are_of_commands_that_there_are() -> None:
    assert {tuple(words.split()) for words in EXAMPLES} <= set(COMMANDS)
    for words, examples in EXAMPLES.items():
        assert all(f"casstore {words}".split()[-1] in example.split() for example in examples if words), words
