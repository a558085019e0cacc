"""Options of `service create` and `service update`."""

from __future__ import annotations

import pytest

from skep.cli import parser, specflags
from skep.cli.errors import Failure
from skep.domain.base import replace
from skep.domain.spec import (
    HealthCheck,
    Placement,
    Port,
    Resources,
    RestartCondition,
    RestartPolicy,
    RunSpec,
    ServiceSpec,
    TaskSpec,
)

S = 1_000_000_000
PLAIN = ServiceSpec(name="web", task=TaskSpec(run=RunSpec(command=("serve", "-v"))))


def create(*words: str) -> ServiceSpec:
    options = ["service", "create", "--name", "web", *words, "--", "serve", "-v"]
    return specflags.created(parser.parse(options))


def update(spec: ServiceSpec, *words: str) -> ServiceSpec:
    options = parser.parse(["service", "update", "web", *words])
    return specflags.edited(options)(spec)


FULL_FLAGS = (
    "--replicas 4 --image shop:1 --publish 8080:80 -p 81 --env A=1 --env B= --label "
    "team=shop --constraint node.role==worker --workdir /srv --user me --stop-signal INT "
    "--stop-grace-period 3s --health-cmd probe --health-interval 2s --health-timeout 1s "
    "--health-start-period 5s --health-start-interval 100ms --health-retries 2 "
    "--restart-condition on-failure --restart-delay 0s --restart-max-attempts 3 "
    "--restart-window 1m --limit-cpu 0.5 --limit-memory 64M --limit-pids 10 --reserve-cpu "
    "0.1 --reserve-memory 8M"
)
FULL = ServiceSpec(
    name="web",
    replicas=4,
    labels=(("team", "shop"),),
    ports=(Port(target=80, published=8080), Port(target=81)),
    task=TaskSpec(
        run=RunSpec(
            image="shop:1",
            command=("serve", "-v"),
            env=(("A", "1"), ("B", "")),
            working_dir="/srv",
            user="me",
            stop_signal="SIGINT",
            stop_grace_ns=3 * S,
            health=HealthCheck(
                test=("CMD-SHELL", "probe"),
                interval_ns=2 * S,
                timeout_ns=S,
                start_period_ns=5 * S,
                start_interval_ns=S // 10,
                retries=2,
            ),
        ),
        restart=RestartPolicy(
            condition=RestartCondition.ON_FAILURE, delay_ns=0, max_attempts=3, window_ns=60 * S
        ),
        limits=Resources(cpu_nano=S // 2, memory_bytes=64 * 2**20, pids=10),
        reservations=Resources(cpu_nano=S // 10, memory_bytes=8 * 2**20),
        placement=Placement(constraints=("node.role==worker",)),
    ),
)


def test_create_with_nothing_and_with_everything() -> None:
    assert create() == PLAIN
    assert create(*FULL_FLAGS.split()) == FULL


def test_an_update_changes_what_it_names_and_nothing_else() -> None:
    assert update(FULL) == FULL
    changed = update(FULL, "--replicas", "0", "--image", "shop:2", "--limit-pids", "0")
    assert changed.replicas == 0
    assert changed.task.run.image == "shop:2"
    assert changed.task.limits == Resources(cpu_nano=S // 2, memory_bytes=64 * 2**20)
    assert changed.task.run.health == FULL.task.run.health


def test_lists_are_added_to_and_removed_from() -> None:
    flags = (
        "--env-add A=2 --env-rm B --label-add x=y --label-rm team --publish-add 9090:80 "
        "--publish-rm 8080 --constraint-rm node.role==worker --constraint-add node.id!=x --force"
    )
    changed = update(FULL, *flags.split(), "--", "other")
    assert changed.task.run.env == (("A", "2"),)
    assert changed.labels == (("x", "y"),)
    assert changed.ports == (Port(target=81), Port(target=80, published=9090))
    assert changed.task.placement.constraints == ("node.id!=x",)
    assert (changed.task.run.command, changed.task.run.args) == (("other",), ())
    assert changed.task.force_update == 1


def test_a_port_is_removed_in_the_form_it_was_added_in() -> None:
    both = replace(FULL, ports=(Port(target=80, published=8080), Port(target=80, published=8081)))
    assert update(both, "--publish-rm", "8080:80").ports == (Port(target=80, published=8081),)
    assert update(both, "--publish-rm", "8081/tcp").ports == (Port(target=80, published=8080),)
    assert update(both, "--publish-rm", "80").ports == ()
    assert update(both, "--publish-rm", "8080:81").ports == both.ports


def test_a_health_check_of_nothing_is_refused() -> None:
    for line in ("", " "):
        with pytest.raises(Failure, match="--health-cmd: the command is empty"):
            create("--health-cmd", line)


def test_a_health_check_is_turned_off() -> None:
    assert update(FULL, "--no-healthcheck").task.run.health == HealthCheck(test=("NONE",))


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ("--publish 0:80", "--publish: port 0 is out of range"),
        ("--publish 53/udp", "--publish: protocol 'udp' is not supported yet"),
        ("--env =x", "--env: '=x' has no name; write NAME=VALUE"),
        ("--label =x", "--label: '=x' has no name; write NAME=VALUE"),
        ("--limit-pids 99999999999999999999", "is too large; the limit is 2147483647"),
        ("--env A", "--env: 'A' has no value; write NAME=VALUE"),
        ("--limit-memory much", "--limit-memory: 'much' is not a size"),
        ("--restart-delay 5", "--restart-delay: '5' has no unit"),
        ("--restart-condition always", "'always' is not one of none"),
        ("--health-interval 1s", "add --health-cmd"),
        ("--health-cmd x --no-healthcheck", "exclude each other"),
        ("--health-cmd x --health-retries 0", "--health-retries: 0 is out of range"),
    ],
)
def test_bad_options_are_named(flags: str, says: str) -> None:
    with pytest.raises(Failure) as caught:
        create(*flags.split())
    assert says in str(caught.value)
    assert caught.value.code == 2
