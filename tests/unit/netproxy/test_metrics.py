"""What Prometheus gets to read of both planes."""

from __future__ import annotations

from typing import cast

from prometheus_client import CollectorRegistry, generate_latest

from skep.netproxy.actor import Progress
from skep.netproxy.adapters import metrics
from skep.netproxy.adapters.relay import Relay
from skep.netproxy.core.tally import PortTally, Tally, TrafficTally, VipTally
from skep.netproxy.relay.core.protocol import Count, Report
from skep.netproxy.relay.core.totals import Totals
from skep.supervisor import Supervisor


class _Relay:
    listener_count = 2
    restarts = 0

    def __init__(self, *counts: Count) -> None:
        self.totals = Totals()
        self.totals.reported(0, Report(connections=0, buffered_bytes=0, counts=counts))


class _Supervisor:
    mailboxes = ()
    restarts: dict[str, int] = {}  # noqa: RUF012 - nobody changes it


def shown(relay: _Relay, tally: Tally | None = None) -> dict[str, float]:
    """Samples by name and labels, as text."""
    sources = metrics.Sources(
        Progress(), cast(Relay, relay), cast(Supervisor, _Supervisor()), lambda: tally or Tally()
    )
    registry = CollectorRegistry()
    registry.register(metrics.collector(sources))
    lines = generate_latest(registry).decode().splitlines()
    pairs = [line.rsplit(" ", 1) for line in lines if line and not line.startswith("#")]
    assert len({name for name, _ in pairs}) == len(pairs), "a sample is there twice"
    return {name.removeprefix("skep_netproxy_"): float(value) for name, value in pairs}


RELAYED = Count(
    service_name="web",
    way="ingress",
    connections=3,
    active=1,
    from_client=10,
    from_task=20,
    ejections=0,
    connect_s=0.1,
    latencies=(0,) * 15,
    errors={"refused": 2},
)


def test_the_relay_alone() -> None:
    seen = shown(_Relay(RELAYED))
    assert seen['connections_total{service="web",way="ingress"}'] == 3
    assert seen['connections_active{service="web",way="ingress"}'] == 1
    assert seen['bytes_total{service="web",side="task",way="ingress"}'] == 20
    assert seen['errors_total{kind="refused",service="web",way="ingress"}'] == 2


def test_what_kernel_and_relay_take_at_one_port_is_one_sum() -> None:
    ports = (
        PortTally("web", "80/tcp", 5, 50, 5000),
        PortTally("web", "81/udp", 7, 70, 7000),
        PortTally("api", "90/tcp", 1, 10, 1000),
    )
    seen = shown(_Relay(RELAYED), Tally(ports=ports, strays=4))
    assert seen['connections_total{service="web",way="ingress"}'] == 3 + 5 + 7
    assert seen['connections_total{service="api",way="ingress"}'] == 1
    assert seen['port_packets_total{port="80/tcp",service="web"}'] == 50
    assert seen['port_bytes_total{port="81/udp",service="web"}'] == 7000
    assert seen["strays_total"] == 4


def test_virtual_addresses() -> None:
    tally = Tally(vips={"web": VipTally(9, 2, 6)}, traffic={"web": TrafficTally(8, 0.5, 100, 200)})
    seen = shown(_Relay(), tally)
    assert seen['connections_total{service="web",way="vip"}'] == 9
    assert seen['errors_total{kind="no_endpoints",service="web",way="vip"}'] == 2
    assert seen['vip_flows_total{service="web"}'] == 6
    assert seen['bytes_total{service="web",side="client",way="vip"}'] == 100
    assert seen['bytes_total{service="web",side="task",way="vip"}'] == 200
    assert seen['vip_round_trip_seconds_count{service="web"}'] == 8
    assert seen['vip_round_trip_seconds_sum{service="web"}'] == 0.5
