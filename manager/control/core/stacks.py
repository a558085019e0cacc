"""Deploying and removing stacks: one transaction, so that nothing is ever half deployed."""

from __future__ import annotations

from skep.domain.base import StackId, replace
from skep.domain.control import (
    DeployStackRequest,
    DeployStackResponse,
    RemoveRequest,
    RemoveResponse,
)
from skep.domain.objects import Service, Stack
from skep.domain.spec import StackSpec
from skep.domain.validate import check_stack
from skep.env import CallError, Code
from skep.manager.control.core.files import collect_files, remove_stack_files, with_ids
from skep.manager.control.core.find import find
from skep.manager.control.core.networks import (
    check_uses,
    deploy_networks,
    prune_networks,
    remove_stack_networks,
)
from skep.manager.control.core.services import (
    NewId,
    add_service,
    change_service,
    check_published,
    mark_removed,
)
from skep.manager.store.core.transaction import Transaction


def deploy_stack(
    tx: Transaction, request: DeployStackRequest, new_id: NewId
) -> DeployStackResponse:
    """Make the cluster hold a stack. A service of the stack that the spec no longer names is
    removed only when pruning was asked for; the answer names it otherwise. So is a network, if
    nothing needs it by then: a service that may yet go back to it does. Configs and secrets that
    an earlier file of the stack has left behind are removed."""
    check_stack(request.spec)
    request = replace(request, spec=_with_ids(tx, request.spec))
    specs = {f"spec.services[{place}]": spec for place, spec in enumerate(request.spec.services)}
    check_published(tx, specs)
    stack = _write_stack(tx, request, new_id)
    networks_created = deploy_networks(tx, request.spec, stack, new_id)
    check_uses(tx, specs)
    created: list[str] = []
    updated: list[str] = []
    unchanged: list[str] = []
    for place, spec in enumerate(request.spec.services):
        field = f"spec.services[{place}]"
        service = tx.named(Service, spec.name)
        if service is None:
            add_service(tx, spec, new_id, stack.id, field)
            created.append(spec.name)
            continue
        if service.is_removing:
            raise CallError(
                Code.FAILED_PRECONDITION,
                f"{field}.name: service {spec.name!r} is still being removed; try again shortly",
            )
        if service.stack_id != stack.id:
            raise CallError(
                Code.ALREADY_EXISTS,
                f"{field}.name: service {spec.name!r} exists and is not of this stack",
                {"field": f"{field}.name"},
            )
        changed = change_service(tx, service, spec)
        (unchanged if changed is service else updated).append(spec.name)
    named = {spec.name for spec in request.spec.services}
    gone = [
        service
        for service in tx.all(Service)
        if service.stack_id == stack.id and service.name not in named and not service.is_removing
    ]
    if request.is_prune:
        for service in gone:
            mark_removed(tx, service)
        prune_networks(tx, stack, request.spec)
    collect_files(tx, stack)
    names = tuple(sorted(service.name for service in gone))
    return DeployStackResponse(
        stack=stack,
        created=tuple(created),
        updated=tuple(updated),
        unchanged=tuple(unchanged),
        removed=names if request.is_prune else (),
        kept=() if request.is_prune else names,
        networks_created=tuple(networks_created),
    )


def remove_stack(tx: Transaction, request: RemoveRequest) -> RemoveResponse:
    """Remove a stack with all of its services, configs and secrets, and once their tasks have ended
    its networks."""
    stack = find(tx, Stack, request.ref)
    for service in tx.all(Service):
        if service.stack_id == stack.id:
            mark_removed(tx, service)
    remove_stack_networks(tx, stack)
    remove_stack_files(tx, stack)
    tx.remove(Stack, stack.id)
    return RemoveResponse(id=stack.id, name=stack.name)


def _with_ids(tx: Transaction, spec: StackSpec) -> StackSpec:
    services = tuple(
        with_ids(tx, each, f"spec.services[{place}]") for place, each in enumerate(spec.services)
    )
    return replace(spec, services=services)


def _write_stack(tx: Transaction, request: DeployStackRequest, new_id: NewId) -> Stack:
    old = tx.named(Stack, request.spec.name)
    if old is None:
        stack = Stack(id=StackId(new_id()), name=request.spec.name, spec=request.spec)
        tx.create(stack)
        return stack
    if old.spec == request.spec:
        return old
    stack = replace(old, spec=request.spec, revision=old.revision + 1)
    tx.update(stack)
    return stack
