"""What of one node's netproxy is in the kernel: told to a person who is about to remove it, and
removed."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from skep.env import Rejected, Retryable
from skep.netproxy.kernel.adapters import cgroup, messages, netns, vipmodes
from skep.netproxy.kernel.adapters import links as link_layer
from skep.netproxy.kernel.adapters.natrules import Ingress
from skep.netproxy.kernel.adapters.netlink import Netlink
from skep.netproxy.kernel.adapters.nft import Nft
from skep.netproxy.kernel.adapters.place import HostPlace
from skep.netproxy.kernel.core import ingress, traffic
from skep.netproxy.kernel.core.found import LinkRecord
from skep.netproxy.kernel.core.names import HOST_INGRESS, parse_tag
from skep.netproxy.kernel.core.programs import ATTACH_TYPES

_KINDS = {
    "bridge": "bridges",
    "vxlan": "VXLAN devices",
    "veth": "virtual cables",
    "wireguard": "WireGuard devices",
    "tun": "WireGuard devices of wireguard-go",
}


def look(place: HostPlace) -> tuple[str, ...]:
    """One line for each thing that is there. The process must be in the node's own namespace.

    Raises OSError and Retryable where the kernel can't be asked; a part that this machine hasn't
    holds nothing.
    """
    return (*_own(place), *_tasks(place), *_host(place), *_rules(place), *_programs(place))


async def clean(place: HostPlace) -> tuple[str, ...]:
    """Take away everything that this node's plane has left in the kernel, also without knowing
    what that was; returns what could not be done."""

    def clean_rules() -> tuple[str, ...]:
        problems = Ingress(place.node, None, HOST_INGRESS).clean()
        vipmodes.clean(place.node)
        return problems

    problems: tuple[str, ...] = ()
    for what, work in (
        ("rules", asyncio.get_running_loop().run_in_executor(None, clean_rules)),
        ("networks", link_layer.clean(place)),
    ):
        try:
            problems += await work or ()
        except (OSError, Rejected, Retryable) as error:
            problems += (f"{what}: {error}",)
    return problems


def namespaces(place: HostPlace) -> dict[str, Path]:
    """The files of the tasks' namespaces, by task."""
    paths = {task_id: place.tasks / task_id for task_id in place.task_ids()}
    return {task_id: path for task_id, path in paths.items() if netns.is_namespace(path)}


def _own(place: HostPlace) -> Iterator[str]:
    for path in (place.sandbox, place.tunnel):
        if not netns.is_namespace(path):
            continue
        counts = Counter(link.kind for link in netns.inside(path, _links))
        each = [f"{counts[kind]} {name}" for kind, name in _KINDS.items() if counts[kind]]
        yield f"network namespace {path} ({', '.join(each) or 'empty'})"


def _tasks(place: HostPlace) -> Iterator[str]:
    for task_id in place.task_ids():
        yield f"network namespace of task {task_id}"


def _host(place: HostPlace) -> Iterator[str]:
    for link in _links():
        if parse_tag(link.alias, place.node) is not None:
            yield f"interface {link.name}"


def _rules(place: HostPlace) -> Iterator[str]:
    try:
        nft = Nft()
    except Rejected:
        return  # nobody can have made any here
    table = ingress.table_of(place.node)
    if nft.has(table):
        yield f"nftables table ip {table}"


def _programs(place: HostPlace) -> Iterator[str]:
    root = cgroup.root()
    folder = None if root is None else root / "skep" / place.node
    if folder is None or not folder.exists():
        return
    try:
        with cgroup.opened(folder) as fd:
            programs = cgroup.ours(fd, (*ATTACH_TYPES.values(), traffic.ATTACH_TYPE))
    except OSError:  # a kernel without bpf(2) has no programs either
        programs = []
    for program in programs:
        os.close(program.fd)
    yield f"control group {folder} ({len(programs)} BPF programs)"


def _links() -> list[LinkRecord]:
    netlink = Netlink()
    try:
        return list(messages.links(netlink))
    finally:
        netlink.close()
