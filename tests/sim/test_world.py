"""The world itself: what it promises to those who are tested in it."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path

import pytest

from skep.env import CallError, Env, Retryable, Service, Stream, StreamBroken
from tests.sim.loop import UnhandledErrors, WorldHalted, run
from tests.sim.nemesis import Nemesis
from tests.sim.world import SeedFailed, Violation, World, simulate

ROOT = Path(__file__).parent.parent.parent


def in_world(body: Callable[[World], Coroutine[None, None, None]], seed: int = 1) -> None:
    simulate("test", body, seed)


# --------------------------------------------------------- a scenario with all kinds of faults


async def _echo_main(env: Env) -> None:
    """Answers calls and streams, and appends what it hears to a file."""
    log = env.disk.open("log")

    async def say(request: bytes) -> bytes:
        try:
            log.append(request)
            await log.sync()
        except OSError as error:
            raise Retryable(str(error)) from error
        return request

    async def follow(stream: Stream) -> None:
        while (frame := await stream.receive()) is not None:
            await stream.send(frame)

    await env.transport.listen(f"{env.node}:7", Service({"Say": say}, {"Follow": follow}))
    await asyncio.Event().wait()


async def echo_scenario(world: World) -> None:
    """Three echo servers that call each other under every fault, then heal."""

    async def caller(env: Env) -> None:
        numbers = iter(range(1_000_000))
        for peer in ("a", "b", "c"):
            env.spawn(f"call {peer}", _call_for_ever(env, peer, numbers.__next__))
        await _echo_main(env)

    nodes = [world.node(name, caller) for name in ("a", "b", "c")]
    for node in nodes:
        node.boot()
    nemesis = Nemesis(world, nodes)
    await nemesis.run(30.0)
    nemesis.heal()
    answered = [False]

    async def ask() -> None:
        channel = world.node("client").boot().transport.channel("a:7")
        while not answered[0]:
            try:
                answered[0] = await channel.call("Say", b"x", deadline_s=1.0) == b"x"
            except CallError:
                await asyncio.sleep(0.5)

    task = asyncio.create_task(ask())
    await world.eventually("a answers", lambda: answered[0], within_s=30.0)
    await task


async def _call_for_ever(env: Env, peer: str, number: Callable[[], int]) -> None:
    channel = env.transport.channel(f"{peer}:7")
    while True:
        await env.turn()
        await env.clock.sleep(env.dice.uniform(0.1, 0.5))
        try:
            request = b"%d" % number()
            assert await channel.call("Say", request, deadline_s=1.0) == request
            stream = await channel.open("Follow", deadline_s=1.0)
            await stream.send(request)
            assert await env.clock.within(1.0, stream.receive()) in (request, None)
            await stream.close()
        except (CallError, StreamBroken, TimeoutError):
            continue


def test_one_seed_is_one_life() -> None:
    first = simulate("echo", echo_scenario, 11)
    assert simulate("echo", echo_scenario, 11).digest == first.digest
    assert simulate("echo", echo_scenario, 12).digest != first.digest


@pytest.mark.process
def test_one_seed_is_one_life_under_any_hash_seed() -> None:
    digests = set()
    for hash_seed in ("1", "2"):
        output = subprocess.run(
            [sys.executable, "-m", "tests.sim.long", "--scenario", "echo", "--seed", "3"],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
            timeout=60.0,
        ).stdout
        digests.add(output)
    assert len(digests) == 1, digests


@pytest.mark.parametrize("seed", range(20))
def test_every_fault_is_survived_by_those_who_retry(seed: int) -> None:
    assert simulate("echo", echo_scenario, seed).virtual_s >= 30.0


# -------------------------------------------------------------------------------------------- loop


def test_order_of_what_is_ready_at_once_is_drawn_from_the_seed() -> None:
    async def main() -> tuple[int, ...]:
        order: list[int] = []

        async def one(number: int) -> None:
            await asyncio.sleep(1.0)
            order.append(number)

        await asyncio.gather(*(one(number) for number in range(5)))
        return tuple(order)

    orders = {run(seed, main()) for seed in range(20)}
    assert len(orders) > 10
    assert run(4, main()) == run(4, main())


def test_time_jumps_to_exactly_the_next_timer() -> None:
    async def main() -> float:
        loop = asyncio.get_running_loop()
        begin = loop.time()
        await asyncio.sleep(86_400.0 * 3)
        return loop.time() - begin

    assert run(1, main()) == 86_400.0 * 3


def test_a_world_where_nothing_can_happen_any_more_is_an_error() -> None:
    async def main() -> None:
        await asyncio.Event().wait()

    with pytest.raises(WorldHalted):
        run(1, main())


def test_errors_that_nobody_looked_at_are_found() -> None:
    async def fails() -> None:
        raise ValueError("lost")

    async def main() -> None:
        asyncio.create_task(fails(), name="careless")  # noqa: RUF006
        await asyncio.sleep(1.0)

    with pytest.raises(UnhandledErrors, match="careless"):
        run(1, main())


def test_a_failed_seed_says_how_to_see_it_again() -> None:
    async def scenario(world: World) -> None:
        world.trace.note("test", "the line before")
        raise Violation("a promise")

    with pytest.raises(SeedFailed) as failure:
        simulate("echo", scenario, 77)
    text = str(failure.value)
    assert "a promise" in text
    assert "the line before" in text
    assert "python -m tests.sim.long --scenario echo --seed 77" in text


def test_a_check_that_fails_in_passing_fails_the_seed() -> None:
    async def scenario(world: World) -> None:
        def check() -> None:
            if 1005.0 < world.now() < 1006.0:
                raise Violation("a moment's weakness")

        world.always(check)
        for _ in range(100):
            await asyncio.sleep(0.5)

    with pytest.raises(SeedFailed, match="a moment's weakness"):
        simulate("test", scenario, 1)


# ------------------------------------------------------------------------------------------- nodes


def test_nothing_of_a_dead_process_runs_and_its_env_is_dead() -> None:
    async def scenario(world: World) -> None:
        deeds: list[str] = []

        async def main(env: Env) -> None:
            env.clock.call_at(env.now() + 5.0, lambda: deeds.append("timer"))
            file = env.disk.open("file")
            try:
                await env.clock.sleep(5.0)
                deeds.append("slept")
            finally:
                deeds.append("finally")
                file.append(b"last words")

        node = world.node("n", main)
        env = node.boot()
        await asyncio.sleep(1.0)
        node.crash()
        await asyncio.sleep(10.0)
        assert deeds == []
        with pytest.raises(BaseException, match=r"n\.1"):
            env.disk.open("other")
        with pytest.raises(BaseException, match=r"n\.1"):
            env.transport.channel("x:1")
        with pytest.raises(BaseException, match=r"n\.1"):
            env.spawn("ghost", asyncio.sleep(1.0))
        node.boot()
        await asyncio.sleep(10.0)
        assert sorted(deeds) == ["finally", "slept", "timer"]
        assert not node.is_up

    in_world(scenario)


def test_a_paused_process_does_everything_late() -> None:
    async def scenario(world: World) -> None:
        times: list[float] = []

        async def main(env: Env) -> None:
            while True:
                await env.clock.sleep(1.0)
                times.append(round(world.now() - 1000.0, 3))

        node = world.node("n", main)
        node.boot()
        await asyncio.sleep(2.5)
        node.pause()
        await asyncio.sleep(5.0)
        node.resume()
        await asyncio.sleep(2.0)
        assert times == [1.0, 2.0, 7.5, 8.5, 9.5][: len(times)]
        assert len(times) == 4 or times[-1] == 9.5

    in_world(scenario)


def test_clocks_of_two_processes_have_nothing_in_common_but_their_pace() -> None:
    async def scenario(world: World) -> None:
        a, b = world.node("a"), world.node("b")
        before = a.boot().now(), b.boot().now()
        a.jump_wall(-3600.0)
        await asyncio.sleep(2.0)
        assert a.env.now() - before[0] == b.env.now() - before[1] == 2.0
        assert abs(before[0] - before[1]) > 1.0
        assert b.env.wall() - a.env.wall() == 3600 * 10**9
        assert a.env.ids.new_id() != b.env.ids.new_id()

    in_world(scenario)


def test_a_process_that_dies_of_an_error_is_a_problem_unless_it_is_its_disk() -> None:
    async def scenario(world: World, error: Exception) -> None:
        async def main(env: Env) -> None:
            await env.clock.sleep(1.0)
            raise error

        node = world.node("n", main)
        node.boot()
        await asyncio.sleep(4.5)
        assert node.lives == 3

    in_world(lambda world: scenario(world, OSError("disk")))
    with pytest.raises(SeedFailed, match="main died"):
        in_world(lambda world: scenario(world, RuntimeError("bug")))
