"""The manager process: `python -m skep.manager.main --config FILE`.

SIGTERM and SIGINT hand leadership over and end the process; tasks are left running. The exit code
is 0 after a signal, 1 after an error that a restart of the process may mend, 2 for a wrong
configuration or a database that can't be used.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import signal
import sys
from pathlib import Path

import msgspec

from skep import telemetry
from skep.domain.address import refuse_open_listeners
from skep.domain.base import ClusterId, NodeId
from skep.domain.objects import DEFAULT_SUBNET_PREFIX
from skep.domain.spec import ENGINES, PROCESS
from skep.domain.validate import check_address_pools
from skep.env import Fatal, RealDisk, Rejected, real_env
from skep.manager.adapters import metrics
from skep.manager.dispatcher.core.nodes import ManagerRow
from skep.manager.node import SERVICES, Addresses, ManagerNode
from skep.manager.office import ManagerConfig
from skep.manager.raft.adapters.tcp import TcpTransport
from skep.manager.raft.core.codec import FRAME_LIMIT_BYTES
from skep.rpc import GrpcTransport

log = logging.getLogger("skep.manager")

# A clean stop has this long to hand leadership over and to sync.
STOP_DEADLINE_S = 5.0


class PeerFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One of the other managers."""

    raft: str
    control: str
    node_id: str
    name: str


class ConfigFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """manager.json. `peers` are the other managers, by raft id; `address_pools` and
    `subnet_prefix` are what networks without a subnet of their own get theirs from;
    `default_engine` runs services of stack files that name none."""

    name: str
    node_id: str
    cluster_id: str
    raft_id: int
    control: str
    raft: str
    metrics: str
    peers: dict[str, PeerFile]
    data_dir: str
    block: int
    insecure_listen: tuple[str, ...] = ()
    address_pools: tuple[str, ...] = ()
    default_engine: str = PROCESS
    subnet_prefix: int = DEFAULT_SUBNET_PREFIX


def main() -> None:
    """Run until told to stop."""
    parser = argparse.ArgumentParser(prog="skep-manager", description=__doc__)
    parser.add_argument("--config", required=True, type=Path, help="manager.json")
    arguments = parser.parse_args()
    logging.basicConfig(
        level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(message)s"
    )
    try:
        config = msgspec.json.decode(arguments.config.read_bytes(), type=ConfigFile)
        _check_listeners(config)
        check_address_pools(config.address_pools, config.subnet_prefix)
        if config.default_engine not in ENGINES:
            raise Rejected(
                f"default_engine: there is no {config.default_engine!r}; there are "
                f"{', '.join(ENGINES)}"
            )
        disk = RealDisk(Path(config.data_dir))
        with asyncio.Runner() as runner:
            code = runner.run(_run(config, disk))
        disk.close()
    except (msgspec.DecodeError, Rejected, Fatal) as error:
        print(f"skep-manager: {arguments.config}: {error}", file=sys.stderr)
        sys.exit(2)
    except OSError as error:
        print(f"skep-manager: {error}", file=sys.stderr)
        sys.exit(1)
    sys.exit(code)


def _check_listeners(config: ConfigFile) -> None:
    listeners = {"control": config.control, "raft": config.raft, "metrics": config.metrics}
    for warning in refuse_open_listeners(listeners, config.insecure_listen):
        log.warning("%s", warning)


async def _run(config: ConfigFile, disk: RealDisk) -> int:
    env = real_env(config.name, GrpcTransport(SERVICES), disk)
    ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def fatal(error: BaseException) -> None:
        log.critical("manager=%s ends why=%s", config.name, error, exc_info=error)
        if not ended.done():
            ended.set_result(1)

    def told() -> None:
        if not ended.done():
            ended.set_result(0)

    node = ManagerNode(
        env,
        TcpTransport(FRAME_LIMIT_BYTES),
        _manager_config(config),
        _addresses(config),
        on_fatal=fatal,
    )
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, told)
    await node.start()
    metrics.register(node)
    telemetry.serve(config.metrics)
    telemetry.watch_loop(env)
    telemetry.watch_gc()
    gc.collect()
    gc.freeze()
    log.info("manager=%s control=%s raft=%s", config.name, node.address, config.raft)
    code = await ended
    try:
        async with asyncio.timeout(STOP_DEADLINE_S):
            await node.stop()
    except TimeoutError:
        log.warning("manager=%s did not stop in time", config.name)
    return code


def _manager_config(config: ConfigFile) -> ManagerConfig:
    rows = {
        int(raft_id): ManagerRow(NodeId(peer.node_id), peer.name, peer.control)
        for raft_id, peer in config.peers.items()
    }
    rows[config.raft_id] = ManagerRow(NodeId(config.node_id), config.name, config.control)
    return ManagerConfig(
        cluster_id=ClusterId(config.cluster_id),
        node_id=NodeId(config.node_id),
        block=config.block,
        raft_id=config.raft_id,
        managers=dict(sorted(rows.items())),
        address_pools=config.address_pools,
        default_engine=config.default_engine,
        subnet_prefix=config.subnet_prefix,
    )


def _addresses(config: ConfigFile) -> Addresses:
    return Addresses(
        control=config.control,
        raft=config.raft,
        raft_peers={int(raft_id): peer.raft for raft_id, peer in config.peers.items()},
    )


if __name__ == "__main__":
    main()
