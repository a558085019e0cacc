"""What is asked of links and relay: what differs from what they have done, or may be wrong."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import cast

import pytest

from skep.domain.base import NetworkId
from skep.domain.endpoints import NetworkEntry
from skep.netproxy.adapters.relay import Relay
from skep.netproxy.kernel.adapters.links import Links
from skep.netproxy.kernel.adapters.ways import Ways
from skep.netproxy.kernel.core.links import Network, Peer
from skep.netproxy.kernel.core.plan import KernelPlan
from skep.netproxy.kernel.core.tunnel import Tunnel
from skep.netproxy.relay.core.protocol import Listener

INGRESS = NetworkEntry(
    network_id=NetworkId("in"), name="ingress", vni=8, subnet="10.255.0.0/16", is_ingress=True
)
PLAN = KernelPlan(
    version=1,
    networks=(Network("a", 7, "10.0.1.0/24"),),
    peers={"a": (Peer("10.0.1.9", "192.0.2.3"),)},
    ingress=INGRESS,
    ingress_address="10.255.0.2",
)
BOTH = ["links", "end"]


class Asked:
    """Links and a relay that note what they are asked for."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.problems: tuple[str, ...] = ()
        self.missing: tuple[str, ...] = ()
        self.worker_count, self.worker_pids = 2, [1, 2]

    async def apply(self, *_: object) -> tuple[str, ...]:
        self.notes.append("links")
        return self.problems

    async def ensure_ingress(self, *_: object) -> None:
        self.notes.append("end")

    async def ensure_egress(self) -> None:
        self.notes.append("egress")

    async def missing_ends(self, *_: str) -> tuple[str, ...]:
        return self.missing

    async def serve(self, version: int, listeners: tuple[Listener, ...]) -> tuple[str, ...]:
        self.notes.append("relay")
        return self.problems


class Stage:
    """The ways, and what came of the last step."""

    def __init__(self) -> None:
        self.asked = Asked()
        self.ways = Ways(cast("Links", self.asked), cast("Relay", self.asked))

    def connect(self, plan: KernelPlan = PLAN) -> list[str]:
        self.asked.notes.clear()
        asyncio.run(self.ways.connect(plan))
        return list(self.asked.notes)

    def serve(self, plan: KernelPlan = PLAN) -> list[str]:
        self.asked.notes.clear()
        asyncio.run(self.ways.serve(plan))
        return list(self.asked.notes)


@pytest.fixture
def stage() -> Stage:
    made = Stage()
    assert made.connect() == BOTH
    assert made.serve() == ["relay"]
    return made


def test_what_is_done_is_not_asked_for_again(stage: Stage) -> None:
    again = replace(PLAN, version=2)
    assert stage.connect(again) == []
    assert stage.serve(again) == []


def test_what_differs_is(stage: Stage) -> None:
    assert stage.connect(replace(PLAN, peers={"a": ()})) == ["links"]
    assert stage.connect(replace(PLAN, peers={"a": ()}, ingress_address="10.255.0.3")) == ["end"]
    assert stage.serve(replace(PLAN, listeners=(cast("Listener", None),))) == ["relay"]


def test_what_has_failed_is(stage: Stage) -> None:
    stage.asked.problems = ("no",)
    other = replace(PLAN, networks=(), listeners=(cast("Listener", None),))
    for _ in range(2):
        assert stage.connect(other) == ["links"]
        assert stage.serve(other) == ["relay"]
    stage.asked.problems = ()
    assert (stage.connect(other), stage.serve(other)) == (["links"], ["relay"])
    assert (stage.connect(other), stage.serve(other)) == ([], [])


def test_what_others_have_changed_is(stage: Stage) -> None:
    stage.ways.forget()
    assert (stage.connect(), stage.serve()) == (BOTH, ["relay"])
    stage.ways.doubt()
    assert (stage.connect(), stage.serve()) == (["links"], [])
    stage.asked.missing = ("skep-gw",)
    assert asyncio.run(stage.ways.missing_ends(PLAN)) == ("skep-gw",)
    assert stage.connect() == ["egress"]
    assert stage.connect() == []


def test_a_relay_that_lacks_a_worker_is(stage: Stage) -> None:
    stage.asked.worker_pids.pop()
    assert stage.serve() == ["relay"]


def test_a_tunnel_is_looked_at_every_time(stage: Stage) -> None:
    sealed = replace(PLAN, tunnel=Tunnel("10.255.0.2", 16))
    assert stage.connect(sealed) == ["links"]
    assert stage.connect(sealed) == ["links"]
