"""The network between simulated processes: who can reach whom, how late, and what breaks.

Faults act on links between machines, each direction for itself. The errors a caller sees are those
of the real transport (`skep.rpc`): UNAVAILABLE when nothing was delivered, UNKNOWN when an answer
was lost, DEADLINE_EXCEEDED when time was up; and a handler is cancelled when its caller is gone.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from random import Random
from typing import TypeVar

from skep.env import CallError, Channel, Code, Listener, Service, Stream, StreamBroken
from skep.rpc import as_call_error
from tests.sim.connection import Connection, End, Goodbye, IncarnationDead
from tests.sim.loop import Owner, SimulatedLoop
from tests.sim.trace import Trace

T = TypeVar("T")

LOCAL_DELAY_S = 0.00005
# A lost packet costs at least TCP's shortest retransmission timeout.
RETRANSMISSION_S = 0.2
# How often a connection attempt is repeated while nothing answers.
CONNECT_RETRY_S = 0.25
FIRST_FREE_PORT = 40_000


@dataclass
class Climate:
    """The network's mood, drawn per seed: seconds and probabilities."""

    mean_delay_s: float = 0.0005
    loss: float = 0.0
    keepalive_s: float = 10.0
    window: int = 16


@dataclass
class _Binding:
    """A served address."""

    owner: Owner
    machine: str
    service: Service
    handlers: dict[asyncio.Task[None], None] = field(default_factory=dict)


