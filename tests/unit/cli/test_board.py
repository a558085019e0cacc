"""The board: what it shows, and that it gives the terminal back."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pty
import re
import signal
import sys
import termios
import time
from collections.abc import Iterator

import msgspec
import pytest

from skep import client
from skep.cli import text
from skep.cli.board import State, render
from skep.cli.changes import Change
from skep.cli.commands import top, up
from skep.cli.local import core
from skep.cli.local.home import Home
from skep.domain.base import NodeId, ServiceId, TaskId, replace
from skep.domain.control import ServiceView, WatchAction, WatchEvent
from skep.domain.objects import (
    Availability,
    Node,
    NodeDescription,
    NodeRole,
    NodeState,
    Service,
    Task,
    TaskStatus,
    UpdateState,
    UpdateStatus,
)
from skep.domain.spec import RunSpec, ServiceSpec, TaskSpec, UpdatePolicy
from skep.domain.states import DesiredState, TaskState
from tests.sim import loop
from tests.unit.cli.shell import Shell
from tests.unit.client import fake

NOON_NS = 12 * 3600 * 10**9


@pytest.fixture(autouse=True)
def _utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def view(name: str, running: int, desired: int, **fields: object) -> ServiceView:
    spec = ServiceSpec(name=name, task=TaskSpec(run=RunSpec(command=("x",))), replicas=desired)
    of_view = {
        key: fields.pop(key) for key in ("problems", "given_up", "is_converged") if key in fields
    }
    return ServiceView(
        service=Service(id=ServiceId(name), name=name, spec=spec, **fields),  # type: ignore[arg-type]
        running=running,
        desired=desired,
        **{"is_converged": running == desired, **of_view},  # type: ignore[arg-type]
    )


def node(name: str, role: NodeRole = NodeRole.WORKER, **fields: object) -> Node:
    at = {"state": NodeState.READY, "runs_tasks": role is NodeRole.WORKER, **fields}
    description = NodeDescription(hostname=name, address=f"10.0.0.{name[1:]}")
    return Node(id=NodeId(name), name=name, role=role, description=description, **at)  # type: ignore[arg-type]


def task(service: str, slot: int, state: TaskState = TaskState.RUNNING, **fields: object) -> Task:
    return Task(
        id=TaskId(f"{service}{slot}"),
        service_id=ServiceId(service),
        service_name=service,
        revision=1,
        slot=slot,
        **{"node_id": NodeId("w1"), "status": TaskStatus(state=state), **fields},  # type: ignore[arg-type]
    )


def change(number: int, what: str = "running -> failed: exit code 1") -> Change:
    return Change(
        version=number,
        time=float(11 * 3600 + number),
        kind="task",
        id="abc",
        name=f"web.{number}",
        what=what,
        node="w1",
    )


UPDATE = UpdateStatus(
    state=UpdateState.UPDATING,
    revision=4,
    base_revision=3,
    policy=UpdatePolicy(),
    started_ns=1,
    failed_slots=(2,),
)
ROLLED_BACK = replace(
    UPDATE,
    state=UpdateState.ROLLBACK_COMPLETED,
    message="rollback completed (update rolled back due to exit 1)",
)
BACK_BY_HAND = replace(ROLLED_BACK, message="rollback completed (manually requested rollback)")
STATE = State(
    title="lab",
    now_ns=NOON_NS,
    leader="m1",
    views=(
        view("clock", 1, 1),
        view("web", 2, 3, update=UPDATE, problems=("web.2: exit code 1",)),
    ),
    nodes=(
        node("m1", NodeRole.MANAGER),
        node("w1"),
        node("w2", state=NodeState.DOWN, message="3 heartbeats missed"),
        node("w3", availability=Availability.DRAIN),
    ),
    tasks=(
        task("web", 1),
        task("web", 2, TaskState.FAILED),
        task("web", 3, status=TaskStatus(state=TaskState.RUNNING, is_healthy=False)),
        task("web", 4, desired_state=DesiredState.SHUTDOWN),
        task("clock", 1),
    ),
    changes=(change(1), change(2, "starting -> running")),
    hint="q ends this",
)


def test_the_board() -> None:
    assert render(STATE, 78, 18) == [
        "skep: lab   leader m1   2 of 3 nodes ready   1 of 2 services as asked",
        "",
        "SERVICE  RUNNING  TASKS                             STATUS",
        "web      2/3      1 running, 1 stopping, 1 unheal…  updating to 4, 1 failed: …",
        "clock    1/1      1 running                         as asked",
        "",
        "NODE          STATUS        TASKS  ADDRESS",
        "w1            ready         4      10.0.0.1",
        "w2            down          0      10.0.0.2  3 heartbeats missed",
        "w3            ready, drain  0      10.0.0.3",
        "m1 (manager)  ready         -      10.0.0.1",
        "",
        "EVENTS",
        "11:00:01  task web.1 (abc) on w1: running -> failed: exit code 1",
        "11:00:02  task web.2 (abc) on w1: starting -> running",
        "",
        "",
        "q ends this",
    ]


def test_a_wide_terminal_shows_the_time_and_the_whole_problem() -> None:
    first, _, _, web, *_ = render(STATE, 100, 18)
    assert first.endswith("as asked" + " " * 23 + "12:00:00")
    assert len(first) == 100
    assert web.endswith("updating to 4, 1 failed: web.2: exit code 1")


@pytest.mark.parametrize("columns", [1, 2, 7, 20, 40, 80, 200])
@pytest.mark.parametrize("height", [1, 2, 5, 9, 15, 24, 60])
def test_it_fits_every_terminal(columns: int, height: int) -> None:
    many = replace_state(
        views=tuple(view(f"service-{number:02}", 0, 1) for number in range(30)),
        changes=tuple(map(change, range(1, 50))),
        trouble="outdated: " + "x" * 100,
    )
    lines = render(many, columns, height)
    assert len(lines) == height
    assert max(map(text.width, lines)) <= columns


def replace_state(**fields: object) -> State:
    return msgspec.structs.replace(STATE, **fields)


def test_what_is_not_well_stays_when_there_is_no_room_for_all() -> None:
    views = tuple(view(f"s{number}", int(number != 7), 1) for number in range(9))
    lines = render(replace_state(views=views, nodes=(), changes=()), 60, 8)
    assert lines[2:] == [
        "SERVICE  RUNNING  TASKS  STATUS",
        "s7       0/1      -      converging",
        "s0       1/1      -      as asked",
        "s1       1/1      -      as asked",
        "… 6 more",
        "q ends this",
    ]


def test_a_narrow_screen_has_room_for_the_status() -> None:
    lines = render(STATE, 60, 18)
    assert lines[2:5] == [
        "SERVICE  RUNNING  TASKS                 STATUS",
        "web      2/3      1 running, 1 stoppi…  updating to 4, 1 fa…",
        "clock    1/1      1 running             as asked",
    ]
    long = replace_state(views=(view("a-service-with-a-name", 0, 1, problems=("x" * 30,)),))
    assert render(long, 40, 18)[2:4] == [
        "SERVICE  RUNNING  TASKS  STATUS",
        "a-serv…  0/1      -      xxxxxxxxxxxxxx…",
    ]


def test_the_newest_events_are_shown() -> None:
    lines = render(replace_state(changes=tuple(map(change, range(1, 50)))), 60, 20)
    assert lines[-2].startswith("11:00:49")
    assert lines[lines.index("EVENTS") + 1].startswith("11:00:44")


@pytest.mark.parametrize(
    ("of", "words"),
    [
        (view("a", 1, 1), "as asked"),
        (view("a", 0, 1), "converging"),
        (view("a", 0, 1, problems=("a.1: no node",)), "a.1: no node"),
        (view("a", 0, 1, given_up=1), "ended"),
        (view("a", 0, 1, given_up=1, problems=("a.1: bad",)), "gave up: a.1: bad"),
        (view("a", 0, 0, is_removing=True), "being removed"),
        (view("a", 1, 1, update=UPDATE), "as asked"),
        (
            view("a", 1, 1, update=replace(UPDATE, state=UpdateState.PAUSED, message="why")),
            "update to 4 paused: why",
        ),
        (
            view("a", 0, 1, update=replace(UPDATE, state=UpdateState.ROLLBACK_STARTED)),
            "going back from 4 to 3",
        ),
        (
            view("a", 0, 1, update=replace(UPDATE, state=UpdateState.ROLLBACK_PAUSED)),
            "rollback from 4 paused",
        ),
        (view("a", 1, 1, revision=5, update=ROLLED_BACK), "4 was rolled back to 3: exit 1"),
        (view("a", 1, 1, revision=6, update=ROLLED_BACK), "as asked"),
        (view("a", 0, 1, revision=5, update=ROLLED_BACK, problems=("why",)), "why"),
        (view("a", 1, 1, revision=5, update=BACK_BY_HAND), "as asked"),
    ],
)
def test_the_status_of_a_service(of: ServiceView, words: str) -> None:
    lines = render(replace_state(views=(of,)))
    status = lines[2].index("STATUS")
    assert lines[3][status:] == words


def test_a_healthy_service_is_never_red() -> None:
    looks = {}
    for name, update in (("automatic", ROLLED_BACK), ("by-hand", BACK_BY_HAND)):
        state = replace_state(views=(view(name, 1, 1, revision=5, update=update),))
        looks[name] = render(state, is_coloured=True)[3][:5]
    assert looks == {"automatic": "\x1b[33m", "by-hand": "\x1b[32m"}


def test_names_can_not_break_out_of_their_line() -> None:
    names = ("evil\x1b[2J\r\n", "日本語のサービス", "e\u0301clair", "\u202eabc")
    lines = render(replace_state(views=tuple(view(name, 1, 1) for name in names)), 60, 20)
    assert not re.search(r"[\x00-\x1f\x7f\u202e]", "".join(lines))
    heads = [text.width(line[: line.index("1/1")]) for line in lines if "1/1" in line]
    assert len(heads) == 4
    assert len(set(heads)) == 1


def test_colours_are_laid_round_whole_lines() -> None:
    shown = render(STATE, 78, 18, is_coloured=True)
    plain_lines = [re.sub(r"\x1b\[[0-9]*m", "", line) for line in shown]
    assert plain_lines == render(STATE, 78, 18)
    assert shown[3].startswith("\x1b[33mweb")
    assert shown[4].startswith("\x1b[32mclock")
    assert shown[8].startswith("\x1b[31mw2")
    assert all(line.endswith("\x1b[0m") for line in shown if "\x1b" in line)


def test_widths() -> None:
    assert text.width("日本") == 4
    assert text.width("e\u0301") == 1
    assert text.fit("日本語", 4) == "日…"
    assert text.fit("日本語", 5) == "日本…"
    assert text.fit("abc", 3) == "abc"
    assert text.fit("abcd", 3) == "ab…"
    assert text.fit("abc", 0) == ""
    assert text.pad("日", 4) == "日  "
    assert text.pad("日本語", 4) == "日… "


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(-1, "0.0 s"), (0.44, "0.4 s"), (1, "1 s"), (119, "119 s"), (120, "2 min"), (7199, "119 min"),
     (7200, "2 h"), (172800, "2 days")],
)  # fmt: skip
def test_spans(seconds: float, words: str) -> None:
    assert text.span(int(seconds * 1e9)) == words


# ------------------------------------------------------------------------- the commands


def test_elsewhere_than_on_a_terminal_it_is_shown_once(shell: Shell) -> None:
    shell.skep("service create -q --name web --replicas 2 -- serve")
    assert shell.skep("top") == 0
    assert shell.out.startswith("skep: cluster   leader m1   3 of 3 nodes ready   1 of 1 service")
    assert "web      2/2      2 running  as asked" in shell.out.splitlines()
    assert "\x1b" not in shell.out


def test_up_stays_with_the_board_and_says_that_the_cluster_goes_on(shell: Shell) -> None:
    plan = core.plan_cluster("lab", core.Wanted(1, 1), 32, shell.control.ids)
    up._watch(Home("lab"), plan)
    out, err = shell.capsys.readouterr()
    assert out.startswith("skep: lab   leader m1")
    assert err == "cluster 'lab' goes on running; 'skep down --name lab' stops it\n"
    assert shell.skep("up --watch --managers 0") == 2


def test_up_names_its_cluster_where_commands_would_mean_another(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not up._is_meant(Home("default"))
    monkeypatch.delenv("SKEP_ADDRESS")
    assert up._is_meant(Home("default"))
    assert not up._is_meant(Home("lab"))
    shell.skep("context create prod --managers-address h:1")
    shell.skep("context use prod")
    assert not up._is_meant(Home("default"))
    (shell.folder / "config.json").write_text("{")
    assert not up._is_meant(Home("default"))


class Terminal:
    """A terminal of its own, with a keyboard that is pressed from here."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.master, self.slave = pty.openpty()
        self.settings = termios.tcgetattr(self.slave)
        self.monkeypatch = monkeypatch
        self.shown = ""

    @contextlib.contextmanager
    def used(self) -> Iterator[None]:
        """Within this, stdin and stdout are this terminal."""
        with (
            os.fdopen(os.dup(self.slave), "w", encoding="utf-8") as out,
            os.fdopen(os.dup(self.slave), encoding="utf-8") as keyboard,
            self.monkeypatch.context() as patch,
        ):
            patch.setattr(sys, "stdout", out)
            patch.setattr(sys, "stdin", keyboard)
            yield

    def close(self) -> None:
        os.close(self.master)
        os.close(self.slave)

    def press(self, keys: bytes) -> None:
        os.write(self.master, keys)

    def read(self) -> str:
        """What has been shown since."""
        os.set_blocking(self.master, False)
        try:
            while data := os.read(self.master, 65536):
                self.shown += data.decode()
        except BlockingIOError:
            pass
        return self.shown

    def check_given_back(self) -> None:
        shown = self.read()
        assert shown.startswith("\x1b[?1049h\x1b[?25l\x1b[?7l")
        assert shown.endswith("\x1b[?7h\x1b[?25h\x1b[?1049l")
        assert termios.tcgetattr(self.slave) == self.settings


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[Terminal]:
    found = Terminal(monkeypatch)
    yield found
    found.close()


