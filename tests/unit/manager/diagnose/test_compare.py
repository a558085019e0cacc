"""What a person who asks for trouble is told, from what nodes and managers say."""

from __future__ import annotations

from typing import Any

from skep.domain.base import NodeId
from skep.domain.control import DiagnoseNetworkResponse
from skep.domain.endpoints import Diagnosis
from skep.domain.objects import Node, NodeDescription, NodeState
from skep.manager.diagnose.core.compare import judged, merged
from tests.unit.manager.build import node


def meshed(number: int, state: NodeState = NodeState.READY) -> Node:
    description = NodeDescription(hostname="h", mesh_address="192.0.2.1:1")
    return node(f"n{number}", description=description, state=state)


def said(number: int, held: int = 9, applied: int | None = None, **more: Any) -> Diagnosis:
    return Diagnosis(
        question_id="q",
        node_id=NodeId(f"n{number}"),
        plane=more.pop("plane", "kernel"),
        held_version=held,
        applied_version=held if applied is None else applied,
        **more,
    )


def answer(*diagnoses: Diagnosis, version: int = 9, **silent: str) -> DiagnoseNetworkResponse:
    return DiagnoseNetworkResponse(
        version=version, diagnoses=diagnoses, silent=tuple(silent.items())
    )


NODES = {each.id: each for each in (meshed(1), meshed(2))}


def test_nodes_that_are_as_managers_have_it() -> None:
    whole = judged(answer(said(2), said(1)), NODES, 9)
    assert [each.node_id for each in whole.diagnoses] == ["n1", "n2"]
    assert (whole.silent, whole.differences, whole.version) == ((), (), 9)
    # What came after the last change of endpoints is no business of theirs.
    assert judged(answer(said(1, 7), said(2, 9)), NODES, 7).differences == ()


def test_what_differs_is_said_node_by_node() -> None:
    behind = said(1, 5)
    torn = said(2, 9, 8, problems=("web: port 80: taken",), differences=("a bridge is missing",))
    assert judged(answer(torn, behind), NODES, 9).differences == (
        "n1: holds version 5, but 9 is the last that changed something",
        "n2: version 8 is in force, 9 is held",
    )
    [mixed] = judged(answer(said(1), said(2, plane="relay")), NODES, 9).differences
    assert "different data planes (kernel, relay)" in mixed


def test_who_says_nothing_is_named_with_the_reason() -> None:
    down = {**NODES, NodeId("n3"): meshed(3, NodeState.DOWN), NodeId("n4"): node("n4")}
    whole = judged(answer(said(1), n2="gave no answer in 4 s"), down, 9)
    assert whole.silent == (("n2", "gave no answer in 4 s"), ("n3", "the node is down"))
    [(_, why)] = judged(answer(said(1)), NODES, 9).silent
    assert why == "no manager has a netproxy of it at the other end"


def test_what_several_managers_heard_is_one_answer() -> None:
    moved = merged((answer(said(1, 5), version=8, n2="late"), answer(said(1, 9), said(2))))
    assert {each.node_id: each.held_version for each in moved.diagnoses} == {"n1": 9, "n2": 9}
    assert moved.version == 9
    assert judged(moved, NODES, 9).silent == ()
