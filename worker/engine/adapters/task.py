"""One task as the process engine knows it while it runs itself."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from pathlib import Path

from skep.worker.engine.core.records import MainProcess, TaskRecord
from skep.worker.engine.protocol import Exit, Started


@dataclass(eq=False, slots=True)
class KnownTask:
    """`change` is held by whoever starts, stops or removes it. `shim_fd` is a pidfd; `stopping` is
    the one stop that all who ask for it wait for."""

    record: TaskRecord
    folder: Path
    main: MainProcess | None = None
    started: Started | None = None
    exit: Exit | None = None
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    change: asyncio.Lock = field(default_factory=asyncio.Lock)
    shim_fd: int | None = None
    stopping: asyncio.Task[None] | None = None

    @property
    def is_running(self) -> bool:
        """Whether it was started and its end is not known yet."""
        return self.started is not None and self.exit is None
