"""The notes by which a node says how it can encrypt what goes from node to node."""

from __future__ import annotations

from skep.domain.base import Pairs, lookup

ENCRYPTION_NOTE = "network.encryption"
"""By what means a node encrypts, or `NO_ENCRYPTION`, a colon, and why it can't."""

WIREGUARD_KEY_NOTE = "network.wireguard-key"
"""The node's public WireGuard key, in base64. Absent where it can't encrypt."""

NO_ENCRYPTION = "none"


def can_encrypt(notes: Pairs) -> bool:
    """Whether the node says that it can. One that says nothing can't."""
    said = lookup(notes, ENCRYPTION_NOTE)
    return said is not None and said.partition(":")[0].strip() != NO_ENCRYPTION
