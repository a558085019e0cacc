"""Which processes of tasks still run on this node, whoever started them."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from pathlib import Path

PROC = Path("/proc")
# Every task has its id in its environment; see the documentation of the engine.
_MARK = b"SKEP_TASK_ID="


def processes_of(
    task_ids: Collection[str], namespaces: Mapping[str, Path]
) -> dict[str, tuple[int, ...]]:
    """Pids by task, of tasks that have some: processes with the task's id in their environment,
    or in its network namespace, by the file that holds it. Those that end meanwhile are left out.
    """
    wanted = {_MARK + task_id.encode(): task_id for task_id in {*task_ids, *namespaces}}
    places = {}
    for task_id, path in namespaces.items():
        try:
            places[path.stat().st_ino] = task_id
        except OSError:
            continue
    found: dict[str, list[int]] = {}
    for entry in os.listdir(PROC):
        whose = _task_of(PROC / entry, wanted, places) if entry.isdigit() else None
        if whose is not None:
            found.setdefault(whose, []).append(int(entry))
    return {task_id: tuple(sorted(pids)) for task_id, pids in sorted(found.items())}


def _task_of(process: Path, wanted: Mapping[bytes, str], places: Mapping[int, str]) -> str | None:
    try:
        if places and (task_id := places.get((process / "ns/net").stat().st_ino)) is not None:
            return task_id
        environment = (process / "environ").read_bytes()
    except OSError:  # it has ended, or is another user's
        return None
    return next((wanted[each] for each in environment.split(b"\0") if each in wanted), None)
