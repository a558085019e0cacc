"""The main job in figures: coming up, idling, starting fifty tasks, and what each loss costs.

Seconds are the p90 of the trials, with the median beside them. The cluster is the one that
`skep up` makes: three managers, three workers, the example stack. What a killed task costs is
measured by `bench.rollout`.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from bench.report import Row, against, at_most, percentile, run, seconds
from tests.support.local_cluster import (
    ROOT,
    LocalCluster,
    eventually,
    is_alive,
    kill_pid,
    local_cluster,
)

TRIALS = 20
FIFTY = 50
# The same program on both sides: "python3" may be a wrapper in one environment and not in another.
PYTHON = os.path.realpath(sys.executable)
WEB = ROOT / "examples" / "web.py"
KINDS = ("manager", "agent", "netproxy")
MEMORY_AIM_MB = {"manager": 90.0, "agent": 60.0, "netproxy": 50.0}


def main() -> None:
    """Measure and print."""
    run("cluster", "the main job: up, idle, fifty tasks, losses", measure)


def measure(is_quick: bool) -> Iterable[Row]:
    """All of it, in one cluster but for the first figure."""
    trials = 3 if is_quick else TRIALS
    yield from coming_up(1 if is_quick else 5)
    with tempfile.TemporaryDirectory() as home, local_cluster(Path(home)) as cluster:
        yield from idling(cluster, 10.0 if is_quick else 60.0)
        yield from fifty_tasks(cluster, 1 if is_quick else 5)
        yield from lost_leader(cluster, trials)
        yield from lost_worker(cluster, trials)


def coming_up(trials: int) -> Iterator[Row]:
    """`skep up` in an empty home until it has converged and said so."""
    times = []
    for _ in range(trials):
        with tempfile.TemporaryDirectory() as home:
            began = time.perf_counter()
            with local_cluster(Path(home)):
                times.append(time.perf_counter() - began)
    yield from seconds("skep up to converged", times, None)


def idling(cluster: LocalCluster, span_s: float) -> Iterator[Row]:
    """Memory and processor time of each kind of process, `span_s` after it has converged."""
    time.sleep(span_s)
    pids: dict[str, list[int]] = {kind: [] for kind in KINDS}
    for row in cluster.processes():
        kind = str(row["name"]).rpartition(".")[2] if "." in str(row["name"]) else "manager"
        pids[kind].append(int(row["pid"]))
    before = {pid: _cpu_s(pid) for each in pids.values() for pid in each}
    time.sleep(span_s)
    total = 0.0
    for kind in KINDS:
        used = [100 * (_cpu_s(pid) - before[pid]) / span_s for pid in pids[kind]]
        total += sum(used)
        memory = [_memory_mb(pid) for pid in pids[kind]]
        worst = max(each["Pss"] for each in memory)
        yield at_most(f"idle {kind}, PSS", "MB", worst, MEMORY_AIM_MB[kind])
        yield Row(f"idle {kind}, USS", "MB", max(each["Uss"] for each in memory))
        yield Row(f"idle {kind}, RSS", "MB", max(each["Rss"] for each in memory))
        yield Row(f"idle {kind}, of one core", "%", max(used))
    yield at_most("idle cluster of 9 processes, of one core", "%", total, 10.0)


def fifty_tasks(cluster: LocalCluster, trials: int) -> Iterator[Row]:
    """Until all fifty web servers take connections: by Skep, and started by hand."""
    ours, by_hand = [], []
    for _ in range(trials):
        by_hand.append(_fifty_by_hand())
        ours.append(_fifty_by_skep(cluster))
    hand = percentile(by_hand, 0.5)
    name = f"{FIFTY} web servers until they answer"
    yield against(name, "s", percentile(ours, 0.5), ("by hand", hand), 2.0)


def _fifty_by_hand() -> float:
    places = [f"127.254.{16 + number}.1:8080" for number in range(FIFTY)]
    began = time.perf_counter()
    children = [
        subprocess.Popen(
            [PYTHON, str(WEB), place],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        for place in places
    ]
    try:
        _until_all_answer([place.rpartition(":")[0] for place in places])
        return time.perf_counter() - began
    finally:
        for child in children:
            child.kill()
            child.wait()


def _fifty_by_skep(cluster: LocalCluster) -> float:
    began = time.perf_counter()
    flags = ("--replicas", str(FIFTY), "--detach", "--name", "fifty")
    cluster.skep("service", "create", *flags, "--", PYTHON, str(WEB), "{{.Task.Address}}:8080")
    tasks = eventually(
        lambda: _with_addresses(cluster), within_s=60.0, what="fifty tasks with addresses"
    )
    _until_all_answer(tasks)
    took = time.perf_counter() - began
    cluster.skep("service", "rm", "fifty")
    eventually(lambda: not _named(cluster, "fifty"), within_s=60.0, what="fifty removed")
    return took


def _with_addresses(cluster: LocalCluster) -> list[str]:
    addresses = [str(task["address"]) for task in cluster.tasks("fifty") if task["address"]]
    return addresses if len(addresses) == FIFTY else []


def _named(cluster: LocalCluster, name: str) -> bool:
    return any(row["name"] == name for row in cluster.rows("service", "ls"))


def _until_all_answer(hosts: list[str]) -> None:
    waiting = set(hosts)

    def all_answer() -> bool:
        for host in tuple(waiting):
            with contextlib.suppress(OSError), socket.create_connection((host, 8080), 1.0):
                waiting.discard(host)
        return not waiting

    eventually(all_answer, within_s=120.0, what="all answer")


def lost_leader(cluster: LocalCluster, trials: int) -> Iterator[Row]:
    """kill -9 of the leading manager until another has accepted `service scale`."""
    times = []
    for trial in range(trials):
        leader = cluster.leader()
        pid = cluster.pid_of(leader)
        began = time.perf_counter()
        kill_pid(pid)
        wanted = f"web={3 + trial % 2}"

        def accepted(words: str = wanted) -> bool:
            return cluster.run("service", "scale", words, "--detach").returncode == 0

        eventually(accepted, within_s=30.0)
        times.append(time.perf_counter() - began)
        cluster.start(leader)
        _settle(cluster, lambda: all(n["status"] == "ready" for n in cluster.nodes()))
    cluster.skep("service", "scale", "web=3")
    yield from seconds("killed leader until a scale is accepted", times, 3.0)


def lost_worker(cluster: LocalCluster, trials: int) -> Iterator[Row]:
    """kill -9 of a worker's processes, tasks included, until all replicas run elsewhere."""
    times = []
    for _ in range(trials):
        node = str(cluster.running()[0]["node"])
        pids = [
            int(task["pid"])
            for service in ("web", "timecheck")
            for task in cluster.running(service)
            if task["node"] == node
        ]
        began = time.perf_counter()
        cluster.kill(node)
        for pid in pids:
            kill_pid(pid)

        def elsewhere(lost: str = node) -> bool:
            now = cluster.running()
            return len(now) == 3 and all(task["node"] != lost for task in now)

        eventually(elsewhere, within_s=60.0)
        times.append(time.perf_counter() - began)
        assert not any(is_alive(pid) for pid in pids)
        cluster.start(node)
        _settle(cluster, lambda: all(n["status"] == "ready" for n in cluster.nodes()))
        # Spread over all three again, so that each trial loses the same.
        cluster.skep("service", "scale", "web=0")
        cluster.skep("service", "scale", "web=3")
    yield from seconds("lost worker until replaced elsewhere", times, 10.0)


def _settle(cluster: LocalCluster, look: Callable[[], bool]) -> None:
    def settled() -> bool:
        try:
            return look()
        except AssertionError:
            return False

    eventually(settled, within_s=60.0)


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _memory_mb(pid: int) -> dict[str, float]:
    """PSS, USS and RSS."""
    found: dict[str, float] = {"Uss": 0.0}
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]:
        name, amount = line.split()[:2]
        kilobytes = float(amount) / 1024
        if name in ("Pss:", "Rss:"):
            found[name[:-1]] = kilobytes
        if name in ("Private_Clean:", "Private_Dirty:"):
            found["Uss"] += kilobytes
    return found


if __name__ == "__main__":
    main()
