"""Published ports and the way out of one node, by nftables; see `core.ingress`, `core.sources`."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial

from skep.env import Rejected
from skep.netproxy.kernel.adapters import conntrack, sourceroutes
from skep.netproxy.kernel.adapters.conntrack import UdpTarget
from skep.netproxy.kernel.adapters.inside import run_each, run_in_new, run_inside
from skep.netproxy.kernel.adapters.known import HINDRANCES, Known, attempt
from skep.netproxy.kernel.adapters.nft import Nft, NftFailed
from skep.netproxy.kernel.core import ingress, ingressread, natvip, sources
from skep.netproxy.kernel.core.ingress import (
    Egress,
    IngressPort,
    IngressTable,
    PortKey,
)
from skep.netproxy.kernel.core.ingressread import PortCounters
from skep.netproxy.kernel.core.script import UDP
from skep.netproxy.kernel.core.sources import SourceRoute, TaskLink


def supported() -> str | None:
    """Why this process can't do it on this machine; None where it can. Blocks for some 100 ms."""
    try:
        run_in_new(partial(_try_all, Nft()))
    except (Rejected, *HINDRANCES) as error:
        return f"address translation by nftables: {error}"
    return None


def _try_all(nft: Nft) -> None:
    """In a namespace that goes away again."""
    port, node = IngressPort("tcp", 1, 1, ("192.0.2.1",)), SourceRoute(1, "192.0.2.1")
    nft.run(ingress.change("probe", "probe", None, [port], Egress()).script)
    nft.run(natvip.change("probe", None, {"192.0.2.2": ("192.0.2.1",)}).script)
    nft.run(sources.change("probe", "probe", None, frozenset([node])))
    nft.read(ingress.table_of("probe"))
    conntrack.settle_udp([UdpTarget("192.0.2.2", None, frozenset())])


@dataclass(frozen=True)
class IngressWanted:
    """All of a node's ingress.

    `tasks` are the namespaces of the node's tasks that serve published ports, with their ends of
    the ingress network. `nodes` are those that connections may come in by, this one among them.
    """

    ports: tuple[IngressPort, ...] = ()
    egress: Egress = field(default_factory=Egress)
    nodes: tuple[SourceRoute, ...] = ()
    tasks: Mapping[str, TaskLink] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _TaskWanted:
    """What one task's namespace is to have."""

    link: TaskLink
    nodes: frozenset[SourceRoute]
    udp_ports: frozenset[int]


@dataclass(frozen=True)
class IngressObserved:
    """What the kernel has: the ports and gateway subnets (None: no table that this release made),
    and the nodes that each task's namespace knows (None: likewise)."""

    ports: tuple[IngressPort, ...] | None
    gateways: tuple[str, ...] | None
    tasks: Mapping[str, tuple[SourceRoute, ...] | None]


