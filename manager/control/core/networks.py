"""Creating and removing networks, and what services may say of them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping

from skep.domain.base import NetworkId, StackId, lookup, replace
from skep.domain.control import CreateNetworkRequest, NetworkView, RemoveRequest, RemoveResponse
from skep.domain.notes import ENCRYPTION_NOTE, can_encrypt
from skep.domain.objects import Network, Node, Service, Stack, Task
from skep.domain.spec import NetworkSpec, ServiceSpec, StackSpec
from skep.domain.validate import check_network
from skep.env import CallError, Code, Rejected
from skep.manager import revisions
from skep.manager.allocator.core.networks import has_ingress, ingress_of
from skep.manager.allocator.core.numbers import do_overlap
from skep.manager.allocator.core.taken import holds_addresses
from skep.manager.control.core.find import find
from skep.manager.control.core.users import TOLD_LIMIT, told
from skep.manager.store.core.tables import View
from skep.manager.store.core.transaction import Transaction

# What else a node may call its address is in no network's subnet.
IPV4 = re.compile(r"[0-9]{1,3}(\.[0-9]{1,3}){3}")

NewId = Callable[[], str]


def create_network(tx: Transaction, request: CreateNetworkRequest, new_id: NewId) -> Network:
    """A new network. Raises Rejected, or CallError when the name is taken, or when it is to be
    encrypted and no node can."""
    check_network(request.spec)
    return _add(tx, request.spec, new_id, None, "spec")


def remove_network(tx: Transaction, request: RemoveRequest) -> RemoveResponse:
    """Mark a network that no service needs: it is deleted once no task is on it. A spec that
    only a person could go back to doesn't keep it; that rollback is refused then."""
    network = find(tx, Network, request.ref)
    if network.is_ingress:
        raise CallError(
            Code.FAILED_PRECONDITION,
            f"network {network.name!r} can't be removed: published ports are reached by it",
        )
    why = _why_needed(tx, network)
    if why:
        raise CallError(Code.FAILED_PRECONDITION, why)
    _mark_removed(tx, network)
    return RemoveResponse(id=network.id, name=network.name)


def check_uses(view: View, specs: Mapping[str, ServiceSpec]) -> None:
    """Refuse specs, by the field they come in, of services on networks that aren't there, or that
    can't be told apart by a task on both. Raises CallError."""
    ingress = ingress_of(view)
    for field, spec in specs.items():
        missing = revisions.missing_network(view, spec)
        if missing is not None:
            place, why = missing
            raise _misused(f"{field}.task.networks[{place}].network", f"{why}; create it first")
        others = [ingress] if ingress and _range(ingress) and has_ingress(spec) else []
        for place, use in enumerate(spec.task.networks):
            where = f"{field}.task.networks[{place}].network"
            network = view.named(Network, use.network)
            assert network is not None
            if network.is_ingress:
                raise Rejected(f"{where}: {network.name!r} is the cluster's own", field=where)
            for other in others:
                if _range(network) and do_overlap(_range(network), _range(other)):
                    raise _misused(
                        where,
                        f"{network.name!r} ({_range(network)}) overlaps with {other.name!r} "
                        f"({_range(other)}), and a task on both could not tell them apart; "
                        "create one of them with another subnet",
                    )
            if _range(network):
                others.append(network)


def deploy_networks(tx: Transaction, spec: StackSpec, stack: Stack, new_id: NewId) -> list[str]:
    """Create what networks of the stack are missing; returns their names. Raises CallError where
    one of that name is something else."""
    created = []
    for place, wanted in enumerate(spec.networks):
        field = f"spec.networks[{place}]"
        network = tx.named(Network, wanted.name)
        if network is None:
            _add(tx, wanted, new_id, stack.id, field)
            created.append(wanted.name)
            continue
        _check_kept(network, wanted, stack, field)
        if network.spec != wanted:
            tx.update(replace(network, spec=wanted))
    return created


def prune_networks(tx: Transaction, stack: Stack, spec: StackSpec) -> None:
    """Remove the networks that a stack no longer names; those that are still needed stay."""
    named = {wanted.name for wanted in spec.networks}
    for network in tx.all(Network):
        is_left = network.stack_id == stack.id and network.name not in named
        if is_left and not _why_needed(tx, network):
            _mark_removed(tx, network)


def remove_stack_networks(tx: Transaction, stack: Stack) -> None:
    """Remove a stack's networks, whose services were removed before. Raises CallError where others
    use one: then all of the stack stays."""
    for network in tx.all(Network):
        if network.stack_id == stack.id:
            why = _why_needed(tx, network)
            if why:
                raise CallError(Code.FAILED_PRECONDITION, f"stack {stack.name!r}: {why}")
            _mark_removed(tx, network)


