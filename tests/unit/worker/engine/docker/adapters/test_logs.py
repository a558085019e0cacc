"""Reading containers' output from a real Docker engine."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

import aiodocker
import pytest

from skep.domain.control import LogLine, LogStream
from skep.env import Rejected
from skep.worker.engine.core.lines import PIECE_BYTES
from skep.worker.engine.docker.adapters.logs import ContainerLog, open_log
from skep.worker.engine.protocol import LogQuery
from tests.support.dockerd import BUSYBOX, Dockerd, busybox_files
from tests.unit.worker.engine.adapters.workbench import eventually, new_env

DEADLINE_S = 60.0
ALL = LogQuery()
FOLLOW = LogQuery(is_follow=True)
ONE_TO_TEN = [str(number) for number in range(1, 11)]


@dataclass
class Bench:
    """An engine, and the containers of one test."""

    engine: Dockerd
    docker: aiodocker.Docker
    made: list[str] = field(default_factory=list)

    def create(
        self, *command: str, driver: str = "json-file", options: object = None, tty: bool = False
    ) -> str:
        body = {
            "Image": BUSYBOX,
            "Cmd": list(command),
            "Tty": tty,
            "OpenStdin": True,
            "HostConfig": {
                "NetworkMode": "none",
                "LogConfig": {"Type": driver, "Config": options or {}},
            },
        }
        container = str(self.engine.call("POST", "/containers/create", body)["Id"])
        self.made.append(container)
        return container

    def run(self, *command: str, **more: Any) -> str:
        container = self.create(*command, **more)
        self.engine.call("POST", f"/containers/{container}/start")
        return container

    def finished(self, *command: str, **more: Any) -> str:
        container = self.run(*command, **more)
        self.engine.call("POST", f"/containers/{container}/wait")
        return container

    async def log(self, container: str, query: LogQuery) -> ContainerLog:
        return await open_log(self.docker, new_env(), container, query)

    async def lines(self, container: str, query: LogQuery) -> list[str]:
        log = await self.log(container, query)
        found = [line.text.decode() for line in await rest_of(log)]
        log.close()
        return found


async def rest_of(log: ContainerLog) -> list[LogLine]:
    """All lines, up to the end."""
    found: list[LogLine] = []
    while True:
        chunk = await log.read()
        found += chunk.lines
        if chunk.is_end:
            return found
        if not chunk.lines:
            await log.more()


async def next_lines(log: ContainerLog, count: int) -> list[str]:
    """As many lines as that, as they come."""
    found: list[str] = []
    while len(found) < count:
        chunk = await log.read()
        found += [line.text.decode() for line in chunk.lines]
        assert not chunk.is_end, found
        if not chunk.lines:
            await log.more()
    return found


@contextlib.asynccontextmanager
async def bench(engine: Dockerd) -> AsyncIterator[Bench]:
    made = Bench(engine, aiodocker.Docker(url=engine.url))
    try:
        async with asyncio.timeout(DEADLINE_S):
            yield made
    finally:
        await made.docker.close()
        for container in made.made:
            engine.call("DELETE", f"/containers/{container}?force=1&v=1")


def on_bench(engine: Dockerd, body: Callable[[Bench], Coroutine[Any, Any, None]]) -> None:
    async def whole() -> None:
        async with bench(engine) as made:
            await body(made)

    asyncio.run(whole())


DRIVERS = ["json-file", "local"]


@pytest.mark.parametrize("driver", DRIVERS)
def test_lines_come_with_their_streams_and_times_and_then_the_end(
    engine: Dockerd, driver: str
) -> None:
    async def body(bench: Bench) -> None:
        before = time.time_ns()
        script = "echo one; sleep 0.1; echo two >&2; sleep 0.1; printf three"
        container = bench.finished("sh", "-c", script, driver=driver)
        for query in (ALL, FOLLOW):
            log = await bench.log(container, query)
            lines = await rest_of(log)
            assert [(line.stream, line.text) for line in lines] == [
                (LogStream.STDOUT, b"one"),
                (LogStream.STDERR, b"two"),
                (LogStream.STDOUT, b"three"),
            ]
            times = [line.time_ns for line in lines]
            assert before < times[0] < times[1] < times[2] < time.time_ns()
            assert (await log.read()).is_end
            log.close()

    on_bench(engine, body)


@pytest.mark.parametrize("driver", DRIVERS)
def test_the_newest_lines_and_those_from_a_time_on(engine: Dockerd, driver: str) -> None:
    async def body(bench: Bench) -> None:
        script = "for n in $(seq 5); do echo $n; done; sleep 0.2; seq 6 10"
        container = bench.finished("sh", "-c", script, driver=driver)
        assert await bench.lines(container, ALL) == ONE_TO_TEN
        assert await bench.lines(container, LogQuery(tail=3)) == ["8", "9", "10"]
        assert await bench.lines(container, LogQuery(tail=0)) == []
        assert await bench.lines(container, LogQuery(tail=99)) == ONE_TO_TEN
        log = await bench.log(container, ALL)
        sixth_ns = (await rest_of(log))[5].time_ns
        since = sixth_ns - 100_000_000
        assert await bench.lines(container, LogQuery(since_ns=since)) == ["6", "7", "8", "9", "10"]
        assert await bench.lines(container, LogQuery(since_ns=since, tail=2)) == ["9", "10"]
        assert await bench.lines(container, LogQuery(since_ns=since, tail=7)) == ONE_TO_TEN[5:]

    on_bench(engine, body)


@pytest.mark.parametrize("driver", DRIVERS)
def test_a_follower_gets_what_comes_and_the_end(engine: Dockerd, driver: str) -> None:
    async def body(bench: Bench) -> None:
        script = "echo first; while read line; do echo got $line; done"
        container = bench.run("sh", "-c", script, driver=driver)
        log = await bench.log(container, FOLLOW)
        assert await next_lines(log, 1) == ["first"]
        assert (await log.read()).lines == ()
        waiting = asyncio.create_task(log.more())
        await asyncio.sleep(0.3)
        assert not waiting.done()
        # Waiting may be given up and begun again.
        waiting.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await waiting
        bench.engine.call("POST", f"/containers/{container}/kill?signal=KILL")
        assert await rest_of(log) == []
        log.close()

    on_bench(engine, body)


def test_lines_of_a_chatty_container_come_once_each_while_it_is_followed(engine: Dockerd) -> None:
    async def body(bench: Bench) -> None:
        script = "seq 1 20000; seq 20001 40000 >&2; sleep 0.2; seq 40001 60000"
        container = bench.run("sh", "-c", script)
        log = await bench.log(container, FOLLOW)
        found = [int(line.text) for line in await rest_of(log)]
        assert sorted(found) == list(range(1, 60001))
        log.close()

    on_bench(engine, body)


def test_a_reader_is_taken_up_where_it_stood(engine: Dockerd) -> None:
    async def body(bench: Bench) -> None:
        container = bench.finished("sh", "-c", "seq 1 700; seq 701 1000 >&2; echo end")
        whole = await bench.lines(container, ALL)
        found: list[str] = []
        position = ""
        while True:
            log = await bench.log(container, LogQuery(position=position))
            chunk = await log.read()
            log.close()
            if chunk.is_end:
                break
            found += [line.text.decode() for line in chunk.lines]
            position = chunk.position
        assert found == whole
        # Tail and time were for the beginning.
        again = LogQuery(position=position, tail=5, since_ns=0)
        assert await bench.lines(container, again) == []

    on_bench(engine, body)


@pytest.mark.parametrize("query", [FOLLOW, LogQuery(tail=2, is_follow=True)])
def test_where_a_reader_begins_is_known_before_it_has_read(
    engine: Dockerd, query: LogQuery
) -> None:
    async def body(bench: Bench) -> None:
        container = bench.finished("seq", "10")
        log = await bench.log(container, query)
        position = log.position
        log.close()
        expected = ONE_TO_TEN[-2:] if query.tail else ONE_TO_TEN
        assert await bench.lines(container, LogQuery(position=position)) == expected

    on_bench(engine, body)


def test_what_is_written_after_a_reader_began_with_nothing_is_not_lost(engine: Dockerd) -> None:
    async def body(bench: Bench) -> None:
        container = bench.create("sh", "-c", "echo hello")
        log = await bench.log(container, FOLLOW)
        position = log.position
        assert (await log.read()).lines == ()
        bench.engine.call("POST", f"/containers/{container}/start")
        assert await next_lines(log, 1) == ["hello"]
        log.close()
        assert await bench.lines(container, LogQuery(position=position)) == ["hello"]

    on_bench(engine, body)


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("tty", [False, True])
def test_long_lines_come_in_pieces(engine: Dockerd, driver: str, *, tty: bool) -> None:
    size = 2 * PIECE_BYTES + 1000

    async def body(bench: Bench) -> None:
        script = f"echo a; head -c {size} /dev/zero | tr '\\0' x; echo; echo b"
        container = bench.finished("sh", "-c", script, driver=driver, tty=tty)
        lines = await bench.lines(container, ALL)
        assert lines[0] == "a"
        assert lines[-1] == "b"
        assert "".join(lines[1:-1]) == "x" * size
        assert max(map(len, lines)) <= PIECE_BYTES

    on_bench(engine, body)


def test_a_terminal_has_one_stream_and_plain_lines(engine: Dockerd) -> None:
    async def body(bench: Bench) -> None:
        container = bench.finished("sh", "-c", "echo one; echo two >&2; echo", tty=True)
        log = await bench.log(container, ALL)
        lines = [(line.stream, line.text) for line in await rest_of(log)]
        assert lines == [(LogStream.STDOUT, text) for text in (b"one", b"two", b"")]

    on_bench(engine, body)


def test_rotated_logs_are_read_as_far_as_they_are_kept(engine: Dockerd) -> None:
    async def body(bench: Bench) -> None:
        options = {"max-size": "20k", "max-file": "2"}
        container = bench.run("sh", "-c", "seq 1 5000; read x", options=options)
        log = await bench.log(container, FOLLOW)
        await eventually(lambda: "5000" in bench.engine.get(tail_of(container)))
        await log.read()
        position = log.position
        log.close()
        found = await bench.lines(container, ALL)
        assert found == [str(n) for n in range(int(found[0]), 5001)]
        # One who stood at lines that are gone goes on with what is there.
        old = LogQuery(position=f"{int(position.split('.')[0]) - 10**10}.1")
        assert await bench.lines(container, old) == found

    on_bench(engine, body)


def tail_of(container: str) -> str:
    return f"/containers/{container}/logs?stdout=1&tail=1"


def test_a_driver_that_keeps_nothing_here_says_so(engine: Dockerd) -> None:
    async def body(bench: Bench) -> None:
        container = bench.finished("echo", "hello", driver="none")
        with pytest.raises(Rejected, match="its log driver 'none' keeps no output on its node"):
            await bench.log(container, ALL)

    on_bench(engine, body)


def test_a_container_that_is_gone(engine: Dockerd) -> None:
    async def body(bench: Bench) -> None:
        container = bench.finished("echo", "hello")
        log = await bench.log(container, FOLLOW)
        engine.call("DELETE", f"/containers/{bench.made.pop()}")
        with pytest.raises(Rejected, match="its container is gone"):
            await bench.log(container, ALL)
        assert [line.text for line in await rest_of(log)] in ([b"hello"], [])
        log.close()

    on_bench(engine, body)


def test_a_follower_survives_the_engines_death() -> None:
    own = Dockerd()

    async def body(bench: Bench) -> None:
        script = "n=0; while true; do n=$((n+1)); echo $n; sleep 0.02; done"
        container = bench.run("sh", "-c", script)
        log = await bench.log(container, FOLLOW)
        found = await next_lines(log, 10)
        own.kill(signal.SIGKILL)
        waiting = asyncio.create_task(next_lines(log, 200))
        await asyncio.to_thread(own.start)
        found += await waiting
        assert found == [str(number) for number in range(1, len(found) + 1)]
        log.close()

    try:
        own.start()
        own.make_image(BUSYBOX, busybox_files(), 'CMD ["sh"]', "ENV PATH=/bin")
        on_bench(own, body)
    finally:
        own.remove()
