"""The control API's requests and answers about configs, secrets, volumes and registries.

They follow the rules of `skep.domain.control`. A secret's data and a registry's password come in
and never go out: the views have no field for them.
"""

from __future__ import annotations

from skep.domain.base import Pairs, Struct, shielded
from skep.domain.objects import Config, Volume
from skep.domain.storage import ConfigSpec, SecretSpec


class CreateConfigRequest(Struct, frozen=True, kw_only=True):
    """Create a config. One of a `stack` that `is_versioned` may get another name: where the stack
    has one of that family with the same content, that one is the answer, with the labels that were
    given; and else a new one is made beside those that there are: NAME, NAME-2, NAME-3 ..."""

    request_id: str
    spec: ConfigSpec
    stack: str = ""
    is_versioned: bool = False


class ConfigView(Struct, frozen=True, kw_only=True):
    """A config and the services that use it, by name. Its data come with the answer to GetConfig
    alone: they may be large."""

    config: Config
    services: tuple[str, ...] = ()


class ListConfigsRequest(Struct, frozen=True, kw_only=True):
    """Ask for configs, of one stack if `stack` is given."""

    stack: str | None = None
    is_stale: bool = False


class ListConfigsResponse(Struct, frozen=True, kw_only=True):
    """Configs by name."""

    configs: tuple[ConfigView, ...] = ()
    version: int = 0


class CreateSecretRequest(Struct, frozen=True, kw_only=True):
    """Create a secret; otherwise like `CreateConfigRequest`."""

    request_id: str
    spec: SecretSpec
    stack: str = ""
    is_versioned: bool = False


class SecretView(Struct, frozen=True, kw_only=True):
    """What may be shown of a secret, and the services that use it, by name."""

    id: str
    name: str
    version: int = 0
    created_ns: int = 0
    updated_ns: int = 0
    labels: Pairs = ()
    stack: str = ""
    services: tuple[str, ...] = ()


class ListSecretsRequest(Struct, frozen=True, kw_only=True):
    """Ask for secrets, of one stack if `stack` is given."""

    stack: str | None = None
    is_stale: bool = False


class ListSecretsResponse(Struct, frozen=True, kw_only=True):
    """Secrets by name."""

    secrets: tuple[SecretView, ...] = ()
    version: int = 0


class SetRegistryRequest(Struct, frozen=True, kw_only=True):
    """Let nodes log in to a registry with these words from now on."""

    request_id: str
    name: str
    username: str
    password: str

    def __repr__(self) -> str:
        """Everything but the password: requests get into logs and errors."""
        return shielded(self, "password")


class RegistryView(Struct, frozen=True, kw_only=True):
    """What may be shown of a registry's login."""

    id: str
    name: str
    username: str
    version: int = 0
    created_ns: int = 0
    updated_ns: int = 0


class ListRegistriesRequest(Struct, frozen=True, kw_only=True):
    """Ask for all registries."""

    is_stale: bool = False


class ListRegistriesResponse(Struct, frozen=True, kw_only=True):
    """Registries by name."""

    registries: tuple[RegistryView, ...] = ()
    version: int = 0


class VolumeView(Struct, frozen=True, kw_only=True):
    """A volume and the services that use it, by name."""

    volume: Volume
    services: tuple[str, ...] = ()


class ListVolumesRequest(Struct, frozen=True, kw_only=True):
    """Ask for the named volumes that live on single nodes."""

    is_stale: bool = False


class ListVolumesResponse(Struct, frozen=True, kw_only=True):
    """Volumes by name."""

    volumes: tuple[VolumeView, ...] = ()
    version: int = 0
