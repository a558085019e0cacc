"""The text that nftables is given: names, and lines about the elements of its maps and sets.

Protocols are numbers in what we write and in what we read. Their names would be looked up by libc
functions that share one buffer among all threads, and many namespaces are changed at once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping

TCP, UDP = 6, 17
PROTOCOL_NUMBERS: Mapping[str, int] = {"tcp": TCP, "udp": UDP}
PROTOCOL_NAMES: Mapping[int, str] = {number: name for name, number in PROTOCOL_NUMBERS.items()}

STRAYS = "strays"
# What these chains hold is told by the names of the maps that lead to them.
GUARD_CHAINS = f"""\
  counter {STRAYS} {{ }}
  chain stray {{
    counter name {STRAYS} drop
  }}
  chain refuse {{
    meta l4proto {TCP} reject with tcp reset
    reject with icmp type port-unreachable
  }}
"""


def table_name(kind: str, node: str) -> str:
    """The name of a node's table. `kind` keeps the tables of one node apart, where there are
    several in a namespace; what a name in nftables can't hold is written as its number."""
    assert node, "a node has a name"
    safe = "".join(
        c if c.isascii() and (c.isalnum() or c in "-.") else f"_{ord(c):x}_" for c in node
    )
    return f"{kind}_{safe}"


def layout_mark(body: str) -> str:
    """The name of an empty chain that says which text a table was made from, so that a table that
    another release of Skep has made is known for one and is replaced as a whole."""
    return f"layout_{hashlib.sha256(body.encode()).hexdigest()[:12]}"


def new_table(table: str, body: str) -> list[str]:
    """Lines that make the table from nothing, in place of any that is there."""
    return [
        f"table ip {table} {{ }}",
        f"delete table ip {table}",
        f"table ip {table} {{",
        body.rstrip("\n"),
        f"  chain {layout_mark(body)} {{ }}",
        "}",
    ]


def add_elements(table: str, name: str, elements: Iterable[str]) -> list[str]:
    """Lines that add these to a map or set; none for none."""
    text = ", ".join(elements)
    return [f"add element ip {table} {name} {{ {text} }}"] if text else []


def delete_elements(table: str, name: str, keys: Iterable[str]) -> list[str]:
    """Lines that delete these from a map or set; none for none."""
    text = ", ".join(keys)
    return [f"delete element ip {table} {name} {{ {text} }}"] if text else []


def verdict_lines(
    table: str, name: str, now: Mapping[str, str], then: Mapping[str, str]
) -> list[str]:
    """Lines that lead a verdict map from `now` to `then`, both keys to chains."""
    old = [key for key in sorted(now) if then.get(key) != now[key]]
    new = [key for key in sorted(then) if now.get(key) != then[key]]
    lines = delete_elements(table, name, old)
    return lines + add_elements(table, name, (f"{key} : goto {then[key]}" for key in new))
