"""The supervisor: restarts with back-off, escalation, and the order of stopping."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Iterator

import pytest

from skep.actor import Actor, Mailbox
from skep.env import Env
from skep.supervisor import RESTART_LIMIT, RESTART_WINDOW_S, Child, Supervisor
from tests.support.simulated import in_simulation


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


class Worker(Actor[object]):
    """Writes down what it does; a message that is an exception is raised, a coroutine awaited."""

    def __init__(self, env: Env, mailbox: Mailbox[object], diary: list[object]) -> None:
        super().__init__(env, mailbox)
        self.diary = diary

    async def started(self) -> None:
        self.diary.append(f"{self.mailbox.name} started")

    async def stopped(self) -> None:
        self.diary.append(f"{self.mailbox.name} stopped")

    async def handle(self, message: object) -> None:
        self.diary.append(message)
        if isinstance(message, Exception):
            raise message
        if asyncio.isfuture(message):
            await message


def _child(env: Env, name: str, diary: list[object]) -> Child:
    mailbox: Mailbox[object] = Mailbox(name)
    return Child(name, mailbox, lambda: Worker(env, mailbox, diary))


def _never(error: BaseException) -> None:
    raise AssertionError(f"escalated: {error!r}")


def test_a_restart_loses_no_message_and_repeats_none() -> None:
    async def body(env: Env) -> None:
        diary: list[object] = []
        child = _child(env, "a", diary)
        supervisor = Supervisor(env, "s", (child,), _never)
        supervisor.start()
        bad = ValueError("bad")
        sent: list[object] = [1, 2, bad, 3, bad, 4]
        for message in sent:
            child.mailbox.tell(message)
            if env.dice.random() < 0.3:
                await env.clock.sleep(0.01)
        await env.clock.sleep(1.0)
        assert [line for line in diary if not isinstance(line, str)] == sent
        assert supervisor.restarts == {"a": 2}
        await supervisor.stop()

    in_simulation(body)


def test_restarts_back_off_and_too_many_escalate() -> None:
    async def body(env: Env) -> None:
        diary: list[object] = []
        escalated: list[BaseException] = []
        births: list[float] = []

        class Doomed(Worker):
            async def started(self) -> None:
                births.append(env.now())
                raise OSError(f"life {len(births)}")

        mailbox: Mailbox[object] = Mailbox("a")
        child = Child("a", mailbox, lambda: Doomed(env, mailbox, diary))
        supervisor = Supervisor(env, "s", (child, _child(env, "b", diary)), escalated.append)
        supervisor.start()
        await env.clock.sleep(30.0)
        gaps = [round(b - a, 6) for a, b in itertools.pairwise(births)]
        assert gaps == [0.05, 0.1, 0.2, 0.4, 0.8]
        assert [str(error) for error in escalated] == [f"life {RESTART_LIMIT + 1}"]
        # The others go on until whoever was told stops the supervisor.
        assert "b stopped" not in diary
        await supervisor.stop()
        assert "b stopped" in diary

    in_simulation(body)


def test_deaths_that_are_far_apart_never_escalate() -> None:
    async def body(env: Env) -> None:
        diary: list[object] = []
        child = _child(env, "a", diary)
        supervisor = Supervisor(env, "s", (child,), _never)
        supervisor.start()
        for _ in range(4 * RESTART_LIMIT):
            child.mailbox.tell(ValueError("now and then"))
            await env.clock.sleep(RESTART_WINDOW_S / RESTART_LIMIT + 1.0)
        assert supervisor.restarts == {"a": 4 * RESTART_LIMIT}
        await supervisor.stop()

    in_simulation(body)


def test_children_stop_in_reverse_order_each_before_the_next() -> None:
    async def body(env: Env) -> None:
        diary: list[object] = []

        class Slow(Worker):
            async def stopped(self) -> None:
                await env.clock.sleep(1.0)
                await super().stopped()

        mailbox: Mailbox[object] = Mailbox("b")
        children = (
            _child(env, "a", diary),
            Child("b", mailbox, lambda: Slow(env, mailbox, diary)),
            _child(env, "c", diary),
        )
        supervisor = Supervisor(env, "s", children, _never)
        supervisor.start()
        await env.clock.sleep(1.0)
        assert sorted(map(str, diary)) == ["a started", "b started", "c started"]
        await supervisor.stop()
        assert diary[3:] == ["c stopped", "b stopped", "a stopped"]
        await supervisor.stop()
        assert len(diary) == 6

    in_simulation(body)


def test_a_child_that_will_not_stop_does_not_hold_up_the_others() -> None:
    async def body(env: Env) -> None:
        diary: list[object] = []

        class Stubborn(Worker):
            async def stopped(self) -> None:
                await env.clock.sleep(60.0)

        mailbox: Mailbox[object] = Mailbox("b")
        children = (
            _child(env, "a", diary),
            Child("b", mailbox, lambda: Stubborn(env, mailbox, diary)),
        )
        supervisor = Supervisor(env, "s", children, _never)
        supervisor.start()
        await env.clock.sleep(1.0)
        begin = env.now()
        await supervisor.stop()
        assert env.now() - begin == 5.0
        assert diary[-1] == "a stopped"

    in_simulation(body)


def test_an_actor_that_fails_while_it_is_stopped_is_not_restarted() -> None:
    async def body(env: Env) -> None:
        diary: list[object] = []

        class Clumsy(Worker):
            async def stopped(self) -> None:
                raise OSError("could not close")

        mailbox: Mailbox[object] = Mailbox("a")
        child = Child("a", mailbox, lambda: Clumsy(env, mailbox, diary))
        supervisor = Supervisor(env, "s", (child,), _never)
        supervisor.start()
        await env.clock.sleep(1.0)
        begin = env.now()
        await supervisor.stop()
        assert env.now() == begin
        assert supervisor.restarts == {"a": 0}

    in_simulation(body)


def test_a_cancellation_from_within_is_a_death_like_any_other() -> None:
    """An actor that awaits what somebody else cancels must not be gone for good."""

    async def body(env: Env) -> None:
        diary: list[object] = []
        child = _child(env, "a", diary)
        supervisor = Supervisor(env, "s", (child,), _never)
        supervisor.start()
        foreign: asyncio.Future[None] = asyncio.Future()
        child.mailbox.tell(foreign)
        await env.clock.sleep(1.0)
        foreign.cancel()
        child.mailbox.tell("after")
        await env.clock.sleep(1.0)
        assert diary[-1] == "after"
        assert supervisor.restarts == {"a": 1}
        await supervisor.stop()

    in_simulation(body)
