"""A node's sandbox: the namespace that holds the bridges, and what is made and changed there.

What is there is read when the sandbox is opened and after a failure; in between it is known from
what was done. All of this blocks, and belongs to one thread that is in the node's own namespace.
"""

from __future__ import annotations

import errno
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

from skep.env import Rejected, Retryable
from skep.netproxy.kernel.adapters import messages, netns, spaces
from skep.netproxy.kernel.adapters.netlink import Message, Netlink
from skep.netproxy.kernel.adapters.place import HostPlace
from skep.netproxy.kernel.core.found import Found, LinkRecord, assemble
from skep.netproxy.kernel.core.links import (
    Bridge,
    ChangeBridge,
    ChangeVxlan,
    DropPeer,
    DropVxlan,
    Join,
    MakeBridge,
    MakeVxlan,
    Op,
    Port,
    RemoveNetwork,
    SetPeer,
    Vxlan,
    applied,
    words,
)
from skep.netproxy.kernel.core.names import (
    BRIDGE,
    VXLAN,
    interface_name,
    mac_of,
    parse_tag,
    tag,
)
from skep.netproxy.kernel.core.wanted import Underlay

# No namespace but this process uses the number: what gets it is about to be removed.
DOOMED_GROUP = 0x534B


@dataclass(frozen=True, slots=True)
class Plug:
    """A veth as it should be: our end's name and tag, the bridge's index, the other end's name,
    the address whose MAC it has, and whether it may reach ports like itself."""

    name: str
    alias: str
    bridge: int
    mtu: int
    peer: str
    address: str
    is_isolated: bool = False


