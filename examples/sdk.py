"""Drive a cluster from Python: deploy a service, follow it, scale it, remove it.

skep up examples/timecheck.yaml
python examples/sdk.py 127.32.0.1:7410        # the control address that `skep up` printed
"""

import asyncio
import sys
from contextlib import suppress

from skep import client
from skep.client import Cluster
from skep.domain.spec import RunSpec, ServiceSpec, TaskSpec

SPEC = ServiceSpec(
    name="sdk-example",
    replicas=1,
    task=TaskSpec(run=RunSpec(command=("sleep", "3600"))),
)


async def follow(cluster: Cluster) -> None:
    """Print what happens to our tasks, until cancelled."""
    async for event in cluster.watch(kinds=["task"]):
        if event.task and event.task.service_name == SPEC.name:
            print(f"  {event.task.name} is {event.task.status.state.value}")


async def deploy_scale_remove(cluster: Cluster, timeout_s: float = 60) -> None:
    """A service's whole life."""
    service = await cluster.services.create(SPEC)
    print(f"created {service.name} ({service.id})")
    following = asyncio.create_task(follow(cluster))
    try:
        await cluster.wait_converged([service.id], timeout_s=timeout_s)

        # Reads, edits and writes back; starts again if somebody else was faster.
        await cluster.services.scale(service.id, 3)
        (view,) = await cluster.wait_converged([service.id], timeout_s=timeout_s)
        print(f"scaled to {view.running}/{view.desired}")

        nodes = {node.id: node.name for node in await cluster.nodes.list()}
        for task in await cluster.tasks.list(service=service.id):
            where = nodes.get(task.node_id, "nowhere") if task.node_id else "nowhere"
            print(f"  {task.name} on {where} at {task.address}")
    finally:
        await cluster.services.remove(service.id)
        await cluster.wait_removed([service.id], timeout_s=timeout_s)
        following.cancel()
        with suppress(asyncio.CancelledError):
            await following
    print("removed")


async def main(addresses: list[str]) -> None:
    """Connect and run; errors say what to do."""
    async with client.connect(addresses) as cluster:
        try:
            await deploy_scale_remove(cluster)
        except client.AlreadyExists as error:
            sys.exit(f"{error}: another run may be under way")
        except client.Unavailable as error:
            sys.exit(f"{error}: is the cluster up? `skep local ls` tells")


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit("usage: python examples/sdk.py ADDRESS [ADDRESS ...]")
    asyncio.run(main(sys.argv[1:]))
