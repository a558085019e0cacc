"""When an ended task is replaced, and how soon.

All of it is read from the tasks themselves, so that a new leader knows as much as the one before.
"""

from __future__ import annotations

from collections.abc import Sequence

from skep.domain.base import SECOND_NS
from skep.domain.objects import Task
from skep.domain.spec import RestartCondition, RestartPolicy
from skep.domain.states import TaskState

# Where no delay leads beyond: a bigger number could not travel.
END_OF_TIME_NS = 2**63 - 1

# A task that lived for less than this since it was healthy, or never was, has failed quickly. A
# few of those in a row are an accident; more of them are a storm, however short the policy's delay.
QUICK_NS = 10 * SECOND_NS
FREE_FAILURES = 2
FIRST_PAUSE_NS = SECOND_NS // 2
LONGEST_PAUSE_NS = 30 * SECOND_NS
# What can't even be prepared costs next to nothing to try, and would be tried all the time.
REJECTED_PAUSE_NS = SECOND_NS


def may_restart(policy: RestartPolicy, chain: Sequence[Task], now_ns: int) -> bool:
    """Whether the policy allows another attempt after the last task of a chain: tasks of one slot
    and revision, the oldest first. Asked again of a task that was given up, it answers as it did
    then, unless the policy itself has changed."""
    old = chain[-1]
    if policy.condition is RestartCondition.NONE:
        return False
    if policy.condition is RestartCondition.ON_FAILURE and old.status.state is TaskState.COMPLETE:
        return False
    if not policy.max_attempts:
        return True
    if not policy.window_ns:
        return old.attempt < policy.max_attempts
    # A task that was given up was last written when that was decided.
    asked_ns = now_ns if old.is_wanted else old.updated_ns
    restarts: dict[int, int] = {}
    for task in chain:
        if task.attempt > 0:
            # An evicted task's replacement has the same number: it is no attempt of its own.
            restarts.setdefault(task.attempt, task.created_ns)
    recent = sum(1 for at_ns in restarts.values() if at_ns > asked_ns - policy.window_ns)
    return recent < policy.max_attempts


def start_ns(policy: RestartPolicy, chain: Sequence[Task], now_ns: int) -> int | None:
    """When the next attempt may start; None for at once."""
    pause_ns = max(policy.delay_ns, _pause_ns(chain))
    return min(now_ns + pause_ns, END_OF_TIME_NS) if pause_ns else None


def _pause_ns(chain: Sequence[Task]) -> int:
    """What bounds a storm of restarts, whatever the policy says."""
    old = chain[-1]
    quick = 0
    for task in reversed(chain):
        if not _failed_quickly(task):
            break
        quick += 1
    if quick == len(chain):
        # Older ones are forgotten, but they are counted in the number of the attempt.
        quick = max(quick, old.attempt + 1)
    first_ns, free = FIRST_PAUSE_NS, FREE_FAILURES
    if old.status.state is TaskState.REJECTED:
        first_ns, free = REJECTED_PAUSE_NS, 0
    if quick <= free:
        return 0
    return min(first_ns << min(quick - free - 1, 10), LONGEST_PAUSE_NS)


def _failed_quickly(task: Task) -> bool:
    if not task.is_terminal or task.status.state in (TaskState.SHUTDOWN, TaskState.ORPHANED):
        return False
    if task.healthy_ns is None or task.ended_ns is None:
        return task.healthy_ns is None
    return task.ended_ns - task.healthy_ns < QUICK_NS
