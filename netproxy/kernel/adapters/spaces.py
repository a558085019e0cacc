"""The namespaces that are a node's own: its sandbox, and its tunnel.

They are apart since a bridge hands what is sent to everybody to the namespace that it is in. What
takes packets of encrypted networks there would take them from all tasks of the node, and from
whoever can send to a network that isn't encrypted. In the tunnel, there is nobody else.
"""

from __future__ import annotations

from pathlib import Path

from skep.netproxy.kernel.adapters import messages, netns
from skep.netproxy.kernel.adapters.netlink import Netlink

LOOPBACK = 1  # its index in every namespace
# Bridged frames are nobody's to filter here, and nothing is routed from one network to another.
SWITCHES = (
    ("bridge/bridge-nf-call-iptables", 0),
    ("bridge/bridge-nf-call-ip6tables", 0),
    ("bridge/bridge-nf-call-arptables", 0),
    ("ipv4/ip_forward", 0),
    ("ipv6/conf/all/disable_ipv6", 1),
    ("ipv6/conf/default/disable_ipv6", 1),
)


def ensure(path: Path) -> Netlink:
    """A socket in the namespace that the file holds, which is made where there is none. Raises
    OSError."""
    enter = netns.inside if netns.is_namespace(path) else netns.make
    return enter(path, _prepared)


def find(path: Path) -> Netlink | None:
    """The same, if it is there. Raises OSError."""
    return netns.inside(path, _prepared) if netns.is_namespace(path) else None


def switch() -> None:
    """Set all switches of the calling thread's namespace. Raises OSError."""
    for name, value in SWITCHES:
        netns.sysctl(name, value)


def _prepared() -> Netlink:
    netlink = Netlink()
    try:
        switch()
        netlink.ask([messages.set_up(LOOPBACK)])
    except BaseException:
        netlink.close()
        raise
    return netlink
