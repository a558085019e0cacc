"""Where nodes and managers differ, in words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from skep.domain.base import NodeId, pairs
from skep.domain.control import DiagnoseNetworkResponse
from skep.domain.endpoints import Diagnosis
from skep.domain.objects import Node, NodeState


def merged(parts: Iterable[DiagnoseNetworkResponse]) -> DiagnoseNetworkResponse:
    """What several managers heard, as one. A netproxy that has moved from one to the other counts
    once, and one that one of them heard is not silent."""
    version = 0
    heard: dict[NodeId, Diagnosis] = {}
    silent: dict[str, str] = {}
    for part in parts:
        version = max(version, part.version)
        for diagnosis in part.diagnoses:
            before = heard.get(diagnosis.node_id)
            if before is None or before.held_version < diagnosis.held_version:
                heard[diagnosis.node_id] = diagnosis
        silent.update(part.silent)
    return DiagnoseNetworkResponse(
        version=version,
        diagnoses=tuple(heard.values()),
        silent=pairs(silent),
    )


def judged(
    answer: DiagnoseNetworkResponse, nodes: Mapping[NodeId, Node], feed_version: int
) -> DiagnoseNetworkResponse:
    """The whole, by node name, with what differs in words. `feed_version` is the last one at
    which anything changed that netproxies are told."""
    heard = {diagnosis.node_id for diagnosis in answer.diagnoses}
    silent = {
        node.name: _why_silent(node, dict(answer.silent))
        for node in nodes.values()
        if node.description.mesh_address and node.id not in heard
    }
    ordered = sorted(answer.diagnoses, key=lambda each: _name(nodes, each.node_id))
    differences = [
        text
        for diagnosis in ordered
        for text in _differences(_name(nodes, diagnosis.node_id), diagnosis, feed_version)
    ]
    planes = {diagnosis.plane for diagnosis in ordered}
    if len(planes) > 1:
        differences.append(
            f"nodes have different data planes ({', '.join(sorted(planes))}): "
            "tasks on the one kind don't reach those on the other"
        )
    return DiagnoseNetworkResponse(
        version=answer.version,
        diagnoses=tuple(ordered),
        silent=pairs(silent),
        differences=tuple(differences),
    )


def _differences(name: str, diagnosis: Diagnosis, feed_version: int) -> list[str]:
    found = []
    if diagnosis.held_version < feed_version:
        found.append(
            f"{name}: holds version {diagnosis.held_version}, but {feed_version} is the last that "
            "changed something"
        )
    if diagnosis.applied_version < diagnosis.held_version:
        found.append(
            f"{name}: version {diagnosis.applied_version} is in force, "
            f"{diagnosis.held_version} is held"
        )
    return found


def _why_silent(node: Node, said: Mapping[str, str]) -> str:
    if node.state is not NodeState.READY:
        return f"the node is {node.state.value}"
    return said.get(node.name, "no manager has a netproxy of it at the other end")


def _name(nodes: Mapping[NodeId, Node], node_id: NodeId) -> str:
    node = nodes.get(node_id)
    return node.name if node is not None else node_id
