"""Many pieces of buffers copied or compared in one call.

A piece is a start (uint64) in one buffer, a start in another, and a length (uint32 or uint64), bytes. All are
checked before the first byte is touched: ValueError.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ._spans_py import IMPLEMENTATION, copy, equal
else:
    try:
        from ._spans_c import IMPLEMENTATION, copy, equal
    except ModuleNotFoundError:
        from ._spans_py import IMPLEMENTATION, copy, equal

__all__ = ["IMPLEMENTATION", "copy", "equal"]
