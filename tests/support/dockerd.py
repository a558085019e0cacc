"""A Docker engine of the tests' own: containerd and dockerd on folders and sockets of their own,
which touch nothing of the machine's network, with Skep's runtime and two small images.

The images are made of local files: `BUSYBOX` is one static program, `GLIBC` has the C library, so
that names are looked up as most programs do. What tests look at they ask for by `Dockerd.get` and
its like: by plain HTTP, without any code of Skep's.
"""

from __future__ import annotations

import contextlib
import functools
import http.client
import io
import json
import os
import shutil
import signal
import socket
import subprocess
import tarfile
import tempfile
import time
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from skep.worker.engine.docker.adapters import setup

BUSYBOX = "skep-test/busybox:1"
GLIBC = "skep-test/glibc:1"
# Starting takes a second or two on a quiet machine; CI is not quiet.
START_DEADLINE_S = 60.0
CALL_DEADLINE_S = 60.0
_PROGRAMS = ("dockerd", "containerd", "runc", "busybox")
_GLIBC_PROGRAMS = ("/bin/sh", "/bin/cat", "/bin/sleep", "/usr/bin/getent", "/usr/bin/id")


@functools.cache
def why_not() -> str:
    """Why there can be no Docker engine here; "" where there can."""
    if os.geteuid() != 0:
        return "needs root, for a Docker engine of its own"
    missing = [name for name in _PROGRAMS if shutil.which(name) is None]
    if missing:
        return f"needs {', '.join(missing)}: apt-get install docker.io busybox-static"
    return ""


