"""What comes with a task besides its own process, in memory, and what the daemons take."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from bench.containers.side import Side

KILOBYTES = 1024


@dataclass(frozen=True)
class Memory:
    """In MB: what is mapped, and the same with each page divided by those who share it."""

    rss: float = 0.0
    pss: float = 0.0

    def __add__(self, other: Memory) -> Memory:
        return Memory(self.rss + other.rss, self.pss + other.pss)

    def over(self, count: int) -> Memory:
        """Divided by a count."""
        return Memory(self.rss / count, self.pss / count)


def processes() -> frozenset[int]:
    """The pids of all processes of the machine."""
    return frozenset(int(each.name) for each in Path("/proc").iterdir() if each.name.isdigit())


def beside_tasks(side: Side, service: str, before: Collection[int]) -> Memory:
    """For each task of a service: of all the side's processes that have come since `before`, but
    for what runs in containers. Shims are among them, and whatever holds something for a task."""
    ids = [each["Id"] for docker in side.engines for each in docker.containers(service)]
    new = (pid for pid in processes() - set(before) if _belongs(pid, side))
    return of(pid for pid in new if not _is_inside(pid, ids)).over(len(ids))


def of(pids: Iterable[int]) -> Memory:
    """Of these processes together; one that has ended counts nothing."""
    return sum(map(_of_one, pids), start=Memory())


def _of_one(pid: int) -> Memory:
    found: dict[str, float] = {}
    for line in _lines(pid, "smaps_rollup"):
        if line.startswith(("Rss:", "Pss:")):
            name, amount = line.split()[:2]
            found[name] = float(amount) / KILOBYTES
    return Memory(found.get("Rss:", 0.0), found.get("Pss:", 0.0))


def _belongs(pid: int, side: Side) -> bool:
    """Whether it names a folder of this side on its command line, or what has started it does."""
    while pid > 1:
        words = " ".join(_lines(pid, "cmdline"))
        if any(f"{folder}/" in words for folder in side.folders):
            return True
        parent = next((line for line in _lines(pid, "status") if line.startswith("PPid:")), None)
        pid = int(parent.split()[1]) if parent else 0
    return False


def _is_inside(pid: int, containers: Collection[str]) -> bool:
    """Whether it runs in one of the containers, by its control groups."""
    groups = "".join(_lines(pid, "cgroup"))
    return any(container in groups for container in containers)


def _lines(pid: int, name: str) -> Iterator[str]:
    with contextlib.suppress(OSError):
        yield from Path(f"/proc/{pid}/{name}").read_text(errors="replace").splitlines()
