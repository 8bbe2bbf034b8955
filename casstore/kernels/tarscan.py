"""Which bytes of a tar stream are payloads of its entries, and which are everything else; and its entries, if asked.

    scanner = Scanner()
    for piece in stream:            # of any sizes
        segments = scanner.feed(piece)
    scanner.finish()

See the twin's docstrings for what each thing means, and `_native/tarscan.h` for what is understood.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._tarscan_py import Entry, Segments

if TYPE_CHECKING:
    from ._tarscan_py import Scanner

    IMPLEMENTATION: str
else:
    try:
        from ._tarscan_c import Scanner

        IMPLEMENTATION = "c"
    except ImportError:
        from ._tarscan_py import Scanner

        IMPLEMENTATION = "python"

__all__ = ["IMPLEMENTATION", "Entry", "Scanner", "Segments"]
