"""What a node is made of once it has recovered."""

from __future__ import annotations

from dataclasses import dataclass

from skep.manager.raft.actor.barrier import Barrier
from skep.manager.raft.actor.context import Context
from skep.manager.raft.actor.elections import Elections
from skep.manager.raft.actor.engine import Engine
from skep.manager.raft.actor.journal import Journal
from skep.manager.raft.actor.reads import Reads
from skep.manager.raft.actor.receiver import Receiver
from skep.manager.raft.actor.snapshots import Snapshots, SnapshotStore


@dataclass(frozen=True, slots=True)
class Parts:
    """The parts that a step and a message go through."""

    engine: Engine
    elections: Elections
    reads: Reads
    snapshots: Snapshots
    receiver: Receiver


def assemble(
    context: Context, engine: Engine, journal: Journal, barrier: Barrier, store: SnapshotStore
) -> Parts:
    """Put the parts of one node together."""
    elections = Elections(context, engine, journal, barrier.send)
    reads = Reads(context, engine, barrier.send)
    snapshots = Snapshots(context, engine, journal, store, barrier)
    receiver = Receiver(engine, journal, Receiver.Others(elections, reads, snapshots), barrier.send)
    return Parts(engine, elections, reads, snapshots, receiver)
