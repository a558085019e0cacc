"""Virtual addresses of the tasks on this node, by BPF or by address translation.

Both are given the same: what each address leads to, and the namespaces with their networks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from skep.env import Rejected, Retryable
from skep.netproxy.core.steps import Stepped, changed
from skep.netproxy.kernel.adapters import cgroup, natrules, vips
from skep.netproxy.kernel.adapters.inside import run_each
from skep.netproxy.kernel.adapters.known import HINDRANCES
from skep.netproxy.kernel.adapters.natvips import NatVips
from skep.netproxy.kernel.adapters.vip_traffic import VipTraffic
from skep.netproxy.kernel.adapters.vips import Vips
from skep.netproxy.kernel.core.traffic import Traffic
from skep.netproxy.kernel.core.understood import VipKey
from skep.netproxy.kernel.core.vips import Counts

# No task is called that, whose limits have folders beside it.
TASKS_FOLDER = "net.tasks"
BPF, NFT, AUTO = "bpf", "nft", "auto"
Backends = Mapping[VipKey, tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class Place:
    """A task's namespace: its file, its cookie, and its networks, as (VXLAN id, subnet)."""

    path: str
    cookie: int
    networks: tuple[tuple[int, str], ...]


class VipMode(Protocol):
    """One way to have virtual addresses. Everything blocks for a moment, some of it for 16 ms."""

    name: str
    cgroup: str
    # Why it isn't the better one; None for the one that is, or that was asked for.
    hindrance: str | None

    def apply(
        self, backends: Backends, places: Mapping[str, Place], *, is_all: bool
    ) -> tuple[str, ...]:
        """Make it so, for the namespaces by task id; returns what could not be done. Unless these
        are all there are, others are left as they are."""
        ...

    def attach(self, place: Place, backends: Backends) -> None:
        """The same for one namespace more. Raises Retryable."""
        ...

    def drop(self, place: Place) -> None:
        """The namespace is about to go. Raises Retryable."""
        ...

    def differences(self, backends: Backends, places: Mapping[str, Place]) -> tuple[str, ...]:
        """Where the kernel isn't as wanted, in words."""
        ...

    def connects(self) -> Mapping[VipKey, Counts]:
        """Connections and refusals so far, where they are counted; from any thread. Raises
        Retryable."""
        ...

    def traffic(self) -> Mapping[VipKey, Traffic]:
        """Bytes and round-trip times, where they are counted; from any thread. Raises
        Retryable."""
        ...

    def strays(self) -> int:
        """Packets that guards in tasks' namespaces have dropped; from any thread."""
        ...

    def forget(self) -> None:
        """Somebody else has changed the kernel: compare everything in the next `apply`."""
        ...

    def close(self) -> None:
        """Let go of it; what is in force stays."""
        ...

    def clean(self) -> None:
        """Take everything away."""
        ...


