"""`skep service logs`: order, looks, and what becomes of what can't be had."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skep.cli.commands.logs import read_since, read_tail
from skep.cli.errors import Failure
from skep.cli.loglines import Looks, Merge, rfc3339, safe
from skep.client import Cluster
from skep.domain.base import SECOND_NS, TaskId, replace
from skep.domain.control import LogEvent, LogLine, LogStream
from skep.domain.objects import Task
from skep.domain.states import DesiredState
from tests.unit.cli.shell import STACK, Shell

NOW_NS = 1_700_000_000 * SECOND_NS


def event(task_id: str, *lines: tuple[int, str], **more: Any) -> LogEvent:
    return LogEvent(
        task_id=TaskId(task_id),
        task_name=more.pop("name", "web.1"),
        node_name=more.pop("node", "w1"),
        lines=tuple(
            LogLine(time_ns=time_ns, stream=LogStream.STDOUT, text=text.encode())
            for time_ns, text in lines
        ),
        **more,
    )


@given(
    st.lists(st.lists(st.tuples(st.integers(0, 50), st.integers(1, 4)), max_size=12), max_size=4)
)
def test_lines_of_all_nodes_come_in_the_order_of_their_times(
    sources: list[list[tuple[int, int]]],
) -> None:
    """Each source: pages of so many lines, which begin so much later than the last one ended."""
    pages = []
    longest = 0
    for number, source in enumerate(sources):
        now = 0
        for later, count in source:
            now += later
            lines = [(now + 10 * place, f"{number}") for place in range(count)]
            now = lines[-1][0]
            longest = max(longest, count)
            pages.append(event(f"t{number}", *lines))
    pages.sort(key=lambda page: page.lines[0].time_ns)
    merge = Merge()
    found = []
    for page in pages:
        found += list(merge.add(page))
        # What waits is at most a page of each source.
        assert len(merge._waiting) <= longest * len(sources)
    found += list(merge.rest())
    times = [line.time_ns for _, line in found]
    assert times == sorted(times)
    assert len(times) == sum(len(page.lines) for page in pages)


def test_lines_look_as_dockers_and_line_up() -> None:
    looks = Looks()
    looks.entitle("abcdefghijklmnop", "web.10", "w1")
    one = event("t", (5, "hello"))
    [line] = one.lines
    assert looks.line(one, line, is_safe=False, is_coloured=False) == (
        b"web.1.t@w1                | hello\n"
    )
    whole = Looks(is_timed=True, is_whole=True)
    named = event("abcdefghijklmnop", (1_700_000_000_000_000_005, "x"))
    assert whole.line(named, named.lines[0], is_safe=False, is_coloured=False) == (
        b"2023-11-14T22:13:20.000000005Z web.1.abcdefghijklmnop@w1    | x\n"
    )
    coloured = looks.line(one, line, is_safe=True, is_coloured=True)
    assert coloured.startswith(b"\x1b[")
    assert coloured.endswith(b"\x1b[0m    | hello\n")
    assert Looks(is_raw=True).line(one, line, is_safe=False, is_coloured=True) == b"hello\n"


@given(st.binary(max_size=200))
def test_nothing_that_a_task_writes_moves_the_cursor(text: bytes) -> None:
    shown = safe(text).decode()
    assert all(char.isprintable() or char == "\t" for char in shown)


def test_what_is_printable_is_left_alone() -> None:
    assert safe("grüße\t日本\r".encode()) == "grüße\t日本".encode()
    assert safe(b"\x1b[31m\xff\x00") == b"\\x1b[31m\\xff\\x00"


def test_times_and_tails_are_read() -> None:
    assert read_tail("all") is None
    assert read_tail("0") == 0
    assert read_since(None, NOW_NS) is None
    assert read_since("10s", NOW_NS) == NOW_NS - 10 * SECOND_NS
    assert read_since("1h30m", NOW_NS) == NOW_NS - 5400 * SECOND_NS
    assert read_since("2023-11-14T22:13:20Z", NOW_NS) == NOW_NS
    assert read_since("2023-11-14T23:13:20+01:00", NOW_NS) == NOW_NS
    assert read_since("1700000000", 5) == NOW_NS
    assert rfc3339(NOW_NS + 1) == "2023-11-14T22:13:20.000000001Z"
    for text in ("", "yesterday", "10x", "2023-13-01", "-5s"):
        with pytest.raises(Failure, match="--since"):
            read_since(text, NOW_NS)
    for text in ("", "many", "-1", "1.5", "1" * 12):
        with pytest.raises(Failure, match="--tail"):
            read_tail(text)


class Reader:
    """Stands in for the client's reading; remembers what it was asked for."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked: dict[str, Any] = {}
        self.events: list[LogEvent | BaseException] = []

        async def logs(
            cluster: Cluster, services: Any = (), tasks: Any = (), **query: Any
        ) -> AsyncGenerator[LogEvent, None]:
            self.asked = {"services": len(services), "tasks": len(tasks), **query}
            for each in self.events:
                await asyncio.sleep(0)
                if isinstance(each, BaseException):
                    raise each
                yield each

        monkeypatch.setattr(Cluster, "logs", logs)


