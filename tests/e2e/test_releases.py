"""Bad releases on real processes: each ends as its policy says, in time, and tells a person why.

All of them are played at once on one cluster, each by `skep service update`; every test looks at
how one of them has ended.
"""

from __future__ import annotations

import asyncio
import re
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from skep import client
from skep.cli.errors import Exit
from skep.client import Cluster
from skep.domain.base import SECOND_NS, replace
from skep.domain.objects import Service, Task, UpdateState
from skep.domain.spec import (
    FailureAction,
    HealthCheck,
    RestartPolicy,
    RunSpec,
    ServiceSpec,
    TaskSpec,
    UpdateOrder,
    UpdatePolicy,
)
from skep.domain.states import DesiredState, TaskState
from tests.support.local_cluster import LocalCluster

pytestmark = pytest.mark.process

REPLICAS = 3
MS_NS = SECOND_NS // 1000
GRACE_S = 1
MONITOR_S = 1.5
HEALTHY_DEADLINE_S = 3

# Ten times what the slowest of them takes on a quiet machine.
ENDED_S = 100.0
# So many commands at a time; each is a Python that starts.
COMMANDS = 4

SERVES = "echo serving; exec sleep 3600"
SERVES_AGAIN = "echo serving again; exec sleep 3600"
CRASHES = "echo 'no such table: ledger' >&2; exit 3"
CRASHES_LATE = "echo serving; sleep 0.5; echo 'lost the database' >&2; exit 4"
IGNORES_SIGTERM = "trap '' TERM; echo 'busy, not stopping'; while :; do sleep 3600; done"
# While this file exists the health test fails.
SPOILED = "$SPOILED_FOLDER/{{.Task.ID}}"
UNHEALTHY = f"sleep 0.5; echo 'out of connections' >&2; touch {SPOILED}; sleep 3600"
UNHEALTHY_AND_STAYS = f"trap '' TERM; {UNHEALTHY}"

AT_ONCE = RestartPolicy(delay_ns=0)
TRIES_ONCE = RestartPolicy(delay_ns=0, max_attempts=1)


@dataclass(frozen=True)
class Release:
    """One service, what is done to it, and how that has to end: in which state, with which exit
    code, in which words, with which last output of the task that failed, and with how many slots
    serving at the worst moment."""

    name: str
    order: UpdateOrder
    action: FailureAction
    change: tuple[str, ...]
    ends: UpdateState
    code: Exit
    says: str
    last_output: str
    serving: int
    first: str = SERVES
    restart: RestartPolicy = AT_ONCE

    def spec(self, folder: Path) -> ServiceSpec:
        """The service before the bad release."""
        policy = UpdatePolicy(
            order=self.order,
            failure_action=self.action,
            # Longer than what crashes late lives, so that it is found out in the first slot.
            delay_ns=SECOND_NS if "late" in self.name else 0,
            monitor_ns=int(MONITOR_S * SECOND_NS),
            healthy_deadline_ns=HEALTHY_DEADLINE_S * SECOND_NS,
        )
        run = RunSpec(
            args=("sh", "-c", self.first),
            env=(("SPOILED_FOLDER", str(folder)),),
            stop_grace_ns=GRACE_S * SECOND_NS,
            health=HealthCheck(
                test=("CMD-SHELL", f"test ! -e {SPOILED}"),
                interval_ns=200 * MS_NS,
                retries=2,
                start_interval_ns=50 * MS_NS,
            ),
        )
        return ServiceSpec(
            name=self.name,
            replicas=REPLICAS,
            task=TaskSpec(run=run, restart=self.restart),
            update=policy,
            rollback=replace(policy, failure_action=FailureAction.PAUSE),
        )


def to(script: str) -> tuple[str, ...]:
    return ("--", "sh", "-c", script)


START_FIRST, STOP_FIRST = UpdateOrder.START_FIRST, UpdateOrder.STOP_FIRST
PAUSE, CONTINUE = FailureAction.PAUSE, FailureAction.CONTINUE
ROLLBACK = FailureAction.ROLLBACK
PAUSED, COMPLETED = UpdateState.PAUSED, UpdateState.COMPLETED
ROLLED_BACK = UpdateState.ROLLBACK_COMPLETED

