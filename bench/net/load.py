"""Servers, load generators, and what both take of the CPU."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench.net.figures import (
    BULK,
    KEPT,
    LOADS,
    NEW,
    BadOutput,
    Load,
    Reading,
    parse_iperf,
    parse_wrk,
)
from tests.support.netns import run_in

WEB_PORT, BULK_PORT = 8080, 5201
CONNECTIONS = 32
DURATION_S = 1
PATIENCE_S = 20.0
START_S = 10.0
TOOLS = ("wrk", "iperf3", "nginx")
# Plain text of the size that health checks and small APIs have.
NGINX = """\
daemon off; master_process off; pid {folder}/{name}.pid; error_log {folder}/{name}.log crit;
events {{ worker_connections 8192; multi_accept on; }}
http {{
  access_log off; keepalive_requests 1000000000; client_body_temp_path {folder};
  proxy_temp_path {folder}; fastcgi_temp_path {folder}; uwsgi_temp_path {folder};
  scgi_temp_path {folder};
  server {{
    listen {address}:{port} backlog=8192;
    location / {{ default_type text/plain; return 200 "{text}"; }}
  }}
}}
"""
TEXT = "fifty bytes of text, as a service might answer it."
# A shell that joins a control group, if there is one, and becomes the program.
JOIN = '[ -z "$0" ] || echo $$ > "$0/cgroup.procs"; exec "$@"'
HERE = Path("/proc/self/ns/net")


def missing() -> str:
    """Why there can be no load on this machine; "" where there can."""
    absent = [tool for tool in TOOLS if shutil.which(tool) is None]
    return f"not installed: {', '.join(absent)}" if absent else ""


@dataclass(frozen=True)
class Target:
    """Where clients are, and what they talk to: a web server's port and iperf3's. `cgroup` is
    joined by the clients, `pids` are the processes between them and the servers."""

    namespace: Path
    host: str
    web_port: int = WEB_PORT
    bulk_port: int = BULK_PORT
    cgroup: str = ""
    pids: Sequence[int] = ()


@dataclass
class Programs:
    """What has been started; ended by `close`. Output goes to files in `folder`."""

    folder: Path
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start(self, namespace: Path, name: str, *command: str) -> subprocess.Popen[bytes]:
        """A process in that namespace."""
        with (self.folder / f"{name}.out").open("wb") as output:

            def start() -> subprocess.Popen[bytes]:
                return subprocess.Popen(
                    command, stdin=subprocess.PIPE, stdout=output, stderr=subprocess.STDOUT
                )

            process = run_in(namespace, start)
        self.processes.append(process)
        return process

    def said(self, name: str) -> str:
        """What a process has printed so far."""
        return (self.folder / f"{name}.out").read_text(errors="replace")

    def close(self) -> None:
        """End them all; those that don't listen are killed."""
        for process in self.processes:
            process.terminate()
        for process in reversed(self.processes):
            try:
                process.wait(5.0)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            if process.stdin is not None:
                process.stdin.close()
        self.processes.clear()


@contextlib.contextmanager
def programs(folder: Path) -> Iterator[Programs]:
    """A place to start programs in; all have ended at the end."""
    folder.mkdir(parents=True, exist_ok=True)
    made = Programs(folder)
    try:
        yield made
    finally:
        made.close()


def start_servers(made: Programs, namespace: Path, address: str, name: str = "server") -> list[int]:
    """A web server and iperf3's, listening; their process ids."""
    text = NGINX.format(folder=made.folder, name=name, address=address, port=WEB_PORT, text=TEXT)
    config = made.folder / f"{name}.conf"
    config.write_text(text)
    tune(namespace)
    web = made.start(namespace, f"{name}-web", "nginx", "-c", str(config))
    bulk = ("iperf3", "--server", "--bind", address, "--port", str(BULK_PORT))
    pids = [web.pid, made.start(namespace, f"{name}-bulk", *bulk).pid]
    for port in (WEB_PORT, BULK_PORT):
        until_open(namespace, address, port)
    return pids


