"""When changes of endpoints travel to netproxies: at once after a quiet moment, else together."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

import pytest

from skep.api import codec
from skep.domain.base import ClusterId, NodeId, Struct, replace
from skep.domain.control import WatchAction
from skep.domain.endpoints import (
    ENDPOINT_FORMAT,
    EndpointUpdate,
    NetproxyHello,
    NetproxyMessage,
)
from skep.domain.spec import Port
from skep.env import Env
from skep.manager.endpoints.actor import COALESCE_S, EndpointServer
from skep.manager.store.actor import Store
from skep.manager.store.core.command import Change
from skep.manager.store.core.tables import Tables
from tests.support.simulated import in_simulation
from tests.unit.manager.build import service
from tests.unit.manager.streams import FakeStream

CLUSTER = ClusterId("c1")


class Rows:
    """Stands for the store: its tables, and who follows its commits."""

    def __init__(self) -> None:
        self.tables, self.version = Tables(), 1
        self._row = service()
        self.tables.put(self._row)
        self._follower: Callable[[list[Change]], None] = lambda _: None

    def subscribe(self, follower: Callable[[list[Change]], None]) -> None:
        self._follower = follower

    def commit(self) -> None:
        """A change of the service's word."""
        old, self.version = self._row, self.version + 1
        self._row = replace(old, ports=(Port(target=80, published=8000 + self.version),))
        self.tables.put(self._row)
        self._follower([Change(self.version, WatchAction.UPDATE, self._row, old)])


def heard(stream: FakeStream) -> list[int]:
    """The versions that a netproxy was told of; signs of life don't count."""
    updates = stream.heard(EndpointUpdate)
    return [each.version for each in updates if each.services or each.is_complete]


def follow(env: Env, server: EndpointServer, node: str) -> FakeStream:
    stream = FakeStream()
    hello = NetproxyHello(
        format=ENDPOINT_FORMAT, cluster_id=CLUSTER, node_id=NodeId(node), applied_version=0
    )
    stream.say(NetproxyMessage(hello=hello))
    env.spawn(node, server.serve(stream))
    return stream


def test_the_first_change_travels_at_once_and_those_after_it_together() -> None:
    async def run(env: Env) -> None:
        rows = Rows()
        server = EndpointServer(env, cast("Store", rows), CLUSTER)
        server.start()
        stream = follow(env, server, "w1")
        await asyncio.sleep(1.0)
        assert heard(stream) == [1]
        rows.commit()
        await asyncio.sleep(COALESCE_S / 10)
        assert heard(stream) == [1, 2]
        for _ in range(5):
            rows.commit()
            await asyncio.sleep(COALESCE_S / 10)
        assert heard(stream) == [1, 2]
        await asyncio.sleep(COALESCE_S)
        assert heard(stream) == [1, 2, 7]

    in_simulation(run)


def test_a_step_is_encoded_once_for_all_who_are_as_far(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run(env: Env) -> None:
        rows = Rows()
        server = EndpointServer(env, cast("Store", rows), CLUSTER)
        server.start()
        streams = [follow(env, server, node) for node in ("w1", "w2", "w3")]
        await asyncio.sleep(1.0)
        encoded: list[Struct] = []
        encode = codec.encode

        def noting(of: Struct) -> bytes:
            encoded.append(of)
            return encode(of)

        with monkeypatch.context() as patch:
            patch.setattr(codec, "encode", noting)
            rows.commit()
            await asyncio.sleep(COALESCE_S / 10)
        assert [heard(stream) for stream in streams] == [[1, 2]] * 3
        assert len(encoded) == 1

    in_simulation(run)
