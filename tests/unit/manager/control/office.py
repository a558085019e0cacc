"""A database, and whoever asks things of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from skep.domain.control import (
    CreateServiceRequest,
    DeployStackRequest,
    RemoveRequest,
    UpdateServiceRequest,
)
from skep.domain.objects import (
    Node,
    Object,
    Revision,
    Service,
    Stack,
    Task,
)
from skep.domain.spec import (
    ServiceSpec,
    StackSpec,
)
from skep.manager.control.core.services import (
    create_service,
    update_service,
)
from skep.manager.control.core.stacks import deploy_stack
from skep.manager.store.core.command import Database, encode_command
from skep.manager.store.core.tables import Tables
from skep.manager.store.core.transaction import Transaction

T = TypeVar("T")


class Office:
    """A database, and whoever asks things of it."""

    def __init__(self, *rows: Object) -> None:
        self.database = Database()
        self._ids = 0
        for row in rows:
            self.do(lambda tx, row=row: tx.create(row))

    @property
    def tables(self) -> Tables:
        return self.database.tables

    def do(self, fn: Callable[..., T]) -> T:
        version = self.database.version + 1
        tx = Transaction(self.tables, version * 10)
        result = fn(tx)
        if not tx.is_empty:
            self.database.apply(version, encode_command(version * 10, tx.changes()))
            self.tables.check_invariants()
        return result

    def new_id(self) -> str:
        self._ids += 1
        return f"id{self._ids}"

    def create(self, spec: ServiceSpec) -> Service:
        request = CreateServiceRequest(request_id="r", spec=spec)
        return self.do(lambda tx: create_service(tx, request, self.new_id))

    def update(self, spec: ServiceSpec, **more: Any) -> Service:
        request = UpdateServiceRequest(request_id="r", **{"ref": spec.name, "spec": spec, **more})
        return self.do(lambda tx: update_service(tx, request))

    def deploy(self, *specs: ServiceSpec, name: str = "shop", is_prune: bool = False) -> Any:
        stack = StackSpec(name=name, services=specs)
        request = DeployStackRequest(request_id="r", spec=stack, is_prune=is_prune)
        return self.do(lambda tx: deploy_stack(tx, request, self.new_id))

    def remove(self, how: Callable[..., Any], ref: str) -> Any:
        return self.do(lambda tx: how(tx, RemoveRequest(request_id="r", ref=ref)))

    def service(self, name: str = "web") -> Service:
        found = self.tables.named(Service, name)
        assert found is not None
        return found

    def content(self) -> list[Object]:
        kinds: tuple[type[Object], ...] = (Node, Service, Revision, Task, Stack)
        return [row for kind in kinds for row in self.tables.all(kind)]
