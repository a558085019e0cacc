"""The SDK for programs without an event loop: the same calls, blocking.

    with skep.client.sync.connect(["127.32.0.1:7410"]) as cluster:
        service = cluster.services.create(spec)
        cluster.wait_converged([service.id], timeout_s=60)
        for event in cluster.watch():
            ...

Names, arguments, results and errors are those of `skep.client`. A connection may be used from any
number of threads at once, also from those of a program that runs an event loop, but not across
a fork. It is one background thread, which ends with `close`, or with the program. Ctrl-C
interrupts a call that waits, and cancels it. What a call is given to call back (`edit`,
`progress`) is called in the caller's thread. Iterators are generators: leaving the `for` loop
closes their stream. A closed connection, and one used across a fork, raises RuntimeError.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from types import TracebackType

from skep.client import cluster as a
from skep.client import execution as e
from skep.client import objects as o
from skep.client.adapter_thread import LoopThread
from skep.client.cluster import DEADLINE_S, Refs
from skep.client.errors import Conflict
from skep.client.execution import ExecResult
from skep.client.objects import CHANGE_ATTEMPTS
from skep.client.outcome import is_paused
from skep.client.seams import Seams
from skep.client.syncparts import Configs, Networks, Registries, Secrets, Stacks, Volumes
from skep.domain.base import TaskId, replace
from skep.domain.control import (
    GetClusterResponse,
    ListNodesResponse,
    ListServicesResponse,
    LogEvent,
    RemoveResponse,
    ServiceView,
    WatchEvent,
)
from skep.domain.execution import ExecOutput, ExecSpec
from skep.domain.objects import Availability, Node, Revision, Service, Task
from skep.domain.spec import ServiceSpec

Progress = Callable[[tuple[ServiceView, ...]], None]


def connect(
    addresses: Sequence[str], *, deadline_s: float = DEADLINE_S, seams: Seams | None = None
) -> Cluster:
    """A client of the cluster whose managers' control APIs are at `addresses` ("host:port").

    Connecting never waits and never fails; the first call does. Any of the managers will do, and
    all of them are better: a call goes on to the next one when one doesn't answer. `deadline_s`
    bounds each call with all its retries. `seams` replaces gRPC and the real clock (an `Env`
    fits). Use it as `with connect(...) as cluster:`. Raises ValueError for no address.
    """
    inner = a.connect(addresses, deadline_s=deadline_s, seams=seams)
    return Cluster(inner, LoopThread(inner.close))


class Nodes:
    """Machines of the cluster."""

    def __init__(self, inner: o.Nodes, loop: LoopThread) -> None:
        self._inner = inner
        self._loop = loop

    def get(self, ref: str, *, is_stale: bool = False) -> Node:
        """One node. Raises NotFound."""
        return self._loop.run(self._inner.get(ref, is_stale=is_stale))

    def list(self, *, is_stale: bool = False) -> tuple[Node, ...]:
        """All nodes, by name."""
        return self._loop.run(self._inner.list(is_stale=is_stale))

    def snapshot(
        self, *, is_stale: bool = False, deadline_s: float | None = None
    ) -> ListNodesResponse:
        """All nodes with the leader's id and the version they were read at."""
        return self._loop.run(self._inner.snapshot(is_stale=is_stale, deadline_s=deadline_s))

    def update(
        self,
        ref: str,
        *,
        availability: Availability | None = None,
        labels_set: Mapping[str, str] | None = None,
        labels_removed: tuple[str, ...] = (),
        version: int | None = None,
    ) -> Node:
        """Change what the operator sets; what is absent stays. With the `version` that was read,
        raises Conflict if the node was changed since. Raises NotFound, Refused."""
        return self._loop.run(
            self._inner.update(
                ref,
                availability=availability,
                labels_set=labels_set,
                labels_removed=labels_removed,
                version=version,
            )
        )

    def remove(self, ref: str) -> RemoveResponse:
        """Forget a node that is down. Raises NotFound, Refused."""
        return self._loop.run(self._inner.remove(ref))