def tune(namespace: Path) -> None:
    """Room for tens of thousands of connections that have just ended."""

    def write() -> None:
        values = {
            "net/ipv4/ip_local_port_range": "1024 65000",
            "net/core/somaxconn": "8192",
            "net/ipv4/tcp_max_syn_backlog": "8192",
        }
        for name, value in values.items():
            Path("/proc/sys", name).write_text(value)

    run_in(namespace, write)


def until_open(namespace: Path, host: str, port: int) -> None:
    """Wait until a connection is accepted. Raises TimeoutError."""
    deadline = time.monotonic() + START_S
    address = "127.0.0.1" if host == "0.0.0.0" else host

    def attempt() -> bool:
        with contextlib.suppress(OSError), socket.create_connection((address, port), 1.0):
            return True
        return False

    while not run_in(namespace, attempt):
        if time.monotonic() > deadline:
            raise TimeoutError(f"nobody listens on {host}:{port} within {START_S:g} s")
        time.sleep(0.02)


def measure(load: Load, target: Target, servers: Sequence[int]) -> Reading:
    """One run of one load. Raises BadOutput."""
    pids = [*servers, *target.pids]
    before_s = cpu_s(pids)
    text, client_s = _client(target, _command(load, target))
    after_s = cpu_s(pids)
    parse = parse_iperf if load is BULK else parse_wrk
    rate, pieces, errors = parse(text)
    return Reading(rate, pieces, client_s + after_s - before_s, errors)


def in_turns(
    targets: Mapping[str, Target], servers: Mapping[str, Sequence[int]], rounds: int
) -> dict[str, dict[Load, list[Reading]]]:
    """All loads of all targets, one target after the other, round after round; the first round
    doesn't count where there are more. Raises BadOutput."""
    found: dict[str, dict[Load, list[Reading]]] = {
        name: {load: [] for load in LOADS} for name in targets
    }
    for _ in range(rounds):
        for load in LOADS:
            for name, target in targets.items():
                found[name][load].append(_patiently(load, target, servers[name]))
    return found


def _patiently(load: Load, target: Target, servers: Sequence[int]) -> Reading:
    """Once more where the load generator failed: iperf3 serves one client at a time, and may
    still be busy with the last."""
    try:
        return measure(load, target, servers)
    except BadOutput:
        time.sleep(0.5)
        return measure(load, target, servers)


def _command(load: Load, target: Target) -> list[str]:
    if load is BULK:
        where = ["--client", target.host, "--port", str(target.bulk_port)]
        return ["iperf3", *where, "--time", str(DURATION_S), "--json"]
    assert load in (KEPT, NEW)
    closing = ["-H", "Connection: close"] if load is NEW else []
    url = f"http://{target.host}:{target.web_port}/"
    return ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{DURATION_S}", *closing, url]


def _client(target: Target, command: Sequence[str]) -> tuple[str, float]:
    """What it printed, and its seconds of CPU."""

    def start() -> subprocess.Popen[bytes]:
        words = ["sh", "-c", JOIN, target.cgroup, *command]
        return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)

    process = run_in(target.namespace, start)
    assert process.stdout is not None
    timer = threading.Timer(PATIENCE_S, process.kill)
    timer.start()
    try:
        with process.stdout:
            text = process.stdout.read().decode(errors="replace")
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    finally:
        timer.cancel()
    return text, used.ru_utime + used.ru_stime


def cpu_s(pids: Sequence[int]) -> float:
    """Seconds that these processes have spent on a CPU so far."""
    spent_ns = 0
    for pid in pids:
        for thread in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(OSError):
                spent_ns += int((thread / "schedstat").read_text().split()[0])
    return spent_ns / 1e9


def descendants(pid: int) -> list[int]:
    """The process and all that it has started."""
    found = [pid]
    for parent in found:
        for thread in Path(f"/proc/{parent}/task").iterdir():
            with contextlib.suppress(OSError):
                found += map(int, (thread / "children").read_text().split())
    return found
