"""Removing all that Skep has made in the kernel for one node, and nothing else of the machine.

It is found by tags, and by the node's own folder; nothing needs to be known of what was wanted.
"""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path

from skep.netproxy.kernel.adapters import messages, netns, wireguard_go
from skep.netproxy.kernel.adapters.netlink import Netlink
from skep.netproxy.kernel.adapters.place import HostPlace
from skep.netproxy.kernel.adapters.sandbox import drop_all
from skep.netproxy.kernel.core.names import WIREGUARD, interface_name, parse_tag

PROC = Path("/proc")
OURS = ("bridge", "vxlan", "veth", "wireguard", "tun")


def clean_node(place: HostPlace) -> None:
    """Remove everything of a node. The calling thread must be in the node's own namespace, and no
    `Sandbox` of it may be open. Raises OSError; what is left then is removed by the next call."""
    for held in (place.sandbox, place.tunnel):
        if netns.is_namespace(held):
            netns.inside(held, _drop_everything)
    _drop_tagged(place.node)
    for task_id in place.task_ids():
        path = place.tasks / task_id
        if netns.is_namespace(path):
            netns.inside(path, lambda: _drop_tagged(place.node))
        netns.remove(path)
    for held in (place.sandbox, place.tunnel):
        netns.remove(held)
    wireguard_go.end(interface_name(WIREGUARD, place.node))
    for path in _held_by_processes():
        # What has lost its file lives on with its processes. They may end, and their namespaces
        # with them, while we look.
        with contextlib.suppress(FileNotFoundError, ProcessLookupError, PermissionError):
            netns.inside(path, lambda: _drop_tagged(place.node))
    for folder in (place.tasks, place.home):
        _remove_if_empty(folder)


def _drop_everything() -> None:
    """In a sandbox or a tunnel, where all is the node's: at once, tagged or not."""
    netlink = Netlink()
    try:
        ours = (link for link in messages.links(netlink) if link.kind)
        drop_all(netlink, [link.index for link in ours if link.kind in OURS])
    finally:
        netlink.close()


def _drop_tagged(node: str) -> None:
    netlink = Netlink()
    try:
        for link in messages.links(netlink):
            is_unfinished = link.name == interface_name(WIREGUARD, node)
            if is_unfinished or parse_tag(link.alias, node) is not None:
                # One by one: groups in a namespace that isn't ours are not ours to use.
                netlink.ask([messages.drop_link(link.index)], but_for=(errno.ENODEV,))
    finally:
        netlink.close()


def _held_by_processes() -> list[Path]:
    """One file for each network namespace that some process is in, but for our own."""
    found: dict[int, Path] = {}
    own = os.stat(netns.OWN).st_ino
    for pid in os.listdir(PROC):
        if pid.isdigit():
            path = PROC / pid / "ns/net"
            with contextlib.suppress(OSError):  # it has ended
                found.setdefault(os.stat(path).st_ino, path)
    found.pop(own, None)
    return list(found.values())


def _remove_if_empty(folder: Path) -> None:
    try:
        folder.rmdir()
    except OSError as error:
        # Others keep files there too.
        if error.errno not in (errno.ENOTEMPTY, errno.ENOENT):
            raise
