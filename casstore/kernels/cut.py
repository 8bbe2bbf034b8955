"""Content-defined chunks: where to cut payloads so that the same content, wherever it lies, is cut alike.

One algorithm, gear32n, defined in `_native/cut.h` and standardised for ever by golden cut points.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ._cut_py import cut

    IMPLEMENTATION: str
else:
    try:
        from ._cut_c import cut

        IMPLEMENTATION = "c"
    except ImportError:
        from ._cut_py import cut

        IMPLEMENTATION = "python"

__all__ = ["IMPLEMENTATION", "cut"]
