"""Making a machine's dockerd know Skep's runtime: two files, and one entry of its configuration."""

from __future__ import annotations

import contextlib
import os
import signal
from importlib import resources
from pathlib import Path

from skep.env import Rejected
from skep.worker.engine.docker.core.daemonfile import RUNTIME, with_runtime

FOLDER = Path("/usr/local/lib/skep")
DAEMON_FILE = Path("/etc/docker/daemon.json")
PID_FILE = Path("/var/run/docker.pid")
PROGRAM = "skep-runtime"
# What is installed, by its name there.
_FILES = {PROGRAM: "skep-runtime", "skep-runtime-create.py": "create.py"}
_PACKAGE = "skep.worker.engine.docker.runtime"


def install(folder: Path) -> list[Path]:
    """Put the runtime into a folder; returns the files that weren't there as they should be.
    Raises OSError."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o755)
    written = []
    for name, source in _FILES.items():
        data = (resources.files(_PACKAGE) / source).read_bytes()
        path = folder / name
        with contextlib.suppress(FileNotFoundError):
            if path.read_bytes() == data and path.stat().st_mode & 0o777 == 0o755:
                continue
        _write(path, data, 0o755)
        written.append(path)
    return written


def configure(daemon_file: Path, program: Path) -> bool:
    """Name the runtime in dockerd's configuration; whether that changed it. Raises Rejected for a
    file that can't be understood, OSError."""
    try:
        text = daemon_file.read_text()
        mode = daemon_file.stat().st_mode & 0o777
    except FileNotFoundError:
        text, mode = "", 0o644
    try:
        changed = with_runtime(text, str(program))
    except Rejected as error:
        raise Rejected(f"{daemon_file}: {error}; nothing was changed") from None
    if changed is None:
        return False
    daemon_file.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
    # A link to the file stays one.
    _write(daemon_file.resolve(), changed.encode(), mode)
    return True


def running_dockerd(pid_file: Path) -> int | None:
    """The pid of the dockerd that wrote this file, if it still runs."""
    try:
        pid = int(pid_file.read_text())
        name = Path(f"/proc/{pid}/comm").read_text().strip()
    except (OSError, ValueError):
        return None
    return pid if name == "dockerd" else None


def reload_dockerd(pid: int) -> None:
    """Have dockerd read its configuration again; containers don't notice. Raises OSError."""
    os.kill(pid, signal.SIGHUP)


def _write(path: Path, data: bytes, mode: int) -> None:
    """Whole or not at all: dockerd may read it at any moment."""
    temporary = path.with_name(path.name + ".new")
    temporary.write_bytes(data)
    temporary.chmod(mode)
    temporary.rename(path)


__all__ = [
    "DAEMON_FILE",
    "FOLDER",
    "PID_FILE",
    "PROGRAM",
    "RUNTIME",
    "configure",
    "install",
    "reload_dockerd",
    "running_dockerd",
]
