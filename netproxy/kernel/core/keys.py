"""WireGuard's keys: 32 bytes, told in base64 as everybody does.

The public key is computed here, since the kernel tells it of a device that is there already, and
wireguard-go not at all. One multiplication at each start is no reason for a package with a
library of its own. It takes as long for any key as nobody outside could measure: the time of a
start of netproxy.
"""

from __future__ import annotations

import base64
import binascii

KEY_BYTES = 32
# X25519: RFC 7748, sections 4.1 and 5.
_PRIME = 2**255 - 19
_A24 = 121665
_BASE_POINT = 9


def clamped(secret: bytes) -> bytes:
    """The private key that random bytes are, in the form in which a device tells it."""
    assert len(secret) == KEY_BYTES
    first, last = secret[0] & 248, secret[-1] & 127 | 64
    return bytes((first, *secret[1:-1], last))


def public_key(private: bytes) -> bytes:
    """The public key of a private one."""
    return multiplied(private, _BASE_POINT.to_bytes(KEY_BYTES, "little"))


def multiplied(scalar: bytes, point: bytes) -> bytes:
    """X25519(scalar, point), by the Montgomery ladder of RFC 7748, section 5."""
    number = int.from_bytes(clamped(scalar), "little")
    x1 = int.from_bytes(point, "little") & (1 << 255) - 1
    x2, z2, x3, z3, swap = 1, 0, x1, 1, 0
    for place in reversed(range(255)):
        bit = number >> place & 1
        if swap != bit:
            x2, x3, z2, z3 = x3, x2, z3, z2
        swap = bit
        a, b, c, d = x2 + z2, x2 - z2, x3 + z3, x3 - z3
        aa, bb, da, cb = a * a, b * b, d * a, c * b
        e = aa - bb
        x3, z3 = (da + cb) ** 2 % _PRIME, x1 * (da - cb) ** 2 % _PRIME
        x2, z2 = aa * bb % _PRIME, e * (aa + _A24 * e) % _PRIME
    if swap:
        x2, z2 = x3, z3
    return (x2 * pow(z2, _PRIME - 2, _PRIME) % _PRIME).to_bytes(KEY_BYTES, "little")


def text_of(key: bytes) -> str:
    """A key as it is told."""
    return base64.b64encode(key).decode()


def parse_key(text: str) -> bytes | None:
    """The key that a text tells; None where it is none."""
    try:
        key = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None
    return key if len(key) == KEY_BYTES else None
