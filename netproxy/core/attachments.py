"""Which tasks of this node are attached to which networks, and where each asks for names.

In the kernel plane a task asks at 127.0.0.11 in its own namespace. In the relay plane all tasks
share the node's namespace, and a question can't be told apart by who asks it; so there is one
address per set of networks, and tasks that are on the same networks ask at the same one. Its number
is kept for as long as a task is on them: it stands in the tasks' resolv.conf.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from skep.domain.attach import AttachRequest
from skep.domain.base import NetworkId, Struct, TaskId, replace
from skep.domain.endpoints import NetworkEntry
from skep.env import Retryable

# Addresses for name servers in one node's block.
SET_LIMIT = 255


class Attached(Struct, frozen=True, kw_only=True):
    """One attached task. `set_number` is that of its set of networks; see the module. `networks`
    are as they were known when it was attached: a process that starts anew may know less."""

    request: AttachRequest
    set_number: int
    networks: tuple[NetworkEntry, ...] = ()

    @property
    def network_ids(self) -> tuple[NetworkId, ...]:
        """Its networks, in the order in which its names are looked for."""
        return tuple(each.network_id for each in self.request.attachments)


class Attachments:
    """All attached tasks of a node."""

    def __init__(self, known: Iterable[Attached] = ()) -> None:
        self.by_task: dict[TaskId, Attached] = {each.request.task_id: each for each in known}

    def add(self, request: AttachRequest, networks: Iterable[NetworkEntry] = ()) -> Attached:
        """A task, with the number of its set of networks; one that is there is as it was asked
        for last. Raises Retryable when there are too many sets of networks."""
        wanted = tuple(each.network_id for each in request.attachments)
        self.by_task.pop(request.task_id, None)
        taken = {each.set_number: each.network_ids for each in self.by_task.values()}
        number = next((n for n, ids in taken.items() if ids == wanted), None)
        if number is None:
            number = next((n for n in range(SET_LIMIT) if n not in taken), None)
        if number is None:
            raise Retryable(f"tasks of this node are on {SET_LIMIT} different sets of networks")
        attached = Attached(request=request, set_number=number, networks=tuple(networks))
        self.by_task[request.task_id] = attached
        return attached

    def drop(self, task_ids: Iterable[TaskId]) -> bool:
        """Forget tasks; whether any was known."""
        return any([self.by_task.pop(task_id, None) is not None for task_id in task_ids])

    def beside(self, held: Collection[TaskId]) -> tuple[TaskId, ...]:
        """The attached tasks that aren't among those held."""
        return tuple(sorted(task_id for task_id in self.by_task if task_id not in held))

    def networks(self) -> frozenset[NetworkId]:
        """All networks that a task of this node is on."""
        return frozenset(i for each in self.by_task.values() for i in each.network_ids)

    def entries(self, told: Mapping[NetworkId, NetworkEntry]) -> dict[NetworkId, NetworkEntry]:
        """What managers tell of networks, and those of tasks as they were known when these were
        attached. One that was encrypted then still is: a manager that knows nothing of encryption
        says that none is."""
        found = {e.network_id: e for each in self.by_task.values() for e in each.networks}
        encrypted = [network_id for network_id, entry in found.items() if entry.is_encrypted]
        found.update(told)
        for network_id in encrypted:
            if not found[network_id].is_encrypted:
                found[network_id] = replace(found[network_id], is_encrypted=True)
        return found

    def sets(self) -> dict[int, tuple[NetworkId, ...]]:
        """The sets of networks by number."""
        return {each.set_number: each.network_ids for each in self.by_task.values()}

    def check_invariants(self) -> None:
        """Called by tests after every step."""
        seen: dict[int, tuple[NetworkId, ...]] = {}
        for task_id, each in self.by_task.items():
            assert each.request.task_id == task_id
            assert 0 <= each.set_number < SET_LIMIT
            assert seen.setdefault(each.set_number, each.network_ids) == each.network_ids
        assert len(set(seen.values())) == len(seen), "one set has two numbers"


def in_place_of(request: AttachRequest, known: Iterable[Attached]) -> tuple[TaskId, ...]:
    """The other tasks that have an address which is now this one's."""
    mine = {(each.network_id, each.address) for each in request.attachments}
    return tuple(
        other.request.task_id
        for other in known
        if other.request.task_id != request.task_id
        and any((each.network_id, each.address) in mine for each in other.request.attachments)
    )
