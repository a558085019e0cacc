"""Virtual addresses by address translation, in real namespaces."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from skep.env import Rejected
from skep.netproxy.kernel.adapters.natrules import supported
from skep.netproxy.kernel.adapters.natvips import NatVips
from skep.netproxy.kernel.adapters.nft import Nft
from skep.netproxy.kernel.core import natvip
from tests.support.netns import needs_namespaces, run_in, why_not
from tests.unit.netproxy.kernel.ingress_lab import (
    DEADLINE_S,
    IngressLab,
    Load,
    answer_of,
    ask,
    datagram_socket,
    eventually,
    exchange,
    ingress_lab,
)

WHY_NOT = why_not() or supported() or ""
pytestmark = [
    needs_namespaces(),
    pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT),
]
# A datagram that is refused where it is sent is not permitted, says the kernel.
UDP_REFUSED = repr(PermissionError(1, "Operation not permitted"))
VIP, EMPTY = "10.255.0.200", "10.255.0.201"


@pytest.fixture(scope="module")
def made() -> Iterator[IngressLab]:
    """Three tasks that answer at port 80, on a network on which nobody has the VIPs."""
    with ingress_lab() as lab:
        for task, node in (("a", "n1"), ("b", "n2"), ("c", "n3")):
            lab.add_task(task, node)
        yield lab


class Tasks:
    """The lab, with the VIPs of its task c."""

    def __init__(self, made: IngressLab) -> None:
        self.lab = made
        self.vips = NatVips("n3")

    @property
    def c(self) -> Path:
        return self.lab.path("c")

    @property
    def me(self) -> str:
        return self.lab.addresses["c"]

    def put(self, *tasks: str) -> None:
        """Have these tasks behind the VIP in c."""
        assert self.vips.apply({str(self.c): self.wanted(*tasks)}) == ()

    def wanted(self, *tasks: str) -> Mapping[str, tuple[str, ...]]:
        return {VIP: tuple(self.lab.addresses[task] for task in tasks), EMPTY: ()}

    def kernel(self) -> str:
        return self.lab.lab.command(self.c, "nft", "--stateless", "--handle", "list", "ruleset")

    def setting(self, namespace: Path, name: str) -> str:
        path = Path("/proc/sys/net/ipv4") / name
        return run_in(namespace, path.read_text).strip()


@pytest.fixture
def tasks(made: IngressLab) -> Iterator[Tasks]:
    tasks = Tasks(made)
    yield tasks
    for task in made.addresses:
        tasks.vips.drop(str(made.path(task)))


def test_a_vip_leads_to_every_task_in_turn_even_to_the_one_that_asks(tasks: Tasks) -> None:
    tasks.put("a", "b", "c")
    expected = {f"{task} {tasks.me}": 4 for task in ("a", "b", "c")}
    assert ask(tasks.c, VIP, 80, 12) == expected


def test_every_port_of_a_vip_is_taken_and_kept(tasks: Tasks) -> None:
    tasks.put("a")
    with run_in(tasks.lab.path("a"), socket.create_server, ("0.0.0.0", 8123)):
        run_in(tasks.c, socket.create_connection, (VIP, 8123)).close()
    assert "ConnectionRefused" in next(iter(ask(tasks.c, VIP, 8124)))
    assert run_in(tasks.c, is_answered, VIP)


def is_answered(address: str) -> bool:
    """Whether it answers to an echo request."""
    # Type, code, checksum, and two numbers of our own.
    request = struct.pack("!BBHHH", 8, 0, 0xFFFF - 0x0800 - 0x5 - 0x1, 0x5, 0x1)
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as raw:
        raw.settimeout(2.0)
        raw.sendto(request, (address, 0))
        answer, peer = raw.recvfrom(100)
        return peer[0] == address and answer[20] == 0


def test_a_vip_without_tasks_refuses_at_once(tasks: Tasks) -> None:
    tasks.put("a")
    started = time.monotonic()
    assert "ConnectionRefused" in next(iter(ask(tasks.c, EMPTY, 80)))
    with datagram_socket(tasks.c, EMPTY, 80) as flow:
        assert exchange(flow) == UDP_REFUSED
    assert time.monotonic() - started < 1.0


def test_no_connection_fails_while_tasks_come_and_go(tasks: Tasks) -> None:
    tasks.put("a", "b")
    with Load(tasks.c, VIP, 80) as load:
        for turn in range(200):
            tasks.put(*(("a",), ("b",), ("a", "b"))[turn % 3])
    assert not load.errors
    assert set(load.seen) == {"a", "b"}


def test_old_connections_outlive_the_removal_of_their_task(tasks: Tasks) -> None:
    tasks.put("a")
    with run_in(tasks.c, socket.create_connection, (VIP, 80)) as old:
        old.settimeout(2.0)
        for others in (("b",), ()):
            tasks.put(*others)
            assert exchange(old) == f"a {tasks.me}"
        tasks.vips.apply({str(tasks.c): {}})
        assert exchange(old) == f"a {tasks.me}"


def test_a_udp_flow_moves_when_its_task_is_removed(tasks: Tasks) -> None:
    tasks.put("a")
    with datagram_socket(tasks.c, VIP, 80) as flow:
        assert exchange(flow) == f"a {tasks.me}"
        tasks.put("a", "b")
        assert exchange(flow) == f"a {tasks.me}"
        tasks.put("b")
        assert exchange(flow) == f"b {tasks.me}"
        tasks.put()
        assert exchange(flow) == UDP_REFUSED
        tasks.put("a")
        # The refusal has been sent as a message as well.
        assert "ConnectionRefused" in exchange(flow)
        assert exchange(flow) == f"a {tasks.me}"


def test_a_restart_changes_nothing_in_the_kernel(tasks: Tasks) -> None:
    tasks.put("a")
    tasks.put("b", "c")
    before = tasks.kernel()
    tasks.vips = NatVips("n3")
    tasks.put("b", "c")
    assert tasks.kernel() == before
    assert tasks.vips.observe(str(tasks.c)) == tasks.wanted("b", "c")


def test_a_udp_flow_is_moved_though_the_restart_was_in_between(tasks: Tasks) -> None:
    tasks.put("a")
    with datagram_socket(tasks.c, VIP, 80) as flow:
        assert exchange(flow) == f"a {tasks.me}"
        change = natvip.change("n3", run_in(tasks.c, tasks.vips._read), tasks.wanted("b"))
        run_in(tasks.c, Nft().run, change.script)
        tasks.vips = NatVips("n3")
        tasks.put("b")
        assert exchange(flow) == f"b {tasks.me}"


def test_what_others_have_destroyed_is_made_again(tasks: Tasks) -> None:
    tasks.put("a")
    for destroy in (
        "flush ruleset",
        f"flush chain ip {natvip.table_of('n3')} output",
        f"flush chain ip {natvip.table_of('n3')} {natvip.chain_of(VIP)}",
    ):
        tasks.lab.lab.command(tasks.c, "nft", destroy)
        tasks.vips.forget()
        tasks.put("a")
        assert ask(tasks.c, VIP, 80) == {f"a {tasks.me}": 1}
    # Also when it is only found out by the failure of a change.
    tasks.lab.lab.command(tasks.c, "nft", "flush ruleset")
    tasks.put("b")
    assert ask(tasks.c, VIP, 80) == {f"b {tasks.me}": 1}


def test_the_clocks_of_a_task_are_the_same_for_all_it_talks_to(tasks: Tasks) -> None:
    tasks.put("a")
    assert tasks.setting(tasks.c, "tcp_timestamps") == "2"


def test_many_namespaces_are_changed_side_by_side(tasks: Tasks) -> None:
    paths = [str(tasks.lab.path(task)) for task in tasks.lab.addresses]
    started = time.monotonic()
    for turn in range(10):
        wanted = tasks.wanted(*("a", "b")[: 1 + turn % 2])
        assert tasks.vips.apply(dict.fromkeys(paths, wanted)) == ()
        assert [tasks.vips.observe(path) for path in paths] == [wanted] * len(paths)
    print(f"10 changes of {len(paths)} namespaces: {time.monotonic() - started:.3f} s")


def test_one_namespace_that_is_gone_is_one_problem_and_stops_nothing_else(tasks: Tasks) -> None:
    wanted = tasks.wanted("a")
    (problem,) = tasks.vips.apply({"/run/netns/skt-none": wanted, str(tasks.c): wanted})
    assert "/run/netns/skt-none" in problem
    assert tasks.vips.observe(str(tasks.c)) == wanted
    tasks.vips.drop("/run/netns/skt-none")


def test_clean_leaves_nothing_and_can_be_repeated(tasks: Tasks) -> None:
    before = tasks.kernel()
    tasks.put("a")
    assert tasks.kernel() != before
    assert tasks.vips.clean() == ()
    assert tasks.kernel() == before
    assert NatVips("n3").clean([str(tasks.c)]) == ()
    assert tasks.kernel() == before


def test_bad_input_is_refused_before_anything_is_done(tasks: Tasks) -> None:
    before = tasks.kernel()
    for vips, says in (
        ({"vip": ()}, "vip"),
        ({VIP: ("fd00::1",)}, "fd00::1"),
        ({VIP: (EMPTY,), EMPTY: ()}, "virtual address itself"),
    ):
        with pytest.raises(Rejected, match=says):
            tasks.vips.apply({str(tasks.c): vips})
    assert tasks.kernel() == before


def retried_attempt(tasks: Tasks) -> str:
    """How a connection ends that leaves while its VIP's rule is missing."""
    nft, chain = Nft(), f"{natvip.table_of('n3')} {natvip.chain_of(VIP)}"
    run_in(tasks.c, nft.run, f"flush chain ip {chain}")
    answers: list[str] = []

    def attempt() -> None:
        answers.append(answer_of(VIP, 80, DEADLINE_S))

    def has_left() -> bool:
        # Unguarded, it is at the neighbour that nobody is.
        neighbours = tasks.lab.lab.command(tasks.c, "ip", "neigh", "show", VIP)
        return tasks.vips.strays(str(tasks.c)) > 0 or bool(neighbours)

    thread = threading.Thread(target=run_in, args=(tasks.c, attempt))
    thread.start()
    eventually(has_left)
    rule = "dnat to numgen inc mod 1 offset 0 map @backends"
    run_in(tasks.c, nft.run, f"add rule ip {chain} {rule}")
    thread.join()
    return answers[0]


def test_a_connection_that_nobody_translates_is_dropped_and_gets_through_when_it_is_retried(
    tasks: Tasks,
) -> None:
    tasks.put("a")
    assert retried_attempt(tasks) == f"a {tasks.me}"
    assert tasks.vips.strays(str(tasks.c)) == 1


def test_without_the_guard_such_a_connection_fails(tasks: Tasks) -> None:
    tasks.put("a")
    run_in(tasks.c, Nft().run, f"flush chain ip {natvip.table_of('n3')} leaving")
    assert "Error" in retried_attempt(tasks)
