"""The control API's requests and answers, as domain objects.

Every mutation carries the client's `request_id`: a retry with the same id gets the same answer
and does nothing twice. An update carries the `version` the client read; a mismatch is a conflict.
`ref` fields take an id, a unique prefix of one, or a name. Reads are linearizable unless
`is_stale`, which asks the manager that was called for what it has.
"""

from __future__ import annotations

import enum

from skep.domain.base import NodeId, Pairs, Struct, TaskId
from skep.domain.endpoints import Diagnosis
from skep.domain.filecalls import SecretView
from skep.domain.objects import (
    Availability,
    Cluster,
    Config,
    Network,
    Node,
    Revision,
    Service,
    Stack,
    Task,
)
from skep.domain.spec import NetworkSpec, ServiceSpec, StackSpec

# Sizes are checked at the API, with the limit in the message.
STACK_FILE_LIMIT_BYTES = 1024 * 1024
SPEC_LIMIT_BYTES = 256 * 1024
ENVIRONMENT_LIMIT_BYTES = 128 * 1024
LABEL_LIMIT = 64


class GetRequest(Struct, frozen=True, kw_only=True):
    """Ask for one object."""

    ref: str
    is_stale: bool = False


class GetClusterRequest(Struct, frozen=True, kw_only=True):
    """Ask for the cluster's own row and who leads."""

    is_stale: bool = False


class GetClusterResponse(Struct, frozen=True, kw_only=True):
    """`version` is the last commit the answer includes."""

    cluster: Cluster
    leader_id: NodeId | None = None
    term: int = 0
    version: int = 0
    release: str = ""


class ListNodesRequest(Struct, frozen=True, kw_only=True):
    """Ask for all nodes."""

    is_stale: bool = False


class ListNodesResponse(Struct, frozen=True, kw_only=True):
    """Nodes by name; `leader_id` names the leading manager's node."""

    nodes: tuple[Node, ...] = ()
    leader_id: NodeId | None = None
    version: int = 0


class UpdateNodeRequest(Struct, frozen=True, kw_only=True):
    """Change what the operator sets on a node; an absent part stays as it is."""

    request_id: str
    ref: str
    version: int | None = None
    availability: Availability | None = None
    labels_set: Pairs = ()
    labels_removed: tuple[str, ...] = ()


class RemoveRequest(Struct, frozen=True, kw_only=True):
    """Remove one object."""

    request_id: str
    ref: str


class RemoveResponse(Struct, frozen=True, kw_only=True):
    """What was removed, or is marked to be once its tasks have ended."""

    id: str
    name: str = ""


class CreateServiceRequest(Struct, frozen=True, kw_only=True):
    """Create a service from a spec."""

    request_id: str
    spec: ServiceSpec


class UpdateServiceRequest(Struct, frozen=True, kw_only=True):
    """Replace a service's spec. The name can't change."""

    request_id: str
    ref: str
    spec: ServiceSpec
    version: int | None = None


class RollbackServiceRequest(Struct, frozen=True, kw_only=True):
    """Give a service the spec of an earlier revision: by number, or (absent) the one before the
    last update. Watched like an update, by the present spec's rollback policy."""

    request_id: str
    ref: str
    revision: int | None = None
    version: int | None = None


class ListRevisionsRequest(Struct, frozen=True, kw_only=True):
    """Ask for the specs that a service has had, as far as they are kept."""

    service: str
    is_stale: bool = False


class ListRevisionsResponse(Struct, frozen=True, kw_only=True):
    """Revisions, the newest first."""

    revisions: tuple[Revision, ...] = ()
    version: int = 0


class ListServicesRequest(Struct, frozen=True, kw_only=True):
    """Ask for services, of one stack if `stack` is given."""

    stack: str | None = None
    is_stale: bool = False


class ServiceView(Struct, frozen=True, kw_only=True):
    """A service and how far reality has come. `running` counts slots with a healthy running task,
    of whichever revision; `completed` those whose task was to run once and did; `given_up` those
    whose last task ended otherwise and that the restart policy doesn't try again. `is_converged`
    says that nothing else is left to do, and that no update is under way or paused."""

    service: Service
    running: int = 0
    desired: int = 0
    is_converged: bool = False
    problems: tuple[str, ...] = ()
    given_up: int = 0
    completed: int = 0


class ListServicesResponse(Struct, frozen=True, kw_only=True):
    """Services by name."""

    services: tuple[ServiceView, ...] = ()
    version: int = 0


class ListTasksRequest(Struct, frozen=True, kw_only=True):
    """Ask for tasks, of one service, node or stack if given; ended ones only with `is_all`."""

    service: str | None = None
    node: str | None = None
    stack: str | None = None
    is_all: bool = False
    is_stale: bool = False


class ListTasksResponse(Struct, frozen=True, kw_only=True):
    """Tasks by service name, slot, and newest first."""

    tasks: tuple[Task, ...] = ()
    version: int = 0


class CreateNetworkRequest(Struct, frozen=True, kw_only=True):
    """Create a network."""

    request_id: str
    spec: NetworkSpec


class NetworkView(Struct, frozen=True, kw_only=True):
    """A network and who is on it: services by name, and how many live tasks have an address."""

    network: Network
    services: tuple[str, ...] = ()
    tasks: int = 0


