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
from skep.env import Env, RealDisk, Rejected, real_env
from skep.rpc import GrpcTransport
from skep.worker.engine.adapters.process import ProcessEngine


def main() -> None:
    """Stop every task of a node, by its stop signal and grace, and forget it."""
    parser = argparse.ArgumentParser(prog="skep-engine", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    purge = commands.add_parser("purge", help="stop and forget all tasks of a node")
    purge.add_argument("tasks", type=Path, help="the node's folder of tasks")
    purge.add_argument("node_id", help="the node's id")
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
    asyncio.run(_purge(arguments.tasks, arguments.node_id, env))
    disk.close()


async def _purge(tasks: Path, node_id: str, env: Env) -> None:
    engine = ProcessEngine(tasks, env, node_id)

    async def end(task_id: TaskId) -> None:
        await engine.stop(task_id)
        await engine.remove(task_id)

    held = await engine.held()
    await asyncio.gather(*(end(each.task_id) for each in held))
    await engine.close()


if __name__ == "__main__":
    main()
