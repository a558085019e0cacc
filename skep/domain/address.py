"""Addresses are numbers: a name would make a connect wait for a resolver."""

from __future__ import annotations

import ipaddress

from skep.env import Rejected

Address = tuple[str, int]
"""An IP address as text, and a port."""


def parse_address(text: str) -> Address:
    """The two parts of "127.0.0.1:7000" or "[::1]:7000". Raises Rejected."""
    host, colon, port_text = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not (port_text.isascii() and port_text.isdigit()):
        raise Rejected(f"{text!r} is not an address such as 127.0.0.1:7000")
    port = int(port_text)
    if port > 65535:
        raise Rejected(f"{text!r}: a port is at most 65535")
    return parse_host(host), port


def parse_host(text: str) -> str:
    """An IP address in its shortest form. Raises Rejected."""
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        raise Rejected(f"{text!r} is not an IP address") from None


def show_address(address: Address) -> str:
    """The text that `parse_address` reads."""
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


# Node numbers of the loopback plan are 1 to 31, so that 127.(B+k) stays in the cluster's own block.
# The last 255 addresses of a node's block are for its DNS listeners.
RELAY_VIPS = 255 * 256


def relay_vip(block: int, node_number: int, index: int) -> str:
    """Where node `node_number` of a relay-plane cluster listens for the virtual address with this
    cluster-wide index (1 to 65,279): 127.(B+k).x.y."""
    assert 0 < index < RELAY_VIPS, index
    assert 0 < node_number < 32, node_number
    return f"127.{block + node_number}.{index >> 8}.{index & 255}"


def relay_dns(block: int, node_number: int, index: int) -> str:
    """Where node `node_number` of a relay-plane cluster answers names of its set of networks with
    this number (0 to 254)."""
    assert 0 <= index < 255, index
    assert 0 < node_number < 32, node_number
    return f"127.{block + node_number}.255.{index}"


def refuse_open_listener(host: str, allowed: tuple[str, ...], what: str) -> bool:
    """Refuse to listen where strangers can reach us, since nothing proves who they are yet.

    Returns whether `host` is beyond loopback but covered by one of the networks that the operator
    `allowed`, which calls for a warning. Raises Rejected otherwise.
    """
    address = ipaddress.ip_address(parse_host(host))
    if address.is_loopback:
        return False
    for cidr in allowed:
        try:
            network = ipaddress.ip_network(cidr)
        except ValueError as error:
            raise Rejected(f"--insecure-listen {cidr}: {error}") from None
        if address in network:
            return True
    raise Rejected(
        f"{what} {host} is not a loopback address, and whoever reaches it is not asked who they "
        f"are; on a network for tests, allow it with --insecure-listen {address}"
    )


def refuse_open_listeners(listeners: dict[str, str], allowed: tuple[str, ...]) -> list[str]:
    """Check every address a process is to listen on, by what it is for; "" listens nowhere.

    Returns a warning for each that strangers can reach since the operator allowed it. Raises
    Rejected.
    """
    return [
        f"listener={text} insecure=true why='whoever reaches {what} is not asked who they are'"
        for what, text in listeners.items()
        if text and refuse_open_listener(parse_address(text)[0], allowed, what)
    ]
