"""`skep network why NAME --from TASK`: what a name leads to for one task, and why. Pure."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import msgspec

from skep.cli.text import counted
from skep.domain.base import SECOND_NS
from skep.domain.control import ServiceView
from skep.domain.endpoints import Diagnosis, NameAnswer, Probe
from skep.domain.objects import Node, Service, Task
from skep.domain.spec import NetworkUse, ServiceSpec

# Of two names, how much must be the same for one to be the other misspelt.
CLOSENESS = 0.7
NAMES_SHOWN = 10
UNKNOWN = "unknown"
# What netproxies say of endpoints that they could not try for want of a port.
UNTRIED = "not tried"
VIP = "vip"
_TASK_NAME = re.compile(r"(?P<service>.+)\.[0-9]+")


class Tried(msgspec.Struct, frozen=True, kw_only=True):
    """An endpoint behind the name, and how the connection to it went."""

    task: str
    task_id: str
    node: str
    address: str
    latency_s: float | None
    error: str


class Story(msgspec.Struct, frozen=True, kw_only=True):
    """What a name leads to. `kind` is "vip", "tasks" or "unknown"; `advice` what to do, if
    anything; `version` is the managers'."""

    name: str
    task: str
    node: str
    plane: str
    kind: str
    network: str
    service: str
    addresses: tuple[str, ...]
    endpoints: tuple[Tried, ...]
    why: str
    applied_version: int
    version: int
    advice: tuple[str, ...] = ()


@dataclass(frozen=True)
class Scene:
    """What a story is made of. `uses` are the networks that the task itself is on, by its spec."""

    task: Task
    uses: Sequence[NetworkUse]
    diagnosis: Diagnosis
    answer: NameAnswer
    version: int
    services: Sequence[ServiceView] = ()
    tasks: Sequence[Task] = ()
    nodes: Sequence[Node] = ()


def tell(scene: Scene) -> Story:
    """The story."""
    answer = scene.answer
    nodes = {str(node.id): node.name for node in scene.nodes}
    names = {str(task.id): task.name for task in scene.tasks}
    tried = tuple(
        Tried(
            task=names.get(probe.task_id, probe.task_id),
            task_id=probe.task_id,
            node=nodes.get(probe.node_id, probe.node_id),
            address=probe.address,
            latency_s=None if probe.latency_ns is None else probe.latency_ns / SECOND_NS,
            error=probe.error,
        )
        for probe in answer.probes
    )
    node_id = scene.diagnosis.node_id
    return Story(
        name=answer.name,
        task=scene.task.name,
        node=nodes.get(node_id, node_id),
        plane=scene.diagnosis.plane,
        kind=answer.kind,
        network=answer.network,
        service=answer.service,
        addresses=answer.addresses,
        endpoints=tried,
        why=answer.why,
        applied_version=scene.diagnosis.applied_version,
        version=scene.version,
        advice=tuple(_unknown(scene) if answer.kind == UNKNOWN else _known(scene)),
    )


def lines(story: Story) -> list[str]:
    """The story as text."""
    asker = f"for {story.task} on {story.node} ({story.plane} plane)"
    if story.kind == UNKNOWN:
        why = f": {story.why}" if story.why else ""
        found = [f"{story.name}, {asker}: no such name{why}"]
    else:
        kind = "the virtual address" if story.kind == VIP else "the tasks' addresses"
        at = f" on network {story.network}" if story.network else ""
        found = [f"{story.name}, {asker}: {kind} of service {story.service}{at}"]
        found.append(f"  addresses  {', '.join(story.addresses) or 'none'}")
    room = max((len(f"{each.task} on {each.node}") for each in story.endpoints), default=0)
    wide = max((len(each.address) for each in story.endpoints), default=0)
    for place, each in enumerate(story.endpoints):
        head = "endpoints" if place == 0 else ""
        who = f"{each.task} on {each.node}".ljust(room)
        found.append(f"  {head.ljust(9)}  {who}  {each.address.ljust(wide)}  {_outcome(each)}")
    if story.kind != UNKNOWN and story.why:
        found.append(f"  because    {story.why}")
    is_newest = story.applied_version >= story.version
    behind = "" if is_newest else f", {story.version - story.applied_version} behind the managers"
    found.append(f"  as of      version {story.applied_version}{behind}")
    return [*found, *(f"  -> {each}" for each in story.advice)]


