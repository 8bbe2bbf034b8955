"""casstore: a daemonless, content-addressed store and mirror for container images that deduplicates below the layer.

Words
    blob       any OCI content named by its digest: manifest, config, layer
    loose      kept verbatim in a file of its own
    packed     kept as a recipe over chunks
    chunk      a piece of uncompressed content named by its digest
    frame      chunks compressed together, the unit that is read back
    pack       a sealed, immutable, self-describing object of frames, its own table at the end
    index      chunk → (pack, address); derived from packs, disposable
    recipe     how to rebuild one blob exactly
    object     anything the store keeps under an immutable key: loose blob, pack, index segment
    catalog    the SQL database that names everything; its transaction is the only commit point
    lease      protects work in flight from the collector; expires
    reference  repository:tag or repository@digest

Use: `casstore.open(path) → Store`; see `casstore.api`. `Remote` is the way to registries.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .api import Store, init, open
from .digest import Digest
from .distribution import mirror
from .errors import CasstoreError

if TYPE_CHECKING:
    from .image.remote import Remote

__version__ = "0.1.0"
__all__ = ["CasstoreError", "Digest", "Remote", "Store", "__version__", "init", "mirror", "open"]


def __getattr__(name: str) -> object:
    if name == "Remote":  # who needs no registry need not wait for what speaks with them
        from .image.remote import Remote

        return Remote
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
