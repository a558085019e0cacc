"""Raft under simulation: promises under faults, and that each safeguard is needed."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from skep.env import Rejected
from skep.manager.raft.actor import barrier
from skep.manager.raft.actor import journal as journal_module
from skep.manager.raft.actor.journal import Journal
from skep.manager.raft.core import guard, records
from skep.manager.raft.core.model import NotLeader, ProposalsFull, ProposalUnknown, Settings
from skep.manager.raft.core.readindex import ReadIndex
from skep.manager.raft.node import RaftNode
from tests.sim.nemesis import Nemesis
from tests.sim.raft_world import SMALL, Member, RaftCluster, blackouts, storm
from tests.sim.world import Scenario, SeedFailed, World, simulate

pytestmark = pytest.mark.sim
ROOT = Path(__file__).parent.parent.parent


async def five_in_a_storm(world: World) -> None:
    await storm(world, size=5)


@pytest.mark.parametrize("seed", range(12))
def test_nothing_that_was_acknowledged_is_lost_in_a_storm(seed: int) -> None:
    simulate("raft", storm, seed)


@pytest.mark.parametrize("seed", range(3))
def test_five_nodes_in_a_storm(seed: int) -> None:
    simulate("raft-five", five_in_a_storm, seed)


@pytest.mark.parametrize("seed", range(3))
def test_nothing_is_lost_when_all_power_fails_again_and_again(seed: int) -> None:
    simulate("raft-blackouts", blackouts, seed)


# ---------------------------------------------------------------------------------- determinism


def test_a_seed_is_the_same_life_twice() -> None:
    assert simulate("raft", storm, 5).digest == simulate("raft", storm, 5).digest


def test_no_order_depends_on_the_hash_seed() -> None:
    code = (
        "from tests.sim.raft_world import storm\n"
        "from tests.sim.world import simulate\n"
        "print(simulate('raft', storm, 7).digest)\n"
    )
    digests = {
        subprocess.run(
            [sys.executable, "-c", code],
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for hash_seed in ("1", "2")
    }
    assert len(digests) == 1


# ------------------------------------------------------------------------------------ ablations


def found_by(name: str, scenario: Scenario, seeds: Iterable[int]) -> bool:
    """Whether one of these seeds notices; the first is one that is known to."""
    for seed in seeds:
        try:
            simulate(name, scenario, seed)
        except SeedFailed:
            return True
    return False


def only(*families: str) -> Scenario:
    async def scenario(world: World) -> None:
        cluster = RaftCluster(world, 3, SMALL)
        nemesis = Nemesis(world, cluster.processes, only=frozenset(families))
        cluster.boot()
        await nemesis.run(for_s=30.0)
        await cluster.heal_and_converge(nemesis)

    return scenario


def test_ablation_sync_before_send(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(barrier, "is_promise", lambda _frame: False)
    assert found_by("raft-blackouts", blackouts, range(1, 20))


def test_ablation_the_leader_counts_its_own_unsynced_entries(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(guard, "own_entries_counted", lambda _log, *, proposed, **_: proposed)
    assert found_by("raft-blackouts", blackouts, range(20))


def test_ablation_entries_that_are_present_are_truncated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "known_prefix", lambda _log, _entries: 0)
    assert found_by("raft", storm, range(10, 30))


def test_ablation_reads_without_asking_a_majority(monkeypatch: pytest.MonkeyPatch) -> None:
    def confirmed_at_once(self: ReadIndex) -> tuple[int, list[object]] | None:
        current, self._round = self._round, None
        return None if current is None else (current.index, list(current.reads))

    monkeypatch.setattr(ReadIndex, "confirmed", confirmed_at_once)
    assert found_by("raft", only("partition", "one_way", "pause"), range(7, 30))


def test_ablation_trusting_what_a_failed_sync_left_in_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def open_and_sync(self: Journal) -> None:
        data = self._env.disk.read(journal_module.PATH) or b""
        replayed = records.replay(data)
        self.log, self.term, self.voted_for = replayed.log, replayed.term, replayed.voted_for
        self._file = self._env.disk.open(journal_module.PATH)
        self._file.truncate(replayed.size)
        await self._file.sync()
        self.durable_index = self._writing_index = self.log.last_index
        if replayed.opened is None:
            self._record(self._opened)

    monkeypatch.setattr(Journal, "open", open_and_sync)
    assert found_by("raft", only("sync_error", "power"), range(19, 45))


# ------------------------------------------------------------------------------------ behaviour


async def led(
    world: World, size: int = 3, settings: Settings = SMALL
) -> tuple[RaftCluster, Member]:
    """A quiet cluster with a leader and idle clients."""
    cluster = RaftCluster(world, size, settings)
    cluster.are_clients_busy = False
    cluster.boot()
    await world.eventually("a leader", lambda: cluster.leader() is not None, within_s=5.0)
    leader = cluster.leader()
    assert leader is not None
    return cluster, leader


def raft_of(member: Member) -> RaftNode:
    assert member.raft is not None
    return member.raft


def followers(cluster: RaftCluster, leader: Member) -> list[Member]:
    return [member for member in cluster.members if member is not leader]


async def propose(member: Member, command: bytes, deadline_s: float = 3.0) -> object:
    raft = raft_of(member)
    return await raft.propose(command, term=raft.term, deadline_s=deadline_s)


def quiet(scenario: Callable[[World], object]) -> None:
    simulate(scenario.__name__, scenario, 1)  # type: ignore[arg-type]


def test_a_single_node_commits_alone() -> None:
    async def alone(world: World) -> None:
        _, leader = await led(world, size=1)
        assert await propose(leader, b"x") == raft_of(leader).applied_index
        assert await raft_of(leader).read_index(deadline_s=1.0) == raft_of(leader).applied_index

    quiet(alone)


def test_a_follower_far_behind_gets_a_snapshot_and_then_the_log() -> None:
    async def lagging(world: World) -> None:
        cluster, leader = await led(world)
        late = followers(cluster, leader)[0]
        late.process.crash()
        for number in range(150):
            await propose(leader, b"%d" % number)
        late.process.boot()
        await world.eventually("equal states", cluster._are_equal, within_s=10.0)
        assert raft_of(late).stats.snapshots_installed == 1
        assert raft_of(leader).stats.snapshots_sent == 1
        await propose(leader, b"after")
        await world.eventually("equal states", cluster._are_equal, within_s=1.0)

    quiet(lagging)


def test_a_clean_stop_hands_leadership_over_without_an_election_timeout() -> None:
    async def handing_over(world: World) -> None:
        cluster, leader = await led(world)
        await propose(leader, b"x")
        begin = world.now()
        stopping = leader.process.env.spawn("stop", raft_of(leader).stop())
        await asyncio.sleep(0)
        with pytest.raises(NotLeader):
            await propose(leader, b"y")
        await stopping
        await world.eventually("a new leader", lambda: cluster.leader() is not None, within_s=0.4)
        assert world.now() - begin < 0.5

    quiet(handing_over)


def test_a_leader_without_a_majority_steps_down_and_its_callers_hear_of_it() -> None:
    async def cut_off(world: World) -> None:
        cluster, leader = await led(world)
        for other in followers(cluster, leader):
            world.network.cut(leader.name, other.name)
            world.network.cut(other.name, leader.name)
        begin = world.now()
        with pytest.raises(ProposalUnknown):
            await propose(leader, b"x", deadline_s=60.0)
        # The fallback counts from the last answer, and is noticed at the next heartbeat.
        assert world.now() - begin < 1.0 + 0.25
        with pytest.raises(NotLeader):
            await propose(leader, b"y")
        with pytest.raises(NotLeader):
            await raft_of(leader).read_index(deadline_s=1.0)

    quiet(cut_off)


def test_a_node_that_was_cut_off_does_not_unseat_the_leader_when_it_is_back() -> None:
    async def back_again(world: World) -> None:
        cluster, leader = await led(world)
        lonely = followers(cluster, leader)[0]
        term = raft_of(leader).term
        for other in cluster.members:
            world.network.cut(lonely.name, other.name)
            world.network.cut(other.name, lonely.name)
        await asyncio.sleep(15.0)
        world.network.heal_all()
        await propose(leader, b"x")
        await world.eventually("equal states", cluster._are_equal, within_s=5.0)
        assert [raft_of(member).term for member in cluster.members] == [term] * 3

    quiet(back_again)


def test_slow_disks_everywhere_cost_no_leader_its_office() -> None:
    async def slow_disks(world: World) -> None:
        cluster, leader = await led(world)
        term = raft_of(leader).term
        for member in cluster.members:
            member.process.disk.temper.mean_sync_s = 4.0
        for number in range(5):
            await propose(leader, b"%d" % number, deadline_s=60.0)
        assert raft_of(leader).term == term

    quiet(slow_disks)


def test_a_proposal_that_takes_too_long_is_answered_at_its_deadline() -> None:
    async def slow(world: World) -> None:
        cluster, leader = await led(world)
        for member in cluster.members:
            member.process.disk.temper.slowness = 1e6
        begin = world.now()
        with pytest.raises(ProposalUnknown):
            await propose(leader, b"x", deadline_s=0.2)
        assert world.now() - begin == pytest.approx(0.2)

    quiet(slow)


def test_only_the_leader_of_exactly_that_term_may_propose() -> None:
    async def other_terms(world: World) -> None:
        cluster, leader = await led(world)
        raft = raft_of(leader)
        before = raft.last_index
        for term in (raft.term - 1, raft.term + 1):
            with pytest.raises(NotLeader):
                await raft.propose(b"x", term=term, deadline_s=1.0)
        with pytest.raises(NotLeader) as caught:
            await propose(followers(cluster, leader)[0], b"x")
        assert caught.value.leader == leader.raft_id
        assert raft.last_index == before

    quiet(other_terms)


def test_proposals_are_bounded_in_number_and_bytes() -> None:
    async def full(world: World) -> None:
        settings = Settings(proposals_limit=3, proposals_limit_bytes=99)
        cluster, leader = await led(world, settings=settings)
        raft = raft_of(leader)
        with pytest.raises(Rejected, match="1572865 bytes; the limit is 1572864"):
            await propose(leader, bytes(1_572_865))
        with pytest.raises(ProposalsFull):
            await propose(leader, bytes(100))
        for member in cluster.members:
            member.process.disk.temper.slowness = 1_000.0
        waiting = [asyncio.ensure_future(propose(leader, b"x")) for _ in range(3)]
        await world.eventually("appended", lambda: len(raft._proposals) == 3, within_s=0.1)
        with pytest.raises(ProposalsFull):
            await propose(leader, b"x")
        assert len(await asyncio.gather(*waiting)) == 3
        await propose(leader, b"x")

    quiet(full)


def test_a_stranger_is_refused() -> None:
    async def strangers(world: World) -> None:
        _, leader = await led(world)
        raft = raft_of(leader)
        before = raft.term, raft.is_leader
        stranger = RaftCluster(world, 0, SMALL)
        process = world.node("stranger")
        env = process.boot()
        state = type(leader.state)("stranger", stranger.ledger)  # type: ignore[misc]
        node = RaftNode(
            env,
            env.transport,
            3,
            {leader.raft_id: f"{leader.name}:7000"},
            state,
            cluster="another",
            listen="stranger:7000",
            on_leadership=lambda _: None,
            on_fatal=lambda error: world.problem(str(error)),
        )
        await node.start()
        await asyncio.sleep(5.0)
        assert (raft.term, raft.is_leader) == before
        assert not node._links.is_up(leader.raft_id)

    quiet(strangers)


def test_big_commands_and_many_of_them_go_through() -> None:
    async def big(world: World) -> None:
        cluster, leader = await led(world, settings=Settings())
        commands = [bytes([number]) * 1_572_864 for number in range(8)]
        await asyncio.gather(*(propose(leader, command) for command in commands))
        await world.eventually("equal states", cluster._are_equal, within_s=10.0)

    quiet(big)


def test_a_state_machine_that_raises_stops_the_node() -> None:
    async def raising(world: World) -> None:
        _, leader = await led(world, size=1)
        problems: list[BaseException] = []
        raft = raft_of(leader)
        raft._on_fatal = problems.append
        assert leader.state is not None
        leader.state.index = 10_000
        with pytest.raises(ProposalUnknown, match="has failed"):
            await propose(leader, b"x")
        assert "applying entry" in str(problems[0])
        with pytest.raises(NotLeader):
            await propose(leader, b"y")

    quiet(raising)


def test_a_failed_sync_stops_the_node() -> None:
    async def failing(world: World) -> None:
        cluster, leader = await led(world, size=1)
        leader.process.disk.temper.sync_error = 1.0
        with pytest.raises(ProposalUnknown, match="the disk failed"):
            await propose(leader, b"x")
        leader.process.disk.temper.sync_error = 0.0
        await world.eventually("a restart", lambda: cluster.leader() is not None, within_s=5.0)

    quiet(failing)
