"""What goes over the wire: all frames of a network namespace, or of one interface there."""

from __future__ import annotations

import contextlib
import socket
from pathlib import Path

from tests.support.netns import run_in

ETH_P_ALL = 3
IPV4, UDP = b"\x08\x00", 17
# In a frame of VXLAN over UDP over IPv4 without options.
VNI = slice(46, 49)


def packet_socket(interface: str = "") -> socket.socket:
    """Sends to, and hears, an interface of the calling thread's namespace; or hears all."""
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
    if interface:
        sock.bind((interface, ETH_P_ALL))
    sock.setblocking(False)
    return sock


class Wire:
    """All that has come by since it was made, or since `forget`, both ways."""

    def __init__(self, namespace: Path, interface: str = "") -> None:
        self._socket = run_in(namespace, packet_socket, interface)
        self._frames: list[bytes] = []

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Hear no more."""
        self._socket.close()

    def read(self) -> list[bytes]:
        """The frames."""
        with contextlib.suppress(BlockingIOError):
            while True:
                self._frames.append(self._socket.recv(65536))
        return self._frames

    def forget(self) -> None:
        """Begin anew."""
        self.read()
        self._frames.clear()

    def has(self, part: bytes) -> bool:
        """Whether that is anywhere in a frame."""
        return any(part in frame for frame in self.read())

    def udp(self, port: int) -> list[bytes]:
        """The frames of IPv4 to a UDP port."""
        there = port.to_bytes(2, "big")
        return [
            frame
            for frame in self.read()
            if frame[12:14] == IPV4 and frame[23] == UDP and frame[36:38] == there
        ]
