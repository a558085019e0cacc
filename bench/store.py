"""Commits of the cluster database: three managers, fsync on, clients over gRPC and in process.

Each write changes one node's labels, about 400 bytes, and is acknowledged once a majority has it
on disk. "grpc" goes through the control API of the leader, with the real client; "raft" is the
leader's own time from a proposal to its answer, as its metrics show it.
"""

from __future__ import annotations

import asyncio
import re
import tempfile
import time
import urllib.request
from collections.abc import Iterable
from pathlib import Path

from bench.report import Row, percentile, run
from skep import client
from skep.client import Cluster
from tests.support.local_cluster import local_cluster


def main() -> None:
    """Measure and print."""
    run("store", "latency and rate of committed writes", measure)


def measure(is_quick: bool) -> Iterable[Row]:
    """One client, then 64."""
    writes = 300 if is_quick else 3000
    with (
        tempfile.TemporaryDirectory() as home,
        local_cluster(Path(home), "--workers", "1") as cluster,
    ):
        leader = cluster.leader()
        row = next(row for row in cluster.processes() if row["name"] == leader)
        control, metrics = str(row["address"]), str(row["metrics"])
        for clients in (1, 64):
            before = _commits(metrics)
            times, elapsed_s = asyncio.run(_load(control, leader, clients, writes))
            after = _commits(metrics)
            name = f"{clients} client" + ("s" if clients > 1 else "")
            yield Row(f"grpc write p50, {name}", "ms", 1000 * percentile(times, 0.50))
            yield Row(f"grpc write p99, {name}", "ms", 1000 * percentile(times, 0.99))
            yield Row(f"grpc writes, {name}", "1/s", writes / elapsed_s)
            yield Row(f"raft commit mean, {name}", "ms", 1000 * _mean(before, after))


async def _load(address: str, node: str, clients: int, writes: int) -> tuple[list[float], float]:
    times: list[float] = []
    left = iter(range(writes))

    async def write(cluster: Cluster) -> None:
        for number in left:
            began = time.perf_counter()
            await cluster.nodes.update(node, labels_set={"bench": str(number)})
            times.append(time.perf_counter() - began)

    async with client.connect([address]) as cluster:
        await write_some(cluster, node)
        began = time.perf_counter()
        await asyncio.gather(*(write(cluster) for _ in range(clients)))
        return times, time.perf_counter() - began


async def write_some(cluster: Cluster, node: str) -> None:
    """Warm up: connections, caches, the journal's file."""
    for number in range(50):
        await cluster.nodes.update(node, labels_set={"warm": str(number)})


def _commits(address: str) -> tuple[float, float]:
    """Count and sum of seconds of the leader's commits."""
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=5) as answer:
        text = answer.read().decode()
    found = [
        re.search(rf"^skep_raft_commit_seconds_{part} (\S+)", text, re.MULTILINE)
        for part in ("count", "sum")
    ]
    assert found[0] is not None
    assert found[1] is not None
    return float(found[0].group(1)), float(found[1].group(1))


def _mean(before: tuple[float, float], after: tuple[float, float]) -> float:
    return (after[1] - before[1]) / max(after[0] - before[0], 1.0)


if __name__ == "__main__":
    main()