async def sight_of(terminal: Terminal, words: str) -> None:
    while words not in terminal.read():  # noqa: ASYNC110
        await asyncio.sleep(0)


def show(terminal: Terminal, world: fake.FakeSeams, *acts: str | bytes | signal.Signals) -> None:
    """The board, and what its user waits to see, types, and sends."""

    async def go() -> None:
        async with client.connect(fake.ADDRESSES, seams=world, deadline_s=5) as cluster:
            board = asyncio.create_task(top.live(cluster, "lab", "q ends this"))
            for act in acts:
                if isinstance(act, str):
                    await asyncio.wait_for(sight_of(terminal, act), 10)
                elif isinstance(act, bytes):
                    terminal.press(act)
                else:
                    signal.raise_signal(act)
            await asyncio.wait_for(board, 10)

    with terminal.used():
        asyncio.run(go())


def test_q_ends_the_board(terminal: Terminal) -> None:
    show(terminal, fake.seams(), "leader m1", b"xq")
    terminal.check_given_back()


def test_control_c_ends_it_as_well(terminal: Terminal) -> None:
    show(terminal, fake.seams(), "leader m1", signal.SIGINT)
    terminal.check_given_back()


def test_a_signal_ends_the_process_once_the_terminal_is_given_back(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[tuple[int, int, bool]] = []

    def kill(pid: int, number: int) -> None:
        is_back = termios.tcgetattr(terminal.slave) == terminal.settings
        sent.append((pid, number, is_back))

    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(os, "kill", kill)
    show(terminal, fake.seams(), "leader m1", signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    signal.signal(signal.SIGTERM, before)
    assert sent == [(os.getpid(), signal.SIGTERM, True)]
    terminal.check_given_back()


def test_a_fault_gives_the_terminal_back(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> list[str]:
        raise ZeroDivisionError

    monkeypatch.setattr(top, "render", broken)
    with pytest.raises(ZeroDivisionError):
        show(terminal, fake.seams())
    terminal.check_given_back()


def test_suspended_it_gives_the_terminal_back_and_takes_it_again(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    asleep: list[bool] = []

    def kill(pid: int, number: int) -> None:
        assert (pid, number) == (os.getpid(), signal.SIGSTOP)
        asleep.append(termios.tcgetattr(terminal.slave) == terminal.settings)

    monkeypatch.setattr(os, "kill", kill)
    again = "\x1b[?1049l\x1b[?1049h"
    show(terminal, fake.seams(), "leader m1", signal.SIGTSTP, again, signal.SIGWINCH, b"q")
    assert asleep == [True]
    terminal.check_given_back()


def test_managers_that_do_not_answer_are_told_of_and_asked_again(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(top, "RETRY_DELAY_S", 0.0)
    world = fake.seams()
    world.transport.down = set(fake.ADDRESSES)

    async def go() -> None:
        async with client.connect(fake.ADDRESSES, seams=world, deadline_s=5) as cluster:
            board = asyncio.create_task(top.live(cluster, "lab", ""))
            await asyncio.wait_for(sight_of(terminal, "no manager at"), 10)
            world.transport.down = set()
            await asyncio.wait_for(sight_of(terminal, "3 of 3 nodes ready"), 10)
            terminal.press(b"q")
            await asyncio.wait_for(board, 10)

    with terminal.used():
        asyncio.run(go())
    terminal.check_given_back()


def test_changes_are_shown_as_they_come(terminal: Terminal) -> None:
    world = fake.seams()
    control = world.transport.control
    down = replace(control.nodes["w2-id"], state=NodeState.DOWN, version=11, message="gone")

    async def go() -> None:
        async with client.connect(fake.ADDRESSES, seams=world, deadline_s=5) as cluster:
            board = asyncio.create_task(top.live(cluster, "lab", ""))
            while not control.streams:  # noqa: ASYNC110
                await asyncio.sleep(0)
            for number, state in ((9, TaskState.STARTING), (10, TaskState.RUNNING)):
                row = task("web", 1, state, version=number)
                step = WatchEvent(version=number, action=WatchAction.UPDATE, task=row)
                control.tell(control.streams[0], step)
            event = WatchEvent(version=11, action=WatchAction.UPDATE, node=down)
            control.tell(control.streams[0], event)
            await asyncio.wait_for(sight_of(terminal, "node w2: ready -> down: gone"), 10)
            terminal.press(b"q")
            await asyncio.wait_for(board, 10)

    with terminal.used():
        asyncio.run(go())
    shown = terminal.read()
    assert "2 of 3 nodes ready" in shown
    # What a task goes through on its way is for `skep events`.
    assert "starting -> running" in shown
    assert not re.search(": starting(?! -> )", shown)


def test_another_size_is_followed_at_once(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(top, "QUIET_PERIOD_S", 1000.0)

    async def go() -> None:
        async with client.connect(fake.ADDRESSES, seams=fake.seams(), deadline_s=5) as cluster:
            board = asyncio.create_task(top.live(cluster, "lab", ""))
            await asyncio.wait_for(sight_of(terminal, "3 of 3 nodes ready"), 10)
            termios.tcsetwinsize(terminal.slave, (10, 30))
            signal.raise_signal(signal.SIGWINCH)
            await asyncio.wait_for(sight_of(terminal, "skep: lab   leader m1   3 of …"), 10)
            terminal.press(b"q")
            await asyncio.wait_for(board, 10)

    with terminal.used():
        asyncio.run(go())


def test_many_changes_are_drawn_four_times_a_second() -> None:
    async def go() -> int:
        drawn = 0

        def draw() -> None:
            nonlocal drawn
            drawn += 1

        async with client.connect(fake.ADDRESSES, seams=fake.seams(), deadline_s=5) as cluster:
            look = top._Look(cluster, "lab", "")
            painting = asyncio.create_task(look.paint(draw))
            for _ in range(1000):
                await asyncio.sleep(0.01)
                look._changed.set()
            painting.cancel()
            await asyncio.gather(painting, return_exceptions=True)
        return drawn

    # Ten seconds, and the one drawn before anything is known.
    assert 35 <= loop.run(1, go()) <= 42


def test_without_colours_where_they_are_not_wanted(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    show(terminal, fake.seams(), "leader m1", b"q")
    assert "\x1b[1m" not in terminal.read()
