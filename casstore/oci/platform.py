"""Platforms: what this machine is in OCI's words, and which of several images suits it best.

Source: OCI image-spec image-index.md (platform), containerd's rules of which variant runs where.
"""

from __future__ import annotations

import platform as _machine
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol, TypeVar

from ..errors import UsageError

_ARCHITECTURES = {
    "x86_64": ("amd64", ""),
    "x86-64": ("amd64", ""),
    "amd64": ("amd64", ""),
    "i386": ("386", ""),
    "i486": ("386", ""),
    "i586": ("386", ""),
    "i686": ("386", ""),
    "386": ("386", ""),
    "aarch64": ("arm64", ""),
    "arm64": ("arm64", ""),
    "armhf": ("arm", "v7"),
    "armel": ("arm", "v6"),
    "armv5l": ("arm", "v5"),
    "armv6l": ("arm", "v6"),
    "armv7l": ("arm", "v7"),
    "armv8l": ("arm", "v8"),
    "ppc64el": ("ppc64le", ""),
    "loongarch64": ("loong64", ""),
}
_OTHER_ARCHITECTURES = frozenset({"arm", "ppc64le", "s390x", "riscv64", "mips64le", "loong64"})
_WORD = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")


@dataclass(frozen=True, slots=True)
class Platform:
    """`os` and `architecture` as Go names them (linux, amd64); `variant` such as v8, "" where unsaid."""

    os: str
    architecture: str
    variant: str = ""
    os_version: str = ""

    def __str__(self) -> str:
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)

    def normal(self) -> Platform:
        """The same with aliases resolved and an implied variant left out (arm64/v8, amd64/v1)."""
        architecture, implied = _ARCHITECTURES.get(self.architecture.lower(), (self.architecture.lower(), ""))
        variant = self.variant.lower()
        if variant.isdigit():
            variant = "v" + variant
        if architecture == "arm":
            variant = variant or implied or "v7"
        elif (architecture, variant) in (("arm64", "v8"), ("amd64", "v1")):
            variant = ""
        return Platform(self.os.lower(), architecture, variant, self.os_version)

    def plain(self) -> dict[str, str]:
        """As JSON values."""
        value = {"architecture": self.architecture, "os": self.os}
        if self.os_version:
            value["os.version"] = self.os_version
        if self.variant:
            value["variant"] = self.variant
        return value


def host() -> Platform:
    """The platform of this machine."""
    return Platform(_machine.system().lower(), _machine.machine().lower()).normal()


def parse(text: str) -> Platform:
    """`linux/arm64/v8`, `linux/amd64`, `linux`, `arm64` → Platform; UsageError otherwise."""
    parts = text.split("/")
    if not 1 <= len(parts) <= 3 or not all(_WORD.fullmatch(part) for part in parts):
        raise UsageError("invalid platform, expected os/arch[/variant]", what=text[:160])
    if len(parts) == 1:
        only = parts[0].lower()
        known = only in _ARCHITECTURES or only in (
            "arm",
            "ppc64le",
            "s390x",
            "riscv64",
            "mips64le",
            "loong64",
        )
        parts = ["linux", only] if known else [only, host().architecture]
    return Platform(*parts).normal()


def acceptable(wanted: Platform) -> list[Platform]:
    """What runs on `wanted`, best first: just that, older variants of the architecture, and its 32-bit sibling."""
    wanted = wanted.normal()
    exact = Platform(wanted.os, wanted.architecture, wanted.variant)
    return list(dict.fromkeys([exact, *_others(exact)]))


def _others(wanted: Platform) -> list[Platform]:
    os, architecture, variant = wanted.os, wanted.architecture, wanted.variant
    level = int(variant[1:]) if re.fullmatch(r"v[0-9]", variant) else 0
    if architecture == "arm":
        return [Platform(os, "arm", f"v{v}") for v in range(level, 4, -1)]
    if architecture == "arm64":
        return [Platform(os, "arm64"), *(Platform(os, "arm", f"v{v}") for v in (8, 7, 6, 5))]
    if architecture == "amd64":
        newer = [Platform(os, "amd64", f"v{v}") for v in range(level, 1, -1)]
        return [*newer, Platform(os, "amd64"), Platform(os, "386")]
    return [Platform(os, architecture)] if variant else []


def rank(offered: Platform, wanted: Platform) -> int | None:
    """How well `offered` suits `wanted`: 0 best, None not at all."""
    plain = offered.normal()
    for i, each in enumerate(acceptable(wanted)):
        if (plain.os, plain.architecture, plain.variant) == (each.os, each.architecture, each.variant):
            return i
    return None


class _Offer(Protocol):
    @property
    def platform(self) -> Platform | None: ...

    @property
    def is_attestation(self) -> bool: ...


Offer = TypeVar("Offer", bound=_Offer)


def select(offers: Iterable[Offer], wanted: Platform) -> Offer | None:
    """The descriptor that suits `wanted` best, the first among equals; None if none does.

    One that names no platform is taken only where none that names one suits and it is the only such.
    """
    best: tuple[int, Offer] | None = None
    unnamed: list[Offer] = []
    for offer in offers:
        if offer.is_attestation:
            continue
        if offer.platform is None or not offer.platform.architecture:
            unnamed.append(offer)
            continue
        suits = rank(offer.platform, wanted)
        if suits is not None and (best is None or suits < best[0]):
            best = (suits, offer)
    if best is not None:
        return best[1]
    return unnamed[0] if len(unnamed) == 1 else None
