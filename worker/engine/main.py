"""Ending a node's tasks when no agent runs any more: `python -m skep.worker.engine.main purge`.

Daemons leave tasks running when they stop; whoever takes a whole node down calls this afterwards.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
from pathlib import Path

from skep.domain.base import TaskId
from skep.env import Env, RealDisk, Rejected, Retryable, real_env
from skep.rpc import GrpcTransport
from skep.worker.adapters.engines import Engines, EngineSettings
from skep.worker.engine.protocol import Engine


def main() -> None:
    """Stop every task of a node, by its stop signal and grace, and forget it."""
    parser = argparse.ArgumentParser(prog="skep-engine", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    purge = commands.add_parser("purge", help="stop and forget all tasks of a node")
    purge.add_argument("tasks", type=Path, help="the node's folder of tasks")
    purge.add_argument("node_id", help="the node's id")
    purge.add_argument("--docker", default="", help="its Docker engine: unix:///run/docker.sock")
    purge.add_argument("--containers", default="", help="the folder of its containers' files")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(message)s")
    if not arguments.tasks.is_dir():
        return
    try:
        # One purge at a time.
        disk = RealDisk(arguments.tasks.parent / "purge")
    except Rejected as error:
        sys.exit(f"skep-engine: {error}")
    env = real_env("purge", GrpcTransport(), disk)
    settings = EngineSettings(
        node_id=arguments.node_id,
        cluster_id="",
        tasks=str(arguments.tasks),
        containers=arguments.containers,
        docker=arguments.docker,
    )
    try:
        asyncio.run(_purge(env, settings))
    except Retryable as error:
        sys.exit(f"skep-engine: {error}")
    disk.close()


async def _purge(env: Env, settings: EngineSettings) -> None:
    engines = Engines(env, settings)
    try:
        await asyncio.gather(*map(_purge_engine, engines.equipment.engines.values()))
        if engines.docker is not None:
            engines.docker.let_go_of_memory()
    finally:
        # Else connections that are left open have the last word, in place of what went wrong.
        await engines.close()


async def _purge_engine(engine: Engine) -> None:
    async def end(task_id: TaskId) -> None:
        await engine.stop(task_id)
        await engine.remove(task_id)

    held = await engine.held()
    await asyncio.gather(*(end(each.task_id) for each in held))


if __name__ == "__main__":
    main()
