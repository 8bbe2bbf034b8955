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
    """Show the version, whether the compiled kernels are in use, and the encoders of gzip that are known."""
    import apsw

    from ..flow.encoded import ENCODERS
    from ..kernels import cut, deflate, hashing, spans, table, tarscan

    kernels = {
        module.__name__.rpartition(".")[2]: module.IMPLEMENTATION
        for module in (cut, deflate, hashing, spans, table, tarscan)
    }
    row = {
        "Version": _number(),
        "Python": platform.python_version(),
        "SQLite": apsw.sqlite_lib_version(),
        "Platform": f"{platform.system().lower()}/{platform.machine()}",
        "Kernels": kernels,
        "Encoders": [name for engine, name in ENCODERS.items() if engine in deflate.engines()],
    }
    if form is None:
        write(line())
        row["Kernels"] = ", ".join(f"{name} {kind}" for name, kind in kernels.items())
        encoders = row.pop("Encoders")
        for name, value in row.items():
            if name != "Version":
                write(f"  {name + ':':10} {value}")
        for number, encoder in enumerate(encoders):
            write(f"  {'' if number else 'Encoders:':10} {encoder}")
    else:
        show([row], form, {name: name.upper() for name in row}, tuple(row))


def _number() -> str:
    from importlib.metadata import PackageNotFoundError
    from importlib.metadata import version as installed

    try:
        return installed("casstore")
    except PackageNotFoundError:
        return "(not installed)"
