"""Control groups of both versions: version 2 on a tree of plain files, what is there for real."""

from __future__ import annotations

from pathlib import Path

import pytest

from skep.domain.base import TaskId
from skep.domain.spec import Resources
from skep.worker.engine.adapters import cgroup
from skep.worker.engine.adapters.cgroup import Cgroups, detect
from skep.worker.engine.protocol import HeldState
from tests.unit.worker.engine.adapters.workbench import GROUP, Bench, eventually, on_bench

T1 = TaskId("t1")
ALL = Resources(memory_bytes=64 << 20, cpu_nano=500_000_000, pids=20)
needs_cgroups = pytest.mark.skipif(detect("test") is None, reason="no control groups here")
HOG = "/usr/bin/python3 -c 'a = bytearray(200 << 20); print(len(a), flush=True)'"


def tree(tmp_path: Path, *lines: str) -> Path:
    mountinfo = tmp_path / "mountinfo"
    mountinfo.write_text("".join(f"1 2 0:3 / {line}\n" for line in lines))
    return mountinfo


def test_version_one_is_used_in_a_mixed_tree(tmp_path: Path) -> None:
    for name in ("memory", "cpu,cpuacct", "pids", "unified"):
        (tmp_path / name).mkdir()
    found = detect(
        "n1",
        tree(
            tmp_path,
            f"{tmp_path}/memory rw - cgroup cgroup rw,memory",
            f"{tmp_path}/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct",
            f"{tmp_path}/pids rw shared:9 - cgroup cgroup rw,pids",
            f"{tmp_path}/unified rw - cgroup2 cgroup2 rw",
        ),
    )
    assert found is not None
    assert found.note == (
        f"cgroup v1: {tmp_path}/memory/skep/n1, {tmp_path}/cpu,cpuacct/skep/n1, "
        f"{tmp_path}/pids/skep/n1"
    )


def make_version_two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """Plain files in the shape of a version 2 tree: the kernel makes these with each folder."""
    top = tmp_path / "cgroup"
    files = ("cgroup.procs", "cgroup.subtree_control", "memory.max", "memory.swap.max", "cpu.max")

    def fill(folder: Path) -> None:
        for file in (*files, "pids.max", "cgroup.kill"):
            (folder / file).touch()

    def make(folder: Path) -> None:
        for part in (folder.parent.parent, folder.parent, folder):
            part.mkdir(exist_ok=True)
            fill(part)

    top.mkdir()
    fill(top)
    monkeypatch.setattr(cgroup, "_make_folder", make)
    return top, tree(tmp_path, f"{top} rw - cgroup2 cgroup2 rw")


def test_version_two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    top, mountinfo = make_version_two(tmp_path, monkeypatch)
    found = detect("n1", mountinfo)
    assert found is not None
    assert found.note == f"cgroup v2: {top}/skep/n1"
    assert found.paths(T1) == (f"{top}/skep/n1/t1",)
    found.create(T1, ALL)
    task = top / "skep/n1/t1"
    for folder in (top, top / "skep", top / "skep/n1"):
        assert (folder / "cgroup.subtree_control").read_text() == "+memory +cpu +pids"
    assert (task / "memory.max").read_text() == str(64 << 20)
    assert (task / "memory.swap.max").read_text() == str(64 << 20)
    assert (task / "cpu.max").read_text() == "50000 100000"
    assert (task / "pids.max").read_text() == "20"
    assert not found.was_out_of_memory(T1)
    (task / "memory.events").write_text("low 0\noom 2\noom_kill 1\n")
    assert found.was_out_of_memory(T1)
    cgroup.kill_all([str(task)])
    assert (task / "cgroup.kill").read_text() == "1"


def test_version_two_that_can_not_be_had(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    top, mountinfo = make_version_two(tmp_path, monkeypatch)
    (top / "cgroup.subtree_control").unlink()
    assert detect("n1", mountinfo) is None
    assert detect("n1", tree(tmp_path, "/ rw - ext4 /dev/vda rw")) is None


@pytest.mark.process
@needs_cgroups
def test_too_much_memory(tmp_path: Path) -> None:
    async def body(bench: Bench) -> None:
        assert dict(bench.engine.notes)["process.limits"].startswith("cgroup v")
        await bench.run("t1", "sh", "-c", f"exec {HOG}", limits=ALL)
        exit_ = await bench.engine.wait(T1)
        assert exit_.exit_code == 137
        assert exit_.reason == "killed for using more memory than its limit of 67108864 bytes (OOM)"
        # The reason is still known once the group is gone.
        await bench.restart()
        [held] = await bench.engine.held()
        assert (held.state, held.exit) == (HeldState.ENDED, exit_)

    on_bench(tmp_path, body)


@pytest.mark.process
@needs_cgroups
def test_limits_and_those_who_flee(tmp_path: Path) -> None:
    async def body(bench: Bench) -> None:
        # A daemon in a session of its own, which only a control group still holds.
        line = "setsid setsid sleep 1000 & echo up; wait; sleep 1000"
        marked = (("BENCH", str(tmp_path)),)
        await bench.run("t1", "sh", "-c", line, limits=ALL, env=marked)
        groups = detect(GROUP)
        assert groups is not None
        paths = [Path(path) for path in groups.paths(T1)]
        assert all(path.is_dir() for path in paths)
        await eventually(lambda: len(bench.alive()) >= 3)
        cpu = groups.bases["cpu"] / T1
        if groups.version == 1:
            assert (cpu / "cpu.cfs_quota_us").read_text() == "50000\n"
        assert (groups.bases["pids"] / T1 / "pids.max").read_text() == "20\n"
        await bench.engine.stop(T1)
        await bench.engine.wait(T1)
        assert bench.alive() == []
        await bench.engine.remove(T1)
        assert not any(path.exists() or path.parent.exists() for path in paths)

    on_bench(tmp_path, body)


@pytest.mark.process
@needs_cgroups
def test_groups_that_a_crash_left_are_removed(tmp_path: Path) -> None:
    async def body(bench: Bench) -> None:
        groups = detect(GROUP)
        assert groups is not None
        groups.create(TaskId("gone"), ALL)
        await bench.engine.held()
        assert not any(Path(path).exists() for path in groups.paths(TaskId("gone")))

    on_bench(tmp_path, body)


@pytest.mark.process
def test_memory_is_limited_without_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(name: str) -> Cgroups | None:
        return None

    monkeypatch.setattr(cgroup, "detect", nothing)

    async def body(bench: Bench) -> None:
        assert "cpu and pids are not enforced" in dict(bench.engine.notes)["process.limits"]
        await bench.run("t1", "sh", "-c", f"exec {HOG}", limits=ALL)
        assert (await bench.engine.wait(T1)).exit_code == 1
        assert "MemoryError" in bench.output("t1", "stderr")

    on_bench(tmp_path, body)
