"""What a node's description says of its network: the notes that its worker asks netproxy for."""

from __future__ import annotations

import os

from skep.api import codec
from skep.domain.attach import FactsRequest, FactsResponse
from skep.domain.base import Pairs
from skep.domain.notes import ENCRYPTION_NOTE, NO_ENCRYPTION
from skep.env import Service
from skep.netproxy.network import SERVICE

PLANE_NOTE = "network.plane"


def relay_notes() -> Pairs:
    """What is to be said of the relay plane."""
    way = "start with --plane kernel"
    if os.geteuid() != 0:
        way = "run netproxy as root, with --plane kernel"
    lacks = "in user space, which keeps no networks apart; for networks that are apart"
    return (
        (ENCRYPTION_NOTE, f"{NO_ENCRYPTION}: it is in user space; {way}"),
        (PLANE_NOTE, f"{lacks}, {way}"),
    )


def kernel_notes(vips: str, hindrance: str | None, encryption: Pairs) -> Pairs:
    """What is to be said of the kernel plane, whose virtual addresses are by that means, and of
    how it encrypts."""
    why = f" ({hindrance})" if hindrance else ""
    return (*encryption, (PLANE_NOTE, f"virtual addresses by {vips}{why}"))


def answering(calls: Service, notes: Pairs) -> Service:
    """The calls of this node's worker, with the one for these notes."""

    async def facts(data: bytes) -> bytes:
        codec.decode(FactsRequest, data)
        return codec.encode(FactsResponse(notes=notes))

    return Service({**calls.calls, f"{SERVICE}/Facts": facts}, calls.streams)
