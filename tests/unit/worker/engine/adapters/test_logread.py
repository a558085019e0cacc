"""Reading what real tasks write: times, order, tails, and files that change under the reader."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from skep.domain.base import TaskId
from skep.domain.control import LogLine, LogStream
from skep.domain.spec import LogPolicy
from skep.env import Rejected
from skep.worker.engine.adapters import logkeeper
from skep.worker.engine.core import timeline
from skep.worker.engine.core.lines import PIECE_BYTES
from skep.worker.engine.protocol import LogChunk, LogQuery, LogReader
from tests.unit.worker.engine.adapters.workbench import NODE, Bench, assignment, on_bench

pytestmark = pytest.mark.process

T1 = TaskId("t1")
NUMBERS = "i=0; while [ $i -lt 30 ]; do echo $i; i=$((i+1)); done"


async def read_all(bench: Bench, **query: object) -> list[LogLine]:
    reader = await bench.engine.logs(T1, LogQuery(**query))  # type: ignore[arg-type]
    lines: list[LogLine] = []
    while not (chunk := await reader.read()).is_end:
        lines += chunk.lines
    reader.close()
    return lines


def texts(lines: list[LogLine]) -> list[str]:
    return [line.text.decode() for line in lines]


async def follow(reader: LogReader, into: list[LogLine], until: Callable[[], bool]) -> LogChunk:
    """Read until it holds, or until the end."""
    while True:
        chunk = await reader.read()
        into += chunk.lines
        if until() or chunk.is_end:
            return chunk
        if not chunk.lines:
            await reader.more()


async def ended(bench: Bench, *command: str, **more: object) -> None:
    await bench.run("t1", *command, **more)
    await bench.engine.wait(T1)


def test_lines_of_both_streams_in_order_with_their_times(tmp_path: Path) -> None:
    async def body(bench: Bench) -> None:
        before = time.time_ns()
        script = "echo a; sleep 0.25; echo b >>/dev/stderr; sleep 0.25; echo c; printf d"
        await ended(bench, "sh", "-c", script)
        lines = await read_all(bench)
        assert texts(lines) == ["a", "b", "c", "d"]
        out, err = LogStream.STDOUT, LogStream.STDERR
        assert [line.stream for line in lines] == [out, err, out, out]
        times = [line.time_ns for line in lines]
        assert times == sorted(times)
        assert before - 10**8 <= times[0]
        # A quarter of a second is told apart, whatever the machine is busy with.
        assert times[1] - times[0] >= 150_000_000
        assert times[2] - times[1] >= 150_000_000
        assert texts(await read_all(bench, since_ns=times[1])) == ["b", "c", "d"]
        assert texts(await read_all(bench, since_ns=times[2] + 1)) == []
        for tail in range(6):
            assert (
                texts(await read_all(bench, tail=tail)) == ["a", "b", "c", "d"][4 - min(tail, 4) :]
            )

    on_bench(tmp_path, body)


def test_following_a_task_from_before_its_start_to_its_end(tmp_path: Path) -> None:
    async def body(bench: Bench) -> None:
        await bench.engine.prepare(assignment("t1", "sh", "-c", NUMBERS), NODE)
        reader = await bench.engine.logs(T1, LogQuery(is_follow=True))
        assert await reader.read() == LogChunk(position=reader.position)
        await bench.engine.start(T1)
        lines: list[LogLine] = []
        await follow(reader, lines, lambda: False)
        assert texts(lines) == [str(number) for number in range(30)]
        reader.close()

    on_bench(tmp_path, body)


def test_a_follower_ends_when_the_task_is_removed_before_it_was_started(tmp_path: Path) -> None:
    async def body(bench: Bench) -> None:
        await bench.engine.prepare(assignment("t1", "true"), NODE)
        reader = await bench.engine.logs(T1, LogQuery(is_follow=True))
        following = asyncio.ensure_future(follow(reader, [], lambda: False))
        await asyncio.sleep(0)
        await bench.engine.remove(T1)
        assert (await following).is_end
        with pytest.raises(Rejected):
            await bench.engine.logs(T1, LogQuery())

    on_bench(tmp_path, body)


def test_a_reader_goes_on_where_another_one_stood(tmp_path: Path) -> None:
    async def body(bench: Bench) -> None:
        await bench.run("t1", "sh", "-c", f"{NUMBERS}; printf half; read x </dev/zero")
        first = await bench.engine.logs(T1, LogQuery(is_follow=True, tail=2))
        lines: list[LogLine] = []
        await follow(first, lines, lambda: texts(lines)[-1:] == ["29"])
        first.close()
        await bench.engine.stop(T1)
        rest = await read_all(bench, position=first.position, tail=0)
        assert texts(rest) == ["half"]
        # A place that is not in this stream is none: lines are rather read twice than lost.
        assert len(await read_all(bench, position="99999.0")) == 31

    on_bench(tmp_path, body)


def test_what_was_written_without_an_engine_is_dated_by_its_file(tmp_path: Path) -> None:
    async def body(bench: Bench) -> None:
        script = (
            "echo a; while [ ! -e go ]; do sleep 0.01; done; echo b; echo c; echo d >>/dev/stderr"
        )
        await bench.run("t1", "sh", "-c", script, working_dir=str(tmp_path))
        stamps = texts_when(await one_line(bench))
        await bench.engine.close()
        (tmp_path / "go").touch()
        stdout = tmp_path / "t1" / "stdout"
        while not (tmp_path / "t1" / "exit").exists():  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        (tmp_path / "go").unlink()
        await bench.restart()
        lines = await read_all(bench)
        assert texts(lines) == ["a", "b", "c", "d"]
        assert lines[0].time_ns == stamps["a"]
        changed = stdout.stat().st_mtime_ns
        assert lines[1].time_ns == lines[2].time_ns == changed > stamps["a"]

    on_bench(tmp_path, body)


async def one_line(bench: Bench) -> list[LogLine]:
    reader = await bench.engine.logs(T1, LogQuery(is_follow=True))
    lines: list[LogLine] = []
    await follow(reader, lines, lambda: bool(lines))
    reader.close()
    return lines


def texts_when(lines: list[LogLine]) -> dict[str, int]:
    return {line.text.decode(): line.time_ns for line in lines}


@pytest.mark.parametrize("spoil", ["missing", "torn", "foreign", "folder"])
def test_times_that_are_spoilt_are_coarse_and_no_error(tmp_path: Path, spoil: str) -> None:
    async def body(bench: Bench) -> None:
        await ended(bench, "sh", "-c", "echo a; sleep 0.2; echo b")
        await bench.restart()
        times = tmp_path / "t1" / "stdout.times"
        whole = times.read_bytes()
        times.unlink()
        match spoil:
            case "torn":
                times.write_bytes(whole[: 2 * timeline.RECORD_BYTES - 3])
            case "foreign":
                times.write_bytes(b"no such format" * 10)
            case "folder":
                times.mkdir()
        lines = await read_all(bench)
        assert texts(lines) == ["a", "b"]
        assert {line.time_ns for line in lines} == {(tmp_path / "t1" / "stdout").stat().st_mtime_ns}
        if spoil == "folder":
            times.rmdir()

    on_bench(tmp_path, body)


def test_a_task_that_truncates_its_own_output(tmp_path: Path) -> None:
    async def body(bench: Bench) -> None:
        script = "for i in 8 9 10 11; do echo e$i >/dev/stderr; echo o$i; sleep 0.4; done"
        await bench.run("t1", "bash", "-c", script)
        reader = await bench.engine.logs(T1, LogQuery(is_follow=True))
        lines: list[LogLine] = []
        chunk = await follow(reader, lines, lambda: False)
        assert chunk.lost_bytes == 0
        assert [text for text in texts(lines) if text[0] == "o"] == ["o8", "o9", "o10", "o11"]
        assert [text for text in texts(lines) if text[0] == "e"] == ["e8", "e9", "e10", "e11"]
        assert texts(await read_all(bench))[-2:] in (["e11", "o11"], ["o11", "e11"])

    on_bench(tmp_path, body)


def test_a_very_long_line_comes_in_pieces(tmp_path: Path) -> None:
    async def body(bench: Bench) -> None:
        length = 3 * PIECE_BYTES + 100
        await ended(bench, "python3", "-c", f"print('x' * {length}); print('end')")
        lines = await read_all(bench)
        assert [len(line.text) for line in lines] == [PIECE_BYTES] * 3 + [100, 3]
        assert texts(await read_all(bench, tail=1)) == ["end"]

    on_bench(tmp_path, body)


def test_a_reader_that_is_too_slow_for_rotation_is_told_what_it_missed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logkeeper, "LOOK_PERIOD_S", 0.001)
    policy = LogPolicy(max_bytes=64 * 1024, max_files=2)

    async def body(bench: Bench) -> None:
        script = (
            "import time,sys\nfor i in range(100000):\n print('%06d' % i)\n"
            " if i % 1000 == 0: sys.stdout.flush(); time.sleep(0.003)"
        )
        await bench.run("t1", "python3", "-c", script, log=policy)
        reader = await bench.engine.logs(T1, LogQuery(is_follow=True))
        lines: list[LogLine] = []
        await follow(reader, lines, lambda: bool(lines))
        await bench.engine.wait(T1)
        chunk = await reader.read()
        # All are lines as they were written, and all that is missing is counted.
        assert chunk.lost_bytes > 0
        gap = chunk.lost_bytes // 7
        lines += chunk.lines
        await follow(reader, lines, lambda: False)
        assert texts(lines)[-1] == "099999"
        assert len(lines) + gap in (100_000, 100_001)

    on_bench(tmp_path, body)


def test_no_file_outside_the_folder_is_read_or_written(tmp_path: Path) -> None:
    secret = tmp_path / "secret"

    async def body(bench: Bench) -> None:
        await bench.run("t1", "sleep", "1000")
        folder = bench.root / "t1"
        kept = secret.read_bytes()
        for name in ("stdout", "stderr", "stdout.1", "stdout.times", "stderr.times"):
            (folder / name).unlink(missing_ok=True)
            (folder / name).symlink_to(secret)
        (folder / "stderr").unlink()
        os.mkfifo(folder / "stderr")
        assert await read_all(bench) == []
        await bench.engine.stop(T1)
        assert await read_all(bench) == []
        assert "secret" not in (await bench.engine.wait(T1)).reason
        assert secret.read_bytes() == kept

    secret.write_bytes(b"secret words\n" * 20_000)
    root = tmp_path / "tasks"
    root.mkdir()
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, root, ignore_errors=True)
        on_bench(root, body)


def test_marks_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timeline, "TIMELINE_LIMIT_BYTES", 40 * timeline.RECORD_BYTES)
    live = tmp_path / "stdout"
    live.touch()
    files = logkeeper.StreamFiles(live, LogPolicy())
    for number in range(300):
        with live.open("ab") as file:
            file.write(b"x\n")
        os.utime(live, ns=(number + 1, number + 1))
        files.look()
        size = (tmp_path / "stdout.times").stat().st_size
        assert size <= 41 * timeline.RECORD_BYTES
    line = files.load()
    assert [line.time_of(end, 0) for end in (598, 600)] == [299, 300]
    assert 2 <= line.time_of(2, 0) <= 300
