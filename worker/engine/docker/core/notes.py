"""What a node says of its Docker engine."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from skep.domain.base import Pairs, Struct, pairs
from skep.worker.engine.docker.core.daemonfile import RUNTIME

NOTE = "docker"


class DockerNotes(Struct, frozen=True, kw_only=True):
    """What stands in a node's description of its Docker engine: its name while it is there."""

    engines: tuple[str, ...] = ()
    notes: Pairs = ()


def notes_of(info: Mapping[str, Any], version: Mapping[str, Any]) -> Pairs:
    """The notes of an engine that answers: GET /info and GET /version."""
    runtimes = info.get("Runtimes") or {}
    path = (runtimes.get(RUNTIME) or {}).get("path", "")
    has_runtime = RUNTIME in runtimes
    missing = "missing: run `skep node setup-docker`; until then no container is on Skep's networks"
    stays = "containers live on while dockerd doesn't (live-restore)"
    ends = "containers end with dockerd: it has no live-restore"
    return pairs(
        {
            NOTE: f"{version.get('Version', '?')}, API {version.get('ApiVersion', '?')}",
            f"{NOTE}.cgroup": f"v{info.get('CgroupVersion', '1')}, {info.get('CgroupDriver', '?')}",
            f"{NOTE}.restart": stays if info.get("LiveRestoreEnabled") else ends,
            f"{NOTE}.runtime": f"{RUNTIME}: {path}" if has_runtime else missing,
            f"{NOTE}.storage": str(info.get("Driver", "?")),
        }
    )


def away(why: str) -> Pairs:
    """The notes of an engine that doesn't answer."""
    return ((NOTE, f"no containers are started here: {why}"),)
