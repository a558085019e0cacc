from __future__ import annotations

import shlex

import pytest

from skep.domain.base import TaskId, decode, encode, replace
from skep.domain.spec import LogPolicy, Resources
from skep.domain.templates import TemplateValues
from skep.worker.engine.core.launch import Tools, command_line, probe_line, script, shell_env
from skep.worker.engine.core.records import (
    ExitRecord,
    MainProcess,
    Stat,
    TaskRecord,
    UserIds,
    describe_exit,
    explain_exit,
    format_exit,
    parse_exit,
    parse_main,
    parse_stat,
)

TAIL = "S 7 8 9 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 4711 2654208 137"
TOOLS = Tools(
    setsid="/usr/bin/setsid", setpriv="/usr/bin/setpriv", env="/bin/env", sync="/bin/sync"
)
OOM = "killed for using more memory than its limit of 9 bytes (OOM)"
RECORD = TaskRecord(
    format=1,
    task_id=TaskId("t1"),
    argv=("serve", "it's", "a\nb"),
    env=(("A", "1"), ("IFS", "x"), ("_skep_code", "2"), ("a.b", "3")),
    working_dir="/srv",
    stop_signal=15,
    stop_grace_ns=0,
    log=LogPolicy(),
    limits=Resources(),
    values=TemplateValues(),
)


@pytest.mark.parametrize("name", ["sh", "a b", ") R 1 2", "(x)", ""])
def test_a_process_may_have_any_name(name: str) -> None:
    stat = Stat(pid=5, state="S", parent=7, session=9, start_ticks=4711)
    assert parse_stat(f"5 ({name}) {TAIL}\n") == stat


@pytest.mark.parametrize("line", ["", "5", "5 (sh)", "5 (sh) S 1 2", f"x (sh) {TAIL}"])
def test_what_is_no_process(line: str) -> None:
    assert parse_stat(line) is None


def test_a_main_process() -> None:
    main = MainProcess(boot_id="b-1", pid=5, shim_pid=7, start_ticks=4711)
    assert parse_main(f"1 5\nb-1 (sh) {TAIL}\n") == main


def test_a_main_process_that_is_not_written_whole() -> None:
    whole = f"1 5\nb-1 (sh) {TAIL}\n"
    assert [parse_main(whole[:end]) for end in range(len(whole))] == [None] * len(whole)
    assert parse_main("2" + whole[1:]) is None


@pytest.mark.parametrize(
    ("record", "text"),
    [
        (ExitRecord(exit_code=0), "1 0 -\n"),
        (ExitRecord(exit_code=137, ended_ns=12, reason="its\nshim "), "1 137 12 its shim\n"),
    ],
)
def test_an_exit_is_read_as_written(record: ExitRecord, text: str) -> None:
    assert format_exit(record) == text
    assert parse_exit(text) == replace(record, reason=" ".join(record.reason.split()))


def test_an_exit_that_is_not_written_whole() -> None:
    for text in ("", "1 0 -", "1 137 12 half", "\0\0\0\n", "2 0 -\n", "1 x -\n", "1 0 x\n"):
        assert parse_exit(text) is None


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (0, ""),
        (1, "exit code 1"),
        (128, "exit code 128"),
        (137, "killed by signal 9 (SIGKILL)"),
        (143, "killed by signal 15 (SIGTERM)"),
        (165, "killed by signal 37 (SIGRTMIN+3)"),
        (255, "exit code 255"),
    ],
)
def test_exits_in_words(code: int, words: str) -> None:
    assert describe_exit(code) == words


@pytest.mark.parametrize(
    ("record", "is_oom", "reason"),
    [
        (ExitRecord(exit_code=137, reason="node restarted"), True, "node restarted"),
        (ExitRecord(exit_code=137), True, OOM),
        (ExitRecord(exit_code=1), True, "exit code 1"),
        (ExitRecord(exit_code=127), False, "exit code 127: said"),
        (ExitRecord(exit_code=1), False, "exit code 1"),
    ],
)
def test_why_a_task_ended(record: ExitRecord, is_oom: bool, reason: str) -> None:
    assert explain_exit(record, "said", is_oom=is_oom, memory_bytes=9) == reason


