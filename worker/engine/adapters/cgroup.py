"""Control groups: how the process engine holds a task to its limits, where it may.

Both versions of the kernel's interface are supported; in a mixed tree the controllers are under
version 1 and that is used. Only tasks with limits get groups, since most tasks have none:
`<controller>/skep/<node>/<task>` in version 1, `skep/<node>/<task>` in version 2.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from skep.domain.base import TaskId
from skep.domain.spec import Resources
from skep.worker.engine.adapters.proc import wait_for_all

CONTROLLERS = ("memory", "cpu", "pids")
TOP = "skep"
# The kernel's default period; a quota below a hundredth of it is refused by the kernel.
CPU_PERIOD_US = 100_000
CPU_MIN_QUOTA_US = 1_000
SECOND_US = 1_000_000
CORE_NANO = 1_000_000_000
KILL_ROUNDS = 20
KILL_ROUND_S = 1.0


@dataclass(frozen=True)
class Cgroups:
    """The groups of one node. `bases` are the folders that hold a folder per task: one for each
    controller in version 1, one for all of them in version 2."""

    version: int
    bases: dict[str, Path]

    @property
    def note(self) -> str:
        """Which groups are used, for the node's description."""
        return f"cgroup v{self.version}: " + ", ".join(str(base) for base in self._folders())

    def _folders(self) -> list[Path]:
        return list(dict.fromkeys(self.bases.values()))

    def paths(self, task_id: TaskId) -> tuple[str, ...]:
        """The folders of one task's groups."""
        return tuple(str(base / task_id) for base in self._folders())

    def create(self, task_id: TaskId, limits: Resources) -> None:
        """Make a task's groups with their limits. Raises OSError."""
        for base in self._folders():
            (base / task_id).mkdir(exist_ok=True)
        if limits.memory_bytes is not None:
            self._limit_memory(self.bases["memory"] / task_id, limits.memory_bytes)
        if limits.cpu_nano is not None:
            quota = max(CPU_MIN_QUOTA_US, limits.cpu_nano * CPU_PERIOD_US // CORE_NANO)
            folder = self.bases["cpu"] / task_id
            if self.version == 2:
                _write(folder / "cpu.max", f"{quota} {CPU_PERIOD_US}")
            else:
                _write(folder / "cpu.cfs_period_us", str(CPU_PERIOD_US))
                _write(folder / "cpu.cfs_quota_us", str(quota))
        if limits.pids is not None:
            _write(self.bases["pids"] / task_id / "pids.max", str(limits.pids))

    def _limit_memory(self, folder: Path, limit_bytes: int) -> None:
        # As with Docker, as much swap again; a kernel without swap accounting has no such file.
        if self.version == 2:
            _write(folder / "memory.max", str(limit_bytes))
            swap, swap_bytes = folder / "memory.swap.max", limit_bytes
        else:
            _write(folder / "memory.limit_in_bytes", str(limit_bytes))
            swap, swap_bytes = folder / "memory.memsw.limit_in_bytes", 2 * limit_bytes
        if swap.exists():
            _write(swap, str(swap_bytes))

    def was_out_of_memory(self, task_id: TaskId) -> bool:
        """Whether the kernel has killed a process of the task for its memory limit."""
        name = "memory.events" if self.version == 2 else "memory.oom_control"
        try:
            text = (self.bases["memory"] / task_id / name).read_text()
        except OSError:
            return False
        counts = dict(line.split(maxsplit=1) for line in text.splitlines() if " " in line)
        return int(counts.get("oom_kill", "0")) > 0

    def remove(self, task_id: TaskId) -> None:
        """Kill what is left in a task's groups, and remove them."""
        kill_all(self.paths(task_id))
        for base in self._folders():
            _remove_folder(base / task_id)

    def clean(self, known: Iterable[TaskId]) -> None:
        """Remove the groups of tasks that nobody knows any more."""
        keep = set(known)
        found = {e.name for base in self._folders() for e in _subfolders(base)}
        for name in sorted(found - keep):
            self.remove(TaskId(name))

    def close(self) -> None:
        """Remove the node's own folders if no task has a group any more."""
        for base in self._folders():
            for folder in (base, base.parent):
                if not any(_subfolders(folder)):
                    _remove_folder(folder)


def detect(name: str, mountinfo: Path = Path("/proc/self/mountinfo")) -> Cgroups | None:
    """The control groups this process may make for the node `name`; None if there are none."""
    one, two = _mounts(mountinfo.read_text())
    try:
        if all(controller in one for controller in CONTROLLERS):
            bases = {c: one[c] / TOP / name for c in CONTROLLERS}
            for base in bases.values():
                base.mkdir(parents=True, exist_ok=True)
            found = Cgroups(1, bases)
        elif two is not None and _has_controllers(two):
            base = two / TOP / name
            base.mkdir(parents=True, exist_ok=True)
            for folder in (two, base.parent, base):
                _delegate(folder, is_top=folder == two)
            found = Cgroups(2, dict.fromkeys(CONTROLLERS, base))
        else:
            return None
    except OSError:
        return None
    writable = all(os.access(base, os.W_OK) for base in found.bases.values())
    return found if writable else None


def kill_all(folders: Iterable[str]) -> None:
    """Kill every process in these groups; returns once they are gone. Raises TimeoutError."""
    for folder in map(Path, folders):
        if (folder / "cgroup.kill").exists():
            _write(folder / "cgroup.kill", "1")
        for _ in range(KILL_ROUNDS):
            pidfds = _open_all(folder)
            if not pidfds:
                break
            try:
                for fd in pidfds:
                    signal.pidfd_send_signal(fd, signal.SIGKILL)
                wait_for_all(pidfds, KILL_ROUND_S)
            finally:
                for fd in pidfds:
                    os.close(fd)
        else:
            raise TimeoutError(f"processes in {folder} do not end")


def _open_all(folder: Path) -> list[int]:
    pidfds: list[int] = []
    for pid in _pids(folder):
        try:
            fd = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        # Looked at again now that the pid is held: it may have been another's meanwhile.
        if pid in _pids(folder):
            pidfds.append(fd)
        else:
            os.close(fd)
    return pidfds


def _pids(folder: Path) -> list[int]:
    try:
        # 0 is a process of another pid namespace, which can't be named from here.
        return [pid for pid in map(int, (folder / "cgroup.procs").read_text().split()) if pid]
    except OSError:
        return []


def _mounts(mountinfo: str) -> tuple[dict[str, Path], Path | None]:
    """Where version 1's controllers and version 2's tree are mounted (see proc(5))."""
    one: dict[str, Path] = {}
    two = None
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        fields, kind = before.split(), after.split()
        if len(fields) < 5 or len(kind) < 3:
            continue
        path = Path(fields[4])
        if kind[0] == "cgroup":
            one.update((c, path) for c in kind[2].split(",") if c in CONTROLLERS)
        elif kind[0] == "cgroup2":
            two = path
    return one, two


def _has_controllers(two: Path) -> bool:
    available = (two / "cgroup.controllers").read_text().split()
    return all(controller in available for controller in CONTROLLERS)


def _delegate(folder: Path, *, is_top: bool) -> None:
    """Let a folder's children have the controllers.

    A group with children can't hold processes itself, but for the machine's own root. In a
    container the top is a group like any other, so what is in it moves aside, as Docker-in-Docker
    does it.
    """
    wanted = " ".join(f"+{controller}" for controller in CONTROLLERS)
    control = folder / "cgroup.subtree_control"
    if set(CONTROLLERS) <= set(control.read_text().split()):
        return
    if is_top and (folder / "cgroup.type").exists():
        aside = folder / "init"
        aside.mkdir(exist_ok=True)
        for pid in _pids(folder):
            try:
                _write(aside / "cgroup.procs", str(pid))
            except ProcessLookupError:
                continue
    _write(control, wanted)


def _write(path: Path, text: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)


def _subfolders(folder: Path) -> list[Path]:
    try:
        return [entry for entry in folder.iterdir() if entry.is_dir()]
    except FileNotFoundError:
        return []


def _remove_folder(folder: Path) -> None:
    for child in _subfolders(folder):
        _remove_folder(child)
    try:
        folder.rmdir()
    except OSError:
        # Gone already, or a zombie is still in it: `clean` tries again.
        return
