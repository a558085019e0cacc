"""The worker's agent as a process: `python -m skep.worker.main --config agent.json`.

SIGTERM and SIGINT end it and leave tasks running; the next one adopts them. The exit code is 0
after a signal, 1 after an error that a restart of the process may mend, 2 for a wrong
configuration.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import os
import platform
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import msgspec
from prometheus_client import REGISTRY

from skep import telemetry
from skep.domain.address import refuse_open_listeners
from skep.domain.base import SECOND_NS, ClusterId, NodeId, Pairs
from skep.domain.objects import NodeDescription, NodeRole
from skep.env import Env, Fatal, RealDisk, Rejected, real_env
from skep.rpc import GrpcTransport
from skep.worker.adapters.engines import Engines, EngineSettings
from skep.worker.adapters.metrics import AgentMetrics, TaskMetrics
from skep.worker.adapters.nodenotes import follow_notes, network_notes
from skep.worker.agent import Agent, AgentConfig
from skep.worker.engine.adapters.process import ProcessEngine
from skep.worker.engine.docker.adapters.stats import UsageReader
from skep.worker.engine.docker.core.cleanup import CleanupPolicy
from skep.worker.engine.docker.core.notes import DockerNotes

log = logging.getLogger("skep.worker")


class ConfigFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """agent.json. `managers` are control addresses; "" for `metrics` shows none. `netproxy` is
    where the node's netproxy takes its worker's calls ("unix:/path"), `plane` what data plane it
    has. `docker` is where the node's Docker engine takes calls ("unix:///var/run/docker.sock"), ""
    for a node that runs no containers; their files are in `containers_dir`, by default beside the
    tasks' folder. Images that this agent pulled and nobody uses are removed after `image_unused_s`,
    and while the disk is fuller than `disk_percent`; 0 turns either off."""

    name: str
    node_id: str
    cluster_id: str
    address: str
    mesh: str
    managers: tuple[str, ...]
    data_dir: str
    tasks_dir: str
    metrics: str = ""
    netproxy: str = ""
    plane: str = "relay"
    docker: str = ""
    containers_dir: str = ""
    image_unused_s: Annotated[float, msgspec.Meta(ge=0)] = CleanupPolicy().unused_s
    disk_percent: Annotated[int, msgspec.Meta(ge=0, le=100)] = CleanupPolicy().disk_percent
    role: NodeRole = NodeRole.WORKER
    insecure_listen: tuple[str, ...] = ()


def main() -> None:
    """Run until told to stop."""
    parser = argparse.ArgumentParser(prog="skep-worker", description=__doc__)
    parser.add_argument("--config", required=True, type=Path, help="agent.json")
    arguments = parser.parse_args()
    logging.basicConfig(
        level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(message)s"
    )
    try:
        config = msgspec.json.decode(arguments.config.read_bytes(), type=ConfigFile)
        if not config.managers:
            raise Rejected("managers: at least one control address is needed")
        for warning in refuse_open_listeners({"metrics": config.metrics}, config.insecure_listen):
            log.warning("%s", warning)
        disk = RealDisk(Path(config.data_dir))
        with asyncio.Runner() as runner:
            code = runner.run(_run(config, disk))
        disk.close()
    except (msgspec.DecodeError, Rejected, Fatal) as error:
        print(f"skep-worker: {arguments.config}: {error}", file=sys.stderr)
        sys.exit(2)
    except OSError as error:
        print(f"skep-worker: {error}", file=sys.stderr)
        sys.exit(1)
    sys.exit(code)


async def _run(config: ConfigFile, disk: RealDisk) -> int:
    stop = asyncio.Event()
    failures: list[BaseException] = []

    def escalated(error: BaseException) -> None:
        failures.append(error)
        stop.set()

    env = real_env(config.name, GrpcTransport(), disk)
    engines = Engines(env, _engine_settings(config))
    told = Told(await network_notes(env, config.netproxy), await engines.docker_notes())
    first = _agent_config(config, engines.process, told)
    agent = Agent(env, first, engines.equipment, escalated)
    REGISTRY.register(AgentMetrics(agent))
    if engines.docker is not None:
        REGISTRY.register(TaskMetrics(agent, engines.docker.name, UsageReader().read))
    telemetry.serve(config.metrics)
    telemetry.watch_gc()
    stalls = telemetry.watch_loop(env)
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    agent.start()

    def on_news() -> None:
        agent.describe(_agent_config(config, engines.process, told).description)

    following = _follow(env, config, engines, told, on_news)
    log.info("worker=%s state=started managers=%s", config.name, ",".join(config.managers))
    gc.collect()
    gc.freeze()

    await stop.wait()
    log.info("worker=%s state=stopping tasks=left running", config.name)
    stalls.cancel()
    for each in following:
        each.cancel()
    await agent.stop()
    await engines.close()
    for failure in failures:
        log.error("worker=%s state=failed why=%s", config.name, failure)
    return 1 if failures else 0


def _engine_settings(config: ConfigFile) -> EngineSettings:
    return EngineSettings(
        node_id=config.node_id,
        cluster_id=config.cluster_id,
        tasks=config.tasks_dir,
        containers=config.containers_dir,
        netproxy=config.netproxy,
        plane=config.plane,
        docker=config.docker,
        cleanup=CleanupPolicy(unused_s=config.image_unused_s, disk_percent=config.disk_percent),
    )


@dataclass
class Told:
    """What the node's description has from others: its netproxy, and its Docker engine."""

    network: Pairs
    docker: DockerNotes


def _follow(
    env: Env, config: ConfigFile, engines: Engines, told: Told, on_news: Callable[[], None]
) -> list[asyncio.Task[None]]:
    """Have the description follow what these say."""

    def on_network(notes: Pairs) -> None:
        told.network = notes
        on_news()

    def on_docker(notes: DockerNotes) -> None:
        told.docker = notes
        on_news()

    network = follow_notes(env, config.netproxy, told.network, on_network)
    return [
        env.spawn("notes", network),
        env.spawn("docker-notes", engines.follow_docker(told.docker, on_docker)),
    ]


def _agent_config(config: ConfigFile, process: ProcessEngine, told: Told) -> AgentConfig:
    description = NodeDescription(
        hostname=config.name,
        address=config.address,
        mesh_address=config.mesh,
        os=platform.system().lower(),
        arch=platform.machine(),
        cpu_nano=len(os.sched_getaffinity(0)) * SECOND_NS,
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        engines=(process.name, *told.docker.engines),
        notes=(*told.network, *process.notes, *told.docker.notes),
        plane=config.plane,
    )
    return AgentConfig(
        name=config.name,
        node_id=NodeId(config.node_id),
        cluster_id=ClusterId(config.cluster_id),
        description=description,
        managers=config.managers,
        role=config.role,
    )


if __name__ == "__main__":
    main()
