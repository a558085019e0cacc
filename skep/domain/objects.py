"""The rows of the cluster database.

Every object has an `id`, the `version` (commit index) that last wrote it, and the wall times of
its creation and last change, stamped by the leader that proposed the write.
"""

from __future__ import annotations

import enum

from skep.domain.base import (
    ConfigId,
    NetworkId,
    NodeId,
    Pairs,
    RegistryId,
    SecretId,
    ServiceId,
    SessionId,
    StackId,
    Struct,
    TaskId,
    VolumeId,
    shielded,
)
from skep.domain.spec import (
    NAMESPACE,
    PROCESS,
    NetworkSpec,
    Port,
    ServiceSpec,
    StackSpec,
    UpdatePolicy,
)
from skep.domain.states import TERMINAL, DesiredState, TaskState
from skep.domain.storage import ConfigSpec, SecretSpec

# Docker Swarm's, which people have kept clear of in their own networks.
DEFAULT_ADDRESS_POOLS = ("10.0.0.0/8",)
DEFAULT_SUBNET_PREFIX = 24


class Object(Struct, frozen=True, kw_only=True):
    """What every row has. `version` and the times are written by the store alone."""

    id: str
    namespace: str = NAMESPACE
    version: int = 0
    created_ns: int = 0
    updated_ns: int = 0


class Cluster(Object, frozen=True, kw_only=True):
    """The one row that describes the cluster itself. Its id is the cluster's.

    `block` is B of the loopback plan: nodes are 127.B.0.k, tasks 127.B.16-255.x. Networks that
    name no subnet get one of `subnet_prefix` bits out of the `address_pools`
    (none: `DEFAULT_ADDRESS_POOLS`). Services of stack files that don't name an engine get the
    `default_engine`.
    """

    name: str = "default"
    block: int = 0
    feature_level: int = 1
    task_history_limit: int = 5
    address_pools: tuple[str, ...] = ()
    subnet_prefix: int = DEFAULT_SUBNET_PREFIX
    default_engine: str = PROCESS


class NodeRole(enum.Enum):
    """What a node is for."""

    MANAGER = "manager"
    WORKER = "worker"


class NodeState(enum.Enum):
    """What the leader last judged of a node."""

    UNKNOWN = "unknown"
    READY = "ready"
    DOWN = "down"


class Availability(enum.Enum):
    """What the operator allows on a node."""

    ACTIVE = "active"
    PAUSE = "pause"
    DRAIN = "drain"


class NodeDescription(Struct, frozen=True, kw_only=True):
    """What a node says of itself when it registers."""

    hostname: str
    address: str = ""
    mesh_address: str = ""
    os: str = ""
    arch: str = ""
    cpu_nano: int = 0
    memory_bytes: int = 0
    engines: tuple[str, ...] = ()
    notes: Pairs = ()
    plane: str = "relay"


class Node(Object, frozen=True, kw_only=True):
    """A machine. `labels` are the operator's; the description is the node's own word, in which
    `plane` is its data plane. `ingress_address` is its own address on the ingress network, from
    the allocator; empty until then."""

    id: NodeId
    name: str
    role: NodeRole
    description: NodeDescription
    labels: Pairs = ()
    availability: Availability = Availability.ACTIVE
    state: NodeState = NodeState.UNKNOWN
    message: str = ""
    control_address: str = ""
    runs_tasks: bool = True
    ingress_address: str = ""


class UpdateState(enum.Enum):
    """How far a change of revision has come. The names are Docker Swarm's."""

    UPDATING = "updating"
    PAUSED = "paused"
    COMPLETED = "completed"
    ROLLBACK_STARTED = "rollback_started"
    ROLLBACK_PAUSED = "rollback_paused"
    ROLLBACK_COMPLETED = "rollback_completed"

    @property
    def is_active(self) -> bool:
        """Whether tasks are being changed."""
        return self in (UpdateState.UPDATING, UpdateState.ROLLBACK_STARTED)

    @property
    def is_paused(self) -> bool:
        """Whether it waits for a person."""
        return self in (UpdateState.PAUSED, UpdateState.ROLLBACK_PAUSED)

    @property
    def is_on_trial(self) -> bool:
        """Whether the service's present spec has yet to prove itself."""
        return self in (UpdateState.UPDATING, UpdateState.PAUSED)


class UpdateStatus(Struct, frozen=True, kw_only=True):
    """The newest change of a service's task revision, under way or over.

    `revision` is the spec that was asked for, `base_revision` the last one before it that was not
    on trial itself: where an automatic rollback goes. In the rollback states `revision` is the
    one that was given up, and the service's own is a newer number with the spec of
    `base_revision`. `policy` is the one the change goes by; `failed_slots` are the slots that have
    failed under it. `ended_ns` is when the change was completed or paused; `message` says why it
    is as it is.
    """

    state: UpdateState
    revision: int
    base_revision: int
    policy: UpdatePolicy
    started_ns: int
    ended_ns: int | None = None
    message: str = ""
    failed_slots: tuple[int, ...] = ()


class Network(Object, frozen=True, kw_only=True):
    """A network that tasks can be on. The allocator gives it its VXLAN id `vni`, its `subnet`
    and its `gateway`; until then `vni` is None, and `message` says why. `is_ingress` marks the
    one by which published ports are reached. One that is being removed is marked first, and
    deleted once no task is on it."""

    id: NetworkId
    name: str
    spec: NetworkSpec
    stack_id: StackId | None = None
    is_ingress: bool = False
    vni: int | None = None
    subnet: str = ""
    gateway: str = ""
    message: str = ""
    is_removing: bool = False


