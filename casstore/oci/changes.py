"""What Dockerfile instructions make of an image's runtime configuration: for `--change` of import and commit, and for
builds. Pure: a configuration and instructions in, a configuration out.

Source: the Dockerfile reference; docker 20.10's results.
"""

from __future__ import annotations

import copy
import ipaddress
import json
import posixpath
import re
import signal
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Any

from ..errors import BadInput
from . import instructions
from .instructions import Instruction, json_list, options, pairs
from .shellwords import expand, expand_words

SHELL = ["/bin/sh", "-c"]
"""What runs the shell form of a command where the configuration names no Shell."""

#: The order of docker's keys; what is empty is left out.
_ORDER = (
    *("User", "ExposedPorts", "Env", "Cmd", "Healthcheck", "ArgsEscaped", "Volumes", "WorkingDir", "Entrypoint"),
    *("OnBuild", "Labels", "StopSignal", "Shell"),
)
_DURATION = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h)")
_NANOSECONDS = {
    "ns": 1,
    "us": 10**3,
    "µs": 10**3,
    "μs": 10**3,
    "ms": 10**6,
    "s": 10**9,
    "m": 60 * 10**9,
    "h": 3600 * 10**9,
}
_LONGEST = 1 << 63  # a duration in nanoseconds is a signed 64-bit integer


def changed(config: Mapping[str, Any] | None, changes: Sequence[str]) -> dict[str, Any]:
    """`config` (docker's keys) after the instructions in `changes`, each of which may hold several lines.

    BadInput in docker's words: `run is not a valid change command`, `file with no instructions`, …
    """
    runtime = Runtime(config or {})
    if changes:
        parsed = instructions.parse("\n".join(changes))
        for each in parsed:
            if each.verb not in _VERBS or each.verb == "shell":
                raise BadInput(f"{each.verb[:80]} is not a valid change command")
        for each in parsed:
            check(each)
        for each in parsed:
            runtime.apply(each)
    return runtime.config()


def check(given: Instruction) -> None:
    """BadInput where `given` is wrong whatever the configuration is."""
    Runtime({}).apply(given, dry=True)


