"""What a node's description says of its network: the notes that its worker asks netproxy for."""

from __future__ import annotations

import asyncio
import os

from skep.api import codec
from skep.domain.attach import FactsRequest, FactsResponse
from skep.domain.base import Pairs
from skep.env import Service
from skep.netproxy.adapters import encryption
from skep.netproxy.network import SERVICE

PLANE_NOTE, ENCRYPTION_NOTE = "network.plane", "network.encryption"


async def gathered(plane: str) -> Pairs:
    """The notes; `plane` is what is to be said of the data plane."""
    tried = await asyncio.get_running_loop().run_in_executor(None, encryption.note)
    return ((ENCRYPTION_NOTE, tried), (PLANE_NOTE, plane))


def relay_note() -> str:
    """What is to be said of the relay plane."""
    way = "start with --plane kernel"
    if os.geteuid() != 0:
        way = "run netproxy as root, with --plane kernel"
    return f"in user space, which keeps no networks apart; for networks that are apart, {way}"


def kernel_note(vips: str, hindrance: str | None) -> str:
    """What is to be said of the kernel plane, whose virtual addresses are by that means."""
    why = f" ({hindrance})" if hindrance else ""
    return f"virtual addresses by {vips}{why}"


def answering(calls: Service, notes: Pairs) -> Service:
    """The calls of this node's worker, with the one for these notes."""

    async def facts(data: bytes) -> bytes:
        codec.decode(FactsRequest, data)
        return codec.encode(FactsResponse(notes=notes))

    return Service({**calls.calls, f"{SERVICE}/Facts": facts}, calls.streams)
