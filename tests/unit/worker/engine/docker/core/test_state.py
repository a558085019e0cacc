"""What the engine's words mean: times, ends, errors, health, notes."""

from __future__ import annotations

from typing import Any

import pytest

from skep.domain.base import SECOND_NS, TaskId
from skep.domain.spec import HealthCheck
from skep.env import Rejected, Retryable
from skep.worker.engine.docker.core.errors import ApiError, refusal
from skep.worker.engine.docker.core.health import merged_health
from skep.worker.engine.docker.core.notes import notes_of
from skep.worker.engine.docker.core.records import ContainerRecord
from skep.worker.engine.docker.core.state import (
    by_others,
    exit_of,
    started_of,
    taken_away,
)
from skep.worker.engine.protocol import Exit, Started

RECORD = ContainerRecord(format=1, task_id=TaskId("t1"), name="web.1.t1", memory_bytes=64)
NEVER = "0001-01-01T00:00:00Z"
NOW = 99


@pytest.mark.parametrize(
    ("state", "why", "reason"),
    [
        ({"ExitCode": 0}, "", ""),
        ({"ExitCode": 3}, "", "exit code 3"),
        ({"ExitCode": 137}, "", "killed by signal 9 (SIGKILL)"),
        ({"ExitCode": 137}, "why", "why"),
        (
            {"ExitCode": 137, "OOMKilled": True},
            "why",
            "out of memory: its limit is 64 bytes (OOM)",
        ),
        (
            {"ExitCode": 1, "OOMKilled": True},
            "",
            "out of memory: its limit is 64 bytes; a process of it was killed (OOM)",
        ),
        ({"ExitCode": 127, "Error": "no go"}, "", "no go"),
    ],
)
def test_ends(state: dict[str, Any], why: str, reason: str) -> None:
    code = state["ExitCode"]
    assert exit_of(state, RECORD, NOW, why) == Exit(exit_code=code, ended_ns=NOW, reason=reason)
    with_time = {**state, "FinishedAt": "1970-01-01T00:00:01Z"}
    assert exit_of(with_time, RECORD, NOW, why).ended_ns == SECOND_NS


def test_what_was_started() -> None:
    health = HealthCheck(test=("CMD", "true"))
    state = {"StartedAt": "1970-01-01T00:00:01Z", "Pid": 7}
    assert started_of(state, health) == Started(pid=7, started_ns=SECOND_NS, health=health)
    assert started_of({"StartedAt": NEVER, "Pid": 0}, None) is None


def test_what_others_did() -> None:
    assert taken_away(NOW).exit_code == 137
    assert by_others("15").startswith("it was sent SIGTERM by the Docker engine")
    assert by_others("TERM").startswith("it was sent TERM by")


CREATE = "failed to create shim task: OCI runtime create failed: runc create failed: "
START = CREATE + "unable to start container process: "


@pytest.mark.parametrize(
    ("status", "message", "said", "kind"),
    [
        (404, "No such image: nosuch:1", "No such image: nosuch:1", Rejected),
        (
            400,
            START + 'exec: "/nosuch": stat /nosuch: no such file or directory: unknown',
            'no program "/nosuch" in its image (exit code 127)',
            Rejected,
        ),
        (
            400,
            START + 'exec: "x": executable file not found in $PATH: unknown',
            'no program "x" in its image (exit code 127)',
            Rejected,
        ),
        (
            400,
            START + 'exec: "/etc/passwd": permission denied: unknown',
            '"/etc/passwd" in its image may not be executed (exit code 126)',
            Rejected,
        ),
        (400, "Unknown runtime specified zzz", "dockerd has no runtime zzz", Rejected),
        (
            400,
            "Unknown runtime specified skep",
            "dockerd doesn't know Skep's runtime: run `skep node setup-docker` on this node",
            Rejected,
        ),
        (
            400,
            "unknown or invalid runtime name: skep",
            "dockerd doesn't know Skep's runtime: run `skep node setup-docker` on this node",
            Rejected,
        ),
        (
            500,
            "unable to find user nosuch: no matching entries in passwd file",
            "there is no user nosuch in its image",
            Rejected,
        ),
        (
            400,
            'invalid mount config for type "bind": bind source path does not exist: /nosuch',
            "there is no /nosuch on this node to mount",
            Rejected,
        ),
        (
            404,
            'create v1: error looking up volume plugin nodrv: plugin "nodrv" not found',
            "there is no volume driver nodrv on this node",
            Rejected,
        ),
        (
            400,
            'error looking up logging plugin nolog: plugin "nolog" not found',
            "there is no log driver nolog on this node",
            Rejected,
        ),
        (
            500,
            'could not select device driver "" with capabilities: [[gpu]]',
            'this node has no device driver "" with capabilities [[gpu]]',
            Rejected,
        ),
        (
            500,
            'error gathering device information while adding custom device "/dev/x": no such file '
            "or directory",
            "there is no device /dev/x on this node",
            Rejected,
        ),
        (400, "No command specified", "its image names no command to run", Rejected),
        (500, "write /x: no space left on device", "the node's disk is full", Retryable),
        (
            500,
            CREATE.removesuffix("runc create failed: ") + "skep: there is no network: unknown",
            "doing: skep: there is no network",
            Rejected,
        ),
        (500, "something new", "doing: something new", Retryable),
        (400, '{"message":"bad\\nthing"}', "doing: bad thing", Rejected),
    ],
)
def test_errors(status: int, message: str, said: str, kind: type[Exception]) -> None:
    error = refusal(ApiError(status, message), "doing")
    assert type(error) is kind
    assert str(error).startswith(said)


OWN = HealthCheck(test=("CMD", "own"), interval_ns=7)
IMAGES = HealthCheck(test=("CMD", "image"), interval_ns=5, retries=9)


@pytest.mark.parametrize(
    ("spec", "image", "found"),
    [
        (None, None, None),
        (None, IMAGES, IMAGES),
        (OWN, IMAGES, OWN),
        (OWN, None, OWN),
        (HealthCheck(test=("NONE",)), IMAGES, None),
        (None, HealthCheck(test=("NONE",)), None),
        (HealthCheck(), None, None),
        (HealthCheck(), IMAGES, IMAGES),
        (
            HealthCheck(interval_ns=1, start_period_ns=2),
            IMAGES,
            HealthCheck(test=("CMD", "image"), interval_ns=1, start_period_ns=2, retries=9),
        ),
    ],
)
def test_health(
    spec: HealthCheck | None, image: HealthCheck | None, found: HealthCheck | None
) -> None:
    assert merged_health(spec, image) == found


def test_notes() -> None:
    info = {
        "Runtimes": {"runc": {"path": "runc"}},
        "CgroupVersion": "2",
        "CgroupDriver": "systemd",
        "Driver": "overlay2",
        "LiveRestoreEnabled": False,
    }
    version = {"Version": "20.10.24", "ApiVersion": "1.41"}
    assert notes_of(info, version) == (
        ("docker", "20.10.24, API 1.41"),
        ("docker.cgroup", "v2, systemd"),
        ("docker.restart", "containers end with dockerd: it has no live-restore"),
        (
            "docker.runtime",
            "missing: run `skep node setup-docker`; until then no container is on Skep's networks",
        ),
        ("docker.storage", "overlay2"),
    )
    better = {**info, "Runtimes": {"skep": {"path": "/p"}}, "LiveRestoreEnabled": True}
    found = dict(notes_of(better, version))
    assert found["docker.runtime"] == "skep: /p"
    assert found["docker.restart"] == "containers live on while dockerd doesn't (live-restore)"
