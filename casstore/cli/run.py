"""One command from argv to exit code: signals, and every failure as one line on stderr."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType

import click

from ..errors import CasstoreError, Interrupted, OutOfSpace
from .base import counted
from .progress import decided, stopped
from .root import call, root
from .streams import FULL, printing, silence_stdout
from .units import visible


def run(argv: Sequence[str]) -> int:
    """Run `casstore ARGV…`; returns the exit code. Raises (a traceback) only where CASSTORE_DEBUG is set."""
    stopped.clear()
    decided.clear()
    _catch_signals()
    for stream in (sys.stdout, sys.stderr):
        if stream is not None and hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    try:
        if "_CASSTORE_COMPLETE" in os.environ:
            from .completion import answer

            return answer(root)
        call(argv)
        if sys.stdout is not None:
            with printing():
                sys.stdout.flush()
    except click.exceptions.NoArgsIsHelpError as help_text:
        print(help_text.format_message())
        return 0
    except BaseException as failure:
        if os.environ.get("CASSTORE_DEBUG") and not isinstance(failure, click.exceptions.Exit):
            raise
        line, code = explain(failure)
        silence_stdout()
        if line:
            _complain(line)
        return code
    return 0


def explain(failure: BaseException) -> tuple[str, int]:
    """What to print (one line, "" for nothing) and the exit code."""
    match failure:
        case CasstoreError():
            return f"Error: {failure}", failure.exit_code
        case click.exceptions.Exit():
            return "", failure.exit_code
        case click.UsageError():
            path = failure.ctx.command_path if failure.ctx else "casstore"
            return f"Error: {counted(failure)} (see '{path} --help')", 125
        case click.ClickException():
            return f"Error: {failure.format_message()}", failure.exit_code
        case KeyboardInterrupt():
            return explain(Interrupted("interrupted"))
        case BrokenPipeError():
            return "", 1
        case OSError() if failure.errno in FULL:
            return explain(OutOfSpace("no space left on device", what=_name(failure)))
        case OSError():
            what, why = _name(failure), (failure.strerror or str(failure)).lower()
            return (f"Error: {what}: {why}" if what else f"Error: {why}"), 1
        case MemoryError():
            return "Error: out of memory", 1
        case SystemExit():
            return "", failure.code if isinstance(failure.code, int) else 1
    kind, text = type(failure).__name__, " ".join(str(failure).split())
    return f"Error: internal error: {kind}: {text[:400]} (run again with CASSTORE_DEBUG=1 and report it)", 1


def _name(failure: OSError) -> str | None:
    return None if failure.filename is None else os.fsdecode(failure.filename)


def _complain(line: str) -> None:
    if sys.stderr is None:
        return  # closed by the caller: the exit code has to do
    try:
        print(visible(line.replace("\n", " ")), file=sys.stderr, flush=True)
    except OSError:
        pass


def _catch_signals() -> None:
    """SIGTERM ends a command as Ctrl-C does: unwinding, so that leases close and temporary files go. A second
    signal kills at once, which is safe too (DESIGN §2, promise 2)."""

    def stop(number: int, frame: FrameType | None) -> None:
        signal.signal(number, signal.SIG_DFL)
        if decided.is_set():
            return  # it ends at once by itself, and says that it was done
        stopped.set()
        raise KeyboardInterrupt

    for number in (signal.SIGINT, signal.SIGTERM):
        try:
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, stop)
        except ValueError:
            return  # not the main thread: whoever runs us there has the signals