class Sandbox:
    """The open sandbox of one node; made where there is none. Raises OSError and Rejected."""

    def __init__(self, place: HostPlace) -> None:
        self.place = place
        place.tasks.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.host = Netlink()
        try:
            self.underlay = _underlay(self.host, place)
            self.netlink = spaces.ensure(place.sandbox)
        except BaseException:
            self.host.close()
            raise
        self.found = Found({})
        self.ports: dict[str, Port] = {}
        self.egress: dict[str, str] = {}
        self._indexes: dict[str, int] = {}
        self._is_known = False
        # Its socket in the tunnel, which is made with the first encrypted network.
        self.tunnel: Netlink | None = None
        self.look()

    def close(self) -> None:
        """Let go of it; nothing that it has made is changed."""
        self.host.close()
        self.netlink.close()
        self._leave_tunnel()

    def ensure_tunnel(self) -> Netlink:
        """Its socket in the tunnel, which is made where there is none. Raises OSError."""
        if self.tunnel is None:
            self.tunnel = spaces.ensure(self.place.tunnel)
        return self.tunnel

    def _leave_tunnel(self) -> None:
        if self.tunnel is not None:
            self.tunnel.close()
        self.tunnel = None

    # ------------------------------------------------------------------------------ looking

    def look(self) -> Found:
        """Read what is there, and remove what a process that died left without a tag."""
        # The filter of bridged frames may have been loaded, and be on, since we last looked.
        netns.inside(self.place.sandbox, spaces.switch)
        # Anew each time: the file may hold another one by now, or none.
        self._leave_tunnel()
        self.tunnel = spaces.find(self.place.tunnel)
        self.underlay = _underlay(self.host, self.place)
        records = messages.records(self.netlink)
        if self.tunnel is not None:
            # After the links: the kernel numbers it when it first names it, in one of them.
            number = messages.number_of(self.netlink, self.place.tunnel)
            records = replace(records, tunnel=number)
        strays = [link.index for link in records.links if self._is_stray(link)]
        self.drop(strays)
        self._indexes = {link.name: link.index for link in records.links}
        self.found = assemble(self.place.node, records)
        self.ports = {port.interface: port for port in self.found.ports}
        self.egress = dict(self.found.egress)
        self._is_known = True
        return self.found

    def known(self) -> Found:
        """What is there, read anew only where a failure made that uncertain."""
        return self.found if self._is_known else self.look()

    def doubt(self) -> None:
        """Have what is there read anew before it is next relied upon."""
        self._is_known = False

    def _is_stray(self, link: LinkRecord) -> bool:
        is_ours = link.kind in ("bridge", "vxlan", "veth") and link.name.startswith("sk")
        return is_ours and parse_tag(link.alias, self.place.node) is None

    def index(self, name: str) -> int:
        """The index of an interface in the sandbox. Raises OSError (ENODEV)."""
        if name not in self._indexes:
            index = messages.index_named(self.netlink, name)
            if not index:
                raise OSError(errno.ENODEV, f"{name} is not in the sandbox")
            self._indexes[name] = index
        return self._indexes[name]

    def bridge_of(self, network_id: str) -> tuple[int, int]:
        """The index of a network's bridge, and its MTU. Raises Retryable where it has none yet."""
        overlay = self.known().overlays.get(network_id)
        if overlay is None or overlay.bridge is None:
            raise Retryable(f"network {network_id} is not set up on node {self.place.node} yet")
        return self.index(interface_name(BRIDGE, network_id)), overlay.bridge.mtu

    # ---------------------------------------------------------------------------- networks

    def execute(self, ops: Sequence[Op]) -> list[str]:
        """Make these steps; returns, for a person, what failed.

        The rest of a network whose step failed is left for the next time.
        """
        done: list[Op] = []
        problems: list[str] = []
        failed: set[str] = set()
        for (network_id, _), run in itertools.groupby(ops, key=_run_of):
            if network_id in failed:
                continue
            steps = list(run)
            try:
                made, texts = self._peers(steps) if _is_peer(steps[0]) else self._others(steps)
            except OSError as error:
                made, texts = [], [f"{words(steps[0])}: {error}"]
            done.extend(made)
            if texts:
                problems.extend(texts)
                failed.add(network_id)
                self.doubt()
        overlays = applied(self.found.overlays, done)
        self.found = Found(overlays, self.found.ports, self.found.egress)
        return problems

    def _others(self, steps: Sequence[Op]) -> tuple[list[Op], list[str]]:
        done: list[Op] = []
        for step in steps:
            try:
                self._make(step)
            except OSError as error:
                return done, [f"{words(step)}: {error}"]
            done.append(step)
        return done, []

    def _make(self, step: Op) -> None:
        bridge, device = (interface_name(kind, step.network_id) for kind in (BRIDGE, VXLAN))
        match step:
            case MakeBridge():
                self._make_bridge(bridge, step.bridge, tag(self.place.node, net=step.network_id))
            case ChangeBridge():
                self._change_bridge(self.index(bridge), step.bridge)
            case MakeVxlan():
                self._make_vxlan(device, step.vxlan, step.network_id)
            case ChangeVxlan():
                master = self.index(bridge)
                index = self.index(device)
                self.netlink.ask(
                    [
                        messages.set_up(index, mtu=step.vxlan.mtu, master=master),
                        messages.set_port(index),
                    ]
                )
            case DropVxlan():
                self._remove(device)
            case RemoveNetwork():
                was_there = bridge in self._indexes
                self._remove(device, bridge)
                if was_there and any(
                    port.network_id == step.network_id for port in self.ports.values()
                ):
                    # They are loose now, and must be seen to be when the network comes back.
                    self.doubt()
            case Join():
                self.join(step.port, self.index(bridge))
            case _:
                raise AssertionError(step)

    def _make_bridge(self, name: str, bridge: Bridge, alias: str) -> None:
        address = bridge.gateway.partition("/")[0]
        mac = mac_of(address) if address else ""
        self.netlink.ask(messages.make_bridge(name, bridge.mtu, alias, mac))
        if bridge.gateway:
            self._change_bridge(self.index(name), bridge)

    def _change_bridge(self, index: int, bridge: Bridge) -> None:
        asked = [messages.set_up(index, mtu=bridge.mtu)]
        for record in messages.addresses(self.netlink):
            if record.index == index and record.address != bridge.gateway:
                asked.append(messages.drop_address(index, *_split(record.address)))
        if bridge.gateway:
            asked.append(messages.set_address(index, *_split(bridge.gateway)))
        self.netlink.ask(asked)

    def _make_vxlan(self, name: str, vxlan: Vxlan, network_id: str) -> None:
        # Its packets begin where it is asked for.
        asked = self.ensure_tunnel() if vxlan.is_encrypted else self.host
        with netns.opened(self.place.sandbox) as fd:
            asked.ask(messages.make_vxlan(name, vxlan, fd))
        self.netlink.ask([messages.alias_of(name, tag(self.place.node, net=network_id))])
        index = self.index(name)
        master = self.index(interface_name(BRIDGE, network_id))
        # The port is closed before anything is told to use it.
        self.netlink.ask([messages.set_up(index, master=master), messages.set_port(index)])

    def _remove(self, *names: str) -> None:
        indexes = [self._indexes.pop(name) for name in names if name in self._indexes]
        self.netlink.ask([messages.drop_link(index) for index in indexes], but_for=(errno.ENODEV,))

    def _peers(self, steps: Sequence[Op]) -> tuple[list[Op], list[str]]:
        """Entries of one network, all in few calls."""
        index = self.index(interface_name(VXLAN, steps[0].network_id))
        requests: list[list[Message]] = []
        for step in steps:
            assert isinstance(step, SetPeer | DropPeer)
            mac = mac_of(step.address)
            if isinstance(step, SetPeer):
                entry = messages.forward(index, mac, step.vtep)
                requests.append([entry, messages.neighbour(index, step.address, mac)])
            else:
                requests.append(messages.drop_peer(index, step.address, mac))
        results = iter(self.netlink.attempt(messages.all_of(requests)))
        done: list[Op] = []
        problems: list[str] = []
        for step, asked in zip(steps, requests, strict=True):
            errors = [error for error in itertools.islice(results, len(asked)) if error]
            if isinstance(step, DropPeer):
                errors = [error for error in errors if error.errno != errno.ENOENT]
            if errors:
                problems.append(f"{words(step)}: {errors[0]}")
            else:
                done.append(step)
        return done, problems

    # ------------------------------------------------------------------------------- ports

    def join(self, port: Port, bridge: int) -> None:
        """Put a port that is there on its bridge, with its static entry. Raises OSError."""
        index = self.index(port.interface)
        self.netlink.ask([messages.set_up(index, master=bridge), *_fasten(index, port.address)])

    def plug(self, plug: Plug, namespace_fd: int, *, is_there: bool) -> bool:
        """Make a veth, or complete one; `is_there` says that the other end is where it should be.

        Returns whether it was made. Raises OSError.
        """
        if is_there:
            existing = messages.link_named(self.netlink, plug.name)
            if existing is not None:
                self._indexes[plug.name] = existing.index
                is_tagged = existing.alias == plug.alias
                if not is_tagged:
                    self.netlink.ask([messages.alias_of(plug.name, plug.alias)])
                if not is_tagged or existing.master != plug.bridge or not existing.is_up:
                    index = existing.index
                    asked = [messages.set_up(index, master=plug.bridge)]
                    self.netlink.ask(
                        [*asked, *_fasten(index, plug.address, is_isolated=plug.is_isolated)]
                    )
                return False
        self.plug_new([plug], namespace_fd)
        return True

    def plug_new(self, plugs: Sequence[Plug], namespace_fd: int) -> None:
        """Make veths that aren't there, all in few calls. Raises OSError."""
        ends = [(plug.peer, mac_of(plug.address), namespace_fd) for plug in plugs]
        made = [
            messages.make_veth(plug.name, plug.mtu, plug.bridge, end, plug.alias)
            for plug, end in zip(plugs, ends, strict=True)
        ]
        try:
            self.netlink.ask(messages.all_of(made))
        except FileExistsError:
            # Our ends of a namespace that is gone but for a process or a socket which holds it.
            self.unplug([plug.name for plug in plugs])
            self.netlink.ask(messages.all_of(made))
        asked = []
        for plug in plugs:
            self._indexes.pop(plug.name, None)
            index = self.index(plug.name)
            asked.append(_fasten(index, plug.address, is_isolated=plug.is_isolated))
        self.netlink.ask(messages.all_of(asked))

    def settle(self, names: Sequence[str]) -> None:
        """Have these ports carry packets from now on, once the other ends are up. Raises OSError.

        The kernel would see to it later, up to a second, and lose the first packets until then;
        it does it at once where an interface is asked for by name (from Linux 6.9 on).
        """
        for name in names:
            messages.index_named(self.netlink, name)

    def unplug(self, names: Sequence[str]) -> None:
        """Remove these interfaces, as far as they are there. Raises OSError."""
        indexes = [messages.index_named(self.netlink, name) for name in names]
        self.drop([index for index in indexes if index])
        for name in names:
            self._indexes.pop(name, None)

    def drop(self, indexes: Sequence[int]) -> None:
        """Remove interfaces of the sandbox, all at once: the kernel waits long for each removal."""
        drop_all(self.netlink, indexes)


