"""The production seams. Apart, so that programs with their own seams never load gRPC."""

from __future__ import annotations

import random
from dataclasses import dataclass

from skep.env import Clock, DiceIds, Ids, LoopClock, Transport
from skep.rpc import GrpcTransport


@dataclass(frozen=True)
class RealSeams:
    """See `skep.client.seams.Seams`."""

    clock: Clock
    ids: Ids
    transport: Transport


def real_seams() -> RealSeams:
    """gRPC, the running loop's clock, and ids from the kernel's dice."""
    return RealSeams(LoopClock(), DiceIds(random.SystemRandom()), GrpcTransport())
