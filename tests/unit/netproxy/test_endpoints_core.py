"""What is held, what is in force, and what is acknowledged: events in, all effects compared."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skep.domain.base import NodeId, ServiceId, TaskId, replace
from skep.domain.endpoints import Endpoint, EndpointUpdate, MeshNode, ServiceEndpoints
from skep.domain.spec import Port
from skep.netproxy.core.endpoints import (
    BEHIND_LIMIT_S,
    FIRST_RETRY_S,
    LONGEST_RETRY_S,
    STEP_LIMIT_BYTES,
    Apply,
    Cut,
    Effect,
    EndpointTable,
    Event,
    PlaneApplied,
    RetryReached,
    Save,
    SendApplied,
    SendHello,
    SetRetry,
    StateLoaded,
    StreamLost,
    StreamOpened,
    UpdateReceived,
)
from skep.netproxy.core.routes import build

HERE = NodeId("here")


def web(*task_ids: str, name: str = "web", published: int = 80) -> ServiceEndpoints:
    return ServiceEndpoints(
        service_id=ServiceId(f"id-{name}"),
        name=name,
        ports=(Port(target=8080, published=published),),
        endpoints=tuple(
            Endpoint(task_id=TaskId(t), node_id=HERE, address="127.0.16.1") for t in task_ids
        ),
    )


def whole(version: int, *services: ServiceEndpoints, **more: Any) -> EndpointUpdate:
    return EndpointUpdate(
        from_version=0, version=version, is_complete=True, services=services, **more
    )


def step(
    from_version: int, version: int, *services: ServiceEndpoints, **more: Any
) -> EndpointUpdate:
    return EndpointUpdate(from_version=from_version, version=version, services=services, **more)


def received(update: EndpointUpdate, now: float = 0.0, size_bytes: int = 100) -> UpdateReceived:
    return UpdateReceived(now, update, size_bytes)


def apply(version: int, *services: ServiceEndpoints, nodes: tuple[MeshNode, ...] = ()) -> Apply:
    return Apply(build(HERE, version, services, {node.node_id: node for node in nodes}))


class Script:
    """Steps a table, and checks it after every step."""

    def __init__(self) -> None:
        self.table = EndpointTable(HERE)

    def __call__(self, event: Event) -> list[Effect]:
        effects = self.table.step(event)
        self.table.check_invariants()
        return effects


def started(*services: ServiceEndpoints, version: int = 0) -> Script:
    """Started from what was on disk, all of it in force, no manager yet."""
    script = Script()
    if not version:
        assert script(StateLoaded(0, (), ())) == []
        return script
    assert script(StateLoaded(version, services, ())) == [apply(version, *services)]
    assert script(PlaneApplied(0.0, version)) == []
    return script


def following(*services: ServiceEndpoints, version: int = 0) -> Script:
    script = started(*services, version=version)
    assert script(StreamOpened()) == [SendHello(version)]
    return script


def test_the_first_complete_set_is_applied_saved_and_then_acknowledged() -> None:
    script = following()
    assert script(received(whole(7, web("t1")))) == [apply(7, web("t1")), Save()]
    assert script(PlaneApplied(0.0, 7)) == [SendApplied(7)]


def test_what_was_on_disk_is_in_force_before_any_manager_answers() -> None:
    script = started(web("t1"), version=7)
    assert script.table.in_force == 7
    assert script(StreamOpened()) == [SendHello(7)]


def test_an_increment_replaces_adds_and_removes() -> None:
    db = web("d1", name="db", published=81)
    script = following(web("t1"), db, version=7)
    update = step(
        7,
        9,
        web("t2"),
        removed_services=(db.service_id,),
        nodes=(MeshNode(node_id=NodeId("n2"), mesh_address="127.0.0.2:7946"),),
    )
    assert script(received(update)) == [apply(9, web("t2")), Save()]
    assert set(script.table.nodes) == {"n2"}
    assert script(PlaneApplied(0.0, 9)) == [SendApplied(9)]
    assert script(received(step(9, 10, removed_nodes=(NodeId("n2"),)))) == [
        apply(10, web("t2")),
        Save(),
    ]


def test_a_version_that_changes_nothing_is_in_force_at_once() -> None:
    script = following(web("t1"), version=7)
    assert script(received(step(7, 12))) == [SendApplied(12)]


def test_a_sign_of_life_says_nothing_new() -> None:
    script = following(web("t1"), version=7)
    assert script(received(step(7, 7))) == []


@pytest.mark.parametrize(
    ("update", "why"),
    [
        (step(8, 9, web("t2")), "a step from 8, but 7 is held"),
        (step(6, 9, web("t2")), "a step from 6, but 7 is held"),
        (step(8, 9), "a step from 8, but 7 is held"),
        (step(7, 6), "a step back, from 7 to 6"),
    ],
)
def test_a_gap_is_never_papered_over(update: EndpointUpdate, why: str) -> None:
    script = following(web("t1"), version=7)
    assert script(received(update)) == [Cut(why)]
    assert script.table.services == {"id-web": web("t1")}


def test_after_a_gap_the_whole_is_asked_for_until_it_has_come() -> None:
    script = following(web("t1"), version=7)
    script(received(step(8, 9, web("t2"))))
    assert script(StreamOpened()) == [SendHello(0)]
    script(StreamLost())
    assert script(StreamOpened()) == [SendHello(0)]
    assert script(received(whole(9, web("t2")))) == [apply(9, web("t2")), Save()]
    script(PlaneApplied(0.0, 9))
    script(StreamLost())
    assert script(StreamOpened()) == [SendHello(9)]


def test_frames_after_a_cut_are_not_heard() -> None:
    script = following(web("t1"), version=7)
    script(received(step(8, 9)))
    assert script(received(whole(9, web("t2")))) == []


def test_a_step_in_several_frames_counts_once_it_is_whole() -> None:
    script = following()
    db = web("d1", name="db", published=81)
    assert script(received(whole(7, web("t1"), is_partial=True))) == []
    assert script.table.services == {}
    assert script(received(whole(7, db))) == [apply(7, web("t1"), db), Save()]


def test_a_step_that_breaks_off_is_forgotten() -> None:
    script = following()
    script(received(whole(7, web("t1"), is_partial=True)))
    script(StreamLost())
    assert script(StreamOpened()) == [SendHello(0)]
    assert script(received(whole(8, web("t2")))) == [apply(8, web("t2")), Save()]


def test_a_frame_of_another_step_amid_one_is_refused() -> None:
    script = following()
    script(received(whole(7, web("t1"), is_partial=True)))
    assert script(received(whole(8, web("t2")))) == [Cut("a frame of version 8 amid another step")]


def test_a_step_without_end_is_refused() -> None:
    script = following()
    part = whole(7, web("t1"), is_partial=True)
    assert script(received(part, size_bytes=STEP_LIMIT_BYTES)) == []
    assert script(received(part, size_bytes=1)) == [
        Cut(f"version 7 is over {STEP_LIMIT_BYTES} bytes")
    ]


def test_updates_during_an_apply_become_one_apply_and_only_what_is_in_force_is_told() -> None:
    script = following()
    assert script(received(whole(7, web("t1")))) == [apply(7, web("t1")), Save()]
    assert script(received(step(7, 8, web("t2")))) == [Save()]
    assert script(received(step(8, 9, web("t3")))) == [Save()]
    assert script(PlaneApplied(0.0, 7)) == [SendApplied(7), apply(9, web("t3"))]
    assert script(received(step(9, 10))) == []  # changes nothing, but 9 is not in force yet
    assert script(PlaneApplied(0.0, 9)) == [SendApplied(10)]


def test_a_hello_amid_an_apply_asks_for_the_whole() -> None:
    """It may not claim what is not in force, and an increment must start at what is held."""
    script = following(web("t1"), version=7)
    script(received(step(7, 8, web("t2"))))
    script(StreamLost())
    assert script(StreamOpened()) == [SendHello(0)]
    assert script(PlaneApplied(0.0, 8)) == [SendApplied(8)]
    assert script(received(whole(8, web("t2")))) == []


def test_the_whole_asked_for_again_is_acknowledged_again() -> None:
    script = following(web("t1"), version=7)
    script(received(step(9, 10)))
    assert script(StreamOpened()) == [SendHello(0)]
    assert script(received(whole(7, web("t1")))) == [SendApplied(7)]


def test_what_went_wrong_is_told_and_tried_again_ever_more_slowly() -> None:
    script = following()
    taken = ("port 80 (web): address already in use",)
    script(received(whole(7, web("t1"))))
    waits = []
    assert script(PlaneApplied(0.0, 7, taken)) == [
        SendApplied(7, taken),
        SetRetry(FIRST_RETRY_S),
    ]
    for _ in range(8):
        assert script(RetryReached()) == [apply(7, web("t1"))]
        [retry] = script(PlaneApplied(0.0, 7, taken))
        assert isinstance(retry, SetRetry)
        waits.append(retry.at)
    assert waits == [0.2, 0.4, 0.8, 1.6, 3.2, LONGEST_RETRY_S, LONGEST_RETRY_S, LONGEST_RETRY_S]
    assert script(RetryReached()) == [apply(7, web("t1"))]
    assert script(PlaneApplied(0.0, 7)) == [SendApplied(7)]


def test_a_new_manager_hears_of_errors_that_stand() -> None:
    script = Script()
    script(StateLoaded(7, (web("t1"),), ()))
    script(PlaneApplied(0.0, 7, ("port 80 (web): taken",)))
    assert script(StreamOpened()) == [SendHello(7), SendApplied(7, ("port 80 (web): taken",))]


def test_problems_in_the_managers_word_are_told_but_not_retried() -> None:
    script = following()
    away = replace(web("t1").endpoints[0], node_id=NodeId("there"))
    script(received(whole(7, replace(web("t1"), endpoints=(away,)))))
    told = ("web: task t1 can't be reached: its node there has no mesh address",)
    assert script(PlaneApplied(0.0, 7)) == [SendApplied(7, told)]


def test_a_manager_that_lags_is_left_for_a_while_and_then_believed() -> None:
    script = following(web("t1"), version=7)
    old = whole(5, web("t0"))
    assert script(received(old, now=100.0)) == [Cut("the manager is at 5, behind 7")]
    script(StreamOpened())
    late = 100.0 + BEHIND_LIMIT_S
    assert script(received(old, now=late - 0.1)) == [Cut("the manager is at 5, behind 7")]
    script(StreamOpened())
    assert script(received(old, now=late)) == [apply(5, web("t0")), Save()]
    assert script(PlaneApplied(late, 5)) == [SendApplied(5)]


def test_a_manager_that_is_not_behind_clears_the_suspicion() -> None:
    script = following(web("t1"), version=7)
    script(received(whole(5), now=100.0))
    script(StreamOpened())
    script(received(whole(8, web("t1")), now=101.0))
    assert script(received(whole(6), now=200.0)) == [Cut("the manager is at 6, behind 8")]


HISTORY = {version: (web(f"t{version // 2}"),) for version in range(1, 20)}
VERSIONS = st.integers(1, 19)


class Life:
    """A table with a data plane and a stream that do as they are told, in any order."""

    def __init__(self) -> None:
        self.script = Script()
        self.pending: Apply | None = None
        self.is_open = False
        self.in_force: tuple[ServiceEndpoints, ...] = ()
        self.feed(StateLoaded(0, (), ()))

    def feed(self, event: Event) -> None:
        for effect in self.script(event):
            match effect:
                case Apply():
                    assert self.pending is None
                    self.pending = effect
                case SendApplied(version):
                    assert self.is_open
                    assert self.in_force == HISTORY[version]
                case Cut():
                    self.is_open = False
                case _:
                    pass

    def open(self) -> None:
        self.is_open = True
        self.feed(StreamOpened())

    def lose(self) -> None:
        self.is_open = False
        self.feed(StreamLost())

    def apply(self) -> None:
        if self.pending is not None:
            desired, self.pending = self.pending.desired, None
            self.in_force = HISTORY.get(desired.version, ())
            assert desired == build(HERE, desired.version, self.in_force, {})
            self.feed(PlaneApplied(0.0, desired.version))


def test_what_a_whole_says_again_is_the_very_same_object() -> None:
    """So that nobody who knows it looks at it again."""
    table = EndpointTable(HERE)
    table.step(StateLoaded(0, (), ()))
    table.step(StreamOpened())
    table.step(received(whole(4, web("t1"), web("t2", name="other"))))
    before = dict(table.services)
    table.step(received(whole(5, web("t1"), web("t3", name="other"))))
    same, other = ServiceId("id-web"), ServiceId("id-other")
    assert table.services[same] is before[same]
    assert table.services[other] is not before[other]


@given(st.data())
def test_whatever_comes_only_what_is_in_force_is_ever_acknowledged(data: st.DataObject) -> None:
    """What is acknowledged was confirmed by the data plane with that version's content, and what
    is held is the content of the version that it claims to be."""
    life = Life()
    for _ in range(data.draw(st.integers(1, 30))):
        match data.draw(st.sampled_from(["open", "lose", "whole", "step", "apply", "retry"])):
            case "open":
                life.open()
            case "lose":
                life.lose()
            case "whole":
                version = data.draw(VERSIONS)
                life.feed(received(whole(version, *HISTORY[version])))
            case "step":
                version = data.draw(VERSIONS)
                start = data.draw(st.sampled_from([life.script.table.version, version - 1]))
                life.feed(received(step(start, version, *HISTORY[version])))
            case "apply":
                life.apply()
            case _:
                life.feed(RetryReached())
    table = life.script.table
    assert tuple(table.services.values()) == HISTORY.get(table.version, ())


def test_who_knows_nothing_changes_nothing_until_a_manager_has_spoken() -> None:
    """What an earlier process has put in force goes on."""
    script = Script()
    assert script(StateLoaded(0, (), ())) == []
    assert script(StreamOpened()) == [SendHello(0)]
    whole = EndpointUpdate(from_version=0, version=4, is_complete=True)
    assert script(received(whole)) == [apply(4), Save()]
    assert script(PlaneApplied(0.0, 4)) == [SendApplied(4)]


def test_a_version_that_may_still_lead_to_old_tasks_is_not_acknowledged() -> None:
    script = following(web("t1"), version=7)
    gone = EndpointUpdate(from_version=7, version=8, services=(web(),))
    assert script(received(gone)) == [apply(8, web()), Save()]
    failed = PlaneApplied(1.0, 8, ("rules: no memory",), is_in_force=False)
    assert script(failed) == [SendApplied(7, ("rules: no memory",)), SetRetry(1.1)]
    # Later versions that change nothing don't make it so.
    assert script(received(EndpointUpdate(from_version=8, version=9))) == []
    assert script.table.in_force == 7
    assert script(RetryReached()) == [apply(9, web())]
    assert script(PlaneApplied(1.2, 9)) == [SendApplied(9)]
