"""One process in a simulated world, for tests of single actors."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable

from skep.env import Env
from tests.sim.world import World, simulate

# Enough that a test which depends on the order of callbacks fails in one of them.
SEEDS = range(10)


def in_simulation(
    body: Callable[[Env], Coroutine[None, None, None]], seeds: Iterable[int] = SEEDS
) -> None:
    """Run `body` in a process of its own, once per seed, under virtual time."""

    async def scenario(world: World) -> None:
        await body(world.node("node").boot())

    for seed in seeds:
        simulate("test", scenario, seed)
