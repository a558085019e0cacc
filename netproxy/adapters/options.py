"""What a netproxy is told when it starts."""

from __future__ import annotations

import argparse
import ipaddress
import logging
import os
import resource
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from skep.domain.address import parse_host, refuse_open_listeners
from skep.env import Rejected

if TYPE_CHECKING:
    from skep.netproxy.kernel.adapters.place import HostPlace

log = logging.getLogger(__name__)

PLANES = ("relay", "kernel")
# Files that are not connections: listeners, disk, gRPC, metrics.
OTHER_FILES = 1024
CONNECTION_LIMIT = 20_000
# Where a node that isn't part of a loopback plan has its virtual addresses: no other node shares
# its loopback, so that any block will do.
LONE_BLOCK, LONE_NUMBER = 32, 1


class Options(msgspec.Struct, kw_only=True, rename="kebab", forbid_unknown_fields=True):
    """What `--config` holds (JSON, by the names of the flags); flags given beside it win."""

    name: str = ""
    node_id: str = ""
    cluster_id: str = ""
    address: str = ""
    address6: str = ""
    mesh: str = ""
    attach: str = ""
    managers: tuple[str, ...] = ()
    state_dir: str = ""
    metrics: str = ""
    plane: str = "relay"
    vip: str = "auto"
    vxlan_port: int = 4789
    wireguard_port: int = 51820
    egress_subnet: str = "172.29.0.0/16"
    insecure_listen: tuple[str, ...] = ()
    loop: str = "uvloop"
    relay_workers: int = 0
    vip_traffic: bool = False
    clean: bool = False
    dry_run: bool = False
    force: bool = False

    @property
    def loopback(self) -> tuple[int, int]:
        """B and k of the loopback plan: virtual addresses are in 127.(B+k).0.0/16."""
        first, block, _, number = parse_host(self.address).split(".")
        return (int(block), int(number)) if first == "127" else (LONE_BLOCK, LONE_NUMBER)


def parse_options(arguments: list[str]) -> Options:
    """The options in force. Raises Rejected."""
    given = vars(_parser().parse_args(arguments))
    values: dict[str, object] = {}
    if (config := given.pop("config", None)) is not None:
        try:
            values = msgspec.to_builtins(
                msgspec.json.decode(Path(config).read_bytes(), type=Options)
            )
        except (OSError, msgspec.MsgspecError) as error:
            raise Rejected(f"--config {config}: {error}") from None
    values.update((name.replace("_", "-"), value) for name, value in given.items())
    options = msgspec.convert(values, Options)
    for name in ("node_id", "cluster_id", "address", "mesh", "managers", "state_dir"):
        if not getattr(options, name):
            raise Rejected(f"--{name.replace('_', '-')} is missing")
    if options.relay_workers < 0:
        raise Rejected(f"--relay-workers {options.relay_workers}: it takes at least one")
    if ":" in parse_host(options.address):
        raise Rejected(f"--address {options.address} must be IPv4; --address6 is for IPv6")
    if options.address6:
        _check_ipv6(options.address6)
    if (options.dry_run or options.force) and not options.clean:
        raise Rejected("--dry-run and --force are for --clean; add it, or leave them out")
    if options.plane == "kernel" and os.geteuid() != 0:
        raise Rejected(
            "--plane kernel needs root: it makes network namespaces, bridges and rules; run "
            "netproxy as root, or with --plane relay, which needs no privileges"
        )
    return options


def _check_ipv6(text: str) -> None:
    if ":" not in parse_host(text):
        raise Rejected(f"--address6 {text} is no IPv6 address")
    ipaddress.IPv6Address(text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="skep-netproxy", argument_default=argparse.SUPPRESS)
    add = parser.add_argument
    add("--config", help="a JSON file with these options, by name")
    add("--name", help="this node's name, for logs")
    add("--node-id")
    add("--cluster-id")
    add("--address", help="IPv4 address of this node, on which published ports are opened")
    add("--address6", help="IPv6 address on which they are opened as well (relay plane)")
    add("--mesh", help="IP:PORT on which other nodes' netproxies are served")
    add("--attach", help="unix:PATH at which this node's worker has its tasks connected")
    add("--managers", type=_comma_separated, help="IP:PORT,... to follow")
    add("--state-dir", help="folder that is this netproxy's own")
    add("--metrics", help="IP:PORT for Prometheus")
    add("--plane", choices=PLANES, help="what moves packets: user space, or the kernel (root)")
    add("--vip", choices=("auto", "bpf", "nft"), help="kernel plane: virtual addresses by what")
    add("--vxlan-port", type=int, help="kernel plane: UDP port between nodes (default 4789)")
    add("--wireguard-port", type=int, help="kernel plane: UDP port for what is encrypted (51820)")
    add("--egress-subnet", help="kernel plane: tasks' addresses on their way out of the cluster")
    add("--insecure-listen", action="append", metavar="CIDR")
    add("--loop", choices=("uvloop", "asyncio"))
    add(
        "--relay-workers",
        type=int,
        metavar="N",
        help="processes that move bytes; by default one for every two cores",
    )
    add(
        "--vip-traffic",
        action="store_true",
        help="kernel plane with BPF: count bytes and round-trip times of virtual addresses",
    )
    add("--clean", action="store_true", help="remove all that this node has left, and end")
    add("--dry-run", action="store_true", help="with --clean: only say what there is")
    add("--force", action="store_true", help="with --clean: also while tasks run")
    return parser


def _comma_separated(text: str) -> list[str]:
    return [part for part in text.split(",") if part]


def host_place(options: Options) -> HostPlace:
    """Where the node is on its machine, for the kernel plane."""
    # Only here: what it needs takes 0.1 s and 13 MB to load.
    from skep.netproxy.kernel.adapters.place import HostPlace

    return HostPlace(
        node=options.node_id,
        address=parse_host(options.address),
        vxlan_port=options.vxlan_port,
        wireguard_port=options.wireguard_port,
        egress_subnet=options.egress_subnet,
    )


def check_listeners(options: Options) -> None:
    """Refuse to be reachable from outside. Ports that services publish are not meant."""
    listeners = {"--mesh": options.mesh, "--metrics": options.metrics}
    for warning in refuse_open_listeners(listeners, options.insecure_listen):
        log.warning("%s", warning)


def connection_limit() -> int:
    """As many connections as there may be open files for in a relay worker, which has the limits
    of this process; each connection takes two."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * CONNECTION_LIMIT + OTHER_FILES
    files = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, hard))
    return max(1, (files - OTHER_FILES) // 2)


def default_workers() -> int:
    """One for every two cores that this process may use: tasks need the rest."""
    return max(1, len(os.sched_getaffinity(0)) // 2)
