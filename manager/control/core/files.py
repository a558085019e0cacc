"""Configs and secrets: creating and removing them, and which of them specs mean by a name.

They never change. A stack file whose config has another content gets another config of the same
family, so that tasks of the spec before keep what they had, and a rollback finds it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from skep.domain.base import replace
from skep.domain.control import RemoveRequest, RemoveResponse
from skep.domain.filecalls import (
    ConfigView,
    CreateConfigRequest,
    CreateSecretRequest,
    SecretView,
)
from skep.domain.objects import Config, Revision, Secret, Service, Stack
from skep.domain.spec import ServiceSpec
from skep.domain.storage import FileUse
from skep.domain.storagechecks import NAME_LIMIT, check_config, check_secret, check_stack_name
from skep.env import CallError, Code, Rejected
from skep.manager import revisions
from skep.manager.control.core.find import find
from skep.manager.control.core.users import told
from skep.manager.store.core.tables import KINDS, View
from skep.manager.store.core.transaction import Transaction

NewId = Callable[[], str]
F = TypeVar("F", Config, Secret)


def create_config(tx: Transaction, request: CreateConfigRequest, new_id: NewId) -> ConfigView:
    """A config, new or, with `is_versioned`, one that the stack has. Raises Rejected, or CallError
    when the name is taken."""
    check_config(request.spec)
    return config_view(tx, _made(tx, Config, request, new_id))


def create_secret(tx: Transaction, request: CreateSecretRequest, new_id: NewId) -> SecretView:
    """A secret, in the same way."""
    check_secret(request.spec)
    return secret_view(tx, _made(tx, Secret, request, new_id))


def remove_config(tx: Transaction, request: RemoveRequest) -> RemoveResponse:
    """Remove a config that no service uses. A spec that only a person could go back to doesn't
    keep it; that rollback is refused then."""
    return _remove(tx, Config, request)


def remove_secret(tx: Transaction, request: RemoveRequest) -> RemoveResponse:
    """Remove a secret, in the same way."""
    return _remove(tx, Secret, request)


# ----------------------------------------------------------------------------- what specs mean


def with_ids(view: View, spec: ServiceSpec, field: str) -> ServiceSpec:
    """The spec with the ids of its configs and secrets. One that has an id already, since it was
    read from the cluster, keeps it. Raises Rejected for what isn't there."""
    run = spec.task.run
    if not run.configs and not run.secrets:
        return spec
    where = f"{field}.task.run"
    run = replace(
        run,
        configs=_identified(view, Config, run.configs, f"{where}.configs"),
        secrets=_identified(view, Secret, run.secrets, f"{where}.secrets"),
    )
    return replace(spec, task=replace(spec.task, run=run))


def check_files(view: View, specs: Mapping[str, ServiceSpec]) -> None:
    """Refuse specs from before, by the field they come in, whose configs or secrets are gone.
    Raises CallError."""
    for field, spec in specs.items():
        why = revisions.missing_file(view, spec)
        if why:
            raise CallError(
                Code.FAILED_PRECONDITION,
                f"{field}: {why}; update the service to a spec with one that is there",
                {"field": field},
            )


def _identified(
    view: View, kind: type[Config] | type[Secret], uses: tuple[FileUse, ...], field: str
) -> tuple[FileUse, ...]:
    found = []
    for place, use in enumerate(uses):
        where, what = f"{field}[{place}]", KINDS[kind]
        row = view.get(kind, use.id) if use.id else view.named(kind, use.name)
        if row is not None and row.name == use.name:
            found.append(replace(use, id=row.id))
        elif use.id:
            raise Rejected(
                f"{where}.id: there is no {what} {use.name!r} with the id {use.id!r}; leave the id "
                "out to take the one of that name",
                field=f"{where}.id",
            )
        else:
            raise Rejected(
                f"{where}.name: there is no {what} {use.name!r}; create it with "
                f"`skep {what} create {use.name} FILE`",
                field=f"{where}.name",
            )
    return tuple(found)


# ------------------------------------------------------------------------------------- stacks


def collect_files(tx: Transaction, stack: Stack) -> None:
    """Remove what stack files have left behind: configs and secrets of the stack's families that no
    service's spec uses, be it the present one or one that is kept."""
    left = [row for row in _all(tx) if row.stack == stack.name and row.family]
    if not left:
        return
    specs = [service.spec for service in tx.all(Service)]
    specs += [row.spec for row in tx.all(Revision)]
    used = {use.id for spec in specs for _, use in revisions.files_of(spec)}
    for row in left:
        if row.id not in used:
            tx.remove(type(row), row.id)


def remove_stack_files(tx: Transaction, stack: Stack) -> None:
    """Remove a stack's configs and secrets, whose services were removed before; tasks that still
    stop have theirs. Raises CallError where others use one: then all of the stack stays."""
    for row in _all(tx):
        if row.stack == stack.name:
            why = _why_used(tx, row)
            if why:
                raise CallError(Code.FAILED_PRECONDITION, f"stack {stack.name!r}: {why}")
            tx.remove(type(row), row.id)


def _all(view: View) -> list[Config | Secret]:
    return [*view.all(Config), *view.all(Secret)]


# -------------------------------------------------------------------------------------- views


