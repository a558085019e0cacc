"""Changing what runs, and how such a command ends: what is said, and the exit code."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable

import pytest

from skep.cli.commands import history
from skep.domain.base import replace
from skep.domain.control import DeployStackRequest, DeployStackResponse, GetRequest, ServiceView
from skep.domain.objects import Service, UpdateState
from skep.domain.states import TaskState
from tests.unit.cli.shell import STACK, Shell, columns


class Release:
    """A service `web` of three tasks, at v1 after revision 1, whose updates go as planned: what is
    planned for the n-th look at it happens before that."""

    def __init__(self, shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
        self.shell, self.control = shell, shell.control
        self.looks = 0
        self.plan: dict[int, Callable[[], object]] = {}
        assert shell.skep("service create --name web --replicas 3 --image v1 -- serve") == 0
        self.control.is_quick = False
        original = self.control.on_GetService

        def look(q: GetRequest) -> ServiceView:
            self.looks += 1
            self.plan.pop(self.looks, lambda: None)()
            return original(q)

        monkeypatch.setattr(self.control, "on_GetService", look)

    @property
    def row(self) -> Service:
        (row,) = self.control.services.values()
        return row

    def fail(self, slot: int, error: str, *output: str) -> None:
        """A task of the present revision fails, and its slot with it."""
        task = self.control.add_task(self.row, slot)
        self.control.end_task(task, TaskState.FAILED, error=error, since_ns=slot * 10**9)
        assert self.control.output is not None
        self.control.output[task.id] = list(output)

    def say(self, state: UpdateState, message: str = "", **more: object) -> None:
        self.control.set_update("web", state, message, **more)


@pytest.fixture
def release(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> Release:
    return Release(shell, monkeypatch)


# ------------------------------------------------------------------------------ good ends


def test_an_update_is_shown_from_its_first_task_to_its_last_look(release: Release) -> None:
    shell = release.shell

    def all_run() -> None:
        release.control.converge()
        release.say(UpdateState.UPDATING)

    release.plan = {
        5: lambda: release.control.add_task(release.row, 1, TaskState.STARTING),
        6: lambda: release.control.add_task(release.row, 1),
        7: lambda: release.say(UpdateState.UPDATING, failed_slots=(2,)),
        9: all_run,
        11: release.control.converge,
    }
    assert shell.skep("service update web --image v2 --update-parallelism 2") == 0
    assert shell.out == "web\n"
    assert shell.err.splitlines() == [
        "web: updated 0/3, 3/3 running",
        "web: updated 0/3 (1 in flight), 3/3 running",
        "web: updated 1/3, 3/3 running",
        "web: updated 1/3, 3/3 running, 1 failed",
        "web: updated 3/3, 3/3 running, watching 5 s (monitor), 1 failed",
        "web 3/3: running",
        "verify: service web converged",
    ]


def test_quiet_says_nothing_and_detached_waits_for_nothing(release: Release) -> None:
    release.plan = {3: release.control.converge}
    assert release.shell.skep("service update web --image v2 -q") == 0
    assert (release.shell.out, release.shell.err) == ("web\n", "")
    assert release.shell.skep("service update web --image v3 -d") == 0
    assert (release.shell.out, release.shell.err) == ("web\n", "")
    assert release.row.update is not None
    assert release.row.update.state is UpdateState.UPDATING


@pytest.mark.parametrize("line", ["service update --rollback web", "service rollback web"])
def test_a_rollback_by_hand_is_watched_and_is_success(release: Release, line: str) -> None:
    release.shell.skep("service update web --image v2 -d")
    release.control.converge()
    release.plan = {release.looks + 4: release.control.converge}
    assert release.shell.skep(line) == 0
    assert release.shell.out == "web\n"
    assert release.shell.err.splitlines() == [
        "rollback: manually requested rollback",
        "web: rolled back 0/3 to revision 1, 3/3 running: manually requested rollback",
        "web 3/3: running",
        "verify: service web converged",
    ]
    assert release.row.spec.task.run.image == "v1"


def test_a_rollback_goes_to_the_revision_that_is_named(release: Release) -> None:
    shell = release.shell
    for image in ("v2", "v3"):
        shell.skep(f"service update web --image {image} -d")
    release.control.converge()
    assert shell.skep("service rollback web --to 1 -d -q") == 0
    assert (shell.out, shell.err) == ("web\n", "")
    assert release.row.spec.task.run.image == "v1"
    assert shell.skep("service rollback web --to 9") == 1
    assert "no revision 9 to go back to" in shell.err
    assert shell.skep("service update web --rollback --image v4") == 2
    assert "takes no changes" in shell.err
    assert shell.skep("service rollback web --to x") == 2


def test_an_update_of_nothing_resumes_one_that_is_paused(release: Release) -> None:
    release.shell.skep("service update web --image v2 -d")
    release.say(UpdateState.PAUSED, "web.1 failed")
    release.plan = {release.looks + 3: release.control.converge}
    assert release.shell.skep("service update web") == 0
    assert "web is so already; its update goes on" in release.shell.err
    assert release.row.revision == 2


# ------------------------------------------------------------------------------- bad ends


def test_what_was_rolled_back_ends_with_6_and_the_last_words_of_the_task(release: Release) -> None:
    shell = release.shell

    def give_up() -> None:
        release.fail(2, "task: non-zero exit (1)", *[f"line {n}" for n in range(20)], "\tno\x1b[2J")
        release.control.roll_back("web", 1, "update rolled back due to failure of web.2")

    # The newest failure of all is one of the release before.
    release.fail(3, "old news", "old output")
    release.plan = {4: give_up, 6: release.control.converge}
    assert shell.skep("service update web --image v2 --update-failure-action rollback") == 6
    assert shell.out == "web\n"
    (failed,) = [t for t in release.control.tasks.values() if t.revision == 2]
    message = "update rolled back due to failure of web.2"
    assert shell.err.splitlines() == [
        "web: updated 0/3, 3/3 running",
        "web: rolled back 3/3 to revision 1, 3/3 running, watching 5 s (monitor): failure of web.2",
        "web 3/3: running",
        f"skep: error: web: {message}; revision 2 was given up, and that of 1 runs again",
        "web.2 on w2: task: non-zero exit (1)",
        f"last output of web.2 (task {failed.id[:12]}) on w2:",
        *[f"    line {n}" for n in range(11, 20)],
        "            no [2J",
        "what next:",
        "  skep service diff web 2   shows what was changed back",
        "  skep service logs web     shows what its tasks have written",
        "  skep service why web      explains it, slot by slot",
    ]


def test_what_is_paused_ends_with_7_and_how_to_go_on(release: Release) -> None:
    def give_up() -> None:
        release.fail(1, "task: non-zero exit (3)", "boom")
        release.say(UpdateState.PAUSED, "web.1 failed on w1: task: non-zero exit (3)")

    release.plan = {3: give_up}
    assert release.shell.skep("service update web --image v2") == 7
    lines = release.shell.err.splitlines()
    assert lines[1] == (
        "skep: error: web: web.1 failed on w1: task: non-zero exit (3); 3 of 3 tasks run, of both "
        "revisions together"
    )
    # The reason has been told already.
    assert lines[2].startswith("last output of web.1 (task ")
    assert lines[3:7] == [
        "    boom",
        "what next:",
        "  skep service rollback web   goes back to what ran before",
        "  skep service update web     resumes it",
    ]
    assert release.shell.skep("service ls") == 0
    assert release.shell.out.splitlines()[1].endswith(
        "Update paused: web.1 failed on w1: task: non-zero exit (3)"
    )


def test_what_takes_too_long_ends_with_3_and_the_task_that_is_late(release: Release) -> None:
    def late() -> None:
        task = release.control.add_task(release.row, 1, TaskState.STARTING)
        assert release.control.output is not None
        release.control.output[task.id] = ["waiting for the database"]

    release.plan = {3: late}
    assert release.shell.skep("service update web --image v2 --timeout 4s") == 3
    assert "skep: error: not converged after 4 s: web 3/3 (update in progress)" in release.shell.err
    assert "    waiting for the database\n" in release.shell.err
    assert "  skep service why web    explains it, slot by slot\n" in release.shell.err


def test_the_task_that_the_reason_names_is_the_one_that_is_shown(release: Release) -> None:
    def give_up() -> None:
        release.fail(1, "task: non-zero exit (1)", "the first")
        named = next(t for t in release.control.tasks.values() if t.status.error)
        release.fail(2, "task: non-zero exit (1)", "the second")
        release.say(UpdateState.PAUSED, f"update paused due to web.1 ({named.id[:12]})")

    release.plan = {3: give_up}
    assert release.shell.skep("service update web --image v2") == 7
    assert "    the first\n" in release.shell.err
    assert "the second" not in release.shell.err


def test_a_newer_spec_of_somebody_else_ends_with_5(release: Release) -> None:
    row = release.row
    release.plan = {3: lambda: release.control.write(release.row, replace(row.spec, replicas=9))}
    assert release.shell.skep("service update web --image v2") == 5
    assert "revision 2, which was waited for, was replaced by revision 3" in release.shell.err
    assert "skep service history web   lists the specs it has had" in release.shell.err


def test_the_wait_is_as_long_as_the_update_may_take(release: Release) -> None:
    began = release.shell.world.clock.time
    assert release.shell.skep("service update web --image v2 --update-monitor 1s") == 3
    # Three slots with 30 s to start and 10 s to stop, 300 s for one that never does, the monitor.
    assert "not converged after 421 s" in release.shell.err
    assert release.shell.world.clock.time - began == pytest.approx(421, abs=1)
    # Going back is slow as well, and is not a rollback of itself.
    assert release.shell.skep("service rollback web") == 3
    assert "not converged after 425 s" in release.shell.err


def test_a_deploy_waits_as_long_as_its_slowest_update_may_take(shell: Shell) -> None:
    path = shell.file(STACK)
    shell.control.is_quick = False
    assert shell.skep(f"stack deploy -c {path}") == 3
    assert "not converged after 60 s" in shell.err
    shell.control.converge()
    changed = shell.file(STACK.replace("command: serve", "command: other"))
    assert shell.skep(f"stack deploy -c {changed}") == 3
    assert "not converged after 425 s" in shell.err
    assert shell.skep(f"stack deploy -c {path} --timeout 3s") == 3
    assert "not converged after 3 s" in shell.err


def test_steps_are_for_the_cluster_that_the_command_was_about(release: Release) -> None:
    release.plan = {3: lambda: release.say(UpdateState.PAUSED, "why")}
    at = "127.32.0.1:4000"
    assert release.shell.skep(f"service update web --image v2 --managers-address {at}") == 7
    assert (
        f"  skep service update web --managers-address {at}     resumes it\n" in release.shell.err
    )


def test_a_deploy_ends_with_what_became_of_its_own_revisions(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = shell.file(STACK)
    assert shell.skep(f"stack deploy -c {path}") == 0
    shell.control.is_quick = False
    bad = shell.file(STACK.replace("command: serve", "command: crash"))
    control = shell.control
    original = control.on_DeployStack

    def deploy(q: DeployStackRequest) -> DeployStackResponse:
        answer = original(q)
        # It is rolled back before anybody has looked at it.
        control.roll_back("shop_web", 1, "shop_web.1 failed")
        control.converge()
        return answer

    monkeypatch.setattr(control, "on_DeployStack", deploy)
    assert shell.skep(f"stack deploy -c {bad}") == 6
    assert "revision 2 was given up, and that of 1 runs again" in shell.err
    assert shell.skep("service ls") == 0
    assert shell.out.splitlines()[2].endswith("   Converged, rolled back")


def test_a_job_that_ran_to_its_end_is_success(release: Release) -> None:
    def end(slot: int) -> None:
        task = release.control.add_task(release.row, slot)
        release.control.end_task(task, TaskState.COMPLETE)

    def end_all() -> None:
        end(2)
        end(3)
        release.say(UpdateState.COMPLETED)

    release.control.tasks.clear()
    release.plan = {4: lambda: end(1), 6: end_all}
    assert release.shell.skep("service update web --restart-condition on-failure --image v2") == 0
    assert release.shell.err.splitlines() == [
        "web: updated 0/3, 0/3 running",
        "web 0/3: completed",
        "verify: service web completed",
    ]


# ------------------------------------------------------------------------------- the past


def test_the_specs_that_a_service_has_had_are_listed(release: Release) -> None:
    shell = release.shell
    shell.skep("service update web --image v2 --env-add A=1 -d")
    release.control.converge()
    shell.skep("service scale web=2 -d")
    assert shell.skep("service history web") == 0
    lines = [columns(line) for line in shell.out.splitlines()]
    assert lines[0] == ["REVISION", "CREATED", "IMAGE", "TASKS", "CHANGES"]
    assert [line[0] for line in lines[1:]] == ["3 *", "2", "1"]
    assert [line[2:] for line in lines[1:]] == [
        ["v2", "3", "scaled from 3 to 2"],
        ["v2", "0", "image, environment"],
        ["v1", "0", "created"],
    ]
    shell.skep("service rollback web --to 1 -d")
    rows = shell.rows("service history web")
    assert (rows[0]["note"], rows[0]["is_present"]) == ("rollback to 1", True)
    assert rows[0]["changes"] == "image, environment, replicas"
    assert shell.skep("service history web -q") == 0
    assert shell.out.split() == ["4", "3", "2", "1"]


def test_two_specs_are_compared(release: Release) -> None:
    shell = release.shell
    shell.skep("service update web --image v2 --env-add A=1 --update-delay 90s -d")
    shell.skep("service update web --image v3 --env-rm A -d")
    assert shell.skep("service diff web") == 0
    assert shell.out.splitlines() == [
        "web: revision 2 to 3",
        "- image: v2",
        "+ image: v3",
        "- environment.A: 1",
    ]
    assert shell.skep("service diff web 1 2") == 0
    assert shell.out.splitlines() == [
        "web: revision 1 to 2",
        "- image: v1",
        "+ image: v2",
        "+ environment.A: 1",
        "- deploy.update_config.delay: 0s",
        "+ deploy.update_config.delay: 1m30s",
    ]
    assert shell.skep("service diff web 1 --format json") == 0
    assert json.loads(shell.out) == {
        "service": "web",
        "from": 1,
        "to": 3,
        "changes": [
            {"field": "image", "old": "v1", "new": "v3"},
            {"field": "deploy.update_config.delay", "old": "0s", "new": "1m30s"},
        ],
    }
    assert shell.skep("service diff web 2 2") == 0
    assert shell.out.splitlines()[1:] == ["no difference"]
    assert shell.skep("service diff web 7") == 1
    assert "web has no revision 7; kept are 1, 2, 3" in shell.err


def test_differences_are_coloured_on_a_terminal_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    assert history.coloured("- a: 1") == "- a: 1"
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert history.coloured("- a: 1") == "\x1b[31m- a: 1\x1b[0m"
    assert history.coloured("+ a: 1") == "\x1b[32m+ a: 1\x1b[0m"
    assert history.coloured("no difference") == "no difference"
    monkeypatch.setenv("NO_COLOR", "1")
    assert history.coloured("- a: 1") == "- a: 1"
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv("TERM", "dumb")
    assert history.coloured("- a: 1") == "- a: 1"


def test_a_service_without_a_past_has_nothing_to_compare(release: Release) -> None:
    assert release.shell.skep("service diff web") == 1
    assert "has no revision before 1 to compare it with" in release.shell.err


# -------------------------------------------------------------------------------- inspect


def test_a_service_is_inspected_as_text(release: Release) -> None:
    shell = release.shell
    shell.skep("service update web --image v2 --publish-add 80 --env-add A=1 -d")
    release.say(UpdateState.PAUSED, "web.2 failed", ended_ns=2, failed_slots=(2,))
    assert shell.skep("service inspect --pretty web") == 0
    lines = [" ".join(line.split()) for line in shell.out.splitlines()]
    assert lines[1:5] == [
        "Name: web",
        "Service Mode: Replicated",
        "Replicas: 3 (3 running)",
        "Revision: 2",
    ]
    at = lines.index("UpdateStatus:")
    assert lines[at + 1] == "State: paused"
    assert lines[at + 2].startswith("Started: ")
    assert lines[at + 3].startswith("Paused: ")
    assert lines[at + 4 : at + 6] == ["Message: web.2 failed", "Failed slots: 2"]
    assert lines.count("On failure: pause") == 2
    for line in ("Image: v2", "Command: serve", "Env: A=1", "Ports: *:?->80/tcp"):
        assert line in lines


def test_single_fields_of_a_service_are_shown(release: Release) -> None:
    shell = release.shell

    def shown(template: str) -> str:
        assert shell.skep("service inspect web -f", template) == 0, shell.err
        return shell.out

    assert shown("{{.Spec.TaskTemplate.ContainerSpec.Image}}") == "v1\n"
    assert shown("{{ .Spec.Name }}={{.Spec.Mode.Replicated.Replicas}}\\t!") == "web=3\t!\n"
    assert shown("{{.Spec.TaskTemplate.ContainerSpec.Args}}") == '["serve"]\n'
    assert shown("{{.service.spec.task.run.image}}") == "v1\n"
    assert shown("{{.UpdatedAt}}").startswith("1970-01-01T00:00:00.0")
    shell.skep("service update web --image v2 -d")
    assert shown("{{.UpdateStatus.State}}") == "updating\n"
    for template, says in (
        ("{{json .Spec}}", "'{{json .Spec}}' is not understood; only fields are"),
        ("{{.Spec.Nme}}", "there is no field .Spec.Nme; .Spec has Name, Labels, TaskTemplate"),
        ("{{.Spec.Name.x}}", "there is no field .Spec.Name.x; .Spec.Name has no fields"),
        ("table", "'table' is not one of json and yaml, and names no field"),
        ("{{.Spec.Name", "names no field"),
    ):
        assert shell.skep("service inspect web -f", template) == 2
        assert says in shell.err
        assert shell.err.count("\n") == 1
    assert shell.skep("service inspect web --pretty -f", "{{.ID}}") == 2
