"""Strict JSON: what comes from outside is bounded and unambiguous before a field of it is believed.

Two readers of one document must not see two things (CVE-2021-41190): a key that stands twice is refused,
and so is a key that differs from a known one only in case, which some readers would take for it.
"""

from __future__ import annotations

import functools
import json
import re
from itertools import accumulate
from typing import Any, TypeVar

import msgspec

from ..errors import BadInput, LimitExceeded

MAX_DOCUMENT = 4 << 20
"""Largest manifest, index or config, bytes."""
MAX_ARCHIVE_JSON = 20 << 20
"""Largest JSON member of an archive (manifest.json, index.json, repositories), bytes."""
MAX_DEPTH = 64
"""Deepest nesting of arrays and objects."""
BYTES_PER_VALUE = 32
"""A document may have one value for so many bytes of its limit: values cost far more in memory than in text."""

# Possessive, all of it: what could be tried again costs the regular expression some hundred bytes a character.
_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+"?+', re.DOTALL)
_STEP = {ord("["): 1, ord("{"): 1, ord("]"): -1, ord("}"): -1, ord(","): 0}
_NOT_STRUCTURE = bytes(byte for byte in range(256) if byte not in _STEP)
_LONE_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")

T = TypeVar("T")


def strict_json(data: bytes, limit: int, what: str) -> Any:
    """Parse UTF-8 JSON of at most `limit` bytes. `what` names it in errors.

    BadInput: not JSON, a key twice in one object. LimitExceeded: too long, too deep, too many values.
    """
    if len(data) > limit:
        raise LimitExceeded(f"JSON is larger than {limit} bytes", what=what)
    _bound(data, limit // BYTES_PER_VALUE, what)
    try:
        text = data.decode("utf-8")
        value = json.loads(text, object_pairs_hook=_unique_keys, parse_constant=_no_constant)
        if _LONE_SURROGATE.search(text):
            msgspec.json.encode(value)  # refuses half a surrogate pair, which nothing could print or store later
    except UnicodeDecodeError as error:
        raise BadInput("invalid JSON: not UTF-8", what=what, offset=error.start) from None
    except UnicodeEncodeError:
        raise BadInput("invalid JSON: half a surrogate pair in a string", what=what) from None
    except json.JSONDecodeError as error:
        raise BadInput(f"invalid JSON: {error.msg}", what=what, offset=error.pos) from None
    except RecursionError:
        raise LimitExceeded("JSON is nested too deep", what=what) from None
    except ValueError as error:
        reason = "a number is too long" if "digits" in str(error) else str(error)
        raise BadInput(f"invalid JSON: {reason}", what=what) from None
    return value


def decode(kind: type[T], data: bytes, limit: int, what: str) -> T:
    """`strict_json`, then as a value of `kind` (a msgspec type), keys checked against those it knows."""
    return convert(kind, strict_json(data, limit, what), what)


def convert(kind: type[T], value: Any, what: str) -> T:
    """A parsed document as a value of `kind`; BadInput where the shape or a key differs."""
    _refuse_folded(_shape(kind), value, what)  # type: ignore[arg-type]  # types can be hashed
    try:
        return msgspec.convert(value, kind)
    except (msgspec.ValidationError, UnicodeEncodeError, OverflowError) as error:
        raise BadInput(f"invalid JSON: {_go_style(str(error))}", what=what) from None


@functools.cache
def _shape(kind: Any) -> Any:
    return msgspec.inspect.type_info(kind)


def encode(value: Any) -> bytes:
    """Compact JSON in the order of the keys given, the same on every machine."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def _bound(data: bytes, most: int, what: str) -> None:
    if data.count(b"[") + data.count(b"{") + data.count(b",") <= MAX_DEPTH:
        return
    too_many = LimitExceeded(f"JSON has more than {most} values", what=what)
    structure, at = bytearray(), 0
    # Piece by piece, and no further than `most`: all pieces at once would take a hundred times their bytes.
    for number, string in enumerate(_STRING.finditer(data)):
        structure += data[at : string.start()].translate(None, _NOT_STRUCTURE)
        at = string.end()
        if max(len(structure), number // 2) > most:
            raise too_many
    structure += data[at:].translate(None, _NOT_STRUCTURE)
    if len(structure) > most:
        raise too_many
    if max(accumulate(_STEP[byte] for byte in structure), default=0) > MAX_DEPTH:
        raise LimitExceeded(f"JSON is nested deeper than {MAX_DEPTH}", what=what)


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"duplicate key {json.dumps(twice[:80])}")
    return found


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON value")


def _refuse_folded(kind: Any, value: Any, what: str) -> None:
    """Walk `value` beside the type it is to become."""
    if isinstance(kind, msgspec.inspect.UnionType):
        for option in kind.types:
            if isinstance(option, msgspec.inspect.StructType | msgspec.inspect.ListType):
                _refuse_folded(option, value, what)
    elif isinstance(kind, msgspec.inspect.ListType) and isinstance(value, list):
        for item in value:
            _refuse_folded(kind.item_type, item, what)
    elif isinstance(kind, msgspec.inspect.StructType) and isinstance(value, dict):
        known = {field.encode_name: field for field in kind.fields}
        folded = {name.casefold(): name for name in known}
        for key, inner in value.items():
            if key in known:
                _refuse_folded(known[key].type, inner, what)
            elif (meant := folded.get(key.casefold())) is not None:
                raise BadInput(f'invalid JSON: key {json.dumps(key)} where "{meant}" is meant', what=what)


def _go_style(message: str) -> str:
    return message[:1].lower() + message[1:]
