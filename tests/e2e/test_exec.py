"""Programs inside tasks, by the command and by the SDK, through real processes."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios

import pytest

from skep.client import NotFound, Refused, sync
from skep.domain.execution import ExecSpec
from tests.support.local_cluster import ROOT, LocalCluster, eventually, is_alive

pytestmark = pytest.mark.process


def managers(cluster: LocalCluster) -> list[str]:
    return [f"{row['address']}:7410" for row in cluster.nodes() if row["name"][0] == "m"]


def exec_(
    cluster: LocalCluster, *words: str, given: bytes = b""
) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "skep.cli.main", "exec", *words],
        env=cluster.environ,
        cwd=ROOT,
        input=given,
        capture_output=True,
        timeout=30.0,
        check=False,
    )


def test_a_program_runs_as_the_task_does(cluster: LocalCluster) -> None:
    done = exec_(cluster, "web.1", "--", "sh", "-c", "echo $SKEP_TASK_SLOT; echo oops >&2; exit 7")
    assert (done.returncode, done.stdout, done.stderr) == (7, b"1\n", b"oops\n")


def test_its_input_is_what_is_piped_in(cluster: LocalCluster) -> None:
    given = os.urandom(1 << 20)
    done = exec_(cluster, "-i", "web.1", "cat", given=given)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout == given


def test_of_a_service_the_first_task_is_taken(cluster: LocalCluster) -> None:
    done = exec_(cluster, "-e", "WORD=hello", "web", "--", "sh", "-c", "echo $WORD $SKEP_TASK_SLOT")
    assert done.stdout == b"hello 1\n"
    assert done.stderr == b"skep: note: web has 3 tasks; this is demo_web.1\n"


def test_a_variable_by_its_name_is_the_one_here(cluster: LocalCluster) -> None:
    line = "echo $SKEP_HOME ${NO_SUCH_WORD-none}"
    done = exec_(cluster, *("-e", "SKEP_HOME", "-e", "NO_SUCH_WORD"), "web.1", "sh", "-c", line)
    assert done.stdout.decode() == f"{cluster.environ['SKEP_HOME']} none\n"


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (("nobody.1", "true"), 1, b"there is no task 'nobody.1'"),
        (("web.1", "no-such-program"), 127, b"no-such-program"),
        (("-u", "nobody", "web.1", "true"), 5, b"as the task's own user"),
        (("-w", "/no/such/folder", "web.1", "true"), 5, b"No such file or directory"),
        (("-t", "web.1", "true"), 2, b"-t: this is no terminal"),
        (("web.1",), 2, b"what to run is missing"),
    ],
)
def test_what_can_t_be_run_is_told(
    cluster: LocalCluster, words: tuple[str, ...], code: int, told: bytes
) -> None:
    done = exec_(cluster, *words)
    assert done.returncode == code, done.stderr
    assert told in done.stderr


def test_any_manager_takes_it(cluster: LocalCluster) -> None:
    for address in managers(cluster):
        with sync.connect([address]) as sdk:
            result = sdk.tasks.exec(
                "web.2",
                ExecSpec(argv=("printenv", "SKEP_TASK_SLOT")),
            )
            assert (result.exit_code, result.stdout) == (0, b"2\n")


def test_it_is_killed_when_nobody_wants_it_any_more(cluster: LocalCluster) -> None:
    with sync.connect(managers(cluster)) as sdk:
        argv = ("sh", "-c", "echo $$; sleep 600; true")
        execution = sdk.tasks.start_exec("web.1", ExecSpec(argv=argv))
        told = execution.receive()
        assert told is not None
        pid = int(told.data)
        assert is_alive(pid)
        execution.close()
        eventually(lambda: not is_alive(pid), 10.0, "it is gone")


def test_it_is_spoken_to(cluster: LocalCluster) -> None:
    with sync.connect(managers(cluster)) as sdk:
        execution = sdk.tasks.start_exec("web.1", ExecSpec(argv=("cat",), has_input=True))
        execution.send(b"before")
        told = execution.receive()
        assert told is not None
        assert told.data == b"before"
        execution.end_input()
        assert execution.receive() is None
        assert execution.exit_code == 0
        execution.close()
        with pytest.raises(NotFound):
            sdk.tasks.exec("web.99", ExecSpec(argv=("true",)))
        with pytest.raises(Refused):
            sdk.tasks.exec("web.1", ExecSpec(argv=("true",), user="nobody"))


def test_a_terminal_is_the_program_s_own(cluster: LocalCluster) -> None:
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "skep.cli.main", "exec", "-it", "web.1", "sh"],
        env={**cluster.environ, "PS1": "> "},
        cwd=ROOT,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    try:
        os.set_blocking(ours, False)
        fcntl.ioctl(ours, termios.TIOCSWINSZ, struct.pack("HHHH", 33, 77, 0, 0))
        shown = bytearray()

        def shows(words: bytes) -> bool:
            with contextlib.suppress(BlockingIOError):
                shown.extend(os.read(ours, 65536))
            return words in shown

        os.write(ours, b"tty && stty size\n")
        eventually(lambda: shows(b"/dev/pts/"), 20.0, "it has a terminal")
        eventually(lambda: shows(b"33 77"), 20.0, "of this one's size")
        os.write(ours, b"sleep 600\n")
        eventually(lambda: shows(b"sleep 600"), 20.0, "it is typed")
        os.write(ours, b"\x03")
        os.write(ours, b"echo a$((1+1))b\n")
        eventually(lambda: shows(b"a2b"), 20.0, "Ctrl-C reached it")
        os.write(ours, b"exit 3\n")
        assert process.wait(20.0) == 3
    finally:
        process.kill()
        process.wait()
        os.close(ours)
