"""What a worker asks of the netproxy of its node, and what it is told.

A task that is on networks is attached before it starts, and detached once it has ended. Every call
is idempotent: an agent that died half-way asks again. An attachment outlives both processes.
"""

from __future__ import annotations

from skep.domain.base import NodeId, Pairs, ServiceId, Struct, TaskId
from skep.domain.objects import Attachment


class AttachRequest(Struct, frozen=True, kw_only=True):
    """Connect one task to its networks. `names` are services whose virtual addresses its
    templates ask for; an attempt to attach is refused, to be tried again, until netproxy knows
    all of them and all networks."""

    task_id: TaskId
    service_id: ServiceId
    service_name: str
    attachments: tuple[Attachment, ...] = ()
    names: tuple[str, ...] = ()
    hostname: str = ""


class AttachResponse(Struct, frozen=True, kw_only=True):
    """How the task's processes get onto its networks.

    They enter the network namespace at the path `namespace` and join the control group at
    `cgroup`, where these aren't empty. `resolv_conf` and `hosts` are the texts that are to be its
    /etc/resolv.conf and /etc/hosts, where it can have its own; `dns` is where its names are
    answered, "127.33.255.1:53". `vips` are the addresses of the `names` asked for, on this node.
    `address` is where the task is to listen, where that isn't the address it has in the relay
    plane: in a namespace of its own every address is its.
    """

    namespace: str = ""
    cgroup: str = ""
    resolv_conf: str = ""
    hosts: str = ""
    dns: str = ""
    vips: Pairs = ()
    address: str = ""


class DetachRequest(Struct, frozen=True, kw_only=True):
    """This task has ended, or was never started: take its namespace and all else away."""

    task_id: TaskId


class HoldRequest(Struct, frozen=True, kw_only=True):
    """These are all the tasks that the worker holds; what is attached beside them is left over
    and taken away."""

    task_ids: tuple[TaskId, ...] = ()


class FactsRequest(Struct, frozen=True, kw_only=True):
    """What is to be known of this node's network, before any task is on it?"""


class FactsResponse(Struct, frozen=True, kw_only=True):
    """Notes for the node's description, by name: see `docs/operations.md`."""

    notes: Pairs = ()


class AttachDone(Struct, frozen=True, kw_only=True):
    """It is so."""

    node_id: NodeId
