"""How the things that Skep makes in the kernel are called, and how they are found again.

An interface's alias is its tag: it says whose it is and what for, so that everything can be found
without any file. Interface names carry no meaning, since they are too short for ids.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass

from skep.env import Rejected

NAME_LIMIT = 15  # the kernel's IFNAMSIZ, less its final zero
OWNER = "skep"
# What may stand in a tag and in a path: no separator of either.
_PLAIN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")

# First characters of names in a sandbox. The WireGuard device's is made of its node's id:
# wireguard-go serves it at a path that has its name, for all namespaces of the machine.
BRIDGE, VXLAN, TASK, EGRESS, INGRESS = "skb-", "skx-", "skt-", "ske-", "ski-"
WIREGUARD = "skw-"
# Names in the node's own namespace, where there is one node.
HOST_INGRESS, HOST_GATEWAY = "skep-ing", "skep-gw"
# The one network that is not the cluster's but the node's: the tasks' way out.
GATEWAY_BRIDGE = "skg-gateway"
TASK_GATEWAY = "gw0"


def check_id(text: str, what: str) -> str:
    """The same text, where it can stand in tags and paths; raises Rejected."""
    if not _PLAIN.fullmatch(text):
        raise Rejected(
            f"{text!r} can't name {what} in the kernel data plane: use 1 to 64 letters, digits, "
            f"'_', '.' and '-', the first of them a letter, a digit or '_'"
        )
    return text


def interface_name(kind: str, *ids: str) -> str:
    """A name of the kernel's length that stays the same for the same ids."""
    digest = hashlib.sha256("/".join(ids).encode()).digest()
    text = base64.b32encode(digest).decode().lower()
    return f"{kind}{text}"[:NAME_LIMIT]


def mac_of(address: str) -> str:
    """The hardware address that belongs to an IPv4 address on every network; raises Rejected.

    It is computed, so that nodes need not tell one another.
    """
    try:
        packed = ipaddress.IPv4Address(address).packed
    except ValueError:
        raise Rejected(f"{address!r} is no IPv4 address, which overlay networks need") from None
    return "02:42:" + ":".join(f"{byte:02x}" for byte in packed)


# All peers of a network are told again with each change of one of them.
@functools.lru_cache(maxsize=1 << 16)
def is_address(text: str) -> bool:
    """Whether it is an IPv4 address in its one plain form."""
    parts = text.split(".")
    return len(parts) == 4 and all(
        part.isascii() and part.isdigit() and int(part) < 256 and str(int(part)) == part
        for part in parts
    )


def address_of(mac: str) -> str:
    """The IPv4 address whose hardware address this is; "" where it is none of ours."""
    if not mac.startswith("02:42:"):
        return ""
    return str(ipaddress.IPv4Address(bytes.fromhex(mac[6:].replace(":", ""))))


@dataclass(frozen=True, slots=True)
class Tag:
    """Whose an interface is, and what for."""

    node: str
    fields: Mapping[str, str]

    def text(self) -> str:
        """As it stands in the alias."""
        return ":".join((OWNER, self.node, *(f"{key}={self.fields[key]}" for key in self.fields)))


def tag(node: str, **fields: str) -> str:
    """The alias of an interface of that node."""
    return Tag(node, fields).text()


def parse_tag(alias: str, node: str) -> Tag | None:
    """What the alias says; None where it is not one of that node."""
    owner, _, rest = alias.partition(":")
    whose, _, fields = rest.partition(":")
    if owner != OWNER or whose != node:
        return None
    found = {}
    for field in fields.split(":"):
        key, _, value = field.partition("=")
        found[key] = value
    return Tag(whose, found)
