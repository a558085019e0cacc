"""Changing what runs: a rolling update of ten replicas, and the replacement of a killed task.

Everything is seen through one watch of the control API, as a program sees it that follows its
release; the clock starts before the call that asks for the change. Tasks stop at once. Seconds are
the p90 of the trials, with the median beside them.
"""

from __future__ import annotations

import os
import queue
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.report import Recorded, Row, at_most, percentile, run, seconds
from skep.client import sync
from skep.domain.base import SECOND_NS, pairs, replace
from skep.domain.control import WatchAction, WatchEvent
from skep.domain.objects import Service, Task, UpdateState
from skep.domain.spec import (
    RestartPolicy,
    RunSpec,
    ServiceSpec,
    TaskSpec,
    UpdateOrder,
    UpdatePolicy,
)
from skep.domain.states import TaskState
from tests.support.local_cluster import LocalCluster, kill_pid, local_cluster

TRIALS = 20
REPLICAS = 10
PARALLELISM = 2
DEFAULT_MONITOR_S = UpdatePolicy().monitor_ns / SECOND_NS
LIMIT_S = 120.0

# Medians of three nodes on one machine, host network; until all new tasks run, until completed.
SWARM = "Docker Swarm 20.10.24, containers, two busy cores (load 7 to 9), 2026-11-23"
SWARM_S = {UpdateOrder.STOP_FIRST: (18.7, 23.7), UpdateOrder.START_FIRST: (5.8, 7.5)}
SWARM_KILLED_S = 0.49
AIM_S = {UpdateOrder.STOP_FIRST: 3.0, UpdateOrder.START_FIRST: 2.0}
MISSING_AIM = {UpdateOrder.STOP_FIRST: PARALLELISM, UpdateOrder.START_FIRST: 0}


def main() -> None:
    """Measure and print."""
    run("rollout", "rolling updates and replacements, seen by a watch", measure)


def measure(is_quick: bool) -> Iterable[Row]:
    """All of it, in one cluster."""
    trials = 2 if is_quick else TRIALS
    with (
        tempfile.TemporaryDirectory() as home,
        local_cluster(Path(home)) as cluster,
        sync.connect(_control(cluster)) as client,
    ):
        for order in UpdateOrder:
            yield from _updates(client, order, trials)
        yield from _killed_task(client, trials)


@dataclass(frozen=True)
class Rollout:
    """One update: seconds until all new tasks ran and until it was reported complete, and the
    fewest tasks that ran meanwhile, and the most."""

    running_s: float
    completed_s: float
    fewest: int
    most: int


class Follower:
    """A watch of one service in a thread of its own, which stamps each event as it comes. It ends
    when the service does."""

    def __init__(self, client: sync.Cluster, from_version: int, service: Service) -> None:
        self._events: queue.SimpleQueue[tuple[float, WatchEvent]] = queue.SimpleQueue()
        self._is_open = threading.Event()
        self._service = service
        self._watch = client.watch(from_version=from_version, kinds=("service", "task"))
        self._thread = threading.Thread(target=self._follow, name="follower", daemon=True)
        self._thread.start()

    def __iter__(self) -> Iterator[tuple[float, WatchEvent]]:
        while True:
            yield self._events.get(timeout=LIMIT_S)

    def until_open(self) -> None:
        """Wait for the first event; the clock must not pay for opening the stream."""
        assert self._is_open.wait(LIMIT_S)

    def join(self) -> None:
        """Wait for the end."""
        self._thread.join(LIMIT_S)

    def _follow(self) -> None:
        for event in self._watch:
            self._is_open.set()
            if event.service is not None and event.service.id == self._service.id:
                if event.action is WatchAction.REMOVE:
                    break
            elif event.task is None or event.task.service_id != self._service.id:
                continue
            self._events.put((time.perf_counter(), event))


@contextmanager
def _service(client: sync.Cluster, spec: ServiceSpec) -> Iterator[tuple[Service, Follower]]:
    """The service, converged, and a watch that has begun; gone at the end."""
    version = client.info().version
    service = client.services.create(spec)
    follower = Follower(client, version, service)
    try:
        client.wait_converged([service.id], timeout_s=LIMIT_S)
        follower.until_open()
        yield service, follower
    finally:
        client.services.remove(service.id)
        client.wait_removed([service.id], timeout_s=LIMIT_S)
        follower.join()


def _spec(name: str, replicas: int, update: UpdatePolicy) -> ServiceSpec:
    task = TaskSpec(run=RunSpec(command=("sleep", "100000")), restart=RestartPolicy(delay_ns=0))
    return ServiceSpec(name=name, task=task, replicas=replicas, update=update)