class ListNetworksRequest(Struct, frozen=True, kw_only=True):
    """Ask for networks, of one stack if `stack` is given."""

    stack: str | None = None
    is_stale: bool = False


class ListNetworksResponse(Struct, frozen=True, kw_only=True):
    """Networks by name."""

    networks: tuple[NetworkView, ...] = ()
    version: int = 0


class DiagnoseNetworkRequest(Struct, frozen=True, kw_only=True):
    """Ask every node's netproxy how it sees the network, or (`name` and `from_task`) the one of
    that task's node what the name leads to there."""

    name: str = ""
    from_task: str = ""


class DiagnoseNetworkResponse(Struct, frozen=True, kw_only=True):
    """What the nodes said, by node name; `silent` are nodes whose netproxy was not heard, by name
    and why. `version` is the asked manager's, `differences` are where nodes and managers don't
    agree; what a node says of itself is in its diagnosis."""

    version: int
    diagnoses: tuple[Diagnosis, ...] = ()
    silent: Pairs = ()
    differences: tuple[str, ...] = ()


class DeployStackRequest(Struct, frozen=True, kw_only=True):
    """Make the cluster hold this stack: create, update, and with `is_prune` remove services."""

    request_id: str
    spec: StackSpec
    is_prune: bool = False


class DeployStackResponse(Struct, frozen=True, kw_only=True):
    """What the deploy did, by service name. `kept` are running services that the stack no longer
    names; they are removed only when pruning was asked for."""

    stack: Stack
    created: tuple[str, ...] = ()
    updated: tuple[str, ...] = ()
    unchanged: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()
    networks_created: tuple[str, ...] = ()


class ListStacksRequest(Struct, frozen=True, kw_only=True):
    """Ask for all stacks."""

    is_stale: bool = False


class ListStacksResponse(Struct, frozen=True, kw_only=True):
    """Stacks by name."""

    stacks: tuple[Stack, ...] = ()
    version: int = 0


class WatchAction(enum.Enum):
    """What happened to an object."""

    CREATE = "create"
    UPDATE = "update"
    REMOVE = "remove"


class WatchRequest(Struct, frozen=True, kw_only=True):
    """Follow changes after `from_version` (absent: from now). `kinds` narrows to "node",
    "service", "task", "stack", "network", "config", "secret"; empty means all of these."""

    from_version: int | None = None
    kinds: tuple[str, ...] = ()


class WatchEvent(Struct, frozen=True, kw_only=True):
    """One change, in commit order, with the object as it was written (or last was); of configs and
    secrets without their data.

    `is_resync` alone means that `from_version` is gone: read everything again and follow from
    `version`. An event with nothing but a version says that all up to it has been seen.
    """

    version: int
    action: WatchAction | None = None
    node: Node | None = None
    service: Service | None = None
    task: Task | None = None
    stack: Stack | None = None
    network: Network | None = None
    config: Config | None = None
    secret: SecretView | None = None
    is_resync: bool = False


class LogStream(enum.Enum):
    """Which of its two outputs a task wrote to."""

    STDOUT = "stdout"
    STDERR = "stderr"


class LogsRequest(Struct, frozen=True, kw_only=True):
    """Ask for what tasks have written: all that are kept of `services`, and `tasks`.

    `tail` is how many of each task's newest lines (absent: all that are kept), `since_ns` the wall
    time of the oldest. With `is_follow` the stream goes on with new lines, and with tasks that
    the services get meanwhile. `positions` are those of the last events seen, by task id: these
    tasks go on from there, whatever `tail` and `since_ns` say.
    """

    services: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()
    tail: int | None = None
    since_ns: int | None = None
    is_follow: bool = False
    positions: Pairs = ()


class LogLine(Struct, frozen=True, kw_only=True):
    """One line without its end. `time_ns` is when its node saw it, to a fraction of a second."""

    time_ns: int
    stream: LogStream
    text: bytes


class LogEvent(Struct, frozen=True, kw_only=True):
    """Some lines of one task, in the order they were written as far as that is known; or, in
    `problem`, why lines of a task (or of a node) can't be had. `position` is where they end: a
    stream that broke is taken up there. An event with nothing but a position is where lines
    begin. Without follow, events come in the order of their first lines' times."""

    task_id: TaskId | None = None
    task_name: str = ""
    node_name: str = ""
    lines: tuple[LogLine, ...] = ()
    problem: str = ""
    position: str = ""


class NetproxyProgress(Struct, frozen=True, kw_only=True):
    """How far one node's netproxy is, and what it can't put in force, as told to the manager it
    follows."""

    node_id: NodeId
    version: int
    is_connected: bool = True
    errors: tuple[str, ...] = ()


class ManagerReport(Struct, frozen=True, kw_only=True):
    """A follower's regular word to the leader: it lives, and so far are the netproxies on it.
    The netproxies are complete: one that is not listed does not follow this manager."""

    node_id: NodeId
    applied_version: int
    netproxies: tuple[NetproxyProgress, ...] = ()


class ManagerReportResponse(Struct, frozen=True, kw_only=True):
    """The leader's answer."""

    term: int
