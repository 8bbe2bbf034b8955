"""What all commands share: the click classes, the options every verb has, and the way to the store."""

from __future__ import annotations

import importlib
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from click import Command as _Command
    from click import Group as _Group
    from click.shell_completion import CompletionItem

    from ..api import Store
elif "--help" in sys.argv or (len(sys.argv) < 2 and "_CASSTORE_COMPLETE" not in os.environ):
    # Only help is worth the tenth of a second that rich costs.
    from rich_click import RichCommand as _Command
    from rich_click import RichGroup as _Group
else:
    from click import Command as _Command
    from click import Group as _Group


@dataclass
class App:
    """What the options in front of (or behind) the verb said."""

    store_path: Path | None = None
    quiet: bool = False

    @property
    def location(self) -> Path:
        """--store, else CASSTORE_STORE, else the data folder of the machine (root) or of the user (XDG)."""
        if self.store_path is not None:
            return self.store_path
        named = os.environ.get("CASSTORE_STORE")
        if named:
            return Path(named)
        if os.geteuid() == 0:
            return Path("/var/lib/casstore")
        data = Path(os.environ.get("XDG_DATA_HOME", ""))
        if not data.is_absolute():  # the XDG specification: relative paths are to be ignored
            data = Path.home() / ".local" / "share"
        return data / "casstore"

    def open(self, **more: bool) -> Store:
        """The store, made on first use; closed when the command ends. `more` is for api.open."""
        from .. import api
        from .progress import decided, for_terminal

        context = click.get_current_context()
        progress = context.with_resource(for_terminal(self.quiet))
        return context.with_resource(api.open(self.location, progress=progress, decided=decided.set, **more))


pass_app = click.make_pass_decorator(App, ensure=True)


def _on_app(field: str) -> Callable[[click.Context, click.Parameter, Any], None]:
    def keep(context: click.Context, parameter: click.Parameter, value: Any) -> None:
        if value is not None and value is not False:
            setattr(context.ensure_object(App), field, value)

    return keep


def shared_options() -> list[click.Parameter]:
    """--store and --quiet, which may stand before the verb or after it."""
    return [
        click.Option(
            ["--store"],
            type=click.Path(readable=False, path_type=Path),  # what is wrong with it, opening it tells
            metavar="DIR",
            expose_value=False,
            callback=_on_app("store_path"),
            help="The store's folder (else CASSTORE_STORE, else the data folder).",
        ),
        click.Option(
            ["--quiet"], is_flag=True, expose_value=False, callback=_on_app("quiet"), help="Show no progress."
        ),
    ]


class Suggested(click.types.StringParamType):
    """Any text; what a shell may suggest for it is said by how help calls it."""

    def __init__(self, called: str) -> None:
        self._called = called

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem[Any]]:
        from click.shell_completion import CompletionItem

        from .completion import images

        if "IMAGE" in self._called or "REPOSITORY" in self._called:
            return [CompletionItem(name) for name in images(ctx, incomplete)]
        if "FILE" in self._called:
            return [CompletionItem(incomplete, type="file")]
        forms = {"FORMAT": ("json", "table"), "TEMPLATE": ("json",)}.get(self._called, ())
        return [CompletionItem(form) for form in forms if form.startswith(incomplete)]


class Command(_Command):
    """A verb: a click command that also takes the shared options."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        taken = {name for parameter in self.params for name in parameter.opts}
        self.params += [option for option in shared_options() if not taken & set(option.opts)]
        for parameter in self.params:
            if parameter.type is click.STRING and parameter.metavar is not None:
                parameter.type = Suggested(parameter.metavar)

    def get_help(self, ctx: click.Context) -> str:
        self.epilog = _examples(ctx)
        return super().get_help(ctx)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, _switched(self.params, args))


_SWITCH = re.compile(r"(--?[A-Za-z][\w-]*)=(?:(1|t|T|true|True|TRUE)|0|f|F|false|False|FALSE)")


def _switched(parameters: Sequence[click.Parameter], args: list[str]) -> list[str]:
    """docker's way with flags: `--no-trunc=true`, `-H=false`."""
    flags = {
        name: option
        for option in parameters
        if isinstance(option, click.Option) and option.is_flag
        for name in option.opts
    }
    result: list[str] = []
    for at, text in enumerate(args):
        if text == "--":
            return result + args[at:]
        found = _SWITCH.fullmatch(text)
        if found is None or found[1] not in flags:
            result.append(text)
        elif found[2]:
            result.append(found[1])
        else:
            result += flags[found[1]].secondary_opts[:1]  # without one, off is how it is anyway
    return result


class Group(_Group):
    """Imports a command's module when that command is named. `lazy`: command → "module:attribute"."""

    command_class = Command

    def __init__(self, *args: Any, lazy: Mapping[str, str] | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params += shared_options()
        self._lazy = dict(lazy or {})

    def get_help(self, ctx: click.Context) -> str:
        self.epilog = _examples(ctx)
        return super().get_help(ctx)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*self._lazy, *super().list_commands(ctx)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        place = self._lazy.get(cmd_name)
        if place is None:
            return super().get_command(ctx, cmd_name)
        module, attribute = place.split(":")
        found = getattr(importlib.import_module(f"casstore.cli.{module}"), attribute)
        if not isinstance(found, click.Command):
            raise TypeError(f"{place} is not a command")
        return found

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem[Any]]:
        """Names of commands without their help, for which all their modules would be imported; and flags."""
        from click.shell_completion import CompletionItem

        names = [name for name in self.list_commands(ctx) if name.startswith(incomplete)]
        return [*map(CompletionItem, names), *click.Command.shell_complete(self, ctx, incomplete)]

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and not args[0].startswith("-") and self.get_command(ctx, args[0]) is None:
            ctx.fail(f"'{args[0]}' is not a {ctx.command_path} command")
        return super().resolve_command(ctx, args)


def _examples(context: click.Context) -> str:
    from .examples import of

    return of(context.command_path)


def format_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """--format, as docker has it."""
    return click.option(
        "--format",
        "form",
        metavar="FORMAT",
        help="'json', 'table', 'table TEMPLATE' or TEMPLATE ('{{.ID}} {{.Size}}').",
    )(function)


def pack_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """--pack, for what brings content."""
    return click.option(
        "--pack",
        type=click.Choice(["now", "later", "never"]),
        help="When to take content apart into chunks: now, later in gc, or never; if not given, what is gzip later.",
    )(function)


def counted(failure: click.UsageError) -> str:
    """The message of a usage error; a wrong number of arguments in docker's words."""
    message = failure.format_message().rstrip(".").replace("\n", " ")
    extra = message.startswith("Got unexpected extra argument")
    missing = isinstance(failure, click.MissingParameter) and isinstance(failure.param, click.Argument)
    if failure.ctx is None or not (extra or missing):
        return message
    arguments = [each for each in failure.ctx.command.params if isinstance(each, click.Argument)]
    least = sum(each.required for each in arguments)
    if not arguments:
        return f'"{failure.ctx.command_path}" accepts no arguments'
    if any(each.nargs == -1 for each in arguments):
        bound = f"at least {least}"
        most = least
    else:
        most = len(arguments)
        bound = f"exactly {most}" if most == least else f"at least {least}" if missing else f"at most {most}"
    number = least if bound.startswith("at least") else most
    return f'"{failure.ctx.command_path}" requires {bound} argument{"" if number == 1 else "s"}'
