"""casstore completion: the script that lets a shell complete commands, flags, images and values; and what it asks for.

The shell's function runs `casstore` with _CASSTORE_COMPLETE in its environment, and the line so far. Whatever goes
wrong then, nothing is suggested and nothing is printed.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, ClassVar

import click
from click.shell_completion import CompletionItem, FishComplete, ShellComplete, ZshComplete, split_arg_string

from .base import App, Command
from .output import line

if TYPE_CHECKING:
    from collections.abc import Iterator

VARIABLE = "_CASSTORE_COMPLETE"

_BASH = """\
%(complete_func)s() {
    local kind value
    COMPREPLY=()
    while IFS=, read -r kind value; do
        case $kind in
            dir) compopt -o dirnames ;;
            file) compopt -o default ;;
            plain) COMPREPLY+=("$value") ;;
        esac
    done < <(COMP_WORDS="${COMP_LINE:0:COMP_POINT}" COMP_WORDBREAKS="$COMP_WORDBREAKS" %(complete_var)s=bash_complete \\
        "$1" 2>/dev/null)
}
complete -o nosort -F %(complete_func)s %(prog_name)s 2>/dev/null || complete -F %(complete_func)s %(prog_name)s
"""


class Bash(ShellComplete):
    """bash cuts a line into words at colons too, and replaces the last of them only: it gives us the line uncut, and is
    given what follows the last colon."""

    name: ClassVar[str] = "bash"
    source_template: ClassVar[str] = _BASH

    def get_completion_args(self) -> tuple[list[str], str]:
        text = os.environ.get("COMP_WORDS", "")
        args = split_arg_string(text)[1:]
        if not args or (text[-1:].isspace() and args[-1][-1:] != text[-1:]):  # unless it is quoted
            return args, ""
        return args[:-1], args[-1]

    def get_completions(self, args: list[str], incomplete: str) -> list[CompletionItem[Any]]:
        found = super().get_completions(args, incomplete)
        if ":" not in os.environ.get("COMP_WORDBREAKS", ":"):
            return found
        value = incomplete.partition("=")[2] if incomplete.startswith("--") else incomplete
        cut = value.rpartition(":")[0] + ":" if ":" in value else ""
        return [CompletionItem(each.value.removeprefix(cut), each.type) for each in found]

    def format_completion(self, item: CompletionItem[Any]) -> str:
        return f"{item.type},{item.value}"


_SHELLS: dict[str, type[ShellComplete]] = {"bash": Bash, "zsh": ZshComplete, "fish": FishComplete}


@click.command(cls=Command)
@click.argument("shell", type=click.Choice(list(_SHELLS)))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the script that makes a shell complete commands, flags and the names of images.

    Put `source <(casstore completion bash)` into ~/.bashrc.
    """
    line(_SHELLS[shell](context.find_root().command, {}, "casstore", VARIABLE).source().strip("\n"))


def answer(root: click.Command) -> int:
    """What the shell's function asks for, to stdout; the exit code."""
    shell, _, wish = os.environ.get(VARIABLE, "").partition("_")
    asked = _SHELLS.get(shell)
    if asked is None or wish != "complete":
        return 1
    try:
        told = asked(root, {}, "casstore", VARIABLE).complete()
    except Exception:
        return 1  # half a line is often wrong
    if told:
        print(told)
    return 0


def images(context: click.Context, begin: str) -> Iterator[str]:
    """Names in the store that begin so."""
    from .. import api

    app = context.ensure_object(App)
    with api.open(app.location, create=False) as store:
        for image in store.images():
            name = f"{image.repository}:{image.tag}"
            if image.repository and image.tag and name.startswith(begin):
                yield name
