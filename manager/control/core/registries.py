"""How nodes log in to registries of images."""

from __future__ import annotations

from collections.abc import Callable

from skep.domain.base import RegistryId, replace
from skep.domain.control import RemoveRequest, RemoveResponse
from skep.domain.filecalls import RegistryView, SetRegistryRequest
from skep.domain.objects import Registry
from skep.domain.storagechecks import check_registry, registry_name
from skep.manager.control.core.find import find
from skep.manager.store.core.tables import View
from skep.manager.store.core.transaction import Transaction

NewId = Callable[[], str]


def set_registry(tx: Transaction, request: SetRegistryRequest, new_id: NewId) -> RegistryView:
    """Write how to log in to a registry, in place of what was known. Raises Rejected."""
    check_registry(request)
    name = registry_name(request.name)
    old = tx.named(Registry, name)
    if old is None:
        row = Registry(
            id=RegistryId(new_id()),
            name=name,
            username=request.username,
            password=request.password,
        )
        tx.create(row)
        return registry_view(row)
    row = replace(old, username=request.username, password=request.password)
    if row != old:
        tx.update(row)
    return registry_view(row)


def remove_registry(tx: Transaction, request: RemoveRequest) -> RemoveResponse:
    """Forget how to log in to a registry."""
    row = find(tx, Registry, registry_name(request.ref) if request.ref else "")
    tx.remove(Registry, row.id)
    return RemoveResponse(id=row.id, name=row.name)


def registry_views(view: View) -> tuple[RegistryView, ...]:
    """What may be shown of all logins, by name."""
    return tuple(map(registry_view, sorted(view.all(Registry), key=lambda row: row.name)))


def registry_view(row: Registry) -> RegistryView:
    """What may be shown of a login."""
    return RegistryView(
        id=row.id,
        name=row.name,
        username=row.username,
        version=row.version,
        created_ns=row.created_ns,
        updated_ns=row.updated_ns,
    )
