"""The shell of the reconcilers: hints, appointments, retries."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable
from typing import Any

from skep.domain.objects import Node
from skep.env import Env, Fatal
from skep.manager.passes import RETRY_S, Pass, hint_box
from skep.manager.raft.core.model import NotLeader
from skep.manager.store.actor import OutcomeUnknown, Store
from skep.manager.store.core.command import Change
from skep.manager.store.core.transaction import Transaction
from tests.support.simulated import in_simulation
from tests.unit.manager.build import node
from tests.unit.manager.raft_stand_in import FakeRaft


class Looking(Pass):
    """Notes when it looks at what."""

    def __init__(self, env: Env, store: Store) -> None:
        super().__init__(env, hint_box("looking"), store, 1)
        self.looks: list[tuple[float, Hashable]] = []
        self.errors: list[Exception] = []
        self.begin = env.now()

    def all_keys(self) -> tuple[Hashable, ...]:
        return ("all",)

    def hints_of(self, change: Change) -> tuple[Hashable, ...]:
        return (change.row.id,) if isinstance(change.row, Node) else ()

    async def look(self, key: Hashable) -> None:
        self.looks.append((round(self.env.now() - self.begin, 2), key))
        await asyncio.sleep(0.001)
        if self.errors:
            raise self.errors.pop(0)


def with_pass(body: Callable[[Looking, asyncio.Task[None], FakeRaft], Any]) -> None:
    async def run(env: Env) -> None:
        store = Store(env)
        raft = FakeRaft(store)
        looking = Looking(env, store)
        actor = env.spawn("looking", looking.run())
        await asyncio.sleep(0.5)
        assert looking.looks == [(0.0, "all")]
        looking.looks.clear()
        await body(looking, actor, raft)
        actor.cancel()
        await asyncio.wait((actor,))
        # Nothing of it is left behind: no appointment, no subscription.
        looking.look_again = None  # type: ignore[assignment]
        await store.update(write("late"))
        await asyncio.sleep(60.0)
        assert len(looking.mailbox) == 0

    in_simulation(run)


def write(*names: str) -> Callable[[Transaction], None]:
    def fn(tx: Transaction) -> None:
        for name in names:
            tx.create(node(name))

    return fn


def test_a_change_is_a_hint_and_many_for_one_key_are_one_look() -> None:
    async def body(looking: Looking, actor: asyncio.Task[None], raft: FakeRaft) -> None:
        await looking.store.update(write("a", "b"))
        for _ in range(5):
            looking.mailbox.tell("a")
        await asyncio.sleep(0.1)
        keys = [key for _, key in looking.looks]
        assert keys.count("b") == 1
        assert 1 <= keys.count("a") <= 2

    with_pass(body)


def test_the_earliest_appointment_of_a_key_stands() -> None:
    async def body(looking: Looking, actor: asyncio.Task[None], raft: FakeRaft) -> None:
        looking.look_again("a", 5.0)
        looking.look_again("a", 2.0)
        looking.look_again("a", 9.0)
        looking.look_again("b", 3.0)
        looking.look_again("c", -1.0)
        await asyncio.sleep(20.0)
        assert looking.looks == [(0.5, "c"), (2.5, "a"), (3.5, "b")]
        looking.look_again("a", 1.0)
        await asyncio.sleep(2.0)
        assert looking.looks[-1] == (21.5, "a")

    with_pass(body)


def test_a_pass_that_the_world_stopped_comes_again() -> None:
    async def body(looking: Looking, actor: asyncio.Task[None], raft: FakeRaft) -> None:
        looking.errors = [NotLeader(None), OutcomeUnknown("?")]
        looking.mailbox.tell("a")
        await asyncio.sleep(1.0)
        assert [key for _, key in looking.looks] == ["a", "a", "a"]
        assert round(looking.looks[2][0] - looking.looks[0][0], 2) >= 2 * RETRY_S

    with_pass(body)


def test_a_key_with_a_bug_is_put_off_longer_each_time_and_others_go_on() -> None:
    async def body(looking: Looking, actor: asyncio.Task[None], raft: FakeRaft) -> None:
        looking.errors = [AssertionError("a bug"), AssertionError("a bug")]
        looking.mailbox.tell("a")
        await asyncio.sleep(0.5)
        looking.errors, bug = [], looking.errors
        looking.mailbox.tell("b")
        await asyncio.sleep(0.3)
        looking.errors = bug
        await asyncio.sleep(5.0)
        assert [key for _, key in looking.looks] == ["a", "b", "a", "a"]
        first, _, second, third = [at for at, _ in looking.looks]
        assert (round(second - first, 1), round(third - second, 1)) == (1.0, 2.0)
        assert not actor.done()

    with_pass(body)


def test_a_fatal_error_ends_the_actor() -> None:
    async def body(looking: Looking, actor: asyncio.Task[None], raft: FakeRaft) -> None:
        looking.errors = [Fatal("it must not go on")]
        looking.mailbox.tell("a")
        await asyncio.sleep(1.0)
        assert isinstance(actor.exception(), Fatal)

    with_pass(body)
