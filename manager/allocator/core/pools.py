"""Task addresses and dynamic published ports.

Pools are rebuilt from the cluster's state for each pass, and hold nothing of their own: what a row
names is taken, everything else is free. Only where to go on looking is carried from pass to pass,
so that an address rests for as long as possible before another task gets it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from skep.domain.base import replace
from skep.domain.objects import Service
from skep.domain.spec import Port, PortMode, Protocol

# Of 127.B.x.y, x below 16 is for nodes; y 0 and 255 look like networks to some programs.
FIRST_THIRD_BYTE = 16
LAST_THIRD_BYTE = 255

# Where Swarm has them too: above the ports people choose, below the kernel's own.
DYNAMIC_PORT_FIRST = 30_000
DYNAMIC_PORT_LAST = 32_767


class AddressPool:
    """127.B.16.1 to 127.B.255.254, given out in turn from `cursor` on; a pool that isn't told
    where to go on begins above the highest address that is held."""

    def __init__(self, block: int, cursor: int | None = None) -> None:
        self._block = block
        self._owners: dict[str, str] = {}
        self._is_told = cursor is not None
        self._next = cursor or 0
        self._size = (LAST_THIRD_BYTE - FIRST_THIRD_BYTE + 1) * 254

    def hold_all(self, owners: Mapping[str, str]) -> None:
        """The addresses of all tasks, each with its task."""
        assert not self._owners
        self._owners = dict(owners)
        if not self._is_told:
            self._next = max((self._number(address) + 1 for address in owners), default=0)

    def __len__(self) -> int:
        return len(self._owners)

    def hold(self, address: str, task_id: str) -> None:
        """An address that a row names. Two rows with one address are our own error."""
        owner = self._owners.setdefault(address, task_id)
        assert owner == task_id, f"address={address} of task={owner} and task={task_id}"
        if not self._is_told:
            self._next = max(self._next, self._number(address) + 1)

    @property
    def cursor(self) -> int:
        """Where the next pool should go on."""
        return self._next

    def take(self, task_id: str) -> str | None:
        """The next free address, or None when all are taken."""
        for _ in range(self._size):
            address = self._address(self._next % self._size)
            self._next = (self._next + 1) % self._size
            if address not in self._owners:
                self._owners[address] = task_id
                return address
        return None

    def _address(self, number: int) -> str:
        third, fourth = divmod(number, 254)
        return f"127.{self._block}.{FIRST_THIRD_BYTE + third}.{fourth + 1}"

    def _number(self, address: str) -> int:
        third, fourth = (int(part) for part in address.split(".")[2:])
        return (third - FIRST_THIRD_BYTE) * 254 + fourth - 1


def ports_for(service: Service, services: Iterable[Service]) -> tuple[Port, ...]:
    """The service's ports with the published ones filled in, those in host mode included.

    A number that was asked for is taken as it is: who may have it was judged when the spec came in,
    and services may share one in host mode, since the scheduler keeps their tasks apart. A number
    that is given out is nobody else's, in either mode. A port that was dynamic before keeps its
    number. Raises LookupError when none is free.
    """
    taken: set[tuple[int, Protocol]] = set()
    for other in services:
        if other.id != service.id:
            for port in (*(other.ports or ()), *other.spec.ports):
                if port.published is not None:
                    taken.add((port.published, port.protocol))
    taken |= {(p.published, p.protocol) for p in service.spec.ports if p.published is not None}
    # Several ports may be alike but for their numbers.
    before: dict[tuple[int, Protocol, str, PortMode], list[int]] = {}
    for port in service.ports or ():
        if port.published is not None:
            before.setdefault(_kind(port), []).append(port.published)
    filled = []
    for port in service.spec.ports:
        number = port.published
        if number is None:
            kept = (n for n in before.get(_kind(port), ()) if (n, port.protocol) not in taken)
            number = next(kept, None) or _free_port(port.protocol, taken)
            taken.add((number, port.protocol))
        filled.append(replace(port, published=number))
    return tuple(filled)


def _kind(port: Port) -> tuple[int, Protocol, str, PortMode]:
    return port.target, port.protocol, port.name, port.mode


def _free_port(protocol: Protocol, taken: set[tuple[int, Protocol]]) -> int:
    for number in range(DYNAMIC_PORT_FIRST, DYNAMIC_PORT_LAST + 1):
        if (number, protocol) not in taken:
            return number
    raise LookupError(f"no port from {DYNAMIC_PORT_FIRST} to {DYNAMIC_PORT_LAST} is free")
