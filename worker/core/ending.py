"""How the end of a task is called.

A task that was to be stopped has been SHUTDOWN, however its process took it. One that ended by
itself is COMPLETE with exit code 0, else FAILED; and ending before the first healthy probe is a
failure whatever the code, since whoever waits for it to become healthy waits in vain.
"""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass

from skep.domain.states import TaskState, order
from skep.worker.engine.protocol import Exit

ERROR_LIMIT = 1000
# One line: it stands in tables and in errors.
GIST_LIMIT = 200
_NO_ANSWER = re.compile(r"no answer within [^:]*: ")


class StopCause(enum.Enum):
    """Why a task is being stopped."""

    WANTED = "wanted"
    UNHEALTHY = "unhealthy"
    BROKEN = "broken"  # the engine could not start it; something of it may run all the same
    UNPREPARED = "can't be prepared here"


@dataclass(frozen=True, slots=True)
class Stop:
    """A stop under way, and what to say of it when the task itself is to blame."""

    cause: StopCause
    error: str = ""


@dataclass(frozen=True, slots=True)
class Ending:
    """What a task's last status says; `why` is for the log."""

    state: TaskState
    why: str
    message: str = ""
    error: str = ""
    exit_code: int | None = None


NEVER_STARTED = Ending(TaskState.SHUTDOWN, "wanted stopped", "never started")


def ending(state: TaskState, stop: Stop | None, exit_: Exit | None, lost: str = "") -> Ending:
    """How a task ends that is in `state` when no process of it is left.

    `exit_` is None where it is not known how the process ended; `lost` then says why.
    """
    code = exit_.exit_code if exit_ else None
    if stop is not None and stop.cause is StopCause.WANTED:
        if order(state) < order(TaskState.STARTING):
            return NEVER_STARTED
        return Ending(TaskState.SHUTDOWN, "stopped", "stopped", lost, code)
    if stop is not None and stop.cause is StopCause.UNPREPARED:
        return Ending(TaskState.REJECTED, stop.cause.value, error=stop.error)
    if stop is not None:
        return Ending(TaskState.FAILED, stop.cause.value, "", stop.error, code)
    if exit_ is None:
        return Ending(TaskState.FAILED, "lost", "", lost or "how it ended is unknown")
    if state is TaskState.STARTING:
        return Ending(
            TaskState.FAILED,
            "ended before it was healthy",
            error=f"ended before it was healthy: {describe(exit_)}",
            exit_code=code,
        )
    if code == 0:
        return Ending(TaskState.COMPLETE, "ended by itself", "finished", exit_code=0)
    return Ending(TaskState.FAILED, "ended by itself", error=describe(exit_), exit_code=code)


def gist(complaint: str) -> str:
    """What a health test complained of, in one line: of several its last one, which is where a
    traceback has its error, after how long the test was waited for in vain, if it was."""
    lines = [" ".join(line.split()) for line in complaint.splitlines() if line.strip()]
    if not lines:
        return ""
    found = lines[-1]
    limit = _NO_ANSWER.match(lines[0])
    if limit and len(lines) > 1:
        found = limit[0] + found
    return found if len(found) <= GIST_LIMIT else f"{found[: GIST_LIMIT - 1]}…"


def describe(exit_: Exit) -> str:
    """An exit in the words that Docker Swarm has for it, and what is known besides."""
    code = exit_.exit_code
    text = f"task: non-zero exit ({code})" if code else "exit code 0"
    more = exit_.reason.removeprefix(f"exit code {code}").removeprefix(": ")
    return f"{text}: {more}"[:ERROR_LIMIT] if more else text
