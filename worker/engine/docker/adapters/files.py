"""The node's files for containers: records, configs, secrets, and links to network namespaces.

Secrets are on a tmpfs, so that no disk ever holds one, and go when their task has ended. Nothing is
synced: after a power cut no container runs, and the engine itself knows what it had.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from skep.domain.base import Struct
from skep.env import Rejected, Retryable
from skep.worker.engine.docker.core.mounts import FileMount
from skep.worker.engine.docker.core.records import (
    RECORD_FILE,
    ContainerRecord,
    decode_record,
    encode_record,
)

RUN_FOLDER = Path("/run/skep")
# The runtime looks for the links there.
LINKS_FOLDER = RUN_FOLDER / "containers"
_MEMORY = frozenset({"tmpfs", "ramfs"})
_MS_NOSUID, _MS_NODEV, _MS_NOEXEC = 2, 4, 8
_MNT_DETACH = 2


class NodeFile(Struct, frozen=True, kw_only=True):
    """A config's or a secret's file, as a container is to see it."""

    data: bytes
    target: str
    uid: int
    gid: int
    mode: int
    is_secret: bool


@dataclass(frozen=True)
class Places:
    """Where a node's files for containers are: records and configs in `folder`."""

    folder: Path
    node_id: str
    run: Path = RUN_FOLDER
    links: Path = LINKS_FOLDER

    @property
    def secrets(self) -> Path:
        """The folder of secrets, which is on a tmpfs."""
        return self.run / self.node_id / "secrets"


class Files:
    """The files of one node's containers. All of it blocks; raises OSError where not said."""

    def __init__(self, places: Places) -> None:
        self._places = places

    def records(self) -> list[ContainerRecord]:
        """All that there are; what can't be read is as good as none."""
        found = []
        with contextlib.suppress(FileNotFoundError):
            for folder in self._places.folder.iterdir():
                with contextlib.suppress(OSError):
                    record = decode_record((folder / RECORD_FILE).read_bytes())
                    if record is not None and record.task_id == folder.name:
                        found.append(record)
        return found

    def write(self, record: ContainerRecord) -> None:
        """Keep a task's record. Raises Retryable for a disk in trouble."""
        try:
            folder = self._folder(record.task_id)
            temporary = folder / (RECORD_FILE + ".new")
            temporary.write_text(encode_record(record))
            temporary.rename(folder / RECORD_FILE)
        except OSError as error:
            raise Retryable(f"its record can't be written: {error}") from error

    def write_files(self, task_id: str, files: Iterable[NodeFile]) -> tuple[FileMount, ...]:
        """Write a task's configs and secrets anew. Raises Rejected where secrets can't be kept off
        the disk, Retryable for a disk in trouble."""
        try:
            self.forget_files(task_id)
            return tuple(self._write(task_id, number, file) for number, file in enumerate(files))
        except OSError as error:
            raise Retryable(f"its configs or secrets can't be written: {error}") from error

    def forget_secrets(self, task_id: str) -> None:
        """Remove a task's secrets."""
        shutil.rmtree(self._places.secrets / task_id, ignore_errors=True)

    def forget_files(self, task_id: str) -> None:
        """Remove a task's configs and secrets."""
        self.forget_secrets(task_id)
        shutil.rmtree(self._places.folder / task_id / "configs", ignore_errors=True)

    def link(self, container_id: str, namespace: str) -> None:
        """Say which network namespace a container is to run in."""
        if not namespace:
            return
        links = self._places.links
        links.mkdir(parents=True, exist_ok=True, mode=0o755)
        temporary = links / f".{container_id}"
        temporary.unlink(missing_ok=True)
        temporary.symlink_to(namespace)
        temporary.rename(links / container_id)

    def unlink(self, container_id: str) -> None:
        """Forget that."""
        if container_id:
            (self._places.links / container_id).unlink(missing_ok=True)

    def forget(self, task_id: str) -> None:
        """Remove all of a task's files."""
        self.forget_secrets(task_id)
        shutil.rmtree(self._places.folder / task_id, ignore_errors=True)

    def _folder(self, task_id: str) -> Path:
        folder = self._places.folder / task_id
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        return folder

    def _write(self, task_id: str, number: int, file: NodeFile) -> FileMount:
        if file.is_secret:
            hold_in_memory(self._places.secrets)
            folder = self._places.secrets / task_id
        else:
            folder = self._folder(task_id) / "configs"
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        path = folder / str(number)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        fd = os.open(path, flags, 0o600)
        try:
            view = memoryview(file.data)
            while view:
                view = view[os.write(fd, view) :]
            os.fchown(fd, file.uid, file.gid)
            os.fchmod(fd, file.mode)
        finally:
            os.close(fd)
        return FileMount(source=str(path), target=file.target)


def hold_in_memory(folder: Path) -> None:
    """Have a folder be on a tmpfs. Raises Rejected where it can't be."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o711)
    if _kind_of(folder) in _MEMORY:
        return
    libc = ctypes.CDLL(None, use_errno=True)
    flags = _MS_NOSUID | _MS_NODEV | _MS_NOEXEC
    if libc.mount(b"skep", os.fsencode(folder), b"tmpfs", flags, b"mode=0711") != 0:
        why = os.strerror(ctypes.get_errno())
        raise Rejected(f"secrets need a tmpfs at {folder}, and none can be mounted: {why}")


def let_go_of_memory(folder: Path) -> None:
    """Take away what `hold_in_memory` mounted, with all that is in it."""
    if folder.is_dir() and folder.is_mount() and _kind_of(folder) in _MEMORY:
        ctypes.CDLL(None).umount2(os.fsencode(folder), _MNT_DETACH)
        with contextlib.suppress(OSError):
            folder.rmdir()
            folder.parent.rmdir()


def _kind_of(folder: Path) -> str:
    """The file system that a folder is on."""
    device = os.stat(folder).st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        head, _, tail = line.partition(" - ")
        if head.split()[2] == wanted:
            return tail.split()[0]
    return ""
