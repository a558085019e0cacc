"""The life of a task: one table, and nothing beside it."""

from __future__ import annotations

import itertools

import pytest

from skep.domain.states import (
    LEGAL_MOVES,
    TERMINAL,
    DesiredState,
    IllegalMove,
    TaskState,
    Writer,
    check_move,
    desired_order,
    order,
)

# The table as a person would draw it: from, to, and who moves it there.
LEGAL = """
new        pending    allocator
new        shutdown   orchestrator
pending    assigned   scheduler
pending    shutdown   orchestrator
assigned   accepted   worker
assigned   shutdown   worker
assigned   rejected   worker
assigned   orphaned   dispatcher
accepted   preparing  worker
accepted   shutdown   worker
accepted   rejected   worker
accepted   orphaned   dispatcher
preparing  ready      worker
preparing  shutdown   worker
preparing  rejected   worker
preparing  orphaned   dispatcher
ready      starting   worker
ready      shutdown   worker
ready      rejected   worker
ready      orphaned   dispatcher
starting   running    worker
starting   shutdown   worker
starting   failed     worker
starting   orphaned   dispatcher
running    complete   worker
running    shutdown   worker
running    failed     worker
running    orphaned   dispatcher
"""


def test_the_table_is_what_the_drawing_says() -> None:
    drawn = {tuple(line.split()) for line in LEGAL.strip().splitlines()}
    table = {
        (old.value, new.value, writer.value)
        for (old, new), writers in LEGAL_MOVES.items()
        for writer in writers
    }
    assert table == drawn


@pytest.mark.parametrize("writer", Writer)
def test_every_move_is_legal_or_refused_with_its_story(writer: Writer) -> None:
    for old, new in itertools.product(TaskState, TaskState):
        if f"{old.value:10} {new.value:10} {writer.value}\n" in LEGAL:
            check_move("t1", old, new, writer)
        else:
            with pytest.raises(IllegalMove) as caught:
                check_move("t1", old, new, writer)
            story = f"task=t1 from={old.value} to={new.value} writer={writer.value}"
            assert str(caught.value) == story


def test_legal_moves_only_go_forward_and_nothing_leaves_a_terminal_state() -> None:
    assert all(order(old) < order(new) for old, new in LEGAL_MOVES)
    assert not any(old in TERMINAL for old, _ in LEGAL_MOVES)


def test_every_task_can_end_and_every_state_can_be_reached() -> None:
    reached = {TaskState.NEW}
    for _ in TaskState:
        reached |= {new for old, new in LEGAL_MOVES if old in reached}
    assert reached == set(TaskState)
    for state in set(TaskState) - TERMINAL:
        assert (state, TaskState.SHUTDOWN) in LEGAL_MOVES


def test_what_is_wanted_of_a_task_is_ordered_from_starting_to_gone() -> None:
    assert sorted(DesiredState, key=desired_order) == [
        DesiredState.READY,
        DesiredState.RUNNING,
        DesiredState.SHUTDOWN,
        DesiredState.REMOVE,
    ]