def _outcome(each: Tried) -> str:
    if each.error.startswith(UNTRIED):
        return each.error
    if each.latency_s is None:
        return f"failed: {each.error or 'no answer'}"
    return f"{each.latency_s * 1000:.1f} ms"


# -------------------------------------------------------------------------------- advice


def _known(scene: Scene) -> Iterable[str]:
    probes = scene.answer.probes
    if not probes:
        yield f"no task of it is ready to serve: skep service why {scene.answer.service}"
    elif all(probe.error.startswith(UNTRIED) for probe in probes):
        yield (
            "to have them tried, name a port that its tasks listen on: skep service update "
            f"{scene.answer.service} --expose-add PORT"
        )
    elif all(probe.latency_ns is None for probe in probes):
        yield (
            f"none of {counted(len(probes), 'endpoint')} answers: see whether its tasks listen on "
            f"this port and address: skep service logs {scene.answer.service}"
        )
    else:
        yield from _failing_nodes(scene, probes)


def _failing_nodes(scene: Scene, probes: Sequence[Probe]) -> Iterable[str]:
    failing = {probe.node_id for probe in probes if probe.latency_ns is None}
    failing -= {probe.node_id for probe in probes if probe.latency_ns is not None}
    names = [node.name for node in scene.nodes if node.id in failing]
    if names:
        yield f"nothing on {', '.join(names)} answers: see how it is there: skep network doctor"


def _unknown(scene: Scene) -> Iterable[str]:
    own = {use.network for use in scene.uses}
    if not own:
        yield (
            f"{scene.task.service_name} is on no network, and names are known on networks alone: "
            f"skep service update {scene.task.service_name} --network-add NETWORK"
        )
        return
    wanted = _plain(scene.answer.name)
    meant = [s for s in _services(scene) if wanted in _all_names(s.spec)]
    if meant:
        for service in meant:
            yield _elsewhere(scene, service, own, wanted)
        return
    names = sorted({name for s in _services(scene) for name in _names_on(s.spec, own)})
    if near := difflib.get_close_matches(wanted, names, 1, CLOSENESS):
        yield f"did you mean {near[0]}?"
        return
    by_name = {name: s for s in _services(scene) for name in _all_names(s.spec)}
    if near := difflib.get_close_matches(wanted, sorted(by_name), 1, CLOSENESS):
        service = by_name[near[0]]
        yield f"did you mean {near[0]}? {_elsewhere(scene, service, own, near[0])}"
        return
    shown = ", ".join(names[:NAMES_SHOWN]) or "none"
    more = f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
    yield f"names on {_listed(own)} are: {shown}{more}"


def _elsewhere(scene: Scene, service: Service, own: set[str], wanted: str) -> str:
    """Why a service that has this name somewhere hasn't got it here."""
    theirs = [use.network for use in service.spec.task.networks]
    asker = scene.task.service_name
    if not theirs:
        first = min(own)
        return (
            f"service {service.name} is on no network: skep service update {service.name} "
            f"--network-add {first}"
        )
    shared = own.intersection(theirs)
    if not shared:
        return (
            f"service {service.name} is on {_listed(theirs)}, and {asker} on {_listed(own)}: names "
            f"are known within a network: skep service update {asker} --network-add {theirs[0]}"
        )
    if wanted in _names_on(service.spec, own):
        return (
            f"service {service.name} is on {_listed(shared)}, too: its addresses have yet to come, "
            f"or to reach this node: skep service why {service.name}; skep network doctor"
        )
    return f"it is called {wanted} elsewhere; on {_listed(shared)} its name is {service.name}"


def _plain(name: str) -> str:
    """The part of a name that is a service's: "tasks.web" and "web.2" are about web."""
    plain = name.rstrip(".").removeprefix("tasks.")
    numbered = _TASK_NAME.fullmatch(plain)
    return numbered["service"] if numbered else plain


def _services(scene: Scene) -> list[Service]:
    return [view.service for view in scene.services]


def _names_on(spec: ServiceSpec, networks: Iterable[str]) -> list[str]:
    uses = [use for use in spec.task.networks if use.network in networks]
    return [spec.name, *(alias for use in uses for alias in use.aliases)] if uses else []


def _all_names(spec: ServiceSpec) -> list[str]:
    return [spec.name, *(alias for use in spec.task.networks for alias in use.aliases)]


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))
