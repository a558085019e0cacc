"""The Docker engine that the nodes of a local cluster share, looked at before they are started."""

from __future__ import annotations

import http.client
import json
import os
import socket
from typing import Any

from skep.cli.errors import Exit, Failure
from skep.cli.output import note
from skep.worker.engine.docker.adapters.setup import RUNTIME

DEFAULT = "unix:///var/run/docker.sock"
LOOK_DEADLINE_S = 10.0
_UNIX = "unix://"


def chosen(host: str | None) -> str:
    """Where the engine is: what was asked for, or what Docker's own command would take. Raises
    Failure for what isn't on this machine."""
    found = host or os.environ.get("DOCKER_HOST") or DEFAULT
    if not found.startswith(_UNIX):
        raise Failure(
            f"--docker-host {found}: nodes of a local cluster need an engine on this machine; "
            f"name its socket, as in {DEFAULT}",
            Exit.USAGE,
        )
    return found


def look(host: str, *, is_kernel: bool) -> None:
    """See that it answers, and say what its tasks will lack. Raises Failure."""
    try:
        info = _info(host.removeprefix(_UNIX))
    except (OSError, ValueError, http.client.HTTPException) as error:
        why = getattr(error, "strerror", None) or error
        raise Failure(
            f"no Docker engine answers at {host} ({why}); start dockerd, name another one by "
            "--docker-host, or leave '--engine docker' out",
            Exit.UNREACHABLE,
        ) from None
    if not is_kernel:
        note(
            "skep: warning: without '--plane kernel', containers can have no networks of Skep's: "
            "only 'network_mode: host', 'bridge' or 'none'"
        )
    elif RUNTIME not in info.get("Runtimes", {}):
        note(
            f"skep: warning: the Docker engine at {host} lacks Skep's runtime, without which "
            "containers can't be on its networks; run: skep node setup-docker"
        )


class _Connection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=LOOK_DEADLINE_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def _info(path: str) -> dict[str, Any]:
    connection = _Connection(path)
    try:
        connection.request("GET", "/info")
        answer = connection.getresponse()
        found = json.loads(answer.read())
        if answer.status != http.client.OK:
            raise ValueError(found.get("message", answer.status))
        return dict(found)
    finally:
        connection.close()
