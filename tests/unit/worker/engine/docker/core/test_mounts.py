"""What the engine is asked to mount."""

from __future__ import annotations

from skep.domain.storage import Mount, MountKind
from skep.worker.engine.docker.core.mounts import mounts_of


def test_memory_with_and_without_options() -> None:
    plain = Mount(kind=MountKind.TMPFS, target="/a", size_bytes=5, mode=0o1777)
    special = Mount(
        kind=MountKind.TMPFS,
        target="/b",
        size_bytes=5,
        mode=0o700,
        is_read_only=True,
        driver_options=(("exec", ""), ("uid", "5")),
    )
    assert mounts_of((plain, special), ()) == {
        "Binds": [],
        "Mounts": [
            {"Type": "tmpfs", "Target": "/a", "TmpfsOptions": {"SizeBytes": 5, "Mode": 0o1777}}
        ],
        "Tmpfs": {"/b": "exec,uid=5,size=5,mode=700,ro"},
    }
