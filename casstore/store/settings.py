"""`casstore config`: the store's settings, kept in the catalog; each with its default and what it may be."""

from __future__ import annotations

import re
from collections.abc import Callable

from ..codec import frame
from ..errors import UsageError
from . import references
from .catalog import Catalog, Tx

_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
_SIZES = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}


def seconds(text: str) -> float:
    """`90`, `10m`, `24h`, `2d` → seconds."""
    found = re.fullmatch(r"(\d{1,15}(?:\.\d{1,15})?)\s*([smhd]?)", text.strip().lower())
    if not found:
        raise ValueError("a duration such as 90s, 10m, 24h")
    return float(found[1]) * _UNITS[found[2]]


def size(text: str) -> int:
    """`4096`, `500M`, `10GiB` → bytes."""
    found = re.fullmatch(r"(\d{1,15}(?:\.\d{1,15})?)\s*([kmgt]i?)?b?", text.strip().lower())
    if not found:
        raise ValueError("a size such as 500M or 10GiB")
    return int(float(found[1]) * _SIZES[found[2] or ""])


def ratio(text: str) -> float:
    """`2000`: how many times its size something may become."""
    if not re.fullmatch(r"\d{1,9}(\.\d{1,9})?", text.strip()):
        raise ValueError("a number such as 2000")
    return float(text)


def share(text: str) -> float:
    """`3%` → 0.03."""
    found = re.fullmatch(r"(\d{1,3}(?:\.\d{1,9})?)\s*%", text.strip())
    if not found or float(found[1]) > 100:
        raise ValueError("a share such as 3%")
    return float(found[1]) / 100


def codec(text: str) -> str:
    """A frame codec: none, lz4, zstd:1 … zstd:19."""
    frame.parse(text)
    return text


DEFAULTS: dict[str, tuple[str, Callable[[str], object]]] = {
    "pack.after": ("24h", seconds),
    "pack.budget": ("10m", seconds),
    "trace.limit": ("3%", share),
    "cache.size": ("1GiB", size),
    "compression": ("zstd:2", codec),
    "min-free": ("1GiB", size),
    "limit.ratio": ("2000", ratio),
    "limit.output": ("1TiB", size),
}


def everything(tx: Tx) -> dict[str, str]:
    """All settings, those not set with their defaults."""
    kept = dict(tx.rows("SELECT key, value FROM config"))
    return {key: kept.get(key, default) for key, (default, _) in DEFAULTS.items()}


def get(tx: Tx, key: str) -> str:
    """One setting's value as text; UsageError for one that there is not."""
    _known(key)
    return everything(tx)[key]


def change(catalog: Catalog, key: str, value: str) -> None:
    """Set one; UsageError where the value is none for it."""
    _, parse = _known(key)
    try:
        parse(value)
    except ValueError as error:
        raise UsageError(f'invalid value "{value}" for {key}: expected {error}') from None
    with catalog.write("config", final=True) as tx:
        references.changed(tx)
        tx.run("INSERT OR REPLACE INTO config (key, value) VALUES (?, ?)", (key, value))


def _known(key: str) -> tuple[str, Callable[[str], object]]:
    if key not in DEFAULTS:
        raise UsageError(f'unknown setting "{key}"', hint="known are " + ", ".join(DEFAULTS))
    return DEFAULTS[key]
