"""Network namespaces for the nodes of a local cluster with the kernel's data plane.

Each node has one, as if it were a machine, and a bridge connects them all with each other and with
this machine. They are named ones, so that `ip netns exec` shows a person what a node sees.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from skep.cli.errors import Exit, Failure
from skep.cli.local import core

NAMED = Path("/run/netns")
# This machine's own place on the bridge, above all nodes.
OWN_NUMBER = 254


def make(cluster: core.LocalCluster) -> None:
    """Make what is missing; nothing for the relay plane, which needs none. Raises Failure."""
    if cluster.plane is not core.Plane.KERNEL:
        return
    if os.geteuid() != 0:
        raise Failure(
            "the kernel's data plane needs root: it makes network namespaces; use sudo, or leave "
            "--plane out",
            Exit.REFUSED,
        )
    bridge = _bridge(cluster)
    if not _is_link(bridge):
        _batch(
            f"link add {bridge} type bridge\n"
            f"addr add 172.30.{cluster.block}.{OWN_NUMBER}/24 dev {bridge}\n"
            f"link set {bridge} up\n"
        )
    for node in cluster.nodes:
        if not (NAMED / cluster.namespace(node)).exists():
            _make_node(cluster, node)


def remove(cluster: core.LocalCluster) -> None:
    """Remove all namespaces and the bridge; missing ones are fine. Raises Failure."""
    if cluster.plane is not core.Plane.KERNEL:
        return
    for node in cluster.nodes:
        # With its namespace it would go by itself, but only some moments later.
        if _is_link(_port(cluster, node)):
            _run("link", "delete", _port(cluster, node))
        if (NAMED / cluster.namespace(node)).exists():
            _run("netns", "delete", cluster.namespace(node))
    if _is_link(_bridge(cluster)):
        _run("link", "delete", _bridge(cluster))


def is_taken(block: int) -> bool:
    """Whether some cluster, of whichever home, has namespaces by this block's name."""
    return any(NAMED.glob(f"skep-{block}-*")) or _is_link(f"skep{block}")


def is_there(cluster: core.LocalCluster, node: core.LocalNode) -> bool:
    """Whether commands can run on this node."""
    path = NAMED / cluster.namespace(node)
    return cluster.plane is not core.Plane.KERNEL or path.exists()


def entering(cluster: core.LocalCluster, node: core.LocalNode) -> tuple[str, ...]:
    """What a command line begins with to run on this node."""
    if cluster.plane is not core.Plane.KERNEL:
        return ()
    return (_tool("nsenter"), f"--net={NAMED / cluster.namespace(node)}", "--")


def _bridge(cluster: core.LocalCluster) -> str:
    return _bridge_of(cluster.block)


def _bridge_of(block: int) -> str:
    return f"skep{block}"


def _port(cluster: core.LocalCluster, node: core.LocalNode) -> str:
    return f"{_bridge(cluster)}-{node.name}"


def _is_link(name: str) -> bool:
    return Path("/sys/class/net", name).exists()


def _make_node(cluster: core.LocalCluster, node: core.LocalNode) -> None:
    namespace, port = cluster.namespace(node), _port(cluster, node)
    _run("netns", "add", namespace)
    _batch(
        f"link add {port} type veth peer name eth0 netns {namespace}\n"
        f"link set {port} master {_bridge(cluster)} up\n"
    )
    _batch(
        "link set lo up\nlink set eth0 up\n"
        f"addr add {cluster.host(node)}/24 dev eth0\n"
        f"route add default via 172.30.{cluster.block}.{OWN_NUMBER}\n",
        namespace,
    )


def _batch(lines: str, namespace: str = "") -> None:
    inside = ("-n", namespace) if namespace else ()
    _run(*inside, "-batch", "-", text=lines)


def _run(*arguments: str, text: str = "") -> None:
    done = subprocess.run(
        (_tool("ip"), *arguments), input=text, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise Failure(f"ip {' '.join(arguments)}: {done.stderr.strip()}")


def _tool(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        package = {"ip": "iproute2", "nsenter": "util-linux"}[name]
        raise Failure(
            f"{name} is not there, which the kernel's data plane needs; install {package}"
        )
    return found