class Vip(Struct, frozen=True, kw_only=True):
    """A service's virtual address on one network, in both of its forms: `address` in the
    network's subnet (kernel plane), and `index`, unique in the cluster, which each node of the
    relay plane maps into its own block (`skep.domain.address.relay_vip`)."""

    network_id: NetworkId
    index: int
    address: str


class Attachment(Struct, frozen=True, kw_only=True):
    """A task's address on one network."""

    network_id: NetworkId
    address: str


class Service(Object, frozen=True, kw_only=True):
    """A spec that is kept true.

    `revision` counts specs. `task_revision` is the revision whose tasks are right: the first one
    that said of tasks what the present spec says, so that scaling replaces nothing, and tasks
    that still run from before an update are right again after a rollback. `previous_revision` is
    the spec before the present one: where a rollback goes that names no revision. `ports` are the
    spec's with the published ones filled in by the allocator, `vips` its addresses on the networks
    of the spec, as far as they are allocated (none in mode dnsrr). A service that is being removed
    is marked first, and deleted once its tasks ended.
    """

    id: ServiceId
    name: str
    spec: ServiceSpec
    revision: int = 1
    task_revision: int = 1
    stack_id: StackId | None = None
    ports: tuple[Port, ...] | None = None
    is_removing: bool = False
    previous_revision: int | None = None
    update: UpdateStatus | None = None
    vips: tuple[Vip, ...] = ()


class Revision(Object, frozen=True, kw_only=True):
    """A spec as it once was. Its id is `revision_id(service, number)`; `task_revision` is what the
    service's was under it, and `note` says how it came to be, such as "rollback to 3"."""

    service_id: ServiceId
    number: int
    spec: ServiceSpec
    task_revision: int = 0
    note: str = ""


class TaskStatus(Struct, frozen=True, kw_only=True):
    """What a worker last said of a task.

    `counter` grows with each status of one task, on its worker's disk; `session_id` names the
    session that brought it. `exit_code` is 128 + signal for a task that a signal ended.
    """

    state: TaskState = TaskState.NEW
    since_ns: int = 0
    message: str = ""
    error: str = ""
    exit_code: int | None = None
    pid: int | None = None
    is_healthy: bool = True
    counter: int = 0
    session_id: SessionId | None = None


class Task(Object, frozen=True, kw_only=True):
    """One attempt to run one slot of a service on one node; never moved, never restarted.

    `attempt` counts replacements after a failure within one slot and task revision.
    `address` is the task's in the relay plane, `attachments` those on its networks, the ingress
    network among them if it publishes ports there; both are the allocator's.
    `start_at_ns` (wall time) is when a replacement may start, by its restart delay. `healthy_ns`,
    `sick_ns` and `ended_ns` are when the leader stored that it was healthy for the first time,
    that it was so no longer, and that it had ended: windows are measured between stamps of one
    clock.
    """

    id: TaskId
    service_id: ServiceId
    service_name: str
    revision: int
    slot: int
    desired_state: DesiredState = DesiredState.RUNNING
    status: TaskStatus = TaskStatus()
    node_id: NodeId | None = None
    address: str = ""
    attachments: tuple[Attachment, ...] = ()
    attempt: int = 0
    start_at_ns: int | None = None
    healthy_ns: int | None = None
    sick_ns: int | None = None
    ended_ns: int | None = None

    @property
    def name(self) -> str:
        """The name people know it by: service and slot."""
        return f"{self.service_name}.{self.slot}"

    @property
    def is_terminal(self) -> bool:
        """Whether it has ended for good."""
        return self.status.state in TERMINAL

    @property
    def is_wanted(self) -> bool:
        """Whether managers still want it to run, now or soon."""
        return self.desired_state in (DesiredState.READY, DesiredState.RUNNING)


class Stack(Object, frozen=True, kw_only=True):
    """A named set of services and networks, deployed as one."""

    id: StackId
    name: str
    spec: StackSpec
    revision: int = 1


class Config(Object, frozen=True, kw_only=True):
    """A config, which is never changed. One that came with a stack file is of the stack of that
    name; when the file's content changes, a new one of the same `family` is made."""

    id: ConfigId
    name: str
    spec: ConfigSpec
    stack: str = ""
    family: str = ""


class Secret(Object, frozen=True, kw_only=True):
    """A secret, which is never changed, and whose data never leave the managers but for nodes with
    tasks that use it. `stack` and `family` as with a config."""

    id: SecretId
    name: str
    spec: SecretSpec
    stack: str = ""
    family: str = ""


class VolumePlace(Struct, frozen=True, kw_only=True):
    """A node that has a volume, since this slot of a service was put there."""

    service_name: str
    slot: int
    node_id: NodeId


class Volume(Object, frozen=True, kw_only=True):
    """Where a named volume is that lives on single nodes: those to which tasks that use it were
    given. It outlives services and stacks, and its places, the oldest first, say where the next
    task that uses it belongs."""

    id: VolumeId
    name: str
    places: tuple[VolumePlace, ...] = ()


class Registry(Object, frozen=True, kw_only=True):
    """How nodes log in to a registry of images. `name` is its address, such as
    "registry.example.com:5000", or "docker.io". The password is never shown."""

    id: RegistryId
    name: str
    username: str
    password: str

    def __repr__(self) -> str:
        """Everything but the password: objects get into logs and errors."""
        return shielded(self, "password")


class Request(Object, frozen=True, kw_only=True):
    """The answer to a client's mutation, kept so that a retry gets the same one. Its id is the
    client's request id; `digest` is the request's SHA-256, `answer` the encoded response."""

    method: str
    digest: str = ""
    answer: bytes


def revision_id(service_id: ServiceId, number: int) -> str:
    """The id of one revision of a service."""
    return f"{service_id}.{number}"
