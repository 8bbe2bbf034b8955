"""What the environment and the options say of the way to registries: proxies, certificates, credential files."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .progress import decided, stopped

if TYPE_CHECKING:
    from ..image.remote import Remote


def network_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """--plain-http, --retries and --timeout, for what speaks to registries."""
    options: dict[str, dict[str, Any]] = {
        "--plain-http": {"is_flag": True, "help": "Speak http, not https (registries here may always do)."},
        "--retries": {
            "type": click.IntRange(0, 100),
            "metavar": "N",
            "help": "Tries after the first, of what fails in passing (5).",
        },
        "--timeout": {
            "type": click.IntRange(1, 3600),
            "metavar": "SECONDS",
            "help": "To wait for a connection, and for a server that says nothing (20, 60).",
        },
    }
    for name, given in reversed(options.items()):
        hidden: dict[str, Any] = {} if "is_flag" in given else {"expose_value": False, "callback": _keep}
        function = click.option(name, **given, **hidden)(function)
    return function


def _keep(context: click.Context, parameter: click.Parameter, value: int | None) -> None:
    if value is not None:
        context.meta[f"{__name__}.{parameter.name}"] = value


def _patience() -> dict[str, Any]:
    """What --retries and --timeout say of the network."""
    meta = click.get_current_context().meta
    found: dict[str, Any] = {}
    if (retries := meta.get(f"{__name__}.retries")) is not None:
        found["retries"] = retries
    if (seconds := meta.get(f"{__name__}.timeout")) is not None:
        found |= {"connect_timeout": seconds, "read_timeout": seconds}
    return found


def remote(
    plain_http: bool = False, *, max_rate: float = 0.0, mirrors: Mapping[str, Sequence[str]] | None = None
) -> Remote:
    """The way to registries as this environment has it; closed when the command ends. `max_rate`: bytes a second;
    `mirrors`: as Remote takes them."""
    from ..errors import Interrupted
    from ..image.remote import Remote
    from ..transport.http import Network

    def alive() -> None:
        if stopped.is_set() and not decided.is_set():
            raise Interrupted("interrupted")

    network = Network(
        proxies=proxies(),
        no_proxy=tuple(part for part in _either("no_proxy").split(",") if part.strip()),
        certificates=certificate_folders(),
        plain_http=plain_http,
        max_rate=max_rate,
        **_patience(),
    )
    return click.get_current_context().with_resource(Remote(network, credential_files(), alive, mirrors=mirrors))


def _either(name: str) -> str:
    """A variable whose name people write small or large; small wins, as with curl."""
    return os.environ.get(name) or os.environ.get(name.upper()) or ""


def proxies() -> dict[str, str]:
    """Scheme → proxy, from http_proxy, https_proxy and all_proxy."""
    rest = _either("all_proxy")
    # HTTP_PROXY in large letters may be a visitor's header where we run under a web server (CVE-2016-5385).
    plain = os.environ.get("http_proxy") or ("" if "REQUEST_METHOD" in os.environ else os.environ.get("HTTP_PROXY", ""))
    found = {"http": plain or rest, "https": _either("https_proxy") or rest}
    return {scheme: url for scheme, url in found.items() if url}


def credential_files() -> tuple[Path, ...]:
    """docker's config.json, which login writes, then podman's files. REGISTRY_AUTH_FILE stands before all."""
    files = []
    named = os.environ.get("REGISTRY_AUTH_FILE")
    if named:
        files.append(Path(named))
    docker = os.environ.get("DOCKER_CONFIG")
    files.append((Path(docker) if docker else _home() / ".docker") / "config.json")
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    files.append((Path(runtime) if runtime else Path(f"/run/user/{os.getuid()}")) / "containers" / "auth.json")
    files.append(_config() / "containers" / "auth.json")
    return tuple(dict.fromkeys(files))


def certificate_folders() -> tuple[Path, ...]:
    """certs.d of docker and of podman, the user's own first."""
    machine = (Path("/etc/containers/certs.d"), Path("/etc/docker/certs.d"))
    return (_config() / "containers" / "certs.d", _home() / ".docker" / "certs.d", *machine)


def _home() -> Path:
    return Path(os.environ.get("HOME") or "/")


def _config() -> Path:
    folder = Path(os.environ.get("XDG_CONFIG_HOME", ""))
    return folder if folder.is_absolute() else _home() / ".config"
