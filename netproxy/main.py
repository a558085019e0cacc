"""The netproxy process: `python -m skep.netproxy.main`.

Stopping it leaves tasks alone: SIGTERM ends what it relays, after a moment in which short
connections may end by themselves, and nothing else.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import os
import resource
import signal
import sys
from pathlib import Path

import msgspec

from skep import telemetry
from skep.domain.address import parse_address, parse_host, refuse_open_listeners
from skep.domain.base import ClusterId, NodeId
from skep.env import Env, RealDisk, Rejected, real_env
from skep.netproxy.actor import FollowActor, Identity, Progress, make_mailbox
from skep.netproxy.adapters import metrics
from skep.netproxy.adapters.relay import Place, Relay
from skep.rpc import GrpcTransport
from skep.supervisor import Child, Supervisor

log = logging.getLogger("skep.netproxy")

# Together with closing everything this stays below a second.
DRAIN_S = 0.5
# Files that are not connections: listeners, disk, gRPC, metrics.
OTHER_FILES = 1024
CONNECTION_LIMIT = 20_000


class Options(msgspec.Struct, kw_only=True, rename="kebab", forbid_unknown_fields=True):
    """What `--config` holds (JSON, by the names of the flags); flags given beside it win."""

    name: str = ""
    node_id: str = ""
    cluster_id: str = ""
    address: str = ""
    mesh: str = ""
    managers: tuple[str, ...] = ()
    state_dir: str = ""
    metrics: str = ""
    insecure_listen: tuple[str, ...] = ()
    loop: str = "uvloop"
    relay_workers: int = 0


def parse_options(arguments: list[str]) -> Options:
    """The options in force. Raises Rejected."""
    parser = argparse.ArgumentParser(prog="skep-netproxy", argument_default=argparse.SUPPRESS)
    parser.add_argument("--config", help="a JSON file with these options, by name")
    parser.add_argument("--name", help="this node's name, for logs")
    parser.add_argument("--node-id")
    parser.add_argument("--cluster-id")
    parser.add_argument("--address", help="IP address on which published ports are opened")
    parser.add_argument("--mesh", help="IP:PORT on which other nodes' netproxies are served")
    parser.add_argument("--managers", type=_comma_separated, help="IP:PORT,... to follow")
    parser.add_argument("--state-dir", help="folder that is this netproxy's own")
    parser.add_argument("--metrics", help="IP:PORT for Prometheus")
    parser.add_argument("--insecure-listen", action="append", metavar="CIDR")
    parser.add_argument("--loop", choices=("uvloop", "asyncio"))
    parser.add_argument(
        "--relay-workers",
        type=int,
        metavar="N",
        help="processes that move bytes; by default one for every two cores",
    )
    given = vars(parser.parse_args(arguments))
    values: dict[str, object] = {}
    if (config := given.pop("config", None)) is not None:
        try:
            values = msgspec.to_builtins(
                msgspec.json.decode(Path(config).read_bytes(), type=Options)
            )
        except (OSError, msgspec.MsgspecError) as error:
            raise Rejected(f"--config {config}: {error}") from None
    values.update((name.replace("_", "-"), value) for name, value in given.items())
    options = msgspec.convert(values, Options)
    for name in ("node_id", "cluster_id", "address", "mesh", "managers", "state_dir"):
        if not getattr(options, name):
            raise Rejected(f"--{name.replace('_', '-')} is missing")
    if options.relay_workers < 0:
        raise Rejected(f"--relay-workers {options.relay_workers}: it takes at least one")
    return options


def _comma_separated(text: str) -> list[str]:
    return [part for part in text.split(",") if part]


def check_listeners(options: Options) -> None:
    """Refuse to be reachable from outside. Ports that services publish are not meant."""
    listeners = {"--mesh": options.mesh, "--metrics": options.metrics}
    for warning in refuse_open_listeners(listeners, options.insecure_listen):
        log.warning("%s", warning)


def connection_limit() -> int:
    """As many connections as there may be open files for in a relay worker, which has the limits
    of this process; each connection takes two."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * CONNECTION_LIMIT + OTHER_FILES
    files = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, hard))
    return max(1, (files - OTHER_FILES) // 2)


def default_workers() -> int:
    """One for every two cores that this process may use: tasks need the rest."""
    return max(1, len(os.sched_getaffinity(0)) // 2)


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

    disk = RealDisk(Path(options.state_dir))
    env: Env = real_env(options.name or options.node_id, GrpcTransport(), disk)
    place = Place(
        cluster_id=ClusterId(options.cluster_id),
        node_id=NodeId(options.node_id),
        ingress_host=parse_host(options.address),
        mesh=parse_address(options.mesh),
        connection_limit=connection_limit(),
        workers=options.relay_workers or default_workers(),
    )
    identity = Identity(place.cluster_id, place.node_id, options.managers)
    progress, mailbox = Progress(), make_mailbox()
    relay = Relay(env, place)
    follower = Child(
        "follow", mailbox, lambda: FollowActor(env, mailbox, identity, relay, progress)
    )
    supervisor = Supervisor(env, "netproxy", (follower,), escalated)
    metrics.register(metrics.Sources(progress, relay, supervisor))
    telemetry.serve(options.metrics)
    telemetry.watch_gc()
    watch = telemetry.watch_loop(env)
    supervisor.start()
    log.info(
        "netproxy=%s state=started address=%s mesh=%s", env.node, options.address, options.mesh
    )
    gc.collect()
    gc.freeze()

    await stop.wait()
    log.info("netproxy=%s state=stopping connections=%d", env.node, relay.observed().connections)
    watch.cancel()
    await supervisor.stop()
    await relay.close(DRAIN_S)
    disk.close()
    log.info("netproxy=%s state=stopped", env.node)
    return 1 if failures else 0


def main(arguments: list[str] | None = None) -> int:
    """Parse, check, run."""
    logging.basicConfig(
        stream=sys.stderr,
        level=logging.INFO,
        format="at=%(asctime)s level=%(levelname)s from=%(name)s %(message)s",
    )
    try:
        options = parse_options(sys.argv[1:] if arguments is None else arguments)
        check_listeners(options)
        with asyncio.Runner(loop_factory=_loop_factory(options.loop)) as runner:
            return runner.run(serve(options))
    except Rejected as error:
        print(f"netproxy: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"netproxy: {error}", file=sys.stderr)
        return 1


def _loop_factory(name: str) -> type[asyncio.AbstractEventLoop] | None:
    if name == "asyncio":
        return None
    import uvloop

    return uvloop.Loop


if __name__ == "__main__":
    sys.exit(main())
