"""What `--filter` keeps of a list: as Docker has it, names and ids by their beginning; of one key
any value will do, of labels all must be there."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import TypeVar

from skep.cli.errors import Exit, Failure
from skep.cli.storagerows import FileRow, VolumeRow
from skep.client import Cluster
from skep.domain.base import Pairs, pairs
from skep.domain.control import NetworkView, ServiceView
from skep.domain.objects import Task
from skep.domain.states import DesiredState

SERVICE_KEYS = ("name", "id", "label")
NETWORK_KEYS = ("name", "id", "label", "driver", "stack")
FILE_KEYS = ("name", "id", "label", "stack")
VOLUME_KEYS = ("name", "node", "dangling")
TASK_KEYS = ("name", "id", "node", "desired-state")

Filters = Mapping[str, Sequence[str]]
V = TypeVar("V")


def read(texts: Iterable[str], known: Sequence[str]) -> dict[str, list[str]]:
    """The values of each key in texts such as "name=web". Raises Failure."""
    found: dict[str, list[str]] = {}
    for given in texts:
        key, sign, value = given.partition("=")
        if key not in known or not sign or not value:
            words = ", ".join(f"{key}=" for key in known)
            raise Failure(f"--filter '{given}' is not known; write one of {words}", Exit.USAGE)
        found.setdefault(key, []).append(value)
    return found


def read_for_tasks(texts: Iterable[str]) -> dict[str, list[str]]:
    """The same for tasks. Raises Failure."""
    found = read(texts, TASK_KEYS)
    states = [state.value for state in DesiredState]
    for value in found.get("desired-state", ()):
        if value not in states:
            words = f"{', '.join(states[:-1])} and {states[-1]}"
            raise Failure(f"--filter desired-state: '{value}' is not one of {words}", Exit.USAGE)
    return found


def services(views: Iterable[ServiceView], filters: Filters) -> list[ServiceView]:
    """Those that fit."""
    return [
        view
        for view in views
        if _begins(view.service.name, filters.get("name"))
        and _begins(view.service.id, filters.get("id"))
        and _has(view.service.spec.labels, filters.get("label", ()))
    ]


async def networks(
    cluster: Cluster, filters: Filters, *, is_stale: bool = False
) -> list[NetworkView]:
    """Those that fit, by name. Raises NotFound for a stack that isn't there."""
    stacks = filters.get("stack")
    if stacks is None:
        found = list(await cluster.networks.list(is_stale=is_stale))
    else:
        of_stacks = [await cluster.networks.list(stack=s, is_stale=is_stale) for s in stacks]
        by_id = {view.network.id: view for views in of_stacks for view in views}
        found = sorted(by_id.values(), key=lambda view: view.network.name)
    drivers = filters.get("driver")
    return [
        view
        for view in found
        if _begins(view.network.name, filters.get("name"))
        and _begins(view.network.id, filters.get("id"))
        and _has(view.network.spec.labels, filters.get("label", ()))
        and (drivers is None or view.network.spec.driver in drivers)
    ]


async def of_stacks(
    filters: Filters, read: Callable[[str | None], Awaitable[tuple[V, ...]]]
) -> list[V]:
    """What `read` finds, of the stacks that are asked for. Raises NotFound for one that isn't
    there."""
    stacks = filters.get("stack")
    if stacks is None:
        return list(await read(None))
    return [view for stack in dict.fromkeys(stacks) for view in await read(stack)]


def files(found: Iterable[FileRow], filters: Filters) -> list[FileRow]:
    """Configs or secrets that fit, by name."""
    fits = [
        row
        for row in found
        if _begins(row.name, filters.get("name"))
        and _begins(row.id, filters.get("id"))
        and _has(pairs(row.labels), filters.get("label", ()))
    ]
    return sorted(fits, key=lambda row: row.name)


def volumes(found: Iterable[VolumeRow], filters: Filters) -> list[VolumeRow]:
    """Those that fit. Raises Failure."""
    nodes, dangling = filters.get("node"), filters.get("dangling")
    for word in dangling or ():
        if word not in ("true", "false"):
            raise Failure(f"--filter dangling: '{word}' is neither true nor false", Exit.USAGE)
    return [
        row
        for row in found
        if _begins(row.name, filters.get("name"))
        and (nodes is None or any(place.node in nodes for place in row.places))
        and (dangling is None or str(row.services == 0).lower() in dangling)
    ]


async def tasks(
    cluster: Cluster, found: Iterable[Task], filters: Filters, *, is_stale: bool = False
) -> list[Task]:
    """Those that fit. Raises NotFound for a node that isn't there."""
    refs = filters.get("node", ())
    nodes = {(await cluster.nodes.get(ref, is_stale=is_stale)).id for ref in refs}
    states = filters.get("desired-state")
    return [
        task
        for task in found
        if _begins(task.name, filters.get("name"))
        and _begins(task.id, filters.get("id"))
        and (not nodes or task.node_id in nodes)
        and (states is None or task.desired_state.value in states)
    ]


def _begins(text: str, starts: Sequence[str] | None) -> bool:
    return starts is None or text.startswith(tuple(starts))


def _has(labels: Pairs, wanted: Iterable[str]) -> bool:
    """Each is "key", for any value, or "key=value"."""
    there = {name for name, _ in labels} | {f"{name}={value}" for name, value in labels}
    return all(each in there for each in wanted)
