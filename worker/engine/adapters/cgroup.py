"""Control groups: how the process engine holds a task to its limits, where it may.

Both versions of the kernel's interface are supported; in a mixed tree the controllers are under
version 1 and that is used. Only tasks with limits get groups, since most tasks have none:
`<controller>/skep/<node>/<task>` in version 1, `skep/<node>/<task>` in version 2. The folders
above a task's are made with the first task and removed with the last.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterable
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
MAKE_ATTEMPTS = 5


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
            _make_folder(base / task_id)
            for folder in (base.parent, base) if self.version == 2 else ():
                _delegate(folder)
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
            for folder in (base, base.parent):
                if not _subfolders(folder):
                    _remove_folder(folder)

    def tasks(self) -> list[TaskId]:
        """The tasks that have groups. Other folders there are the netproxy's."""
        found = {folder.name for base in self._folders() for folder in _subfolders(base)}
        return [TaskId(name) for name in sorted(found) if name.isalnum()]

    def clean(self, is_known: Callable[[TaskId], bool]) -> None:
        """Remove the groups of tasks that nobody knows any more. They are listed first: a task
        that gets its group meanwhile is known before that."""
        for task_id in self.tasks():
            if not is_known(task_id):
                self.remove(task_id)


def detect(name: str, mountinfo: Path = Path("/proc/self/mountinfo")) -> Cgroups | None:
    """The control groups this process may make for the node `name`; None if there are none."""
    one, two = _mounts(mountinfo.read_text())
    if all(controller in one for controller in CONTROLLERS):
        tops = {controller: one[controller] for controller in CONTROLLERS}
        version = 1
    elif two is not None:
        tops = dict.fromkeys(CONTROLLERS, two)
        version = 2
    else:
        return None
    if not all(os.access(top, os.W_OK) for top in tops.values()):
        return None
    if two is not None and version == 2:
        try:
            _open_top(two)
        except OSError:
            return None
    return Cgroups(version, {c: top / TOP / name for c, top in tops.items()})


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


def _open_top(top: Path) -> None:
    """Make version 2's tree ready for groups with limits below its top.

    A group that gives controllers to its children can't hold processes itself, but for the
    machine's own root. In a container the top is a group like any other, so what is in it moves
    aside, as Docker-in-Docker does it. Raises OSError where that can't be.
    """
    if (top / "cgroup.type").exists() and not _is_delegated(top):
        aside = top / "init"
        aside.mkdir(exist_ok=True)
        for pid in _pids(top):
            try:
                _write(aside / "cgroup.procs", str(pid))
            except ProcessLookupError:
                continue
    _delegate(top)


def _delegate(folder: Path) -> None:
    """Let a folder's children have the controllers."""
    if not _is_delegated(folder):
        _write(folder / "cgroup.subtree_control", " ".join(f"+{c}" for c in CONTROLLERS))


def _is_delegated(folder: Path) -> bool:
    return set(CONTROLLERS) <= set((folder / "cgroup.subtree_control").read_text().split())


def _make_folder(folder: Path) -> None:
    # Another node's last task may take the common folder away in between.
    for _ in range(MAKE_ATTEMPTS - 1):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except FileNotFoundError:
            continue
        return
    folder.mkdir(parents=True, exist_ok=True)


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
        # Gone already, or a zombie is still in it: the engine tries again when it is next started.
        return
