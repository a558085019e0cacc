"""Real processes under a real engine."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from pathlib import Path

import pytest
import uvloop

from skep.domain.base import TaskId, replace
from skep.domain.spec import HealthCheck
from skep.env import Rejected
from skep.worker.engine.adapters import proc, shim
from skep.worker.engine.adapters.process import ProcessEngine
from skep.worker.engine.protocol import HeldState
from tests.unit.worker.engine.adapters.workbench import (
    DEADLINE_S,
    GROUP,
    NODE,
    Bench,
    assignment,
    bench,
    eventually,
    new_env,
    on_bench,
)

pytestmark = pytest.mark.process

T1 = TaskId("t1")
# Ignores SIGTERM, and starts children that do too: one in its group, one in a group of its own.
STUBBORN = """\
trap '' TERM
sleep 1000 &
/usr/bin/python3 -I -S -c 'import os,time; os.setpgid(0,0); print("up", flush=True); time.sleep(1e3)' &
wait
wait
"""  # noqa: E501


@pytest.mark.parametrize(
    ("line", "code", "reason"),
    [
        ("exit 0", 0, ""),
        ("exit 3", 3, "exit code 3"),
        ("kill -KILL $$", 137, "killed by signal 9 (SIGKILL)"),
        ("kill -INT $$", 130, "killed by signal 2 (SIGINT)"),
        ("kill -SEGV $$", 139, "killed by signal 11 (SIGSEGV)"),
    ],
)
def test_exit_codes(tmp_path: Path, line: str, code: int, reason: str) -> None:
    async def body(bench: Bench) -> None:
        await bench.run("t1", "sh", "-c", line)
        exit_ = await bench.engine.wait(T1)
        assert (exit_.exit_code, exit_.reason) == (code, reason)
        assert exit_ == await bench.engine.wait(T1)

    on_bench(tmp_path, body)


def test_environment_output_and_templates(tmp_path: Path) -> None:
    async def body(bench: Bench) -> None:
        odd = (("PWD", "/there"), ("_skep_code", "9"), ("a.b", "x  'y'\n"), ("w", "{{.Task.Slot}}"))
        await bench.run("t1", "env", "-0", env=odd)
        await bench.engine.wait(T1)
        assert dict(e.partition("=")[::2] for e in bench.output("t1").split("\0") if e) == {
            "HOME": os.path.expanduser("~root") if os.geteuid() == 0 else os.environ["HOME"],
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "SKEP_NODE_NAME": "n1",
            "SKEP_SERVICE_NAME": "web",
            "SKEP_TASK_ADDRESS": "127.9.16.1",
            "SKEP_TASK_ID": "t1",
            "SKEP_TASK_SLOT": "3",
            "w": "3",
            **dict(odd[:3]),
        }
        await bench.run("t2", "sh", "-c", "pwd; echo no >&2", working_dir=str(tmp_path))
        await bench.engine.wait(TaskId("t2"))
        assert bench.output("t2") == f"{tmp_path}\n"
        assert bench.output("t2", "stderr") == "no\n"

    on_bench(tmp_path, body)


def test_a_command_stops_by_its_signal(tmp_path: Path) -> None:
    async def body(bench: Bench) -> None:
        for name in ("SIGTERM", "SIGINT", "SIGQUIT", "SIGUSR1"):
            task_id = TaskId(name)
            line = f"trap 'exit 7' {name[3:]}; echo up; while :; do sleep 0.01; done"
            await bench.run(name, "sh", "-c", line, stop_signal=name)
            await eventually(lambda: "up" in bench.output(name))  # noqa: B023
            await bench.engine.stop(task_id)
            assert (await bench.engine.wait(task_id)).exit_code == 7

    on_bench(tmp_path, body)


def test_grace_then_kill_of_all(tmp_path: Path) -> None:
    async def body(bench: Bench) -> None:
        marked = (("BENCH", str(tmp_path)),)
        await bench.run("t1", "sh", "-c", STUBBORN, grace_s=0.2, env=marked)
        await eventually(lambda: "up" in bench.output("t1"))
        await eventually(lambda: len(bench.alive()) == 4)
        # Two stops are one: both return once it is over.
        await asyncio.gather(bench.engine.stop(T1), bench.engine.stop(T1))
        assert bench.alive() == []
        assert (await bench.engine.wait(T1)).exit_code == 137

    on_bench(tmp_path, body)


def test_what_a_command_leaves_behind_goes_with_it(tmp_path: Path) -> None:
    async def body(bench: Bench) -> None:
        marked = (("BENCH", str(tmp_path)),)
        line = STUBBORN.replace(
            "wait\nwait\n", "while ! [ -s /proc/self/fd/1 ]; do :; done\nexit 5"
        )
        await bench.run("t1", "sh", "-c", line, env=marked)
        assert (await bench.engine.wait(T1)).exit_code == 5
        assert bench.alive() == []

    on_bench(tmp_path, body)


def test_a_running_task_is_adopted(tmp_path: Path) -> None:
    async def body(bench: Bench) -> None:
        started = await _running(bench)
        await bench.restart()
        [held] = await bench.engine.held()
        assert (held.state, held.started, held.exit) == (HeldState.RUNNING, started, None)
        assert await bench.engine.start(T1) == started
        waiting = asyncio.ensure_future(bench.engine.wait(T1))
        await bench.engine.stop(T1)
        assert (await waiting).exit_code == 143

    on_bench(tmp_path, body)


def test_a_task_that_ended_while_nobody_looked_is_adopted(tmp_path: Path) -> None:
    async def body(bench: Bench) -> None:
        gate = tmp_path / "gate"
        line = f"sleep 1000 & while ! [ -e {gate} ]; do sleep 0.01; done; exit 7"
        await bench.run("t1", "sh", "-c", line, env=(("BENCH", str(tmp_path)),))
        await bench.engine.close()
        gate.touch()
        await eventually(lambda: not shim.is_locked(tmp_path / "t1"))
        # What it left behind has not waited for an agent either.
        await eventually(lambda: bench.alive() == [])
        gate.unlink()
        await bench.restart()
        [held] = await bench.engine.held()
        assert held.state is HeldState.ENDED
        assert held.exit is not None
        assert (held.exit.exit_code, held.exit.reason) == (7, "exit code 7")

    on_bench(tmp_path, body)


@pytest.mark.parametrize("is_watched", [True, False])
def test_a_killed_shim_takes_its_task_along(tmp_path: Path, *, is_watched: bool) -> None:
    async def body(bench: Bench) -> None:
        await _running(bench, env=(("BENCH", str(tmp_path)),))
        shim_pid = bench.main("t1").shim_pid
        if not is_watched:
            await bench.engine.close()
        os.kill(shim_pid, signal.SIGKILL)
        if not is_watched:
            assert len(bench.alive()) >= 1
            await bench.restart()
        exit_ = await bench.engine.wait(T1)
        assert exit_.exit_code == 137
        assert f"its shim (pid {shim_pid}) was killed" in exit_.reason
        assert bench.alive() == []
        # It is written down, and told the same ever after.
        await bench.restart()
        assert await bench.engine.wait(T1) == exit_

    on_bench(tmp_path, body)


def test_a_shim_that_was_stopped_does_not_hold_up_a_stop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("skep.worker.engine.adapters.process.SETTLE_DEADLINE_S", 0.2)

    async def body(bench: Bench) -> None:
        await _running(bench, grace_s=0.1)
        os.kill(bench.main("t1").shim_pid, signal.SIGSTOP)
        await bench.engine.stop(T1)
        assert (await bench.engine.wait(T1)).exit_code == 137

    on_bench(tmp_path, body)


def test_a_shim_survives_what_a_terminal_sends(tmp_path: Path) -> None:
    async def body(bench: Bench) -> None:
        await _running(bench)
        for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM):
            os.kill(bench.main("t1").shim_pid, number)
        await bench.engine.stop(T1)
        assert (await bench.engine.wait(T1)).reason == "killed by signal 15 (SIGTERM)"

    on_bench(tmp_path, body)


def test_a_restarted_node_says_so(tmp_path: Path) -> None:
    async def body(bench: Bench) -> None:
        await _running(bench)
        main = bench.main("t1")
        await bench.engine.close()
        path = tmp_path / "t1" / "main"
        path.write_text(path.read_text().replace(main.boot_id, "another-boot"))
        await bench.restart()
        exit_ = await bench.engine.wait(T1)
        assert (exit_.exit_code, exit_.reason) == (
            137,
            "the node was restarted while the task was running",
        )
        # Whoever has that pid now is none of ours: nobody was signalled.
        assert proc.signal_main(main, signal.SIGKILL)

    on_bench(tmp_path, body)


def test_a_task_is_started_once_in_its_life(tmp_path: Path) -> None:
    async def body(bench: Bench) -> None:
        line = "echo up; while ! [ -e gate ]; do sleep 0.01; done"
        await bench.engine.prepare(
            assignment("t1", "sh", "-c", line, working_dir=str(tmp_path)), NODE
        )
        other = Bench(tmp_path, bench.engine)
        bench.engine, first = _second_engine(bench), bench.engine
        starts = [engine.start(T1) for engine in (first, bench.engine) for _ in range(5)]
        assert len(set(await asyncio.gather(*starts))) == 1
        (tmp_path / "gate").touch()
        exits = {(await engine.wait(T1)).exit_code for engine in (first, bench.engine)}
        (tmp_path / "gate").unlink()
        assert exits == {0}
        await bench.engine.start(T1)
        await bench.engine.prepare(assignment("t1", "sh", "-c", "echo again"), NODE)
        await bench.engine.start(T1)
        assert other.output("t1") == "up\n"
        await first.close()

    on_bench(tmp_path, body)


def test_an_agent_that_dies_while_a_shim_is_on_its_way(tmp_path: Path) -> None:
    async def body(bench: Bench) -> None:
        # A shell that takes its time, so that everything happens before it runs the script.
        slow = tmp_path / "slow-sh"
        slow.write_text(
            f'#!/bin/sh\nwhile ! [ -e {tmp_path}/gate ]; do sleep 0.01; done\nexec /bin/sh "$@"\n'
        )
        slow.chmod(0o700)
        await bench.engine.prepare(assignment("t1", "sh", "-c", "echo up; exit 4"), NODE)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("skep.worker.engine.adapters.shim.SHELL_PATH", str(slow))
            starting = asyncio.ensure_future(bench.engine.start(T1))
            await eventually(lambda: (tmp_path / "t1" / "lock").exists())
            await asyncio.sleep(0)
            bench.engine, first = _second_engine(bench), bench.engine
            held = asyncio.ensure_future(bench.engine.held())
            again = asyncio.ensure_future(bench.engine.start(T1))
            (tmp_path / "gate").touch()
            await held
            assert await again == await starting
        assert (await bench.engine.wait(T1)).exit_code == 4
        assert bench.output("t1") == "up\n"
        await first.wait(T1)
        await first.close()
        for name in ("gate", "slow-sh"):
            (tmp_path / name).unlink()

    on_bench(tmp_path, body)


def test_the_agent_killed_at_any_moment_of_a_start(tmp_path: Path) -> None:
    """A whole agent is killed somewhere between its decision to start and long after; whatever it
    left, the next one starts the task if, and only if, it never ran."""
    agent = (
        "import asyncio, sys\n"
        "from pathlib import Path\n"
        "from skep.worker.engine.adapters.process import ProcessEngine\n"
        "from tests.unit.worker.engine.adapters.workbench import GROUP, new_env\n"
        "async def main():\n"
        "    engine = ProcessEngine(Path(sys.argv[1]), new_env(), GROUP)\n"
        "    await engine.held()\n"
        "    print('ready', flush=True)\n"
        "    await engine.start('t1')\n"
        "    await asyncio.sleep(60)\n"
        "asyncio.run(main())\n"
    )

    async def body(bench: Bench) -> None:
        for delay_ms in (0, 1, 2, 3, 4, 6, 8, 12):
            await bench.engine.prepare(
                assignment("t1", "sh", "-c", "echo up; exec sleep 1000"), NODE
            )
            await bench.engine.close()
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-c", agent, str(tmp_path)), stdout=asyncio.subprocess.PIPE
            )
            assert process.stdout is not None
            assert await process.stdout.readline() == b"ready\n"
            await asyncio.sleep(delay_ms / 1000)
            process.kill()
            await process.wait()
            await bench.restart()
            [held] = await bench.engine.held()
            assert held.state in (HeldState.PREPARED, HeldState.RUNNING)
            started = await bench.engine.start(T1)
            assert held.started in (None, started)
            await eventually(lambda: bench.output("t1") != "")
            assert bench.output("t1") == "up\n"
            await bench.engine.stop(T1)
            await bench.engine.remove(T1)

    on_bench(tmp_path, body)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"command": ("no-such-program",)}, '"no-such-program" is no program on this node in PATH'),
        ({"command": ("/etc/passwd",)}, '"/etc/passwd" is no program'),
        ({"working_dir": "/no/such/folder"}, 'working folder "/no/such/folder" does not exist'),
        ({"user": "no-such-user"}, 'user "no-such-user" is unknown'),
        ({"user": "0:no-such-group"}, 'group "no-such-group" is unknown'),
        ({"stop_signal": "NOPE"}, 'unknown signal "NOPE"'),
        ({"command": (), "image": "nginx"}, "needs a container engine"),
    ],
)
def test_what_can_not_run_here(tmp_path: Path, changes: dict[str, object], words: str) -> None:
    async def body(bench: Bench) -> None:
        plan = assignment("t1", "true")
        spec = replace(
            plan.spec, task=replace(plan.spec.task, run=replace(plan.spec.task.run, **changes))
        )
        with pytest.raises(Rejected, match=words) as caught:
            await bench.engine.prepare(replace(plan, spec=spec), NODE)
        assert caught.value.field.startswith("spec.task.run.")
        assert list(tmp_path.iterdir()) == []

    on_bench(tmp_path, body)


def test_a_program_that_can_not_be_executed(tmp_path: Path) -> None:
    async def body(bench: Bench) -> None:
        program = tmp_path / "broken"
        program.write_text("#!/no/such/interpreter\n")
        program.chmod(0o700)
        await bench.run("t1", str(program))
        exit_ = await bench.engine.wait(T1)
        program.unlink()
        assert exit_.exit_code == 127
        assert f"failed to execute {program}: No such file" in exit_.reason

    on_bench(tmp_path, body)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can run tasks as others")
def test_a_task_runs_as_its_user(tmp_path: Path) -> None:
    async def body(bench: Bench) -> None:
        for user, words in [
            ("nobody", "65534 65534 65534 /nonexistent"),
            ("nobody:daemon", "65534 1 1 /nonexistent"),
            ("12345", "12345 0 0 /"),
            ("12345:54321", "12345 54321 54321 /"),
            ("0", "0 0 0 /root"),
        ]:
            task_id = TaskId(user.replace(":", "x"))
            line = 'echo $(id -u) $(id -g) $(id -G) "$HOME"; kill -9 $PPID'
            await bench.run(task_id, "sh", "-c", line if user != "0" else line[:-13], user=user)
            exit_ = await bench.engine.wait(task_id)
            assert bench.output(task_id) == words + "\n"
            # It could not kill its shim, which still is root's.
            assert "shim" not in exit_.reason

    on_bench(tmp_path, body)


def test_signals_that_the_agent_ignores_are_not_ignored_by_its_tasks(tmp_path: Path) -> None:
    async def body(bench: Bench) -> None:
        engine = ProcessEngine(bench.root, new_env(), GROUP)
        await engine.prepare(assignment("t1", "grep", "SigIgn", "/proc/self/status"), NODE)
        await engine.start(T1)
        await engine.wait(T1)
        await engine.close()
        ignored = int(bench.output("t1").split()[1], 16)
        # 32 and 33 are the C library's own; it leaves them ignored in what it spawns as it likes.
        assert ignored & ~(0b11 << 31) == 0

    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        on_bench(tmp_path, body)
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can run tasks as others")
def test_a_task_of_another_user_can_open_its_output_anew(tmp_path: Path) -> None:
    async def body(bench: Bench) -> None:
        await bench.run("t1", "sh", "-c", "echo one >>/dev/stdout", user="nobody")
        assert (await bench.engine.wait(T1)).exit_code == 0
        assert bench.output("t1") == "one\n"

    on_bench(tmp_path, body)


def test_a_disk_that_was_full_when_a_shim_began(tmp_path: Path) -> None:
    async def body(bench: Bench) -> None:
        await bench.engine.prepare(assignment("t1", "sh", "-c", "exit 6"), NODE)
        # What is left where the identity could not be written whole: nothing was run.
        (tmp_path / "t1" / "main").write_text("1 77")
        (tmp_path / "t1" / "exit").write_text("1 125 -\n")
        await bench.restart()
        [held] = await bench.engine.held()
        assert held.state is HeldState.PREPARED
        await bench.engine.start(T1)
        assert (await bench.engine.wait(T1)).exit_code == 6

    on_bench(tmp_path, body)


def test_the_same_on_uvloop(tmp_path: Path) -> None:
    async def whole() -> None:
        async with bench(tmp_path) as made:
            started = await _running(made)
            assert await made.engine.probe(T1, HealthCheck(test=("CMD", "true"))) is None
            await made.restart()
            assert await made.engine.start(T1) == started
            await made.engine.stop(T1)
            assert (await made.engine.wait(T1)).exit_code == 143

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(whole())


def test_tasks_that_were_never_started(tmp_path: Path) -> None:
    async def body(bench: Bench) -> None:
        await bench.engine.prepare(assignment("t1", "true"), NODE)
        waiting = asyncio.ensure_future(bench.engine.wait(T1))
        await asyncio.sleep(0)
        await bench.engine.stop(T1)
        await bench.restart()
        [held] = await bench.engine.held()
        assert held.state is HeldState.PREPARED
        await bench.engine.remove(T1)
        await bench.engine.remove(T1)
        await bench.engine.stop(T1)
        assert await bench.engine.held() == []
        with pytest.raises(Rejected, match="never prepared"):
            await bench.engine.start(T1)
        waiting.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await waiting

    on_bench(tmp_path, body)


def test_removing(tmp_path: Path) -> None:
    async def body(bench: Bench) -> None:
        await _running(bench)
        with pytest.raises(Rejected, match="stop it first"):
            await bench.engine.remove(T1)
        await bench.engine.stop(T1)
        # What a crash may leave: half a removal, and a folder without a record.
        (tmp_path / ".removed-t2").mkdir()
        (tmp_path / "t3").mkdir()
        await bench.engine.remove(T1)
        assert await bench.engine.held() == []
        assert list(tmp_path.iterdir()) == []

    on_bench(tmp_path, body)


def test_a_wait_and_a_start_that_are_given_up(tmp_path: Path) -> None:
    async def body(bench: Bench) -> None:
        await bench.engine.prepare(assignment("t1", "sleep", "1000"), NODE)
        starting = asyncio.ensure_future(bench.engine.start(T1))
        await asyncio.sleep(0)
        starting.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await starting
        await bench.engine.start(T1)
        waiting = asyncio.ensure_future(bench.engine.wait(T1))
        await asyncio.sleep(0)
        waiting.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await waiting
        os.kill(bench.main("t1").pid, signal.SIGKILL)
        async with asyncio.timeout(DEADLINE_S):
            assert (await bench.engine.wait(T1)).exit_code == 137

    on_bench(tmp_path, body)


def test_fifty_at_once(tmp_path: Path) -> None:
    async def body(bench: Bench) -> None:
        names = [f"t{number}" for number in range(50)]
        await asyncio.gather(*(bench.run(n, "sh", "-c", "exit $SKEP_TASK_SLOT") for n in names))
        exits = await asyncio.gather(*(bench.engine.wait(TaskId(n)) for n in names))
        assert {exit_.exit_code for exit_ in exits} == {3}
        await asyncio.gather(*(bench.engine.remove(TaskId(n)) for n in names))
        assert list(tmp_path.iterdir()) == []

    on_bench(tmp_path, body)


async def _running(bench: Bench, **more: object) -> object:
    await bench.run("t1", "sleep", "1000", **more)
    return await bench.engine.start(T1)


def _second_engine(bench: Bench) -> ProcessEngine:
    return ProcessEngine(bench.root, new_env(), GROUP)
