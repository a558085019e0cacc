"""What the API's words on a container's state mean for its task."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from skep.domain.signals import signal_name
from skep.domain.spec import HealthCheck
from skep.worker.engine.core.records import EXIT_KILLED, describe_exit
from skep.worker.engine.docker.core.records import ContainerRecord
from skep.worker.engine.docker.core.times import parse_time_ns
from skep.worker.engine.protocol import Exit, Started

# In these it runs, or will again without anybody's doing.
LIVE = frozenset({"running", "paused", "restarting"})
TAKEN_AWAY = "its container was removed by somebody else"
WHILE_AWAY = "it ended while the Docker engine was away, which stops its containers with it unless "
WHILE_AWAY += "it has live-restore"


def is_live(state: Mapping[str, Any]) -> bool:
    """Whether a container with this state (of its inspection) has processes."""
    return state.get("Status", "") in LIVE


def started_of(state: Mapping[str, Any], health: HealthCheck | None) -> Started | None:
    """When a container's process was started; None where it never was."""
    started_ns = parse_time_ns(state.get("StartedAt") or "")
    if started_ns is None:
        return None
    return Started(pid=int(state.get("Pid") or 0), started_ns=started_ns, health=health)


def exit_of(state: Mapping[str, Any], record: ContainerRecord, now_ns: int, why: str = "") -> Exit:
    """How a container that is no longer live has ended. `why` is what else is known."""
    code = int(state.get("ExitCode") or 0)
    ended_ns = parse_time_ns(state.get("FinishedAt") or "") or now_ns
    if state.get("OOMKilled"):
        reason = out_of_memory(code, record.memory_bytes)
    elif why:
        reason = why
    else:
        reason = state.get("Error") or describe_exit(code)
    return Exit(exit_code=code, ended_ns=ended_ns, reason=reason)


def out_of_memory(code: int, memory_bytes: int | None) -> str:
    """That the kernel has killed something of it. `code` tells whether that was its first."""
    limit = f": its limit is {memory_bytes} bytes" if memory_bytes is not None else ""
    if code == EXIT_KILLED:
        return f"out of memory{limit} (OOM)"
    return f"out of memory{limit}; a process of it was killed (OOM)"


def taken_away(now_ns: int) -> Exit:
    """The end of a task whose container somebody has removed, whose exit code nobody knows: it was
    killed for that."""
    return Exit(exit_code=EXIT_KILLED, ended_ns=now_ns, reason=TAKEN_AWAY)


def by_others(signal: str) -> str:
    """That somebody other than Skep has sent a container a signal (its number) before it ended."""
    number = int(signal) if signal.isdecimal() else 0
    name = signal_name(number) if number else signal
    return (
        f"it was sent {name} by the Docker engine, which does so when it is asked to, and when it "
        "ends without live-restore"
    )
