"""The notes of the netproxy that a worker tells its managers, over real sockets."""

from __future__ import annotations

import asyncio
import uuid
from pathlib import Path

import pytest

from skep.domain.base import Pairs
from skep.env import Env, RealDisk, Service, real_env
from skep.netproxy.adapters.facts import answering
from skep.rpc import GrpcTransport
from skep.worker.adapters import nodenotes
from skep.worker.adapters.nodenotes import follow_notes, network_notes

DEADLINE_S = 30.0
NOTES = (("network.encryption", "none: not here"), ("network.plane", "in user space"))


def _env(folder: Path) -> Env:
    return real_env("w1", GrpcTransport(), RealDisk(folder / "disk"))


def _address() -> str:
    return f"unix:/tmp/skt-{uuid.uuid4().hex[:8]}.sock"


def test_what_netproxy_says_is_told(tmp_path: Path) -> None:
    async def go() -> None:
        address = _address()
        listener = await GrpcTransport().listen(address, answering(Service(), NOTES))
        try:
            assert await network_notes(_env(tmp_path), address) == NOTES
        finally:
            await listener.close()

    asyncio.run(go())


def test_a_netproxy_that_starts_a_moment_later_is_waited_for(tmp_path: Path) -> None:
    async def go() -> None:
        address = _address()
        asked = asyncio.create_task(network_notes(_env(tmp_path), address))
        await asyncio.sleep(0)
        assert not asked.done()
        listener = await GrpcTransport().listen(address, answering(Service(), NOTES))
        try:
            assert await asked == NOTES
        finally:
            await listener.close()

    asyncio.run(go())


def test_without_one_the_notes_say_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nodenotes, "PATIENCE_S", 0.15)
    [(name, text)] = asyncio.run(network_notes(_env(tmp_path), _address()))
    assert (name, "did not answer" in text) == ("network.plane", True)


def test_an_older_one_is_not_waited_for(tmp_path: Path) -> None:
    async def go() -> None:
        address = _address()
        listener = await GrpcTransport().listen(address, Service())
        try:
            assert await network_notes(_env(tmp_path), address) == ()
        finally:
            await listener.close()

    asyncio.run(asyncio.wait_for(go(), nodenotes.PATIENCE_S))
    assert asyncio.run(network_notes(_env(tmp_path / "2"), "")) == ()


def test_news_are_told_once_and_silence_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nodenotes, "PERIOD_S", 0.01)

    async def go() -> None:
        address, env = _address(), _env(tmp_path)
        news: asyncio.Queue[Pairs] = asyncio.Queue()
        following = asyncio.create_task(follow_notes(env, address, (), news.put_nowait))
        try:
            for notes in (NOTES, (("network.encryption", "wireguard"),)):
                asked: asyncio.Queue[None] = asyncio.Queue()
                calls = _noting(answering(Service(), notes), asked)
                listener = await GrpcTransport().listen(address, calls)
                async with asyncio.timeout(DEADLINE_S):
                    assert await news.get() == notes
                    for _ in range(3):
                        await asked.get()
                await listener.close()
                # By the third question, what came of the second has been heard.
                assert news.empty()
        finally:
            following.cancel()

    asyncio.run(go())


def _noting(calls: Service, asked: asyncio.Queue[None]) -> Service:
    """The same calls, and a note of each."""
    ((name, answer),) = calls.calls.items()

    async def noted(data: bytes) -> bytes:
        asked.put_nowait(None)
        return await answer(data)

    return Service({name: noted})


def test_who_has_no_netproxy_asks_nobody(tmp_path: Path) -> None:
    asyncio.run(follow_notes(_env(tmp_path), "", (), lambda _: None))