def test_a_record_is_read_as_written() -> None:
    full = replace(RECORD, user=UserIds(uid=1, gid=2, groups=(3,)), cgroups=("/c",))
    assert decode(TaskRecord, encode(full)) == full


def test_what_a_shell_would_not_pass_on_goes_another_way() -> None:
    assert shell_env(RECORD) == {"A": "1"}
    last = script(RECORD, "/x y", TOOLS).split("\nexec ")[-1].partition("\n)\n")[0]
    assert shlex.split(last) == [
        *("/usr/bin/setsid", "--", "/bin/env", "--", "IFS=x", "_skep_code=2", "a.b=3"),
        *("serve", "it's", "a\nb"),
    ]


def test_a_script_with_user_groups_and_limits() -> None:
    record = replace(
        RECORD,
        env=(),
        user=UserIds(uid=1, gid=2, groups=(2, 3)),
        limits=Resources(memory_bytes=8192),
    )
    text = script(record, "/x y", TOOLS)
    assert "setpriv --reuid=1 --regid=2 --groups=2,3 -- serve" in text
    assert "ulimit -d 8 ||" in text
    assert ">'/x y/main'" in text
    grouped = script(replace(record, cgroups=("/c g/t",)), "/x", TOOLS)
    assert "ulimit" not in grouped
    assert "echo 0 >'/c g/t/cgroup.procs' || exit 125" in grouped


def test_signals_that_the_agent_ignores_are_given_back() -> None:
    tools = replace(TOOLS, reset_signals=("INT",))
    assert "/bin/env --default-signal=INT -- serve" in script(replace(RECORD, env=()), "/x", tools)


def test_probes_run_where_the_task_runs() -> None:
    plain = replace(RECORD, env=())
    assert probe_line(plain, "/x", TOOLS, ("CMD", "curl", "x")) == ("curl", "x")
    assert probe_line(plain, "/x", TOOLS, ("CMD-SHELL", "a | b")) == ("/bin/sh", "-c", "a | b")
    grouped = replace(plain, cgroups=("/c",))
    assert probe_line(grouped, "/x", TOOLS, ("CMD", "curl")) == (
        *("/bin/sh", "-c", 'echo 0 >/c/cgroup.procs || exit 125\nexec "$@"', "/bin/sh", "curl"),
    )


def test_a_task_enters_its_namespaces_before_it_becomes_its_user() -> None:
    record = replace(
        RECORD, env=(), user=UserIds(uid=1, gid=2), namespace="/n s/t", has_own_names=True
    )
    line = command_line(record, "/x", TOOLS)
    assert line[:3] == ("/usr/bin/nsenter", "--net=/n s/t", "--")
    assert line[3:7] == ("/usr/bin/unshare", "--mount", "--propagation", "private")
    mounts = line[line.index("-c") + 1]
    assert "mount --bind /x/resolv.conf /etc/resolv.conf || exit 125" in mounts
    assert "mount --bind /x/hosts /etc/hosts || exit 125" in mounts
    assert line.index("--reuid=1") > line.index(mounts)
    assert line[-len(RECORD.argv) :] == RECORD.argv
    probe = probe_line(record, "/x", TOOLS, ("CMD", "look"))
    assert probe[0] == "/usr/bin/nsenter"
    assert probe[-1] == "look"


def test_connections_are_told_by_a_control_group_that_others_share() -> None:
    record = replace(RECORD, env=(), network_cgroup="/g")
    assert "echo 0 >/g/cgroup.procs || exit 125" in script(record, "/x", TOOLS)
    assert probe_line(record, "/x", TOOLS, ("CMD", "look"))[:2] == ("/bin/sh", "-c")
