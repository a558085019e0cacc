"""The ledger on disk: what survives which accident."""

from __future__ import annotations

import pytest

from skep.domain.base import ClusterId, NodeId, TaskId
from skep.domain.objects import TaskStatus
from skep.domain.session import TaskReport
from skep.domain.states import TaskState
from skep.env import Env, Rejected
from skep.worker.core.ledger import Change, Ledger
from skep.worker.journal import PATH, SHORTEN_ABOVE_BYTES, Journal
from tests.sim.world import SimNode, World, simulate
from tests.unit.worker.fakes import assignment

T1 = TaskId("t1")


def opened(env: Env, cluster: str = "c", node: str = "w1") -> Journal:
    return Journal.open(env.disk, ClusterId(cluster), NodeId(node))


def status(counter: int) -> Change:
    report = TaskReport(task_id=T1, status=TaskStatus(state=TaskState.RUNNING, counter=counter))
    return Change(statuses=(report,))


def test_changes_add_up() -> None:
    async def scenario(world: World) -> None:
        node = world.node("w1")
        journal = opened(node.boot())
        await journal.save(Change(term=3, assignments=(assignment(), assignment("t2"))))
        await journal.save(status(1))
        await journal.save(status(2))
        await journal.save(Change(term=2, removed=(TaskId("t2"),)))
        node.crash(is_power_lost=True)
        found = opened(node.boot()).ledger
        assert found == journal.ledger
        assert found.term == 3
        assert set(found.assignments) == {"t1"}
        assert found.statuses[T1].counter == 2

    simulate("journal", scenario, 0)


@pytest.mark.parametrize("seed", range(30))
def test_a_power_cut_takes_nothing_that_was_saved(seed: int) -> None:
    async def scenario(world: World) -> None:
        node: SimNode = world.node("w1")
        dice = world.dice("test")
        promised = 0
        for _ in range(20):
            journal = opened(node.boot())
            found = journal.ledger.statuses.get(T1, TaskStatus()).counter
            assert found >= promised
            counter = found
            for _ in range(dice.randint(0, 5)):
                node.disk.temper.sync_error = dice.choice([0.0, 0.3])
                counter += 1
                try:
                    await journal.save(status(counter))
                except OSError:
                    continue
                promised = counter
            if dice.random() < 0.5:
                # A save under way, torn.
                node.env.spawn("save", journal.save(status(counter + 1)))
                await world.eventually("begun", lambda: True, within_s=1.0)
            node.crash(is_power_lost=dice.random() < 0.7)

    simulate("journal", scenario, seed)


def test_a_failed_save_does_not_count() -> None:
    async def scenario(world: World) -> None:
        node = world.node("w1")
        journal = opened(node.boot())
        await journal.save(status(1))
        node.disk.temper.is_full = True
        with pytest.raises(OSError, match="full"):
            await journal.save(status(2))
        assert journal.ledger.statuses[T1].counter == 1
        node.disk.temper.is_full = False
        await journal.save(status(3))
        node.crash(is_power_lost=True)
        assert opened(node.boot()).ledger.statuses[T1].counter == 3

    simulate("journal", scenario, 0)


def test_the_file_stays_short() -> None:
    async def scenario(world: World) -> None:
        node = world.node("w1")
        journal = opened(node.boot())
        for counter in range(1, 8000):
            await journal.save(status(counter))
        data = node.env.disk.read(PATH)
        assert data is not None
        assert len(data) <= SHORTEN_ABOVE_BYTES + 1024
        node.crash()
        assert opened(node.boot()).ledger.statuses[T1].counter == 7999

    simulate("journal", scenario, 0)


def test_reading_writes_nothing() -> None:
    async def scenario(world: World) -> None:
        node = world.node("w1")
        env = node.boot()
        node.disk.temper.is_full = True
        assert opened(env).ledger == Ledger()
        assert env.disk.list("") == ()

    simulate("journal", scenario, 0)


@pytest.mark.parametrize(("cluster", "node_id"), [("other", "w1"), ("c", "w2")])
def test_a_folder_of_another_node_is_refused(cluster: str, node_id: str) -> None:
    async def scenario(world: World) -> None:
        env = world.node("w1").boot()
        await opened(env).save(Change(term=1))
        with pytest.raises(Rejected, match="belongs to node w1 of cluster c"):
            opened(env, cluster, node_id)

    simulate("journal", scenario, 0)


def _last_record(data: bytes) -> int:
    at = end = 0
    while end < len(data):
        at = end
        end = at + 12 + int.from_bytes(data[at : at + 4], "little")
    return at


@pytest.mark.parametrize("cut", range(1, 60, 3))
def test_a_torn_record_is_ignored(cut: int) -> None:
    async def scenario(world: World) -> None:
        env = world.node("w1").boot()
        journal = opened(env)
        await journal.save(status(1))
        await journal.save(status(2))
        data = env.disk.read(PATH)
        assert data is not None
        await env.disk.replace(PATH, data[:-cut])
        assert opened(env).ledger.statuses[T1].counter == 1
        await env.disk.replace(PATH, data[:-cut] + bytes(cut))
        assert opened(env).ledger.statuses[T1].counter == 1

    simulate("journal", scenario, 0)


def test_damage_is_refused() -> None:
    async def scenario(world: World) -> None:
        env = world.node("w1").boot()
        journal = opened(env)
        for counter in range(1, 5):
            await journal.save(status(counter))
        data = env.disk.read(PATH)
        assert data is not None
        # The last record may be taken for a torn one, as it is the only one that can be.
        last = _last_record(data)
        for place in range(0, last, 7):
            flipped = bytes(b ^ 1 if at == place else b for at, b in enumerate(data))
            await env.disk.replace(PATH, flipped)
            with pytest.raises(Rejected, match="damaged"):
                opened(env)

    simulate("journal", scenario, 0)


@pytest.mark.parametrize("tail", [b"\x01", bytes(5), bytes(50), b"\x40\0\0\0" + bytes(40)])
def test_a_torn_end_is_ignored(tail: bytes) -> None:
    async def scenario(world: World) -> None:
        env = world.node("w1").boot()
        await opened(env).save(status(1))
        data = env.disk.read(PATH)
        assert data is not None
        await env.disk.replace(PATH, data + tail)
        journal = opened(env)
        assert journal.ledger.statuses[T1].counter == 1
        await journal.save(status(2))
        assert opened(env).ledger.statuses[T1].counter == 2

    simulate("journal", scenario, 0)
