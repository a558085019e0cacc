"""`skep network doctor`: whether every node has the network as the managers have it. Pure."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from skep.cli.text import counted
from skep.domain.control import DiagnoseNetworkResponse


class NodeReport(msgspec.Struct, frozen=True, kw_only=True):
    """What one node's netproxy says. `silent` is why it says nothing; all else is empty then."""

    node: str
    plane: str = ""
    held_version: int | None = None
    applied_version: int | None = None
    problems: tuple[str, ...] = ()
    differences: tuple[str, ...] = ()
    facts: tuple[str, ...] = ()
    silent: str = ""


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What all say. `version` is the managers'; `differences` are between nodes and managers."""

    version: int
    is_well: bool
    nodes: tuple[NodeReport, ...]
    differences: tuple[str, ...]


def report(answer: DiagnoseNetworkResponse, names: Mapping[str, str], version: int) -> Report:
    """What the nodes said, by their names. `version` is one that all must have reached: the one of
    an earlier answer, where this is a later one."""
    nodes = [
        NodeReport(
            node=names.get(each.node_id, each.node_id),
            plane=each.plane,
            held_version=each.held_version,
            applied_version=each.applied_version,
            problems=each.problems,
            differences=each.differences,
            facts=each.facts,
        )
        for each in answer.diagnoses
    ]
    nodes += [NodeReport(node=name, silent=why or "no answer") for name, why in answer.silent]
    nodes.sort(key=lambda each: each.node)
    is_well = not answer.differences and not any(_trouble(each, version) for each in nodes)
    return Report(
        version=answer.version, is_well=is_well, nodes=tuple(nodes), differences=answer.differences
    )


def is_behind(answer: DiagnoseNetworkResponse, version: int) -> bool:
    """Whether a node has yet to put this version in force."""
    return any(each.applied_version < version for each in answer.diagnoses)


def _trouble(node: NodeReport, version: int) -> list[str]:
    if node.silent:
        return ["silent"]
    found = []
    if node.applied_version is not None and node.applied_version < version:
        found.append(f"behind by {version - node.applied_version}")
    if node.problems:
        found.append(counted(len(node.problems), "problem"))
    if node.differences:
        found.append(counted(len(node.differences), "difference"))
    return found


def status(node: NodeReport, version: int) -> str:
    """A node in a few words."""
    return ", ".join(_trouble(node, version)) or "as the managers have it"


def versions(node: NodeReport, version: int) -> str:
    """How far a node is: what it has put in force, and what it holds where that is more."""
    if node.applied_version is None or node.held_version is None:
        return "-"
    held = "" if node.held_version == node.applied_version else f" (holds {node.held_version})"
    return f"{node.applied_version} of {version}{held}"


def details(found: Report) -> list[str]:
    """What is wrong, a line each: of each node, then between nodes and managers."""
    lines = []
    for node in found.nodes:
        lines += [f"{node.node}: not heard: {node.silent}"] if node.silent else []
        lines += [f"{node.node}: can't put in force: {each}" for each in node.problems]
        lines += [f"{node.node}: differs: {each}" for each in node.differences]
    return [*lines, *(f"differs: {each}" for each in found.differences)]


def summary(found: Report, version: int) -> str:
    """How many nodes are not as they should be."""
    bad = [node for node in found.nodes if _trouble(node, version)]
    if not bad:
        return f"the managers and {counted(len(found.nodes), 'node')} don't agree"
    return f"{len(bad)} of {counted(len(found.nodes), 'node')} not as the managers have it"
