"""A transaction reads its own writes in whatever way they are asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skep.domain.base import NodeId, ServiceId, replace
from skep.domain.objects import Node, Object, Service, Task
from skep.domain.states import DesiredState, TaskState
from skep.manager.store.core.command import Database, encode_command
from skep.manager.store.core.tables import KINDS, View
from skep.manager.store.core.transaction import PENDING_VERSION, Transaction
from tests.unit.manager.build import node, service, task

Op = Callable[[Transaction], None]


def put(tx: Transaction, row: Object) -> None:
    old = tx.get(type(row), row.id)
    if isinstance(row, Task) and isinstance(old, Task) and old.node_id is not None:
        row = replace(row, node_id=old.node_id)
    (tx.create if old is None else tx.update)(row)


@st.composite
def ops(draw: st.DrawFn) -> Op:
    id_ = draw(st.sampled_from("abc"))
    name = f"{id_}-{draw(st.integers(0, 2))}"
    kinds: tuple[type[Object], ...] = (Task, Service, Node)
    kind = draw(st.sampled_from(kinds))
    if draw(st.integers(0, 3)) == 0:
        return lambda tx: tx.remove(kind, id_)
    rows: dict[type[Object], Object] = {
        Task: task(
            id_,
            service_id=ServiceId(draw(st.sampled_from(("s1", "s2")))),
            node_id=draw(st.sampled_from((None, NodeId("n1"), NodeId("n2")))),
        ),
        Service: service(id_, name),
        Node: node(name, id=NodeId(id_)),
    }
    return lambda tx: put(tx, rows[kind])


def reads(view: View) -> Any:
    """All that can be asked, without regard to order and stamps."""

    def plain(rows: Any) -> list[Object]:
        found = [replace(row, version=0, created_ns=0, updated_ns=0) for row in rows if row]
        return sorted(found, key=lambda row: row.id)

    return (
        [plain(view.all(kind)) for kind in KINDS],
        [plain([view.get(kind, id_)]) for kind in (Task, Service, Node) for id_ in "abc"],
        [plain(view.tasks_of_service(of)) for of in ("s1", "s2", "s3")],
        [plain(view.tasks_of_node(of)) for of in ("n1", "n2", "n3")],
        [
            plain([view.named(kind, f"{id_}-{number}")])
            for kind in (Service, Node)
            for id_ in "abc"
            for number in range(3)
        ],
    )


@settings(deadline=None)
@given(
    st.lists(ops(), max_size=6),
    st.lists(st.lists(ops(), max_size=6), min_size=1, max_size=3),
)
def test_what_a_transaction_shows_is_what_its_command_makes(
    before: list[Op], writers: list[list[Op]]
) -> None:
    """Several writers' functions, one over the other, as the store runs them."""
    database = Database()
    base = Transaction(database.tables, 1)
    for op in before:
        op(base)
    database.apply(1, encode_command(1, base.changes()))
    outer = Transaction(database.tables, 2)
    changes = []
    for writer in writers:
        inner = Transaction(outer, 2)
        for op in writer:
            op(inner)
        changes += inner.changes()
        seen = reads(inner)
        outer.merge(inner)
        assert reads(outer) == seen
    database.apply(2, encode_command(2, changes))
    database.tables.check_invariants()
    assert reads(database.tables) == seen


def test_a_write_has_no_version_before_its_commit_and_its_stamps_already() -> None:
    tx = Transaction(Database().tables, 70)
    tx.create(node())
    assert tx.get(Node, "n1") == node(version=PENDING_VERSION, created_ns=70, updated_ns=70)


def test_what_another_function_threw_away_is_never_seen() -> None:
    outer = Transaction(Database().tables, 1)
    Transaction(outer, 1).create(node())
    assert outer.get(Node, "n1") is None
    assert outer.is_empty


FORWARD = [
    (task(), task(state=TaskState.PENDING)),
    (task(desired=DesiredState.READY), task(desired=DesiredState.REMOVE)),
    (task(), task(node_id=NodeId("n1"))),
    (task(state=TaskState.RUNNING), task(state=TaskState.RUNNING, address="x")),
]
BACKWARD = [
    (task(state=TaskState.PENDING), task(), "state=pending->new"),
    (
        task(desired=DesiredState.SHUTDOWN),
        task(desired=DesiredState.RUNNING),
        "desired=shutdown->running",
    ),
    (task(node_id=NodeId("n1")), task(node_id=NodeId("n2")), "a task never moves"),
    (task(node_id=NodeId("n1")), task(), "a task never moves"),
]


@pytest.mark.parametrize(("old", "new"), FORWARD)
def test_a_task_may_go_forward(old: Task, new: Task) -> None:
    tx = Transaction(Database().tables, 1)
    tx.create(old)
    tx.update(new)
    found = tx.get(Task, "t1")
    assert found is not None
    assert (found.status, found.desired_state) == (new.status, new.desired_state)


@pytest.mark.parametrize(("old", "new", "story"), BACKWARD)
def test_a_task_that_went_back_tells_its_story(old: Task, new: Task, story: str) -> None:
    tx = Transaction(Database().tables, 1)
    tx.create(old)
    with pytest.raises(AssertionError, match=f"task=t1 .*{story}"):
        tx.update(new)


def test_creating_what_exists_and_changing_what_does_not_are_our_own_errors() -> None:
    tx = Transaction(Database().tables, 1)
    with pytest.raises(AssertionError, match="node=n1 is gone"):
        tx.update(node())
    tx.create(node())
    with pytest.raises(AssertionError, match="node=n1 exists"):
        tx.create(node())
