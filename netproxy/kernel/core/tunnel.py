"""The WireGuard device of one node: what is wanted of it, what it says, and the steps between.

There is one for all encrypted networks. Each node's address in the tunnel is the one that it has
on the ingress network: managers give it, and never to two. It means nothing outside of the
namespace that holds the device and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from skep.domain.endpoints import NetworkEntry
from skep.env import Retryable
from skep.netproxy.kernel.core.keys import KEY_BYTES, text_of

# IANA has given it to nobody; it is the one that everybody uses.
WIREGUARD_PORT = 51820


@dataclass(frozen=True, slots=True)
class TunnelPeer:
    """Another node: its address in the tunnel, and in the underlay."""

    address: str
    endpoint: str


@dataclass(frozen=True)
class Tunnel:
    """What managers want of it: this node's address in it, and the others by their public keys."""

    address: str
    prefix_length: int
    peers: Mapping[bytes, TunnelPeer] = field(default_factory=dict)


@dataclass(frozen=True)
class Device:
    """What makes up a device, wanted or found. All nodes use the same UDP port."""

    private_key: bytes = field(repr=False)
    port: int
    peers: Mapping[bytes, TunnelPeer] = field(default_factory=dict)


@dataclass(frozen=True)
class Change:
    """The step from one device to another: the peers `removed` go first. None: as it is."""

    private_key: bytes | None = field(default=None, repr=False)
    port: int | None = None
    removed: tuple[bytes, ...] = ()
    peers: Mapping[bytes, TunnelPeer] = field(default_factory=dict)


def change(wanted: Device, found: Device) -> Change:
    """What makes the one of the other. A change with nothing in it is `Change()`."""
    return Change(
        None if found.private_key == wanted.private_key else wanted.private_key,
        None if found.port == wanted.port else wanted.port,
        tuple(sorted(found.peers.keys() - wanted.peers.keys())),
        {key: peer for key, peer in wanted.peers.items() if found.peers.get(key) != peer},
    )


def differences(wanted: Device, found: Device) -> Iterator[str]:
    """In which ways a device isn't as wanted, for a person. A peer's endpoint is not looked at: it
    is where the peer's last packet came from, as WireGuard has it."""
    if found.private_key != wanted.private_key:
        yield "WireGuard: its private key is not this node's"
    if found.port != wanted.port:
        yield f"WireGuard: its port is {found.port}, not {wanted.port}"
    for key in sorted(found.peers.keys() - wanted.peers.keys()):
        yield f"WireGuard: {text_of(key)} is no node's key"
    for key, peer in sorted(wanted.peers.items(), key=lambda item: item[1].address):
        have = found.peers.get(key)
        if have is None or have.address != peer.address:
            yield f"WireGuard: the node at {peer.endpoint} is missing, or has another address"


def check_clear(networks: Iterable[NetworkEntry], hindrance: str) -> None:
    """Refuse an encrypted network on a node that can't encrypt. Raises Retryable: it may be made
    able to."""
    for network in networks:
        if network.is_encrypted:
            raise Retryable(
                f"network {network.name} is encrypted, which this node can't: {hindrance}"
            )


# -------------------------------------- what wireguard-go is told (wireguard.com/xplatform)


def request_of(step: Change, port: int) -> str:
    """What wireguard-go must be told. Nodes are reached at `port`."""
    lines = ["set=1"]
    if step.private_key is not None:
        lines.append(f"private_key={step.private_key.hex()}")
    if step.port is not None:
        lines.append(f"listen_port={step.port}")
    for key in step.removed:
        lines += [f"public_key={key.hex()}", "remove=true"]
    for key, peer in step.peers.items():
        lines += [
            f"public_key={key.hex()}",
            f"endpoint={peer.endpoint}:{port}",
            "replace_allowed_ips=true",
            f"allowed_ip={peer.address}/32",
        ]
    return "\n".join((*lines, "", ""))


def parse_device(answer: str) -> Device:
    """The device that wireguard-go describes. Raises ValueError for what isn't its language."""
    private_key, port = bytes(KEY_BYTES), 0
    peers: dict[bytes, TunnelPeer] = {}
    key = b""
    for line in answer.splitlines():
        name, _, value = line.partition("=")
        if name == "private_key":
            private_key = bytes.fromhex(value)
        elif name == "listen_port":
            port = int(value)
        elif name == "public_key":
            key = bytes.fromhex(value)
            peers[key] = TunnelPeer("", "")
        elif name == "endpoint":
            peers[key] = TunnelPeer(peers[key].address, value.rpartition(":")[0])
        elif name == "allowed_ip":
            # One with more than one is nobody that we have made.
            both = [peers[key].address, value.removesuffix("/32")]
            peers[key] = TunnelPeer(" ".join(filter(None, both)), peers[key].endpoint)
    return Device(private_key, port, peers)
