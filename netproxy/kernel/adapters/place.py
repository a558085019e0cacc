"""Where on a machine a node is: its name, its underlay address, and its files."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from skep.netproxy.kernel.core.gateway import DEFAULT_SUBNET
from skep.netproxy.kernel.core.names import check_id
from skep.netproxy.kernel.core.tunnel import WIREGUARD_PORT
from skep.netproxy.kernel.core.wanted import VXLAN_PORT


@dataclass(frozen=True)
class HostPlace:
    """A node on this machine, whose `address` the other nodes know.

    `namespace` is the file of the node's own network namespace, where it isn't the process's: it
    holds the underlay address. Nodes whose namespaces are different may share a machine; all nodes
    of a cluster use the same UDP ports. Tasks' addresses on their way out are from `egress_subnet`.
    """

    node: str
    address: str
    vxlan_port: int = VXLAN_PORT
    wireguard_port: int = WIREGUARD_PORT
    egress_subnet: str = DEFAULT_SUBNET
    folder: Path = Path("/run/skep")
    namespace: Path | None = None

    def carriers(self, *, is_encrypting: bool) -> tuple[int, ...]:
        """The UDP ports by which networks are carried from node to node."""
        return (self.vxlan_port, self.wireguard_port) if is_encrypting else (self.vxlan_port,)

    @property
    def home(self) -> Path:
        """The folder of this node; raises Rejected for a name that can't be one."""
        return self.folder / check_id(self.node, "a node")

    @property
    def sandbox(self) -> Path:
        """The file that holds the namespace of the bridges."""
        return self.home / "sandbox"

    @property
    def tunnel(self) -> Path:
        """The file that holds the namespace of WireGuard's inner side."""
        return self.home / "tunnel"

    @property
    def tasks(self) -> Path:
        """The folder of the files that hold the tasks' namespaces."""
        return self.home / "netns"

    def task(self, task_id: str) -> Path:
        """The file that holds one task's namespace; raises Rejected for a strange id."""
        return self.tasks / check_id(task_id, "a task")

    def task_ids(self) -> list[str]:
        """The tasks that have such a file, sorted."""
        try:
            return sorted(os.listdir(self.tasks))
        except FileNotFoundError:
            return []
