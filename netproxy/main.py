"""The netproxy process: `python -m skep.netproxy.main`.

Stopping it leaves tasks alone, and their names: SIGTERM ends what it relays, after a moment in
which short connections may end by themselves, and nothing else. What is the kernel's goes on.
`--clean` is the opposite: it removes all that a node's netproxy has left behind, and ends; it
refuses while the netproxy or tasks of the node run.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from skep import telemetry
from skep.domain.address import parse_address, parse_host
from skep.domain.base import ClusterId, NodeId, Pairs
from skep.env import Env, Listener, Rejected, Retryable, Service, real_env
from skep.netproxy.actor import FollowActor, Identity, Progress, make_mailbox
from skep.netproxy.adapters import facts, metrics
from skep.netproxy.adapters.answers import Answers
from skep.netproxy.adapters.cleaning import clean, opened_disk
from skep.netproxy.adapters.options import (
    Options,
    check_listeners,
    connection_limit,
    default_workers,
    host_place,
    parse_options,
)
from skep.netproxy.adapters.relay import Place, Relay
from skep.netproxy.adapters.relayplane import DNS_PORT, HIGH_DNS_PORT, RelayPlane
from skep.netproxy.core.routes import VipForm
from skep.netproxy.core.tally import Tally
from skep.netproxy.dataplane import Dataplane
from skep.netproxy.dns.adapters.client import DnsClient
from skep.netproxy.network import NodeNetwork, SharedDns
from skep.rpc import GrpcTransport
from skep.supervisor import Child, Supervisor

log = logging.getLogger("skep.netproxy")

# Together with closing everything this stays below a second.
DRAIN_S = 0.5
# What the kernel has room for in a unix socket's address, less the zero at its end.
SOCKET_PATH_LIMIT_BYTES = 107


@dataclass(frozen=True, slots=True)
class _Parts:
    """What differs between the planes."""

    plane: Dataplane
    shared_dns: SharedDns | None
    vip_form: VipForm | None
    notes: Pairs
    tally: Callable[[], Tally] = Tally


async def _open_plane(env: Env, options: Options, relay: Relay) -> _Parts:
    """Raises Rejected, OSError."""
    if options.plane == "kernel":
        # Only here: what it needs takes 0.1 s and 13 MB to load.
        from skep.netproxy.kernel.adapters.plane import KernelPlane
        from skep.netproxy.kernel.adapters.wireguard import prepared

        encryption = await prepared(env)
        log.info("encryption=%r", encryption.note)
        kernel = KernelPlane(env, host_place(options), NodeId(options.node_id), relay, encryption)
        await kernel.open(options.vip, counts_traffic=options.vip_traffic)
        notes = facts.kernel_notes(*kernel.vip_mode, encryption.notes())
        return _Parts(kernel, None, None, notes, kernel.tally)
    block, number = options.loopback
    port = DNS_PORT if _may_bind_low_ports() else HIGH_DNS_PORT
    plane = RelayPlane(relay, block, number, port)
    return _Parts(plane, plane, plane.forms.vip, facts.relay_notes())


async def serve(options: Options) -> int:
    """Run until told to stop; returns the exit status."""
    stop = asyncio.Event()
    failures: list[BaseException] = []
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)

    def escalated(error: BaseException) -> None:
        failures.append(error)
        stop.set()

    disk = opened_disk(options.state_dir)
    env: Env = real_env(options.name or options.node_id, GrpcTransport(), disk)
    relay = Relay(env, _relay_place(options))
    parts = await _open_plane(env, options, relay)
    names = DnsClient(env, Path(options.state_dir) / "dns.sock")
    own = (ClusterId(options.cluster_id), NodeId(options.node_id))
    network = NodeNetwork(env, own, parts.plane, Answers(names), parts.shared_dns)
    identity = Identity(*own, options.managers, parts.vip_form)
    progress, mailbox = Progress(), make_mailbox()
    follower = Child(
        "follow", mailbox, lambda: FollowActor(env, mailbox, identity, network, progress)
    )
    supervisor = Supervisor(env, "netproxy", (follower,), escalated)
    metrics.register(metrics.Sources(progress, relay, supervisor, parts.tally))
    telemetry.serve(options.metrics)
    telemetry.watch_gc()
    watch = telemetry.watch_loop(env)
    supervisor.start()
    audit = env.spawn("audit", network.audit())
    calls = await _listen(env, options.attach, facts.answering(network.service(), parts.notes))
    log.info(
        "netproxy=%s state=started address=%s mesh=%s plane=%s",
        *(env.node, options.address, options.mesh, options.plane),
    )
    gc.collect()
    gc.freeze()

    await stop.wait()
    log.info("netproxy=%s state=stopping connections=%d", env.node, relay.observed().connections)
    watch.cancel()
    audit.cancel()
    if calls is not None:
        await calls.close()
    await supervisor.stop()
    await parts.plane.close(DRAIN_S)
    await names.close(leave=True)
    disk.close()
    log.info("netproxy=%s state=stopped", env.node)
    return 1 if failures else 0


def _relay_place(options: Options) -> Place:
    is_kernel = options.plane == "kernel"
    return Place(
        cluster_id=ClusterId(options.cluster_id),
        node_id=NodeId(options.node_id),
        # On their way to a task's own address, connections have whichever of ours leads there.
        ingress_host="" if is_kernel else parse_host(options.address),
        ingress_host6="" if is_kernel else options.address6,
        mesh=parse_address(options.mesh),
        connection_limit=connection_limit(),
        workers=options.relay_workers or default_workers(),
    )


def _may_bind_low_ports() -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind(("127.0.0.1", 0))
            first = Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text()
        except OSError:
            return False
    return os.geteuid() == 0 or int(first) <= DNS_PORT


async def _listen(env: Env, address: str, service: Service) -> Listener | None:
    """Take the worker's calls. Nobody else's: what is asked for here is done as root."""
    if not address:
        return None
    path = Path(address.removeprefix("unix:"))
    if len(str(path).encode()) > SOCKET_PATH_LIMIT_BYTES:
        raise Rejected(
            f"--attach {address}: a socket's path has at most {SOCKET_PATH_LIMIT_BYTES}"
            " bytes; choose a shorter folder"
        )
    # Until then it is as the folder: connecting needs the right to write, which only we have.
    listener = await env.transport.listen(address, service)
    os.chmod(path, 0o600)
    return listener


def main(arguments: list[str] | None = None) -> int:
    """Parse, check, run."""
    logging.basicConfig(
        stream=sys.stderr,
        level=logging.INFO,
        format="at=%(asctime)s level=%(levelname)s from=%(name)s %(message)s",
    )
    try:
        options = parse_options(sys.argv[1:] if arguments is None else arguments)
        if not options.clean:
            check_listeners(options)
        with asyncio.Runner(loop_factory=_loop_factory(options.loop)) as runner:
            return runner.run(clean(options) if options.clean else serve(options))
    except Rejected as error:
        print(f"netproxy: {error}", file=sys.stderr)
        return 2
    except (OSError, Retryable) as error:
        print(f"netproxy: {error}", file=sys.stderr)
        return 1


def _loop_factory(name: str) -> type[asyncio.AbstractEventLoop] | None:
    if name == "asyncio":
        return None
    import uvloop

    return uvloop.Loop


if __name__ == "__main__":
    sys.exit(main())