class ByBpf:
    """See `VipMode`. The kernel translates when a connection is made, and not per packet."""

    name = BPF
    hindrance: str | None = None

    def __init__(self, node: str, *, counts_traffic: bool = False) -> None:
        """Raises OSError, Rejected, Retryable."""
        self._vips = Vips(node)
        self._vips.open()
        self._traffic: VipTraffic | None = None
        # Tasks join a folder below: with version 2, limits are set in folders beside it.
        own = self._vips.cgroup_path / TASKS_FOLDER
        own.mkdir(exist_ok=True)
        self.cgroup = str(own)
        # What the maps hold by our own doing; None: to be compared with what they really hold.
        self._done: tuple[Backends, dict[int, Place]] | None = None
        traffic = VipTraffic(self._vips.cgroup_path)
        try:
            if counts_traffic:
                traffic.open()
                self._traffic = traffic
            else:
                traffic.stop()
        except BaseException:
            self._vips.close()
            raise

    def apply(
        self, backends: Backends, places: Mapping[str, Place], *, is_all: bool
    ) -> tuple[str, ...]:
        """See `VipMode.apply`."""
        by_cookie = {place.cookie: place for place in places.values()}
        try:
            if self._done is None or not is_all:
                scopes = {cookie: place.networks for cookie, place in by_cookie.items()}
                others = {} if is_all else self._vips.observe().scopes
                self._vips.apply(backends, {**others, **scopes})
            else:
                self._step(self._done, backends, by_cookie)
        except (Retryable, Rejected) as error:
            self._done = None
            return (f"virtual addresses: {error}",)
        self._done = (backends, by_cookie) if is_all else None
        return ()

    def attach(self, place: Place, backends: Backends) -> None:
        """See `VipMode.attach`."""
        try:
            self._vips.set_scope(place.cookie, place.networks)
        except Rejected as error:
            raise Retryable(f"virtual addresses: {error}") from error
        if self._done is not None:
            self._done[1][place.cookie] = place

    def _step(
        self,
        done: tuple[Backends, dict[int, Place]],
        backends: Backends,
        places: Mapping[int, Place],
    ) -> None:
        before, places_before = done
        for key in changed(before, backends):
            if (behind := backends.get(key)) is None:
                self._vips.drop_service(*key)
            elif behind != before.get(key):
                self._vips.set_service(*key, behind)
        for cookie in places_before.keys() - places.keys():
            self._vips.drop_scope(cookie)
        for cookie, place in places.items():
            if places_before.get(cookie) != place:
                self._vips.set_scope(cookie, place.networks)

    def drop(self, place: Place) -> None:
        """See `VipMode.drop`."""
        self._vips.drop_scope(place.cookie)
        if self._done is not None:
            self._done[1].pop(place.cookie, None)

    def differences(self, backends: Backends, places: Mapping[str, Place]) -> tuple[str, ...]:
        """See `VipMode.differences`."""
        seen = self._vips.observe()
        there = {key: vip.backends for key, vip in seen.services.items()}
        found = list(_compare(backends, there, ""))
        for task_id, place in places.items():
            if set(seen.scopes.get(place.cookie, ())) != set(place.networks):
                found.append(f"task {task_id}: the kernel has other networks for it than it is on")
        return tuple(found)

    def connects(self) -> Mapping[VipKey, Counts]:
        """See `VipMode.connects`."""
        return self._vips.counters()

    def traffic(self) -> Mapping[VipKey, Traffic]:
        """See `VipMode.traffic`."""
        return {} if self._traffic is None else self._traffic.read()

    def strays(self) -> int:
        """See `VipMode.strays`: what isn't translated per packet needs no guard."""
        return 0

    def forget(self) -> None:
        """See `VipMode.forget`."""
        self._done = None

    def close(self) -> None:
        """See `VipMode.close`."""
        if self._traffic is not None:
            self._traffic.close()
        self._vips.close()

    def clean(self) -> None:
        """See `VipMode.clean`."""
        self._vips.clean()