RELEASES = (
    Release(
        "never-starts-pause",
        START_FIRST,
        PAUSE,
        ("--", "/opt/ledger/no-such-program"),
        PAUSED,
        Exit.PAUSED,
        r"update paused due to failure .*never-starts-pause\.1 .*no-such-program",
        "",
        REPLICAS,
    ),
    Release(
        "never-placed-rollback",
        START_FIRST,
        ROLLBACK,
        ("--constraint-add", "node.labels.disk == quantum", *to(SERVES_AGAIN)),
        ROLLED_BACK,
        Exit.ROLLED_BACK,
        r"update rolled back .*did not become healthy within 3 s \(no suitable node .*constraints",
        "",
        REPLICAS,
    ),
    Release(
        "crashes-rollback",
        STOP_FIRST,
        ROLLBACK,
        to(CRASHES),
        ROLLED_BACK,
        Exit.ROLLED_BACK,
        r"update rolled back due to failure or early termination .*crashes-rollback\.1 .*\b3\b",
        "no such table: ledger",
        REPLICAS - 1,
    ),
    Release(
        "crashes-continue",
        START_FIRST,
        CONTINUE,
        to(CRASHES),
        COMPLETED,
        Exit.ERROR,
        r"update completed; slots that failed: 1, 2, 3",
        "no such table: ledger",
        REPLICAS,
        restart=TRIES_ONCE,
    ),
    Release(
        "crashes-late-rollback",
        START_FIRST,
        ROLLBACK,
        to(CRASHES_LATE),
        ROLLED_BACK,
        Exit.ROLLED_BACK,
        r"update rolled back .*crashes-late-rollback\.1 .*\b4\b",
        "lost the database",
        REPLICAS - 1,
    ),
    Release(
        "crashes-late-pause",
        STOP_FIRST,
        PAUSE,
        to(CRASHES_LATE),
        PAUSED,
        Exit.PAUSED,
        r"update paused due to failure .*crashes-late-pause\.1 .*\b4\b",
        "lost the database",
        REPLICAS - 1,
    ),
    Release(
        "unhealthy-late-rollback",
        STOP_FIRST,
        ROLLBACK,
        to(UNHEALTHY),
        ROLLED_BACK,
        Exit.ROLLED_BACK,
        r"update rolled back .*unhealthy-late-rollback\.1 .*unhealthy",
        "out of connections",
        REPLICAS - 1,
    ),
    Release(
        "unhealthy-continue",
        STOP_FIRST,
        CONTINUE,
        to(UNHEALTHY),
        COMPLETED,
        Exit.ERROR,
        r"update completed; slots that failed: 1, 2, 3",
        "out of connections",
        0,
        restart=TRIES_ONCE,
    ),
    Release(
        "hangs-at-stop-pause",
        STOP_FIRST,
        PAUSE,
        to(SERVES_AGAIN),
        COMPLETED,
        Exit.OK,
        r"update completed$",
        "",
        REPLICAS - 1,
        first=IGNORES_SIGTERM,
    ),
    Release(
        "hangs-at-stop-late-rollback",
        START_FIRST,
        ROLLBACK,
        to(UNHEALTHY_AND_STAYS),
        ROLLED_BACK,
        Exit.ROLLED_BACK,
        r"update rolled back .*hangs-at-stop-late-rollback\.1 .*unhealthy",
        "out of connections",
        REPLICAS - 1,
    ),
)


@dataclass(frozen=True)
class Ended:
    """How a release ended. `before` are the tasks that ran before it; `serving` is how many slots
    did at the worst moment."""

    service: Service
    running: int
    tasks: tuple[Task, ...]
    before: frozenset[str]
    code: int
    output: str
    took_s: float
    serving: int

    @property
    def message(self) -> str:
        """What the update status says."""
        return "" if self.service.update is None else self.service.update.message

    def serving_now(self) -> list[Task]:
        """Tasks that serve at the end."""
        return [task for task in self.tasks if serves(task)]

    def __str__(self) -> str:
        rows = [
            f"{task.name} {task.id[:12]} revision {task.revision} {task.desired_state.value} "
            f"{task.status.state.value} {task.status.exit_code} {task.status.error}"
            for task in self.tasks
        ]
        state = self.service.update.state.value if self.service.update else "no update"
        head = f"exit code {self.code} after {self.took_s:.1f} s, {state}: {self.message}"
        return "\n".join([head, f"{self.serving} served at the worst", *rows, self.output])


def serves(task: Task) -> bool:
    """Whether it is healthy, and is to go on."""
    is_well = task.status.state is TaskState.RUNNING and task.status.is_healthy
    return is_well and task.desired_state is DesiredState.RUNNING


@dataclass
class Serving:
    """Follows how many slots of each service have a task that serves."""

    tasks: dict[str, Task] = field(default_factory=dict)
    least: dict[str, int] = field(default_factory=dict)

    async def follow(self, skep: Cluster, from_version: int) -> None:
        """Until cancelled."""
        changed: set[str] = set()
        seen = from_version
        async for event in skep.watch(from_version=from_version, kinds=["task"]):
            assert not event.is_resync
            if event.version > seen:
                # What one commit changes is looked at as a whole.
                for name in changed & self.least.keys():
                    self.least[name] = min(self.least[name], self.count(name))
                changed, seen = set(), event.version
            if event.task is not None:
                self.tasks[event.task.id] = event.task
                changed.add(event.task.service_name)

    def begin(self, name: str) -> None:
        """From now on the least number counts."""
        self.least[name] = self.count(name)

    def count(self, name: str) -> int:
        """Slots that serve now."""
        own = (task for task in self.tasks.values() if task.service_name == name)
        return len({task.slot for task in own if serves(task)})


