"""The node's folder in the cgroup v2 tree, and which programs of ours hang there."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from skep.netproxy.kernel.adapters import bpf
from skep.netproxy.kernel.core import programs

# A pure v2 tree, and beside a v1 one.
ROOTS = (Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/unified"))
_MKDIR_ATTEMPTS = 10


@dataclass(frozen=True, slots=True)
class Attached:
    """A program of ours; its descriptor is whoever's asked for it."""

    attach_type: int
    fd: int
    info: bpf.ProgramInfo


def root() -> Path | None:
    """Where the cgroup v2 tree is mounted, if it is."""
    return next((root for root in ROOTS if (root / "cgroup.controllers").exists()), None)


def make(folder: Path) -> None:
    """Make the folder where it is missing. Raises OSError."""
    for _ in range(_MKDIR_ATTEMPTS):
        # Another node's `remove` may take the folder above away at any moment.
        with contextlib.suppress(FileNotFoundError):
            folder.mkdir(parents=True, exist_ok=True)
            return
    folder.mkdir(parents=True, exist_ok=True)


def remove(folder: Path) -> None:
    """Remove the folder, those below, and the one above if it is empty; not those with a task."""
    folders = [Path(path) for path, _, _ in os.walk(folder, topdown=False)]
    for path in (*folders, folder.parent):
        with contextlib.suppress(OSError):
            path.rmdir()


@contextlib.contextmanager
def opened(folder: Path) -> Iterator[int]:
    """A descriptor of the folder, as programs are attached to. Raises OSError."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


def ours(cgroup: int, attach_types: Iterable[int]) -> list[Attached]:
    """Programs of any netproxy on this very cgroup, in the order in which they run."""
    found = []
    for attach_type in attach_types:
        for program_id in bpf.attached(cgroup, attach_type):
            try:
                fd = bpf.program_by_id(program_id)
            except FileNotFoundError:
                continue  # detached a moment ago
            info = bpf.program_info(fd)
            if programs.is_ours(info.name):
                found.append(Attached(attach_type, fd, info))
            else:
                os.close(fd)
    return found


def detach(cgroup: int, program: Attached) -> None:
    """Detach it and give its descriptor back."""
    bpf.detach(cgroup, program.fd, program.attach_type)
    os.close(program.fd)


def maps_of(program: Attached) -> dict[str, bpf.Map]:
    """The program's maps by name."""
    return dict(map(bpf.map_by_id, program.info.map_ids))
