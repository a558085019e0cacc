"""One trial of each kind, on whichever side: what is asked, and how the end of it is seen.

The clock starts before the call that asks. "Running" is what the orchestrator's list of tasks
says, "gone" what the lists of containers of all three dockerd say; each is looked at by `until`.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from bench.containers.side import RELEASES, Net, Order, Seen, Side, Wish, until

# After each change, so that the last one's remains are not in the next trial.
QUIET_S = 1.0

_numbers = itertools.count(1)


def create_and_remove(side: Side, replicas: int, net: Net) -> tuple[float, float]:
    """Seconds until all run, and from the removal until no container is left."""
    wish = _wish(replicas, net)
    began = time.perf_counter()
    side.create(wish)
    created = _until_running(side, wish) - began
    time.sleep(QUIET_S)
    began = time.perf_counter()
    side.remove(wish.name)
    removed = _until_gone(side, wish) - began
    time.sleep(QUIET_S)
    return created, removed


def update(side: Side, replicas: int, order: Order) -> tuple[float, float]:
    """Seconds until all replicas run the next release, and until nothing runs the one before any
    more; on the host's network."""
    with service(side, _wish(replicas, Net.HOST, order)) as wish:
        began = time.perf_counter()
        side.update(wish.name)
        new = _until_running(side, wish, RELEASES[1]) - began
        return new, _until_none_runs(side, wish, RELEASES[0]) - began


def replace(side: Side, net: Net, trials: int) -> list[float]:
    """Seconds from the end of `docker container rm -f` of one of a few tasks until all run again.
    Each trial removes another slot's container, since slots that fail again and again wait."""
    times = []
    with service(side, _wish(trials, net)) as wish:
        for victim in [task.task_id for task in side.tasks(wish.name)]:
            docker, container = next(
                (docker, found["Id"])
                for docker in side.engines
                for found in docker.containers(wish.name)
                if found["Labels"].get("com.docker.swarm.task.id") == victim
            )
            began = time.perf_counter()
            docker.remove_container(container)
            ended = _until_running(side, wish, without=victim)
            times.append(ended - began)
            time.sleep(QUIET_S)
    return times


@contextmanager
def service(side: Side, wish: Wish) -> Iterator[Wish]:
    """A service that runs, and a quiet cluster; gone at the end."""
    side.create(wish)
    try:
        _until_running(side, wish)
        time.sleep(QUIET_S)
        yield wish
    finally:
        side.remove(wish.name)
        _until_gone(side, wish)
        time.sleep(QUIET_S)


def a_service(replicas: int) -> Wish:
    """One on the host's network, to look at."""
    return _wish(replicas, Net.HOST)


def _wish(replicas: int, net: Net, order: Order = Order.STOP_FIRST) -> Wish:
    return Wish(f"bench{next(_numbers)}", replicas, net, order)


def _until_running(side: Side, wish: Wish, release: str = RELEASES[0], without: str = "") -> float:
    def is_right(task: Seen) -> bool:
        return task.is_running and task.release == release and task.task_id != without

    return until(_all_are(side, wish, is_right), f"{wish.replicas} of {wish.name} run")


def _until_none_runs(side: Side, wish: Wish, release: str) -> float:
    def is_over() -> bool:
        tasks = side.tasks(wish.name)
        return not any(task.is_running and task.release == release for task in tasks)

    return until(is_over, f"none of release {release} of {wish.name} runs")


def _all_are(side: Side, wish: Wish, is_right: Callable[[Seen], bool]) -> Callable[[], bool]:
    return lambda: sum(map(is_right, side.tasks(wish.name))) >= wish.replicas


def _until_gone(side: Side, wish: Wish) -> float:
    def is_gone() -> bool:
        return not any(docker.containers(wish.name) for docker in side.engines)

    return until(is_gone, f"no container of {wish.name}")