# ------------------------------------------------------------------------------- playing


@pytest.fixture(scope="module")
def ended(
    shared_cluster: LocalCluster, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Ended]:
    """How each release ended, by its name."""
    shared_cluster.skep("up", "examples/timecheck.yaml", within_s=120.0)
    return asyncio.run(play_all(shared_cluster, tmp_path_factory.mktemp("spoiled")))


async def play_all(local: LocalCluster, folder: Path) -> dict[str, Ended]:
    control = [str(row["address"]) for row in local.processes() if row["name"][0] == "m"]
    names = [release.name for release in RELEASES]
    async with client.connect(control) as skep:
        serving = Serving()
        version = (await skep.services.snapshot()).version
        following = asyncio.create_task(serving.follow(skep, version))
        try:
            for release in RELEASES:
                await skep.services.create(release.spec(folder))
            await skep.wait_converged(names, timeout_s=ENDED_S)
            plays = [play(local, skep, release, serving) for release in RELEASES]
            return dict(zip(names, await asyncio.gather(*plays), strict=True))
        finally:
            following.cancel()
            with suppress(asyncio.CancelledError):
                await following
            for name in names:
                await skep.services.remove(name)
            await skep.wait_removed(names, timeout_s=ENDED_S)


async def play(local: LocalCluster, skep: Cluster, release: Release, serving: Serving) -> Ended:
    before = frozenset(task.id for task in await skep.tasks.list(service=release.name))
    serving.begin(release.name)
    began = time.monotonic()
    words = ("service", "update", "--timeout", f"{ENDED_S / 2:g}s", release.name, *release.change)
    done = await asyncio.to_thread(lambda: local.run(*words, within_s=ENDED_S))
    took_s = time.monotonic() - began
    view = await skep.services.get(release.name)
    return Ended(
        service=view.service,
        running=view.running,
        tasks=await skep.tasks.list(service=release.name, is_all=True),
        before=before,
        code=done.returncode,
        output=f"{done.stdout}\n{done.stderr}",
        took_s=took_s,
        serving=serving.least[release.name],
    )


# ------------------------------------------------------------------------------- looking


@pytest.mark.parametrize("release", RELEASES, ids=lambda release: str(release.name))
def test_a_bad_release_ends_as_its_policy_says(release: Release, ended: dict[str, Ended]) -> None:
    end = ended[release.name]
    print(end)
    assert end.service.update is not None
    assert end.service.update.state is release.ends
    assert re.search(release.says, end.message)
    assert end.code == release.code
    assert release.last_output in end.output
    if end.code in (Exit.PAUSED, Exit.ROLLED_BACK):
        assert end.message in end.output
    assert end.serving >= release.serving


@pytest.mark.parametrize(
    "release",
    [release for release in RELEASES if release.ends is ROLLED_BACK],
    ids=lambda release: str(release.name),
)
def test_after_a_rollback_all_run_what_ran_before(
    release: Release, ended: dict[str, Ended]
) -> None:
    end = ended[release.name]
    assert end.running == REPLICAS
    assert {task.revision for task in end.serving_now()} == {1}
    assert end.service.spec.task.run.args == ("sh", "-c", release.first)


@pytest.mark.parametrize(
    "name", ["never-starts-pause", "never-placed-rollback", "crashes-continue"]
)
def test_start_first_touches_no_task_before_its_successor_serves(
    name: str, ended: dict[str, Ended]
) -> None:
    assert {task.id for task in ended[name].serving_now()} == ended[name].before


@pytest.mark.parametrize("name", ["crashes-rollback", "crashes-late-pause"])
def test_what_fails_in_one_slot_spreads_to_no_other(name: str, ended: dict[str, Ended]) -> None:
    tried = {task.slot for task in ended[name].tasks if task.revision == 2}
    assert tried == {1}


def test_who_hangs_at_stop_is_killed_after_its_grace_period(ended: dict[str, Ended]) -> None:
    end = ended["hangs-at-stop-pause"]
    old = [task for task in end.tasks if task.id in end.before]
    assert {(task.status.state, task.status.exit_code) for task in old} == {
        (TaskState.SHUTDOWN, 137)
    }
    assert end.took_s > REPLICAS * GRACE_S
    assert {task.revision for task in end.serving_now()} == {2}
