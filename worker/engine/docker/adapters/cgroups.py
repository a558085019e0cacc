"""Folders of control groups that the engine makes for us and leaves behind."""

from __future__ import annotations

import contextlib
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")


def prune(parent: str) -> None:
    """Remove the folder `parent` ("/skep/w1/containers") and those above it from all trees, as far
    as nothing is in them. Never raises."""
    if not parent:
        return
    with contextlib.suppress(OSError):
        trees = [ROOT, *(path for path in ROOT.iterdir() if path.is_dir())]
        for tree in trees:
            folder = tree / parent.lstrip("/")
            with contextlib.suppress(OSError):
                while folder != tree:
                    folder.rmdir()
                    folder = folder.parent
