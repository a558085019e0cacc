"""The relay's worker processes beside HAProxy, nginx and docker-proxy, each with as many processes
or threads as the relay has workers (docker-proxy's run-time takes what it wants).

On loopback, where the relay plane's tasks are; and over links, where direct is routed by the node
that the proxies run on, so that a proxied packet crosses what a direct one crosses.
"""

from __future__ import annotations

import json
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.net import load
from bench.net.figures import BULK, KEPT, NEW, Aims, BadOutput, compare, skipped
from bench.net.load import BULK_PORT, WEB_PORT, Programs, Target, programs, start_servers
from bench.report import Row
from skep.netproxy.adapters.options import default_workers
from tests.support.netns import FOLDER, run_in, why_not

ROUNDS = 4
SKEP, DIRECT, HAPROXY, NGINX, DOCKER = "relay", "direct", "HAProxy", "nginx stream", "docker-proxy"
# Ahead of all three where bytes are moved; a new connection is work for Python.
AIMS = {
    HAPROXY: {KEPT: Aims(1.0), NEW: Aims(0.95), BULK: Aims(1.0)},
    NGINX: {KEPT: Aims(1.0), NEW: Aims(), BULK: Aims(1.0)},
    DOCKER: {KEPT: Aims(1.0), NEW: Aims(), BULK: Aims(1.0)},
}
STREAM_MODULE = Path("/usr/lib/nginx/modules/ngx_stream_module.so")
HAPROXY_TEXT = """\
global
  nbthread {workers}
  maxconn 4000
defaults
  mode tcp
  option splice-auto
  timeout connect 5s
  timeout client 60s
  timeout server 60s
"""
NGINX_TEXT = """\
load_module {module};
daemon off; worker_processes {workers}; pid {folder}/stream.pid;
error_log {folder}/stream.log crit;
events {{ worker_connections 16384; multi_accept on; }}
stream {{ tcp_nodelay on; {servers} }}
"""
_Made = AbstractContextManager["Places"]


@dataclass(frozen=True)
class Places:
    """The namespaces of clients, of proxies and of servers, and the addresses of the latter two."""

    clients: Path
    proxies: Path
    servers: Path
    host: str
    task: str


def measure_loopback(is_quick: bool) -> Iterable[Row]:
    """On loopback, where the relay plane's tasks are."""
    yield from _measure("relay on loopback", _loopback, 1 if is_quick else ROUNDS)


def measure_links(is_quick: bool) -> Iterable[Row]:
    """Between two links."""
    yield from _measure("relay on links", _links, 1 if is_quick else ROUNDS)


def _measure(label: str, make: Callable[[], _Made], rounds: int) -> Iterator[Row]:
    if why := why_not() or load.missing():
        yield skipped(label, why)
        return
    with make() as places, tempfile.TemporaryDirectory() as folder:
        with programs(Path(folder)) as started:
            servers = start_servers(started, places.servers, places.task)
            load.tune(places.clients)
            load.tune(places.proxies)
            targets = {DIRECT: Target(places.clients, places.task)}
            for proxy, (lacks, start) in PROXIES.items():
                if reason := lacks():
                    yield skipped(f"{label}: {proxy}", reason)
                else:
                    targets[proxy] = start(started, places)
            try:
                found = load.in_turns(targets, dict.fromkeys(targets, servers), rounds)
            except BadOutput as error:
                yield skipped(label, str(error))
                return
        no_aims = dict.fromkeys((KEPT, NEW, BULK), Aims())
        yield from compare(label, found[SKEP], (DIRECT, found[DIRECT]), no_aims)
        for proxy, aims in AIMS.items():
            if proxy in found:
                yield from compare(label, found[SKEP], (proxy, found[proxy]), aims)


# ------------------------------------------------------------------------------------- proxies


def _relay(started: Programs, places: Places) -> Target:
    words = (places.host, places.task, str(default_workers()))
    command = (sys.executable, "-m", "bench.net.relayhost", *words)
    process = started.start(places.proxies, "relay", *command)
    deadline = time.monotonic() + load.START_S
    while '"pids"' not in (text := started.said("relay")):
        if process.poll() is not None or time.monotonic() > deadline:
            raise BadOutput(f"the relay did not start: {text[-500:]}")
        time.sleep(0.02)
    said = json.loads(next(line for line in text.splitlines() if line.startswith("{")))
    assert not said["errors"], said["errors"]
    return _target(places, 9000, [process.pid, *said["pids"]])


