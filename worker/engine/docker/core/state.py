"""What the API's words on a container's state mean for its task."""

from __future__ import annotations

import calendar
import re
from collections.abc import Mapping
from typing import Any

from skep.domain.base import SECOND_NS
from skep.domain.signals import signal_name
from skep.domain.spec import HealthCheck
from skep.worker.engine.core.records import EXIT_KILLED, describe_exit
from skep.worker.engine.docker.core.records import ContainerRecord
from skep.worker.engine.protocol import Exit, Started

# In these it runs, or will again without anybody's doing.
LIVE = frozenset({"running", "paused", "restarting"})
TAKEN_AWAY = "its container was removed by somebody else"
WHILE_AWAY = "it ended while the Docker engine was away, which stops its containers with it unless "
WHILE_AWAY += "it has live-restore"

_TIME = re.compile(r"(\d+)-(\d+)-(\d+)T(\d+):(\d+):(\d+)(?:\.(\d+))?(?:Z|([+-])(\d+):(\d+))")


def parse_time_ns(text: str) -> int | None:
    """A time as Go writes it, in nanoseconds since the epoch; None for its zero and for none."""
    found = _TIME.fullmatch(text)
    if found is None or int(found[1]) <= 1:
        return None
    year, month, day, hour, minute, second = (int(part) for part in found.groups()[:6])
    seconds = calendar.timegm((year, month, day, hour, minute, second))
    if found[8]:
        offset = (int(found[9]) * 60 + int(found[10])) * 60
        seconds += -offset if found[8] == "+" else offset
    return seconds * SECOND_NS + int((found[7] or "0").ljust(9, "0")[:9])


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
