"""The cluster, as its users' programs see it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from types import TracebackType

from skep.client.calls import Caller
from skep.client.errors import GivenUp, NotConverged, OutcomeUnknown, Unavailable
from skep.client.logs import logs
from skep.client.objects import Nodes, Services, Stacks, Tasks
from skep.client.seams import Seams
from skep.client.watch import watch
from skep.domain.base import TaskId
from skep.domain.control import (
    GetClusterRequest,
    GetClusterResponse,
    LogEvent,
    LogsRequest,
    ServiceView,
    WatchEvent,
)
from skep.env import Clock

# A call outlives an election and a dead manager or two; a person still waits for it.
DEADLINE_S = 30.0

# Short enough to look immediate, long enough to cost a manager nothing.
POLL_INTERVAL_S = 0.2

# Between an update and the tasks that it makes, the last ones' end may still be what there is to
# see; the managers need milliseconds for that, or a second where they change their leader.
GIVEN_UP_HOLD_S = 1.0

Progress = Callable[[tuple[ServiceView, ...]], None]


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
        caller stops iterating. `kinds` narrows to some of "node", "service", "task", "stack".

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
        refs: Sequence[str] | None = None,
        *,
        timeout_s: float,
        stack: str | None = None,
        progress: Progress | None = None,
    ) -> tuple[ServiceView, ...]:
        """Wait until these services (all of `stack`, all of the cluster) are as their specs say.

        `progress` is called with each new sight of them. Raises NotConverged, with what was seen
        last, after `timeout_s`; GivenUp, without more waiting, when the restart policy of one
        tries no more; NotFound when a service goes away meanwhile; Unavailable when no manager
        answered all the time.
        """
        clock = self._caller.clock
        ends = clock.now() + timeout_s
        views: tuple[ServiceView, ...] = ()
        lost_since: float | None = None
        while True:
            left_s = ends - clock.now()
            if left_s <= 0:
                raise NotConverged(_story(views, timeout_s), views)
            try:
                views = await self._sight(refs, stack, left_s)
            except (Unavailable, OutcomeUnknown):
                if not views:
                    raise
                continue
            if progress is not None:
                progress(views)
            if all(view.is_converged for view in views):
                return views
            if not any(map(has_given_up, views)):
                lost_since = None
            elif lost_since is None:
                lost_since = clock.now()
            elif clock.now() - lost_since >= GIVEN_UP_HOLD_S:
                raise GivenUp(_loss(views), views)
            await clock.sleep(min(POLL_INTERVAL_S, max(0.0, ends - clock.now())))

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

    async def _sight(
        self, refs: Sequence[str] | None, stack: str | None, deadline_s: float
    ) -> tuple[ServiceView, ...]:
        if refs is None:
            return await self.services.list(stack=stack, deadline_s=deadline_s)
        return tuple([await self.services.get(ref, deadline_s=deadline_s) for ref in refs])


def has_given_up(view: ServiceView) -> bool:
    """Whether a service is as far as its restart policy lets it come, but not as its spec says."""
    is_stuck = view.given_up > 0 and view.running + view.given_up >= view.desired
    return is_stuck and not view.is_converged and not view.service.is_removing


def _loss(views: tuple[ServiceView, ...]) -> str:
    rows = []
    for view in views:
        if has_given_up(view) and view.problems:
            problems = "; ".join(view.problems)
            rows.append(f"{view.service.name}: gave up after its last restart: {problems}")
        elif has_given_up(view):
            rows.append(
                f"{view.service.name}: ended, and its restart policy doesn't start it again"
            )
    return ", ".join(rows)


def _story(views: tuple[ServiceView, ...], timeout_s: float) -> str:
    rows = []
    for view in views:
        if not view.is_converged:
            problems = f" ({'; '.join(view.problems)})" if view.problems else ""
            rows.append(f"{view.service.name} {view.running}/{view.desired}{problems}")
    return f"not converged after {timeout_s:g} s: {', '.join(rows) or 'no service was seen'}"
