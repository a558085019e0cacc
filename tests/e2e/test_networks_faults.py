"""What goes on when processes and nodes of a cluster don't, in both data planes."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from skep.domain.objects import NodeState
from tests.support import netpeer
from tests.support.local_cluster import eventually
from tests.support.netcluster import TARGET, Agent, Net, ingress

pytestmark = pytest.mark.process

PER_S = 100.0
# Connections in each phase of a fault, per load.
PHASE = 50
PHASE_S = 60.0
# A node is judged lost after three heartbeats of 2 s; this is for what follows.
LOST_S = 6.0 + 2.0
HEALED_S = 5.0
READY_S = 60.0


class Traffic:
    """A service that is asked all the time, from outside and by another task, and connections that
    have been open since before."""

    def __init__(self, net: Net, *, asked: tuple[str, ...], node: str = "w1") -> None:
        self.net = net
        self.port, front = net.port(), net.network()
        self.echo = net.peers("echo", on=[front], replicas=3, publish=[ingress(self.port)])
        self.agent: Agent = net.agent(front, node=node)
        self.agent.host = net.addresses[node]
        self.places = [(net.addresses[name], self.port) for name in asked]
        self.vip = self.agent.names(self.echo)[0]
        # The order to begin comes in over a published port as well.
        self.agent.do("hold", host=self.vip, port=TARGET, key="held")
        self.agent.do("load", host=self.vip, port=TARGET, per_s=PER_S)
        self.outside = netpeer.Load(self.places, PER_S)
        self.held = [netpeer.dial(*place)[0] for place in self.places]
        for connection in self.held:
            connection.sendall(b"echo\n")

    def goes_on(self) -> None:
        """Some more connections, from both sides; and the open ones, and names."""
        more(lambda: int(self.outside.report()["total"]))
        more(lambda: int(self.agent.do("report")["total"]))
        for connection in self.held:
            assert netpeer.said(connection, "still") == "still"
        assert self.agent.do("say", key="held", text="still") == "still"
        assert self.agent.names(self.echo) == [self.vip]

    def stop(self) -> dict[str, Any]:
        """End it; what both loads saw."""
        outside, inside = self.outside.stop(), self.agent.do("stop")
        for connection in self.held:
            connection.close()
        return {
            "total": outside["total"] + inside["total"],
            "failures": outside["failures"] + inside["failures"],
        }


def more(count: Callable[[], int]) -> None:
    """Wait for some more connections."""
    least = count() + PHASE
    eventually(lambda: count() >= least, PHASE_S, "connections go on")


@contextlib.contextmanager
def no_failure(
    net: Net, what: str, asked: tuple[str, ...] = ("w1", "w2", "w3"), node: str = "w1"
) -> Iterator[Callable[[], None]]:
    """Traffic that must not suffer; yields what waits for more of it."""
    traffic = Traffic(net, asked=asked, node=node)
    try:
        traffic.goes_on()
        yield traffic.goes_on
        traffic.goes_on()
    finally:
        seen = traffic.stop()
    print(f"{net.plane}, {what}: {seen['total']} connections, {len(seen['failures'])} failed")
    assert seen["failures"] == []


def is_well(net: Net, within_s: float = READY_S) -> None:
    """Every node has what the managers want, and has it in force."""
    began = time.monotonic()
    troubles: list[str] = []

    def is_clean() -> bool:
        with contextlib.suppress(Exception):
            troubles[:] = net.troubles()
            return not troubles
        return False

    try:
        eventually(is_clean, within_s, "the doctor has nothing to say")
    except AssertionError:
        raise AssertionError(f"not well within {within_s} s: {troubles}") from None
    print(f"{net.plane}: well after {time.monotonic() - began:.1f} s")


def are_ready(net: Net) -> None:
    """All workers are heard again."""

    def ready() -> bool:
        return all(
            node.state is NodeState.READY for node in net.sdk.nodes.list() if node.name[0] == "w"
        )

    eventually(ready, READY_S, "all workers are ready")


# ------------------------------------------------------------------------------ processes


def test_all_goes_on_without_managers_and_agents(net: Net) -> None:
    agents = [f"{node}.agent" for node in net.workers]
    with no_failure(net, "without managers and agents") as goes_on:
        net.cluster.skep("local", "kill", "m1", "m2", "m3", *agents)
        goes_on()
        net.cluster.skep("local", "start", "m1", "m2", "m3", *agents)
        are_ready(net)
        net.settle()
    is_well(net)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGSTOP])
def test_all_goes_on_without_netproxies(net: Net, how: signal.Signals) -> None:
    if not net.is_kernel:
        pytest.skip("what is under way through a relay ends with it")
    names = [f"{node}.netproxy" for node in net.workers]
    rows = net.cluster.processes()
    pids = [int(row["pid"]) for row in rows if row["name"] in names]
    assert len(pids) == len(names)
    with no_failure(net, f"netproxies and {how.name}") as goes_on:
        for pid in pids:
            os.kill(pid, how)
        goes_on()
        if how is signal.SIGSTOP:
            for pid in pids:
                os.kill(pid, signal.SIGCONT)
        else:
            eventually(
                lambda: (
                    not any(row["pid"] for row in net.cluster.processes() if row["name"] in names)
                ),
                READY_S,
                "they are gone",
            )
            net.cluster.skep("local", "start", *names)
        net.settle(READY_S)
    is_well(net)


def test_a_netproxy_finds_what_has_changed_meanwhile(net: Net) -> None:
    port, front = net.port(), net.network()
    echo = net.peers("echo", on=[front], replicas=3, publish=[ingress(port)])
    agent = net.agent(front, node="w2")
    net.cluster.kill("w2.netproxy")
    service = net.sdk.services.scale(echo, 2)
    eventually(lambda: len(net.pids(echo)) == 2, READY_S, "two are wanted")
    net.cluster.start("w2.netproxy")
    net.settle(READY_S)
    net.sdk.wait_converged({service.id: service.revision}, timeout_s=READY_S)
    net.settle()
    left = set(net.pids(echo))
    agent.host = net.addresses["w2"]
    assert set(agent.greeted(echo, 6)) == left
    assert {netpeer.greet(net.addresses["w2"], port)[0] for _ in range(6)} == left
    assert len(agent.names(f"tasks.{echo}")) == 2
    is_well(net)


# ---------------------------------------------------------------------------------- nodes


def test_a_node_without_managers_goes_on_and_catches_up(net: Net) -> None:
    if not net.is_kernel:
        pytest.skip("nodes of a relay cluster are all on one loopback")
    port = net.port()
    with contextlib.ExitStack() as parted:
        with no_failure(net, "a node apart", asked=("w2",), node="w2") as goes_on:
            net.part("w2", "m1", "m2", "m3")
            parted.callback(net.heal, "w2")
            goes_on()
            eventually(lambda: net.sdk.nodes.get("w2").state is NodeState.DOWN, READY_S, "lost")
        # The others do without it.
        late = net.peers_without("w2", "late", publish=[ingress(port)])
        assert netpeer.greet(net.addresses["w1"], port)[0] == f"{late}.1"
    is_well(net, HEALED_S)
    assert netpeer.greet(net.addresses["w2"], port)[0] == f"{late}.1"
    are_ready(net)


def test_a_dead_node_s_tasks_are_asked_no_more(net: Net) -> None:
    port, front = net.port(), net.network()
    echo = net.peers("echo", on=[front], replicas=6, publish=[ingress(port)])
    agents = net.agents([front], nodes=("w1", "w3"))
    for agent, node in zip(agents, ("w1", "w3"), strict=True):
        agent.host = net.addresses[node]
    on_w2 = [task.name for task in net.sdk.tasks.list(service=echo, node="w2")]
    gone = {address for name in on_w2 for address in agents[0].names(name)}
    assert gone
    with contextlib.ExitStack() as dead:
        dead.callback(revive, net, "w2")
        net.lose("w2")
        died = time.monotonic()
        for agent in agents:
            eventually(lambda a=agent: not gone & {*a.names(f"tasks.{echo}")}, LOST_S, "no names")  # type: ignore[misc]
        print(f"{net.plane}: a dead node has no names after {time.monotonic() - died:.1f} s")
        eventually(lambda: time.monotonic() > died + LOST_S, LOST_S)
        places = [(net.addresses[node], port) for node in ("w1", "w3")]
        load = netpeer.Load(places, PER_S)
        eventually(lambda: load.report()["total"] >= PHASE, PHASE_S, "connections")
        assert load.stop()["failures"] == []
        names = {f"{echo}.{n}" for n in range(1, 7)}
        for agent in agents:
            eventually(lambda a=agent: {*a.greeted(echo, 12)} == names, READY_S, "all elsewhere")  # type: ignore[misc]
    net.settle(READY_S)
    is_well(net)
    assert netpeer.greet(net.addresses["w2"], port)[0] in names


def revive(net: Net, node: str) -> None:
    """The node has power again."""
    if net.is_kernel:
        net.plug(node, is_in=True)
    net.cluster.start(node)
    are_ready(net)