@pytest.fixture
def reader(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> Reader:
    assert shell.skep("stack deploy -d -c", shell.file(STACK)) == 0
    return Reader(monkeypatch)


def test_stdout_to_stdout_and_stderr_to_stderr(shell: Shell, reader: Reader) -> None:
    err = LogLine(time_ns=2, stream=LogStream.STDERR, text=b"bad \x1b")
    reader.events = [event("t", (1, "good")), LogEvent(task_id=TaskId("t"), lines=(err,))]
    assert shell.skep("service logs --raw shop_web") == 0
    # No terminal: bytes go through as they are.
    assert (shell.out, shell.err) == ("good\n", "bad \x1b\n")
    assert reader.asked == {
        "services": 1, "tasks": 0, "tail": None, "since_ns": None, "is_follow": False,
    }  # fmt: skip


def test_prefixes_have_one_width_from_the_first_line(shell: Shell, reader: Reader) -> None:
    tasks = sorted(shell.control.tasks.values(), key=lambda task: (task.service_name, task.slot))
    clock, web = tasks[0], tasks[1]
    reader.events = [
        event(clock.id, (1, "a"), name=clock.name, node="w1"),
        event(web.id, (2, "b"), name=web.name, node="w1"),
    ]
    assert shell.skep("service logs shop_web shop_clock") == 0
    lines = shell.out.splitlines()
    assert lines[0] == f"shop_clock.1.{clock.id[:12]}@w1    | a"
    assert lines[1] == f"shop_web.1.{web.id[:12]}@w1      | b"
    assert shell.skep("service logs --no-trunc --no-resolve shop_web shop_clock") == 0
    assert f"{web.service_id}.1.{web.id}@{web.node_id}" in shell.out


def test_a_task_can_be_named_and_options_are_passed_on(shell: Shell, reader: Reader) -> None:
    task = next(iter(shell.control.tasks.values()))
    line = f"service logs -f -n 3 --since 2023-11-14T22:13:20Z shop_web {task.id}"
    assert shell.skep(line) == 0
    assert reader.asked == {
        "services": 1, "tasks": 1, "tail": 3, "since_ns": NOW_NS, "is_follow": True,
    }  # fmt: skip


def test_what_can_not_be_had_is_told_and_hides_nothing(shell: Shell, reader: Reader) -> None:
    (task, *_) = [t for t in shell.control.tasks.values() if t.service_name == "shop_web"]
    reader.events = [event(task.id, problem="node w2 is down"), event("t", (1, "a"))]
    assert shell.skep("service logs --raw shop_web") == 1
    assert shell.out == "a\n"
    assert shell.err.splitlines() == [
        "skep: warning: node w2 is down",
        "skep: error: some output could not be had: see the warnings",
    ]


def lost(task: Task, node: str = "w2") -> LogEvent:
    title = f"{task.name}.{task.id}"
    problem = f"node {node} is down: the output of {title} can't be had"
    return event(task.id, name=task.name, node=node, problem=problem)


def test_a_node_that_is_down_is_one_line_however_many_tasks_it_had(
    shell: Shell, reader: Reader
) -> None:
    control = shell.control
    tasks = [t for t in control.tasks.values() if t.service_name == "shop_web"]
    for task in tasks:
        control.tasks[task.id] = replace(task, desired_state=DesiredState.SHUTDOWN)
    gone = replace(tasks[0], id=TaskId("removed-since"))
    reader.events = [*map(lost, tasks), lost(gone), lost(tasks[0], "w3"), event("t", (1, "a"))]
    # Of what nobody wants any more, the rest is good enough.
    assert shell.skep("service logs --raw shop_web") == 0
    assert shell.out == "a\n"
    assert shell.err.splitlines() == [
        "skep: warning: node w2 is down: the output of 4 tasks can't be had",
        f"skep: warning: node w3 is down: the output of {tasks[0].name}.{tasks[0].id} can't be had",
    ]
    # Unless it was asked for by its name, or is still wanted.
    assert shell.skep(f"service logs --raw {tasks[0].id}") == 1
    control.tasks[tasks[1].id] = tasks[1]
    assert shell.skep("service logs --raw shop_web") == 1
    assert "see the warnings" in shell.err


def test_who_follows_is_told_of_a_node_once_until_it_is_back(shell: Shell, reader: Reader) -> None:
    tasks = [t for t in shell.control.tasks.values() if t.service_name == "shop_web"]
    reader.events = [
        *map(lost, tasks),
        event("t", problem="strange\nthing", node="w1"),
        event(tasks[0].id, (1, "a"), node="w2"),
        *map(lost, tasks),
    ]
    assert shell.skep("service logs --raw -f shop_web") == 1
    down = "skep: warning: node w2 is down: the output of its tasks can't be had"
    assert shell.err.splitlines()[:3] == [down, "skep: warning: strange thing", down]
    assert len(shell.err.splitlines()) == 4


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("service logs nope", "there is no service or task 'nope'"),
        ("service logs --tail x shop_web", "--tail: 'x' is not a number of lines"),
        ("service logs --since x shop_web", "--since: 'x' is neither a duration"),
        ("service logs", "SERVICE|TASK"),
    ],
)
def test_mistakes_are_one_clear_line(shell: Shell, reader: Reader, line: str, words: str) -> None:
    assert shell.skep(line) != 0
    assert words in shell.err
    assert shell.out == ""


def test_following_ends_by_an_interrupt_without_a_word(shell: Shell, reader: Reader) -> None:
    reader.events = [event("t", (1, "a")), KeyboardInterrupt()]
    assert shell.skep("service logs --raw -f shop_web") == 0
    assert (shell.out, shell.err) == ("a\n", "")
    # Without --follow there is an end that was not waited for.
    reader.events = [event("t", (1, "a")), KeyboardInterrupt()]
    assert shell.skep("service logs --raw shop_web") == 130
