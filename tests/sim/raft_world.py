"""A world of Raft nodes and nothing else: clients that write and read, and what must always hold.

The checkers know only what a store could see: who says it leads, what is applied, and what was
promised to callers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec

from skep.env import Env, Retryable
from skep.manager.raft.actor.journal import JournalFailed
from skep.manager.raft.actor.snapshots import SnapshotFailed
from skep.manager.raft.core.model import Leadership, Settings
from skep.manager.raft.node import RaftNode
from tests.sim.nemesis import Nemesis
from tests.sim.world import SimNode, Violation, World

CLUSTER = "simulated"
# Big and far apart, as real ones are.
RAFT_IDS = (7_000_000_000_000_000_001, 12, 3_000_000_000_000, 41, 5_000_000_000_000_000_003)
PROPOSE_DEADLINE_S = 3.0
HEALED_WITHIN_S = 60.0


class Ledger:
    """What nodes have applied and clients were told; raises Violation on a contradiction."""

    def __init__(self) -> None:
        self.leaders: dict[int, int] = {}
        self.history: dict[int, bytes] = {}
        self.acked: dict[bytes, int] = {}
        self.highest_acked = 0
        self.reads = 0
        self.unknown = 0

    def leadership(self, now: Leadership) -> None:
        """At most one leader per term."""
        if now.leader is not None:
            first = self.leaders.setdefault(now.term, now.leader)
            if first != now.leader:
                raise Violation(f"term {now.term} has the leaders {first} and {now.leader}")

    def applied(self, name: str, index: int, command: bytes) -> None:
        """All nodes apply the same at the same place."""
        first = self.history.setdefault(index, command)
        if first != command:
            raise Violation(f"{name} applies {command[:20]!r} at {index}, another {first[:20]!r}")

    def acknowledged(self, command: bytes, index: int) -> None:
        """A client was told that its command is applied at `index`."""
        if self.history.get(index) != command:
            raise Violation(f"{command[:20]!r} was acknowledged at {index}, where it isn't")
        self.acked[command] = index
        self.highest_acked = max(self.highest_acked, index)


class ListState:
    """A state machine that is the list of its commands."""

    def __init__(self, name: str, ledger: Ledger) -> None:
        self.entries: dict[int, bytes] = {}
        self.index = 0
        self._name = name
        self._ledger = ledger

    def apply(self, index: int, command: bytes) -> object:
        if index <= self.index:
            raise Violation(f"{self._name} applies {index} after {self.index}")
        self._ledger.applied(self._name, index, command)
        self.entries[index] = command
        self.index = index
        return index

    def snapshot(self) -> bytes:
        return msgspec.msgpack.encode((self.index, self.entries))

    def restore(self, index: int, data: bytes) -> None:
        held, self.entries = msgspec.msgpack.decode(data, type=tuple[int, dict[int, bytes]])
        if held < self.index or held > index:
            raise Violation(f"{self._name} goes from {self.index} to a snapshot of {held}")
        self.index = held


@dataclass
class Member:
    """One node of the cluster; `raft` and `state` are those of its present life."""

    name: str
    raft_id: int
    process: SimNode
    raft: RaftNode | None = None
    state: ListState | None = None
    snapshots: int = 0


@dataclass
class RaftCluster:
    """Raft nodes in a world, each with clients of its own."""

    world: World
    size: int
    settings: Settings
    ledger: Ledger = field(default_factory=Ledger)
    members: list[Member] = field(default_factory=list)
    are_clients_busy: bool = True

    def __post_init__(self) -> None:
        self._serial = 0
        for number, raft_id in enumerate(RAFT_IDS[: self.size], start=1):
            name = f"m{number}"
            process = self.world.node(name)
            member = Member(name, raft_id, process)
            process.main = lambda env, member=member: self._live(env, member)
            process.tolerated = (OSError, JournalFailed, SnapshotFailed)
            self.members.append(member)

    @property
    def processes(self) -> list[SimNode]:
        return [member.process for member in self.members]

    def addresses(self) -> Mapping[int, str]:
        return {member.raft_id: f"{member.name}:7000" for member in self.members}

    def boot(self) -> None:
        for member in self.members:
            member.process.boot()

    def leader(self) -> Member | None:
        for member in self.members:
            if member.process.is_up and member.raft is not None and member.raft.is_leader:
                return member
        return None

    async def _live(self, env: Env, member: Member) -> None:
        addresses = self.addresses()
        died: asyncio.Future[BaseException] = asyncio.Future()
        state = ListState(member.name, self.ledger)
        raft = RaftNode(
            env,
            env.transport,
            member.raft_id,
            {raft_id: at for raft_id, at in addresses.items() if raft_id != member.raft_id},
            state,
            cluster=CLUSTER,
            listen=addresses[member.raft_id],
            settings=self.settings,
            on_leadership=lambda now: self._led(member, now),
            on_fatal=died.set_result,
        )
        member.raft, member.state = None, state
        await raft.start()
        member.raft = raft
        for client in range(3):
            env.spawn(f"writer-{client}", self._write(env, raft))
        env.spawn("reader", self._read(env, raft))
        raise await died

    def _led(self, member: Member, now: Leadership) -> None:
        self.world.trace.note("raft", f"{member.name} {now.term} {now.leader} {now.is_leader}")
        self.ledger.leadership(now)

    async def _write(self, env: Env, raft: RaftNode) -> None:
        dice = env.fork_dice("writer")
        while True:
            await env.clock.sleep(dice.expovariate(1.0 / 0.15))
            if not self.are_clients_busy or not raft.is_leader:
                continue
            self._serial += 1
            size = dice.choice((0, 0, 10, 300))
            command = f"{env.node}:{self._serial}:".encode() + b"x" * size
            try:
                index = await raft.propose(command, term=raft.term, deadline_s=PROPOSE_DEADLINE_S)
            except Retryable:
                self.ledger.unknown += 1
                continue
            assert isinstance(index, int)
            self.ledger.acknowledged(command, index)
            self.world.trace.note("raft", f"{env.node} acked {index}")

    async def _read(self, env: Env, raft: RaftNode) -> None:
        dice = env.fork_dice("reader")
        while True:
            await env.clock.sleep(dice.expovariate(1.0 / 0.3))
            if not self.are_clients_busy or not raft.is_leader:
                continue
            acknowledged = self.ledger.highest_acked
            try:
                index = await raft.read_index(deadline_s=2.0)
            except Retryable:
                continue
            self.ledger.reads += 1
            if index < acknowledged or raft.applied_index < index:
                raise Violation(f"{env.node} reads at {index}, {acknowledged} was acknowledged")

    def check_invariants(self) -> None:
        """What must hold after every round of callbacks of the loop."""
        for member in self.members:
            if member.raft is not None and member.process.is_up:
                raft = member.raft
                if not raft.applied_index <= raft.commit_index:
                    raise Violation(f"{member.name} applied {raft.applied_index} uncommitted")

    async def heal_and_converge(self, nemesis: Nemesis) -> None:
        """Everything works again; then a write must go through and reach everybody."""
        nemesis.heal()
        self.are_clients_busy = False
        await self.world.eventually(
            "a leader", lambda: self.leader() is not None, within_s=HEALED_WITHIN_S
        )
        before = len(self.ledger.acked)
        self.are_clients_busy = True
        await self.world.eventually(
            "a write", lambda: len(self.ledger.acked) > before, within_s=HEALED_WITHIN_S
        )
        self.are_clients_busy = False
        await self.world.eventually("equal states", self._are_equal, within_s=HEALED_WITHIN_S)
        self._check_nothing_lost()

    def _are_equal(self) -> bool:
        states = [member.state for member in self.members if member.raft is not None]
        if len(states) < self.size:
            return False
        highest = max(self.ledger.history)
        return all(state is not None and state.index == highest for state in states)

    def _check_nothing_lost(self) -> None:
        for member in self.members:
            assert member.state is not None
            held = member.state.entries
            for command, index in self.ledger.acked.items():
                if held.get(index) != command:
                    raise Violation(f"{member.name} has lost {command[:20]!r}, acked at {index}")
            if held != member.state.entries:
                raise Violation(f"{member.name} differs")


SMALL = Settings(snapshot_entries=40, retained_entries=5, chunk_bytes=700)
"""Snapshots and their pieces often enough for a minute's test."""


