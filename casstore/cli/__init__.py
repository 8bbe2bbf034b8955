"""The command line: one file per verb, each parse → api → print.

Only this room reads the environment, prints and draws progress. Everything heavy is imported when a verb
needs it: `casstore images` must answer at once.
"""

from __future__ import annotations


def main() -> None:
    """The console script: runs one command and leaves with its exit code."""
    import os
    import sys

    # No linear algebra is done here; its threads, begun as numpy is imported, would spin for a tenth of a second.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

    from .run import run

    sys.exit(run(sys.argv[1:]))
