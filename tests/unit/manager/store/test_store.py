"""One writer, group commit, and what becomes of writes when Raft gives no clear answer."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from typing import Any

import pytest

from skep.domain.base import SECOND_NS, ServiceId, TaskId
from skep.domain.objects import Node, Service, Task
from skep.env import CallError, Code, Env, Fatal, Rejected
from skep.manager.raft.core.model import ProposalsFull, ProposalUnknown
from skep.manager.store.actor import (
    WRITERS_LIMIT,
    NotLeading,
    OutcomeUnknown,
    Store,
    Unsettled,
    WriterQueueFull,
)
from skep.manager.store.core.command import (
    COMMAND_BYTES_LIMIT,
    COMMAND_CHANGES_LIMIT,
    Change,
    Database,
    encode_command,
)
from skep.manager.store.core.transaction import Transaction
from tests.support.simulated import in_simulation
from tests.unit.manager.build import node, service, task
from tests.unit.manager.raft_stand_in import FakeRaft


def with_store(body: Callable[[Env, Store, FakeRaft], Any]) -> None:
    async def run(env: Env) -> None:
        store = Store(env)
        await body(env, store, FakeRaft(store))
        store.tables.check_invariants()

    in_simulation(run)


def add(row: Any) -> Callable[[Transaction], str]:
    def fn(tx: Transaction) -> str:
        tx.create(row)
        return str(row.id)

    return fn


def fails(error: BaseException) -> Callable[[Any], Any]:
    def raising(_: Any) -> None:
        raise error

    return raising


async def all_of(env: Env, store: Store, *fns: Callable[[Transaction], Any]) -> list[Any]:
    tasks = [env.spawn("writer", store.update(fn)) for fn in fns]
    return await asyncio.gather(*tasks, return_exceptions=True)


def test_writers_that_wait_together_share_one_command() -> None:
    async def body(env: Env, store: Store, raft: FakeRaft) -> None:
        ids = await all_of(env, store, *(add(node(f"n{number}")) for number in range(50)))
        assert sorted(ids) == sorted(f"n{number}" for number in range(50))
        assert len(raft.commands) == 1
        assert store.version == 1

    with_store(body)


def test_each_function_sees_what_those_before_it_wrote() -> None:
    async def body(env: Env, store: Store, raft: FakeRaft) -> None:
        def one_more(tx: Transaction) -> int:
            count = len(tx.all(Node))
            tx.create(node(f"n{count}"))
            return count

        assert sorted(await all_of(env, store, *[one_more] * 20)) == list(range(20))

    with_store(body)


def test_a_function_that_fails_harms_nobody_else_and_leaves_nothing() -> None:
    async def body(env: Env, store: Store, raft: FakeRaft) -> None:
        def half(tx: Transaction) -> None:
            tx.create(service())
            raise CallError(Code.ALREADY_EXISTS, "taken")

        bad = [half, fails(Rejected("no")), fails(AssertionError("a bug"))]
        results = await all_of(env, store, add(node("a")), *bad, add(node("b")))
        kinds = [type(result) for result in results if not isinstance(result, str)]
        assert sorted(kind.__name__ for kind in kinds) == [
            "AssertionError",
            "CallError",
            "Rejected",
        ]
        assert store.tables.count(Node) == 2
        assert store.tables.count(Service) == 0

    with_store(body)


def test_a_function_that_writes_nothing_costs_no_commit() -> None:
    async def body(env: Env, store: Store, raft: FakeRaft) -> None:
        assert await store.update(lambda tx: len(tx.all(Node))) == 0
        assert raft.commands == []

    with_store(body)


def test_who_acts_under_an_older_term_writes_nothing() -> None:
    async def body(env: Env, store: Store, raft: FakeRaft) -> None:
        raft.term = 2
        with pytest.raises(NotLeading):
            await store.update(add(node()), term=1)
        await store.update(add(node()), term=2)
        raft.is_leader = False
        with pytest.raises(NotLeading):
            await store.update(add(node("n2")))
        assert store.tables.count(Node) == 1

    with_store(body)


def test_a_term_that_ends_while_a_command_is_under_way_is_no_write() -> None:
    async def body(env: Env, store: Store, raft: FakeRaft) -> None:
        write = env.spawn("write", store.update(add(node()), term=1))
        await asyncio.sleep(0.0005)
        raft.term = 2
        with pytest.raises(NotLeading):
            await write
        assert store.tables.count(Node) == 0

    with_store(body)


def test_raft_that_is_full_is_said_as_it_is_and_the_next_write_goes_through() -> None:
    async def body(env: Env, store: Store, raft: FakeRaft) -> None:
        raft.fates = [fails(ProposalsFull("full"))]
        with pytest.raises(ProposalsFull):
            await store.update(add(node()))
        await store.update(add(node()))

    with_store(body)


def test_nothing_is_decided_before_an_unknown_write_has_shown_up_or_can_no_longer() -> None:
    """Else two writers could take the same name, or the same slot."""

    async def body(env: Env, store: Store, raft: FakeRaft) -> None:
        late: list[bytes] = []

        def lost_sight_of(command: bytes) -> None:
            late.append(command)
            raise ProposalUnknown("no word in time")

        def barrier_finds_it(_: bytes) -> None:
            raft.commit(late.pop())

        def unless_there(tx: Transaction) -> bool:
            if tx.get(Node, "n1") is not None:
                return False
            tx.create(node())
            return True

        raft.fates = [lost_sight_of, barrier_finds_it]
        with pytest.raises(OutcomeUnknown):
            await store.update(unless_there)
        assert store.tables.count(Node) == 0
        assert await store.update(unless_there) is False
        assert await store.update(lambda tx: 1) == 1
        assert len(raft.commands) == 2

    with_store(body)


def test_writers_are_told_to_come_back_while_an_unknown_write_is_under_way() -> None:
    async def body(env: Env, store: Store, raft: FakeRaft) -> None:
        unknown = fails(ProposalUnknown("no word in time"))
        raft.fates = [unknown, unknown]
        with pytest.raises(OutcomeUnknown):
            await store.update(add(node("a")))
        with pytest.raises(Unsettled):
            await store.update(add(node("b")))
        await store.update(add(node("c")))
        assert [row.id for row in store.tables.all(Node)] == ["c"]

    with_store(body)


def test_a_new_term_settles_what_was_unknown() -> None:
    async def body(env: Env, store: Store, raft: FakeRaft) -> None:
        raft.fates = [fails(ProposalUnknown("leadership lost"))]
        with pytest.raises(OutcomeUnknown):
            await store.update(add(node("a")))
        raft.term = 2
        await store.update(add(node("b")))
        assert len(raft.commands) == 1

    with_store(body)


def test_an_unforeseen_error_answers_every_writer_and_the_store_goes_on() -> None:
    async def run(env: Env) -> None:
        store = Store(env)
        raft = FakeRaft(store)
        raft.fates = [fails(ValueError("a bug in Raft"))]
        first = env.spawn("first", store.update(add(node("a"))))
        await asyncio.sleep(0.0005)
        second = env.spawn("second", store.update(add(node("b"))))
        results = await asyncio.gather(first, second, return_exceptions=True)
        assert [type(result) for result in results] == [ValueError, Fatal]
        await store.update(add(node("c")))

    with pytest.raises(Exception, match="a bug in Raft"):
        in_simulation(run, seeds=range(1))


def test_a_change_too_big_for_any_command_is_refused_and_the_rest_is_split() -> None:
    async def body(env: Env, store: Store, raft: FakeRaft) -> None:
        def many(first: int, count: int) -> Callable[[Transaction], int]:
            def fn(tx: Transaction) -> int:
                for number in range(first, first + count):
                    tx.create(task(f"t{number}"))
                return count

            return fn

        with pytest.raises(Rejected, match="too big"):
            await store.update(many(0, COMMAND_CHANGES_LIMIT + 1))
        parts = [many(start, 400) for start in range(0, 2000, 400)]
        assert await all_of(env, store, *parts) == [400] * 5
        assert len(raft.commands) == 3
        assert store.tables.count(Task) == 2000

    with_store(body)


def test_no_command_has_more_bytes_than_raft_takes() -> None:
    async def body(env: Env, store: Store, raft: FakeRaft) -> None:
        big = [add(node(f"n{number}", message="x" * 500_000)) for number in range(7)]
        await all_of(env, store, *big)
        small = [add(task(f"t{number:06}")) for number in range(1000)]
        for start in range(0, 1000, 500):
            await all_of(env, store, *small[start : start + 500])
        assert max(len(command) for command in raft.commands) <= 1536 * 1024
        with pytest.raises(Rejected, match="too big"):
            await store.update(add(node("huge", message="x" * COMMAND_BYTES_LIMIT)))

    with_store(body)


def test_versions_and_times_strictly_grow() -> None:
    async def run(env: Env) -> None:
        store = Store(env)
        FakeRaft(store)
        seen: list[tuple[int, int]] = []
        store.subscribe(
            lambda changes: seen.append((changes[0].version, changes[0].row.created_ns))
        )
        for number in range(20):
            await store.update(add(node(f"n{number}")))
        assert len(seen) == 20
        assert all(a[0] < b[0] and a[1] < b[1] for a, b in itertools.pairwise(seen))

    in_simulation(run)


def test_time_goes_on_from_the_last_stamp_where_the_clock_is_behind_it() -> None:
    async def body(env: Env, store: Store, raft: FakeRaft) -> None:
        ahead = Database()
        ahead.apply(5, encode_command(env.wall() + 3600 * SECOND_NS, []))
        store.restore(5, ahead.snapshot())
        before = store.wall_ns
        await asyncio.sleep(2.0)
        assert before + 2 * SECOND_NS == pytest.approx(store.wall_ns, abs=SECOND_NS // 100)

    with_store(body)


def test_a_crowd_of_writers_is_told_to_slow_down() -> None:
    async def body(env: Env, store: Store, raft: FakeRaft) -> None:
        fns = [lambda tx: None] * (WRITERS_LIMIT + 5)
        results = await all_of(env, store, *fns)
        assert sum(isinstance(result, WriterQueueFull) for result in results) <= 5
        assert await store.update(lambda tx: "still here") == "still here"

    with_store(body)


def test_who_stops_waiting_does_not_stop_the_write() -> None:
    async def body(env: Env, store: Store, raft: FakeRaft) -> None:
        write = env.spawn("write", store.update(add(node("a"))))
        await asyncio.sleep(0.0005)
        write.cancel()
        await store.update(add(node("b")))
        assert store.tables.count(Node) == 2

    with_store(body)


def test_subscribers_hear_every_commit_in_order_until_they_leave() -> None:
    async def body(env: Env, store: Store, raft: FakeRaft) -> None:
        heard: list[list[Change]] = []
        leave = store.subscribe(heard.append)
        await store.update(add(node("a")))
        await store.update(add(service("s1")))
        leave()
        leave()
        await store.update(add(node("b")))
        assert [[change.row.id for change in changes] for changes in heard] == [["a"], ["s1"]]
        assert [change.row.id for change in store.window.since(1) or ()] == ["s1", "b"]

    with_store(body)


def test_a_restored_store_tells_watchers_to_begin_anew() -> None:
    async def body(env: Env, store: Store, raft: FakeRaft) -> None:
        await store.update(add(node("a")))
        other = Store(env)
        told: list[int] = []
        other.on_restored = lambda: told.append(other.version)
        other.restore(12, store.snapshot())
        assert told == [12]
        assert list(other.tables.all(Node)) == list(store.tables.all(Node))
        assert other.window.since(11) is None
        assert other.window.since(12) == []

    with_store(body)


def test_ids_of_other_types_do_not_meet() -> None:
    async def body(env: Env, store: Store, raft: FakeRaft) -> None:
        await store.update(add(node("same")))
        await store.update(add(service("same")))
        await store.update(add(task("same", service_id=ServiceId("same"))))
        assert store.tables.get(Task, TaskId("same")) is not None
        await store.update(lambda tx: tx.remove(Service, "same"))
        assert (store.tables.count(Node), store.tables.count(Service)) == (1, 0)

    with_store(body)
