"""One reader of logs: which tasks it still wants, what was ordered of whom, and what is next.

Pages of different nodes come in as they like. Without follow, the one with the oldest first line
goes out first: whoever gets them can put all lines in order while holding one page of each node.
With follow, they go out as they come.

A node that is silent is waited for, but not for ever; then its tasks' output can't be had, and the
reader is told so. With follow, it is told once, and the output goes on where it ended when the node
is back.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from skep.domain.base import NodeId, SessionId, TaskId, lookup
from skep.domain.control import LogEvent, LogsRequest
from skep.domain.objects import Task
from skep.domain.session import LogOrder, LogPage, LogWanted
from skep.env import Ids
from skep.manager.logs.core.wanted import (
    Selection,
    Standing,
    is_over,
    node_name,
    standing,
    tasks_of,
)
from skep.manager.store.core.tables import View

# A worker answers within milliseconds, and within a second or two where the leader has changed.
PATIENCE_S = 5.0
# Of one order. Two, so that one can come while the other goes; each has some 32 KiB.
PAGES_WAITING = 2
# Before a node is asked again that broke off: whatever made it will mostly still be there.
RETRY_S = 0.5


@dataclass(frozen=True, slots=True)
class Outgoing:
    """For the reader: an event without its lines, and the lines as they came."""

    label: LogEvent
    lines: bytes = b""


@dataclass(eq=False)
class Order:
    """What one node was asked for. It is closed once nothing more may come of it."""

    message: LogOrder
    node_id: NodeId
    session_id: SessionId
    pages: deque[LogPage] = field(default_factory=deque)
    quiet_since: float = 0.0
    is_open: bool = False
    is_closed: bool = False
    left: set[TaskId] = field(default_factory=set)
    """The tasks whose last page has not come."""

    @property
    def is_spent(self) -> bool:
        """Whether all that came of it has gone out, and no more comes."""
        return not self.pages and (self.is_closed or not self.left)

    @property
    def has_room(self) -> bool:
        """Whether another page may come."""
        return len(self.pages) < PAGES_WAITING


@dataclass(eq=False)
class _Wanted:
    """One task of a reader."""

    task: Task
    node_name: str
    position: str
    missing_since: float
    order_at: float
    is_from_beginning: bool = False
    """It came into being while it was followed: neither `tail` nor `since_ns` is about it."""
    order: Order | None = None
    is_done: bool = False
    is_told: bool = False
    """The reader knows that its output can't be had at present."""

    @property
    def title(self) -> str:
        return f"{self.task.name}.{self.task.id}"


