"""What real containers use, against what is known of them."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from skep.worker.engine.docker.adapters.stats import UsageReader
from tests.support.dockerd import BUSYBOX, Dockerd
from tests.support.local_cluster import eventually

DEADLINE_S = 60.0
MEGABYTE = 1024 * 1024
# Burns CPU, holds memory in a file of memory, and writes to the disk.
SCRIPT = (
    "head -c 20971520 /dev/zero >/dev/shm/held; head -c 1048576 /dev/zero >/file; sync;"
    "n=0; while [ $n -lt 200000 ]; do n=$((n+1)); done; sleep 600 & sleep 600 & echo done; wait"
)


@pytest.fixture(autouse=True)
def no_containers_left(engine: Dockerd) -> Iterator[None]:
    yield
    engine.clear()


def run(engine: Dockerd, *command: str, network: str = "none", memory: int = 0) -> str:
    body = {
        "Image": BUSYBOX,
        "Cmd": list(command),
        "HostConfig": {"NetworkMode": network, "Memory": memory, "ShmSize": 64 * MEGABYTE},
    }
    container = str(engine.call("POST", "/containers/create", body)["Id"])
    engine.call("POST", f"/containers/{container}/start")
    return container


def pid_of(engine: Dockerd, container: str) -> int:
    return int(engine.inspect(container)["State"]["Pid"])


def test_a_container_that_does_what_is_known(engine: Dockerd) -> None:
    container = run(engine, "sh", "-c", SCRIPT, memory=100 * MEGABYTE)
    eventually(lambda: "done" in engine.get(f"/containers/{container}/logs?stdout=1"), DEADLINE_S)
    reader = UsageReader()
    usage = reader.read(pid_of(engine, container))
    assert usage is not None
    assert usage.memory_limit_bytes == 100 * MEGABYTE
    assert usage.pids == 3
    assert 0.02e9 < (usage.cpu_ns or 0) < 60e9
    assert 20 * MEGABYTE <= (usage.working_set_bytes or 0) <= (usage.memory_bytes or 0)
    assert (usage.received_bytes, usage.sent_bytes) == (0, 0)
    # The engine's own figures, for which it looks twice.
    told = engine.get(f"/containers/{container}/stats?stream=false&one-shot=true")
    assert abs(told["cpu_stats"]["cpu_usage"]["total_usage"] - (usage.cpu_ns or 0)) < 0.1e9
    assert abs(told["memory_stats"]["usage"] - (usage.memory_bytes or 0)) < 2 * MEGABYTE
    assert told["pids_stats"]["current"] == usage.pids


def test_the_nodes_own_network_is_not_a_tasks(engine: Dockerd) -> None:
    usage = UsageReader().read(pid_of(engine, run(engine, "sleep", "600", network="host")))
    assert usage is not None
    assert usage.received_bytes is None
    assert usage.memory_bytes


def test_what_is_no_container(engine: Dockerd) -> None:
    container = run(engine, "sleep", "600")
    pid = pid_of(engine, container)
    engine.call("POST", f"/containers/{container}/kill?signal=KILL")
    engine.call("POST", f"/containers/{container}/wait")
    reader = UsageReader()
    assert reader.read(pid) is None
    assert reader.read(os.getpid()) is None


def test_a_reading_costs_little(engine: Dockerd) -> None:
    pid = pid_of(engine, run(engine, "sleep", "600"))
    reader = UsageReader()
    began = time.process_time()
    for _ in range(200):
        reader.read(pid)
    cost_s = (time.process_time() - began) / 200
    # A quarter of a millisecond on a quiet machine; a second per scrape of 100 would be too much.
    assert cost_s < 0.01, cost_s


def test_what_a_task_sends_is_counted_and_what_it_says_to_itself_is_not(engine: Dockerd) -> None:
    pid = pid_of(engine, run(engine, "sleep", "600"))
    inside = ["nsenter", "-t", str(pid), "-n"]
    for command in (
        "ip link set lo up",
        "ip link add net0 type veth peer name net1",
        "ip link set net1 up arp off",
        "ip addr add 10.99.0.1/24 dev net0",
        "ip link set net0 up arp off",
    ):
        subprocess.run([*inside, *command.split()], check=True)
    before = UsageReader().read(pid)
    assert before is not None
    sending = (
        "import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM);"
        "[s.sendto(bytes(1000), (to, 9)) for to in ('10.99.0.2', '127.0.0.1') for _ in range(50)]"
    )
    subprocess.run([*inside, sys.executable, "-c", sending], check=True)
    after = UsageReader().read(pid)
    assert after is not None
    assert 50_000 <= (after.sent_bytes or 0) - (before.sent_bytes or 0) < 60_000