class SimNetwork:
    """Implements `tests.sim.connection.Weather`."""

    def __init__(self, loop: SimulatedLoop, dice: Random, trace: Trace) -> None:
        self.climate = Climate()
        self.slowness: dict[tuple[str, str], float] = {}
        self.problems: list[str] = []
        self._loop = loop
        self._dice = dice
        self._trace = trace
        self._cuts: set[tuple[str, str]] = set()
        self._dark: set[str] = set()
        self._bindings: dict[str, _Binding] = {}
        self._homes: dict[str, str] = {}
        self._connections: dict[Connection, None] = {}
        self._serial = 0
        self._next_port = FIRST_FREE_PORT

    # ------------------------------------------------------------------ what connections ask

    def now(self) -> float:
        return self._loop.time()

    def delay_s(self, source: str, target: str) -> float:
        if source == target:
            return LOCAL_DELAY_S * (1.0 + self._dice.random())
        mean_s = self.climate.mean_delay_s * self.slowness.get((source, target), 1.0)
        delay_s = self._dice.expovariate(1.0 / mean_s) + 0.2 * mean_s
        if self._dice.random() < self.climate.loss:
            delay_s += RETRANSMISSION_S * (1.0 + self._dice.expovariate(1.0))
        return delay_s

    def is_cut(self, source: str, target: str) -> bool:
        return (source, target) in self._cuts

    def is_troubled(self, machines: Collection[str]) -> bool:
        """Whether anything is wrong between these machines."""
        wrong = self._cuts | self.slowness.keys()
        return any(a in machines and b in machines for a, b in wrong)

    def after(self, delay_s: float, callback: Callable[[], None]) -> None:
        # In a context of its own: a packet under way outlives its sender.
        self._loop.call_later(delay_s, callback, context=contextvars.Context())

    def keepalive_s(self) -> float:
        return self.climate.keepalive_s * self._dice.uniform(0.5, 1.5)

    def note(self, text: str) -> None:
        self._trace.note("net", text)

    def ended(self, connection: Connection) -> None:
        if connection.is_over:
            self._connections.pop(connection, None)

    # ---------------------------------------------------------------------------------- faults

    def cut(self, source: str, target: str) -> None:
        """Let nothing through from `source` to `target`; each side gives up in its own time."""
        self._cuts.add((source, target))
        for connection in self._connections:
            if connection.joins(source, target):
                for end in connection.ends:
                    self._doubt(connection, end)

    def heal(self, source: str, target: str) -> None:
        """Let frames through again, those that were held up first."""
        self._cuts.discard((source, target))
        for connection in tuple(self._connections):
            if connection.joins(source, target):
                connection.healed()

    def heal_all(self) -> None:
        """No cuts and no slow links any more."""
        self.slowness.clear()
        for source, target in sorted(self._cuts):
            self.heal(source, target)

    def reset(self, a: str, b: str) -> None:
        """Break every connection between two machines; either side may learn it late."""
        for connection in tuple(self._connections):
            if connection.joins(a, b):
                for end in connection.ends:
                    is_late = self._dice.random() < 0.25
                    delay_s = self.keepalive_s() if is_late else self.delay_s(a, b)
                    self.after(delay_s, lambda end=end: end.fail("connection reset"))  # type: ignore[misc]

    def process_died(self, owner: Owner, *, is_power_lost: bool) -> None:
        """A process is gone. Its kernel says so, unless the whole machine lost power."""
        for address in [a for a, binding in self._bindings.items() if binding.owner is owner]:
            del self._bindings[address]
        for connection in tuple(self._connections):
            for end, other in (connection.ends, connection.ends[::-1]):
                if end.owner is owner:
                    delay_s = self.delay_s(end.machine, other.machine)
                    if is_power_lost or self.is_cut(end.machine, other.machine):
                        delay_s = self.keepalive_s()
                    self.after(delay_s, lambda other=other: other.fail("the other side died"))  # type: ignore[misc]
            self.ended(connection)

    def power(self, machine: str, *, is_on: bool) -> None:
        """A machine without power answers no connection attempt, not even with a refusal."""
        (self._dark.discard if is_on else self._dark.add)(machine)

    def _doubt(self, connection: Connection, end: End) -> None:
        a, b = connection.client.machine, connection.server.machine

        def give_up() -> None:
            if self.is_cut(a, b) or self.is_cut(b, a):
                end.fail("keepalive timed out")

        self.after(self.keepalive_s(), give_up)

    # ------------------------------------------------------------------------ what transports ask

    def bind(self, address: str, machine: str, owner: Owner, service: Service) -> str:
        """Serve an address; port 0 picks one. Raises OSError when it is taken."""
        host, _, port = address.rpartition(":")
        if port == "0" and not address.startswith("unix:"):
            address, self._next_port = f"{host}:{self._next_port}", self._next_port + 1
        key = _key(machine, address)
        if key in self._bindings:
            raise OSError(f"can't listen on {address}: in use")
        self._bindings[key] = _Binding(owner, machine, service)
        self._homes[key] = machine
        return address

    def unbind(self, machine: str, address: str) -> None:
        """Stop serving an address and cut what is open there."""
        binding = self._bindings.pop(_key(machine, address), None)
        if binding is not None:
            for task in binding.handlers:
                task.cancel()

    async def connect(
        self, machine: str, owner: Owner, address: str, method: str, *, is_call: bool
    ) -> Connection:
        """A connection whose serving side is being handled. Raises CallError; may wait for ever."""
        key = _key(machine, address)
        while True:
            home = self._homes.get(key, machine)
            await asyncio.sleep(self.delay_s(machine, home))
            if not (home in self._dark or self.is_cut(machine, home) or self.is_cut(home, machine)):
                break
            await asyncio.sleep(CONNECT_RETRY_S)
        binding = self._bindings.get(key)
        if binding is None or binding.owner.is_dead:
            raise CallError(Code.UNAVAILABLE, f"{address}: failed to connect: refused")
        self._serial += 1
        client = End(owner.name, machine, owner, address)
        server = End(binding.owner.name, binding.machine, binding.owner, owner.name)
        name = f"#{self._serial}:{method.rpartition('/')[2]}"
        connection = Connection(name, self, client, server, self.climate.window)
        self._connections[connection] = None
        self._trace.note("net", f"{name} {client.name} connects to {server.name}")
        self._serve(binding, connection, method, is_call=is_call)
        return connection

    def _serve(
        self, binding: _Binding, connection: Connection, method: str, *, is_call: bool
    ) -> None:
        """Start the handler in the serving process."""
        task: asyncio.Task[None] = self._loop.create_task(
            self._handle(binding.service, method, connection, is_call=is_call),
            name=f"{binding.owner.name}/serve {method}",
            context=binding.owner.context(),
        )
        binding.handlers[task] = None
        task.add_done_callback(
            lambda done: binding.handlers.pop(done, None), context=contextvars.Context()
        )

        def lost() -> None:
            # gRPC cancels a handler whose caller is gone; it may have seen the end before.
            delay_s = 0.0 if self._dice.random() < 0.5 else self._dice.uniform(0.0, 0.05)
            self.after(delay_s, lambda: _cancel(task))

        connection.server.on_lost = lost

    async def _handle(
        self, service: Service, method: str, connection: Connection, *, is_call: bool
    ) -> None:
        end = connection.server
        goodbye = Goodbye()
        try:
            if is_call:
                await _answer(service, method, end)
            else:
                await _find(service.streams, method)(end)
        except asyncio.CancelledError:
            self._abort(connection)
            raise
        except StreamBroken:
            if is_call:
                goodbye = Goodbye(CallError(Code.UNAVAILABLE, "a stream broke"))
        except Exception as error:
            said = as_call_error(error)
            if said.code is Code.INTERNAL:
                self.problems.append(f"{end.name}: handler of {method} raised {error!r}")
            goodbye = Goodbye(said)
        end.say_goodbye(goodbye)

    def _abort(self, connection: Connection) -> None:
        """A cancelled handler: its caller learns that the stream broke, but not why."""
        client, server = connection.ends
        server.on_lost = None
        server.fail("cancelled here")
        delay_s = self.delay_s(server.machine, client.machine)
        self.after(delay_s, lambda: client.fail("cancelled by the other side"))

    def lost_call(self, connection: Connection | None, why: str, *, is_late: bool) -> CallError:
        """What a caller is told whose call got no answer. UNKNOWN is always true."""
        is_untouched = connection is None or not connection.server.has_received
        if is_untouched and self._dice.random() < 0.5:
            return CallError(Code.UNAVAILABLE, why)
        return CallError(Code.DEADLINE_EXCEEDED if is_late else Code.UNKNOWN, why)