class Desk:
    """See the module. `sessions` says which session a node has at present."""

    def __init__(self, request: LogsRequest, selection: Selection, ids: Ids) -> None:
        self._request = request
        self._selection = selection
        self._ids = ids
        self._wanted: dict[TaskId, _Wanted] = {}
        self._orders: dict[str, Order] = {}
        self._notices: deque[Outgoing] = deque()
        self._is_first_look = True

    @property
    def orders(self) -> tuple[Order, ...]:
        """Those that something may still come of."""
        return tuple(self._orders.values())

    def look(
        self, now: float, view: View, sessions: Callable[[NodeId], SessionId | None]
    ) -> list[Order]:
        """See what tasks there are, and what has become of orders; the orders to send."""
        if self._is_first_look or self._request.is_follow:
            self._select(now, view)
        self._is_first_look = False
        for order in self.orders:
            is_lost = not order.is_closed and sessions(order.node_id) != order.session_id
            if is_lost or self._is_silent(now, order):
                self.close(now, order)
        ready: dict[tuple[NodeId, bool], list[_Wanted]] = {}
        for wanted in self._wanted.values():
            if wanted.is_done or wanted.order is not None:
                continue
            of = standing(view, wanted.task)
            node_id = wanted.task.node_id
            if of is not Standing.AT_NODE or node_id is None or sessions(node_id) is None:
                self._judge(now, wanted, of)
            elif now >= wanted.order_at:
                ready.setdefault((node_id, wanted.is_from_beginning), []).append(wanted)
        return [self._order(now, node_id, of, sessions) for (node_id, _), of in ready.items()]

    def _select(self, now: float, view: View) -> None:
        tasks = {task.id: task for task in tasks_of(view, self._selection)}
        positions = self._request.positions
        for task_id, task in tasks.items():
            known = self._wanted.get(task_id)
            if known is None:
                self._wanted[task_id] = _Wanted(
                    task,
                    node_name(view, task.node_id),
                    lookup(positions, task_id) or "",
                    missing_since=now,
                    order_at=now,
                    # A request that goes on knows all tasks that were there at its beginning.
                    is_from_beginning=bool(positions) or not self._is_first_look,
                )
            else:
                known.task = task
                known.node_name = node_name(view, task.node_id) or known.node_name
        for task_id in tuple(self._wanted):
            if task_id not in tasks and self._wanted[task_id].order is None:
                del self._wanted[task_id]

    def _judge(self, now: float, wanted: _Wanted, of: Standing) -> None:
        where = f"node {wanted.node_name}"
        match of:
            case Standing.NOTHING:
                wanted.is_done = True
            case Standing.NODE_GONE:
                self._cannot(wanted, f"{where} was removed")
                wanted.is_done = True
            case Standing.NODE_DOWN:
                self._cannot(wanted, f"{where} is down")
            case Standing.NOT_YET if not self._request.is_follow:
                wanted.is_done = True
            case Standing.NOT_YET:
                wanted.missing_since = now
            case Standing.AT_NODE if now - wanted.missing_since >= PATIENCE_S:
                self._cannot(wanted, f"{where} does not answer")

    def _cannot(self, wanted: _Wanted, why: str) -> None:
        wanted.is_done |= not self._request.is_follow
        if not wanted.is_told:
            wanted.is_told = True
            what = "the rest of the output" if wanted.position else "the output"
            self._notice(wanted, f"{why}: {what} of {wanted.title} can't be had")

    def _notice(self, wanted: _Wanted, problem: str) -> None:
        self._notices.append(Outgoing(self._label(wanted, problem=problem)))

    def _label(self, wanted: _Wanted, *, position: str = "", problem: str = "") -> LogEvent:
        return LogEvent(
            task_id=wanted.task.id,
            task_name=wanted.task.name,
            node_name=wanted.node_name,
            position=position,
            problem=problem,
        )

    def _is_silent(self, now: float, order: Order) -> bool:
        # An open stream that is followed may say nothing for days.
        is_waited_for = not order.is_open or not self._request.is_follow
        return (
            is_waited_for
            and not order.is_closed
            and not order.pages
            and bool(order.left)
            and now - order.quiet_since >= PATIENCE_S
        )

    def _order(
        self,
        now: float,
        node_id: NodeId,
        tasks: list[_Wanted],
        sessions: Callable[[NodeId], SessionId | None],
    ) -> Order:
        session_id = sessions(node_id)
        assert session_id is not None
        message = LogOrder(
            order_id=self._ids.new_id(),
            tasks=tuple(LogWanted(task_id=of.task.id, position=of.position) for of in tasks),
            tail=None if tasks[0].is_from_beginning else self._request.tail,
            since_ns=None if tasks[0].is_from_beginning else self._request.since_ns,
            is_follow=self._request.is_follow,
        )
        left = {of.task.id for of in tasks}
        order = Order(message, node_id, session_id, quiet_since=now, left=left)
        self._orders[message.order_id] = order
        for of in tasks:
            of.order = order
        return order

    # ------------------------------------------------------------------------ what comes

    def opened(self, now: float, order: Order) -> None:
        """The node has opened its stream."""
        order.is_open, order.quiet_since = True, now

    def arrived(self, now: float, order: Order, page: LogPage) -> None:
        """A page has come. There was room for it, and its task is of this order."""
        assert order.has_room
        order.quiet_since = now
        if order.is_closed or page.task_id not in order.left:
            return
        order.pages.append(page)
        if page.is_last:
            order.left.discard(page.task_id)

    def close(self, now: float, order: Order) -> None:
        """Nothing more may come of this order."""
        order.is_closed = True
        self._release(now, order)

    def _release(self, now: float, order: Order) -> None:
        """Once all of an order has gone out, what it did not bring is wanted of another."""
        if not order.is_spent:
            return
        self._orders.pop(order.message.order_id, None)
        for wanted in self._wanted.values():
            if wanted.order is order:
                wanted.order = None
                wanted.missing_since, wanted.order_at = now, now + RETRY_S
                if not wanted.is_done and not self._request.is_follow:
                    # Asking again would let others wait for a node that is of no use now.
                    did = "broke off" if order.is_open else "does not answer"
                    self._cannot(wanted, f"node {wanted.node_name} {did}")

    # ------------------------------------------------------------------------ what goes

    def take(self, now: float) -> Outgoing | None:
        """What the reader gets next, if that is known."""
        if self._notices:
            return self._notices.popleft()
        with_pages = [order for order in self._orders.values() if order.pages]
        if not with_pages:
            return None
        if not self._request.is_follow:
            if any(not order.pages and not order.is_spent for order in self._orders.values()):
                return None
            order = min(with_pages, key=lambda each: each.pages[0].first_ns)
        else:
            order = with_pages[0]
            # To the end of the queue, so that one that talks without end leaves others their turn.
            self._orders[order.message.order_id] = self._orders.pop(order.message.order_id)
        page = order.pages.popleft()
        order.quiet_since = now
        gone = self._gone(order, page)
        self._release(now, order)
        return gone

    def _gone(self, order: Order, page: LogPage) -> Outgoing:
        wanted = self._wanted[page.task_id]
        wanted.is_told = False
        wanted.position = page.position or wanted.position
        wanted.is_done |= page.is_last
        problem = page.problem
        if problem and page.is_last and wanted.task.is_terminal and not _ever_ran(wanted.task):
            problem = ""  # There is nothing of it because it never ran.
        if problem:
            problem = f"node {wanted.node_name}: {wanted.title}: {problem}"
        return Outgoing(self._label(wanted, position=page.position, problem=problem), page.lines)

    def is_over(self, view: View) -> bool:
        """Whether there is nothing left to come."""
        if self._is_first_look or self._orders or self._notices:
            return False
        if not all(wanted.is_done for wanted in self._wanted.values()):
            return False
        return not self._request.is_follow or is_over(view, self._selection)

    def check_invariants(self) -> None:
        """Called by tests after every step."""
        for order in self._orders.values():
            assert len(order.pages) <= PAGES_WAITING
            assert not order.is_spent
        for wanted in self._wanted.values():
            assert wanted.order is None or wanted.order.message.order_id in self._orders


def _ever_ran(task: Task) -> bool:
    return task.status.exit_code is not None
