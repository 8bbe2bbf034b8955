"""stdin and stdout as raw descriptors: what may be read from them, written to them, and when not."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterable

from ..errors import CasstoreError


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
    sys.stdout.flush()
    descriptor = sys.stdout.fileno()
    for buffer in buffers:
        rest = memoryview(buffer).cast("B")
        while rest:
            rest = rest[os.write(descriptor, rest) :]


def silence_stdout() -> None:
    """After a failure: what stdout still holds is written if it can be, and nothing complains at exit."""
    try:
        sys.stdout.flush()
    except (OSError, ValueError, AttributeError):
        sys.stdout = io.StringIO()
