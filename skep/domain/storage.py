"""What tasks keep and are given: mounts, volumes, configs and secrets."""

from __future__ import annotations

import enum

from skep.domain.base import Pairs, Struct, shielded

CONFIG_LIMIT_BYTES = 1000 * 1024
SECRET_LIMIT_BYTES = 500 * 1024
# As with Swarm: everybody in the container may read them, nobody may write.
FILE_MODE = 0o444


class MountKind(enum.Enum):
    """What is mounted: a volume of the engine, a folder or file of the node, or memory."""

    VOLUME = "volume"
    BIND = "bind"
    TMPFS = "tmpfs"


class Mount(Struct, frozen=True, kw_only=True):
    """Something mounted at `target` in each of a service's tasks.

    `source` is a volume's name or a path of the node; a volume without one is anonymous and goes
    with its task. It may hold templates such as `{{.Task.Slot}}`. `driver`, `driver_options` and
    `labels` are those of a volume that has yet to be made; of memory, the options are Linux' own,
    such as exec or uid. A slot whose volume lives on one node alone stays there, unless
    `is_movable`.
    """

    kind: MountKind
    target: str
    source: str = ""
    is_read_only: bool = False
    is_movable: bool = False
    propagation: str = ""
    creates_host_path: bool = False
    is_no_copy: bool = False
    subpath: str = ""
    driver: str = ""
    driver_options: Pairs = ()
    labels: Pairs = ()
    size_bytes: int | None = None
    mode: int | None = None


class FileUse(Struct, frozen=True, kw_only=True):
    """A config or a secret, given to a service's tasks as a file.

    `name` is the object's; managers fill in its `id` when the spec is written, so that another
    object that has the same name later changes nothing. `target` is a path; a relative one is under
    /run/secrets for a secret and / for a config, and "" is the `name`.
    """

    name: str
    id: str = ""
    target: str = ""
    uid: str = "0"
    gid: str = "0"
    mode: int = FILE_MODE


class ConfigSpec(Struct, frozen=True, kw_only=True):
    """A config: some bytes that everybody may read, and that never change."""

    name: str
    data: bytes = b""
    labels: Pairs = ()


class SecretSpec(Struct, frozen=True, kw_only=True):
    """A secret: some bytes that nobody is ever shown, and that never change."""

    name: str
    data: bytes = b""
    labels: Pairs = ()

    def __repr__(self) -> str:
        """Everything but the data: objects get into logs and errors."""
        return shielded(self, "data")
