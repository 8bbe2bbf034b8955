"""stdin and stdout as raw descriptors: what may be read from them, written to them, and when not."""

from __future__ import annotations

import errno
import io
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from ..errors import CasstoreError, OutOfSpace
from .progress import decided
from .units import visible

FULL = (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def printing() -> Iterator[None]:
    """Around what goes to stdout: where there is no room for it, OutOfSpace tells of the output, not of the store, and
    whether the command had done its work before it came to say so."""
    try:
        yield
    except OSError as error:
        if error.errno not in FULL:
            raise
        hint = "what was asked for is done" if decided.is_set() else None
        raise OutOfSpace("no space left", what="output", hint=hint) from error


def input_descriptor() -> int:
    """stdin for raw reading; a terminal has no archive to give."""
    if sys.stdin is None or sys.stdin.isatty():
        raise CasstoreError("requested load from stdin, but stdin is empty")
    return sys.stdin.fileno()


def output_descriptor() -> int:
    """stdout for raw writing; archives are not for eyes."""
    if sys.stdout is None:
        raise CasstoreError("stdout is closed")
    if sys.stdout.isatty():
        raise CasstoreError("cowardly refusing to save to a terminal. Use the -o flag or redirect")
    sys.stdout.flush()
    return sys.stdout.fileno()


def write_bytes(buffers: Iterable[bytes | bytearray | memoryview]) -> None:
    """Raw bytes to stdout, unbuffered; a short write (a full pipe) is carried on."""
    with printing():
        sys.stdout.flush()
    descriptor = sys.stdout.fileno()
    for buffer in buffers:
        rest = memoryview(buffer).cast("B")
        while rest:
            with printing():
                rest = rest[os.write(descriptor, rest) :]


def warn(text: str) -> None:
    """A line on stderr about what was not as it should be, and did not stop the work."""
    if sys.stderr is not None:
        print(f"Warning: {visible(text)}", file=sys.stderr, flush=True)


def silence_stdout() -> None:
    """After a failure: what stdout still holds is written if it can be, and nothing complains at exit."""
    try:
        sys.stdout.flush()
    except (OSError, ValueError, AttributeError):
        sys.stdout = io.StringIO()
