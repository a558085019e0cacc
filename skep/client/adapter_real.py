"""The production seams. Apart, so that programs with their own seams never load gRPC."""

from __future__ import annotations

import os
import random
from dataclasses import dataclass

from skep.env import Clock, DiceIds, Ids, LoopClock, Transport
from skep.rpc import GrpcTransport

# This module is loaded by the first connection, and gRPC with it.
_PROCESS = os.getpid()


@dataclass(frozen=True)
class RealSeams:
    """See `skep.client.seams.Seams`."""

    clock: Clock
    ids: Ids
    transport: Transport


def real_seams() -> RealSeams:
    """gRPC, the running loop's clock, and ids from the kernel's dice. Raises RuntimeError
    in a process forked from one that has connected: gRPC would wait there for threads that only
    the other process has, whatever the deadline."""
    if os.getpid() != _PROCESS:
        raise RuntimeError(
            "the process that this one was forked from has connected to a cluster, after which "
            "gRPC works in no fork of it; fork first, or start processes by spawn"
        )
    return RealSeams(LoopClock(), DiceIds(random.SystemRandom()), GrpcTransport())
