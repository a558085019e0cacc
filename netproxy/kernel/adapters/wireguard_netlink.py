"""The kernel's WireGuard devices, as pyroute2 speaks of them. The calling thread must be in the
namespace of the device."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pyroute2 import WireGuard
from pyroute2.netlink.exceptions import NetlinkError

from skep.netproxy.kernel.core.keys import KEY_BYTES, parse_key, text_of
from skep.netproxy.kernel.core.tunnel import Change, Device, TunnelPeer


def tell(name: str, step: Change, port: int) -> None:
    """Change a device, whose peers are reached at `port`. Raises OSError."""
    kernel = _opened()
    try:
        if step.private_key is not None or step.port is not None:
            key = None if step.private_key is None else text_of(step.private_key)
            kernel.set(name, private_key=key, listen_port=step.port)
        for removed in step.removed:
            kernel.set(name, peer={"public_key": text_of(removed), "remove": True})
        for key_bytes, peer in step.peers.items():
            told = {
                "public_key": text_of(key_bytes),
                "endpoint_addr": peer.endpoint,
                "endpoint_port": port,
                "replace_allowed_ips": True,
                "allowed_ips": [f"{peer.address}/32"],
            }
            kernel.set(name, peer=told)
    except NetlinkError as error:
        raise OSError(error.code, f"WireGuard: {error}") from error
    finally:
        kernel.close()


def read(name: str) -> Device:
    """How a device is. Raises OSError."""
    kernel = _opened()
    try:
        return device_of(kernel.info(name))
    except NetlinkError as error:
        raise OSError(error.code, f"WireGuard: {error}") from error
    finally:
        kernel.close()


def device_of(answers: Iterable[Any]) -> Device:
    """The device that the kernel describes, in as many messages as it takes: a peer that goes on
    in the next one is told with the rest of its addresses."""
    private_key, port = bytes(KEY_BYTES), 0
    peers: dict[bytes, TunnelPeer] = {}
    for answer in answers:
        private_key = _key(answer.get_attr("WGDEVICE_A_PRIVATE_KEY")) or private_key
        port = answer.get_attr("WGDEVICE_A_LISTEN_PORT") or port
        for peer in answer.get_attr("WGDEVICE_A_PEERS") or ():
            key = _key(peer.get_attr("WGPEER_A_PUBLIC_KEY"))
            if key is None:
                continue
            known = peers.get(key, TunnelPeer("", ""))
            endpoint = peer.get_attr("WGPEER_A_ENDPOINT")
            allowed = [each["addr"] for each in peer.get_attr("WGPEER_A_ALLOWEDIPS") or ()]
            addresses = (known.address, *(each.removesuffix("/32") for each in allowed))
            peers[key] = TunnelPeer(
                " ".join(filter(None, addresses)), endpoint["addr"] if endpoint else known.endpoint
            )
    return Device(private_key, port, peers)


def _key(told: bytes | str | None) -> bytes | None:
    if told is None:
        return None
    return parse_key(told if isinstance(told, str) else told.decode())


def _opened() -> Any:
    try:
        return WireGuard()
    except NetlinkError as error:
        raise OSError(error.code, f"WireGuard: {error}") from error
