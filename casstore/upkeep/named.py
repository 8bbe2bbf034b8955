"""Names of the catalog, compared with those of their rolling copy, which is under a checksum and was of the same state:
where the two differ, a row of the catalog is damaged."""

from __future__ import annotations

from typing import NamedTuple

from ..format.references import References
from ..oci.reference import familiar_repository
from ..store import references
from ..store.catalog import Tx
from ..store.objects import Objects


class Difference(NamedTuple):
    """`what`: a tag, a digest or a setting; `images`: whom it hurts."""

    what: str
    problem: str
    images: tuple[str, ...] = ()


def differences(tx: Tx, objects: Objects) -> list[Difference]:
    """In what names differ from the copy; nothing where that is of another state, missing or damaged."""
    copy = references.same_state(tx, objects)
    if copy is None:
        return []
    now = references.shown(tx)
    return [*_tags(now, copy), *_rest(now, copy)]


def _tags(now: References, copy: References) -> list[Difference]:
    mine, told = ({(row[0], row[1]): row[2] for row in one.tags} for one in (now, copy))
    found = []
    for key in sorted(mine.keys() | told.keys()):
        if mine.get(key) == told.get(key):
            continue
        name = f"{familiar_repository(key[0])}:{key[1]}"
        has = f"points at {mine[key]}" if key in mine else "is not in the catalog"
        says = f"points at {told[key]}" if key in told else "does not exist"
        found.append(Difference(name, f"{has}; by {references.FILE} it {says}", (name,)))
    return found


def _rest(now: References, copy: References) -> list[Difference]:
    pins = {(digest, name) for digest, name in now.pins} ^ {(digest, name) for digest, name in copy.pins}
    settings = dict(now.settings.items() ^ copy.settings.items())
    return [
        *(
            Difference(str(digest), f"its pin {name!r} is not what {references.FILE} says")
            for digest, name in sorted(pins)
        ),
        *(Difference(key, f"the setting is not what {references.FILE} says") for key in sorted(settings)),
    ]
