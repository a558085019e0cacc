"""The cluster, as its users' programs see it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from types import TracebackType

from skep.client import outcome
from skep.client.calls import Caller
from skep.client.errors import (
    ClientError,
    GivenUp,
    NotConverged,
    OutcomeUnknown,
    RolledBack,
    Superseded,
    Unavailable,
    UpdatePaused,
)
from skep.client.logs import logs
from skep.client.objects import Networks, Nodes, Services, Stacks, Tasks
from skep.client.seams import Seams
from skep.client.storage import Configs, Registries, Secrets, Volumes
from skep.client.watch import watch
from skep.domain.base import ServiceId, TaskId
from skep.domain.control import (
    GetClusterRequest,
    GetClusterResponse,
    LogEvent,
    LogsRequest,
    ServiceView,
    WatchEvent,
)
from skep.domain.objects import Task
from skep.env import Clock

# A call outlives an election and a dead manager or two; a person still waits for it.
DEADLINE_S = 30.0

# Short enough to look immediate, long enough to cost a manager nothing.
POLL_INTERVAL_S = 0.2

# Of many tasks that are left on a node, the first ones say enough.
TOLD_LIMIT = 5

Progress = Callable[[tuple[ServiceView, ...]], Awaitable[None] | None]
# Services, or services with the revision to wait for; None is whatever they have.
Refs = Sequence[str] | Mapping[str, int | None] | Mapping[ServiceId, int | None]


def connect(
    addresses: Sequence[str], *, deadline_s: float = DEADLINE_S, seams: Seams | None = None
) -> Cluster:
    """A client of the cluster whose managers' control APIs are at `addresses` ("host:port").

    Connecting never waits and never fails; the first call does. Any of the managers will do, and
    all of them are better: a call goes on to the next one when one doesn't answer. `deadline_s`
    bounds each call with all its retries. `seams` replaces gRPC and the real clock (an `Env`
    fits). Use it as `async with connect(...) as cluster:`. Raises ValueError for no address.
    """
    if seams is None:
        from skep.client.adapter_real import real_seams

        seams = real_seams()
    return Cluster(Caller(addresses, seams, deadline_s))


class Cluster:
    """All of the control API. Methods raise `ClientError` and what they say."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller
        self.nodes = Nodes(caller)
        self.services = Services(caller)
        self.tasks = Tasks(caller)
        self.stacks = Stacks(caller)
        self.networks = Networks(caller)
        self.configs = Configs(caller)
        self.secrets = Secrets(caller)
        self.registries = Registries(caller)
        self.volumes = Volumes(caller)

    async def __aenter__(self) -> Cluster:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Give the connections back; idempotent."""
        await self._caller.close()

    async def info(
        self, *, is_stale: bool = False, deadline_s: float | None = None
    ) -> GetClusterResponse:
        """The cluster's own row, its leader, term and last commit."""
        request = GetClusterRequest(is_stale=is_stale)
        return await self._caller.call(
            "GetCluster", request, GetClusterResponse, deadline_s=deadline_s
        )

    def watch(
        self, *, from_version: int | None = None, kinds: Sequence[str] = ()
    ) -> AsyncIterator[WatchEvent]:
        """Changes in commit order, each once, after `from_version` (None: from now), until the
        caller stops iterating. `kinds` narrows to some of "node", "service", "task", "stack",
        "network", "config", "secret".

        A broken stream is resumed at another manager where it ended. An event with `is_resync`
        says that changes were lost, since `from_version` is older than what the cluster keeps
        (10,000 changes): read everything again; the events that follow are newer than its version.
        An event without an object only says that all up to its version has been seen. Raises
        ClientError when no manager takes the stream within the client's deadline.
        """
        return watch(self._caller, from_version, tuple(kinds))

    def logs(
        self,
        services: Sequence[str] = (),
        tasks: Sequence[TaskId | str] = (),
        *,
        tail: int | None = None,
        since_ns: int | None = None,
        is_follow: bool = False,
    ) -> AsyncGenerator[LogEvent, None]:
        """What the tasks of `services` (ended ones that are kept, too) and `tasks` have written:
        of each the newest `tail` lines, of those the ones from wall time `since_ns` on.

        Without `is_follow` events come in the order of their first lines' times, and end; with
        it, they come as lines do, and go on with the tasks that the services get, until the caller
        stops iterating. A broken stream is taken up at another manager where it ended, without
        losing or repeating a line. What can't be had is an event with a `problem`. Raises
        NotFound, InvalidArgument, and Unavailable when no manager can read for as long as the
        client's deadline, or when too many others do.
        """
        request = LogsRequest(
            services=tuple(services),
            tasks=tuple(tasks),
            tail=tail,
            since_ns=since_ns,
            is_follow=is_follow,
        )
        return logs(self._caller, request)

    @property
    def clock(self) -> Clock:
        """The time that this client goes by."""
        return self._caller.clock

    async def wait_converged(
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
        called with each new sight, and awaited where it is a coroutine.

        Raises, each with the services as last seen: RolledBack when a rollback of such a spec is
        over; UpdatePaused; GivenUp when tasks failed and the restart policy tries no more;
        Superseded by a newer spec; NotConverged after `timeout_s`. Also NotFound when a service
        goes away meanwhile, and Unavailable when no manager answered all the time.
        """
        waiting = _Waiting(self, refs, stable_s)
        ends = self._caller.clock.now() + timeout_s
        while True:
            left_s = ends - self._caller.clock.now()
            if left_s <= 0:
                raise waiting.timed_out(timeout_s)
            try:
                views = await self._sight(None if refs is None else list(refs), stack, left_s)
            except (Unavailable, OutcomeUnknown):
                if not waiting.views:
                    raise
                continue
            if progress is not None and (told := progress(views)) is not None:
                await told
            if waiting.is_over(views):
                return views
            left_s = ends - self._caller.clock.now()
            await self._caller.clock.sleep(min(POLL_INTERVAL_S, max(0.0, left_s)))

    async def wait_removed(self, names: Sequence[str], *, timeout_s: float) -> None:
        """Wait until none of the services with these names or ids exist, nor their tasks. Raises
        NotConverged after `timeout_s`."""
        clock = self._caller.clock
        ends = clock.now() + timeout_s
        wanted = set(names)
        while True:
            left_s = ends - clock.now()
            views = await self.services.list(deadline_s=max(left_s, POLL_INTERVAL_S))
            held = tuple(v for v in views if {v.service.id, v.service.name} & wanted)
            if not held:
                return
            if left_s <= 0:
                names_left = ", ".join(view.service.name for view in held)
                raise NotConverged(f"not removed after {timeout_s:g} s: {names_left}", held)
            await clock.sleep(min(POLL_INTERVAL_S, left_s))

    async def wait_drained(
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
        clock = self._caller.clock
        ends = clock.now() + timeout_s
        names = {node.id: node.name for node in [await self.nodes.get(ref) for ref in refs]}
        while True:
            tasks = await self.tasks.list()
            if progress is not None:
                progress(tasks)
            left = [task for task in tasks if task.node_id in names]
            if not left:
                return
            left_s = ends - clock.now()
            if left_s <= 0:
                what = "; ".join(
                    f"{names[task.node_id]}: {replacement_text(task, tasks)}"
                    for task in left[:TOLD_LIMIT]
                    if task.node_id is not None
                )
                more = f" and {len(left) - TOLD_LIMIT} more" if len(left) > TOLD_LIMIT else ""
                raise NotConverged(f"not drained after {timeout_s:g} s: {what}{more}")
            await clock.sleep(min(POLL_INTERVAL_S, left_s))

    async def _sight(
        self, refs: Sequence[str] | None, stack: str | None, deadline_s: float
    ) -> tuple[ServiceView, ...]:
        if refs is None:
            return await self.services.list(stack=stack, deadline_s=deadline_s)
        return tuple([await self.services.get(ref, deadline_s=deadline_s) for ref in refs])


class _Waiting:
    """What one wait for convergence has seen."""

    def __init__(self, cluster: Cluster, refs: Refs | None, stable_s: float) -> None:
        self.views: tuple[ServiceView, ...] = ()
        self._cluster = cluster
        self._stable_s = stable_s
        self._whole_since: float | None = None
        self._broken: tuple[ServiceView, ...] = ()
        self._revisions: dict[str, int] = {}
        if isinstance(refs, Mapping):
            self._revisions = {str(ref): n for ref, n in refs.items() if n is not None}
        self._since: dict[tuple[str, type[ClientError]], float] = {}

    def is_over(self, views: tuple[ServiceView, ...]) -> bool:
        """Take one sight in: whether all is as asked. Raises how it ended otherwise."""
        self.views = views
        now = self._cluster.clock.now()
        ended: list[outcome.Verdict] = []
        held: dict[tuple[str, type[ClientError]], float] = {}
        goes_on, stable_s = False, self._stable_s
        for view in views:
            verdict = outcome.judge(view, self._asked(view))
            if verdict is None:
                goes_on = True
            elif verdict.kind is not None:
                key = (view.service.id, verdict.kind)
                held[key] = self._since.get(key, now)
                if now - held[key] >= verdict.hold_s:
                    ended.append(verdict)
                goes_on = True
            else:
                stable_s = max(stable_s, verdict.hold_s)
        self._since = held
        if ended:
            raise _error(ended, views)
        if goes_on:
            self._whole_since, self._broken = None, views
            return False
        if self._whole_since is None:
            self._whole_since = now
        # What has run to its end can't be watched for whether it goes on running.
        is_watched = any(view.running for view in views)
        return not is_watched or now - self._whole_since >= stable_s

    def timed_out(self, timeout_s: float) -> ClientError:
        """How to end a wait that took too long."""
        given_up = [
            view.service
            for view in self.views
            if outcome.is_rollback_of(view.service.update, self._asked(view))
        ]
        if given_up:
            what = ", ".join(map(outcome.rolled_back, given_up))
            return RolledBack(f"{what}; not done after {timeout_s:g} s", self.views)
        if self._whole_since is not None and not self._broken:
            names = ", ".join(view.service.name for view in self.views)
            what = f"not watched for {self._stable_s:g} s within {timeout_s:g} s"
            return NotConverged(f"{what}, though it runs: {names}", self.views)
        # What runs at the moment, but has to be started again and again, hasn't converged.
        return NotConverged(_story(self._broken or self.views, timeout_s), self.views)

    def _asked(self, view: ServiceView) -> int:
        service = view.service
        by_name = self._revisions.get(service.name, service.revision)
        return self._revisions.setdefault(service.id, by_name)


def _error(ended: Sequence[outcome.Verdict], views: tuple[ServiceView, ...]) -> ClientError:
    """The gravest of these ends, with the words of all."""
    words = ", ".join(verdict.message for verdict in ended)
    kinds = {verdict.kind for verdict in ended}
    for kind in (RolledBack, UpdatePaused, GivenUp):
        if kind in kinds:
            return kind(words, views)
    return Superseded(words, views)


def replacement_text(task: Task, tasks: Sequence[Task]) -> str:
    """What a task that has to leave its node waits for. `tasks` are all that have not ended."""
    if not task.is_wanted:
        return f"{task.name} is stopping"
    heirs = [
        other
        for other in tasks
        if (other.service_id, other.slot) == (task.service_id, task.slot)
        and other.id != task.id
        and other.node_id != task.node_id
        and other.is_wanted
    ]
    if not heirs:
        return f"{task.name} has no replacement yet"
    heir = max(heirs, key=lambda other: (other.created_ns, other.id))
    why = f": {heir.status.message}" if heir.node_id is None and heir.status.message else ""
    return f"{task.name} waits for its replacement ({heir.status.state.value}{why})"


def _story(views: tuple[ServiceView, ...], timeout_s: float) -> str:
    rows = []
    for view in views:
        if not view.is_converged:
            update = view.service.update
            under_way = [] if update is None or outcome.has_ended(update) else [update.message]
            words = "; ".join(filter(None, (*under_way, *view.problems)))
            why = f" ({words})" if words else ""
            rows.append(f"{view.service.name} {view.running}/{view.desired}{why}")
    return f"not converged after {timeout_s:g} s: {', '.join(rows) or 'no service was seen'}"
