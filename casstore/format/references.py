"""references.json: the rolling copy of what only the catalog knows. Specified in FORMATS.md."""

from __future__ import annotations

import re
from typing import NamedTuple

import msgspec
from blake3 import blake3

from ..digest import Digest
from ..errors import Damaged, InvalidReference

VERSION = 1
#: Bytes from the beginning that `decode_head` needs.
HEAD_SIZE = 160
#: Larger than any copy that is read (bytes).
MAX_SIZE = 1 << 30

_HEAD = re.compile(
    rb'\{"version":(\d{1,9}),"store":"([0-9a-f]{32})","serial":(\d{1,18}),"word":"([0-9a-f]{16})","written":(\d{1,12}),'
)


class Head(NamedTuple):
    """Which state of the catalog a copy shows: `serial` counts the transactions that changed a name, `word` is random
    for each of them; `written` is a time, in seconds since 1970; `store` is the id of the store whose names they
    are."""

    serial: int
    word: str
    written: int
    store: str


class References(NamedTuple):
    """`tags`: (repository, tag, digest, created) with `created` in seconds since 1970; `pins`: (digest, name)."""

    head: Head
    tags: list[tuple[str, str, Digest, float]]
    pins: list[tuple[Digest, str]]
    settings: dict[str, str]


class _Body(msgspec.Struct):
    tags: list[tuple[str, str, str, float]]
    pins: list[tuple[str, str]]
    settings: dict[str, str]


class _File(msgspec.Struct):
    version: int
    store: str
    serial: int
    word: str
    written: int
    check: str
    references: msgspec.Raw


def encode(copy: References) -> bytes:
    """The bytes of references.json."""
    body = msgspec.json.encode(
        _Body(
            [(repository, tag, str(digest), created) for repository, tag, digest, created in copy.tags],
            [(str(digest), name) for digest, name in copy.pins],
            copy.settings,
        )
    )
    head = copy.head
    file = _File(VERSION, head.store, head.serial, head.word, head.written, _check(head, body), msgspec.Raw(body))
    return msgspec.json.encode(file) + b"\n"


def decode_head(data: bytes) -> Head | None:
    """What the first HEAD_SIZE bytes say, unchecked; None where they are of no copy that this program knows."""
    found = _HEAD.match(data)
    if found is None or int(found[1]) != VERSION:
        return None
    return Head(int(found[3]), found[4].decode(), int(found[5]), found[2].decode())


def decode(data: bytes, what: str = "references.json") -> References:
    """The whole copy. Damaged: any byte of what it says differs from what was written, or it is of another version."""
    try:
        file = msgspec.json.decode(data, type=_File)
        head = Head(file.serial, file.word, file.written, file.store)
        if file.version != VERSION:
            raise Damaged(f"references of unknown format version {file.version}", what=what)
        if _check(head, bytes(file.references)) != file.check:
            raise Damaged("references fail their checksum", what=what)
        body = msgspec.json.decode(file.references, type=_Body)
        tags = [(repository, tag, Digest.parse(digest), created) for repository, tag, digest, created in body.tags]
        pins = [(Digest.parse(digest), name) for digest, name in body.pins]
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, InvalidReference) as error:
        raise Damaged(f"not a copy of references: {error}", what=what) from None
    return References(head, tags, pins, body.settings)


def _check(head: Head, body: bytes) -> str:
    # Not the checksum of `encoding`, which is the same: giving an image a name needs no arrays.
    told = f"{VERSION} {head.store} {head.serial} {head.word} {head.written} "
    return blake3(told.encode() + body).hexdigest(16)
