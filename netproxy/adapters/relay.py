"""The relay: a data plane in user space, for published ports. Needs no privileges.

The bytes are moved by worker processes (`skep.netproxy.relay`). This is what feeds them: it opens
the listening sockets and keeps them, tells every worker what has changed, and starts a new one for
one that has ended or doesn't answer. `apply` returns when every worker has confirmed, or is dead.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass

from skep.domain.address import Address, parse_address, show_address
from skep.domain.base import ClusterId, NodeId
from skep.env import Env
from skep.netproxy.adapters.listening import Listening
from skep.netproxy.adapters.workers import WorkerGone, WorkerProcess
from skep.netproxy.core.routes import Desired, Route
from skep.netproxy.dataplane import Observed
from skep.netproxy.relay.core.plan import Change, Plan
from skep.netproxy.relay.core.protocol import (
    UDP,
    Applied,
    Apply,
    Candidate,
    Drain,
    Key,
    Listener,
    Start,
)
from skep.netproxy.relay.core.totals import Totals

log = logging.getLogger(__name__)

# An answer takes a millisecond. A worker that needs longer serves nobody, and what it still does
# isn't known.
ANSWER_S = 2.0
# Python has to be started first, perhaps on a machine that is busy starting everything else.
START_S = 20.0
# Whether it still answers is also asked when nothing has changed. There is no hurry here, and
# nothing is lost by patience with a machine that stands still.
PROBE_PERIOD_S = 10.0
PROBE_S = 10.0
# A worker that has lived for a while is started anew at once; one that doesn't get that far is not
# tried a thousand times.
FIRST_PAUSE_S = 0.05
LONGEST_PAUSE_S = 5.0
LIVED_S = 10.0
DRAIN_POLL_S = 0.01
# Closing sockets by the ten thousand takes a moment.
EXIT_S = 2.0


@dataclass(frozen=True, slots=True)
class Place:
    """Where a relay stands. `connection_limit` is for each of its `workers`, both ways in
    together; each connection takes two files there. Counts are as old as `report_period_s`.
    Published ports are open on `ingress_host`, and on `ingress_host6` where it isn't empty."""

    cluster_id: ClusterId
    node_id: NodeId
    ingress_host: str
    mesh: Address
    connection_limit: int
    workers: int = 1
    report_period_s: float = 1.0
    ingress_host6: str = ""


