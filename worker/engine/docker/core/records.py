"""What the engine keeps of each container: in a file of its own, and in a label of the container.

The file answers while dockerd doesn't, and after the container was taken away; the label names the
task where the file was lost.
"""

from __future__ import annotations

import msgspec

from skep.domain.base import Struct, TaskId
from skep.domain.spec import HealthCheck
from skep.worker.engine.protocol import Exit, Started

RECORD_FORMAT = 1
RECORD_FILE = "container.json"

NODE_LABEL = "io.skep.node"
CLUSTER_LABEL = "io.skep.cluster"
# As Swarm names it; tools look for it.
TASK_LABEL = "com.docker.swarm.task.id"
RECORD_LABEL = "io.skep.record"


class ContainerRecord(Struct, frozen=True, kw_only=True):
    """One task's container. `namespace` is the file of the network namespace that it runs in, ""
    where Docker gives it its network; `cgroup_parent` the folder of its control groups, "" where
    that is the engine's own."""

    format: int
    task_id: TaskId
    name: str
    container_id: str = ""
    stop_signal: str = "SIGTERM"
    stop_grace_ns: int = 0
    health: HealthCheck | None = None
    memory_bytes: int | None = None
    namespace: str = ""
    cgroup_parent: str = ""
    started: Started | None = None
    exit: Exit | None = None


def encode_record(record: ContainerRecord) -> str:
    """A record as text."""
    return msgspec.json.encode(record).decode()


def decode_record(text: str | bytes) -> ContainerRecord | None:
    """The record in a text; None for a text that holds none, or one of a newer release."""
    try:
        record = msgspec.json.decode(text, type=ContainerRecord)
    except msgspec.MsgspecError:
        return None
    return record if record.format <= RECORD_FORMAT else None
