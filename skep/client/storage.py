"""Configs, secrets, logins to registries, and volumes: one class each, as in `skep.client.objects`.

A secret's data and a registry's password go to the cluster, and nothing brings them back.
"""

from __future__ import annotations

from collections.abc import Sequence

from skep.client.calls import Caller
from skep.domain.base import replace
from skep.domain.control import GetRequest, RemoveRequest, RemoveResponse
from skep.domain.filecalls import (
    ConfigView,
    CreateConfigRequest,
    CreateSecretRequest,
    ListConfigsRequest,
    ListConfigsResponse,
    ListRegistriesRequest,
    ListRegistriesResponse,
    ListSecretsRequest,
    ListSecretsResponse,
    ListVolumesRequest,
    ListVolumesResponse,
    RegistryView,
    SecretView,
    SetRegistryRequest,
    VolumeView,
)
from skep.domain.spec import ServiceSpec, StackSpec
from skep.domain.storage import ConfigSpec, FileUse, SecretSpec


class Configs:
    """Bytes that everybody may read, and that never change."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller

    async def get(self, ref: str, *, is_stale: bool = False) -> ConfigView:
        """One config with its data, and who uses it. Raises NotFound."""
        request = GetRequest(ref=ref, is_stale=is_stale)
        return await self._caller.call("GetConfig", request, ConfigView)

    async def list(
        self, *, stack: str | None = None, is_stale: bool = False
    ) -> tuple[ConfigView, ...]:
        """All configs, or those of one stack, by name, without their data. Raises NotFound for an
        unknown stack."""
        request = ListConfigsRequest(stack=stack, is_stale=is_stale)
        return (await self._caller.call("ListConfigs", request, ListConfigsResponse)).configs

    async def create(
        self, spec: ConfigSpec, *, stack: str = "", is_versioned: bool = False
    ) -> ConfigView:
        """A new config; or, with `is_versioned`, one of the stack's family of that name that has
        the same data, whatever its own name. Raises AlreadyExists, InvalidArgument."""
        request = CreateConfigRequest(
            request_id=self._caller.ids.new_id(),
            spec=spec,
            stack=stack,
            is_versioned=is_versioned,
        )
        return await self._caller.call("CreateConfig", request, ConfigView)

    async def remove(self, ref: str) -> RemoveResponse:
        """Remove a config that no service uses. Raises NotFound, Refused."""
        request = RemoveRequest(request_id=self._caller.ids.new_id(), ref=ref)
        return await self._caller.call("RemoveConfig", request, RemoveResponse)


class Secrets:
    """Bytes that nobody but the tasks that use them is ever shown, and that never change."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller

    async def get(self, ref: str, *, is_stale: bool = False) -> SecretView:
        """What may be shown of one secret, and who uses it. Raises NotFound."""
        request = GetRequest(ref=ref, is_stale=is_stale)
        return await self._caller.call("GetSecret", request, SecretView)

    async def list(
        self, *, stack: str | None = None, is_stale: bool = False
    ) -> tuple[SecretView, ...]:
        """All secrets, or those of one stack, by name. Raises NotFound for an unknown stack."""
        request = ListSecretsRequest(stack=stack, is_stale=is_stale)
        return (await self._caller.call("ListSecrets", request, ListSecretsResponse)).secrets

    async def create(
        self, spec: SecretSpec, *, stack: str = "", is_versioned: bool = False
    ) -> SecretView:
        """A new secret; or, with `is_versioned`, one of the stack's family of that name that has
        the same data, whatever its own name. Raises AlreadyExists, InvalidArgument."""
        request = CreateSecretRequest(
            request_id=self._caller.ids.new_id(),
            spec=spec,
            stack=stack,
            is_versioned=is_versioned,
        )
        return await self._caller.call("CreateSecret", request, SecretView)

    async def remove(self, ref: str) -> RemoveResponse:
        """Remove a secret that no service uses. Raises NotFound, Refused."""
        request = RemoveRequest(request_id=self._caller.ids.new_id(), ref=ref)
        return await self._caller.call("RemoveSecret", request, RemoveResponse)


class Registries:
    """How nodes log in to registries of images."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller

    async def list(self, *, is_stale: bool = False) -> tuple[RegistryView, ...]:
        """All registries that there is a login to, by name."""
        request = ListRegistriesRequest(is_stale=is_stale)
        answer = await self._caller.call("ListRegistries", request, ListRegistriesResponse)
        return answer.registries

    async def login(self, name: str, username: str, password: str) -> RegistryView:
        """Have nodes log in to a registry with these words from now on, in place of others.
        Whether the registry takes them shows when a node asks it. Raises InvalidArgument."""
        request = SetRegistryRequest(
            request_id=self._caller.ids.new_id(),
            name=name,
            username=username,
            password=password,
        )
        return await self._caller.call("SetRegistry", request, RegistryView)

    async def logout(self, name: str) -> RemoveResponse:
        """Forget how to log in to a registry. Raises NotFound."""
        request = RemoveRequest(request_id=self._caller.ids.new_id(), ref=name)
        return await self._caller.call("RemoveRegistry", request, RemoveResponse)


class Volumes:
    """Named volumes that live on single nodes, as far as managers know of them."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller

    async def get(self, ref: str, *, is_stale: bool = False) -> VolumeView:
        """One volume, where it is, and who uses it. Raises NotFound."""
        request = GetRequest(ref=ref, is_stale=is_stale)
        return await self._caller.call("GetVolume", request, VolumeView)

    async def list(self, *, is_stale: bool = False) -> tuple[VolumeView, ...]:
        """All volumes, by name."""
        request = ListVolumesRequest(is_stale=is_stale)
        return (await self._caller.call("ListVolumes", request, ListVolumesResponse)).volumes

    async def remove(self, ref: str) -> RemoveResponse:
        """Forget where a volume that no service uses was; what is in it stays there. Raises
        NotFound, Refused."""
        request = RemoveRequest(request_id=self._caller.ids.new_id(), ref=ref)
        return await self._caller.call("RemoveVolume", request, RemoveResponse)


async def write_files(
    caller: Caller, spec: StackSpec, configs: Sequence[ConfigSpec], secrets: Sequence[SecretSpec]
) -> StackSpec:
    """Write what a stack's files hold, each content once, and say the names that the managers gave
    them in the specs that use them. What is written and then not used is collected later."""
    made, hidden = Configs(caller), Secrets(caller)
    config_names = {
        each.name: (await made.create(each, stack=spec.name, is_versioned=True)).config.name
        for each in configs
    }
    secret_names = {
        each.name: (await hidden.create(each, stack=spec.name, is_versioned=True)).name
        for each in secrets
    }

    def named(service: ServiceSpec) -> ServiceSpec:
        run = replace(
            service.task.run,
            configs=tuple(_renamed(use, config_names) for use in service.task.run.configs),
            secrets=tuple(_renamed(use, secret_names) for use in service.task.run.secrets),
        )
        return replace(service, task=replace(service.task, run=run))

    return replace(spec, services=tuple(map(named, spec.services)))


def _renamed(use: FileUse, names: dict[str, str]) -> FileUse:
    """A use of a name as one of what the managers gave it, under the same path."""
    name = names.get(use.name, use.name)
    return use if name == use.name else replace(use, name=name, target=use.target or use.name)
