"""How nodes come on record, and how a verdict on them is written."""

from __future__ import annotations

from dataclasses import dataclass

from skep.domain.base import NodeId, lookup, pairs, replace
from skep.domain.notes import ENCRYPTION_NOTE, WIREGUARD_KEY_NOTE
from skep.domain.objects import Node, NodeDescription, NodeRole, NodeState
from skep.domain.session import WorkerHello
from skep.env import CallError, Code
from skep.manager.store.core.transaction import Transaction


@dataclass(frozen=True)
class ManagerRow:
    """A manager as the configuration names it."""

    node_id: NodeId
    name: str
    control_address: str


def manager_node(manager: ManagerRow) -> Node:
    """The row of a manager that runs no tasks."""
    address = manager.control_address.rpartition(":")[0]
    return Node(
        id=manager.node_id,
        name=manager.name,
        role=NodeRole.MANAGER,
        description=NodeDescription(hostname=manager.name, address=address),
        control_address=manager.control_address,
        runs_tasks=False,
    )


def register(tx: Transaction, hello: WorkerHello) -> None:
    """Put a worker that has said hello on record. Raises CallError when its name is another's."""
    node = tx.get(Node, hello.node_id)
    twin = tx.named(Node, hello.name)
    if twin is not None and twin.id != hello.node_id:
        raise CallError(
            Code.ALREADY_EXISTS,
            f"another node is called {hello.name!r}; remove it or choose another name",
        )
    if node is None:
        tx.create(
            Node(
                id=hello.node_id,
                name=hello.name,
                role=hello.role,
                description=hello.description,
                state=NodeState.READY,
            )
        )
        return
    changed = replace(
        node,
        name=hello.name,
        description=_described(node.description, hello.description),
        state=NodeState.READY,
        message="",
        runs_tasks=True,
    )
    if changed != node:
        tx.update(changed)


def _described(old: NodeDescription, new: NodeDescription) -> NodeDescription:
    """What the node says of itself now. Where it says nothing of encryption, its netproxy was not
    heard; what that put in force goes on, and so does what the others need to reach it."""
    if lookup(new.notes, ENCRYPTION_NOTE) is not None:
        return new
    former = (note for note in old.notes if note[0] in (ENCRYPTION_NOTE, WIREGUARD_KEY_NOTE))
    return replace(new, notes=pairs((*former, *new.notes)))


def set_state(tx: Transaction, node_id: NodeId, state: NodeState, why: str) -> None:
    """Write a verdict; one that says nothing new writes nothing."""
    node = tx.get(Node, node_id)
    if node is not None and node.state is not state:
        tx.update(replace(node, state=state, message=why if state is NodeState.DOWN else ""))