def config_view(view: View, row: Config, *, has_data: bool = False) -> ConfigView:
    """A config and who uses it."""
    [found] = config_views(view, [row], has_data=has_data)
    return found


def config_views(
    view: View, rows: Iterable[Config], *, has_data: bool = False
) -> tuple[ConfigView, ...]:
    """Configs and who uses them."""
    users = _users(view)
    return tuple(
        ConfigView(
            config=row if has_data else without_data(row), services=tuple(users.get(row.id, ()))
        )
        for row in rows
    )


def secret_view(view: View, row: Secret) -> SecretView:
    """What may be shown of a secret, and who uses it."""
    [found] = secret_views(view, [row])
    return found


def secret_views(view: View, rows: Iterable[Secret]) -> tuple[SecretView, ...]:
    """What may be shown of secrets, and who uses them."""
    users = _users(view)
    return tuple(shown(row, tuple(users.get(row.id, ()))) for row in rows)


def shown(row: Secret, services: tuple[str, ...] = ()) -> SecretView:
    """What may be shown of a secret."""
    return SecretView(
        id=row.id,
        name=row.name,
        version=row.version,
        created_ns=row.created_ns,
        updated_ns=row.updated_ns,
        labels=row.spec.labels,
        stack=row.stack,
        services=services,
    )


def without_data(row: F) -> F:
    """A config or secret as others may see it."""
    bare: Any = replace(row.spec, data=b"")
    return replace(row, spec=bare)


def of_stack(view: View, kind: type[F], stack: str | None) -> list[F]:
    """Configs or secrets by name, all or those of one stack. Raises CallError where there is
    neither such a stack nor anything that was made for it."""
    rows = [row for row in view.all(kind) if stack is None or row.stack == stack]
    if stack is not None and not rows:
        name = find(view, Stack, stack).name
        rows = [row for row in view.all(kind) if row.stack == name]
    return sorted(rows, key=lambda row: (row.name, row.id))


def _users(view: View) -> dict[str, list[str]]:
    users: dict[str, list[str]] = {}
    for service in sorted(view.all(Service), key=lambda row: (row.name, row.id)):
        for id_ in dict.fromkeys(use.id for _, use in revisions.files_of(service.spec)):
            users.setdefault(id_, []).append(service.name)
    return users


# ------------------------------------------------------------------------------------ the rest


def _made(
    tx: Transaction,
    kind: type[F],
    request: CreateConfigRequest | CreateSecretRequest,
    new_id: NewId,
) -> F:
    name = request.spec.name
    if request.stack or request.is_versioned:
        check_stack_name(request.stack, "stack")
    if request.is_versioned:
        same = _same(tx, kind, request)
        if same is not None:
            return same
        name = _free_name(tx, kind, name)
    elif tx.named(kind, name) is not None:
        raise CallError(
            Code.ALREADY_EXISTS,
            f"spec.name: a {KINDS[kind]} called {name!r} exists, and can't be changed; choose "
            "another name",
            {"field": "spec.name"},
        )
    make: Any = kind
    row: F = make(
        id=new_id(),
        name=name,
        spec=replace(request.spec, name=name),
        stack=request.stack,
        family=request.spec.name if request.is_versioned else "",
    )
    tx.create(row)
    return row


def _same(
    tx: Transaction, kind: type[F], request: CreateConfigRequest | CreateSecretRequest
) -> F | None:
    """The newest one of the family with the same content. Labels change nothing for anybody who
    uses it, so it gets those that are asked for now."""
    fits = [
        row
        for row in tx.all(kind)
        if (row.stack, row.family) == (request.stack, request.spec.name)
        and row.spec.data == request.spec.data
    ]
    if not fits:
        return None
    newest = max(fits, key=lambda row: (row.created_ns, row.id))
    if newest.spec.labels == request.spec.labels:
        return newest
    spec: Any = replace(newest.spec, labels=request.spec.labels)
    relabelled = replace(newest, spec=spec)
    tx.update(relabelled)
    return relabelled


def _free_name(view: View, kind: type[F], name: str) -> str:
    """The name, or the first one with a number behind it that is free."""
    found, number = name, 1
    while view.named(kind, found) is not None:
        number += 1
        end = f"-{number}"
        found = name[: NAME_LIMIT - len(end)] + end
    return found


def _remove(tx: Transaction, kind: type[F], request: RemoveRequest) -> RemoveResponse:
    row = find(tx, kind, request.ref)
    why = _why_used(tx, row)
    if why:
        raise CallError(Code.FAILED_PRECONDITION, why)
    tx.remove(kind, row.id)
    return RemoveResponse(id=row.id, name=row.name)


def _why_used(view: View, row: Config | Secret) -> str:
    """Which services keep a config or secret from being removed; empty if none does."""
    users: list[str] = []
    returning: list[str] = []
    for service in view.all(Service):
        if service.is_removing:
            continue
        needs = [is_base for id_, is_base in revisions.files_needed(view, service) if id_ == row.id]
        if needs:
            (returning if all(needs) else users).append(service.name)
    what = f"{KINDS[type(row)]} {row.name!r}"
    if users:
        return f"{what} is used by {told(users)}; remove them, or take it out of their specs first"
    if returning:
        return (
            f"{what} is of the spec that {told(returning)} may go back to; wait until the update "
            "is over"
        )
    return ""