class Relay:
    """See `skep.netproxy.dataplane.Dataplane`. Must be made on its loop."""

    def __init__(self, env: Env, place: Place) -> None:
        self._env = env
        self._place = place
        self._plan = Plan()
        self._listening = Listening(place.workers)
        self._workers: dict[int, WorkerProcess] = {}
        self._keepers: list[asyncio.Task[None]] = []
        self._known: dict[Key, tuple[Route, Listener]] = {}
        self._asked = 0
        self._version = 0
        self._is_closing = False
        self.totals = Totals()
        self.restarts = 0

    async def apply(self, desired: Desired) -> tuple[str, ...]:
        """See `Dataplane.apply`."""
        errors: list[str] = []
        listeners = self._wanted(desired, errors)
        return (*errors, *await self.serve(desired.version, listeners))

    async def serve(self, version: int, listeners: Sequence[Listener]) -> tuple[str, ...]:
        """Listen on just these; otherwise like `Dataplane.apply`."""
        if self._is_closing:
            return ()
        errors: list[str] = []
        change = self._plan.update(listeners)
        opened = self._listen(errors)
        for worker in self._workers.values():
            worker.send_listeners([(to, self._listening.of(worker.number, to)) for to in opened])
        if not self._keepers:
            for number in range(self._place.workers):
                self._has_started(number)
                self._keepers.append(self._env.spawn(f"relay-{number}", self._keep(number)))
        # All of it is on its way before anything is waited for.
        asked = [(worker, self._ask(worker, change)) for worker in self._workers.values()]
        missing = set(range(self._place.workers)) - self._workers.keys()
        errors += [f"relay worker {number} does not run" for number in sorted(missing)]
        answers = [self._env.spawn("apply", self._answer(*each)) for each in asked]
        if answers:
            await asyncio.wait(answers)
        for answer in answers:
            errors += answer.result()
        self._version = version
        self.totals.forget(frozenset(each.service_name for each in listeners))
        return tuple(errors)

    def observed(self) -> Observed:
        """See `Dataplane.observed`."""
        return Observed(
            version=self._version,
            listeners=tuple(sorted(map(_shown, self._listening.addresses))),
            connections=self.totals.connections,
        )

    def is_open(self, key: Key) -> bool:
        """Whether that address is listened on."""
        return key in self._listening.addresses

    @property
    def listener_count(self) -> int:
        """Open listeners; may be read from another thread."""
        return len(self._listening.addresses)

    @property
    def worker_count(self) -> int:
        """How many there should be."""
        return self._place.workers

    @property
    def worker_pids(self) -> tuple[int, ...]:
        """The processes that are running, for whoever looks at this node."""
        return tuple(worker.pid for worker in self._workers.values())

    async def close(self, drain_s: float) -> None:
        """See `Dataplane.close`."""
        if self._is_closing:
            return
        until = self._env.now() + drain_s
        self._is_closing = True
        for worker in self._workers.values():
            worker.send(Drain())
        asked = [(worker, self._ask(worker, Change())) for worker in self._workers.values()]
        for each in asked:
            await self._answer(*each)
        for address in self._listening.addresses:
            self._listening.close(address)
        while self.totals.connections and self._env.now() < until:
            await self._env.clock.sleep(DRAIN_POLL_S)
        for worker in self._workers.values():
            worker.leave()
        for number, keeper in enumerate(self._keepers):
            if number not in self._workers:
                keeper.cancel()  # It waits to start another.
        if self._keepers:
            await asyncio.wait(self._keepers)

    # --------------------------------------------------------------------------- what is wanted

    def _wanted(self, desired: Desired, errors: list[str]) -> list[Listener]:
        known, self._known = self._known, {}
        own = [host for host in (self._place.ingress_host, self._place.ingress_host6) if host]
        for route in desired.routes:
            for host in [route.host] if route.host else own:
                address = Key(host, route.published, route.protocol)
                if address.address == self._place.mesh:
                    errors.append(
                        f"{route.service_name}: port {route.published}: it is this node's mesh port"
                    )
                    continue
                before = known.get(address)
                is_same = before is not None and before[0] is route
                listener = before[1] if before and is_same else _listener(route, address)
                self._known[address] = (route, listener)
        return [listener for _, listener in self._known.values()]

    def _listen(self, errors: list[str]) -> list[Key]:
        """Open and close what differs from what is wanted; returns what was opened."""
        names = {Key(*self._place.mesh): "mesh"}
        mesh = Key(*self._place.mesh, UDP)
        has_datagrams = any(key.protocol == UDP for key in self._plan.listeners)
        if has_datagrams or mesh in self._listening.addresses:
            names[mesh] = "mesh"
        names |= {key: each.service_name for key, each in self._plan.listeners.items()}
        for address in self._listening.addresses:
            if address not in names:
                self._listening.close(address)
                log.info("listener=%s state=closed", _shown(address))
        opened = []
        for address in names.keys() - set(self._listening.addresses):
            try:
                self._listening.open(address)
            except OSError as error:
                errors.append(f"{names[address]}: port {address[1]}: {error.strerror or error}")
            else:
                opened.append(address)
                log.info("listener=%s state=open for=%s", _shown(address), names[address])
        return opened

    # ------------------------------------------------------------------------------ the workers

    def _has_started(self, number: int) -> bool:
        """Start a worker and tell it everything; returns whether that was possible."""
        try:
            worker = WorkerProcess(
                self._env, number, lambda report: self.totals.reported(number, report)
            )
        except OSError as error:
            log.error("relay_worker=%d state=not_started why=%r", number, str(error))
            return False
        self._workers[number] = worker
        place = Start(
            cluster_id=self._place.cluster_id,
            task_source=self._place.ingress_host,
            mesh=self._place.mesh,
            connection_limit=self._place.connection_limit,
            report_period_s=self._place.report_period_s,
        )
        worker.send(place)
        worker.send_listeners(
            [(to, self._listening.of(number, to)) for to in self._listening.addresses]
        )
        self._ask(worker, self._plan.whole())
        log.info("relay_worker=%d state=started pid=%d", number, worker.pid)
        return True

    def _ask(self, worker: WorkerProcess, change: Change) -> asyncio.Future[Applied]:
        self._asked += 1
        return worker.ask(Apply(number=self._asked, changed=change.changed, removed=change.removed))

    async def _answer(
        self, worker: WorkerProcess, asked: asyncio.Future[Applied]
    ) -> tuple[str, ...]:
        """Wait for it; a worker that doesn't answer is ended. Returns errors, for a person."""
        within_s = ANSWER_S if worker.has_answered else START_S
        try:
            return (await worker.answered(asked, within_s)).errors
        except WorkerGone:
            why = "has ended"
        except TimeoutError:
            why = f"gave no answer in {within_s:g} s"
        worker.kill()
        await worker.ended()
        return (f"relay worker {worker.number} {why}, and is started anew",)

    async def _keep(self, number: int) -> None:
        """Have a worker of this number run."""
        pause_s = FIRST_PAUSE_S
        while not self._is_closing:
            if number not in self._workers and not self._has_started(number):
                await self._env.clock.sleep(LONGEST_PAUSE_S)
                continue
            worker, began_at = self._workers[number], self._env.now()
            status = await self._watch(worker)
            del self._workers[number]
            self.totals.lost(number)
            if self._is_closing:
                return
            has_lived = self._env.now() - began_at > LIVED_S
            pause_s = FIRST_PAUSE_S if has_lived else min(2 * pause_s, LONGEST_PAUSE_S)
            self.restarts += 1
            log.error(
                "relay_worker=%d state=ended status=%d again_in_s=%g", number, status, pause_s
            )
            await self._env.clock.sleep(pause_s)

    async def _watch(self, worker: WorkerProcess) -> int:
        """Until it has ended; ends it when it stops answering. Returns its exit status."""
        while not await worker.is_gone(PROBE_PERIOD_S):
            try:
                await worker.answered(self._ask(worker, Change()), PROBE_S)
            except WorkerGone:
                pass
            except TimeoutError:
                log.error("relay_worker=%d state=killed why='no answer'", worker.number)
                worker.kill()
        if self._is_closing:
            await worker.end_within(EXIT_S)
        return await worker.ended()


def _shown(key: Key) -> str:
    return show_address(key.address) + ("/udp" if key.protocol == UDP else "")


def _listener(route: Route, address: Key) -> Listener:
    return Listener(
        host=address.host,
        port=address.port,
        protocol=address.protocol,
        service_id=route.service_id,
        service_name=route.service_name,
        target=route.target,
        balance=route.balance,
        sends_proxy=route.sends_proxy,
        accepts_proxy=route.accepts_proxy,
        candidates=tuple(
            Candidate(
                task_id=each.task_id,
                address=each.address,
                mesh_address=None
                if each.mesh_address is None
                else parse_address(each.mesh_address),
            )
            for each in route.candidates
        ),
    )
