"""Rotation under a writer that never stops."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from skep.domain.base import TaskId
from skep.domain.spec import LogPolicy
from skep.worker.engine.adapters import logs
from skep.worker.engine.protocol import LogQuery
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
    """What the files of stdout hold, oldest first."""
    live = folder / "stdout"
    older = [logs.older(live, n) for n in range(policy.max_files - 1, 0, -1)]
    held = b"".join(path.read_bytes() for path in older if path.exists())
    with logs.opened(live) as fd:
        head = logs.first_byte(fd)
    return held + live.read_bytes()[head:]


async def read(bench: Bench, task_id: TaskId, tail: int | None = None) -> bytes:
    reader = await bench.engine.logs(task_id, LogQuery(tail=tail))
    found = b""
    while not (chunk := await reader.read()).is_end:
        found += b"".join(line.text + b"\n" for line in chunk.lines)
    reader.close()
    return found


def is_over(live: Path, policy: LogPolicy) -> bool:
    status = logs.look(live)
    return status is not None and logs.is_over_limit(status, policy)


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
    monkeypatch.setattr("skep.worker.engine.adapters.logkeeper.LOOK_PERIOD_S", 0.001)
    refuse(monkeypatch, *refused)

    async def body(bench: Bench) -> None:
        task_id = await bench.run("t1", sys.executable, "-c", WRITER, log=POLICY)
        assert (await bench.engine.wait(task_id)).exit_code == 0
        assert len(list((tmp_path / "t1").glob("stdout.*"))) >= 3
        assert await read(bench, task_id) == whole()
        assert await read(bench, task_id, tail=10_000) == whole()[-100_000:]

    on_bench(tmp_path, body)


@pytest.mark.process
@pytest.mark.parametrize("max_files", [1, 3])
def test_the_whole_is_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, max_files: int
) -> None:
    monkeypatch.setattr("skep.worker.engine.adapters.logkeeper.LOOK_PERIOD_S", 0.001)
    policy = LogPolicy(max_bytes=128 * 1024, max_files=max_files)

    async def body(bench: Bench) -> None:
        line = WRITER + "import time\nprint('last', flush=True)\ntime.sleep(1000)\n"
        task_id = await bench.run("t1", sys.executable, "-c", line, log=policy)
        live = tmp_path / "t1" / "stdout"
        await eventually(lambda: everything(tmp_path / "t1", policy).endswith(b"last\n"))
        await eventually(lambda: not is_over(live, policy))
        files = [live, *(logs.older(live, n) for n in range(1, max_files))]
        assert [path.exists() for path in files] == [True] * max_files
        assert len(list((tmp_path / "t1").glob("stdout*"))) == max_files + 1
        assert sum(path.stat().st_size for path in files) <= 128 * 1024 * max_files
        tail = await read(bench, task_id)
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
        if is_over(live, policy):
            logs.rotate(live, policy)
    os.close(fd)
    assert everything(tmp_path, policy) == written
    assert len(list(tmp_path.iterdir())) > 3


def test_a_file_far_beyond_its_limit_is_cut_into_pieces(tmp_path: Path) -> None:
    policy = LogPolicy(max_bytes=64 * 1024, max_files=3)
    written = bytes(range(256)) * 4096
    (tmp_path / "stdout").write_bytes(written)
    logs.rotate(tmp_path / "stdout", policy)
    sizes = {path.name: path.stat().st_size for path in tmp_path.iterdir()}
    assert sizes == {"stdout": 4096, "stdout.1": 64 * 1024, "stdout.2": 64 * 1024}
    assert written.endswith(everything(tmp_path, policy))
