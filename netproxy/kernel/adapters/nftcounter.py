"""One counter of an nftables table, asked for by name.

libnftables answers no such question without reading all rules and elements of the namespace first,
which takes 17 ms of CPU where there are a thousand virtual addresses, and before each change there
is a counter to be looked at. The message is small and fixed (linux/netfilter/nf_tables.h).
"""

from __future__ import annotations

import struct

from skep.netproxy.kernel.adapters.netlink import (
    HEADER_BYTES,
    Netlink,
    attribute,
    attributes,
    message,
)

_NETFILTER = 12  # NETLINK_NETFILTER
_GET_OBJECT = 10 << 8 | 19  # NFNL_SUBSYS_NFTABLES, NFT_MSG_GETOBJ
_FAMILY = struct.pack("=BBH", 2, 0, 0)  # IPv4
_COUNTER = struct.pack("!I", 1)  # NFT_OBJECT_COUNTER
_TABLE, _NAME, _TYPE, _DATA = 1, 2, 3, 4  # NFTA_OBJ_*
_PACKETS = 2  # NFTA_COUNTER_PACKETS


def packets(table: str, counter: str) -> int:
    """How many packets it has counted, in the calling thread's namespace; 0 where there is no such
    counter. Raises OSError."""
    texts = ((_TABLE, table), (_NAME, counter))
    asked = b"".join(attribute(number, text.encode() + b"\0") for number, text in texts)
    netlink = Netlink(_NETFILTER)
    try:
        answer = netlink.get(message(_GET_OBJECT, 0, _FAMILY, asked + attribute(_TYPE, _COUNTER)))
    finally:
        netlink.close()
    if answer is None:
        return 0
    data = dict(attributes(answer[HEADER_BYTES + len(_FAMILY) :])).get(_DATA, b"")
    return int.from_bytes(dict(attributes(data)).get(_PACKETS, b""), "big")