def _key(machine: str, address: str) -> str:
    """Unix sockets are each machine's own."""
    return f"{machine}|{address}" if address.startswith("unix:") else address


def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()


def _find(handlers: Mapping[str, T], method: str) -> T:
    if method not in handlers:
        raise CallError(Code.UNIMPLEMENTED, f"no such method: {method}")
    return handlers[method]


async def _answer(service: Service, method: str, end: End) -> None:
    request = await end.receive()
    if request is not None:
        answer = await _find(service.calls, method)(request)
        assert isinstance(answer, bytes), (method, type(answer))
        await end.send(answer)


class SimTransport:
    """One process's `skep.env.Transport`."""

    def __init__(self, network: SimNetwork, machine: str, owner: Owner) -> None:
        self._network = network
        self._machine = machine
        self._owner = owner

    async def listen(self, address: str, service: Service) -> Listener:
        self._must_live()
        bound = self._network.bind(address, self._machine, self._owner, service)
        return _SimListener(self._network, self._machine, bound)

    def channel(self, address: str) -> Channel:
        self._must_live()
        return _SimChannel(self._network, self._machine, self._owner, address)

    def _must_live(self) -> None:
        if self._owner.is_dead:
            raise IncarnationDead(self._owner.name)


class _SimListener:
    def __init__(self, network: SimNetwork, machine: str, address: str) -> None:
        self._network = network
        self._machine = machine
        self.address = address

    async def close(self) -> None:
        self._network.unbind(self._machine, self.address)


class _SimChannel:
    def __init__(self, network: SimNetwork, machine: str, owner: Owner, address: str) -> None:
        self._network = network
        self._machine = machine
        self._owner = owner
        self._address = address
        self._open: dict[End, None] = {}

    async def call(self, method: str, request: bytes, *, deadline_s: float) -> bytes:
        connection: Connection | None = None
        try:
            async with asyncio.timeout(deadline_s):
                connection = await self._connect(method, is_call=True)
                await connection.client.send(request)
                answer = await connection.client.receive()
        except TimeoutError:
            raise self._network.lost_call(connection, "deadline exceeded", is_late=True) from None
        except StreamBroken as error:
            raise self._network.lost_call(connection, str(error), is_late=False) from None
        finally:
            if connection is not None:
                connection.client.say_goodbye(Goodbye())
        if answer is None:
            raise CallError(Code.UNKNOWN, f"{self._address}: closed without an answer")
        return answer

    async def open(self, method: str, *, deadline_s: float) -> Stream:
        try:
            async with asyncio.timeout(deadline_s):
                connection = await self._connect(method, is_call=False)
        except TimeoutError:
            raise CallError(Code.UNAVAILABLE, f"{self._address} does not answer") from None
        return connection.client

    async def close(self) -> None:
        for end in tuple(self._open):
            end.say_goodbye(Goodbye())
        self._open.clear()

    async def _connect(self, method: str, *, is_call: bool) -> Connection:
        connection = await self._network.connect(
            self._machine, self._owner, self._address, method, is_call=is_call
        )
        for end in [end for end in self._open if end.is_gone]:
            del self._open[end]
        self._open[connection.client] = None
        return connection
