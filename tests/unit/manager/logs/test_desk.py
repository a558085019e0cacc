"""One reader's desk: what is ordered, what goes out in which order, and what can't be had."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from skep.domain.base import NodeId, SessionId, TaskId
from skep.domain.control import LogsRequest
from skep.domain.objects import Node, NodeState, Service, Task, TaskStatus
from skep.domain.session import LogPage
from skep.domain.states import TaskState
from skep.env import CallError, DiceIds, Random, Rejected
from skep.manager.logs.core.desk import PAGES_WAITING, PATIENCE_S, RETRY_S, Desk, Order
from skep.manager.logs.core.wanted import TAIL_LIMIT, select
from skep.manager.store.core.tables import Tables
from tests.unit.manager.build import node, service, task


@dataclass
class Case:
    """A store with a service and its tasks, and a reader of it."""

    request: LogsRequest = LogsRequest(services=("web",))  # noqa: RUF009 - it is frozen
    now: float = 100.0
    tables: Tables = field(default_factory=Tables)
    sessions: dict[NodeId, SessionId] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.put(Service, service("s1", "web"))
        for name in ("n1", "n2"):
            self.put(Node, node(name))
            self.sessions[NodeId(name)] = SessionId(f"session-{name}")

    def put(self, kind: Any, row: Any) -> None:
        self.tables.put(row)

    def task(self, id_: str, node_id: str, state: TaskState = TaskState.RUNNING) -> Task:
        row = task(id_, state, node_id=NodeId(node_id), created_ns=len(id_))
        self.put(Task, row)
        return row

    def open(self) -> None:
        selection = select(self.tables, self.request)
        self.desk = Desk(self.request, selection, DiceIds(Random(1)))

    def look(self, passed_s: float = 0.0) -> list[Order]:
        self.now += passed_s
        orders = self.desk.look(self.now, self.tables, self.sessions.get)
        self.desk.check_invariants()
        return orders

    def page(self, order: Order, task_id: str, first_ns: int = 0, **more: Any) -> None:
        page = LogPage(task_id=TaskId(task_id), first_ns=first_ns, lines=b"%d" % first_ns, **more)
        self.desk.arrived(self.now, order, page)
        self.desk.check_invariants()

    def taken(self) -> list[str]:
        """All that goes out now."""
        found = []
        while (out := self.desk.take(self.now)) is not None:
            self.desk.check_invariants()
            found.append(out.label.problem or f"{out.label.task_id} {out.lines.decode()}")
        return found

    @property
    def is_over(self) -> bool:
        return self.desk.is_over(self.tables)


def opened(follow: bool = False, **request: Any) -> Case:
    case = Case(LogsRequest(services=("web",), is_follow=follow, **request))
    case.task("a", "n1")
    case.task("b", "n2")
    case.open()
    return case


def test_pages_go_out_in_the_order_of_their_first_lines() -> None:
    case = opened(tail=7)
    one, two = case.look()
    assert [order.message.tail for order in (one, two)] == [7, 7]
    assert one.message.order_id != two.message.order_id
    case.page(one, "a", 10)
    case.page(one, "a", 30)
    assert not one.has_room
    # The other node may still have something older.
    assert case.taken() == []
    case.page(two, "b", 20)
    case.page(two, "b", 40, is_last=True)
    assert case.taken() == ["a 10", "b 20", "a 30"]
    assert not case.is_over
    case.page(one, "a", 50, is_last=True)
    assert case.taken() == ["b 40", "a 50"]
    assert case.is_over


def test_what_is_followed_goes_out_as_it_comes_and_by_turns() -> None:
    case = opened(follow=True)
    one, two = case.look()
    for first in range(PAGES_WAITING):
        case.page(one, "a", first)
    assert case.desk.take(case.now) is not None
    case.page(two, "b", 5)
    assert case.taken() == ["b 5", "a 1"]
    assert not case.is_over


def test_a_node_that_is_down_is_told_of_and_does_not_hold_up_the_others() -> None:
    case = opened()
    case.put(Node, node("n2", state=NodeState.DOWN))
    del case.sessions[NodeId("n2")]
    [one] = case.look()
    case.page(one, "a", 1, is_last=True)
    assert case.taken() == ["node n2 is down: the output of web.1.b can't be had", "a 1"]
    assert case.is_over


def test_a_node_without_a_session_is_waited_for_but_not_for_ever() -> None:
    case = opened()
    del case.sessions[NodeId("n2")]
    [one] = case.look()
    case.page(one, "a", 1, is_last=True)
    assert case.taken() == ["a 1"]
    assert case.look(PATIENCE_S - 0.1) == []
    assert case.taken() == []
    case.look(0.1)
    assert case.taken() == ["node n2 does not answer: the output of web.1.b can't be had"]
    assert case.is_over


@pytest.mark.parametrize("is_opened", [False, True])
def test_a_node_that_stays_silent_is_given_up(is_opened: bool) -> None:
    case = opened()
    one, two = case.look()
    case.page(one, "a", 1, is_last=True)
    if is_opened:
        case.desk.opened(case.now, two)
    case.look(PATIENCE_S)
    did = "broke off" if is_opened else "does not answer"
    assert case.taken() == [f"node n2 {did}: the output of web.1.b can't be had", "a 1"]
    assert case.is_over
    assert two.is_closed


def test_time_that_the_reader_takes_is_not_the_nodes_silence() -> None:
    case = opened()
    one, two = case.look()
    for order, task_id in ((one, "a"), (two, "b")):
        case.desk.opened(case.now, order)
        case.page(order, task_id, 1)
    case.now += 60
    assert case.taken() == ["a 1"]
    case.look()
    assert not one.is_closed
    assert not two.is_closed
    case.page(one, "a", 2)
    assert case.taken() == ["b 1"]
    case.look(PATIENCE_S - 0.1)
    assert not two.is_closed
    case.look(0.1)
    assert two.is_closed


def test_a_node_that_breaks_off_and_is_back_goes_on_where_it_was() -> None:
    case = opened(follow=True, tail=3, since_ns=5)
    one, two = case.look()
    case.page(one, "a", 1, position="p1")
    case.page(two, "b", 2, position="q1")
    assert case.taken() == ["a 1", "b 2"]
    case.sessions[NodeId("n2")] = SessionId("another")
    assert case.look() == []
    [again] = case.look(RETRY_S)
    assert [(of.task_id, of.position) for of in again.message.tasks] == [("b", "q1")]
    assert case.taken() == []


def test_a_follower_is_told_once_and_told_nothing_when_it_is_short() -> None:
    case = opened(follow=True)
    _, two = case.look()
    case.page(two, "b", 2, position="q1")
    case.taken()
    session = case.sessions.pop(NodeId("n2"))
    case.look(1)
    case.look(PATIENCE_S)
    words = "node n2 does not answer: the rest of the output of web.1.b can't be had"
    assert case.taken() == [words]
    case.put(Node, node("n2", state=NodeState.DOWN))
    case.look(PATIENCE_S)
    assert case.taken() == []
    case.put(Node, node("n2"))
    case.sessions[NodeId("n2")] = session
    [again] = case.look(1)
    assert again.message.tasks[0].position == "q1"
    case.page(again, "b", 3)
    assert case.taken() == ["b 3"]


def test_new_tasks_are_followed_from_their_beginning_once_they_are_ready() -> None:
    case = opened(follow=True, tail=1)
    case.look()
    case.task("ccc", "n1", TaskState.ASSIGNED)
    assert case.look(1) == []
    case.task("ccc", "n1", TaskState.READY)
    [order] = case.look(1)
    assert order.message.tail is None
    assert [of.task_id for of in order.message.tasks] == ["ccc"]


def test_a_request_that_goes_on_asks_each_task_for_what_comes_after() -> None:
    case = opened(follow=True, tail=1, positions=(("a", "p"),))
    orders = case.look()
    wanted = {of.task_id: of.position for order in orders for of in order.message.tasks}
    assert wanted == {"a": "p", "b": ""}
    # All of what is new, rather than the one line that somebody asked for before it was there.
    assert [order.message.tail for order in orders] == [None, None]


def test_a_follow_of_single_tasks_ends_with_them() -> None:
    case = Case(LogsRequest(tasks=("a",), is_follow=True))
    case.task("a", "n1")
    case.open()
    [order] = case.look()
    case.task("a", "n1", TaskState.FAILED)
    case.page(order, "a", 1, is_last=True)
    assert case.taken() == ["a 1"]
    assert case.is_over


def test_tasks_that_never_ran_have_no_output_and_that_is_no_problem() -> None:
    case = Case()
    case.task("a", "n1", TaskState.REJECTED)
    case.task("bb", "n1", TaskState.NEW)
    case.task("ccc", "n1", TaskState.ASSIGNED)
    case.put(Task, task("dddd", TaskState.SHUTDOWN))
    case.task("eeeee", "n1", TaskState.SHUTDOWN)
    case.open()
    [order] = case.look()
    case.page(order, "eeeee", problem="never prepared", is_last=True)
    assert case.taken() == ["eeeee 0"]
    assert case.is_over


def test_output_that_a_node_has_lost_is_a_problem_if_there_was_any() -> None:
    case = Case()
    status = TaskStatus(state=TaskState.FAILED, exit_code=1)
    case.put(Task, task("a", node_id=NodeId("n1"), status=status))
    case.put(Task, task("b", TaskState.FAILED, node_id=NodeId("gone")))
    case.open()
    [order] = case.look()
    case.page(order, "a", problem="no such task", is_last=True)
    assert case.taken() == [
        "node gone was removed: the output of web.1.b can't be had",
        "node n1: web.1.a: no such task",
    ]


def test_requests_are_checked() -> None:
    case = Case()
    with pytest.raises(CallError, match="there is no service"):
        select(case.tables, LogsRequest(services=("nope",)))
    for request in (
        LogsRequest(),
        LogsRequest(services=("web",) * 101),
        LogsRequest(services=("web",), tail=-1),
        LogsRequest(services=("web",), tail=TAIL_LIMIT + 1),
    ):
        with pytest.raises(Rejected):
            select(case.tables, request)
