"""casstore version."""

from __future__ import annotations

import platform

import click

from .base import Command, format_option
from .output import line as write
from .output import show


def line() -> str:
    """`casstore 0.1.0`."""
    return f"casstore {_number()}"


@click.command(cls=Command)
@format_option
def version(form: str | None) -> None:
    """Show the version, and whether the compiled kernels are in use."""
    import apsw

    from ..kernels import cut, hashing, spans, table, tarscan

    kernels = {
        module.__name__.rpartition(".")[2]: module.IMPLEMENTATION for module in (cut, hashing, spans, table, tarscan)
    }
    row = {
        "Version": _number(),
        "Python": platform.python_version(),
        "SQLite": apsw.sqlite_lib_version(),
        "Platform": f"{platform.system().lower()}/{platform.machine()}",
        "Kernels": kernels,
    }
    if form is None:
        write(line())
        row["Kernels"] = ", ".join(f"{name} {kind}" for name, kind in kernels.items())
        for name, value in row.items():
            if name != "Version":
                write(f"  {name + ':':10} {value}")
    else:
        show([row], form, {name: name.upper() for name in row}, tuple(row))


def _number() -> str:
    from importlib.metadata import PackageNotFoundError
    from importlib.metadata import version as installed

    try:
        return installed("casstore")
    except PackageNotFoundError:
        return "(not installed)"
