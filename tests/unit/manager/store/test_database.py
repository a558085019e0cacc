"""Commands, tables and snapshots: what is written is what is read, on every manager alike."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skep.domain.base import NodeId, ServiceId, replace
from skep.domain.control import WatchAction
from skep.domain.objects import Node, Object, Request, Revision, Service, Stack, Task
from skep.manager.store.core.command import (
    CHANGE_FRAME_BYTES,
    REQUESTS_AGE_LIMIT_NS,
    REQUESTS_FLOOR,
    REQUESTS_LIMIT,
    Change,
    Database,
    WireChange,
    encode_command,
    encode_row,
    wire_size,
)
from skep.manager.store.core.tables import KINDS, TABLES, Tables
from tests.support.domain import any_of
from tests.unit.manager.build import node, service, task

ROWS = st.one_of(*(any_of(kind) for kind in KINDS))


def write(*rows: Object, wall_ns: int = 1) -> bytes:
    return encode_command(wall_ns, [encode_row(row) for row in rows])


def remove(kind: str, id_: str, wall_ns: int = 1) -> bytes:
    return encode_command(wall_ns, [WireChange(kind=kind, id=id_)])


def content(database: Database) -> list[Object]:
    return [row for kind in KINDS for row in database.tables.all(kind)]


def stampless(row: Object) -> Object:
    return replace(row, version=0, created_ns=0, updated_ns=0)


def test_a_change_is_stamped_with_its_commit_and_told_with_what_it_replaced() -> None:
    database = Database()
    [created] = database.apply(5, write(node(), wall_ns=100))
    assert created == Change(
        5,
        WatchAction.CREATE,
        node(version=5, created_ns=100, updated_ns=100),
        None,
    )
    [updated] = database.apply(9, write(node(message="x"), wall_ns=200))
    assert updated == Change(
        9,
        WatchAction.UPDATE,
        node(message="x", version=9, created_ns=100, updated_ns=200),
        created.row,
    )
    [removed] = database.apply(10, remove("node", "n1", wall_ns=300))
    assert removed == Change(10, WatchAction.REMOVE, updated.row, updated.row)
    assert content(database) == []
    assert (database.version, database.wall_ns) == (10, 300)


def test_removing_what_is_gone_is_no_change() -> None:
    assert Database().apply(1, remove("task", "t1")) == []


def test_stamps_never_go_back_where_a_new_leader_s_clock_is_behind() -> None:
    database = Database()
    database.apply(1, write(node("n1"), wall_ns=500))
    [change] = database.apply(2, write(node("n2"), wall_ns=100))
    assert change.row.created_ns == 500


def test_a_commit_below_the_present_version_is_our_own_error() -> None:
    database = Database()
    database.apply(5, write(node()))
    with pytest.raises(AssertionError):
        database.apply(5, write(node()))


@settings(deadline=None)
@given(ROWS)
def test_every_row_survives_its_command(row: Object) -> None:
    database = Database()
    [change] = database.apply(7, write(row))
    assert stampless(change.row) == stampless(row)
    assert database.tables.get(type(row), row.id) == change.row


@settings(deadline=None)
@given(ROWS)
def test_the_size_of_a_change_is_never_underestimated(row: Object) -> None:
    change = encode_row(row)
    alone = len(encode_command(0, []))
    assert len(encode_command(0, [change])) - alone <= wire_size(change) + 4
    assert wire_size(change) >= CHANGE_FRAME_BYTES


def test_every_kind_of_row_has_a_table() -> None:
    assert set(TABLES.values()) == set(KINDS)


# ------------------------------------------------------------------------------------- tables

IDS = st.sampled_from(("a", "b", "c"))


@st.composite
def commands(draw: st.DrawFn) -> list[WireChange]:
    """Writes and removals of a few rows, names unique as callers see to."""
    return [draw(changes()) for _ in range(draw(st.integers(1, 4)))]


@st.composite
def changes(draw: st.DrawFn) -> WireChange:
    id_ = draw(IDS)
    kind = draw(st.sampled_from(("task", "service", "node")))
    if draw(st.booleans()) and draw(st.booleans()):
        return WireChange(kind=kind, id=id_)
    # An id's rows share a pool of names of its own, so that no two rows ever share one.
    name = f"{id_}-{draw(st.integers(0, 2))}"
    rows: dict[str, Object] = {
        "task": task(
            id_,
            service_id=ServiceId(draw(st.sampled_from(("s1", "s2")))),
            node_id=draw(st.sampled_from((None, NodeId("n1"), NodeId("n2")))),
        ),
        "service": service(id_, name),
        "node": node(name, id=NodeId(id_)),
    }
    return encode_row(rows[kind])


def reads(tables: Tables) -> Any:
    """All that can be asked, without regard to order."""
    return (
        [sorted(tables.all(kind), key=lambda row: row.id) for kind in KINDS],
        [sorted(t.id for t in tables.tasks_of_service(s)) for s in ("s1", "s2", "s3")],
        [sorted(t.id for t in tables.tasks_of_node(n)) for n in ("n1", "n2", "n3")],
        [
            tables.named(kind, f"{id_}-{number}")
            for kind in (Node, Service, Stack)
            for id_ in "abc"
            for number in range(3)
        ],
    )


@settings(deadline=None)
@given(st.lists(commands(), max_size=12))
def test_indexes_follow_every_write_and_a_snapshot_holds_everything(
    log: list[list[WireChange]],
) -> None:
    database = Database()
    for index, command in enumerate(log, start=1):
        database.apply(index, encode_command(index * 10, command))
        database.tables.check_invariants()
    copy = Database()
    copy.apply(1, write(node("left over")))
    copy.restore(database.version, database.snapshot())
    copy.tables.check_invariants()
    assert (copy.version, copy.wall_ns) == (database.version, database.wall_ns)
    assert reads(copy.tables) == reads(database.tables)
    assert content(copy) == content(database)
    # And from there on they stay alike.
    more = write(node("z"), task("z"), wall_ns=10_000)
    assert copy.apply(100, more) == database.apply(100, more)
    assert copy.snapshot() == database.snapshot()


def test_a_name_is_free_once_its_row_is_renamed_or_gone() -> None:
    tables = Tables()
    tables.put(service("a", "web"))
    tables.put(service("a", "shop"))
    assert tables.named(Service, "web") is None
    tables.put(service("b", "web"))
    found = tables.named(Service, "web")
    assert found is not None
    assert found.id == "b"
    tables.remove(Service, "b")
    assert tables.named(Service, "web") is None
    tables.check_invariants()


def test_names_of_two_namespaces_do_not_meet() -> None:
    tables = Tables()
    tables.put(service("a", "web"))
    tables.put(service("b", "web", namespace="other"))
    assert [tables.named(Service, "web", space) for space in ("default", "other", "third")] == [
        service("a", "web"),
        service("b", "web", namespace="other"),
        None,
    ]


# ----------------------------------------------------------------------------------- requests


def request(number: int) -> Request:
    return Request(id=f"r{number}", method="m", answer=b"a")


def test_answers_for_retries_are_kept_up_to_their_number() -> None:
    database = Database()
    for start in range(0, REQUESTS_LIMIT + 1000, 1000):
        rows = [request(start + number) for number in range(1000)]
        database.apply(start + 1, write(*rows))
    assert database.tables.count(Request) == REQUESTS_LIMIT
    assert database.tables.get(Request, "r999") is None
    assert database.tables.get(Request, "r1000") is not None


def test_answers_for_retries_are_kept_up_to_their_age() -> None:
    database = Database()
    old = [request(number) for number in range(REQUESTS_FLOOR)]
    for place, start in enumerate(range(0, REQUESTS_FLOOR, 500)):
        database.apply(place + 1, write(*old[start : start + 500], wall_ns=1))
    database.apply(10, write(request(REQUESTS_FLOOR), wall_ns=2))
    database.apply(11, write(node(), wall_ns=2 + REQUESTS_AGE_LIMIT_NS))
    assert database.tables.get(Request, "r0") is None
    assert database.tables.get(Request, "r1") is not None


def test_a_clock_that_jumps_ahead_does_not_forget_what_is_being_retried() -> None:
    database = Database()
    database.apply(1, write(request(1), wall_ns=1))
    database.apply(2, write(node(), wall_ns=10 * REQUESTS_AGE_LIMIT_NS))
    assert [row.id for row in database.tables.all(Request)] == ["r1"]


# -------------------------------------------------------------------------------- older bytes


def test_a_field_that_a_newer_manager_wrote_is_passed_over() -> None:
    row = msgspec.msgpack.decode(msgspec.msgpack.encode(node()))
    raw = msgspec.Raw(msgspec.msgpack.encode({**row, "invented_later": 1}))
    database = Database()
    database.apply(1, encode_command(1, [WireChange(kind="node", id="n1", data=raw)]))
    assert [stampless(row) for row in content(database)] == [node()]


def test_rows_of_all_kinds_come_back_in_the_order_of_creation() -> None:
    database = Database()
    database.apply(1, write(task("t2"), service("s1"), task("t1")))
    database.apply(2, write(task("t2", slot=5)))
    revision = Revision(id="s1.1", service_id=ServiceId("s1"), number=1, spec=service("s1").spec)
    database.apply(3, write(revision, task("t0")))
    copy = Database()
    copy.restore(3, database.snapshot())
    for each in (database, copy):
        assert [row.id for row in each.tables.all(Task)] == ["t2", "t1", "t0"]
