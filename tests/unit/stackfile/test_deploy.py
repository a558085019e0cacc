"""How a service is brought to a new revision, and where its tasks may run."""

from __future__ import annotations

import pytest

from skep.domain.spec import (
    FailureAction,
    Placement,
    Platform,
    Port,
    PortMode,
    UpdateOrder,
    UpdatePolicy,
)
from tests.unit.stackfile.files import refused, service, told

S = 1_000_000_000
PROBED = "healthcheck: {test: probe}"


def test_an_update_config_with_every_key() -> None:
    found = told(
        service(
            PROBED,
            "deploy:",
            "  endpoint_mode: vip",
            "  update_config:",
            "    parallelism: 2",
            "    delay: 1m30s",
            "    monitor: 20s",
            "    failure_action: rollback",
            "    max_failure_ratio: 0.25",
            "    order: start-first",
            "    x-healthy-deadline: 90s",
            "  rollback_config: {parallelism: 0, failure_action: continue, order: stop-first}",
        )
    )
    assert found.only.update == UpdatePolicy(
        parallelism=2,
        delay_ns=90 * S,
        monitor_ns=20 * S,
        failure_action=FailureAction.ROLLBACK,
        max_failure_ratio=0.25,
        order=UpdateOrder.START_FIRST,
        healthy_deadline_ns=90 * S,
    )
    assert found.only.rollback == UpdatePolicy(parallelism=0, failure_action=FailureAction.CONTINUE)
    assert found.warnings == ()


def test_no_monitoring_is_not_the_default_monitoring() -> None:
    never = told(service("deploy: {update_config: {monitor: 0s}}")).only.update
    default = told(service("deploy: {update_config: {monitor: }}")).only.update
    assert (never.monitor_ns, default.monitor_ns) == (0, 5 * S)


def test_what_a_later_file_leaves_out_has_its_default_again() -> None:
    assert told(service("deploy: {update_config: {parallelism: 3}}")).only.update.parallelism == 3
    assert told(service("deploy: {update_config: {}}")).only.update == UpdatePolicy()
    assert told(service()).only.update == UpdatePolicy()


def test_placement() -> None:
    found = told(
        service(
            "platform: linux/amd64",
            "deploy:",
            "  placement:",
            "    constraints: [node.role == worker]",
            "    preferences:",
            "      - spread: node.labels.zone",
            "      - {spread: node.labels.rack}",
            '    max_replicas_per_node: "2"',
        )
    )
    assert found.only.task.placement == Placement(
        constraints=("node.role == worker",),
        preferences=("node.labels.zone", "node.labels.rack"),
        max_replicas_per_node=2,
        platforms=(Platform(os="linux", arch="amd64"),),
    )
    assert found.warnings == ()


def test_as_in_swarm_no_more_than_0_replicas_per_node_is_no_limit() -> None:
    found = told(service("deploy: {placement: {max_replicas_per_node: 0}}")).only
    assert found.task.placement.max_replicas_per_node is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("linux", Platform(os="linux")),
        ("amd64", Platform(arch="amd64")),
        ("Linux/ARM64/v8", Platform(os="linux", arch="arm64")),
    ],
)
def test_platforms(text: str, expected: Platform) -> None:
    found = told(service(f"platform: {text}"))
    assert (found.only.task.placement.platforms, found.warnings) == ((expected,), ())


def test_a_variant_that_nobody_looks_at_is_told() -> None:
    found = told(service("platform: linux/arm/v7"))
    assert found.only.task.placement.platforms == (Platform(os="linux", arch="arm"),)
    assert found.warnings == (
        "a.yml:4:15: variant 'v7' is not looked at: any arm node may run this",
    )


def test_host_ports() -> None:
    found = told(service("ports: [{target: 80, published: '8080', mode: host}, {target: 81}]"))
    assert found.only.ports == (
        Port(target=80, published=8080, mode=PortMode.HOST),
        Port(target=81),
    )


def test_two_services_may_share_a_host_port_but_not_one_that_every_node_publishes() -> None:
    host = "{command: x, ports: [{target: 80, published: 80, mode: host}]}"
    every = "{command: x, ports: [80:80]}"
    assert len(told(f"services:\n  a: {host}\n  b: {host}").spec.services) == 2
    assert refused(f"services:\n  a: {host}\n  b: {every}") == [
        "a.yml:3:27: port 80 is already published at a.yml:2:27; publish one of them elsewhere"
    ]


def test_one_service_publishes_a_host_port_once() -> None:
    twice = (
        "ports: [{target: 80, published: 80, mode: host}, {target: 81, published: 80, mode: host}]"
    )
    assert refused(service(twice)) == [
        "a.yml:4:54: port 80 is already published at a.yml:4:13; publish one of them elsewhere"
    ]