def _haproxy(started: Programs, places: Places) -> Target:
    config = started.folder / "haproxy.cfg"
    text = HAPROXY_TEXT.format(workers=default_workers())
    for name, port, target in (("web", 9010, WEB_PORT), ("bulk", 9011, BULK_PORT)):
        text += f"listen {name}\n  bind {places.host}:{port} backlog 8192\n"
        text += f"  server task {places.task}:{target}\n"
    config.write_text(text)
    process = started.start(places.proxies, "haproxy", "haproxy", "-db", "-f", str(config))
    return _target(places, 9010, [process.pid])


def _nginx(started: Programs, places: Places) -> Target:
    servers = "".join(
        f"server {{ listen {places.host}:{port} backlog=8192; proxy_pass {places.task}:{target}; }}"
        for port, target in ((9020, WEB_PORT), (9021, BULK_PORT))
    )
    text = NGINX_TEXT.format(
        module=STREAM_MODULE, workers=default_workers(), folder=started.folder, servers=servers
    )
    config = started.folder / "stream.conf"
    config.write_text(text)
    process = started.start(places.proxies, "stream", "nginx", "-c", str(config))
    return _target(places, 9020, [process.pid])


def _docker(started: Programs, places: Places) -> Target:
    pids = []
    for port, target in ((9030, WEB_PORT), (9031, BULK_PORT)):
        command = (
            # It tells its parent by file 3 that it listens.
            *("sh", "-c", 'exec "$@" 3>/dev/null', "sh", "docker-proxy", "-proto", "tcp"),
            *("-host-ip", places.host, "-host-port", str(port)),
            *("-container-ip", places.task, "-container-port", str(target)),
        )
        pids.append(started.start(places.proxies, f"docker-{port}", *command).pid)
    return _target(places, 9030, pids)


def _target(places: Places, port: int, pids: list[int]) -> Target:
    """What listens at a port, and at the next one for bulk; its processes once it does."""
    for each in (port, port + 1):
        load.until_open(places.proxies, places.host, each)
    every = sorted({child for pid in pids for child in load.descendants(pid)})
    return Target(places.clients, places.host, port, port + 1, pids=every)


def _needs(*programs: str) -> Callable[[], str]:
    def why() -> str:
        absent = [each for each in programs if shutil.which(each) is None]
        return f"not installed: {', '.join(absent)}" if absent else ""

    return why


def _no_stream() -> str:
    return "" if STREAM_MODULE.exists() else f"nginx has no {STREAM_MODULE.name}"


PROXIES: dict[str, tuple[Callable[[], str], Callable[[Programs, Places], Target]]] = {
    SKEP: (_needs(), _relay),
    HAPROXY: (_needs("haproxy"), _haproxy),
    NGINX: (_no_stream, _nginx),
    DOCKER: (_needs("docker-proxy"), _docker),
}

# -------------------------------------------------------------------------------------- places


@contextmanager
def _loopback() -> Iterator[Places]:
    with _namespaces("lo") as (_, (only,)):
        yield Places(only, only, only, "127.0.0.1", "127.1.0.1")


@contextmanager
def _links() -> Iterator[Places]:
    with _namespaces("c", "p", "s") as (name, (clients, proxies, servers)):
        for inside, ours, other, theirs in (
            ("c", "10.50.0.1", "p", "10.50.0.254"),
            ("s", "10.50.1.2", "p", "10.50.1.254"),
        ):
            _ip(
                *("-n", f"{name}-{inside}", "link", "add", "eth0", "up", "type", "veth"),
                *("peer", f"to-{inside}", "netns", f"{name}-{other}"),
            )
            _ip("-n", f"{name}-{inside}", "addr", "add", f"{ours}/24", "dev", "eth0")
            _ip("-n", f"{name}-{other}", "addr", "add", f"{theirs}/24", "dev", f"to-{inside}")
            _ip("-n", f"{name}-{other}", "link", "set", f"to-{inside}", "up")
            _ip("-n", f"{name}-{inside}", "route", "add", "default", "via", theirs)
        run_in(proxies, Path("/proc/sys/net/ipv4/ip_forward").write_text, "1")
        yield Places(clients, proxies, servers, "10.50.0.254", "10.50.1.2")


@contextmanager
def _namespaces(*parts: str) -> Iterator[tuple[str, list[Path]]]:
    name = f"skb-{secrets.token_hex(4)}"
    try:
        for part in parts:
            _ip("netns", "add", f"{name}-{part}")
            _ip("-n", f"{name}-{part}", "link", "set", "lo", "up")
        yield name, [FOLDER / f"{name}-{part}" for part in parts]
    finally:
        for path in FOLDER.glob(f"{name}-*"):
            _ip("netns", "delete", path.name)


def _ip(*words: str) -> None:
    subprocess.run(("ip", *words), check=True)
