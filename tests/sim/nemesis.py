"""Who breaks things: faults drawn from the seed, each undone after a while, all undone by `heal`.

Swarm testing: a seed switches whole families of faults on or off and draws how hard they strike,
since many bugs need one kind of fault often and another never.
"""

from __future__ import annotations

import asyncio
import contextvars
import math
from collections.abc import Callable, Mapping, Sequence

from tests.sim.world import SimNode, World

Fault = Callable[[], None]

# A family is on in this share of the seeds.
FAMILY_SHARE = 0.5
LONGEST_PAUSE_S = 12.0
LONGEST_OUTAGE_S = 10.0


class Nemesis:
    """Strikes `victims` and the links between their machines. Who is named more than once is
    struck more often.

    `extra` adds families of the scenario's own: a fault that undoes itself, or lasts until `heal`.
    `only` narrows the families for a scenario that can't stand some of them.
    """

    def __init__(
        self,
        world: World,
        victims: Sequence[SimNode],
        *,
        extra: Mapping[str, Fault] | None = None,
        only: frozenset[str] | None = None,
    ) -> None:
        self._world = world
        self._victims = tuple(victims)
        self._dice = world.dice("nemesis")
        self._is_over = False
        self._life = 0
        families: dict[str, Fault] = {
            "kill": self._kill,
            "power": self._power,
            "pause": self._pause,
            "partition": self._partition,
            "one_way": self._one_way,
            "reset": self._reset,
            "slow_link": self._slow_link,
            "slow_disk": self._slow_disk,
            "sync_error": self._sync_error,
            "full_disk": self._full_disk,
            "wall_jump": self._wall_jump,
            **(extra or {}),
        }
        allowed = {
            n: f for n, f in families.items() if only is None or n in only or n in (extra or {})
        }
        chosen = {n: f for n, f in allowed.items() if self._dice.random() < FAMILY_SHARE}
        self.families = chosen or allowed
        self._weights = [self._dice.uniform(0.2, 1.0) for _ in self.families]
        self.mean_gap_s = self._log_uniform(0.6, 6.0)
        self._draw_climate()

    @property
    def machines(self) -> list[str]:
        """The machines of the victims."""
        return sorted({victim.machine for victim in self._victims})

    async def run(self, for_s: float) -> None:
        """Strike for so long, then stop; what is broken stays broken until `heal`."""
        end = self._world.now() + for_s
        while True:
            gap_s = self._dice.expovariate(1.0 / self.mean_gap_s)
            if self._world.now() + gap_s >= end:
                await asyncio.sleep(end - self._world.now())
                return
            await asyncio.sleep(gap_s)
            strike = self._dice.choices(list(self.families.values()), self._weights)[0]
            strike()

    def heal(self) -> None:
        """Everything works again: links, disks, processes, and the pace of time."""
        self._life += 1
        self._world.trace.note("nemesis", "heals")
        self._world.network.heal_all()
        self._world.network.climate.loss = 0.0
        self._world.hesitation = 0.0
        for victim in self._victims:
            temper = victim.disk.temper
            temper.slowness, temper.sync_error, temper.is_full = 1.0, 0.0, False
            victim.resume()
            victim.boot()

    def later(self, after_s: float, undo: Callable[[], None]) -> None:
        """Undo a fault after a while, unless `heal` has done so already."""
        life = self._life

        def still() -> None:
            if self._life == life:
                undo()

        self._world.loop.call_later(after_s, still, context=contextvars.Context())

    def note(self, kind: str, text: str) -> None:
        """Record a fault."""
        self._world.trace.fault(kind, text)

    def isolate(self, machine: str) -> None:
        """Cut one machine off from all others, for a while."""
        others = [other for other in self.machines if other != machine]
        pairs = [(machine, other) for other in others] + [(other, machine) for other in others]
        self._cut("isolate", pairs)

    # -------------------------------------------------------------------------------- families

    def _kill(self) -> None:
        for victim in self._pick():
            if victim.is_up:
                self.note("kill", victim.name)
                victim.crash()
                self.later(self._dice.uniform(0.1, LONGEST_OUTAGE_S), lambda v=victim: boot(v))  # type: ignore[misc]

    def _power(self) -> None:
        machines = {victim.machine for victim in self._pick()}
        outage_s = self._dice.uniform(0.5, LONGEST_OUTAGE_S)
        for victim in self._victims:
            if victim.machine in machines and victim.is_up:
                self.note("power", victim.name)
                victim.crash(is_power_lost=True)
                self.later(outage_s, lambda v=victim: boot(v))  # type: ignore[misc]

    def _pause(self) -> None:
        victim = self._dice.choice(self._victims)
        pause_s = self._log_uniform(0.05, LONGEST_PAUSE_S)
        self.note("pause", f"{victim.name} {pause_s:.2f} s")
        victim.pause()
        self.later(pause_s, victim.resume)

    def _partition(self) -> None:
        machines = self.machines
        size = 1 if self._dice.random() < 0.5 else self._dice.randint(1, max(1, len(machines) - 1))
        # As many draws as that, by weight; the same machine may come twice.
        inside = {self._dice.choice(self._victims).machine for _ in range(size)}
        pairs = [(a, b) for a in machines for b in machines if (a in inside) != (b in inside)]
        self._cut("partition", pairs)

    def _one_way(self) -> None:
        machines = self.machines
        pairs = [(a, b) for a in machines for b in machines if a != b]
        count = self._dice.randint(1, max(1, len(pairs) // 2))
        self._cut("one_way", self._dice.sample(pairs, min(count, len(pairs))))

    def _cut(self, kind: str, pairs: list[tuple[str, str]]) -> None:
        self.note(kind, " ".join(f"{a}>{b}" for a, b in pairs))
        for a, b in pairs:
            self._world.network.cut(a, b)

        def undo() -> None:
            for a, b in pairs:
                self._world.network.heal(a, b)

        self.later(self._log_uniform(0.3, 2 * LONGEST_OUTAGE_S), undo)

    def _reset(self) -> None:
        if len(self.machines) > 1:
            a, b = self._dice.sample(self.machines, 2)
            self.note("reset", f"{a} {b}")
            self._world.network.reset(a, b)

    def _slow_link(self) -> None:
        if len(self.machines) > 1:
            a, b = self._dice.sample(self.machines, 2)
            factor = self._log_uniform(5.0, 500.0)
            self.note("slow_link", f"{a}>{b} x{factor:.0f}")
            self._world.network.slowness[a, b] = factor
            undo: Callable[[], None] = lambda: _forget(self._world.network.slowness, (a, b))  # noqa: E731
            self.later(self._log_uniform(0.5, 20.0), undo)

    def _slow_disk(self) -> None:
        temper = self._dice.choice(self._victims).disk.temper
        temper.slowness = self._log_uniform(5.0, 300.0)
        self.note("slow_disk", f"x{temper.slowness:.0f}")
        self.later(self._log_uniform(0.5, 15.0), lambda: setattr(temper, "slowness", 1.0))

    def _sync_error(self) -> None:
        temper = self._dice.choice(self._victims).disk.temper
        temper.sync_error = self._log_uniform(0.02, 0.5)
        # Each error that strikes is counted by the disk.
        self.later(self._log_uniform(0.1, 3.0), lambda: setattr(temper, "sync_error", 0.0))

    def _full_disk(self) -> None:
        victim = self._dice.choice(self._victims)
        victim.disk.temper.is_full = True
        self.note("full_disk", victim.name)
        undo: Callable[[], None] = lambda: setattr(victim.disk.temper, "is_full", False)  # noqa: E731
        self.later(self._log_uniform(0.2, 5.0), undo)

    def _wall_jump(self) -> None:
        victim = self._dice.choice(self._victims)
        by_s = self._dice.choice((-1, 1)) * self._log_uniform(0.5, 100_000.0)
        self.note("wall_jump", f"{victim.name} {by_s:.1f} s")
        victim.jump_wall(by_s)

    # ------------------------------------------------------------------------------------ dice

    def _pick(self) -> list[SimNode]:
        """Mostly one victim, at times several, rarely all of them."""
        draw = self._dice.random()
        if draw < 0.75:
            return [self._dice.choice(self._victims)]
        if draw < 0.95:
            return self._dice.sample(self._victims, self._dice.randint(1, len(self._victims)))
        return list(self._victims)

    def _log_uniform(self, low: float, high: float) -> float:
        return math.exp(self._dice.uniform(math.log(low), math.log(high)))

    def _draw_climate(self) -> None:
        climate = self._world.network.climate
        climate.mean_delay_s = self._log_uniform(0.0001, 0.01)
        climate.loss = self._dice.choice((0.0, 0.0, 0.001, 0.01, 0.03))
        climate.keepalive_s = self._log_uniform(2.0, 15.0)
        climate.window = self._dice.choice((1, 4, 16, 64))
        self._world.hesitation = self._dice.choice((0.0, 0.0, 0.01, 0.1))
        mean_sync_s = self._log_uniform(0.0002, 0.01)
        for victim in self._victims:
            victim.disk.temper.mean_sync_s = mean_sync_s


def boot(victim: SimNode) -> None:
    victim.boot()


def _forget(slowness: dict[tuple[str, str], float], link: tuple[str, str]) -> None:
    slowness.pop(link, None)
