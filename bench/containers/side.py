"""What the benchmark asks of an orchestrator, so that it asks the same of both."""

from __future__ import annotations

import enum
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from bench.containers.docker import Docker

# Stops at once when it is asked to.
COMMAND = ("sh", "-c", "trap 'exit 0' TERM; sleep 100000 & wait")
IMAGE = "skep-bench"
RELEASES = ("1", "2")
PARALLELISM = 2
# Both are asked what their tasks do at this pace: Swarm has no watch of tasks.
POLL_S = 0.05
LIMIT_S = 120.0


class Net(enum.Enum):
    """What the tasks are on."""

    HOST = "host"
    OVERLAY = "overlay"


class Order(enum.Enum):
    """Which comes first in an update."""

    STOP_FIRST = "stop-first"
    START_FIRST = "start-first"


@dataclass(frozen=True)
class Wish:
    """A service of `replicas` tasks that run `COMMAND`; restarts without delay."""

    name: str
    replicas: int
    net: Net
    order: Order = Order.STOP_FIRST


@dataclass(frozen=True)
class Seen:
    """A task, as its orchestrator shows it; `release` is the one it was made for."""

    task_id: str
    release: str
    is_running: bool


class Side(Protocol):
    """An orchestrator of three nodes, each with a dockerd of its own."""

    @property
    def name(self) -> str:
        """Who it is."""
        ...

    @property
    def engines(self) -> Sequence[Docker]:
        """The dockerd of each node."""
        ...

    @property
    def folders(self) -> Sequence[Path]:
        """Where its daemons keep what they have; these and shims name them when they start."""
        ...

    def own_processes(self) -> Mapping[str, Sequence[int]]:
        """The pids of its long-running processes, by kind."""
        ...

    def create(self, wish: Wish) -> None:
        """Ask for a service of the first release; returns once that is accepted."""
        ...

    def update(self, name: str) -> None:
        """Ask for the second release instead."""
        ...

    def remove(self, name: str) -> None:
        """Ask for no such service."""
        ...

    def tasks(self, name: str) -> Sequence[Seen]:
        """Its tasks, also those that have ended but are still listed."""
        ...


def image(release: str) -> str:
    """An image's name."""
    return f"{IMAGE}:{release}"


def until(look: Callable[[], bool], what: str) -> float:
    """When `look` was true first, by the clock of `time.perf_counter`; asked every `POLL_S`."""
    ends = time.perf_counter() + LIMIT_S
    while True:
        asked = time.perf_counter()
        if look():
            return time.perf_counter()
        if asked > ends:
            raise AssertionError(f"not within {LIMIT_S:g} s: {what}")
        time.sleep(max(0.0, asked + POLL_S - time.perf_counter()))
