"""The actor base: mailboxes and their policies, asking, one message at a time, keyed work."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field

import pytest

from skep.actor import Actor, InboxFull, KeyedQueue, Mailbox, Overflow, Reply, ask
from skep.env import Env, Retryable
from tests.support.simulated import in_simulation

# ---------------------------------------------------------------------------------------- mailbox


def test_a_full_inbox_that_refuses_says_whose_it_is() -> None:
    mailbox: Mailbox[int] = Mailbox("scheduler", limit=2)
    mailbox.tell(1)
    mailbox.tell(2)
    with pytest.raises(InboxFull, match="scheduler: 2 messages are waiting"):
        mailbox.tell(3)
    assert (len(mailbox), mailbox.deepest) == (2, 2)
    assert issubclass(InboxFull, Retryable)


def test_messages_are_taken_in_order() -> None:
    async def body(env: Env) -> None:
        mailbox: Mailbox[int] = Mailbox("m")
        for number in range(5):
            mailbox.tell(number)
        assert [await mailbox.take() for _ in range(5)] == [0, 1, 2, 3, 4]

    in_simulation(body)


def test_coalescing_keeps_the_newest_at_the_oldest_place() -> None:
    async def body(env: Env) -> None:
        mailbox: Mailbox[tuple[str, int]] = Mailbox(
            "m", limit=2, overflow=Overflow.COALESCE, key=lambda message: message[0]
        )
        mailbox.tell(("a", 1))
        mailbox.tell(("b", 1))
        mailbox.tell(("a", 2))
        with pytest.raises(InboxFull):
            mailbox.tell(("c", 1))
        assert [await mailbox.take(), await mailbox.take()] == [("a", 2), ("b", 1)]
        mailbox.tell(("a", 3))
        assert await mailbox.take() == ("a", 3)

    in_simulation(body)


def test_waiting_for_room_loses_nothing_and_overflows_nothing() -> None:
    async def body(env: Env) -> None:
        mailbox: Mailbox[int] = Mailbox("m", limit=2, overflow=Overflow.WAIT)
        got: list[int] = []

        async def give(begin: int) -> None:
            for number in range(begin, begin + 20):
                await mailbox.put(number)

        async def take() -> None:
            while len(got) < 60:
                got.append(await mailbox.take())
                if env.dice.random() < 0.3:
                    await env.clock.sleep(0.01)

        givers = [env.spawn(f"give {begin}", give(begin)) for begin in (0, 100, 200)]
        await env.clock.within(10.0, env.spawn("take", take()))
        assert all(giver.done() for giver in givers)
        assert sorted(got) == [*range(20), *range(100, 120), *range(200, 220)]
        for begin in (0, 100, 200):
            assert [n for n in got if begin <= n < begin + 20] == list(range(begin, begin + 20))
        assert mailbox.deepest == 2

    in_simulation(body)


def test_a_full_inbox_that_waits_still_refuses_those_who_can_not_wait() -> None:
    async def body(env: Env) -> None:
        mailbox: Mailbox[int] = Mailbox("m", limit=1, overflow=Overflow.WAIT)
        await mailbox.put(1)
        with pytest.raises(InboxFull):
            mailbox.tell(2)

    in_simulation(body)


def test_cancelled_waiters_neither_lose_messages_nor_sleep_for_ever() -> None:
    """Takers and givers are cancelled at random moments, also just when it is their turn."""

    async def body(env: Env) -> None:
        mailbox: Mailbox[int] = Mailbox("m", limit=1, overflow=Overflow.WAIT)
        given: list[int] = []
        taken: list[int] = []

        async def give(number: int) -> None:
            await mailbox.put(number)
            given.append(number)

        async def take() -> None:
            taken.append(await mailbox.take())

        number = 0
        for _ in range(60):
            tasks = []
            for _ in range(3):
                number += 1
                tasks.append(env.spawn("give", give(number)))
                tasks.append(env.spawn("take", take()))
            if env.dice.random() < 0.5:
                await env.clock.sleep(0.0)
            env.dice.choice(tasks).cancel()
            await env.clock.sleep(0.0)
            env.dice.choice(tasks).cancel()
            await env.clock.sleep(0.1)
            for task in tasks:
                # Nobody waits where he needn't: a giver only at a full inbox, a taker at an empty.
                assert task.done() or len(mailbox) in (0, mailbox.limit)
                task.cancel()
            await env.clock.sleep(0.1)
            if len(mailbox):
                taken.append(await mailbox.take())
        # A giver that was cancelled after its message went in has given it all the same.
        assert set(given) <= set(taken)
        assert len(taken) == len(set(taken))

    in_simulation(body, range(30))


# -------------------------------------------------------------------------------------------- ask


@dataclass(frozen=True)
class Question:
    number: int
    reply: Reply[int]


class Doubler(Actor[Question]):
    """Answers with twice the number; thinks for as many seconds as the number says."""

    busy = 0

    async def handle(self, message: Question) -> None:
        self.busy += 1
        assert self.busy == 1, "two messages at once"
        await self.env.clock.sleep(message.number)
        self.busy -= 1
        if message.number > 5:
            message.reply.fail(Retryable("too much"))
        message.reply.set(message.number * 2)


def _doubler(env: Env, limit: int = 10) -> Mailbox[Question]:
    mailbox: Mailbox[Question] = Mailbox("doubler", limit)
    env.spawn("doubler", Doubler(env, mailbox).run())
    return mailbox


def _asking(env: Env, mailbox: Mailbox[Question], number: int) -> asyncio.Task[int]:
    return env.spawn("ask", ask(env, mailbox, lambda reply: Question(number, reply), 99.0))


def test_asking_gives_the_answer_or_the_error() -> None:
    async def body(env: Env) -> None:
        mailbox = _doubler(env)
        assert await ask(env, mailbox, lambda reply: Question(2, reply), 3.0) == 4
        with pytest.raises(Retryable, match="too much"):
            await ask(env, mailbox, lambda reply: Question(6, reply), 7.0)

    in_simulation(body)


def test_asking_ends_at_its_deadline_and_a_late_answer_is_harmless() -> None:
    async def body(env: Env) -> None:
        mailbox = _doubler(env)
        begin = env.now()
        for number in (3, 6):
            with pytest.raises(TimeoutError):
                await ask(env, mailbox, lambda reply, n=number: Question(n, reply), 1.0)  # type: ignore[misc]
        assert env.now() - begin == 2.0
        await env.clock.sleep(20.0)
        assert await ask(env, mailbox, lambda reply: Question(1, reply), 2.0) == 2

    in_simulation(body)


def test_asking_a_full_inbox_is_refused_at_once() -> None:
    async def body(env: Env) -> None:
        mailbox = _doubler(env, limit=1)
        first: asyncio.Task[int] = env.spawn(
            "ask", ask(env, mailbox, lambda reply: Question(1, reply), 9.0)
        )
        await env.clock.sleep(0.1)
        second: asyncio.Task[int] = env.spawn(
            "ask", ask(env, mailbox, lambda reply: Question(2, reply), 9.0)
        )
        await env.clock.sleep(0.1)
        with pytest.raises(InboxFull):
            await ask(env, mailbox, lambda reply: Question(3, reply), 9.0)
        assert (await first, await second) == (2, 4)

    in_simulation(body)


def test_an_actor_handles_one_message_at_a_time_and_in_order() -> None:
    async def body(env: Env) -> None:
        mailbox = _doubler(env)
        asking = [_asking(env, mailbox, number) for number in (3, 1, 2)]
        begin = env.now()
        assert [await task for task in asking] == [6, 2, 4]
        assert env.now() - begin == 6.0

    in_simulation(body)


@dataclass
class Diary:
    lines: list[str] = field(default_factory=list)


class Fragile(Actor[str]):
    def __init__(self, env: Env, mailbox: Mailbox[str], diary: Diary) -> None:
        super().__init__(env, mailbox)
        self.diary = diary

    async def started(self) -> None:
        self.diary.lines.append("started")

    async def stopped(self) -> None:
        self.diary.lines.append("stopped")

    async def handle(self, message: str) -> None:
        if message == "bad":
            raise ValueError(message)
        self.diary.lines.append(message)


def test_an_actor_that_dies_or_is_cancelled_has_stopped() -> None:
    async def body(env: Env) -> None:
        mailbox: Mailbox[str] = Mailbox("m")
        diary = Diary()
        actor = Fragile(env, mailbox, diary)
        for message in ("one", "bad", "two"):
            mailbox.tell(message)
        with pytest.raises(ValueError):
            await actor.run()
        assert diary.lines == ["started", "one", "stopped"]
        assert (actor.stats.handled, len(mailbox)) == (2, 1)
        second = env.spawn("again", Fragile(env, mailbox, diary).run())
        await env.clock.sleep(1.0)
        second.cancel()
        await asyncio.wait((second,))
        assert diary.lines[3:] == ["started", "two", "stopped"]

    in_simulation(body)


# -------------------------------------------------------------------------------------- keyed work


def test_many_hints_for_a_key_are_one_run() -> None:
    async def body(env: Env) -> None:
        runs: list[str] = []

        async def work(key: str) -> None:
            runs.append(key)

        queue = KeyedQueue(env, "q", work, _never)
        for _ in range(50):
            queue.hint("a")
            queue.hint("b")
        await env.clock.sleep(1.0)
        assert runs == ["a", "b"]
        assert len(queue) == 0

    in_simulation(body)


def test_a_hint_during_a_run_makes_one_more() -> None:
    async def body(env: Env) -> None:
        ends: list[float] = []

        async def work(key: str) -> None:
            await env.clock.sleep(1.0)
            ends.append(env.now())

        queue = KeyedQueue(env, "q", work, _never)
        begin = env.now()
        queue.hint("a")
        await env.clock.sleep(0.5)
        for _ in range(5):
            queue.hint("a")
        await env.clock.sleep(9.0)
        assert [end - begin for end in ends] == [1.0, 2.0]

    in_simulation(body)


@pytest.mark.parametrize("width", [1, 3])
def test_one_key_never_runs_twice_at_once_and_no_hint_is_lost(width: int) -> None:
    async def body(env: Env) -> None:
        running: Counter[int] = Counter()
        widest = 0
        begun: dict[int, float] = {}
        hinted: dict[int, float] = {}

        async def work(key: int) -> None:
            nonlocal widest
            running[key] += 1
            assert running[key] == 1, key
            widest = max(widest, running.total())
            begun[key] = env.now()
            await env.clock.sleep(env.dice.uniform(0.0, 0.2))
            running[key] -= 1
            if env.dice.random() < 0.2:
                raise Retryable("now and then")

        errors: list[int] = []
        queue = KeyedQueue(env, "q", work, lambda key, _: errors.append(key), width)
        for _ in range(200):
            key = env.dice.randrange(6)
            queue.hint(key)
            hinted[key] = env.now()
            await env.clock.sleep(env.dice.uniform(0.0, 0.1))
        await env.clock.sleep(20.0)
        assert widest == width
        assert errors
        assert len(queue) == 0
        assert all(begun[key] >= hinted[key] for key in hinted)

    in_simulation(body)


def test_a_failed_key_is_told_and_may_be_hinted_again() -> None:
    async def body(env: Env) -> None:
        attempts: list[str] = []
        errors: list[tuple[str, str]] = []

        async def work(key: str) -> None:
            attempts.append(key)
            if len(attempts) == 1:
                raise Retryable("not yet")

        def retry(key: str, error: Exception) -> None:
            errors.append((key, str(error)))
            queue.hint(key)

        queue = KeyedQueue(env, "q", work, retry)
        queue.hint("a")
        await env.clock.sleep(1.0)
        assert attempts == ["a", "a"]
        assert errors == [("a", "not yet")]

    in_simulation(body)


def test_a_closed_queue_cancels_what_runs_and_starts_nothing() -> None:
    async def body(env: Env) -> None:
        runs: list[str] = []

        async def work(key: str) -> None:
            runs.append(f"{key} begins")
            await env.clock.sleep(1.0)
            runs.append(f"{key} ends")

        queue = KeyedQueue(env, "q", work, _never)
        queue.hint("a")
        queue.hint("b")
        await env.clock.sleep(0.5)
        queue.close()
        queue.hint("c")
        await env.clock.sleep(9.0)
        assert runs == ["a begins"]

    in_simulation(body)


def _never(key: str, error: Exception) -> None:
    raise AssertionError(f"{key}: {error!r}")
