"""A relay with its worker processes, alone: `python -m bench.net.relayhost HOST TASK WORKERS`.

It listens on HOST for what a task at TASK serves, prints the ids of its workers when it does, and
ends with its input.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
from pathlib import Path

import uvloop

from bench.net.load import BULK_PORT, WEB_PORT
from skep.domain.base import ClusterId, NodeId, ServiceId, TaskId
from skep.env import RealDisk, real_env
from skep.netproxy.adapters.options import connection_limit
from skep.netproxy.adapters.relay import Place, Relay
from skep.netproxy.relay.core.protocol import Candidate, Listener
from skep.rpc import GrpcTransport

WEB, BULK, MESH = 9000, 9001, 7946


async def serve(host: str, task: str, workers: int) -> None:
    """Until the input ends."""
    with tempfile.TemporaryDirectory() as folder:
        env = real_env("bench", GrpcTransport(), RealDisk(Path(folder)))
        place = Place(
            cluster_id=ClusterId("bench"),
            node_id=NodeId("bench"),
            ingress_host=host,
            mesh=(host, MESH),
            connection_limit=connection_limit(),
            workers=workers,
        )
        relay = Relay(env, place)
        listeners = [
            Listener(
                host=host,
                port=port,
                service_id=ServiceId(f"to-{target}"),
                service_name=f"to-{target}",
                target=target,
                candidates=(Candidate(task_id=TaskId("task"), address=task),),
            )
            for port, target in ((WEB, WEB_PORT), (BULK, BULK_PORT))
        ]
        errors = await relay.serve(1, listeners)
        print(json.dumps({"errors": errors, "pids": relay.worker_pids}), flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
        await relay.close(0.0)


def main() -> None:
    """Parse and run."""
    host, task, workers = sys.argv[1:4]
    uvloop.run(serve(host, task, int(workers)))


if __name__ == "__main__":
    main()
