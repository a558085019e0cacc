"""Whether this machine could encrypt what goes from node to node, found by trying.

Skep doesn't encrypt yet, and so no node may say that it can: a network that is asked for with
encryption must be refused, and not be accepted and sent in the clear. What the kernel has is told
as part of the reason.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Callable

from skep.netproxy.kernel.adapters import netns

# What a note begins with where there is no encryption; managers know it.
NONE = "none"

_NETLINK_ROUTE, _NETLINK_XFRM = 0, 6
_REQUEST, _ACKNOWLEDGE, _CREATE, _EXCLUSIVE = 0x1, 0x4, 0x400, 0x200
_NEW_LINK, _NEW_STATE = 16, 0x10
_LINK_NAME, _LINK_INFO, _LINK_KIND = 3, 18, 1
_AEAD = 18  # XFRMA_ALG_AEAD
_ANSWER_BYTES = 4096
_ANSWER_S = 1.0


def note() -> str:
    """The note `network.encryption`. Blocks for some milliseconds."""
    try:
        has_wireguard = netns.in_thread(lambda: _in_new(_has_wireguard))
        has_ipsec = netns.in_thread(lambda: _in_new(_has_ipsec))
    except OSError as error:
        why = error.strerror or str(error)
        if error.errno == errno.EPERM:
            why = "that needs root"
        return f"{NONE}: Skep does not encrypt yet; what the kernel has was not tried ({why})"
    has = [
        name for name, is_there in (("WireGuard", has_wireguard), ("IPsec", has_ipsec)) if is_there
    ]
    if not has:
        return f"{NONE}: the kernel has neither WireGuard nor IPsec (ESP)"
    return f"{NONE}: the kernel has {' and '.join(has)}, but Skep does not use it yet"


def _in_new(work: Callable[[], bool]) -> bool:
    netns.enter_new()
    return work()


def _has_wireguard() -> bool:
    kind = _attribute(_LINK_INFO, _attribute(_LINK_KIND, b"wireguard\0"))
    body = bytes(16) + _attribute(_LINK_NAME, b"probe\0") + kind
    return _is_done(_NETLINK_ROUTE, _NEW_LINK, body)


def _has_ipsec() -> bool:
    """Whether an ESP state with AES-GCM, the one that everybody uses, can be made."""
    ours, theirs = socket.inet_aton("192.0.2.1"), socket.inet_aton("192.0.2.2")
    selector = bytes(40) + struct.pack("=HBBB3xiI", socket.AF_INET, 0, 0, 0, 0, 0)
    state = struct.pack("=16s4sB3x", theirs, struct.pack("!I", 0x1000), socket.IPPROTO_ESP)
    forever = struct.pack("=4Q", *[2**64 - 1] * 4) + bytes(32)
    # Not used so far; sequence, number, family, transport mode, replay window, flags.
    rest = bytes(32 + 12) + struct.pack("=IIHBBB7x", 0, 0, socket.AF_INET, 0, 32, 0)
    body = selector + state + struct.pack("=16s", ours) + forever + rest
    algorithm = struct.pack("=64sII", b"rfc4106(gcm(aes))", 160, 128) + os.urandom(20)
    return _is_done(_NETLINK_XFRM, _NEW_STATE, body + _attribute(_AEAD, algorithm))


def _is_done(family: int, kind: int, body: bytes) -> bool:
    """Ask the kernel for one thing; False where it hasn't the part that would do it."""
    try:
        kernel = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, family)
    except OSError as error:
        if error.errno == errno.EPROTONOSUPPORT:
            return False
        raise
    with kernel:
        kernel.settimeout(_ANSWER_S)
        flags = _REQUEST | _ACKNOWLEDGE | _CREATE | _EXCLUSIVE
        kernel.send(struct.pack("=IHHII", 16 + len(body), kind, flags, 1, 0) + body)
        answer = kernel.recv(_ANSWER_BYTES)
        (code,) = struct.unpack_from("=i", answer, 16)
        return bool(code == 0)


def _attribute(kind: int, data: bytes) -> bytes:
    padding = -len(data) % 4
    return struct.pack("=HH", 4 + len(data), kind) + data + bytes(padding)
