"""No signal reaches a process that only has another's pid."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator

import pytest

from skep.domain.base import replace
from skep.worker.engine.adapters import proc
from skep.worker.engine.core.records import MainProcess

pytestmark = pytest.mark.process


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(("sleep", "1000"), start_new_session=True)
    yield process
    process.kill()
    process.wait()


def identity(pid: int) -> MainProcess:
    stat = proc.read_stat(pid)
    assert stat is not None
    return MainProcess(
        boot_id=proc.read_boot_id(),
        pid=pid,
        shim_pid=stat.parent,
        start_ticks=stat.start_ticks,
    )


def test_a_pid_that_is_another_process_now(sleeper: subprocess.Popen[bytes]) -> None:
    main = identity(sleeper.pid)
    earlier = replace(main, start_ticks=main.start_ticks - 1)
    assert proc.open_main(earlier) is None
    assert not proc.signal_main(earlier, signal.SIGKILL)
    proc.kill_sessions([earlier])
    # A shim started no later than its task; this process is younger.
    assert proc.open_shim(replace(earlier, shim_pid=sleeper.pid)) is None
    assert sleeper.poll() is None


def test_a_process_by_its_identity(sleeper: subprocess.Popen[bytes]) -> None:
    main = identity(sleeper.pid)
    assert main.shim_pid == os.getpid()
    fd = proc.open_shim(main)
    assert fd is not None
    os.close(fd)
    assert proc.signal_main(main, signal.SIGCONT)
    proc.kill_sessions([main, replace(main, pid=1, start_ticks=-1)])
    assert sleeper.wait() == -signal.SIGKILL
    assert not proc.signal_main(main, signal.SIGKILL)
    proc.kill_sessions([main])
    proc.kill_sessions([])


def test_a_zombie_has_ended(sleeper: subprocess.Popen[bytes]) -> None:
    main = identity(sleeper.pid)
    watched = proc.open_main(main)
    assert watched is not None
    sleeper.send_signal(signal.SIGKILL)
    assert proc.wait_for_all([watched], 10)
    os.close(watched)
    assert proc.open_main(main) is None
    assert proc.reap(sleeper.pid) is None
    assert proc.reap(sleeper.pid) is None
    sleeper.returncode = -signal.SIGKILL
