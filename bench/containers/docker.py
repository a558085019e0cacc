"""The Engine API over a unix socket: just what the benchmark asks of a dockerd."""

from __future__ import annotations

import http.client
import io
import json
import socket
import tarfile
import urllib.parse
from pathlib import Path
from typing import Any

API = "/v1.41"
TIMEOUT_S = 120.0
BUSYBOX = Path("/usr/bin/busybox")
TOOLS = ("sh", "sleep")
SERVICE_LABEL = "com.docker.swarm.service.name"


class DockerError(Exception):
    """dockerd has said no, and why."""


class Docker:
    """One connection to one dockerd, kept alive. Not for use by several threads."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._connection = _UnixConnection(path)

    def ask(
        self, method: str, path: str, body: Any = None, *, query: dict[str, Any] | None = None
    ) -> Any:
        """What it answers, decoded. Raises DockerError for a refusal, OSError for no answer."""
        data = None if body is None else json.dumps(body).encode()
        return self._send(method, path, data, "application/json", query)

    def get(self, path: str, **query: Any) -> Any:
        """`ask("GET", ...)`."""
        return self.ask("GET", path, query=query)

    def post(self, path: str, body: Any = None, **query: Any) -> Any:
        """`ask("POST", ...)`."""
        return self.ask("POST", path, body, query=query)

    def containers(self, service: str | None = None) -> list[dict[str, Any]]:
        """All there are, ended ones included, of this service of an orchestrator, or of any."""
        label = SERVICE_LABEL if service is None else f"{SERVICE_LABEL}={service}"
        found: list[dict[str, Any]] = self.get(
            "/containers/json", all="1", filters=json.dumps({"label": [label]})
        )
        return found

    def remove_container(self, container: str) -> None:
        """`docker container rm -f`."""
        self.ask("DELETE", f"/containers/{container}", query={"force": "1"})

    def import_image(self, name: str, release: str) -> None:
        """An image of this machine's busybox, "name:release"; each release is another one."""
        query = {
            "fromSrc": "-",
            "repo": name,
            "tag": release,
            "changes": f"LABEL release={release}",
        }
        self._send("POST", "/images/create", _root(), "application/x-tar", query)

    def close(self) -> None:
        """Hang up."""
        self._connection.close()

    def _send(
        self, method: str, path: str, data: bytes | None, kind: str, query: dict[str, Any] | None
    ) -> Any:
        url = f"{API}{path}" + (f"?{urllib.parse.urlencode(query)}" if query else "")
        headers = {"Content-Type": kind} if data is not None else {}
        try:
            self._connection.request(method, url, body=data, headers=headers)
            answer = self._connection.getresponse()
            content = answer.read()
        except (OSError, http.client.HTTPException):
            # The next request then connects anew.
            self._connection.close()
            raise
        if answer.status >= 400:
            raise DockerError(f"{method} {path}: {answer.status} {content.decode()[:500]}")
        is_json = (answer.getheader("Content-Type") or "").startswith("application/json")
        return json.loads(content) if is_json and path != "/images/create" and content else content


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("docker", timeout=TIMEOUT_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


def _root() -> bytes:
    """A root file system as a tar archive."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for folder in ("bin", "etc", "tmp", "proc", "sys", "dev"):
            entry = tarfile.TarInfo(folder)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            archive.addfile(entry)
        data = BUSYBOX.read_bytes()
        entry = tarfile.TarInfo("bin/busybox")
        entry.size, entry.mode = len(data), 0o755
        archive.addfile(entry, io.BytesIO(data))
        for tool in TOOLS:
            entry = tarfile.TarInfo(f"bin/{tool}")
            entry.type, entry.linkname = tarfile.SYMTYPE, "busybox"
            archive.addfile(entry)
    return packed.getvalue()
