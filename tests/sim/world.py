"""A world of simulated processes, and how one seed of a scenario is run and reported.

A scenario is a coroutine over a `World`. It makes nodes (one per process: a name, a machine, a main
coroutine), lets a `Nemesis` loose on them, heals, and checks. `simulate` runs it for one seed and
raises `SeedFailed` with all that is needed to see the failure again.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from random import Random
from typing import Any, TypeVar

from skep.env import DiceIds, Env, Monotonic, Timer, WallNs
from tests.sim.connection import IncarnationDead
from tests.sim.disk import SimDisk
from tests.sim.loop import Owner, OwnerState, SimulatedLoop, run
from tests.sim.network import SimNetwork, SimTransport
from tests.sim.trace import Trace

T = TypeVar("T")
Main = Callable[[Env], Coroutine[Any, Any, None]]

EPOCH_NS = 1_700_000_000_000_000_000
POLL_S = 0.05
# Long enough for whoever keeps processes up to notice, as a daemon on a real machine would.
RESTART_AFTER_EXIT_S = 1.0
LINES_SHOWN = 50
PROBLEMS_SHOWN = 10


class Violation(AssertionError):
    """A promise that did not hold."""


class SeedFailed(AssertionError):
    """One seed of a scenario found something; the text says what, and how to see it again."""


class SimClock:
    """One process's clock: monotonic time with an origin of its own, and its machine's wall time.

    It implements `skep.env.Clock`.
    """

    def __init__(self, loop: SimulatedLoop, owner: Owner, origin_s: float, node: SimNode) -> None:
        self._loop = loop
        self._owner = owner
        self._origin_s = origin_s
        self._node = node

    def now(self) -> Monotonic:
        return Monotonic(self._loop.time() + self._origin_s)

    def wall(self) -> WallNs:
        return WallNs(EPOCH_NS + int((self._loop.time() + self._node.wall_offset_s) * 1e9))

    def call_at(self, when: float, callback: Callable[[], None]) -> Timer:
        self._must_live()
        return self._loop.call_at(when - self._origin_s, callback, context=self._owner.context())

    async def sleep(self, delay_s: float) -> None:
        self._must_live()
        await asyncio.sleep(delay_s)

    async def within(self, deadline_s: float, awaitable: Awaitable[T]) -> T:
        self._must_live()
        async with asyncio.timeout(deadline_s):
            return await awaitable

    def _must_live(self) -> None:
        if self._owner.is_dead:
            raise IncarnationDead(self._owner.name)


class SimSpawn:
    """Starts tasks that live and die with their process; implements `skep.env.Spawn`."""

    def __init__(self, loop: SimulatedLoop, owner: Owner) -> None:
        self._loop = loop
        self._owner = owner

    def spawn(self, name: str, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        if self._owner.is_dead:
            work.close()
            raise IncarnationDead(self._owner.name)
        task: asyncio.Task[T] = self._loop.create_task(
            work, name=f"{self._owner.name}/{name}", context=self._owner.context()
        )
        return task


class SimNode:
    """One process, through all its lives. `main` makes a life; None leaves it to the test.

    A life that ends by an error which `tolerated` names is begun again, as by a process manager;
    any other error is a problem as well.
    """

    def __init__(self, world: World, name: str, machine: str, main: Main | None) -> None:
        self.world = world
        self.name = name
        self.machine = machine
        self.main = main
        self.disk = SimDisk(name, world.dice(f"disk:{name}"), world.trace)
        self.wall_offset_s = 0.0
        self.lives = 0
        self.tolerated: tuple[type[BaseException], ...] = (OSError,)
        self.on_death: Callable[[bool], None] = lambda is_power_lost: None
        self._owner: Owner | None = None
        self._env: Env | None = None
        self._dice = world.dice(f"node:{name}")

    @property
    def is_up(self) -> bool:
        """Whether the process lives (it may be paused)."""
        return self._owner is not None

    @property
    def is_paused(self) -> bool:
        """Whether the process lives, and is stopped for now."""
        return self._owner is not None and self._owner.state is OwnerState.HELD

    @property
    def env(self) -> Env:
        """The present life's environment."""
        assert self._env is not None, f"{self.name} is down"
        return self._env

    def boot(self) -> Env:
        """Begin a life; a live one goes on."""
        if self._owner is not None:
            return self.env
        self.lives += 1
        world = self.world
        owner = self._owner = Owner(world.loop, f"{self.name}.{self.lives}")
        world.trace.note("node", f"{owner.name} boots")
        world.network.power(self.machine, is_on=True)
        key = f"{world.seed}:{owner.name}"
        # Far from every other process's: a monotonic time that crossed the wire must show.
        origin_s = float(self._dice.randrange(100_000, 1_000_000))
        self._env = Env(
            node=self.name,
            clock=SimClock(world.loop, owner, origin_s, self),
            dice=Random(f"dice:{key}"),
            ids=DiceIds(Random(f"ids:{key}")),
            tasks=SimSpawn(world.loop, owner),
            transport=SimTransport(world.network, self.machine, owner),
            disk=self.disk.view(owner),
            turn=_Turns(world, Random(f"turn:{key}")).turn,
        )
        if self.main is not None:
            self._env.spawn("main", self._live(owner, self.main))
        return self._env

    def crash(self, *, is_power_lost: bool = False) -> None:
        """End the present life at once: killed, or with its machine's power."""
        if self._owner is None:
            return
        owner, self._owner, self._env = self._owner, None, None
        self.world.trace.note("node", f"{owner.name} dies power_lost={is_power_lost}")
        owner.kill()
        if is_power_lost:
            self.disk.power_lost()
            self.world.network.power(self.machine, is_on=False)
        else:
            self.disk.process_died()
        self.world.network.process_died(owner, is_power_lost=is_power_lost)
        self.on_death(is_power_lost)

    def pause(self) -> None:
        """Stop it as SIGSTOP would: the kernel still takes what comes."""
        if self._owner is not None:
            self._owner.hold()

    def resume(self) -> None:
        """Let a paused process go on."""
        if self._owner is not None:
            self._owner.resume()

    def jump_wall(self, by_s: float) -> None:
        """Move the machine's time of day; monotonic time goes on as before."""
        self.wall_offset_s += by_s

    async def _live(self, owner: Owner, main: Main) -> None:
        try:
            await main(self.env)
        except Exception as error:
            if not isinstance(error, self.tolerated):
                self.world.problem(f"{owner.name}: main died: {error!r}")
            self.world.trace.note("node", f"{owner.name} exits by {type(error).__name__}")
            self.world.after(RESTART_AFTER_EXIT_S, self._restart_if_down)
        self.world.after(0.0, lambda: self._exited(owner))

    def _exited(self, owner: Owner) -> None:
        if self._owner is owner:
            self.crash()

    def _restart_if_down(self) -> None:
        if self._owner is None:
            self.boot()


