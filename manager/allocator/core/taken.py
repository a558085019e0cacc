"""What tasks have already, read in one go: there may be ten thousand of them in each pass."""

from __future__ import annotations

from collections.abc import Iterable

from skep.domain.base import NetworkId
from skep.domain.objects import Task
from skep.domain.states import TaskState


def holds_addresses(task: Task) -> bool:
    """Whether a task's addresses on networks are still its own: until it has ended, whatever is
    wanted of it. Rows of ended tasks are history, and would soon fill a small network."""
    return not task.is_terminal


def is_new(task: Task) -> bool:
    """Whether a task waits for its addresses."""
    return task.status.state is TaskState.NEW and task.is_wanted


class Taken:
    """Who has which address: in the relay plane, whose addresses are a task's for as long as its
    row, and on each network. `new` are the tasks that wait. Two rows with one address are our own
    error."""

    def __init__(self, tasks: Iterable[Task]) -> None:
        self.relay: dict[str, str] = {}
        self.hosts: dict[NetworkId, dict[str, str]] = {}
        self.new: list[Task] = []
        count = 0
        for task in tasks:
            if task.address:
                self.relay[task.address] = task.id
                count += 1
            elif is_new(task):
                self.new.append(task)
            if task.attachments and holds_addresses(task):
                for attachment in task.attachments:
                    owners = self.hosts.setdefault(attachment.network_id, {})
                    other = owners.setdefault(attachment.address, task.id)
                    if other is not task.id:
                        address = attachment.address
                        raise AssertionError(f"address={address} of {other} and {task.id}")
        assert len(self.relay) == count, f"{count - len(self.relay)} tasks have another's address"