class Runtime:
    """A configuration that instructions change, one after the other."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        self._config: dict[str, Any] = copy.deepcopy(dict(config))
        self._command_set = False
        self._dry = False

    def config(self) -> dict[str, Any]:
        """The configuration; keys that say nothing are left out."""
        known = [key for key in _ORDER if self._config.get(key) not in (None, "", [], {})]
        rest = [key for key in self._config if key not in _ORDER]
        return {key: copy.deepcopy(self._config[key]) for key in (*known, *rest)}

    @property
    def environment(self) -> dict[str, str]:
        return dict(each.partition("=")[::2] for each in self._config.get("Env") or ())

    def apply(self, given: Instruction, *, dry: bool = False) -> None:
        """Carry out one instruction. `dry`: do not look at variables, whose values are not known yet."""
        self._dry = dry
        work = _VERBS.get(given.verb)
        if work is None:
            raise BadInput(f"unknown instruction: {given.verb.upper()[:80]}")
        if given.verb != "healthcheck":
            options(given)
        work(self, given)

    # -- one method for each verb

    def _env(self, given: Instruction) -> None:
        env = self.environment  # one for the whole instruction: `A=1 B=$A` sees the old A
        kept: list[str] = list(self._config.get("Env") or ())
        for name, value in self._expanded_pairs(given, env):
            entry = f"{name}={value}"
            for i, each in enumerate(kept):
                if each.partition("=")[0] == name:
                    kept[i] = entry
                    break
            else:
                kept.append(entry)
        self._config["Env"] = kept

    def _label(self, given: Instruction) -> None:
        labels = self._table("Labels")
        labels.update(self._expanded_pairs(given, self.environment))

    def _expanded_pairs(self, given: Instruction, env: Mapping[str, str]) -> list[tuple[str, str]]:
        return [(self._expand(given, name, env), self._expand(given, value, env)) for name, value in pairs(given)]

    def _expand(self, given: Instruction, text: str, env: Mapping[str, str] | None = None) -> str:
        if self._dry:
            return text
        try:
            return expand(text, self.environment if env is None else env, given.escape)
        except BadInput as error:
            raise BadInput(f"failed to process {json.dumps(text, ensure_ascii=False)}: {error.message}") from None

    def _cmd(self, given: Instruction) -> None:
        command, given_list = self._command(given.rest)
        self._config["Cmd"] = command
        if given_list:
            self._command_set = True

    def _entrypoint(self, given: Instruction) -> None:
        command, given_list = self._command(given.rest)
        self._config["Entrypoint"] = command if given_list else None
        if not self._command_set:
            self._config["Cmd"] = None

    def _command(self, text: str) -> tuple[list[str], bool]:
        """The words to run, and whether any were given."""
        listed = json_list(text)
        if listed is not None:
            return listed, bool(listed)
        return [*(self._config.get("Shell") or SHELL), *([text] if text else [])], bool(text)

    def _shell(self, given: Instruction) -> None:
        listed = json_list(given.rest)
        if not given.rest:
            raise BadInput("SHELL requires at least one argument")
        if listed is None:
            raise BadInput("SHELL requires the arguments to be in JSON form")
        self._config["Shell"] = listed

    def _expose(self, given: Instruction) -> None:
        texts = given.rest.split()
        if not texts:
            raise BadInput("EXPOSE requires at least one argument")
        if self._dry:
            return
        env = self.environment
        exposed = self._table("ExposedPorts")
        for text in texts:
            for word in expand_words(text, env, given.escape):
                exposed.update((port, {}) for port in _ports(word))
        self._config["ExposedPorts"] = {port: {} for port in sorted(exposed)}

    def _volume(self, given: Instruction) -> None:
        listed = json_list(given.rest)
        texts = given.rest.split() if listed is None else listed
        if not texts:
            raise BadInput("VOLUME requires at least one argument")
        volumes = self._table("Volumes")
        for text in texts:
            path = self._expand(given, text.strip())
            if not path:
                raise BadInput("VOLUME specified can not be an empty string")
            volumes[path] = {}

    def _workdir(self, given: Instruction) -> None:
        path = self._expand(given, self._one(given))
        if not path:
            raise BadInput("cannot normalize nothing")
        if not path.startswith("/"):
            path = posixpath.normpath("/" + posixpath.join(self._config.get("WorkingDir") or "/", path)).replace(
                "//", "/"
            )
        self._config["WorkingDir"] = path

    def _user(self, given: Instruction) -> None:
        self._config["User"] = self._expand(given, self._one(given))

    def _stopsignal(self, given: Instruction) -> None:
        name = self._expand(given, self._one(given))
        if not self._dry and not is_signal(name):
            raise BadInput(f"Invalid signal: {name[:80]}")
        self._config["StopSignal"] = name

    def _healthcheck(self, given: Instruction) -> None:
        kind, *more = given.rest.split(maxsplit=1)[:2] or ("",)
        rest = more[0] if more else ""
        if not kind:
            raise BadInput("HEALTHCHECK requires at least one argument")
        if kind.upper() == "NONE":
            if rest:
                raise BadInput("HEALTHCHECK NONE takes no arguments")
            self._config["Healthcheck"] = {"Test": ["NONE"]}
            return
        values = options(given, ("interval", "timeout", "start-period", "start-interval", "retries"))
        if kind.upper() != "CMD":
            raise BadInput(f'Unknown type "{kind.upper()[:80]}" in HEALTHCHECK (try CMD)')
        listed = json_list(rest)
        if listed == [] or not rest:
            raise BadInput("Missing command after HEALTHCHECK CMD")
        health: dict[str, Any] = {"Test": ["CMD-SHELL", rest] if listed is None else ["CMD", *listed]}
        spans = {"Interval": "interval", "Timeout": "timeout", "StartPeriod": "start-period"}
        for key, name in (spans | {"StartInterval": "start-interval"}).items():
            span = _duration(name, values.get(name, ""))
            if span:
                health[key] = span
        retries = values.get("retries", "")
        if retries:
            if not re.fullmatch(r"[+-]?[0-9]{1,9}", retries):
                raise BadInput(f'invalid number of retries "{retries[:80]}"')
            if int(retries) < 1:
                raise BadInput(f"--retries must be at least 1 (not {int(retries)})")
            health["Retries"] = int(retries)
        self._config["Healthcheck"] = health

    def _onbuild(self, given: Instruction) -> None:
        if not given.rest:
            raise BadInput("ONBUILD requires at least one argument")
        inner = instructions.instruction(given.rest, given.line, given.escape)
        trigger = inner.verb.upper()
        if trigger == "ONBUILD":
            raise BadInput("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed")
        if trigger in ("FROM", "MAINTAINER"):
            raise BadInput(f"{trigger} isn't allowed as an ONBUILD trigger")
        if inner.verb in ("env", "label") and inner.rest:
            pairs(inner)
        elif inner.verb in ("cmd", "entrypoint", "volume", "shell", "run", "copy", "add"):
            json_list(inner.rest)
        text = re.sub(r"^\s*ONBUILD\s*", "", given.original, flags=re.IGNORECASE)
        self._config["OnBuild"] = [*(self._config.get("OnBuild") or ()), text]

    def _one(self, given: Instruction) -> str:
        if not given.rest:
            raise BadInput(f"{given.verb.upper()} requires exactly one argument")
        return given.rest

    def _table(self, key: str) -> dict[str, Any]:
        table: dict[str, Any] = self._config.get(key) or {}
        self._config[key] = table
        return table


_VERBS: dict[str, Callable[[Runtime, Instruction], None]] = {
    "cmd": Runtime._cmd,
    "entrypoint": Runtime._entrypoint,
    "env": Runtime._env,
    "expose": Runtime._expose,
    "healthcheck": Runtime._healthcheck,
    "label": Runtime._label,
    "onbuild": Runtime._onbuild,
    "shell": Runtime._shell,
    "stopsignal": Runtime._stopsignal,
    "user": Runtime._user,
    "volume": Runtime._volume,
    "workdir": Runtime._workdir,
}


def is_signal(name: str) -> bool:
    """Is this a signal's number (not 0) or name (`SIGTERM`, `term`, `RTMIN+3`)?"""
    if re.fullmatch(r"[0-9]{1,9}", name):
        return int(name) != 0
    plain = name.upper().removeprefix("SIG")
    spread = re.fullmatch(r"RT(?:MIN(?:\+([0-9]{1,2}))?|MAX(?:-([0-9]{1,2}))?)", plain)
    if spread:
        return int(spread[1] or 0) <= 15 and int(spread[2] or 0) <= 14
    return f"SIG{plain}" in signal.Signals.__members__ or plain in ("STKFLT", "CLD", "POLL", "UNUSED", "IOT")


