"""The production seams: the disk, ids, the clock."""

from __future__ import annotations

import asyncio
import os
import random
from pathlib import Path

import pytest

from skep import env as env_module
from skep.env import (
    ID_ALPHABET,
    ID_LENGTH,
    DiceIds,
    Env,
    LoopClock,
    LoopSpawn,
    RealDisk,
    Rejected,
)
from tests.support.simulated import in_simulation


def test_two_processes_never_share_a_folder(tmp_path: Path) -> None:
    first = RealDisk(tmp_path / "node")
    with pytest.raises(Rejected, match="in use by another process"):
        RealDisk(tmp_path / "node")
    first.close()
    RealDisk(tmp_path / "node").close()


def test_files_are_appended_truncated_and_read_back(tmp_path: Path) -> None:
    disk = RealDisk(tmp_path)
    file = disk.open("raft/log/1")
    file.append(b"0123456789")
    assert file.size() == 10
    file.truncate(4)
    file.append(b"ab")
    asyncio.run(file.sync())
    assert disk.read("raft/log/1") == b"0123ab"
    file.close()
    file.close()
    again = disk.open("raft/log/1")
    again.append(b"!")
    again.close()
    assert disk.read("raft/log/1") == b"0123ab!"
    assert disk.read("raft/log/2") is None
    disk.close()


def test_a_closed_file_writes_into_no_other(tmp_path: Path) -> None:
    disk = RealDisk(tmp_path)
    closed = disk.open("a")
    closed.close()
    other = disk.open("b")
    with pytest.raises(OSError, match="Bad file descriptor"):
        closed.append(b"stray")
    with pytest.raises(OSError, match="Bad file descriptor"):
        asyncio.run(closed.sync())
    assert other.size() == 0
    other.close()
    disk.close()


def test_files_and_folders_are_private(tmp_path: Path) -> None:
    disk = RealDisk(tmp_path / "node")
    disk.open("x/y/file").close()
    asyncio.run(disk.replace("z/file", b""))
    modes = {
        str(path.relative_to(tmp_path)): path.stat().st_mode & 0o777 for path in tmp_path.rglob("*")
    }
    assert all(mode & 0o077 == 0 for mode in modes.values()), modes
    disk.close()


def test_replacing_shows_the_old_or_the_new_and_syncs_before_it_renames(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = RealDisk(tmp_path)
    asyncio.run(disk.replace("a/state", b"old"))
    deeds: list[str] = []
    fsync, rename = os.fsync, os.rename

    def noted_fsync(fd: int) -> None:
        deeds.append(f"sync {Path(os.readlink(f'/proc/self/fd/{fd}')).name}")
        fsync(fd)

    def noted_rename(old: Path, new: Path) -> None:
        assert disk.read("a/state") == b"old"
        assert disk.list("a") == ("state",)
        deeds.append("rename")
        rename(old, new)

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(os, "rename", noted_rename)
    asyncio.run(disk.replace("a/state", b"new"))
    assert disk.read("a/state") == b"new"
    assert deeds == ["sync .state.new", "rename", "sync a"]
    disk.close()


def test_a_new_file_is_durable_in_all_the_folders_above_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = RealDisk(tmp_path)
    synced: list[Path] = []
    monkeypatch.setattr(env_module, "_sync_folder", synced.append)
    disk.open("a/b/file").close()
    assert synced == [tmp_path, tmp_path / "a", tmp_path / "a" / "b"]
    synced.clear()
    disk.open("a/b/file").close()
    assert synced == []
    disk.close()


def test_what_a_crash_leaves_of_a_replacement_is_not_listed(tmp_path: Path) -> None:
    disk = RealDisk(tmp_path)
    (tmp_path / ".state.new").write_bytes(b"half")
    asyncio.run(disk.replace("other", b""))
    assert disk.list("") == ("other",)
    disk.close()


def test_removing_takes_files_and_whole_folders_but_follows_no_link(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").touch()
    disk = RealDisk(tmp_path / "node")
    for path in ("a/1", "a/b/2", "c"):
        disk.open(path).close()
    (tmp_path / "node" / "a" / "link").symlink_to(outside)
    disk.remove("a")
    disk.remove("a")
    disk.remove("missing/file")
    assert disk.list("") == ("c",)
    assert disk.list("a") == ()
    assert (outside / "kept").exists()
    disk.close()


def test_ids_are_long_lower_case_and_new_each_time() -> None:
    ids = DiceIds(random.Random(1))
    made = {ids.new_id() for _ in range(1000)}
    assert len(made) == 1000
    assert all(len(each) == ID_LENGTH and set(each) <= set(ID_ALPHABET) for each in made)
    numbers = {ids.new_raft_id() for _ in range(1000)}
    assert len(numbers) == 1000
    assert all(0 < number < 2**63 for number in numbers)


def test_the_clock_waits_and_keeps_deadlines() -> None:
    async def body(env: Env) -> None:
        clock = LoopClock()
        fired: list[float] = []
        begin = clock.now()
        clock.call_at(begin + 2.0, lambda: fired.append(clock.now() - begin))
        clock.call_at(begin + 2.5, lambda: fired.append(99.0)).cancel()
        await clock.sleep(3.0)
        assert fired == [2.0]
        assert await clock.within(1.0, asyncio.sleep(0.5, "done")) == "done"
        with pytest.raises(TimeoutError):
            await clock.within(1.0, asyncio.sleep(5.0))
        assert clock.now() - begin == 4.5
        # The world's own clock has another origin, and is the same otherwise.
        assert env.now() != clock.now()

    in_simulation(body, (1,))


def test_spawned_tasks_are_held_by_name_until_they_end() -> None:
    async def body(env: Env) -> None:
        spawn = LoopSpawn()
        task = spawn.spawn("named", asyncio.sleep(1.0, "done"))
        assert task.get_name() == "named"
        assert await task == "done"

    in_simulation(body, (1,))


def test_components_have_dice_of_their_own() -> None:
    async def body(env: Env) -> None:
        a, b = env.fork_dice("a"), env.fork_dice("b")
        assert [a.random() for _ in range(3)] != [b.random() for _ in range(3)]

    in_simulation(body, (1,))
