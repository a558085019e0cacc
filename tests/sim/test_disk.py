"""The simulated disk: what survives what."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine

import pytest

from tests.sim.world import SimNode, World, simulate


def on_disk(body: Callable[[SimNode], Coroutine[None, None, None]], seed: int = 1) -> None:
    async def scenario(world: World) -> None:
        node = world.node("n")
        node.boot()
        await body(node)

    simulate("disk", scenario, seed)


def lose_power(node: SimNode) -> None:
    node.crash(is_power_lost=True)
    node.boot()


def test_what_was_synced_stays_and_of_the_rest_a_prefix() -> None:
    kept: set[int] = set()

    async def body(node: SimNode) -> None:
        file = node.env.disk.open("raft/log")
        file.append(b"synced")
        await file.sync()
        for _ in range(3):
            file.append(b"0123456789")
        node.disk.temper.zero_tail = 0.0
        lose_power(node)
        data = node.env.disk.read("raft/log")
        assert data is not None
        assert (b"synced" + b"0123456789" * 3).startswith(data)
        assert data.startswith(b"synced")
        kept.add(len(data) - 6)

    for seed in range(100):
        on_disk(body, seed)
    assert {0, 10, 20} <= kept
    assert any(size % 10 for size in kept), "no write was torn"


def test_a_torn_write_may_end_in_zeros() -> None:
    tails: list[bytes] = []

    async def body(node: SimNode) -> None:
        node.env.disk.open("log").append(b"x" * 100)
        node.disk.temper.zero_tail = 1.0
        lose_power(node)
        tails.append(node.env.disk.read("log") or b"")

    for seed in range(30):
        on_disk(body, seed)
    assert any(b"x\0" in tail for tail in tails)
    assert all(len(tail) <= 100 for tail in tails)


def test_a_killed_process_loses_nothing() -> None:
    async def body(node: SimNode) -> None:
        file = node.env.disk.open("log")
        file.append(b"abc")
        node.crash()
        assert node.boot().disk.read("log") == b"abc"

    on_disk(body)


def test_a_sync_covers_what_was_written_before_it_and_no_more() -> None:
    lost: list[bool] = []

    async def body(node: SimNode) -> None:
        file = node.env.disk.open("log")
        file.append(b"a")
        sync = node.env.spawn("sync", file.sync())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        file.append(b"b")
        await sync
        node.disk.temper.zero_tail = 0.0
        lose_power(node)
        data = node.env.disk.read("log")
        assert data in (b"a", b"ab")
        lost.append(data == b"a")

    for seed in range(30):
        on_disk(body, seed)
    assert any(lost)


def test_truncation_is_durable_after_a_sync() -> None:
    async def body(node: SimNode) -> None:
        file = node.env.disk.open("log")
        file.append(b"0123456789")
        await file.sync()
        file.truncate(4)
        assert (file.size(), node.env.disk.read("log")) == (4, b"0123")
        await file.sync()
        lose_power(node)
        assert node.env.disk.read("log") == b"0123"

    on_disk(body)


def test_replacing_is_all_or_nothing() -> None:
    seen: set[bytes | None] = set()

    async def body(node: SimNode) -> None:
        await node.env.disk.replace("state", b"old")
        node.env.spawn("replace", node.env.disk.replace("state", b"new"))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        lose_power(node)
        seen.add(node.env.disk.read("state"))
        await node.env.disk.replace("state", b"newest")
        lose_power(node)
        assert node.env.disk.read("state") == b"newest"

    for seed in range(30):
        on_disk(body, seed)
    assert seen == {b"old", b"new"}


def test_what_was_begun_is_done_though_nobody_waits_for_it() -> None:
    async def body(node: SimNode) -> None:
        disk = node.env.disk
        task = node.env.spawn("replace", disk.replace("state", b"1"))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        task.cancel()
        await disk.replace("other", b"2")
        assert disk.read("state") == b"1"

    on_disk(body)


def test_what_is_removed_may_come_back_until_its_folder_is_synced() -> None:
    returned: set[bool] = set()

    async def body(node: SimNode) -> None:
        disk = node.env.disk
        for name in ("1", "2"):
            await disk.replace(f"log/{name}", b"x")
        disk.remove("log/1")
        assert disk.list("log") == ("2",)
        lose_power(node)
        returned.add(node.env.disk.list("log") == ("1", "2"))
        node.env.disk.remove("log")
        await node.env.disk.replace("log/3", b"y")
        lose_power(node)
        assert node.env.disk.list("log") == ("3",)

    for seed in range(30):
        on_disk(body, seed)
    assert returned == {True, False}


def test_a_failed_sync_leaves_a_hole_that_only_a_power_cut_shows() -> None:
    async def body(node: SimNode) -> None:
        file = node.env.disk.open("log")
        file.append(b"abc")
        node.disk.temper.sync_error = 1.0
        with pytest.raises(OSError, match="failure to sync"):
            await file.sync()
        node.disk.temper.sync_error = 0.0
        file.append(b"def")
        await file.sync()
        assert node.env.disk.read("log") == b"abcdef"
        lose_power(node)
        assert node.env.disk.read("log") == b"\0\0\0def"

    on_disk(body)


def test_a_full_disk_refuses_and_says_so() -> None:
    async def body(node: SimNode) -> None:
        file = node.env.disk.open("log")
        node.disk.temper.is_full = True
        with pytest.raises(OSError, match="full disk"):
            file.append(b"abc")
        with pytest.raises(OSError, match="full disk"):
            await node.env.disk.replace("state", b"abc")
        assert node.env.disk.read("log") == b""

    on_disk(body)