def network_views(view: View, networks: Iterable[Network]) -> tuple[NetworkView, ...]:
    """Networks and who is on them."""
    users: dict[str, list[str]] = {}
    for service in view.all(Service):
        for use in service.spec.task.networks:
            users.setdefault(use.network, []).append(service.name)
        if has_ingress(service.spec):
            users.setdefault("", []).append(service.name)
    tasks: dict[NetworkId, int] = {}
    for task in view.all(Task):
        if task.attachments and holds_addresses(task):
            for attachment in task.attachments:
                tasks[attachment.network_id] = tasks.get(attachment.network_id, 0) + 1
    return tuple(
        NetworkView(
            network=network,
            services=tuple(sorted(users.get("" if network.is_ingress else network.name, ()))),
            tasks=tasks.get(network.id, 0),
        )
        for network in networks
    )


def _add(
    tx: Transaction, spec: NetworkSpec, new_id: NewId, stack_id: StackId | None, field: str
) -> Network:
    twin = tx.named(Network, spec.name)
    if twin is not None:
        why = "it is still being removed" if twin.is_removing else "choose another name"
        raise CallError(
            Code.ALREADY_EXISTS,
            f"{field}.name: a network called {spec.name!r} exists; {why}",
            {"field": f"{field}.name"},
        )
    if spec.is_encrypted:
        _check_encryption(tx, f"{field}.is_encrypted")
    if spec.subnet:
        _check_nodes_outside(tx, spec.subnet, f"{field}.subnet")
    network = Network(id=NetworkId(new_id()), name=spec.name, spec=spec, stack_id=stack_id)
    tx.create(network)
    return network


def _check_nodes_outside(view: View, subnet: str, field: str) -> None:
    """Refuse a subnet that nodes are in: their tasks on it would reach them no more."""
    for node in view.all(Node):
        address = node.description.address
        if IPV4.fullmatch(address) and do_overlap(f"{address}/32", subnet):
            raise CallError(
                Code.FAILED_PRECONDITION,
                f"{field}: {subnet} holds the address of node {node.name}, {address}; "
                "choose a subnet that is nobody's yet",
                {"field": field},
            )


def _check_encryption(view: View, field: str) -> None:
    """Refuse what no node can do, with the reasons that the nodes give."""
    reasons: dict[str, None] = {}
    is_known = False
    for node in view.all(Node):
        note = lookup(node.description.notes, ENCRYPTION_NOTE)
        is_known |= bool(node.runs_tasks)
        if note is None:
            continue
        if can_encrypt(node.description.notes):
            return
        reason = note.partition(":")[2]
        reasons[f"{node.name}: {reason.strip() or 'it does not say why'}"] = None
    why = "no node is known yet, so that nobody says that it can encrypt"
    if reasons:
        why = f"no node can encrypt ({'; '.join(list(reasons)[:TOLD_LIMIT])})"
    elif is_known:
        why = "no node says that it can encrypt"
    raise CallError(
        Code.FAILED_PRECONDITION,
        f"{field}: {why}; leave it out, or see to one node that can",
        {"field": field},
    )


def _check_kept(network: Network, wanted: NetworkSpec, stack: Stack, field: str) -> None:
    """Refuse a network of a stack where another one has its name."""
    if network.is_removing:
        raise CallError(
            Code.FAILED_PRECONDITION,
            f"{field}.name: network {network.name!r} is still being removed; try again shortly",
        )
    if network.stack_id != stack.id:
        raise CallError(
            Code.ALREADY_EXISTS,
            f"{field}.name: network {network.name!r} exists and is not of this stack; choose "
            "another name, or say in the stack that it is external",
            {"field": f"{field}.name"},
        )
    # Labels change nothing for anybody who is on it.
    differing = [
        f"{name} (it is {getattr(network.spec, name)!r})"
        for name in NetworkSpec.__struct_fields__
        if name != "labels" and getattr(network.spec, name) != getattr(wanted, name)
    ]
    if differing:
        raise CallError(
            Code.FAILED_PRECONDITION,
            f"{field}: network {network.name!r} exists with another {', '.join(differing)}, and a "
            "network can't be changed; take its services off it and remove it first, or give the "
            "new one another name",
            {"field": field},
        )


def _why_needed(view: View, network: Network) -> str:
    """Which services keep a network from being removed; empty if none does."""
    users: list[str] = []
    returning: list[str] = []
    for service in view.all(Service):
        if service.is_removing:
            continue
        needs = [
            is_base
            for name, is_base in revisions.networks_needed(view, service)
            if name == network.name
        ]
        if needs:
            (returning if all(needs) else users).append(service.name)
    if users:
        return (
            f"network {network.name!r} is used by {told(users)}; remove them, or take it out of "
            "their specs first"
        )
    if returning:
        return (
            f"network {network.name!r} is of the spec that {told(returning)} may go back to; "
            "wait until the update is over"
        )
    return ""


def _mark_removed(tx: Transaction, network: Network) -> None:
    if not network.is_removing:
        tx.update(replace(network, is_removing=True))


def _range(network: Network) -> str:
    """Its addresses, as far as they are known."""
    return network.subnet or network.spec.subnet


def _misused(field: str, why: str) -> CallError:
    return CallError(Code.FAILED_PRECONDITION, f"{field}: {why}", {"field": field})
