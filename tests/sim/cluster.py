"""The whole cluster in one world: managers, agents, netproxies, an operator, and a nemesis.

What runs is the real thing, down to the frames on the wire and the bytes on the disks; only the
world under it is simulated: network, disks, processes and what moves packets.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Generator
from contextlib import contextmanager

from skep.domain.base import NodeId
from skep.domain.session import Assignment
from skep.env import Env, Retryable
from skep.manager.dispatcher.core.nodes import ManagerRow
from skep.manager.node import Addresses, ManagerNode
from skep.manager.office import ManagerConfig
from skep.manager.raft.actor.journal import JournalFailed
from skep.manager.raft.actor.snapshots import SnapshotFailed
from skep.manager.raft.core.model import Settings
from skep.manager.store.actor import OutcomeUnknown
from skep.manager.store.core.command import Change
from tests.sim.engine import EngineTemper
from tests.sim.judge import Judge
from tests.sim.machine import BLOCK, CLUSTER, Worker, first_of, is_troubled
from tests.sim.nemesis import Nemesis, boot
from tests.sim.operator import Operator
from tests.sim.plane import PlaneTemper
from tests.sim.world import World

MANAGERS = 3
WORKERS = 5
# What an actor or a process may die of in a world whose disks and leaders fail.
TOLERATED = (OSError, Retryable, OutcomeUnknown, JournalFailed, SnapshotFailed)
ROUNDS_BETWEEN_LOOKS = 8
# Whether networks lead astray is looked at so often, and whenever a version was acknowledged or a
# task is asked to end.
LOOK_S = 0.25
# Snapshots, and managers that need one, within a minute.
SETTINGS = Settings(snapshot_entries=60, retained_entries=10, chunk_bytes=4096)


class SimCluster:
    """See the module. `nodes` of managers are those of their present lives."""

    def __init__(
        self, world: World, settings: Settings = SETTINGS, *, is_calm: bool = False
    ) -> None:
        self.world = world
        self.judge = Judge(world, is_calm=is_calm)
        self.managers: dict[str, ManagerNode] = {}
        self.workers: list[Worker] = []
        self.signals_in_use: list[str] = []
        self.doubles: list[str] = []
        self._settings = settings
        self._names = [f"m{number}" for number in range(1, MANAGERS + 1)]
        self.processes = [world.node(name, self._manager) for name in self._names]
        for number in range(1, WORKERS + 1):
            worker = Worker(
                world, f"w{number}", self.control_addresses, self._started, self._signalled
            )
            self.workers.append(worker)
        for worker in self.workers:
            self.processes += [worker.agent, worker.proxy]
        for process in self.processes:
            process.tolerated = TOLERATED
        self._rounds = 0
        self._looked_at = 0.0
        self._acknowledged: list[int] = []
        world.always(self._check_leaders)
        world.always(self._check_networks)

    @property
    def control_addresses(self) -> list[str]:
        """Where the managers answer."""
        return [f"{name}:7100" for name in self._names]

    def boot(self) -> None:
        """Start every process."""
        for process in self.processes:
            process.boot()

    def leader(self) -> ManagerNode | None:
        """The manager that leads, of those that are up."""
        leading = [node for node in self.up_managers() if node.office.is_leader]
        return max(leading, key=lambda node: node.office.term, default=None)

    def up_managers(self) -> list[ManagerNode]:
        """Managers whose process lives and has started."""
        return [node for name, node in self.managers.items() if self.world.nodes[name].is_up]

    # ---------------------------------------------------------------------------- processes

    async def _manager(self, env: Env) -> None:
        died: asyncio.Future[BaseException] = asyncio.Future()
        rows = {
            place: ManagerRow(NodeId(name), name, f"{name}:7100")
            for place, name in enumerate(self._names, start=1)
        }
        me = self._names.index(env.node) + 1
        raft = {place: f"{name}:7000" for place, name in enumerate(self._names, start=1)}
        node = ManagerNode(
            env,
            env.transport,
            ManagerConfig(CLUSTER, NodeId(env.node), BLOCK, me, rows),
            Addresses(f"{env.node}:7100", raft.pop(me), raft),
            settings=self._settings,
            on_fatal=first_of(died),
        )
        self._watch(env.node, node)
        await node.start()
        self.managers[env.node] = node
        raise await died

    def _watch(self, name: str, node: ManagerNode) -> None:
        """Let the judge see each command, before and after it is applied."""
        store, judge = node.store, self.judge
        apply, seen = store.apply, list[Change]()
        store.subscribe(seen.extend)

        def judged(index: int, command: bytes) -> object:
            judge.applying(name, index, command)
            seen.clear()
            result = apply(index, command)
            judge.applied(name, index, seen, store.tables)
            return result

        def noted(command: bytes, *, term: int, deadline_s: float) -> Awaitable[object]:
            judge.proposing(command, term)
            return propose(command, term=term, deadline_s=deadline_s)

        propose = node.raft.propose
        # It is these instances' own methods that are replaced.
        setattr(store, "apply", judged)  # noqa: B010
        setattr(node.raft, "propose", noted)  # noqa: B010

    # ------------------------------------------------------------------------------- checks

    def _check_leaders(self) -> None:
        self._rounds += 1
        if self._rounds % ROUNDS_BETWEEN_LOOKS:
            return
        for node in self.up_managers():
            if node.office.is_leader:
                self.judge.leads(node.office.config.node_id, node.office.term)

    def _check_networks(self) -> None:
        now = self.world.now()
        acknowledged = self._acknowledged
        if self._rounds % ROUNDS_BETWEEN_LOOKS == 0:
            acknowledged = [worker.progress.applied_version for worker in self.workers]
        if now - self._looked_at < LOOK_S and acknowledged == self._acknowledged:
            return
        self._looked_at, self._acknowledged = now, acknowledged
        managers = self.processes[:MANAGERS]
        for worker in self.workers:
            if is_troubled(self.world, worker, managers):
                worker.quiet_since = now
        self.judge.reach.look([worker.sight() for worker in self.workers], now)

    def _started(self, worker: Worker, assignment: Assignment) -> None:
        """A process begins: is there another one of its slot that was to end before?"""
        task = assignment.task
        self.judge.started(NodeId(worker.name), task.id)
        slot = (task.service_id, task.slot)
        for other in self.workers:
            for running in other.host.assignments():
                is_same = (running.task.service_id, running.task.slot) == slot
                # A task that is to be removed holds its slot no longer.
                if (
                    is_same
                    and not self.judge.is_removed(running.task.id)
                    and self.judge.updates.was_unwanted_before(running.task.id, task.id)
                ):
                    self.doubles.append(f"{self.world.now():.3f} {task.name} {running.task.id}")

    def _signalled(self, worker: Worker, assignment: Assignment) -> None:
        """A task is asked to end: which netproxies could still send it a connection?"""
        core = worker.view.core if worker.view is not None else None
        machine = core.task(assignment.task.id) if core is not None else None
        is_unwanted = machine is not None and machine.is_unwanted
        self.judge.signalled(NodeId(worker.name), assignment.task.id, is_unwanted=is_unwanted)
        if not is_unwanted:
            return  # It is ill; its own worker ends it, at once.
        sights = [other.sight() for other in self.workers if other.proxy.is_up]
        now, task = self.world.now(), assignment.task
        self.judge.reach.look(sights, now)
        for sight in sights:
            if ways := self.judge.reach.ways_to(task, sight):
                story = f"{now:.3f} {task.id} on {worker.name}: {sight.name} by {', '.join(ways)}"
                self.signals_in_use.append(story)


async def run_operator(cluster: SimCluster, until: float) -> Operator:
    """Start somebody who uses the cluster, on a machine of their own."""
    operator = Operator(
        cluster.world, cluster.control_addresses, [worker.name for worker in cluster.workers]
    )
    env = cluster.world.node("operator").boot()
    env.spawn("operator", operator.run(env, until))
    return operator


def make_nemesis(cluster: SimCluster) -> Nemesis:
    """All that can go wrong in a world, and what only tasks and data planes do."""
    world, dice = cluster.world, cluster.world.dice("trouble")

    def tasks() -> None:
        host = dice.choice(cluster.workers).host
        host.turn_bad(
            EngineTemper(
                prepare_error=dice.choice((0.0, 0.3)),
                start_error=dice.choice((0.0, 0.3)),
                hang=dice.choice((0.0, 0.2)),
                mean_call_s=dice.choice((0.02, 0.5)),
                crash_rate=dice.choice((0.0, 0.1, 0.5)),
                ignores_signal=dice.choice((0.0, 0.5)),
                sick=dice.choice((0.0, 0.3)),
            )
        )
        nemesis.note("bad_tasks", host.machine)
        nemesis.later(dice.uniform(2.0, 20.0), lambda: setattr(host, "temper", EngineTemper()))

    def planes() -> None:
        temper = dice.choice(cluster.workers).plane_temper
        temper.mean_apply_s, temper.error = dice.choice((0.005, 1.0)), dice.choice((0.0, 0.5))
        nemesis.note("bad_plane", f"{temper}")
        nemesis.later(dice.uniform(2.0, 20.0), lambda: calm_plane(temper))

    def leaders() -> None:
        leader = cluster.leader()
        if leader is None:
            return
        process = world.nodes[leader.office.config.node_id]
        nemesis.note("leader", process.name)
        down_s = dice.uniform(0.2, 8.0)
        match dice.randrange(3):
            case 0:
                process.crash(is_power_lost=dice.random() < 0.5)
                nemesis.later(down_s, lambda: boot(process))
            case 1:
                process.pause()
                nemesis.later(down_s, process.resume)
            case _:
                nemesis.isolate(process.machine)

    # Managers are few; what happens to them matters most.
    victims = cluster.processes + cluster.processes[:MANAGERS] * 3
    extra = {"tasks": tasks, "planes": planes, "leaders": leaders}
    nemesis = Nemesis(world, victims, extra=extra)
    return nemesis


def calm_plane(temper: PlaneTemper) -> None:
    """A data plane that works."""
    temper.mean_apply_s, temper.error = 0.005, 0.0


@contextmanager
def errors_are_problems(world: World) -> Generator[None]:
    """Whatever is logged as an error, and isn't the world's fault, is a problem."""
    logger = logging.getLogger("skep")
    listener = _Listener(world)
    before = logger.propagate, logger.level
    logger.addHandler(listener)
    logger.propagate = False
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.removeHandler(listener)
        logger.propagate, logger.level = before[0], before[1]


class _Listener(logging.Handler):
    def __init__(self, world: World) -> None:
        super().__init__(logging.ERROR)
        self._world = world

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        self._world.trace.note("log", record.getMessage())
        if error is not None and not isinstance(error, TOLERATED):
            self._world.problem(f"{record.getMessage()}: {error!r}")
