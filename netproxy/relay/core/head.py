"""What a client must say before it is connected: a mesh header, or a PROXY header.

Bounded in bytes here and in time by whoever reads. Nothing behind a mesh header is read with it;
what came together with a PROXY header is kept, since its length isn't known beforehand.
"""

from __future__ import annotations

from types import ModuleType
from typing import Final

from skep.domain.base import ClusterId
from skep.netproxy.relay.core.mesh import (
    PREFIX_BYTES,
    MeshHeader,
    MeshRefused,
    read_body,
    read_prefix,
)
from skep.netproxy.relay.core.protocol import Address, ProxyVersion

# A header fits into a segment, and 536 bytes are what every TCP takes.
PROXY_LIMIT_BYTES: Final = 536
# Both are sent at once; who doesn't send one is no netproxy, or no proxy.
HEAD_DEADLINE_S: Final = 5.0


class HeadRefused(Exception):
    """This is not, and will not become, a PROXY header; the text is for the log."""


class MeshHead:
    """Reads the header of another netproxy, to the byte."""

    __slots__ = ("_cluster_id", "_data", "_end", "header")

    def __init__(self, cluster_id: ClusterId) -> None:
        self._cluster_id = cluster_id
        self._data = b""
        self._end = PREFIX_BYTES
        self.header: MeshHeader | None = None

    @property
    def wants_bytes(self) -> int:
        """How many bytes may be read next, at most."""
        return self._end - len(self._data)

    def take(self, data: bytes) -> bool:
        """These bytes have come; returns whether that is all. Raises MeshRefused."""
        self._data += data
        if len(self._data) < self._end:
            return False
        if self._end == PREFIX_BYTES:
            self._end += read_prefix(self._data)
            return False
        self.header = read_body(self._data[PREFIX_BYTES:], self._cluster_id)
        return True


class ProxyHead:
    """Reads a PROXY header. `rest` is what the client has sent behind it."""

    __slots__ = ("_data", "destination", "rest", "source")

    def __init__(self) -> None:
        self._data = b""
        self.source: Address | None = None
        self.destination: Address | None = None
        self.rest = b""

    @property
    def wants_bytes(self) -> int:
        """How many bytes may be read next, at most."""
        return PROXY_LIMIT_BYTES - len(self._data)

    def take(self, data: bytes) -> bool:
        """These bytes have come; returns whether that is all. Raises HeadRefused."""
        self._data += data
        proxyheader = proxy_codec()
        try:
            parsed = proxyheader.parse(self._data)
        except proxyheader.ProxyHeaderError as error:
            raise HeadRefused(str(error)) from None
        if parsed is None:
            if not self.wants_bytes:
                raise HeadRefused(f"no whole PROXY header in {PROXY_LIMIT_BYTES} bytes")
            return False
        self.source, self.destination = parsed.source, parsed.destination
        self.rest = self._data[parsed.length :]
        return True


Head = MeshHead | ProxyHead


def proxy_header(version: ProxyVersion, client: Address, server: Address) -> bytes:
    """What a task is sent first, so that it knows who connected to whom; b"" for none."""
    if not version:
        return b""
    header: bytes = proxy_codec().encode(version, client, server)
    return header


def proxy_codec() -> ModuleType:
    """`skep.netproxy.core.proxyheader`; brings asyncio along (6 MB), which a worker without such a
    listener does without."""
    from skep.netproxy.core import proxyheader

    return proxyheader


__all__ = [
    "HEAD_DEADLINE_S", "Head", "HeadRefused", "MeshHead", "MeshRefused", "ProxyHead",
    "proxy_codec", "proxy_header",
]  # fmt: skip