class _Turns:
    """Now and then an actor waits a little before a message, as behind a slow neighbour."""

    def __init__(self, world: World, dice: Random) -> None:
        self._world = world
        self._dice = dice

    async def turn(self) -> None:
        if self._world.hesitation and self._dice.random() < self._world.hesitation:
            await asyncio.sleep(self._dice.expovariate(1.0 / 0.02))


class World:
    """Everything that exists for one seed. Made inside the simulated loop."""

    def __init__(self, seed: int, *, is_full_trace: bool = False) -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, SimulatedLoop)
        self.seed = seed
        self.loop = loop
        self.trace = Trace(loop.time, is_full=is_full_trace)
        self.network = SimNetwork(loop, self.dice("network"), self.trace)
        self.nodes: dict[str, SimNode] = {}
        self.hesitation = 0.0
        self._problems: list[str] = []

    def dice(self, name: str) -> Random:
        """A stream of dice of its own for `name`."""
        return Random(f"{self.seed}:{name}")

    def node(self, name: str, main: Main | None = None, *, machine: str | None = None) -> SimNode:
        """A new process, not yet booted, on a machine of its own unless one is named."""
        assert name not in self.nodes, name
        self.nodes[name] = SimNode(self, name, machine or name, main)
        return self.nodes[name]

    def now(self) -> float:
        """Virtual seconds."""
        return self.loop.time()

    def after(self, delay_s: float, callback: Callable[[], None]) -> None:
        """Call back as the world, whatever becomes of the processes."""
        self.network.after(delay_s, callback)

    def problem(self, text: str) -> None:
        """Something that must not happen has; the scenario goes on, and fails at its end."""
        self.trace.note("problem", text)
        self._problems.append(f"{self.now():.3f} {text}")

    def problems(self) -> list[str]:
        """All that was noted, by anyone."""
        return [*self._problems, *self.network.problems, *self.loop.problems]

    def check(self) -> None:
        """Raise Violation if anything was noted."""
        if problems := self.problems():
            raise Violation("\n".join(problems[:PROBLEMS_SHOWN]))

    def always(self, check: Callable[[], None]) -> None:
        """Call `check` after every round of callbacks; it must be cheap, and raise Violation."""

        def guarded() -> None:
            try:
                check()
            except Violation as violation:
                self.problem(str(violation))
                self.loop.after_each.remove(guarded)

        self.loop.after_each.append(guarded)

    async def eventually(self, what: str, is_true: Callable[[], bool], *, within_s: float) -> float:
        """Wait until it is true; the seconds it took. Raises Violation when time is up."""
        begin = self.now()
        while not is_true():
            if self.now() - begin > within_s:
                raise Violation(f"not within {within_s} s: {what}")
            await asyncio.sleep(POLL_S)
        return self.now() - begin


Scenario = Callable[[World], Coroutine[Any, Any, None]]


@dataclass(frozen=True)
class Report:
    """What one seed was like."""

    seed: int
    digest: str
    virtual_s: float
    faults: Counter[str]
    lines: tuple[str, ...]


def simulate(name: str, scenario: Scenario, seed: int, *, is_full_trace: bool = False) -> Report:
    """Run one seed of a scenario. Raises SeedFailed, with the line that runs it again."""
    worlds: list[World] = []

    async def main() -> Report:
        world = World(seed, is_full_trace=is_full_trace)
        worlds.append(world)
        if is_full_trace:
            world.loop.step_trace = world.trace
        begin = world.now()
        await scenario(world)
        world.check()
        world.trace.note("end", f"order={world.loop.order_digest}")
        digest, virtual_s = world.trace.digest, world.now() - begin
        lines = tuple(world.trace.lines(world.trace.count))
        return Report(seed, digest, virtual_s, world.trace.faults, lines)

    try:
        return run(seed, main())
    except Exception as error:
        raise SeedFailed(_story(name, seed, worlds, error)) from error


def _story(name: str, seed: int, worlds: list[World], error: Exception) -> str:
    text = [f"{name}: seed {seed}: {type(error).__name__}: {error}"]
    for world in worlds:
        text += [f"  {line}" for line in world.trace.lines(LINES_SHOWN)]
        text += [f"noted: {problem}" for problem in world.problems()[:PROBLEMS_SHOWN]]
    text.append(f"replay: python -m tests.sim.long --scenario {name} --seed {seed}")
    return "\n".join(text)
