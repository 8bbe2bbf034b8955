"""casstore inspect: all that is known of an image, as JSON or through a template."""

from __future__ import annotations

import json
import sys

import click

from ..errors import AmbiguousPrefix, CasstoreError, InvalidReference, NotFound
from .base import App, Command, pass_app
from .docker_types import typed
from .output import lines
from .template import Template, to_json
from .units import visible

_KINDS = ("container", "image", "network", "node", "plugin", "secret", "service", "task", "volume")


@click.command(cls=Command)
@click.option("-f", "--format", "form", metavar="TEMPLATE", help="'json' or a template ('{{.Id}}'), once an image.")
@click.option("--type", "kind", metavar="KIND", help="Kind of the objects; here are images only.")
@click.argument("names", metavar="IMAGE...", nargs=-1, required=True)
@click.pass_context
@pass_app
def inspect(app: App, context: click.Context, form: str | None, kind: str | None, names: tuple[str, ...]) -> None:
    """Show all that is known of one or more images, a JSON array. The exit code is 1 if any is missing."""
    if kind not in (None, "", *_KINDS):
        raise CasstoreError(f'"{kind}" is not a valid value for --type')
    template = Template(form, escapes=False) if form not in (None, "", "json") else None
    word = kind or ("image" if context.parent and context.parent.info_name == "image" else "object")
    store = app.open()
    found, failures = [], []
    for name in names:
        try:
            if word not in ("image", "object"):
                raise NotFound(name)
            found.append(store.inspect(name))
        except CasstoreError as failure:
            failures.append(f"No such {word}: {name}" if _is_missing(failure, word) else str(failure))
    if template is not None:
        # A template that does not fit one image fails for all, before anything is printed.
        lines([template.render(typed(facts)) for facts in found] or [""])
    elif form == "json":
        lines([to_json(found)])
    else:
        lines([json.dumps(found, indent=4, ensure_ascii=False)])
    for text in failures:
        print(f"Error: {visible(text)}", file=sys.stderr, flush=True)
    if failures:
        context.exit(1)


def _is_missing(failure: CasstoreError, word: str) -> bool:
    """What is no name of an image is no object either; of an image it is said what is wrong with it."""
    if isinstance(failure, AmbiguousPrefix):
        return False
    return isinstance(failure, NotFound) or (isinstance(failure, InvalidReference) and word != "image")
