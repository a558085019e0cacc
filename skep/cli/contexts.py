"""Contexts: names for the clusters that one works with, and which of them a command means. Pure.

The file is JSON with a format version, so that a newer skep may add to it, and an older one says
that it can't read it instead of losing what it doesn't know.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection

import msgspec

from skep.cli.errors import Exit, Failure

FORMAT = 1
# The name that stands for no context: the local cluster, which needs none.
LOCAL = "default"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")


class Context(msgspec.Struct, frozen=True, kw_only=True):
    """One cluster's managers, as "host:port"."""

    managers: tuple[str, ...]


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """The file. `current` is the context in use, None for the local cluster."""

    format: int = FORMAT
    current: str | None = None
    contexts: dict[str, Context] = {}


class Given(msgspec.Struct, frozen=True, kw_only=True):
    """What a command was told of its cluster, by options and by the environment."""

    managers_address: str | None = None
    context: str | None = None
    cluster: str | None = None
    env_address: str | None = None
    env_context: str | None = None


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """The cluster that is meant: managers' addresses, or (None) the local cluster `cluster`.
    `context` is the name that led there, `why` where that, or the addresses, came from."""

    managers: tuple[str, ...] | None = None
    cluster: str = LOCAL
    context: str | None = None
    why: str = ""


def choose(given: Given, load: Callable[[], Config]) -> Target:
    """Which cluster is meant. Options go before the environment, and that before what was set for
    good; the file is loaded only where it matters. Raises Failure."""
    if given.context and given.cluster:
        raise Failure("--context and --cluster name two clusters; use one of them", Exit.USAGE)
    if given.managers_address:
        return Target(managers=addresses(given.managers_address), why="--managers-address")
    if given.context:
        return _target(load(), given.context, "--context")
    if given.cluster:
        return Target(cluster=given.cluster, why="--cluster")
    if given.env_address:
        return Target(managers=addresses(given.env_address), why="$SKEP_ADDRESS")
    if given.env_context:
        return _target(load(), given.env_context, "$SKEP_CONTEXT")
    config = load()
    if config.current is None:
        return Target(why="the local cluster, since no context is in use")
    return _target(config, config.current, "the context in use")


def _target(config: Config, name: str, why: str) -> Target:
    if name == LOCAL:
        return Target(why=why)
    return Target(managers=find(config, name, why).managers, context=name, why=why)


def find(config: Config, name: str, why: str = "") -> Context:
    """A context. Raises Failure where there is none of that name."""
    context = config.contexts.get(name)
    if context is None:
        source = f" (from {why})" if why else ""
        known = ", ".join([LOCAL, *sorted(config.contexts)])
        raise Failure(
            f"there is no context '{name}'{source}; there are {known}; make one with: "
            f"skep context create {name} --managers-address HOST:PORT,...",
            Exit.USAGE,
        )
    return context


def create(config: Config, name: str, managers: tuple[str, ...]) -> Config:
    """With one context more. Raises Failure."""
    if not _NAME.fullmatch(name):
        raise Failure(
            f"'{name}' can't be a context's name; use letters, digits, '.', '-' and '_'", Exit.USAGE
        )
    if name == LOCAL:
        raise Failure(
            f"'{LOCAL}' is the local cluster, which is there without a context; "
            "choose another name",
            Exit.REFUSED,
        )
    if name in config.contexts:
        raise Failure(
            f"there is a context '{name}' already; remove it first: skep context rm {name}",
            Exit.REFUSED,
        )
    contexts = {**config.contexts, name: Context(managers=managers)}
    return msgspec.structs.replace(config, contexts=contexts)


def use(config: Config, name: str) -> Config:
    """With another context in use. Raises Failure."""
    if name != LOCAL:
        find(config, name)
    return msgspec.structs.replace(config, current=None if name == LOCAL else name)


def _check_removable(config: Config, name: str) -> None:
    """Raise Failure for a context that isn't there, or is in use: what comes after would go to
    another cluster without a word."""
    if name == LOCAL:
        raise Failure(f"'{LOCAL}' is the local cluster, and is always there", Exit.REFUSED)
    find(config, name)
    if config.current == name:
        raise Failure(
            f"context '{name}' is in use; use another one first: skep context use {LOCAL}",
            Exit.REFUSED,
        )


def remove(config: Config, names: Collection[str]) -> Config:
    """Without these contexts; all of them must be removable. Raises Failure."""
    for name in names:
        _check_removable(config, name)
    contexts = {key: value for key, value in config.contexts.items() if key not in names}
    return msgspec.structs.replace(config, contexts=contexts)


def addresses(text: str) -> tuple[str, ...]:
    """The addresses in "HOST:PORT,...". Raises Failure."""
    found = tuple(part.strip() for part in text.split(",") if part.strip())
    for address in found:
        host, _, port = address.rpartition(":")
        if not host or not (port.isascii() and port.isdigit()):
            raise Failure(f"'{address}' is not an address; write HOST:PORT", Exit.USAGE)
    if not found:
        raise Failure(f"'{text}' holds no address; write HOST:PORT,...", Exit.USAGE)
    return found


def read(data: bytes, path: str) -> Config:
    """A file's content. Raises Failure that names the file."""
    try:
        version = msgspec.json.decode(data, type=_Versioned).format
        if version > FORMAT:
            raise Failure(
                f"{path}: written by a newer skep (format {version}, this one knows {FORMAT}); "
                "use that skep, or move the file away"
            )
        config = msgspec.json.decode(data, type=Config)
    except msgspec.DecodeError as error:
        raise Failure(
            f"{path}: not a file of contexts: {error}; mend it, or move it away and create them "
            "anew"
        ) from None
    if config.current is not None and config.current not in config.contexts:
        raise Failure(
            f"{path}: the context in use, '{config.current}', is not in it; mend it, or "
            "move it away and create them anew"
        )
    return config


class _Versioned(msgspec.Struct):
    """What every format has."""

    format: int


def write(config: Config) -> bytes:
    """A file's content."""
    return msgspec.json.format(msgspec.json.encode(config), indent=2) + b"\n"
