"""`tag` and `rmi`: names given and taken."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ..errors import CasstoreError
from ..oci import reference
from ..store import protocol
from ..store.catalog import Catalog, Tx
from ..store.volume import Volume
from .removal import Removal, Step, carry_out
from .resolve import UNTAGGED, artifact, resolve


def tag(catalog: Catalog, source: str, target: str) -> None:
    """Give the image `source` the name `target`; the name's former image stays, without a name if it was its last."""
    name = reference.parse_target(target)
    with catalog.read() as tx:
        other = artifact(tx, source)
        digest = other.target if other else resolve(tx, source).target
    protocol.tag(catalog, name.repository, name.tag, digest, keep=UNTAGGED)


def remove(volume: Volume, given: Iterable[str], *, force: bool = False, prune: bool = True) -> Iterator[Step]:
    """Remove references, and images that have none left. Each name is tried; a failure is a Step "Error"."""
    for name in given:
        try:
            yield from _remove(volume, name, force, prune)
        except CasstoreError as error:
            yield Step("Error", str(error))


def _remove(volume: Volume, name: str, force: bool, prune: bool) -> list[Step]:
    def plan(tx: Tx) -> Removal:
        removal = Removal(volume, tx, prune=prune)
        other = artifact(tx, name)
        if other is not None:
            removal.by_name(other)
            return removal
        found = resolve(tx, name)
        if found.tag is not None:
            removal.by_tag(found, found.tag)
        else:
            removal.by_id(found.image, force=force)
        return removal

    return carry_out(volume, plan).steps