@pytest.mark.parametrize(
    ("deploy", "expected"),
    [
        ("{update_config: {parallelism: -1}}", "a.yml:4:43: parallelism: -1 is out of range"),
        ("{update_config: {parallelism: two}}", "4:43: parallelism: 'two' is not a whole number"),
        ("{update_config: {parallelism: [1]}}", "parallelism must be text, but this is a list"),
        ("{update_config: {parallelism: yes}}", "parallelism: 'yes' is not a whole number"),
        ("{update_config: {parallelism: 0o17}}", "'0o17' is not a whole number"),
        ("{update_config: {parallelism: 1_0}}", "'1_0' is not a whole number"),
        ("{update_config: {parallelism: 010}}", "'010' begins with 0"),
        ("{update_config: {delay: 90}}", "delay: '90' has no unit; write '90s'"),
        ("{update_config: {delay: 1:30}}", "delay: '1:30' is not a duration"),
        ("{update_config: {delay: -1s}}", "delay: '-1s' is not a duration"),
        ("{update_config: {monitor: 99999h}}", "monitor must not be longer than ten years"),
        ("{update_config: {failure_action: stop}}", "'pause' or 'continue' or 'rollback', but"),
        ("{update_config: {max_failure_ratio: 1.5}}", "'1.5' is not a share between 0 and 1"),
        ("{update_config: {max_failure_ratio: nan}}", "'nan' is not a share"),
        ("{update_config: {max_failure_ratio: -0.1}}", "'-0.1' is not a share"),
        ("{update_config: {max_failure_ratio: 10%}}", "'10%' is a percentage; write 0.25 for"),
        ("{update_config: {order: start_first}}", "'stop-first' or 'start-first', but"),
        ("{update_config: {x-healthy-deadline: 0s}}", "x-healthy-deadline must be 1ms or longer"),
        ("{update_config: {x-healthy-dedline: 1s}}", "did you mean 'x-healthy-deadline'?"),
        ("{update_config: {paralelism: 1}}", "'paralelism' in update_config; did you mean"),
        ("{update_config: [a]}", "a.yml:4:29: update_config must be a map, but this is a list"),
        ("{rollback_config: {delai: 1s}}", "unknown key 'delai' in rollback_config"),
        (
            "{rollback_config: {failure_action: rollback}}",
            "a.yml:4:48: failure_action can't be 'rollback' here: a rollback that fails has "
            "nothing to go back to; use 'pause' or 'continue'",
        ),
        ("{rollback_config: {failure_action: no}}", "must be 'pause' or 'continue', but"),
        ("{placement: {preferences: node.labels.a}}", "preferences must be a list, but this is"),
        ("{placement: {preferences: [{}]}}", "a.yml:4:40: a preference needs 'spread'"),
        ("{placement: {preferences: [{spred: a}]}}", "unknown key 'spred' in a preference; did"),
        ("{placement: {preferences: [{spread: node.os}]}}", "4:49: 'node.os' is nothing to spread"),
        ("{placement: {max_replicas_per_node: no}}", "'no' is not a whole number"),
        ("{endpoint_mode: vpi}", "4:29: endpoint_mode must be 'vip' or 'dnsrr', but this is 'vpi'"),
    ],
)
def test_what_is_refused_under_deploy(deploy: str, expected: str) -> None:
    assert expected in refused(service(f"deploy: {deploy}"))[0]


@pytest.mark.parametrize(
    ("platform", "expected"),
    [
        ("a/b/c/d", "a.yml:4:15: platform: 'a/b/c/d' is not a platform; write one like"),
        ("linux/", "'linux/' is not a platform"),
        ("[linux]", "platform must be text, but this is a list"),
    ],
)
def test_platforms_that_are_refused(platform: str, expected: str) -> None:
    assert expected in refused(service(f"platform: {platform}"))[0]


# ------------------------------------------------------------------------------- warnings

START_FIRST = "deploy: {update_config: {order: start-first}}"


def test_start_first_without_a_healthcheck_is_told() -> None:
    (line,) = told(service(START_FIRST)).warnings
    assert line.startswith("a.yml:4:37: start-first without a healthcheck: a new task counts as")
    assert line.endswith("; add 'healthcheck'")
    assert told(service(START_FIRST, "healthcheck: {disable: true}")).warnings == (line,)
    assert told(service(START_FIRST, PROBED)).warnings == ()


def test_monitoring_without_a_healthcheck_is_told() -> None:
    (line,) = told(service("deploy: {rollback_config: {monitor: 5s}}")).warnings
    assert line.startswith("a.yml:4:41: monitor without a healthcheck sees only tasks that end")
    assert told(service("deploy: {update_config: {monitor: 0s}}")).warnings == ()


def test_start_first_with_a_port_that_the_old_task_holds_is_told() -> None:
    port = "ports: [{target: 80, published: 80, mode: host}]"
    assert told(service(PROBED, START_FIRST, port)).warnings == (
        "a.yml:6:13: start-first, but the old task holds this port of its node: it is stopped "
        "first",
    )
    assert told(service(PROBED, START_FIRST, "ports: [{target: 80, mode: host}]")).warnings
    assert told(service(PROBED, START_FIRST, "ports: ['80:80']")).warnings == ()


def test_a_pace_of_the_start_period_without_one_is_told() -> None:
    pace = "test: probe, start_interval: 200ms"
    (line,) = told(service(f"healthcheck: {{{pace}}}")).warnings
    assert line.startswith("a.yml:4:48: start_interval is the pace within the start period")
    assert told(service(f"healthcheck: {{{pace}, start_period: 1s}}")).warnings == ()


def test_an_image_beside_a_command_is_the_release_s_name_and_nothing_to_be_told() -> None:
    assert told(service("image: shop/web:1.2")).warnings == ()


def test_labels_of_a_container_are_told_to_go_nowhere() -> None:
    found = told(service("labels: [a=b]"))
    assert found.only.labels == ()
    assert found.warnings == (
        "a.yml:4:13: labels here are a container's, and there is none; use deploy.labels to label "
        "the service",
    )
    assert "labels must be a map, but this is 'x'" in refused(service("labels: x"))[0]
