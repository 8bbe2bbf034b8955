"""Names of images: `[domain/]path[:tag][@digest]`, as docker writes and reads them.

Grammar (distribution/reference):

    reference  := name [":" tag] ["@" digest]
    name       := [domain "/"] component ("/" component)*
    domain     := host [":" port]         the first part, if it holds "." or ":" or is "localhost"
    component  := [a-z0-9]+ ((?:[._] | "__" | "-"+) [a-z0-9]+)*
    tag        := [\\w][\\w.-]{0,127}
    digest     := algorithm ":" hex{32,}

Names are kept canonical (`docker.io/library/busybox`); people see the familiar form (`busybox`).
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace

from ..digest import Digest
from ..errors import InvalidReference

DEFAULT_DOMAIN = "docker.io"
DEFAULT_TAG = "latest"
MAX_PATH = 255
"""Longest path of a repository, characters."""

_MAX_TEXT = 1024  # longer than any that is valid: the expressions below need memory for each character
_LEGACY_DOMAIN = "index.docker.io"
_OFFICIAL = "library/"

_COMPONENT = r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
_PATH = rf"{_COMPONENT}(?:/{_COMPONENT})*"
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?"
_DOMAIN = rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[A-Fa-f0-9:]+\])(?::[0-9]+)?"
_TAG = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}"
_ALGORITHM = r"[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*"
_DIGEST = rf"{_ALGORITHM}:[0-9a-fA-F]{{32,}}"

_REFERENCE = re.compile(rf"({_DOMAIN})/({_PATH})(?::({_TAG}))?(?:@({_DIGEST}))?")
_TAG_ONLY = re.compile(_TAG)
_IDENTIFIER = re.compile(r"[a-f0-9]{64}")
_ALGORITHMS = ("sha256", "sha512")
_FULL_ID = re.compile(r"(?:sha256:)?[a-f0-9]{64}|sha512:[a-f0-9]{128}")
_ID_PREFIX = re.compile(r"(?:sha256:)?([a-f0-9]{1,64})")


@dataclass(frozen=True, slots=True, order=True)
class Reference:
    """A parsed name. `tag` is "" and `digest` None where the text had none."""

    domain: str
    path: str
    tag: str = ""
    digest: Digest | None = None

    @property
    def repository(self) -> str:
        """Canonical name without tag and digest: `docker.io/library/busybox`."""
        return f"{self.domain}/{self.path}"

    @property
    def familiar_name(self) -> str:
        """What people type for the repository: `busybox`."""
        return familiar_repository(self.repository)

    def familiar(self) -> str:
        """What people type: `busybox:latest`."""
        return self.familiar_name + self._suffix()

    def __str__(self) -> str:
        """The full form: `docker.io/library/busybox:latest`."""
        return self.repository + self._suffix()

    def _suffix(self) -> str:
        return (f":{self.tag}" if self.tag else "") + (f"@{self.digest}" if self.digest else "")

    def or_latest(self) -> Reference:
        """This reference, tagged `latest` if it says neither tag nor digest."""
        return self if self.tag or self.digest else replace(self, tag=DEFAULT_TAG)

    def with_tag(self, tag: str) -> Reference:
        """The same repository under another tag; InvalidReference if the grammar forbids the tag."""
        if not _TAG_ONLY.fullmatch(tag):
            raise InvalidReference("invalid tag format", what=json.dumps(tag[:160]))
        return replace(self, tag=tag, digest=None)

    def to_give(self) -> Reference:
        """This reference, as a name that an image may get: InvalidReference for `sha256:abc`, which would stand before
        the image whose ID begins so."""
        if self.familiar_name in _ALGORITHMS:
            raise InvalidReference(
                "refusing to create an ambiguous tag using digest algorithm as name", what=self.familiar()
            )
        return self


def familiar_repository(repository: str) -> str:
    """`docker.io/library/busybox` → `busybox`, `docker.io/a/b` → `a/b`; others unchanged, and those too that would
    then be read as something else (`docker.io/localhost/a`)."""
    domain, _, path = repository.partition("/")
    if domain != DEFAULT_DOMAIN or _names_domain(path):
        return repository
    short = path.removeprefix(_OFFICIAL)
    return path if "/" in short or _IDENTIFIER.fullmatch(short) else short


def parse(text: str) -> Reference:
    """Any spelling → Reference, names normalised; neither tag nor digest is added.

    InvalidReference says why, in docker's words; `what` is the text, quoted.
    """
    problem, found = _parse(text)
    if found is None:
        raise _invalid(problem, text)
    return found


def parse_target(text: str) -> Reference:
    """The name that `tag`, `import` or `commit` gives: with a tag (default `latest`), never with a digest."""
    problem, found = _parse(text)
    if found is None:
        raise InvalidReference(f"Error parsing reference: {_quote(text)} is not a valid repository/tag: {problem}")
    if found.digest:
        raise InvalidReference("refusing to create a tag with a digest reference", what=found.familiar())
    return found.or_latest().to_give()


def parse_repo_tag(text: str) -> Reference:
    """A name as archives list it: a tag is a must, a digest is not allowed. `invalid tag "foo"` otherwise."""
    problem, found = _parse(text)
    if found is None:
        raise _invalid(problem, text)
    if not found.tag or found.digest:
        raise InvalidReference(f"invalid tag {_quote(text)}")
    return found.to_give()


def id_prefix(text: str) -> str | None:
    """The hex digits if `text` may be (the beginning of) an image ID, `sha256:` allowed; else None."""
    found = _ID_PREFIX.fullmatch(text)
    return found[1] if found else None


def is_full_id(text: str) -> bool:
    """Is this 64 hex digits, with or without `sha256:`, or `sha512:` and 128? Then it is an ID and never a name."""
    return _FULL_ID.fullmatch(text) is not None


def _parse(text: str) -> tuple[str, Reference | None]:
    """(why not, None) or ("", Reference)."""
    if len(text) > _MAX_TEXT:
        return f"invalid reference format: repository name must not be more than {MAX_PATH} characters", None
    if _IDENTIFIER.fullmatch(text):
        return f"invalid repository name ({text}), cannot specify 64-byte hexadecimal strings", None
    domain, rest = _split_domain(text)
    before_tag = rest.partition(":")[0].partition("@")[0]
    if before_tag != before_tag.lower():
        return "invalid reference format: repository name must be lowercase", None
    found = _REFERENCE.fullmatch(f"{domain}/{rest}")
    if not found:
        return "invalid reference format", None
    path, tag, digest = found[2], found[3] or "", found[4]
    if len(path) > MAX_PATH:
        return f"invalid reference format: repository name must not be more than {MAX_PATH} characters", None
    if digest is None:
        return "", Reference(domain, path, tag)
    try:
        return "", Reference(domain, path, tag, Digest.parse(digest))
    except InvalidReference:
        known = digest.partition(":")[0] in _ALGORITHMS
        return "invalid checksum digest length" if known else "unsupported digest algorithm", None


def _split_domain(text: str) -> tuple[str, str]:
    if _names_domain(text):
        domain, _, rest = text.partition("/")
    else:
        domain, rest = DEFAULT_DOMAIN, text
    if domain == _LEGACY_DOMAIN:
        domain = DEFAULT_DOMAIN
    if domain == DEFAULT_DOMAIN and "/" not in rest:
        rest = _OFFICIAL + rest
    return domain, rest


def _names_domain(text: str) -> bool:
    first, slash, _ = text.partition("/")
    return slash != "" and (first == "localhost" or "." in first or ":" in first)


def _invalid(problem: str, text: str) -> InvalidReference:
    return InvalidReference(problem, what=None if text and text in problem else _quote(text))


def _quote(text: str) -> str:
    return json.dumps(text if len(text) <= 512 else text[:512] + "…", ensure_ascii=False)
