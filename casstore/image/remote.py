"""The registries that images come from and go to, and who we are there: `login`, `logout`, `search`, and a look at what
a repository has."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Self

from ..digest import Digest
from ..errors import Denied, InvalidReference, NotFound, UsageError
from ..oci import manifest as oci_manifest
from ..oci import reference
from ..oci.manifest import Descriptor
from ..oci.reference import DEFAULT_DOMAIN, Reference
from ..transport.credentials import Credential, CredentialStore
from ..transport.http import Http, Network
from ..transport.registry import Fetched, Registry, SearchResult
from .plan import DEFAULT, Access

MAX_RESULTS = 100


class Remote:
    """The way to registries. `network`: see there; `credentials`: files as docker's config.json and podman's auth.json,
    in the order in which they are asked; `login` writes the first. `mirrors`: registry → those that are asked before it
    when it is pulled from, and told whom they stand for. `alive` is called while waiting, and may raise."""

    def __init__(
        self,
        network: Network | None = None,
        credentials: Sequence[Path] = (),
        alive: Callable[[], None] = lambda: None,
        *,
        mirrors: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        self._mirrors = {domain_of(one): [*map(domain_of, hosts)] for one, hosts in (mirrors or {}).items()}
        self.http = Http(network, alive)
        self._credentials = CredentialStore(credentials)
        self._ways: dict[tuple[bool, Path | None], Http] = {(True, None): self.http}
        self._registries: dict[tuple[str, str, Credential | None, bool, Http], Registry] = {}

    def close(self) -> None:
        """Let all connections go."""
        for way in self._ways.values():
            way.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def registry(self, name: Reference, *, push: bool = False, access: Access = DEFAULT) -> Registry:
        """The registry of a reference; the same one, with what it has learnt, for all that may share it. `access`: how
        a plan says that it is to be reached."""
        return self._at(name.domain, name, push, access)

    def ways(self, name: Reference) -> list[Registry]:
        """Where a reference may be pulled from, in this order: the mirrors of its registry, and that itself."""
        mirrors = [self._at(host, name, False, DEFAULT) for host in self._mirrors.get(name.domain, ())]
        return [*mirrors, self.registry(name)]

    def _at(self, domain: str, name: Reference, push: bool, access: Access) -> Registry:
        credential = access.credential or self._credentials.find(domain, name.path)
        http = self._way(access)
        stands_for = name.domain if domain != name.domain else ""
        key = domain, stands_for, credential, push, http
        if key not in self._registries:
            self._registries[key] = Registry(http, domain, credential, push=push, namespace=stands_for)
        return self._registries[key]

    def _way(self, access: Access) -> Http:
        key = access.verify, access.certificates
        if key not in self._ways:
            verify, folder = key
            network = replace(self.http.network, insecure=not verify, own_certificates=folder)
            self._ways[key] = self.http.other(network)
        return self._ways[key]

    def login(self, host: str, username: str, password: str) -> str:
        """Try them, and keep them if they are right: Denied otherwise. Returns where they are kept."""
        domain = domain_of(host)
        if not username or not password:
            raise UsageError("username and password must not be empty")
        if not (username + password).isprintable() or ":" in username:
            raise UsageError("a username or password cannot have such characters")
        registry = Registry(self.http, domain, Credential(username, password))
        try:
            token = registry.log_in()
        except Denied as error:
            raise Denied(f"login failed: {error.message}", what=domain) from None
        kept = Credential(username, token, True) if token else Credential(username, password)
        return self._credentials.put(domain, kept)

    def logout(self, host: str) -> bool:
        """Forget what is kept for a registry; was there anything?"""
        return self._credentials.erase(domain_of(host))

    def search(self, term: str, limit: int = 25) -> list[SearchResult]:
        """Repositories of a registry (`HOST/WORD`, else docker's) by a word, those with the most stars first."""
        if not 1 <= limit <= MAX_RESULTS:
            raise UsageError(f"Limit {limit} is outside the range of [1, {MAX_RESULTS}]")
        first, slash, rest = term.partition("/")
        named = slash and (first == "localhost" or "." in first or ":" in first)
        domain, word = (first, rest) if named else (DEFAULT_DOMAIN, term)
        registry = Registry(self.http, domain_of(domain), self._credentials.find(domain))
        found = registry.search(word, limit)[:limit]
        return sorted(found, key=lambda one: (-one.star_count, one.name))

    def tags(self, repository: str) -> list[str]:
        """The tags of a repository."""
        name = reference.parse(repository)
        return self.registry(name).tags(name.path)

    def referrers(self, text: str, artifact_type: str = "") -> list[Descriptor]:
        """What refers to a manifest: signatures, SBOMs, …"""
        name = reference.parse(text).or_latest()
        return self.registry(name).referrers(name.path, name.digest or self.digest(text), artifact_type)

    def manifest(self, text: str) -> Fetched:
        """A manifest or index, as the registry has it, and checked to be one."""
        name = reference.parse(text).or_latest()
        found = self.registry(name).manifest(name.path, str(name.digest or name.tag))
        oci_manifest.parse(found.raw, text, found.media_type, found.digest)
        return found

    def digest(self, text: str) -> Digest:
        """What a name stands for at its registry."""
        name = reference.parse(text).or_latest()
        if name.digest is not None:
            return name.digest
        registry = self.registry(name)
        head = registry.head(name.path, name.tag)
        if head is None:
            raise NotFound(f"manifest for {name.familiar()} not found")
        return head.digest or registry.manifest(name.path, name.tag).digest


def domain_of(host: str) -> str:
    """A registry as people name it (`https://index.docker.io/v1/`, `localhost:5000`) → its domain."""
    plain = (host.partition("://")[2] if "://" in host else host).partition("/")[0].lower() or DEFAULT_DOMAIN
    if plain in ("index.docker.io", "registry-1.docker.io"):
        return DEFAULT_DOMAIN
    named = plain if "." in plain or ":" in plain else f"{plain}:443"  # else it would be read as part of a path
    try:
        found = reference.parse(f"{named}/x").domain
    except InvalidReference:
        raise InvalidReference("not the name of a registry", what=host[:200]) from None
    return plain if found == named else found
