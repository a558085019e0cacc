"""What a service asks of a node's nature: constraints such as "node.labels.disk == ssd", platforms,
and the labels that it is spread over.

The grammar and the keys are Docker Swarm's: `key OP value` with == or !=, whole values compared
without regard to case and without patterns; all constraints of a service must hold.
"""

from __future__ import annotations

import functools
import ipaddress
import re

from skep.domain.base import Pairs, Struct, lookup
from skep.domain.objects import Node, NodeDescription
from skep.domain.spec import Platform
from skep.env import Rejected

_KEY = re.compile(r"[a-z_][a-z0-9\-_.]+", re.IGNORECASE | re.ASCII)
_VALUE = re.compile(r"[a-z0-9:\-_\s.*()?+\[\]\\^$|/]+", re.IGNORECASE | re.ASCII)

_LABELS = "node.labels."
# Two names of one architecture: the kernel's, and the one that is used for images.
_ARCHES = {"x86_64": "amd64", "aarch64": "arm64"}

KEYS = (
    "node.id",
    "node.hostname",
    "node.ip",
    "node.role",
    "node.platform.os",
    "node.platform.arch",
    "node.labels.NAME",
)


class Constraint(Struct, frozen=True, kw_only=True):
    """One parsed constraint."""

    key: str
    is_equal: bool
    value: str


@functools.lru_cache(maxsize=4096)
def parse_constraint(text: str) -> Constraint:
    """Parse one constraint. Raises Rejected.

    An unknown key, and an address that is none, are refused here; in Swarm they silently match no
    node.
    """
    for sign in ("==", "!="):
        if sign in text:
            key, _, value = text.partition(sign)
            break
    else:
        raise Rejected(f"constraint {text!r} has no operator; write KEY == VALUE or KEY != VALUE")
    key, value = key.strip(), value.strip()
    if not _KEY.fullmatch(key):
        raise Rejected(f"constraint {text!r}: {key!r} is not a valid key")
    if not _VALUE.fullmatch(value):
        raise Rejected(f"constraint {text!r}: {value!r} is not a valid value")
    is_label = key.lower().startswith(_LABELS) and len(key) > len(_LABELS)
    if not is_label and key.lower() not in KEYS[:-1]:
        raise Rejected(f"constraint {text!r}: unknown key {key!r}; known are {', '.join(KEYS)}")
    if key.lower() == "node.ip":
        try:
            ipaddress.ip_network(value, strict=False)
        except ValueError:
            raise Rejected(
                f"constraint {text!r}: {value!r} is neither an address nor a network such as "
                "10.0.0.0/8"
            ) from None
    return Constraint(key=key, is_equal=sign == "==", value=value)


def is_met(constraint: Constraint, node: Node) -> bool:
    """Whether a node satisfies a constraint."""
    actual = _value_on(constraint.key, node)
    if constraint.key.lower() == "node.ip":
        return _is_within(actual, constraint.value) == constraint.is_equal
    return (actual.lower() == constraint.value.lower()) == constraint.is_equal


def are_met(constraints: tuple[str, ...], node: Node) -> bool:
    """Whether a node satisfies all of a spec's constraints, which were parsed when it came in."""
    return all(is_met(parse_constraint(text), node) for text in constraints)


def is_supported(platforms: tuple[Platform, ...], node: NodeDescription) -> bool:
    """Whether a node is one of these platforms. One that says nothing of itself is none."""
    if not node.os and not node.arch:
        return False
    return any(
        (not wanted.os or wanted.os.lower() == node.os.lower())
        and (not wanted.arch or _arch(wanted.arch) == _arch(node.arch))
        for wanted in platforms
    )


def _arch(name: str) -> str:
    return _ARCHES.get(name.lower(), name.lower())


def branch_of(preference: str, node: Node) -> str:
    """The value of the label that "node.labels.NAME" names. Nodes without it are as one with those
    where it is empty, as in Swarm."""
    return lookup(node.labels, preference[len(_LABELS) :]) or ""


def _is_within(address: str, network: str) -> bool:
    try:
        return ipaddress.ip_address(address) in ipaddress.ip_network(network, strict=False)
    except ValueError:
        return False


def _value_on(key: str, node: Node) -> str:
    values: Pairs = (
        ("node.hostname", node.description.hostname or node.name),
        ("node.id", node.id),
        ("node.ip", node.description.address),
        ("node.platform.arch", node.description.arch),
        ("node.platform.os", node.description.os),
        ("node.role", node.role.value),
    )
    if key.lower().startswith(_LABELS):
        # The label's own name is compared exactly, as everywhere else.
        return branch_of(key, node)
    return lookup(values, key.lower()) or ""
