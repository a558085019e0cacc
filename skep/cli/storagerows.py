"""Configs, secrets, logins and volumes as rows, by Docker's names, and as text. Pure."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from skep.cli.gotemplate import time_text
from skep.cli.netpretty import Line
from skep.cli.output import printable
from skep.cli.rows import NS_PER_S, Row
from skep.domain.base import Pairs
from skep.domain.filecalls import ConfigView, RegistryView, SecretView, VolumeView


class FileRow(Row, frozen=True, kw_only=True):
    """A config or a secret. Times are Unix time in seconds, `services` counts those that use it."""

    id: str
    name: str
    created: float
    updated: float
    stack: str
    services: int
    labels: dict[str, str]


class RegistryRow(Row, frozen=True, kw_only=True):
    """How nodes log in to a registry."""

    id: str
    name: str
    username: str
    updated: float


class VolumePlaceRow(Row, frozen=True, kw_only=True):
    """A node that has the volume, and the slot that it was put there for."""

    node: str
    service: str
    slot: int


class VolumeRow(Row, frozen=True, kw_only=True):
    """A volume, where it is, and how many services use it."""

    id: str
    name: str
    places: list[VolumePlaceRow]
    services: int


def config_row(view: ConfigView) -> FileRow:
    """One config."""
    config = view.config
    return FileRow(
        id=config.id,
        name=config.name,
        created=config.created_ns / NS_PER_S,
        updated=config.updated_ns / NS_PER_S,
        stack=config.stack,
        services=len(view.services),
        labels=dict(config.spec.labels),
    )


def secret_row(view: SecretView) -> FileRow:
    """One secret."""
    return FileRow(
        id=view.id,
        name=view.name,
        created=view.created_ns / NS_PER_S,
        updated=view.updated_ns / NS_PER_S,
        stack=view.stack,
        services=len(view.services),
        labels=dict(view.labels),
    )


def registry_row(view: RegistryView) -> RegistryRow:
    """One login."""
    return RegistryRow(
        id=view.id, name=view.name, username=view.username, updated=view.updated_ns / NS_PER_S
    )


def volume_row(view: VolumeView, node_names: Mapping[str, str]) -> VolumeRow:
    """One volume."""
    return VolumeRow(
        id=view.volume.id,
        name=view.volume.name,
        places=[
            VolumePlaceRow(
                node=node_names.get(place.node_id, place.node_id),
                service=place.service_name,
                slot=place.slot,
            )
            for place in view.volume.places
        ],
        services=len(view.services),
    )


# ---------------------------------------------------------------- as Docker names the fields


def docker_config(view: ConfigView) -> dict[str, Any]:
    """A config by Docker's names."""
    config = view.config
    spec = {
        "Name": config.name,
        "Labels": dict(config.spec.labels),
        "Data": base64.b64encode(config.spec.data).decode(),
    }
    return {
        **_stamps(config.id, config.version, config.created_ns, config.updated_ns),
        "Spec": spec,
    }


def docker_secret(view: SecretView) -> dict[str, Any]:
    """A secret by Docker's names."""
    spec = {"Name": view.name, "Labels": dict(view.labels)}
    return {**_stamps(view.id, view.version, view.created_ns, view.updated_ns), "Spec": spec}


def _stamps(id_: str, version: int, created_ns: int, updated_ns: int) -> dict[str, Any]:
    return {
        "ID": id_,
        "Version": {"Index": version},
        "CreatedAt": time_text(created_ns),
        "UpdatedAt": time_text(updated_ns),
    }


# ----------------------------------------------------------------------------------- as text


def config_text(view: ConfigView, in_lines: Callable[[Iterator[Line]], str]) -> str:
    """A config with its data, as far as they are text."""
    config = view.config
    head = in_lines(
        _lines(
            (config.id, config.name, config.stack),
            config.spec.labels,
            (config.created_ns, config.updated_ns),
            view.services,
        )
    )
    return f"{head}\nData:\n{_shown(config.spec.data)}"


def secret_text(view: SecretView, in_lines: Callable[[Iterator[Line]], str]) -> str:
    """What may be shown of a secret."""
    return in_lines(
        _lines(
            (view.id, view.name, view.stack),
            view.labels,
            (view.created_ns, view.updated_ns),
            view.services,
        )
    )


def _lines(
    named: tuple[str, str, str],
    labels: Pairs,
    times_ns: tuple[int, int],
    services: tuple[str, ...],
) -> Iterator[Line]:
    id_, name, stack = named
    yield 0, "ID", id_
    yield 0, "Name", name
    if stack:
        yield 0, "Stack", stack
    if labels:
        yield 0, "Labels", ""
        yield from ((1, key, value or '""') for key, value in labels)
    created_ns, updated_ns = times_ns
    yield 0, "Created at", time_text(created_ns)
    yield 0, "Updated at", time_text(updated_ns)
    if services:
        yield 0, "Services", ", ".join(services)


def _shown(data: bytes) -> str:
    """Text as it is, but for what would move a terminal's cursor."""
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return f"({len(data)} bytes that are no text; --format json has them in base64)"
    lines = text.removesuffix("\n").split("\n")
    return "\n".join("\t".join(map(printable, line.split("\t"))) for line in lines)