def drop_all(netlink: Netlink, indexes: Sequence[int]) -> None:
    """Remove interfaces of a namespace that is Skep's own, in one go. Raises OSError."""
    if not indexes:
        return
    asked = [messages.set_group(index, DOOMED_GROUP) for index in indexes]
    netlink.ask([*asked, messages.drop_group(DOOMED_GROUP)], but_for=(errno.ENODEV,))


def _fasten(index: int, address: str, *, is_isolated: bool = False) -> list[Message]:
    # The entry comes last: a port that has it is whole.
    return [
        messages.set_port(index, is_isolated=is_isolated),
        messages.forward(index, mac_of(address)),
    ]


def _underlay(host: Netlink, place: HostPlace) -> Underlay:
    mac_of(place.address)  # raises Rejected for what is no IPv4 address
    for record in messages.addresses(host):
        if record.address.partition("/")[0] == place.address:
            mtus = {link.index: link.mtu for link in messages.links(host)}
            return Underlay(place.address, place.vxlan_port, mtus[record.index])
    raise Rejected(
        f"no interface has the address {place.address} that node {place.node} tells the others; "
        "give it the address of an interface of this machine"
    )


def _split(address: str) -> tuple[str, int]:
    plain, _, prefix_length = address.partition("/")
    return plain, int(prefix_length)


def _is_peer(op: Op) -> bool:
    return isinstance(op, SetPeer | DropPeer)


def _run_of(op: Op) -> tuple[str, bool]:
    return op.network_id, _is_peer(op)
