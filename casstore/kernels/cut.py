"""Content-defined chunks: where to cut payloads so that the same content, wherever it lies, is cut alike.

One algorithm, gear32n, defined in `_native/cut.h` and standardised for ever by golden cut points.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ._cut_py import IMPLEMENTATION, cut
else:
    try:
        from ._cut_c import IMPLEMENTATION, cut
    except ModuleNotFoundError:
        from ._cut_py import IMPLEMENTATION, cut

__all__ = ["IMPLEMENTATION", "cut"]