def _updates(client: sync.Cluster, order: UpdateOrder, trials: int) -> Iterator[Row]:
    """Without a monitor time, and once with the default one, which must be all it adds."""
    policy = UpdatePolicy(parallelism=PARALLELISM, order=order, monitor_ns=0)
    name = f"{order.value.replace('_', '-')}, {REPLICAS} replicas by {PARALLELISM}"
    with _service(client, _spec("rollout", REPLICAS, policy)) as (service, follower):
        rollouts = [_rollout(client, follower, service, policy) for _ in range(trials)]
        policy = replace(policy, monitor_ns=round(DEFAULT_MONITOR_S * SECOND_NS))
        watched = _rollout(client, follower, service, policy)
    aim_s = AIM_S[order]
    running_s, completed_s = (Recorded(each, SWARM) for each in SWARM_S[order])
    times = [each.running_s for each in rollouts]
    yield from seconds(f"{name}: all run", times, aim_s, running_s)
    times = [each.completed_s for each in rollouts]
    yield from seconds(f"{name}: complete", times, aim_s)
    yield at_most(
        f"{name}: complete, monitor {DEFAULT_MONITOR_S:g} s",
        "s",
        watched.completed_s,
        aim_s + DEFAULT_MONITOR_S,
        completed_s,
    )
    missing = REPLICAS - min(each.fewest for each in rollouts)
    yield at_most(f"{name}: missing at once, most", "tasks", missing, MISSING_AIM[order])
    extra = max(each.most for each in rollouts) - REPLICAS
    yield Row(f"{name}: extra at once, most", "tasks", extra)


def _rollout(
    client: sync.Cluster, follower: Follower, service: Service, policy: UpdatePolicy
) -> Rollout:
    tasks = {task.id: task for task in client.tasks.list(service=service.id)}
    began = time.perf_counter()
    asked = client.services.change(service.id, lambda spec: _next_release(spec, policy))
    running_s: float | None = None
    counts = [REPLICAS]
    version = asked.version
    for at, event in follower:
        if event.version > version:
            # All events of the commit before are in.
            counts.append(_running(tasks.values()))
            version = event.version
        if event.task is not None and event.version >= asked.version:
            tasks[event.task.id] = event.task
            new = [task for task in tasks.values() if task.revision == asked.revision]
            if running_s is None and _running(new) == REPLICAS:
                running_s = at - began
        if running_s is not None and _is_complete(event.service, asked):
            return Rollout(running_s, at - began, min(counts), max(counts))
    raise AssertionError("a watch has no end")


def _next_release(spec: ServiceSpec, policy: UpdatePolicy) -> ServiceSpec:
    """A change that calls for new tasks."""
    number = int(dict(spec.task.run.env).get("RELEASE", "0")) + 1
    run = replace(spec.task.run, env=pairs({"RELEASE": str(number)}))
    return replace(spec, task=replace(spec.task, run=run), update=policy)


def _running(tasks: Iterable[Task]) -> int:
    return sum(task.status.state is TaskState.RUNNING for task in tasks)


def _is_complete(row: Service | None, asked: Service) -> bool:
    return (
        row is not None
        and row.revision == asked.revision
        and row.update is not None
        and row.update.state is UpdateState.COMPLETED
    )


def _killed_task(client: sync.Cluster, trials: int) -> Iterator[Row]:
    """kill -9 of a task until its replacement runs, restart delay 0. Each trial has a slot of its
    own: where one fails again and again, restarts slow down."""
    times: list[float] = []
    noticed: list[float] = []
    with _service(client, _spec("killed", trials, UpdatePolicy())) as (service, follower):
        for trial, victim in enumerate(client.tasks.list(service=service.id)):
            assert victim.status.pid is not None
            began = time.perf_counter()
            kill_pid(victim.status.pid)
            for at, event in follower:
                task = event.task
                if task is None or task.slot != victim.slot:
                    continue
                if task.id == victim.id and task.is_terminal and len(noticed) == trial:
                    noticed.append(at - began)
                if task.created_ns > victim.created_ns and task.status.state is TaskState.RUNNING:
                    times.append(at - began)
                    break
    peer = Recorded(SWARM_KILLED_S, SWARM)
    yield Row("killed task until seen as failed, p90", "s", percentile(noticed, 0.9))
    yield from seconds("killed task until its replacement runs", times, 0.3, peer)


def _control(cluster: LocalCluster) -> list[str]:
    rows = cluster.processes()
    return [str(row["address"]) for row in rows if "." not in str(row["name"])]


if __name__ == "__main__":
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    main()
