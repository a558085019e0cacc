"""A first service, as courses on Docker Swarm tell it, with `skep` for `docker`: create it, kill
it behind the managers' backs, read its logs, update it, and take that back.

There is no registry: `--image` names the release, and a command stands beside it.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from tests.support.local_cluster import LocalCluster, eventually, kill_pid

pytestmark = pytest.mark.process

# The example stack has a `timecheck`, too, whose whole name is demo_timecheck.
NAME = "timecheck"
IMAGE = "registry.example/timecheck"
SCRIPT = """
while :; do
  echo "App version: $VERSION; time check: $(date +%H:%M.%S)"
  sleep 0.1
done
"""

# The course's windows are ten seconds and more of a program that prints every five seconds.
WINDOW_S = 2.0
# The clock of whoever asks and that of the node are one here; a slow machine takes its time.
SLACK_S = 3.0
REPLACED_S = 30.0

ID = r"[0-9a-z]{12}"
LINE = re.compile(
    rf"(?P<at>\S+) {NAME}\.1\.(?P<task>{ID})@(?P<node>w[123])    \| "
    r"App version: (?P<version>\S+); time check: \d\d:\d\d\.\d\d"
)


@pytest.fixture
def swarm(cluster: LocalCluster) -> Iterator[LocalCluster]:
    """The cluster, without the service again in the end."""
    yield cluster
    cluster.run("service", "rm", NAME)


def test_a_service_is_created_killed_updated_and_rolled_back(swarm: LocalCluster) -> None:
    a_node_leads(swarm)
    it_is_created(swarm)
    it_is_listed(swarm)
    its_task_is_killed(swarm)
    its_logs_are_read(swarm)
    its_image_is_looked_up(swarm)
    it_is_updated(swarm)
    it_is_rolled_back(swarm)


def a_node_leads(swarm: LocalCluster) -> None:
    rows = swarm.skep("node", "ls").splitlines()
    assert re.search(r"\bReady +Active +Leader\b", "\n".join(rows[1:]))


def it_is_created(swarm: LocalCluster) -> None:
    done = swarm.run(
        *("service", "create", "--name", NAME, "--replicas", "1", "--image", f"{IMAGE}:1.0"),
        *("--env", "VERSION=1.0", "--stop-grace-period", "1s", "--restart-delay", "0s"),
        *("--update-monitor", "200ms", "--rollback-monitor", "200ms"),
        *("--", "sh", "-c", SCRIPT),
    )
    assert done.returncode == 0, done.stderr
    assert "1/1: running" in done.stderr
    assert re.search(rf"verify: service {NAME} converged", done.stderr, re.IGNORECASE)


def it_is_listed(swarm: LocalCluster) -> None:
    (row,) = (line for line in swarm.skep("service", "ls").splitlines() if f" {NAME} " in line)
    assert re.search(rf"{NAME} +replicated +1/1 +{IMAGE}:1\.0", row)
    (task,) = shown_tasks(swarm)
    assert re.search(rf"^{ID} +{NAME}\.1 +{IMAGE}:1\.0 +w\d +Running +Running .* ago", task)


def its_task_is_killed(swarm: LocalCluster) -> None:
    (victim,) = swarm.running(NAME)
    kill_pid(int(victim["pid"]))
    eventually(
        lambda: [task["id"] for task in swarm.running(NAME)] not in ([], [victim["id"]]),
        REPLACED_S,
        "another task",
    )
    new, old = shown_tasks(swarm)
    assert re.search(rf"^{ID} +{NAME}\.1 +{IMAGE}:1\.0 +w\d +Running +Running", new)
    assert re.search(
        rf"^{victim['id'][:12]} +\\_ {NAME}\.1 +{IMAGE}:1\.0 +w\d +Shutdown +Failed .* ago +"
        r"[\d.]+ +task: non-zero exit \(137\)",
        old,
    )


def its_logs_are_read(swarm: LocalCluster) -> None:
    lines = eventually(lambda: logs_longer_than_the_window(swarm), REPLACED_S, "older lines")
    ids = {task["id"][:12] for task in swarm.tasks(NAME)}
    assert {line["task"] for line in lines} == ids, "of the killed task as well"
    nodes = {task["id"][:12]: task["node"] for task in swarm.tasks(NAME)}
    assert all(nodes[line["task"]] == line["node"] for line in lines)


def logs_longer_than_the_window(swarm: LocalCluster) -> list[dict[str, str]]:
    """All lines, once there are some that a window must leave out; and it does."""
    everything = logs(swarm)
    asked = time.time()
    recent = logs(swarm, "--since", f"{WINDOW_S:g}s")
    oldest_s, newest_s = (seconds_of(everything[place]) for place in (0, -1))
    if newest_s - oldest_s < WINDOW_S + SLACK_S:
        return []
    assert recent
    assert asked - WINDOW_S - 0.001 <= seconds_of(recent[0])
    assert seconds_of(recent[0]) <= asked - WINDOW_S + SLACK_S
    return everything


def its_image_is_looked_up(swarm: LocalCluster) -> None:
    field = "{{.Spec.TaskTemplate.ContainerSpec.Image}}"
    assert swarm.skep("service", "inspect", NAME, "-f", field).strip() == f"{IMAGE}:1.0"


def it_is_updated(swarm: LocalCluster) -> None:
    done = swarm.run(
        *("service", "update", "--image", f"{IMAGE}:2.0", "--env-add", "VERSION=2.0", NAME)
    )
    assert done.returncode == 0, done.stderr
    assert re.search(rf"verify: service {NAME} converged", done.stderr, re.IGNORECASE)
    new, old, killed = shown_tasks(swarm)
    assert re.search(rf" {NAME}\.1 +{IMAGE}:2\.0 +w\d +Running +Running", new)
    assert re.search(rf" \\_ {NAME}\.1 +{IMAGE}:1\.0 +w\d +Shutdown +Shutdown", old)
    assert re.search(rf" \\_ {NAME}\.1 +{IMAGE}:1\.0 +w\d +Shutdown +Failed", killed)
    eventually(lambda: versions(logs(swarm, "--since", "20s"))[-1:] == ["2.0"], REPLACED_S, "2.0")


def it_is_rolled_back(swarm: LocalCluster) -> None:
    done = swarm.run("service", "update", "--rollback", NAME)
    assert done.returncode == 0, done.stderr
    assert "rollback: manually requested rollback" in done.stderr
    assert re.search(rf"verify: service {NAME} converged", done.stderr, re.IGNORECASE)
    images = [re.search(rf"{IMAGE}:(\S+)", row) for row in shown_tasks(swarm)]
    assert [match and match.group(1) for match in images] == ["1.0", "2.0", "1.0", "1.0"]
    told = eventually(
        lambda: ended_with(versions(logs(swarm, "--since", "25s")), ["2.0", "1.0"]),
        REPLACED_S,
        "lines of both",
    )
    assert told


# ------------------------------------------------------------------------------- looking


def shown_tasks(swarm: LocalCluster) -> list[str]:
    """The rows of `skep service ps`."""
    return swarm.skep("service", "ps", NAME).splitlines()[1:]


def logs(swarm: LocalCluster, *flags: str) -> list[dict[str, str]]:
    """What `skep service logs` prints, taken apart; every line must have its prefix."""
    found = []
    for line in swarm.skep("service", "logs", "--timestamps", *flags, NAME).splitlines():
        match = LINE.fullmatch(line)
        assert match, line
        found.append(match.groupdict())
    return found


def seconds_of(line: dict[str, str]) -> float:
    """When a line was written."""
    at = re.sub(r"(\.\d{6})\d*", r"\1", line["at"].removesuffix("Z"))
    return datetime.fromisoformat(at).replace(tzinfo=UTC).timestamp()


def versions(lines: list[dict[str, str]]) -> list[str]:
    """The releases that wrote, in order, each named when it begins."""
    told: list[str] = []
    for line in lines:
        if told[-1:] != [line["version"]]:
            told.append(line["version"])
    return told


def ended_with(told: list[Any], end: list[Any]) -> bool:
    return told[-len(end) :] == end
