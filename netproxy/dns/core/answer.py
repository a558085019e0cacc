"""From the bytes of a query to the bytes of its answer, for one scope."""

from __future__ import annotations

from collections import Counter

from skep.netproxy.dns.core import wire
from skep.netproxy.dns.core.wire import BadQuery, Query, Type
from skep.netproxy.dns.core.zones import Names, Outcome, View

_REVERSE = ".in-addr.arpa"


# What is counted: queries by what became of them.
ANSWERED, UNKNOWN, FORWARDED = "answered", "unknown", "forwarded"
REFUSED = "refused"  # bad ones: told so, or dropped


class Answerer:
    """Answers what the node knows by itself."""

    def __init__(self, names: Names) -> None:
        self._names = names
        # By plain strings: an enum's hash is one more call for each query.
        self.counts: Counter[str] = Counter()

    def respond(self, view: View, data: bytes, *, is_udp: bool) -> bytes | Query | None:
        """The answer; the query itself where it has to be forwarded; None: say nothing."""
        view.queries += 1
        try:
            query = wire.parse_query(data)
        except BadQuery as bad:
            self.counts[REFUSED] += 1
            return bad.answer
        if query.type == Type.PTR:
            address = reversed_address(query.name)
            if address is not None:
                return self._pointer(view, query, address)
        outcome, entry = self._names.find(view, query.name)
        if entry is None:
            return self._without_entry(query, outcome)
        self.counts[ANSWERED] += 1
        # Addresses are all there is, so they are what a query for anything is told.
        if query.type not in (Type.A, Type.ANY):
            return wire.empty(query)
        limit_bytes = query.udp_bytes if is_udp else wire.MESSAGE_LIMIT_BYTES
        return wire.addresses(query, self._names.turn(view, entry, is_udp), limit_bytes)

    def _pointer(self, view: View, query: Query, address: str) -> bytes | Query:
        outcome, name = self._names.find_address(view, address)
        if name is None:
            return self._without_entry(query, outcome)
        self.counts[ANSWERED] += 1
        try:
            return wire.pointer(query, name)
        except ValueError:
            # A name that DNS has no room for, such as one with its network's long name.
            return wire.empty(query)

    def _without_entry(self, query: Query, outcome: Outcome) -> bytes | Query:
        if outcome is Outcome.FORWARD:
            self.counts[FORWARDED] += 1
            return query
        self.counts[UNKNOWN] += 1
        return wire.unknown(query)


def reversed_address(name: str) -> str | None:
    """The IPv4 address in a name such as "4.3.2.1.in-addr.arpa"; None where there is none."""
    if not name.endswith(_REVERSE):
        return None
    parts = name[: -len(_REVERSE)].split(".")
    is_address = len(parts) == 4 and all(
        part.isascii() and part.isdecimal() and str(int(part)) == part and int(part) < 256
        for part in parts
    )
    return ".".join(reversed(parts)) if is_address else None
