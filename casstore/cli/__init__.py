"""The command line: one file per verb, each parse → api → print.

Only this room reads the environment, prints and draws progress. Everything heavy is imported when a verb
needs it: `casstore images` must answer at once.
"""

from __future__ import annotations


def main() -> None:
    """The console script: runs one command and leaves with its exit code."""
    import sys

    from .run import run

    sys.exit(run(sys.argv[1:]))
