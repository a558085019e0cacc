"""Three dockerd on one machine, each as on a node of its own.

Each has its own folder (data, state, socket, containerd), network namespace and host name. Its
mounts are private where it is told so: daemons that share /run/xtables.lock wait for each other,
and one that finds a resolver in /etc/resolv.conf that isn't there waits for it at each task.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.containers.docker import BUSYBOX, Docker
from tests.support import netns
from tests.support.local_cluster import eventually, is_alive

NEEDED = ("dockerd", "containerd", "runc", "nsenter", "unshare", "ip", "iptables")
UP_WITHIN_S = 60.0
STOP_GRACE_S = 20.0
GONE_WITHIN_S = 10.0


def why_not() -> str:
    """Why there can't be such daemons here; "" where there can."""
    missing = [name for name in NEEDED if shutil.which(name) is None]
    if missing:
        return f"there is no {', '.join(missing)}"
    if not BUSYBOX.exists():
        return f"there is no {BUSYBOX} to make an image of"
    return netns.why_not()


@dataclass(frozen=True)
class Place:
    """Where a daemon is to be: its host name, folder and network namespace, and what is said to it
    beyond that. `is_apart`: with mounts of its own."""

    name: str
    folder: Path
    namespace: Path
    flags: tuple[str, ...] = ()
    is_apart: bool = True

    @property
    def socket(self) -> Path:
        """Where it takes calls."""
        return self.folder / "docker.sock"


class Daemon:
    """One dockerd with its containerd."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.docker = Docker(place.socket)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Of the dockerd."""
        assert self._process is not None, "not started"
        return self._process.pid

    def start(self) -> None:
        """Start it; `until_up` says when it is there."""
        place = self.place
        place.folder.mkdir(parents=True, exist_ok=True)
        with (place.folder / "dockerd.log").open("ab") as log:
            self._process = subprocess.Popen(
                _command(place),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def until_up(self) -> None:
        """Wait until it takes calls."""

        def answers() -> bool:
            assert self._process is not None, "not started"
            assert self._process.poll() is None, self._last_words()
            with contextlib.suppress(OSError):
                self.docker.get("/_ping")
                return True
            return False

        eventually(answers, UP_WITHIN_S, f"dockerd {self.place.name}")

    def stop(self) -> None:
        """End its containers, then it, then whatever is left of them all. Idempotent."""
        if self._process is None:
            return
        with contextlib.suppress(Exception):
            for container in self.docker.get("/containers/json", all="1"):
                self.docker.remove_container(container["Id"])
        self.docker.close()
        self._process.terminate()
        try:
            self._process.wait(STOP_GRACE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None
        _end(_leftovers(self.place.folder))
        for mount in _mounts(self.place.folder):
            subprocess.run(("umount", "--lazy", mount), check=False, capture_output=True)

    def _last_words(self) -> str:
        lines = (self.place.folder / "dockerd.log").read_text().splitlines()
        return f"dockerd {self.place.name}: " + " | ".join(lines[-3:])


@contextlib.contextmanager
def daemons(places: Sequence[Place]) -> Iterator[tuple[Daemon, ...]]:
    """All of them, up; ended afterwards, with their folders."""
    made = tuple(Daemon(place) for place in places)
    try:
        for each in made:
            each.start()
        for each in made:
            each.until_up()
        yield made
    finally:
        for each in made:
            each.stop()
            shutil.rmtree(each.place.folder, ignore_errors=True)


def give_images(made: Iterable[Daemon], name: str, releases: Iterable[str]) -> None:
    """All releases of an image to each daemon."""
    for daemon in made:
        for release in releases:
            daemon.docker.import_image(name, release)


def engine_processes(daemons: Iterable[Daemon]) -> dict[str, list[int]]:
    """The pids of dockerd and of its containerd, which is its child, on each node."""
    pids = [daemon.pid for daemon in daemons]
    return {"dockerd": pids, "containerd": [_child(pid) for pid in pids]}


def _child(pid: int) -> int:
    # Each thread lists the children that it has started itself.
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            if b"containerd" in Path(f"/proc/{child}/cmdline").read_bytes():
                return int(child)
    raise AssertionError(f"dockerd {pid} has no containerd")


def _command(place: Place) -> tuple[str, ...]:
    folder = place.folder
    dockerd = (
        "dockerd",
        f"--host=unix://{place.socket}",
        f"--data-root={folder}/data",
        f"--exec-root={folder}/exec",
        f"--pidfile={folder}/dockerd.pid",
        *place.flags,
    )
    inside = ("nsenter", f"--net={place.namespace}", "--")
    if not place.is_apart:
        return (*inside, *dockerd)
    (folder / "run").mkdir(exist_ok=True)
    (folder / "xtables.lock").touch()
    (folder / "hosts").write_text(f"127.0.0.1 localhost {place.name}\n")
    (folder / "resolv.conf").write_text("")
    script = (
        'mkdir -p /run/docker; touch /run/xtables.lock; mount --bind "$0/run" /run/docker; '
        'mount --bind "$0/xtables.lock" /run/xtables.lock; mount --bind "$0/hosts" /etc/hosts; '
        'mount --bind "$0/resolv.conf" /etc/resolv.conf; hostname "$1"; shift; exec "$@"'
    )
    return (
        *inside,
        *("unshare", "--mount", "--uts", "sh", "-ec", script, str(folder), place.name),
        *dockerd,
    )


def _leftovers(folder: Path) -> list[int]:
    """Processes that name this folder on their command lines, and theirs: a daemon that was killed
    leaves its containerd, shims, and what these run."""
    parents: dict[int, int] = {}
    found: set[int] = set()
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        with contextlib.suppress(OSError, IndexError, ValueError):
            pid = int(entry.name)
            parents[pid] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            if f"{folder}/".encode() in (entry / "cmdline").read_bytes():
                found.add(pid)
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return sorted(found)


def _end(pids: Iterable[int]) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    ends = time.monotonic() + GONE_WITHIN_S
    while any(is_alive(pid) for pid in pids) and time.monotonic() < ends:
        time.sleep(0.05)


def _mounts(folder: Path) -> list[str]:
    """Of the machine, below this folder; innermost first."""
    lines = Path("/proc/self/mounts").read_text().splitlines()
    return [
        place for line in reversed(lines) if (place := line.split()[1]).startswith(f"{folder}/")
    ]