class Ingress:
    """The ingress of one node. `namespace` is the file of the node's own namespace (None: this
    process's), `interface` its link to the ingress network there.

    What was last seen is remembered, so that a pass over what hasn't changed asks the kernel
    nothing; what isn't known, after a start or a failure, is read, and only what differs is
    changed. One call at a time; all of them block, some for 16 ms and more. Raises Rejected where
    libnftables is missing.
    """

    def __init__(self, node: str, namespace: str | None, interface: str) -> None:
        self._nft = Nft()
        self._node = node
        self._namespace = namespace
        self._interface = interface
        self._table = ingress.table_of(node)
        self._now: IngressTable | None = None
        self._done: tuple[tuple[IngressPort, ...], Egress] | None = None
        self._wanted: IngressWanted | None = None
        self._unsettled: set[PortKey] = set()
        self._in_the_way: tuple[str, ...] = ()
        self._tasks: Known[_TaskWanted] = Known()

    def apply(self, wanted: IngressWanted) -> tuple[str, ...]:
        """Make it so; returns, for a person, what could not be done and what is in the way.

        Raises Rejected for what can't be wanted; nothing is done then.
        """
        if self._is_done(wanted):
            return self._in_the_way
        self._wanted = None
        nodes = sources.check_routes(wanted.nodes)
        ports = ingress.check_ports(wanted.ports)
        ingress.check_egress(wanted.egress)
        # First the way back, then the way in.
        jobs = {}
        udp_ports = [port for port in wanted.ports if port.protocol == "udp"]
        for task, link in wanted.tasks.items():
            sources.check_link(link)
            of_task = _TaskWanted(link, nodes, ingress.udp_targets(udp_ports, link.address))
            jobs[task] = partial(self._apply_task, task, of_task)
        problems = self._on_tasks(jobs)
        problems += attempt("published ports", partial(self._apply_node, wanted, ports))
        gone = set(self._tasks.names()) - set(wanted.tasks)
        problems += self._on_tasks({task: partial(self._drop_task, task) for task in gone})
        self._wanted = None if problems else wanted
        return (*problems, *self._in_the_way)

    def _is_done(self, wanted: IngressWanted) -> bool:
        """Whether it is what was done last, in the same namespaces."""
        try:
            return wanted == self._wanted and all(map(self._tasks.get, wanted.tasks))
        except OSError:
            return False

    @property
    def in_the_way(self) -> tuple[str, ...]:
        """Those of the last problems that are others' doing, and no failure of ours."""
        return self._in_the_way

    def forget(self) -> None:
        """Read everything in the next pass, in case that others have changed it."""
        self._done = self._now = self._wanted = None
        self._tasks.forget_all()

    def observe(self, tasks: Mapping[str, TaskLink]) -> IngressObserved:
        """What the kernel has, for the node and for these tasks (as in `IngressWanted`).

        Raises NftFailed, OSError.
        """
        table = run_inside(self._namespace, self._read)
        known = {
            task: run_inside(task, partial(self._read_task, link.interface))
            for task, link in tasks.items()
        }
        return IngressObserved(
            ports=None if table is None else table.ports(),
            gateways=None if table is None else tuple(sorted(table.gateways)),
            tasks={
                task: None if nodes is None else tuple(sorted(nodes, key=lambda n: n.number))
                for task, nodes in known.items()
            },
        )

    def counters(self) -> tuple[tuple[PortCounters, ...], int]:
        """Each port's counters, and how many packets the guard has dropped.

        Raises NftFailed, OSError.
        """
        listing = run_inside(self._namespace, partial(self._nft.read_counters, self._table))
        return ((), 0) if listing is None else ingressread.read_counters(listing)

    def clean(self, tasks: Iterable[str] = ()) -> tuple[str, ...]:
        """Remove all of it from the node's namespace, from those of these tasks and from those
        that this object has served; returns problems. Idempotent."""
        problems = attempt(
            "published ports",
            lambda: run_inside(self._namespace, partial(self._nft.delete, self._table)),
        )
        served = {*tasks, *self._tasks.names()}
        problems += self._on_tasks({task: partial(self._drop_task, task) for task in served})
        self.forget()
        return problems

    def _apply_node(self, wanted: IngressWanted, ports: Mapping[PortKey, IngressPort]) -> None:
        asked = (wanted.ports, wanted.egress)
        if asked == self._done:
            return
        self._done = None
        was_known = self._now is not None
        try:
            run_inside(self._namespace, partial(self._pass, wanted, ports))
        except NftFailed:
            if not was_known:
                raise
            # Others may have changed the table behind our back: once more, on what is there now.
            self._now = None
            run_inside(self._namespace, partial(self._pass, wanted, ports))
        self._done = asked

    def _pass(self, wanted: IngressWanted, ports: Mapping[PortKey, IngressPort]) -> None:
        """In the node's namespace."""
        if self._now is None:
            sourceroutes.write_setting("ip_forward", "1")
            drops = self._nft.forward_drops(self._interface)
            self._in_the_way = ingressread.forward_problems(drops, self._interface)
            self._now = self._read()
            self._unsettled.update(key for key in ports if key[0] == UDP)
        change = ingress.change(self._node, self._interface, self._now, wanted.ports, wanted.egress)
        self._unsettled.update(change.udp)
        if change.script:
            self._nft.run(change.script)
        self._now = change.after
        conntrack.settle_udp(
            UdpTarget(None, key[1], frozenset(ports[key].backends if key in ports else ()))
            for key in sorted(self._unsettled)
        )
        self._unsettled.clear()

    def _read(self) -> IngressTable | None:
        listing = self._nft.read(self._table)
        return None if listing is None else ingressread.read_table(self._interface, listing)

    def _on_tasks(self, jobs: Mapping[str, partial[None]]) -> tuple[str, ...]:
        done = run_each(
            (task, partial(attempt, f"published ports of the task at {task}", job))
            for task, job in jobs.items()
        )
        return tuple(problem for _, problems in done for problem in problems)

    def _apply_task(self, task: str, wanted: _TaskWanted) -> None:
        known = self._tasks.get(task)
        if known == wanted:
            return
        self._tasks.forget(task)
        is_same_link = known is not None and known.link == wanted.link
        seen = known.nodes if known is not None and is_same_link else None
        try:
            run_inside(task, partial(self._pass_task, seen, wanted))
        except NftFailed:
            if seen is None:
                raise
            run_inside(task, partial(self._pass_task, None, wanted))
        self._tasks.set(task, wanted)

    def _pass_task(self, seen: frozenset[SourceRoute] | None, wanted: _TaskWanted) -> None:
        """In the task's namespace. No mark is set before there is a route for it."""
        interface = wanted.link.interface
        if seen is None:
            # Sockets take the mark of who connects, and keep the way that it leads to; without, the
            # way of each of their packets would be looked for twice.
            sourceroutes.write_setting("tcp_fwmark_accept", "1")
            seen = self._read_task(interface)
        change = sourceroutes.add_routing(
            sources.routing_of(wanted.link, wanted.nodes, wanted.udp_ports)
        )
        script = sources.change(self._node, interface, seen, wanted.nodes)
        if script:
            self._nft.run(script)
        sourceroutes.remove_routing(change)

    def _read_task(self, interface: str) -> frozenset[SourceRoute] | None:
        listing = self._nft.read(sources.table_of(self._node))
        return None if listing is None else sources.read_table(interface, listing)

    def _drop_task(self, task: str) -> None:
        """A task whose namespace is gone has left nothing."""
        with contextlib.suppress(FileNotFoundError):
            run_inside(task, self._clear_task)
        self._tasks.forget(task)

    def _clear_task(self) -> None:
        self._nft.delete(sources.table_of(self._node))
        sourceroutes.clear_routing()


def differences(wanted: IngressWanted, seen: IngressObserved) -> list[str]:
    """Where the kernel isn't as wanted, in words."""
    if seen.ports is None:
        return ["published ports: their table is missing, or not as it was made"]
    found = []
    there = {(p.protocol, p.published): set(p.backends) for p in seen.ports}
    for port in wanted.ports:
        if port.is_host_mode and not port.backends:
            continue
        backends = there.pop((port.protocol, port.published), None)
        if backends != set(port.backends):
            leads = "is not open" if backends is None else f"leads to {_listed(backends)}"
            where = f"published port {port.published}/{port.protocol}"
            found.append(f"{where} {leads} instead of leading to {_listed(port.backends)}")
    found += [f"published port {n}/{name} should not be open" for name, n in there]
    for path, nodes in seen.tasks.items():
        if nodes is None or set(nodes) != set(wanted.nodes):
            found.append(f"{path} doesn't know the way back to all nodes")
    return found


def _listed(addresses: Iterable[str]) -> str:
    return ", ".join(sorted(addresses)) or "nothing"