async def storm(world: World, *, size: int = 3, settings: Settings = SMALL) -> None:
    """Half a minute of faults, then peace."""
    cluster = RaftCluster(world, size, settings)
    world.always(cluster.check_invariants)
    nemesis = Nemesis(world, cluster.processes)
    cluster.boot()
    await nemesis.run(for_s=30.0)
    await cluster.heal_and_converge(nemesis)
    ledger = cluster.ledger
    world.trace.note("end", f"acked={len(ledger.acked)} reads={ledger.reads}")


async def blackouts(world: World, *, size: int = 3, settings: Settings = SMALL) -> None:
    """The power of all nodes fails again and again, and their disks are not equally slow.

    The cruellest test of durability: what the majority had only in memory is gone at once, and the
    nodes that come back first are not those that held most.
    """
    cluster = RaftCluster(world, size, settings)
    world.always(cluster.check_invariants)
    nemesis = Nemesis(world, cluster.processes, only=frozenset())
    dice = world.dice("blackouts")
    cluster.boot()
    for _ in range(8):
        for process in cluster.processes:
            process.disk.temper.mean_sync_s = dice.choice((0.0005, 0.02, 0.3))
        await asyncio.sleep(dice.uniform(1.5, 4.0))
        for process in cluster.processes:
            world.trace.fault("power", process.name)
            process.crash(is_power_lost=True)
        for process in dice.sample(cluster.processes, size):
            await asyncio.sleep(dice.expovariate(1.0 / 0.7))
            process.boot()
    await cluster.heal_and_converge(nemesis)
    ledger = cluster.ledger
    world.trace.note("end", f"acked={len(ledger.acked)} reads={ledger.reads}")