class _Connection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=CALL_DEADLINE_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class ApiError(Exception):
    """What the engine said, with its HTTP status."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"{status}: {message}")
        self.status = status


class Dockerd:
    """One engine. `start` and `kill` may be called again and again; `remove` ends it for good."""

    def __init__(self, *, has_live_restore: bool = True) -> None:
        # Paths of sockets are short, and those of pytest's folders are not.
        self.folder = Path(tempfile.mkdtemp(prefix="skd-", dir="/tmp"))
        self.socket = self.folder / "docker.sock"
        self.url = f"unix://{self.socket}"
        self.config = self.folder / "daemon.json"
        self._containerd: subprocess.Popen[bytes] | None = None
        self._dockerd: subprocess.Popen[bytes] | None = None
        config = {"live-restore": has_live_restore}
        self.config.write_text(json.dumps(config))
        setup.install(self.folder / "runtime")
        setup.configure(self.config, self.folder / "runtime" / setup.PROGRAM)
        (self.folder / "containerd.toml").write_text(
            f'version = 2\nroot = "{self.folder}/containerd"\nstate = "{self.folder}/c-state"\n'
            'disabled_plugins = ["io.containerd.grpc.v1.cri"]\n'
            f'[grpc]\naddress = "{self.folder}/containerd.sock"\n'
        )

    @property
    def pid(self) -> int:
        """That of dockerd."""
        assert self._dockerd is not None
        return self._dockerd.pid

    @property
    def log(self) -> str:
        """What dockerd has said."""
        return (self.folder / "dockerd.log").read_text(errors="replace")

    def start(self) -> None:
        """Start what doesn't run, and wait until it answers."""
        if self._containerd is None:
            self._containerd = self._run(
                "containerd", "containerd", "--config", f"{self.folder}/containerd.toml"
            )
        if self._dockerd is None:
            self.socket.unlink(missing_ok=True)
            self._dockerd = self._run(
                "dockerd",
                *("dockerd", "--config-file", str(self.config), "--host", self.url),
                *("--containerd", f"{self.folder}/containerd.sock"),
                *("--data-root", f"{self.folder}/data", "--exec-root", f"{self.folder}/exec"),
                *("--pidfile", f"{self.folder}/dockerd.pid", "--userland-proxy=false"),
                *("--iptables=false", "--ip6tables=false", "--bridge=none"),
            )
        deadline = time.monotonic() + START_DEADLINE_S
        while not self._answers():
            assert self._dockerd.poll() is None, f"dockerd ended: {self.log[-2000:]}"
            assert time.monotonic() < deadline, f"dockerd doesn't answer: {self.log[-2000:]}"
            time.sleep(0.02)

    def kill(self, number: signal.Signals = signal.SIGKILL) -> None:
        """End dockerd by a signal; containerd goes on."""
        if self._dockerd is not None:
            self._dockerd.send_signal(number)
            self._dockerd.wait(START_DEADLINE_S)
            self._dockerd = None

    def pause(self) -> None:
        """Have dockerd hang: it keeps its connections and answers nothing."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Have it go on."""
        os.kill(self.pid, signal.SIGCONT)

    def remove(self) -> None:
        """End everything of it and remove all that it has left."""
        if self._dockerd is not None and self._answers():
            self.clear()
        self.kill(signal.SIGTERM)
        for pid in self._shims():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if self._containerd is not None:
            self._containerd.terminate()
            self._containerd.wait(START_DEADLINE_S)
            self._containerd = None
        for target in self._mounts():
            subprocess.run(["umount", "-l", target], check=False, capture_output=True)
        shutil.rmtree(self.folder, ignore_errors=True)

    def clear(self) -> None:
        """Remove all containers and all volumes with a name."""
        for each in self.get("/containers/json?all=1"):
            with contextlib.suppress(ApiError):
                self.call("DELETE", f"/containers/{each['Id']}?force=1&v=1")
        for each in self.get("/volumes")["Volumes"] or ():
            with contextlib.suppress(ApiError):
                self.call("DELETE", f"/volumes/{each['Name']}?force=1")

    # ------------------------------------------------------------------------------ the API

    def call(self, method: str, path: str, body: Any = None, *, data: bytes = b"") -> Any:
        """One call of the API: the parsed answer, or its text. Raises ApiError."""
        connection = self.open()
        try:
            headers = {"Content-Type": "application/json" if not data else "application/x-tar"}
            sent = data or (b"" if body is None else json.dumps(body).encode())
            connection.request(method, f"/v1.41{path}", sent, headers)
            answer = connection.getresponse()
            text = answer.read().decode(errors="replace")
        finally:
            connection.close()
        if answer.status >= 400:
            raise ApiError(answer.status, text)
        with contextlib.suppress(ValueError):
            return json.loads(text)
        return text

    def open(self) -> http.client.HTTPConnection:
        """A connection to the engine."""
        return _Connection(str(self.socket))

    def get(self, path: str) -> Any:
        """What there is at a path."""
        return self.call("GET", path)

    def containers(self) -> list[dict[str, Any]]:
        """All containers, as listed."""
        found: list[dict[str, Any]] = self.get("/containers/json?all=1")
        return found

    def inspect(self, name: str) -> dict[str, Any]:
        """One container."""
        found: dict[str, Any] = self.get(f"/containers/{name}/json")
        return found

    def make_image(self, name: str, files: bytes, *changes: str) -> None:
        """An image of one layer: a tar of its files, and lines of a Dockerfile."""
        repository, _, tag = name.rpartition(":")
        query = [("fromSrc", "-"), ("repo", repository), ("tag", tag)]
        query += [("changes", each) for each in changes]
        answer = self.call("POST", f"/images/create?{urllib.parse.urlencode(query)}", data=files)
        assert "error" not in str(answer), answer

    def build_image(self, name: str, *lines: str) -> None:
        """An image by the lines of a Dockerfile."""
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w") as tar:
            _add_text(tar, "Dockerfile", "\n".join(lines) + "\n")
        answer = self.call("POST", f"/build?t={urllib.parse.quote(name)}", data=out.getvalue())
        assert "error" not in str(answer), answer

    # ----------------------------------------------------------------------------- the inside

    def _run(self, name: str, *command: str) -> subprocess.Popen[bytes]:
        with (self.folder / f"{name}.log").open("ab") as log:
            return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def _answers(self) -> bool:
        try:
            self.get("/_ping")
        except (OSError, http.client.HTTPException, ApiError):
            return False
        return True

    def _shims(self) -> list[int]:
        """The processes that hold containers, which outlive everybody."""
        found = []
        for each in Path("/proc").iterdir():
            if each.name.isdecimal():
                with contextlib.suppress(OSError):
                    words = (each / "cmdline").read_bytes().split(b"\0")
                    if b"shim" in words[0] and f"{self.folder}/containerd.sock".encode() in words:
                        found.append(int(each.name))
        return found

    def _mounts(self) -> list[str]:
        lines = Path("/proc/self/mounts").read_text().splitlines()
        targets = [line.split()[1] for line in lines]
        return sorted((t for t in targets if t.startswith(f"{self.folder}/")), reverse=True)


