"""Places that images are copied between, as skopeo names them: `docker://REF`, `docker-daemon:REF`,
`docker-archive:FILE[:REF]`, `oci-archive:FILE[:NAME]`, `oci:DIR[:NAME]`, `dir:DIR`, and `store:REF`, our own.

In what has both, the path ends at the first colon. An archive has images by docker's names; a layout by any text that
`org.opencontainers.image.ref.name` may have.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from ..errors import InvalidReference, UsageError
from ..oci import reference
from ..oci.reference import Reference

DOCKER, DAEMON, STORE = "docker", "docker-daemon", "store"
DOCKER_ARCHIVE, OCI_ARCHIVE, OCI, DIR = "docker-archive", "oci-archive", "oci", "dir"
KINDS = (DOCKER, DAEMON, DOCKER_ARCHIVE, OCI_ARCHIVE, OCI, DIR, STORE)

_LABEL = re.compile(r"[A-Za-z0-9]+(?:(?:--|[-._:@+])[A-Za-z0-9]+)*(?:/[A-Za-z0-9]+(?:(?:--|[-._:@+])[A-Za-z0-9]+)*)*")
_NUMBER = re.compile(r"@[0-9]{1,6}")


@dataclass(frozen=True, slots=True)
class Place:
    """One image at one place. `text`: what was typed; `path`: of the file or folder, where the place is one; `name`:
    the reference, None where none was given; `label`: what stands behind the path, as it was typed ("": nothing)."""

    text: str
    kind: str
    path: Path = Path()
    name: Reference | None = None
    label: str = ""

    def __str__(self) -> str:
        return self.text

    @property
    def given(self) -> str:
        """The name or ID behind `store:` or `docker-daemon:`, as it was typed."""
        return self.text.partition(":")[2]


def parse(text: str, *, destination: bool = False) -> Place:
    """A place from what was typed. A `destination` needs a name where an image is found by one. UsageError,
    InvalidReference."""
    kind, colon, rest = text.partition(":")
    if not colon:
        raise UsageError("invalid image name, expected TRANSPORT:REFERENCE", what=text, hint=f"one of {_all()}")
    if kind not in KINDS:
        raise UsageError(f'unknown transport "{kind[:40]}"', what=text, hint=f"one of {_all()}")
    if "\0" in rest:
        raise UsageError("a name cannot have such characters", what=text)
    if kind == DOCKER:
        if not rest.startswith("//"):
            raise UsageError('a registry\'s image begins with "docker://"', what=text)
        return Place(text, kind, name=_name(rest[2:], text))
    if kind in (STORE, DAEMON):
        return Place(text, kind, name=_own(rest, text, destination))
    where, _, label = (rest, "", "") if kind == DIR else rest.partition(":")
    if not where:
        raise UsageError("no path is given", what=text)
    if not label:
        return Place(text, kind, Path(where))
    if kind == DOCKER_ARCHIVE:
        if _NUMBER.fullmatch(label):
            if destination:
                raise UsageError("a number is for reading an archive", what=text)
            return Place(text, kind, Path(where), label=label)
        name = _name(label, text)
        if name.digest is not None:
            raise UsageError("an archive has images by name and tag, not by digest", what=text)
        return Place(text, kind, Path(where), name.to_give() if destination else name, label)
    if not _LABEL.fullmatch(label):
        raise InvalidReference(f'invalid image "{label[:160]}"', what=text)
    return Place(text, kind, Path(where), label=label)


def _own(rest: str, text: str, destination: bool) -> Reference | None:
    """The name of what the store or docker has; where it is read, an ID will do, and there is no name then."""
    if destination:
        if not rest or reference.is_full_id(rest):
            raise UsageError("a name is needed there", what=text)
        name = _name(rest, text)
        if name.digest is not None:
            raise UsageError("a name with a tag is needed there, not a digest", what=text)
        return name.to_give()
    if not rest:
        raise UsageError("no image is given", what=text)
    return None if reference.id_prefix(rest) else _name(rest, text)


def _name(rest: str, text: str) -> Reference:
    try:
        return reference.parse(rest).or_latest()
    except InvalidReference as error:
        raise InvalidReference(error.message, what=text) from None


def _all() -> str:
    return ", ".join(f"{kind}:" for kind in KINDS)