class ByNft:
    """See `VipMode`. Each task's namespace translates for itself."""

    name = NFT
    cgroup = ""

    def __init__(self, node: str, hindrance: str | None = None) -> None:
        """Raises Rejected."""
        self.hindrance = hindrance
        self._vips = NatVips(node)
        self._seen: dict[str, str] = {}
        # What was wanted last, and by sets of networks what their virtual addresses lead to.
        self._backends: Backends = {}
        self._parts: dict[frozenset[int], Stepped[str, tuple[str, ...]]] = {}

    def apply(
        self, backends: Backends, places: Mapping[str, Place], *, is_all: bool
    ) -> tuple[str, ...]:
        """See `VipMode.apply`."""
        self._seen = {task_id: place.path for task_id, place in places.items()}
        wanted = {place.path: self._part(place, backends) for place in places.values()}
        in_use = {_numbers(place) for place in places.values()}
        self._parts = {numbers: each for numbers, each in self._parts.items() if numbers in in_use}
        try:
            return self._vips.apply(wanted)
        except Rejected as error:
            return (f"virtual addresses: {error}",)

    def attach(self, place: Place, backends: Backends) -> None:
        """See `VipMode.attach`."""
        try:
            problems = self._vips.apply({place.path: self._part(place, backends)})
        except Rejected as error:
            raise Retryable(f"virtual addresses: {error}") from error
        if problems:
            raise Retryable("; ".join(problems))

    def _part(self, place: Place, backends: Backends) -> Stepped[str, tuple[str, ...]]:
        """As `backends_of`, but each time a step after the last one, and one for all namespaces
        that are on the same networks."""
        if backends is not self._backends:
            told = changed(self._backends, backends)
            for numbers, part in self._parts.items():
                mine = {vip: backends.get((n, vip)) for n, vip in told if n in numbers}
                self._parts[numbers] = part.after(mine)
            self._backends = backends
        numbers = _numbers(place)
        if numbers not in self._parts:
            self._parts[numbers] = Stepped(backends_of(place, backends))
        return self._parts[numbers]

    def drop(self, place: Place) -> None:
        """See `VipMode.drop`: it goes with the namespace."""

    def differences(self, backends: Backends, places: Mapping[str, Place]) -> tuple[str, ...]:
        """See `VipMode.differences`."""
        found: list[str] = []
        for task_id, place in places.items():
            where = f"task {task_id}: "
            there = self._vips.observe(place.path)
            if there is None:
                found.append(f"{where}its namespace has no table of virtual addresses")
                continue
            wanted = {(0, vip): behind for vip, behind in backends_of(place, backends).items()}
            found += _compare(wanted, {(0, vip): each for vip, each in there.items()}, where)
        return tuple(found)

    def connects(self) -> Mapping[VipKey, Counts]:
        """See `VipMode.connects`: not counted."""
        return {}

    def traffic(self) -> Mapping[VipKey, Traffic]:
        """See `VipMode.traffic`: not counted."""
        return {}

    def strays(self) -> int:
        """See `VipMode.strays`. Namespaces that go meanwhile are left out."""
        return sum(
            count
            for _, count in run_each(
                (path, partial(self._strays_in, path)) for path in tuple(self._seen.values())
            )
        )

    def _strays_in(self, path: str) -> int:
        try:
            return self._vips.strays(path)
        except HINDRANCES:
            return 0

    def forget(self) -> None:
        """See `VipMode.forget`."""
        self._vips.forget()

    def close(self) -> None:
        """See `VipMode.close`."""

    def clean(self) -> None:
        """See `VipMode.clean`."""
        self._vips.clean(self._seen.values())


def choose(node: str, wanted: str, *, counts_traffic: bool = False) -> VipMode:
    """The mode that was asked for; `auto` takes BPF where the kernel has it, and only that counts
    bytes. Raises Rejected with what is missing."""
    hindrance = vips.supported() if wanted in (AUTO, BPF) else "not asked for"
    if hindrance is None:
        try:
            return ByBpf(node, counts_traffic=counts_traffic)
        except (OSError, Retryable) as error:
            raise Rejected(f"virtual addresses by BPF: {error}") from error
    if wanted == BPF:
        raise Rejected(f"virtual addresses by BPF: {hindrance}; --vip nft needs no BPF")
    if (missing := natrules.supported()) is not None:
        raise Rejected(missing)
    return ByNft(node, f"not by BPF: {hindrance}" if wanted == AUTO else None)


def clean(node: str) -> None:
    """Take away what either mode has left in this node's name."""
    if (root := cgroup.root()) is not None:
        Vips(node, root).clean()


def _numbers(place: Place) -> frozenset[int]:
    return frozenset(number for number, _ in place.networks)


def backends_of(place: Place, backends: Backends) -> dict[str, tuple[str, ...]]:
    """What the virtual addresses on the networks of one namespace lead to."""
    mine = _numbers(place)
    return {vip: behind for (number, vip), behind in backends.items() if number in mine}


def _compare(wanted: Backends, there: Backends, where: str) -> list[str]:
    found = [
        f"{where}virtual address {key[1]} is in the kernel and should not be"
        for key in there.keys() - wanted.keys()
    ]
    for key, behind in wanted.items():
        if key not in there:
            found.append(f"{where}virtual address {key[1]} is not in the kernel")
        elif set(there[key]) != set(behind):
            found.append(
                f"{where}virtual address {key[1]} leads to {', '.join(there[key]) or 'nothing'} "
                f"instead of {', '.join(behind) or 'nothing'}"
            )
    return sorted(found)
