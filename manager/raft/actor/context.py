"""What all parts of one Raft node share."""

from __future__ import annotations

from dataclasses import dataclass

from skep.env import Env
from skep.manager.raft.actor.tasks import Tasks
from skep.manager.raft.core.model import Settings, Stats


@dataclass(frozen=True, slots=True)
class Context:
    """Who this node is, and what it may use. `peers` are the others, in order."""

    env: Env
    cluster: str
    me: int
    peers: tuple[int, ...]
    settings: Settings
    stats: Stats
    tasks: Tasks
