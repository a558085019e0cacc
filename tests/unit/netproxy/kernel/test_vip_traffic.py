"""What is counted of the connections to VIPs."""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Callable, Iterator

import pytest

from skep.env import Retryable
from skep.netproxy.kernel.adapters import cgroup
from skep.netproxy.kernel.adapters.vip_traffic import VipTraffic
from skep.netproxy.kernel.adapters.vips import Vips, supported
from skep.netproxy.kernel.core import programs
from skep.netproxy.kernel.core.traffic import ATTACH_TYPE, Traffic
from tests.unit.netproxy.kernel.lab import DEADLINE_S, ELSEWHERE, PORT, SERVERS, Network

pytestmark = [
    pytest.mark.process,
    pytest.mark.skipif(supported() is not None, reason=f"no VIPs by BPF: {supported()}"),
]

VIP, OTHER = "10.0.1.2", "10.0.1.3"
INET6 = 10


@pytest.fixture
def vips() -> Iterator[Vips]:
    vips = Vips(f"skt-{secrets.token_hex(4)}")
    try:
        vips.open()
        yield vips
    finally:
        vips.clean()


@pytest.fixture
def network(vips: Vips) -> Iterator[Network]:
    network = Network(vips.cgroup_path)
    services = {(7, VIP): SERVERS, (7, OTHER): SERVERS[:1]}
    vips.apply(services, {network.cookie: ((7, "10.0.1.0/24"),)})
    yield network
    network.close()


@pytest.fixture
def traffic(vips: Vips) -> Iterator[VipTraffic]:
    traffic = VipTraffic(vips.cgroup_path)
    traffic.open()
    yield traffic
    traffic.close()


def closed(traffic: VipTraffic, count: int) -> dict[tuple[int, str], Traffic]:
    """What is counted once so many connections have ended."""
    return eventually(traffic.read, lambda seen: sum(one.closed for one in seen.values()) >= count)


def eventually(
    read: Callable[[], dict[tuple[int, str], Traffic]],
    is_enough: Callable[[dict[tuple[int, str], Traffic]], bool],
) -> dict[tuple[int, str], Traffic]:
    deadline = time.monotonic() + DEADLINE_S
    while not is_enough(seen := read()):
        assert time.monotonic() < deadline, seen
    return seen


def test_connections_bytes_and_round_trips_by_vip(network: Network, traffic: VipTraffic) -> None:
    network.client.do("connect", VIP, PORT, 6)
    network.client.do("connect", f"::ffff:{VIP}", PORT, 3, INET6)
    network.client.do("connect", OTHER, PORT, 1)
    network.client.do("connect", ELSEWHERE, PORT, 5)
    network.client.do("connect", SERVERS[0], PORT, 5)
    seen = closed(traffic, 10)
    assert seen.keys() == {(7, VIP), (7, OTHER)}
    one = seen[7, VIP]
    assert (one.established, one.closed) == (9, 9)
    # Each answer is the server's address; the client sends nothing but a SYN, and a FIN in time.
    # The server's FIN counts where it came before the client's socket was gone.
    answer = len(SERVERS[0])
    assert 9 * answer <= one.received_bytes <= 9 * (answer + 1)
    assert 9 <= one.sent_bytes <= 18
    assert 0 < one.round_trip_us < 9 * 1_000_000
    assert seen[7, OTHER].established == 1


def test_bytes_of_a_connection_that_outlives_its_service(
    vips: Vips, network: Network, traffic: VipTraffic
) -> None:
    task = network.start(vips.cgroup_path)
    task.do("keep", OTHER, PORT)
    vips.drop_service(7, OTHER)
    for _ in range(10):
        task.do("talk")
    assert traffic.read()[7, OTHER].closed == 0
    task.close()
    one = closed(traffic, 1)[7, OTHER]
    assert one.received_bytes >= len(SERVERS[0]) + 20
    assert one.sent_bytes >= 10


def test_a_later_process_goes_on_counting(
    vips: Vips, network: Network, traffic: VipTraffic
) -> None:
    network.client.do("connect", VIP, PORT, 3)
    traffic.close()
    network.client.do("connect", VIP, PORT, 3)
    later = VipTraffic(vips.cgroup_path)
    with contextlib.closing(later):
        later.open()
        assert later.read()[7, VIP].established == 6
        with cgroup.opened(vips.cgroup_path) as folder:
            assert len(cgroup.ours(folder, (ATTACH_TYPE,))) == 1


def test_one_of_vip_programs_that_are_gone_is_replaced(
    vips: Vips, network: Network, traffic: VipTraffic, monkeypatch: pytest.MonkeyPatch
) -> None:
    network.client.do("connect", VIP, PORT, 3)
    monkeypatch.setattr(programs, "program_format", lambda: "0000000")
    newer = Vips(vips.cgroup_path.name)
    newer.open()
    newer.apply({(7, VIP): SERVERS}, {network.cookie: ((7, "10.0.1.0/24"),)})
    later = VipTraffic(vips.cgroup_path)
    with contextlib.closing(newer), contextlib.closing(later):
        later.open()
        network.client.do("connect", VIP, PORT, 2)
        assert later.read()[7, VIP].established == 2
        with cgroup.opened(vips.cgroup_path) as folder:
            assert len(cgroup.ours(folder, (ATTACH_TYPE,))) == 1


def test_stop_and_clean_leave_nothing(vips: Vips, traffic: VipTraffic) -> None:
    def count() -> int:
        with cgroup.opened(vips.cgroup_path) as folder:
            return len(cgroup.ours(folder, (ATTACH_TYPE,)))

    traffic.stop()
    traffic.stop()
    assert count() == 0
    traffic.open()
    assert count() == 1
    vips.clean()
    cgroup.make(vips.cgroup_path)
    assert count() == 0
    with pytest.raises(Retryable, match="open Vips first"):
        VipTraffic(vips.cgroup_path).open()
    traffic.stop()
