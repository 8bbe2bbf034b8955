"""The tree of commands; every leaf is imported only when it is called."""

from __future__ import annotations

from collections.abc import Sequence

import click

from .base import Group


@click.group(
    cls=Group,
    lazy={
        "pull": "pull:pull",
        "push": "push:push",
        "mirror": "mirror:mirror",
        "load": "load:load",
        "save": "save:save",
        "import": "import_:import_",
        "export": "export:export",
        "images": "images:images",
        "tag": "tag:tag",
        "rmi": "rmi:rmi",
        "history": "history:history",
        "inspect": "inspect:inspect",
        "image": "root:image",
        "ls": "ls:ls",
        "cat": "cat:cat",
        "diff": "diff:diff",
        "unpack": "unpack:unpack",
        "copy": "copy:copy",
        "login": "login:login",
        "logout": "logout:logout",
        "search": "search:search",
        "ls-remote": "ls_remote:ls_remote",
        "manifest": "manifest:manifest",
        "gc": "gc:gc",
        "check": "check:check",
        "df": "df:df",
        "verify": "verify:verify",
        "blob": "blob:blob",
        "bundle": "bundle:bundle",
        "config": "config:config",
        "init": "init:init",
        "completion": "completion:completion",
        "version": "version:version",
        "demo": "demo:demo",
    },
    no_args_is_help=False,
    invoke_without_command=True,
)
@click.option("--version", "show_version", is_flag=True, help="Print the version and leave.")
@click.pass_context
def root(context: click.Context, show_version: bool) -> None:
    """A content-addressed store for container images.

    Every blob that goes in comes out bit for bit; what images share is kept once.
    """
    if context.invoked_subcommand is not None:
        return
    if show_version:
        from .version import line

        click.echo(line())
    else:
        click.echo(context.get_help())


@click.group(
    cls=Group,
    lazy={
        "ls": "images:images",
        "pull": "pull:pull",
        "push": "push:push",
        "load": "load:load",
        "save": "save:save",
        "import": "import_:import_",
        "export": "export:export",
        "rm": "rmi:rmi",
        "prune": "prune:prune",
        "history": "history:history",
        "inspect": "inspect:inspect",
        "tag": "tag:tag",
    },
)
def image() -> None:
    """The image commands, gathered as docker gathers them."""


def call(argv: Sequence[str]) -> None:
    """Run `casstore ARGV…`. Raises whatever goes wrong; click's Exit where the command wants an exit code."""
    # Not root.main(), which has its own ideas of interrupts, pipes and exit codes: run.py has ours.
    with root.make_context("casstore", list(argv)) as context:
        root.invoke(context)
