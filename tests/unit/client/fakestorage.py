"""Configs, secrets, registries and volumes of a control API in memory: the managers' own rules,
over tables that know the services of the rest of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

from skep.domain import control as c
from skep.domain import filecalls as f
from skep.domain.objects import Config, Object, Secret, Service, Volume
from skep.domain.spec import ServiceSpec
from skep.manager.control.core import files, registries, volumes
from skep.manager.control.core.find import find
from skep.manager.store.core.command import Database, encode_command
from skep.manager.store.core.tables import Tables
from skep.manager.store.core.transaction import Transaction

T = TypeVar("T")


class FakeStorage:
    """`on_...` are the methods of the control API, as in `FakeControl`."""

    def __init__(
        self, services: Callable[[], Iterable[Service]], new_id: Callable[[], str]
    ) -> None:
        self._database = Database()
        self._services = services
        self._new_id = new_id

    @property
    def tables(self) -> Tables:
        tables = self._database.tables
        for known in tuple(tables.all(Service)):
            tables.remove(Service, known.id)
        for service in self._services():
            tables.put(service)
        return tables

    def do(self, fn: Callable[[Transaction], T]) -> T:
        version = self._database.version + 1
        tx = Transaction(self.tables, version)
        answer = fn(tx)
        if not tx.is_empty:
            self._database.apply(version, encode_command(version, tx.changes()))
        return answer

    def put(self, row: Object) -> None:
        self.do(lambda tx: tx.create(row))

    def with_ids(self, spec: ServiceSpec, field: str = "spec") -> ServiceSpec:
        return files.with_ids(self.tables, spec, field)

    def forget_stack(self, name: str) -> None:
        rows: list[Config | Secret] = [*self.tables.all(Config), *self.tables.all(Secret)]
        for row in rows:
            if row.stack == name:
                self.tables.remove(type(row), row.id)

    def on_CreateConfig(self, q: f.CreateConfigRequest) -> f.ConfigView:  # noqa: N802
        return self.do(lambda tx: files.create_config(tx, q, self._new_id))

    def on_GetConfig(self, q: c.GetRequest) -> f.ConfigView:  # noqa: N802
        return files.config_view(self.tables, find(self.tables, Config, q.ref), has_data=True)

    def on_ListConfigs(self, q: f.ListConfigsRequest) -> f.ListConfigsResponse:  # noqa: N802
        rows = files.of_stack(self.tables, Config, q.stack)
        return f.ListConfigsResponse(configs=files.config_views(self.tables, rows))

    def on_RemoveConfig(self, q: c.RemoveRequest) -> c.RemoveResponse:  # noqa: N802
        return self.do(lambda tx: files.remove_config(tx, q))

    def on_CreateSecret(self, q: f.CreateSecretRequest) -> f.SecretView:  # noqa: N802
        return self.do(lambda tx: files.create_secret(tx, q, self._new_id))

    def on_GetSecret(self, q: c.GetRequest) -> f.SecretView:  # noqa: N802
        return files.secret_view(self.tables, find(self.tables, Secret, q.ref))

    def on_ListSecrets(self, q: f.ListSecretsRequest) -> f.ListSecretsResponse:  # noqa: N802
        rows = files.of_stack(self.tables, Secret, q.stack)
        return f.ListSecretsResponse(secrets=files.secret_views(self.tables, rows))

    def on_RemoveSecret(self, q: c.RemoveRequest) -> c.RemoveResponse:  # noqa: N802
        return self.do(lambda tx: files.remove_secret(tx, q))

    def on_SetRegistry(self, q: f.SetRegistryRequest) -> f.RegistryView:  # noqa: N802
        return self.do(lambda tx: registries.set_registry(tx, q, self._new_id))

    def on_ListRegistries(  # noqa: N802
        self, q: f.ListRegistriesRequest
    ) -> f.ListRegistriesResponse:
        return f.ListRegistriesResponse(registries=registries.registry_views(self.tables))

    def on_RemoveRegistry(self, q: c.RemoveRequest) -> c.RemoveResponse:  # noqa: N802
        return self.do(lambda tx: registries.remove_registry(tx, q))

    def on_GetVolume(self, q: c.GetRequest) -> f.VolumeView:  # noqa: N802
        [found] = volumes.volume_views(self.tables, [find(self.tables, Volume, q.ref)])
        return found

    def on_ListVolumes(self, q: f.ListVolumesRequest) -> f.ListVolumesResponse:  # noqa: N802
        rows = sorted(self.tables.all(Volume), key=lambda row: row.name)
        return f.ListVolumesResponse(volumes=volumes.volume_views(self.tables, rows))

    def on_RemoveVolume(self, q: c.RemoveRequest) -> c.RemoveResponse:  # noqa: N802
        return self.do(lambda tx: volumes.remove_volume(tx, q))
