"""The link layer on the real kernel: what restarts, failures and removals leave."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from skep.env import Rejected, Retryable
from skep.netproxy.kernel.adapters import netns
from skep.netproxy.kernel.adapters.links import Wanted, clean
from skep.netproxy.kernel.core.links import Bridge, Peer, TaskLink, Vxlan, diff
from skep.netproxy.kernel.core.names import GATEWAY_BRIDGE
from skep.netproxy.kernel.core.wanted import wanted_overlays
from tests.support.local_cluster import eventually
from tests.support.netns import Lab, lab, needs_namespaces
from tests.unit.netproxy.kernel.support import (
    DEADLINE_S,
    NO_ANSWER_S,
    Node,
    connect,
    dial,
    do,
    exchange,
    interfaces,
    link,
    network,
    ping,
    running,
    serve,
)

pytestmark = needs_namespaces()

A, B = network("net-a", 4097), network("net-b", 4098)


@pytest.fixture
def machine() -> Iterator[Lab]:
    with lab(3) as made:
        yield made


@pytest.fixture
def nodes(machine: Lab, tmp_path: Path) -> Iterator[list[Node]]:
    with running(machine, tmp_path) as made:
        yield made


@pytest.fixture
def one(tmp_path: Path) -> Iterator[Node]:
    """A node alone, for what is its own business."""
    with lab(1) as machine, running(machine, tmp_path) as made:
        yield made[0]


def mounts_below(folder: Path) -> list[str]:
    return [
        line for line in Path("/proc/self/mounts").read_text().splitlines() if str(folder) in line
    ]


def test_a_restart_changes_nothing_and_interrupts_nothing(nodes: list[Node]) -> None:
    one, two, _ = nodes
    net = network("net-a", 4097, internal=False)
    connect(nodes, [net], {"net-a 10.0.1.11": "n1", "net-a 10.0.1.12": "n2"})
    first = one.attach("t1", link("net-a", "10.0.1.11"))
    second = two.attach("t2", link("net-a", "10.0.1.12"))
    cookies = [one.tasks["t1"]]
    do(one.links.ensure_ingress("net-a", "10.0.1.250", 24))
    before = one.sandbox()
    server = serve(second, "10.0.1.12")
    with server, dial(first, "10.0.1.12") as client, server.accept()[0] as accepted:
        exchange(client, accepted, b"before")
        one.restart()
        observed = do(one.links.observe())
        underlay = one.links._parts[0].underlay
        found = observed.found.overlays
        wanted, _ = wanted_overlays(one.networks, one.peers, underlay, found)
        assert diff(wanted, found) == []
        assert list(do(one.links.attached())) == cookies
        everything = Wanted(one.networks, one.peers, {"t1": [link("net-a", "10.0.1.11")]})
        assert do(one.links.differences(everything)) == ()
        assert one.apply() == ()
        do(one.links.ensure_ingress("net-a", "10.0.1.250", 24))
        assert do(one.links.attach("t1", [link("net-a", "10.0.1.11")])) == cookies[0]
        assert one.sandbox() == before
        exchange(client, accepted, b"after")


def test_what_is_broken_is_named_and_repaired(nodes: list[Node], machine: Lab) -> None:
    one, two, _ = nodes
    connect(nodes, [A], {"net-a 10.0.1.11": "n1", "net-a 10.0.1.12": "n2"})
    first = one.attach("t1", link("net-a", "10.0.1.11"))
    two.attach("t2", link("net-a", "10.0.1.12"))
    bridge = next(name for name in one.sandbox() if name.startswith("skb-"))
    machine.command(one.place.sandbox, "ip", "link", "delete", bridge)
    tasks = {"t1": [link("net-a", "10.0.1.11")], "t9": [link("net-a", "10.0.1.19")]}
    texts = do(one.links.differences(Wanted(one.networks, one.peers, tasks)))
    assert "network net-a: it has no bridge" in texts
    assert "task t9: it has no network namespace" in texts
    assert one.apply() == ()
    assert ping(first, "10.0.1.12") is not None


def test_detached_tasks_leave_nothing(one: Node, tmp_path: Path) -> None:
    connect([one], [network("net-a", 4097, internal=False), B], {})
    bare = one.sandbox()
    links = (link("net-a", "10.0.1.11"), link("net-b", "10.0.1.11", "eth1"))
    path = one.attach("t1", *links)
    assert interfaces(path) == {"lo", "eth0", "eth1", "gw0"}
    with serve(path, "10.0.1.11"):  # a socket that holds the namespace
        do(one.links.detach("t1"))
        assert one.sandbox() - bare == {GATEWAY_BRIDGE, "skg-host"}
        assert not path.exists()
        assert not [line for line in mounts_below(tmp_path) if "netns" in line]
        do(one.links.detach("t1"))
        # Its addresses and names can be had again at once.
        again = one.attach("t1", *links)
        assert ping(again, "10.0.1.11") is not None


def test_many_tasks_leave_at_once_and_one_comes_back_between(one: Node) -> None:
    connect([one], [A], {})
    bare = one.sandbox()
    for number in range(10):
        one.attach(f"t{number}", link("net-a", f"10.0.1.{10 + number}"))

    async def play() -> None:
        await asyncio.gather(
            one.links.detach("t0"),
            one.links.attach("t0", [link("net-a", "10.0.1.10")]),
            *(one.links.detach(f"t{number}") for number in range(10)),
        )

    do(play())
    assert one.sandbox() == bare
    assert one.place.task_ids() == []


def test_a_network_that_comes_back_has_its_tasks(one: Node) -> None:
    connect([one], [A], {})
    first = one.attach("t1", link("net-a", "10.0.1.11"))
    one.attach("t2", link("net-a", "10.0.1.12"))
    one.networks = []
    assert one.apply() == ()
    assert ping(first, "10.0.1.12", within_s=NO_ANSWER_S) is None
    one.networks = [A]
    assert one.apply() == ()
    assert ping(first, "10.0.1.12") is not None


def test_a_change_of_the_underlay_or_of_a_network_is_followed(one: Node) -> None:
    connect([one], [A], {})
    path = one.attach("t1", link("net-a", "10.0.1.11"))
    assert one.place.namespace is not None
    one.lab.command(one.place.namespace, "ip", "link", "set", "eth0", "mtu", "1400")
    one.networks = [replace(A, gateway="10.0.1.1"), replace(B, gateway="10.0.1.1")]
    assert do(one.links.observe()).overlay_mtu == 1350
    assert one.apply() == ()
    overlay = do(one.links.observe()).found.overlays["net-a"]
    assert overlay.bridge == Bridge(1350, "10.0.1.1/24")
    assert overlay.vxlan == Vxlan(4097, one.address, 4789, 1350)
    assert ping(path, "10.0.1.1") is not None
    one.networks = [replace(A, vni=4099), B]
    assert one.apply() == ()
    overlay = do(one.links.observe()).found.overlays["net-a"]
    assert overlay.bridge == Bridge(1350)
    assert overlay.vxlan == Vxlan(4099, one.address, 4789, 1350)


def test_no_thread_is_left_in_another_namespace(one: Node) -> None:
    connect([one], [A], {})
    one.attach("t1", link("net-a", "10.0.1.11"))
    do(one.links.observe())
    assert one.place.namespace is not None
    allowed = {os.stat(path).st_ino for path in (netns.OWN, one.place.namespace)}

    def inhabited() -> set[int]:
        found = set()
        for thread in Path("/proc/self/task").iterdir():
            with contextlib.suppress(OSError):  # it is just ending
                found.add(os.stat(thread / "ns/net").st_ino)
        return found

    # A thread that has been waited for is still seen for a moment.
    eventually(lambda: inhabited() == allowed, DEADLINE_S)
    assert os.stat("/proc/self/ns/net").st_ino == os.stat(netns.OWN).st_ino


def test_a_namespace_that_lives_on_without_its_file_is_no_hindrance(one: Node) -> None:
    connect([one], [A], {})
    path = one.attach("t1", link("net-a", "10.0.1.11"))
    bare = one.sandbox()
    with serve(path, "10.0.1.11"):
        netns.remove(path)
        assert interfaces(one.attach("t1", link("net-a", "10.0.1.11"))) == {"lo", "eth0"}
        assert one.sandbox() == bare


def test_what_was_made_without_a_tag_is_removed_at_the_next_start(one: Node) -> None:
    connect([one], [A], {})
    before = one.sandbox()
    command = ("ip", "link", "add", "skb-unknown", "type", "bridge")
    one.lab.command(one.place.sandbox, *command)
    one.restart()
    assert one.sandbox() == before


def test_what_is_broken_unseen_is_found_by_the_failure_and_repaired(one: Node) -> None:
    connect([one], [A], {"net-a 10.0.1.12": "n1"})
    for name in one.sandbox() - {"lo"}:
        one.lab.attempt(one.place.sandbox, "ip", "link", "delete", name)
    one.peers = {"net-a": [Peer("10.0.1.12", "10.200.0.2")]}
    (text,) = one.apply()
    assert text.startswith("network net-a: 10.0.1.12 should be reached by 10.200.0.2: ")
    assert one.apply() == ()
    observed = do(one.links.observe()).found.overlays["net-a"]
    assert observed.peers == {"10.0.1.12": "10.200.0.2"}
    assert observed.bridge is not None


@pytest.mark.parametrize("what", ["an empty file", "a bare namespace", "one link of two"])
def test_half_made_tasks_are_completed_or_removed(one: Node, what: str) -> None:
    connect([one], [A, B], {})
    bare = one.sandbox()
    links = (link("net-a", "10.0.1.11"), link("net-b", "10.0.2.11", "eth1"))

    def half_make() -> None:
        path = one.place.task("t1")
        if what == "an empty file":
            path.touch()
        elif what == "a bare namespace":
            netns.make(path, lambda: None)
        else:
            one.attach("t1", links[0])
        one.restart()
        assert one.apply() == ()

    half_make()
    do(one.links.detach("t1"))
    assert one.sandbox() == bare
    assert one.place.task_ids() == []
    half_make()
    path = one.attach("t1", *links)
    assert interfaces(path) == {"lo", "eth0", "eth1"}
    assert ping(path, "10.0.2.11") is not None
    one.attach("t2", link("net-b", "10.0.2.12"))
    assert ping(path, "10.0.2.12") is not None


def test_clean_removes_all_of_a_node_and_nothing_else(
    nodes: list[Node], machine: Lab, tmp_path: Path
) -> None:
    one, two, _ = nodes
    connect(nodes, [network("net-a", 4097, internal=False)], {"net-a 10.0.1.12": "n2"})
    host = one.place.namespace
    assert host is not None
    machine.command(host, "ip", "link", "add", "foreign0", "type", "bridge")
    path = one.attach("t1", link("net-a", "10.0.1.11"))
    two.attach("t2", link("net-a", "10.0.1.12"))
    do(one.links.ensure_ingress("net-a", "10.0.1.250", 24))
    assert {"skep-ing", "skep-gw"} <= one.interfaces()
    theirs = two.sandbox()
    sleeper = machine.start(path, "sleep", "100")
    do(one.links.close())
    # Nothing says any more which namespaces were made, but that a process is in one.
    netns.remove(path)
    do(clean(one.place))
    assert not {"skep-ing", "skep-gw"} & one.interfaces()
    assert "foreign0" in one.interfaces()
    assert interfaces(Path(f"/proc/{sleeper.pid}/ns/net")) == {"lo"}
    assert not one.place.home.exists()
    assert not mounts_below(one.place.home)
    assert two.sandbox() == theirs
    do(clean(one.place))


def test_what_a_manager_gets_wrong_is_said_and_harms_nothing_else(one: Node) -> None:
    connect([one], [A], {})
    path = one.attach("t1", link("net-a", "10.0.1.11"))
    one.networks = [network("net-a", 4097, "nowhere"), B, network("net-c", 1 << 24)]
    one.peers = {"net-b": [Peer("nobody", "10.200.0.2"), Peer("10.0.1.12", "10.200.0.2")]}
    texts = one.apply()
    assert [text.partition(":")[0] for text in texts] == [
        "network net-a",
        "network net-b",
        "network net-c",
    ]
    found = do(one.links.observe()).found
    assert sorted(found.overlays) == ["net-a", "net-b"]
    assert found.overlays["net-b"].peers == {"10.0.1.12": "10.200.0.2"}
    assert found.overlays["net-a"].loose == ()
    assert ping(path, "10.0.1.11") is not None
    with pytest.raises(Retryable, match="net-c is not set up"):
        one.attach("t2", link("net-c", "10.0.1.11"))
    for bad in (TaskLink("net-a", "10.0.1.11", 24, "lo"), TaskLink("net-a", "10.0.1", 24, "eth0")):
        with pytest.raises(Rejected):
            one.attach("t2", bad)
    with pytest.raises(Rejected, match="can't name a task"):
        one.attach("../t2", link("net-a", "10.0.1.11"))


def test_a_failure_of_the_kernel_is_told_and_tried_again(one: Node) -> None:
    host = one.place.namespace
    assert host is not None
    add = ("ip", "link", "add", "theirs", "type", "vxlan", "id", "4097", "local", one.address)
    one.lab.command(host, *add, "dstport", "4789")
    one.networks = [A, B]
    one.peers = {"net-a": [Peer("10.0.1.12", "10.200.0.2")]}
    (text,) = one.apply()
    assert text.startswith("network net-a: it has no VXLAN device for VNI 4097")
    assert "exists" in text
    assert do(one.links.observe()).found.overlays["net-b"].vxlan is not None
    one.lab.command(host, "ip", "link", "delete", "theirs")
    assert one.apply() == ()
    assert do(one.links.observe()).found.overlays["net-a"].peers == {"10.0.1.12": "10.200.0.2"}
