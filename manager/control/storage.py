"""The control API's methods about configs, secrets, registries and volumes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from skep.domain.base import Struct
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
from skep.domain.objects import Config, Registry, Secret, Volume
from skep.manager.control.core import files, registries, volumes
from skep.manager.control.core.find import find
from skep.manager.store.actor import Store
from skep.manager.store.core.tables import View
from skep.manager.store.core.transaction import Transaction

Mutation = tuple[type[Any], type[Any], Callable[[Transaction, Any], Any]]
Read = tuple[type[Any], Callable[[Any], Struct]]


def mutations(new_id: Callable[[], str]) -> dict[str, Mutation]:
    """Their request, their answer, and what they do."""
    return {
        "CreateConfig": (
            CreateConfigRequest,
            ConfigView,
            lambda tx, request: files.create_config(tx, request, new_id),
        ),
        "RemoveConfig": (RemoveRequest, RemoveResponse, files.remove_config),
        "CreateSecret": (
            CreateSecretRequest,
            SecretView,
            lambda tx, request: files.create_secret(tx, request, new_id),
        ),
        "RemoveSecret": (RemoveRequest, RemoveResponse, files.remove_secret),
        "SetRegistry": (
            SetRegistryRequest,
            RegistryView,
            lambda tx, request: registries.set_registry(tx, request, new_id),
        ),
        "RemoveRegistry": (RemoveRequest, RemoveResponse, registries.remove_registry),
        "RemoveVolume": (RemoveRequest, RemoveResponse, volumes.remove_volume),
    }


def fresh(view: View, answer: Struct) -> Struct:
    """The answer to a mutation with its object as it is now, with its version and times."""
    if isinstance(answer, ConfigView):
        config = view.get(Config, answer.config.id)
        return answer if config is None else files.config_view(view, config)
    if isinstance(answer, SecretView):
        secret = view.get(Secret, answer.id)
        return answer if secret is None else files.secret_view(view, secret)
    if isinstance(answer, RegistryView):
        registry = view.get(Registry, answer.id)
        return answer if registry is None else registries.registry_view(registry)
    return answer


class Reads:
    """What is asked of a manager's store."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def by_name(self) -> dict[str, Read]:
        """Their request, and what answers it."""
        return {
            "GetConfig": (GetRequest, self._get_config),
            "ListConfigs": (ListConfigsRequest, self._list_configs),
            "GetSecret": (GetRequest, self._get_secret),
            "ListSecrets": (ListSecretsRequest, self._list_secrets),
            "ListRegistries": (ListRegistriesRequest, self._list_registries),
            "GetVolume": (GetRequest, self._get_volume),
            "ListVolumes": (ListVolumesRequest, self._list_volumes),
        }

    def _get_config(self, request: GetRequest) -> ConfigView:
        tables = self._store.tables
        return files.config_view(tables, find(tables, Config, request.ref), has_data=True)

    def _list_configs(self, request: ListConfigsRequest) -> ListConfigsResponse:
        tables = self._store.tables
        rows = files.of_stack(tables, Config, request.stack)
        return ListConfigsResponse(
            configs=files.config_views(tables, rows), version=self._store.version
        )

    def _get_secret(self, request: GetRequest) -> SecretView:
        tables = self._store.tables
        return files.secret_view(tables, find(tables, Secret, request.ref))

    def _list_secrets(self, request: ListSecretsRequest) -> ListSecretsResponse:
        tables = self._store.tables
        rows = files.of_stack(tables, Secret, request.stack)
        return ListSecretsResponse(
            secrets=files.secret_views(tables, rows), version=self._store.version
        )

    def _list_registries(self, request: ListRegistriesRequest) -> ListRegistriesResponse:
        return ListRegistriesResponse(
            registries=registries.registry_views(self._store.tables), version=self._store.version
        )

    def _get_volume(self, request: GetRequest) -> VolumeView:
        tables = self._store.tables
        [found] = volumes.volume_views(tables, [find(tables, Volume, request.ref)])
        return found

    def _list_volumes(self, request: ListVolumesRequest) -> ListVolumesResponse:
        tables = self._store.tables
        rows = sorted(tables.all(Volume), key=lambda row: (row.name, row.id))
        return ListVolumesResponse(
            volumes=volumes.volume_views(tables, rows), version=self._store.version
        )
