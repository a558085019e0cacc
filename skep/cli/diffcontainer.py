"""What only containers have, as fields that can be compared. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from skep.cli.mounttext import mount_text, use_text
from skep.domain.spec import RunSpec
from skep.domain.storage import FileUse
from skep.stackfile.writer_container import container_values, requests_values

Field = tuple[str, str]


def container_fields(run: RunSpec) -> Iterator[Field]:
    """The fields, by their paths in a stack file, with their values as text."""
    of = run.container
    for key, value in container_values(of).items():
        yield from _flat(key, value)
    requests = requests_values(of.device_requests)
    yield from _flat("deploy.resources.reservations.devices", requests)
    if of.log_driver:
        yield "logging.driver", of.log_driver
    yield from ((f"logging.options.{name}", value) for name, value in of.log_options)
    for mount in run.mounts:
        yield f"volumes.{mount.target}", mount_text(mount)
    for kind, uses in (("configs", run.configs), ("secrets", run.secrets)):
        yield from (
            (f"{kind}.{use.target or use.name}", f"{use_text(use)}{_version(use)}") for use in uses
        )


def _version(use: FileUse) -> str:
    # One of the same name may be another by now.
    return f" ({use.id})" if use.id else ""


def _flat(path: str, value: Any) -> Iterator[Field]:
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _flat(f"{path}.{name}", inner)
    elif isinstance(value, list) and any(isinstance(item, dict) for item in value):
        for number, item in enumerate(value):
            yield from _flat(f"{path}[{number}]", item)
    elif isinstance(value, list):
        if value:
            yield path, ", ".join(map(str, value)).replace("$$", "$")
    else:
        text = str(value).lower() if isinstance(value, bool) else str(value)
        yield path, text.replace("$$", "$")