@contextlib.contextmanager
def dockerd(*, has_live_restore: bool = True) -> Iterator[Dockerd]:
    """An engine with the two images."""
    made = Dockerd(has_live_restore=has_live_restore)
    try:
        made.start()
        made.make_image(BUSYBOX, busybox_files(), 'CMD ["sh"]', "ENV PATH=/bin")
        made.make_image(GLIBC, glibc_files(), 'CMD ["/bin/sh"]')
        yield made
    finally:
        made.remove()


@functools.cache
def busybox_files() -> bytes:
    """The machine's busybox under all of its names."""
    path = shutil.which("busybox")
    assert path is not None
    names = subprocess.run([path, "--list"], check=True, capture_output=True, text=True).stdout
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        _add_folders(tar, "bin", "etc", "tmp")
        tar.add(path, "bin/busybox")
        for name in names.split():
            if name != "busybox":
                link = tarfile.TarInfo(f"bin/{name}")
                link.type, link.linkname = tarfile.SYMTYPE, "busybox"
                tar.addfile(link)
        _add_text(tar, "etc/passwd", "root:x:0:0::/:/bin/sh\nnobody:x:65534:65534::/:/bin/sh\n")
        _add_text(tar, "etc/group", "root:x:0:\nnogroup:x:65534:\n")
    return out.getvalue()


@functools.cache
def glibc_files() -> bytes:
    """A few programs with the C library and what it loads to look names up."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        _add_folders(tar, "bin", "etc", "tmp", "usr", "usr/bin")
        seen: set[str] = set()
        for program in _GLIBC_PROGRAMS:
            tar.add(os.path.realpath(program), program.lstrip("/"))
            seen.update(libraries(program))
        libc = next(path for path in seen if path.rpartition("/")[2].startswith("libc.so"))
        for name in ("libnss_dns.so.2", "libnss_files.so.2", "libresolv.so.2"):
            path = Path(libc).parent / name
            if path.exists():
                seen.add(str(path))
        for path_text in sorted(seen):
            tar.add(os.path.realpath(path_text), path_text.lstrip("/"))
        _add_text(tar, "etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files dns\n")
        _add_text(tar, "etc/passwd", "root:x:0:0::/:/bin/sh\n")
        _add_text(tar, "etc/group", "root:x:0:\n")
    return out.getvalue()


def libraries(program: str) -> Iterator[str]:
    """What a program, or a library, loads: full paths."""
    listed = subprocess.run(["ldd", program], check=True, capture_output=True, text=True).stdout
    for line in listed.splitlines():
        for word in line.split():
            if word.startswith("/"):
                yield word


def _add_folders(tar: tarfile.TarFile, *names: str) -> None:
    for name in names:
        folder = tarfile.TarInfo(name)
        folder.type, folder.mode = tarfile.DIRTYPE, 0o1777 if name == "tmp" else 0o755
        tar.addfile(folder)


def _add_text(tar: tarfile.TarFile, name: str, text: str) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(text.encode()), 0o644
    tar.addfile(entry, io.BytesIO(text.encode()))