class Services:
    """Specs that the cluster keeps true."""

    def __init__(self, inner: o.Services, loop: LoopThread) -> None:
        self._inner = inner
        self._loop = loop

    def get(
        self, ref: str, *, is_stale: bool = False, deadline_s: float | None = None
    ) -> ServiceView:
        """One service and how far it is. Raises NotFound."""
        return self._loop.run(self._inner.get(ref, is_stale=is_stale, deadline_s=deadline_s))

    def list(
        self, *, stack: str | None = None, is_stale: bool = False, deadline_s: float | None = None
    ) -> tuple[ServiceView, ...]:
        """Services by name, all or those of one stack."""
        return self._loop.run(
            self._inner.list(stack=stack, is_stale=is_stale, deadline_s=deadline_s)
        )

    def snapshot(self, *, stack: str | None = None, is_stale: bool = False) -> ListServicesResponse:
        """Services with the version they were read at, for a watch that begins there."""
        return self._loop.run(self._inner.snapshot(stack=stack, is_stale=is_stale))

    def create(self, spec: ServiceSpec) -> Service:
        """A new service. Raises InvalidArgument, AlreadyExists (name or published port)."""
        return self._loop.run(self._inner.create(spec))

    def update(self, ref: str, spec: ServiceSpec, *, version: int | None = None) -> Service:
        """Replace the spec, whose name must stay. With the `version` that was read, raises
        Conflict if the service was changed since. Raises NotFound, InvalidArgument."""
        return self._loop.run(self._inner.update(ref, spec, version=version))

    def change(self, ref: str, edit: Callable[[ServiceSpec], ServiceSpec]) -> Service:
        """Read, `edit` and write back; again from the start when somebody else was faster. An
        edit that changes nothing writes nothing, but for a service whose update is paused, which
        goes on by that. Raises NotFound, InvalidArgument, and Conflict if others were faster every
        time."""
        # Again, and not by way of the other client, since `edit` is to run in this thread.
        for attempt in range(1, CHANGE_ATTEMPTS + 1):
            service = self.get(ref).service
            spec = edit(service.spec)
            if spec == service.spec and not is_paused(service):
                return service
            try:
                return self.update(service.id, spec, version=service.version)
            except Conflict:
                if attempt == CHANGE_ATTEMPTS:
                    raise
        raise AssertionError("the loop returns or raises")

    def scale(self, ref: str, replicas: int) -> Service:
        """Set the number of replicas; running tasks stay. Raises as `change`."""
        return self.change(ref, lambda spec: replace(spec, replicas=replicas))

    def rollback(
        self, ref: str, *, revision: int | None = None, version: int | None = None
    ) -> Service:
        """Give it the spec of an earlier revision; without one, that before its last update.
        Watched as closely as an update. Raises NotFound, Refused when there is none to go back
        to, and Conflict if the service was changed since `version`."""
        return self._loop.run(self._inner.rollback(ref, revision=revision, version=version))

    def history(self, ref: str, *, is_stale: bool = False) -> tuple[Revision, ...]:
        """The specs it has had, the newest first, as far as they are kept. Raises NotFound."""
        return self._loop.run(self._inner.history(ref, is_stale=is_stale))

    def remove(self, ref: str) -> RemoveResponse:
        """Mark the service for removal: its tasks are stopped, then it goes. Raises NotFound."""
        return self._loop.run(self._inner.remove(ref))


class Execution:
    """A program that runs inside a task. It is killed when this is closed before its end."""

    def __init__(self, inner: e.Execution, loop: LoopThread) -> None:
        self._inner = inner
        self._loop = loop

    @property
    def exit_code(self) -> int | None:
        """How it ended; None before its end was received."""
        return self._inner.exit_code

    def send(self, data: bytes) -> None:
        """More input. Raises OutcomeUnknown when the connection is lost."""
        self._loop.run(self._inner.send(data))

    def end_input(self) -> None:
        """There is no more input."""
        self._loop.run(self._inner.end_input())

    def resize(self, rows: int, columns: int) -> None:
        """Its terminal has this size now, in characters."""
        self._loop.run(self._inner.resize(rows, columns))

    def receive(self) -> ExecOutput | None:
        """Some of its output; None after its end, when `exit_code` is known. Raises Refused for a
        program that could not be started, and OutcomeUnknown when the connection is lost."""
        return self._loop.run(self._inner.receive())

    def close(self) -> None:
        """Let go of it; idempotent."""
        self._loop.run(self._inner.close())


class Tasks:
    """Attempts to run one slot of a service."""

    def __init__(self, inner: o.Tasks, loop: LoopThread) -> None:
        self._inner = inner
        self._loop = loop

    def get(self, ref: str, *, is_stale: bool = False) -> Task:
        """One task. Raises NotFound."""
        return self._loop.run(self._inner.get(ref, is_stale=is_stale))

    def list(
        self,
        *,
        service: str | None = None,
        node: str | None = None,
        stack: str | None = None,
        is_all: bool = False,
        is_stale: bool = False,
    ) -> tuple[Task, ...]:
        """Tasks by service name, slot and newest first; ended ones only with `is_all`. Raises
        NotFound for an unknown service, node or stack."""
        return self._loop.run(
            self._inner.list(
                service=service, node=node, stack=stack, is_all=is_all, is_stale=is_stale
            )
        )

    def remove(self, ref: str) -> RemoveResponse:
        """Stop one task; its service gets another one in its place. Raises NotFound."""
        return self._loop.run(self._inner.remove(ref))

    def start_exec(self, ref: str, spec: ExecSpec) -> Execution:
        """Run a program inside a running task, wherever that is, and speak to it. Close it at the
        end. Raises NotFound, Refused (the task doesn't run, the program can't be started),
        Unavailable when nothing was done."""
        return Execution(self._loop.run(self._inner.start_exec(ref, spec)), self._loop)

    def exec(self, ref: str, spec: ExecSpec) -> ExecResult:
        """Run a program inside a running task, without input, and wait for its end. Raises as
        `start_exec`, and OutcomeUnknown when the connection is lost."""
        return self._loop.run(self._inner.exec(ref, spec))


