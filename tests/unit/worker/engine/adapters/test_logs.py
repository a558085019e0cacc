"""Rotation under a writer that never stops."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from skep.domain.spec import LogPolicy
from skep.worker.engine.adapters import logs
from tests.unit.worker.engine.adapters.workbench import Bench, eventually, on_bench

COUNT = 400_000
# Numbered lines, as fast as a process can write them: one missing or doubled byte is seen.
WRITER = f"""\
import os
for start in range(0, {COUNT}, 100):
    os.write(1, b"".join(b"%09d\\n" % n for n in range(start, start + 100)))
"""
POLICY = LogPolicy(max_bytes=256 * 1024, max_files=1000)


def everything(folder: Path, policy: LogPolicy) -> bytes:
    return logs._tail(folder / "stdout", policy, 1 << 40)


def whole() -> bytes:
    return b"".join(b"%09d\n" % n for n in range(COUNT))


def refuse(monkeypatch: pytest.MonkeyPatch, *modes: int) -> None:
    """Take modes of fallocate away, as other file systems do."""
    real = logs._fallocate
    monkeypatch.setattr(
        logs,
        "_fallocate",
        lambda fd, mode, length: not any(m & mode for m in modes) and real(fd, mode, length),
    )


@pytest.mark.process
@pytest.mark.parametrize("refused", [(), (logs.FALLOC_FL_COLLAPSE_RANGE,)])
def test_rotation_loses_no_byte_of_a_fast_writer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: tuple[int, ...]
) -> None:
    monkeypatch.setattr("skep.worker.engine.adapters.process.LOG_CHECK_PERIOD_S", 0.001)
    refuse(monkeypatch, *refused)

    async def body(bench: Bench) -> None:
        task_id = await bench.run("t1", sys.executable, "-c", WRITER, log=POLICY)
        assert (await bench.engine.wait(task_id)).exit_code == 0
        assert len(list((tmp_path / "t1").glob("stdout.*"))) >= 3
        assert await bench.engine.logs(task_id, 1 << 30) == whole()
        assert await bench.engine.logs(task_id, 100_000) == whole()[-100_000:]

    on_bench(tmp_path, body)


@pytest.mark.process
@pytest.mark.parametrize("max_files", [1, 3])
def test_the_whole_is_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, max_files: int
) -> None:
    monkeypatch.setattr("skep.worker.engine.adapters.process.LOG_CHECK_PERIOD_S", 0.001)
    policy = LogPolicy(max_bytes=128 * 1024, max_files=max_files)

    async def body(bench: Bench) -> None:
        line = WRITER + "import time\nprint('last', flush=True)\ntime.sleep(1000)\n"
        task_id = await bench.run("t1", sys.executable, "-c", line, log=policy)
        live = tmp_path / "t1" / "stdout"
        await eventually(lambda: b"last" in logs._tail(live, policy, 10))
        await eventually(lambda: logs.over_limit(tmp_path / "t1", policy) == [])
        files = [live, *(logs.older(live, n) for n in range(1, max_files))]
        assert [path.exists() for path in files] == [True] * max_files
        assert len(list((tmp_path / "t1").glob("stdout*"))) == max_files
        assert sum(path.stat().st_size for path in files) <= 128 * 1024 * max_files
        tail = await bench.engine.logs(task_id, 1 << 30)
        assert (whole() + b"last\n").endswith(tail)
        assert len(tail) >= 60 * 1024

    on_bench(tmp_path, body)


def test_a_file_system_that_can_only_truncate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse(monkeypatch, logs.FALLOC_FL_COLLAPSE_RANGE, logs.FALLOC_FL_PUNCH_HOLE)
    policy = LogPolicy(max_bytes=64 * 1024, max_files=100)
    live = tmp_path / "stdout"
    written = b""
    fd = os.open(live, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for number in range(40):
        part = b"%07d\n" % number * 1000
        os.write(fd, part)
        written += part
        if "stdout" in logs.over_limit(tmp_path, policy):
            logs.rotate(tmp_path, "stdout", policy)
    os.close(fd)
    assert everything(tmp_path, policy) == written
    assert len(list(tmp_path.iterdir())) > 3


def test_a_file_far_beyond_its_limit_is_cut_into_pieces(tmp_path: Path) -> None:
    policy = LogPolicy(max_bytes=64 * 1024, max_files=3)
    written = bytes(range(256)) * 4096
    (tmp_path / "stdout").write_bytes(written)
    logs.rotate(tmp_path, "stdout", policy)
    sizes = {path.name: path.stat().st_size for path in tmp_path.iterdir()}
    assert sizes == {"stdout": 4096, "stdout.1": 64 * 1024, "stdout.2": 64 * 1024}
    assert written.endswith(everything(tmp_path, policy))


def test_the_newest_of_both_streams(tmp_path: Path) -> None:
    policy = LogPolicy()
    (tmp_path / "stdout").write_bytes(b"o" * 100)
    (tmp_path / "stderr").write_bytes(b"e" * 10)
    os.utime(tmp_path / "stdout", (1, 1))
    os.utime(tmp_path / "stderr", (2, 2))
    assert logs.newest(tmp_path, policy, 1000) == b"o" * 100 + b"e" * 10
    assert logs.newest(tmp_path, policy, 40) == b"o" * 30 + b"e" * 10
    assert logs.newest(tmp_path, policy, 10) == b"o" * 5 + b"e" * 5
    os.utime(tmp_path / "stdout", (3, 3))
    assert logs.newest(tmp_path, policy, 40) == b"e" * 10 + b"o" * 30
    assert logs.newest(tmp_path, policy, 0) == b""
