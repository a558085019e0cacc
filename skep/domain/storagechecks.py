"""What configs, secrets and logins to registries must satisfy. Pure."""

from __future__ import annotations

import re

from skep.domain import validate
from skep.domain.filecalls import SetRegistryRequest
from skep.domain.imagename import DOCKER_HUB
from skep.domain.refusal import refuse
from skep.domain.storage import (
    CONFIG_LIMIT_BYTES,
    SECRET_LIMIT_BYTES,
    ConfigSpec,
    SecretSpec,
)

# Swarm's rule.
NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_.-]*[A-Za-z0-9])?")
NAME_LIMIT = 64

# What `docker login` and its files call the same registry.
_DOCKER_HUB_NAMES = ("", "index.docker.io", "registry-1.docker.io", DOCKER_HUB)
_REGISTRY = re.compile(r"(?:[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?|\[[0-9a-f:.]+\])(?::[0-9]{1,5})?")
_REGISTRY_LIMIT = 255
_USERNAME_LIMIT = 256
# The longest that registries of clouds ask for, which are keys and tokens, have a few KiB.
_PASSWORD_LIMIT = 16 * 1024
_SHOWN = 80


def check_config(spec: ConfigSpec, field: str = "spec") -> None:
    """Refuse a config that can't be kept. Raises Rejected."""
    _check_file(spec, "config", CONFIG_LIMIT_BYTES, field)


def check_secret(spec: SecretSpec, field: str = "spec") -> None:
    """Refuse a secret that can't be kept. Raises Rejected, with no word of its data."""
    _check_file(spec, "secret", SECRET_LIMIT_BYTES, field)


def _check_file(spec: ConfigSpec | SecretSpec, kind: str, limit: int, field: str) -> None:
    if not spec.name:
        raise refuse(f"{field}.name", "a name is required")
    if len(spec.name) > NAME_LIMIT:
        raise refuse(
            f"{field}.name", f"'{spec.name[:NAME_LIMIT]}...' has more than {NAME_LIMIT} characters"
        )
    if not NAME.fullmatch(spec.name):
        raise refuse(
            f"{field}.name",
            f"{spec.name!r} can't be a {kind}'s name; use letters, digits, and '-', '_' or '.' "
            "between them",
        )
    if not spec.data:
        raise refuse(f"{field}.data", f"{kind} {spec.name!r} is empty")
    size = len(spec.data)
    if size > limit:
        raise refuse(
            f"{field}.data",
            f"{kind} {spec.name!r} has {size} bytes, the limit is {limit} ({limit // 1024} KiB)",
        )
    validate.check_labels(spec.labels, f"{field}.labels")


def check_stack_name(name: str, field: str) -> None:
    """Refuse what can't be a stack's name. Raises Rejected."""
    if len(name) > validate.NAME_LIMIT or not validate.NAME.fullmatch(name):
        raise refuse(field, f"{name[:_SHOWN]!r} can't be a stack's name")


def registry_name(text: str) -> str:
    """The one name of a registry, from what people and images call it: without scheme and path, and
    "docker.io" for all that Docker Hub is called."""
    host = re.sub(r"^https?://", "", text.strip().lower()).partition("/")[0]
    return DOCKER_HUB if host in _DOCKER_HUB_NAMES else host


def check_registry(request: SetRegistryRequest) -> None:
    """Refuse a login that no registry can take. Raises Rejected, with no word of the password."""
    name = registry_name(request.name)
    if len(name) > _REGISTRY_LIMIT or not _REGISTRY.fullmatch(name):
        raise refuse(
            "name",
            f"{request.name[:_SHOWN]!r} is not the address of a registry, such as "
            "registry.example.com:5000",
        )
    username = request.username
    if not username or len(username) > _USERNAME_LIMIT or not username.isprintable():
        raise refuse("username", f"required: up to {_USERNAME_LIMIT} characters that can be shown")
    if not request.password:
        raise refuse("password", "required")
    if len(request.password) > _PASSWORD_LIMIT:
        raise refuse("password", f"longer than {_PASSWORD_LIMIT} characters")
