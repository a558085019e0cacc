"""Real processes and real folders of local clusters."""

from __future__ import annotations

import fcntl
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from skep.cli.errors import Failure
from skep.cli.local import cluster as local
from skep.cli.local import core, home, procs
from skep.env import Rejected


def start(folder: Path, *arguments: str) -> procs.Found:
    pid = procs.start_detached(
        arguments, log=folder / "logs" / "x.log", folder=folder, environ={"LANG": "C"}
    )
    found = procs.look_up(pid)
    assert found is not None
    return found


@pytest.mark.process
def test_a_detached_process_is_found_stopped_and_gone(tmp_path: Path) -> None:
    found = start(tmp_path, "/bin/sleep", "1234.5")
    assert (found.pid, ("/bin/sleep", "1234.5")) in list(procs.command_lines())
    assert 0 <= procs.age_s(found) < 60
    assert procs.end([found], grace_s=5) == []
    assert procs.look_up(found.pid) is None
    assert not procs.send(found, signal.SIGTERM)


@pytest.mark.process
def test_a_paused_process_follows_sigterm_and_a_deaf_one_is_killed(tmp_path: Path) -> None:
    paused = start(tmp_path, "/bin/sleep", "1234.6")
    procs.send(paused, signal.SIGSTOP)
    assert procs.end([paused], grace_s=5) == []
    deaf = start(tmp_path, sys.executable, "-c", DEAF)
    ends = time.monotonic() + 10
    while "ready" not in (tmp_path / "logs" / "x.log").read_text():
        assert time.monotonic() < ends
        time.sleep(0.01)
    assert procs.end([deaf], grace_s=0.2) == [deaf]
    assert procs.look_up(deaf.pid) is None


DEAF = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("ready", flush=True)
time.sleep(100)
"""


@pytest.mark.process
def test_a_reused_pid_is_left_alone(tmp_path: Path) -> None:
    found = start(tmp_path, "/bin/sleep", "1234.7")
    earlier = found._replace(start_ticks=found.start_ticks - 1)
    assert not procs.send(earlier, signal.SIGKILL)
    assert procs.wait_gone([earlier], 1) == []
    assert procs.look_up(found.pid) is not None
    procs.end([found], grace_s=5)


@pytest.fixture
def of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> home.Home:
    monkeypatch.setenv("SKEP_HOME", str(tmp_path))
    return home.Home("demo")


def test_a_cluster_is_planned_once(of: home.Home) -> None:
    with local.opened(of, core.Wanted(1, 2)) as first:
        pass
    with local.opened(of, core.Wanted(None, 2)) as second:
        pass
    assert first == second == of.require()
    assert [state.found for state in local.states(of, first)] == [None] * 5
    assert (of.folder / "nodes/w2/agent.json").stat().st_mode & 0o777 == 0o600
    with (
        pytest.raises(Failure, match=r"has 1 manager, not 3; leave --managers out"),
        local.opened(of, core.Wanted(3, None)),
    ):
        pass


def test_two_clusters_get_two_blocks(of: home.Home) -> None:
    with (
        local.opened(of, core.Wanted(1, 0)) as one,
        local.opened(home.Home("other"), core.Wanted(1, 0)) as other,
    ):
        assert one.block != other.block


def test_a_block_that_another_command_is_about_to_use_is_passed_over(of: home.Home) -> None:
    with local.opened(of, core.Wanted(1, 0)) as cluster:
        pass
    with home.reserved(cluster.block) as is_free:
        assert is_free
        with home.reserved(cluster.block) as is_free_too:
            assert not is_free_too
        with (
            pytest.raises(Failure, match=r"are in use by another one"),
            local.opened(of, core.Wanted(1, 0)),
        ):
            pass


def test_one_command_at_a_time(of: home.Home) -> None:
    with of.locked(), pytest.raises(Failure, match="another skep command"), of.locked():
        pass


def test_a_lock_leaves_nothing_behind(of: home.Home, tmp_path: Path) -> None:
    with of.locked():
        assert [path.name for path in tmp_path.iterdir()] == [".demo.lock"]
        with pytest.raises(Failure, match="another skep command"), of.locked():
            pass
        # Who is refused removes nothing.
        assert (tmp_path / ".demo.lock").exists()
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(Rejected), of.locked(), local.opened(of, core.Wanted(0, 0)):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_lock_on_a_file_that_was_removed_meanwhile_is_none(
    of: home.Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = fcntl.flock
    late: list[int] = []

    def flock(fd: int, how: int) -> None:
        if not late:
            # Between our opening the file and our locking it, its holder ends and another begins.
            late.append(fd)
            (tmp_path / ".demo.lock").unlink()
            (tmp_path / ".demo.lock").touch()
        real(fd, how)

    monkeypatch.setattr(fcntl, "flock", flock)
    with of.locked(), pytest.raises(Failure, match="another skep command"), of.locked():
        pass
    assert late


def test_what_is_not_there(of: home.Home) -> None:
    with pytest.raises(Failure, match="there is no cluster 'demo'"):
        of.require()
    of.folder.mkdir()
    (of.folder / "cluster.json").write_text("{}")
    with pytest.raises(Failure, match=r"cluster\.json: not a cluster file"):
        of.require()
    with pytest.raises(Failure, match="can't be a cluster's name"):
        home.Home("../x")


def test_the_last_words_of_a_process(of: home.Home) -> None:
    with local.opened(of, core.Wanted(1, 0)) as cluster:
        process = core.processes(cluster)[0]
    assert local.last_words(of, process) == ""
    of.logs.mkdir()
    of.log(process).write_text("x" * 9000 + "\nlast one \n\n")
    assert local.last_words(of, process) == "last one"
    with pytest.raises(Failure, match=r"m1 has ended: last one; see .*m1\.log"):
        local.check_alive(of, cluster)


@pytest.mark.process
def test_going_down_says_whose_tasks_take_long(
    of: home.Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    with local.opened(of, core.Wanted(1, 3)) as cluster:
        pass
    for name in ("w1", "w2"):
        (of.folder / "nodes" / name / "tasks").mkdir()
    real = subprocess.Popen

    def purge(arguments: tuple[str, ...], **options: Any) -> subprocess.Popen[str]:
        quick = "w1" in arguments[-2]
        return real(("/bin/sleep", "0" if quick else "0.8"), **options)

    monkeypatch.setattr(subprocess, "Popen", purge)
    monkeypatch.setattr(local, "PURGE_QUIET_S", 0.4)
    told: list[str] = []
    local.take_down(of, cluster, told.append)
    assert told == ["waiting for tasks of w2 to end; each has its stop grace period"]
    assert not of.folder.exists()