class Cluster:
    """All of the control API. Methods raise `ClientError` and what they say."""

    def __init__(self, inner: a.Cluster, loop: LoopThread) -> None:
        self._inner = inner
        self._loop = loop
        self.nodes = Nodes(inner.nodes, loop)
        self.services = Services(inner.services, loop)
        self.tasks = Tasks(inner.tasks, loop)
        self.stacks = Stacks(inner.stacks, loop)
        self.networks = Networks(inner.networks, loop)
        self.configs = Configs(inner.configs, loop)
        self.secrets = Secrets(inner.secrets, loop)
        self.registries = Registries(inner.registries, loop)
        self.volumes = Volumes(inner.volumes, loop)

    def __enter__(self) -> Cluster:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give the connections back; idempotent."""
        self._loop.close()

    def info(
        self, *, is_stale: bool = False, deadline_s: float | None = None
    ) -> GetClusterResponse:
        """The cluster's own row, its leader, term and last commit."""
        return self._loop.run(self._inner.info(is_stale=is_stale, deadline_s=deadline_s))

    def watch(
        self, *, from_version: int | None = None, kinds: Sequence[str] = ()
    ) -> Generator[WatchEvent, None, None]:
        """Changes in commit order, each once, after `from_version` (None: from now), until the
        caller stops iterating. `kinds` narrows to some of "node", "service", "task", "stack",
        "network", "config", "secret".

        A broken stream is resumed at another manager where it ended. An event with `is_resync`
        says that changes were lost, since `from_version` is older than what the cluster keeps
        (10,000 changes): read everything again; the events that follow are newer than its version.
        An event without an object only says that all up to its version has been seen. Raises
        ClientError when no manager takes the stream within the client's deadline.
        """
        return self._loop.iterate(self._inner.watch(from_version=from_version, kinds=kinds))

    def logs(
        self,
        services: Sequence[str] = (),
        tasks: Sequence[TaskId | str] = (),
        *,
        tail: int | None = None,
        since_ns: int | None = None,
        is_follow: bool = False,
    ) -> Generator[LogEvent, None, None]:
        """What the tasks of `services` (ended ones that are kept, too) and `tasks` have written:
        of each the newest `tail` lines, of those the ones from wall time `since_ns` on.

        Without `is_follow` events come in the order of their first lines' times, and end; with
        it, they come as lines do, and go on with the tasks that the services get, until the caller
        stops iterating. A broken stream is taken up at another manager where it ended, without
        losing or repeating a line. What can't be had is an event with a `problem`. Raises
        NotFound, InvalidArgument, and Unavailable when no manager can read for as long as the
        client's deadline, or when too many others do.
        """
        return self._loop.iterate(
            self._inner.logs(services, tasks, tail=tail, since_ns=since_ns, is_follow=is_follow)
        )

    def wait_converged(
        self,
        refs: Refs | None = None,
        *,
        timeout_s: float,
        stack: str | None = None,
        stable_s: float = 0.0,
        progress: Progress | None = None,
    ) -> tuple[ServiceView, ...]:
        """Wait until these services (all of `stack`, all of the cluster) are as their specs say,
        or have completed, where the restart policy lets them; and stay so for `stable_s`.

        `refs` may map each to the revision to wait for, `Service.revision` of what a write
        returned: `{service.id: service.revision}`. Without one, what the service has when it is
        first seen is meant. An update is waited for to its end, with its monitor. `progress` is
        called with each new sight.

        Raises, each with the services as last seen: RolledBack when a rollback of such a spec is
        over; UpdatePaused; GivenUp when tasks failed and the restart policy tries no more;
        Superseded by a newer spec; NotConverged after `timeout_s`. Also NotFound when a service
        goes away meanwhile, and Unavailable when no manager answered all the time.
        """
        return self._loop.run_telling(
            lambda tell: self._inner.wait_converged(
                refs, timeout_s=timeout_s, stack=stack, stable_s=stable_s, progress=tell
            ),
            progress,
        )

    def wait_removed(self, names: Sequence[str], *, timeout_s: float) -> None:
        """Wait until none of the services with these names or ids exist, nor their tasks. Raises
        NotConverged after `timeout_s`."""
        self._loop.run(self._inner.wait_removed(names, timeout_s=timeout_s))

    def wait_drained(
        self,
        refs: Sequence[str],
        *,
        timeout_s: float,
        progress: Callable[[tuple[Task, ...]], None] | None = None,
    ) -> None:
        """Wait until nothing is to run on these nodes, and nothing of what ran there is left.

        `progress` is called with all tasks of the cluster that have not ended. Raises NotConverged,
        which names the tasks that are left, after `timeout_s`, and NotFound.
        """
        self._loop.run_telling(
            lambda tell: self._inner.wait_drained(refs, timeout_s=timeout_s, progress=tell),
            progress,
        )
