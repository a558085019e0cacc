"""Configs, secrets and logins: what the agent takes in, and what waits until it has them."""

from __future__ import annotations

import textwrap

import pytest

from skep.domain.base import TaskId, replace
from skep.domain.session import (
    Assignment,
    AssignmentKind,
    AssignmentSet,
    FileKind,
    GivenFile,
    GivenLogin,
)
from skep.domain.states import DesiredState, TaskState
from skep.domain.storage import FileUse
from skep.worker.core.events import Call, TakeSupplies
from skep.worker.core.sets import FILES_LIMIT_BYTES, SequenceBroken, SetSequence
from skep.worker.core.supply import Supply
from skep.worker.engine.protocol import HeldState
from tests.unit.worker.fakes import assignment
from tests.unit.worker.play import Play, held, wanted

LOGIN = GivenLogin(server="r.io", username="u", password="p")


def trace(text: str) -> str:
    return textwrap.dedent(text).strip("\n")


def secret(id_: str, data: bytes = b"") -> GivenFile:
    return GivenFile(id=id_, name=f"name-{id_}", kind=FileKind.SECRET, data=data)


def using(of: Assignment, *ids: str, engine: str = "process") -> Assignment:
    uses = tuple(FileUse(name=f"name-{id_}", id=id_) for id_ in ids)
    run = replace(of.spec.task.run, secrets=uses)
    return replace(of, spec=replace(of.spec, task=replace(of.spec.task, run=run, engine=engine)))


def in_session(play: Play) -> Play:
    play.begin()
    play.welcome("s1", 3)
    play.saved()
    play.lines.clear()
    return play


# -------------------------------------------------------------------------------------- sets


def test_frames_are_joined_to_one_set_of_files_and_logins() -> None:
    sequence = SetSequence()
    kind = AssignmentKind.COMPLETE
    first = AssignmentSet(
        kind=kind,
        sequence=1,
        is_partial=True,
        files=(secret("a"),),
        files_removed=("x",),
        logins=(LOGIN,),
        has_logins=True,
    )
    assert sequence.add(first) is None
    last = AssignmentSet(kind=kind, sequence=1, files=(secret("b"),))
    assert sequence.add(last) == AssignmentSet(
        kind=kind,
        sequence=1,
        files=(secret("a"), secret("b")),
        files_removed=("x",),
        logins=(LOGIN,),
        has_logins=True,
    )


def test_a_set_of_endless_files_is_refused_before_memory_is_full() -> None:
    sequence = SetSequence()
    data = bytes(FILES_LIMIT_BYTES // 16)  # One object: this test takes no more than a frame.
    frame = AssignmentSet(
        kind=AssignmentKind.COMPLETE, sequence=1, is_partial=True, files=(secret("a", data),)
    )
    for _ in range(16):
        assert sequence.add(frame) is None
    with pytest.raises(SequenceBroken, match="bytes"):
        sequence.add(frame)


# -------------------------------------------------------------------------------- what is told


def test_a_complete_set_replaces_all_and_an_empty_one_says_so_only_where_there_was_something() -> (
    None
):
    supply = Supply()
    nothing = AssignmentSet(kind=AssignmentKind.COMPLETE, sequence=1)
    assert supply.taken(nothing) == []
    assert supply.taken(replace(nothing, files=(secret("a"),))) == [
        TakeSupplies((secret("a"),), (), (), is_all=True)
    ]
    assert supply.taken(nothing) == [TakeSupplies((), (), (), is_all=True)]


def test_an_increment_tells_what_it_says_and_no_more() -> None:
    supply = Supply()
    nothing = AssignmentSet(kind=AssignmentKind.INCREMENT, sequence=2)
    assert supply.taken(nothing) == []
    assert supply.taken(replace(nothing, files=(secret("a"),), files_removed=("b",))) == [
        TakeSupplies((secret("a"),), ("b",), None)
    ]
    assert supply.taken(replace(nothing, logins=(LOGIN,), has_logins=True)) == [
        TakeSupplies((), (), (LOGIN,))
    ]
    assert supply.taken(replace(nothing, has_logins=True)) == [TakeSupplies((), (), ())]


# --------------------------------------------------------------------------------------- lives


def test_files_are_at_hand_before_the_first_call_and_gone_after_the_last_task() -> None:
    play = in_session(Play())
    one = using(assignment(), "a")
    play.whole(one, files=(secret("a"),), logins=(LOGIN,))
    play.done(Call.PREPARE, "t1")
    play.change(wanted(one, DesiredState.SHUTDOWN), files_removed=("a",))
    assert play.text == trace(
        """
        0 the leader assigns t1 (wanted running)
            take in all: secret a, login r.io
            t1: assigned -> accepted, assigned
            t1: accepted -> preparing, assigned
            prepare t1
            save at 0.025
        0 done: prepare t1
            t1: preparing -> ready, prepared
            t1: ready -> starting, wanted running
            start t1
        0 the leader changes t1 (wanted shutdown)
            take in no a
            stop t1
        """
    )


def test_a_restarted_agent_prepares_and_starts_nothing_that_needs_files_before_it_has_them() -> (
    None
):
    first = in_session(Play())
    both = (using(assignment("t1"), "a"), using(assignment("t2"), "a"), assignment("t3"))
    first.whole(*both, files=(secret("a"),))
    first.done(Call.PREPARE, "t2")
    first.flush()
    first.saved()
    play = Play(first.disk)
    play.begin(held("t2", HeldState.PREPARED))
    play.saved()
    play.welcome("s2", 3)
    play.whole(*both, files=(secret("a"),))
    assert play.text == trace(
        """
        0 the agent begins; its engine holds t2 prepared
            save at 0.2
            prepare t3
            save term 3, t1 preparing #2, t2 starting #4, t3 preparing #2
        0 saved
        0 the leader of term 3 opens session s2
            report to s2: t1 preparing #2, t2 starting #4, t3 preparing #2
        0 the leader assigns t1 (wanted running), t2 (wanted running), t3 (wanted running)
            take in all: secret a
            prepare t1
            start t2
        """
    )


@pytest.mark.parametrize(("engine", "is_withheld"), [("docker", True), ("process", False)])
def test_what_may_need_a_login_is_not_prepared_before_logins_are_known(
    engine: str, is_withheld: bool
) -> None:
    first = in_session(Play())
    first.whole(using(assignment(), engine=engine))
    first.flush()
    first.saved()
    play = Play(first.disk)
    play.begin()
    assert ("prepare t1" in play.text) is not is_withheld
    assert "start t1" not in play.text


def test_a_withheld_call_is_not_made_for_a_task_that_is_stopped() -> None:
    first = in_session(Play())
    one = using(assignment(), "a")
    first.whole(one, files=(secret("a"),))
    first.flush()
    first.saved()
    play = Play(first.disk)
    play.begin()
    play.saved()
    play.welcome("s2", 3)
    play.lines.clear()
    play.whole(wanted(one, DesiredState.SHUTDOWN))
    assert play.text == trace(
        """
        0 the leader assigns t1 (wanted shutdown)
            stop t1
            save at 0.025
        """
    )
    machine = play.core.task(TaskId("t1"))
    assert machine is not None
    assert machine.status.state is TaskState.PREPARING