def _ports(text: str) -> list[str]:
    """`80`, `53/udp`, `8000-8002`, `[[IP:]HOST:]80` → `80/tcp`, …; of a host only the form is looked at."""
    before, _, container = text.rpartition(":")
    address, _, host = before.rpartition(":")
    port, slash, protocol = container.partition("/")
    protocol = (protocol.partition("/")[0] if slash else "") or "tcp"
    if address:
        try:
            ipaddress.ip_address(address.removeprefix("[").removesuffix("]"))
        except ValueError:
            raise BadInput(f"Invalid ip address: {address[:80]}") from None
    if not port:
        raise BadInput(f"No port specified: {text[:80]}<empty>")
    inside = _span(port)
    if inside is None:
        raise BadInput(f"Invalid containerPort: {port[:80]}")
    outside = _span(host) if host else None
    if host and outside is None:
        raise BadInput(f"Invalid hostPort: {host[:80]}")
    if outside is not None and len(inside) != 1 and len(inside) != len(outside):
        raise BadInput(f"Invalid ranges specified for container and host Ports: {port} and {host}")
    if protocol.lower() not in ("tcp", "udp", "sctp"):
        raise BadInput(f"Invalid proto: {protocol[:80]}")
    return [f"{each}/{protocol.lower()}" for each in inside]


def _span(text: str) -> range | None:
    """`80` or `80-82`; None where it is neither."""
    found = re.fullmatch(r"([0-9]{1,10})(?:-([0-9]{1,10}))?", text)
    if found is None:
        return None
    first, last = int(found[1]), int(found[2] or found[1])
    return range(first, last + 1) if first <= last < 65536 else None


def _duration(name: str, text: str) -> int:
    """`1m30s`, `0.5s` → nanoseconds; 0 where nothing is said."""
    if not text:
        return 0
    sign, body = (-1 if text.startswith("-") else 1), text.lstrip("+-") if text[:1] in "+-" else text
    total, at = Decimal(0), 0
    while at < len(body) and body != "0":
        found = _DURATION.match(body, at)
        if re.fullmatch(r"[0-9.]+", body[at:]):
            raise BadInput(f'time: missing unit in duration "{text[:80]}"')
        if found is None or body[at] in "+-" or len(found[0]) > 40:
            raise BadInput(f'time: invalid duration "{text[:80]}"')
        total += Decimal(found[0][: -len(found[1])]) * _NANOSECONDS[found[1]]
        at = found.end()
    span = sign * int(total)
    if not body or abs(span) >= _LONGEST:
        raise BadInput(f'time: invalid duration "{text[:80]}"')
    if span < 10**6:
        raise BadInput(f'Interval "{name}" cannot be less than 1ms')
    return span
