"""Several files as one: what stands, and which file is named for what is wrong."""

from __future__ import annotations

import pytest

from skep.domain.spec import Balance, NetworkSpec, NetworkUse, Port, PortMode
from skep.stackfile import Reading, StackFileError, StackText, raw_values, read
from skep.stackfile.nodes import NODE_LIMIT
from tests.unit.stackfile.files import refused, service, texts, told


def test_maps_are_merged_deeply_and_scalars_replaced() -> None:
    found = told(
        service("user: me", "deploy: {replicas: 1, restart_policy: {delay: 1s, condition: any}}"),
        service("deploy: {replicas: 2, restart_policy: {condition: none}}", command="user: you"),
    ).only
    assert (found.task.run.args, found.task.run.user, found.replicas) == (("x",), "you", 2)
    assert (found.task.restart.delay_ns, found.task.restart.condition.value) == (10**9, "none")


def test_services_of_all_files_are_there_in_their_order() -> None:
    found = told(service(name="b"), service(name="a"), service(name="b", command="user: me"))
    assert [one.name for one in found.spec.services] == ["shop_b", "shop_a"]
    assert found.spec.services[0].task.run.user == "me"


def test_the_last_name_counts() -> None:
    files = texts("name: one\nversion: '2'\n" + service(), "name: two", "version: '3'")
    assert read(files, Reading({})).spec.name == "two"
    assert read(files, Reading({}, name="three")).spec.name == "three"


def test_lists_are_appended() -> None:
    found = told(
        service("deploy: {placement: {constraints: [node.role==worker]}}"),
        service("deploy: {placement: {constraints: [node.labels.a==b]}}"),
    ).only
    assert found.task.placement.constraints == ("node.role==worker", "node.labels.a==b")


def test_commands_and_health_tests_are_replaced() -> None:
    found = told(
        service("entrypoint: [a, b]", "healthcheck: {test: [CMD, c], retries: 7}"),
        service("entrypoint: d e", "healthcheck: {test: f}", command="command: [y]"),
    ).only.task.run
    assert (found.command, found.args) == (("d", "e"), ("y",))
    assert found.health
    assert (found.health.test, found.health.retries) == (("CMD-SHELL", "f"), 7)


@pytest.mark.parametrize("first", ["{A: 1, B: 2, C: 3}", "[A=1, B=2, C=3]"])
@pytest.mark.parametrize("second", ["{B: 9, C: , D: '4=4'}", "[B=9, C, D=4=4]"])
def test_variables_and_labels_are_merged_by_name_in_either_form(first: str, second: str) -> None:
    found = told(
        service(f"environment: {first}", f"deploy: {{labels: {first}}}"),
        service(f"environment: {second}", f"deploy: {{labels: {second}}}"),
        C="mine",
    ).only
    assert found.task.run.env == (("A", "1"), ("B", "9"), ("C", "mine"), ("D", "4=4"))
    assert found.labels == (("A", "1"), ("B", "9"), ("C", ""), ("D", "4=4"))


def test_ports_are_merged_by_what_they_publish() -> None:
    found = told(
        service("ports: ['8080:80', '8000-8001:90-91', {target: 70, published: 7000, name: x}]"),
        service(
            "ports:",
            "  - {target: 80, published: '8080', mode: host}",
            "  - 8001:91/tcp",
            "  - '8082:81'",
            "  - {target: 70, published: 7000, x-balance: least_connections}",
        ),
    ).only
    assert found.ports == (
        Port(target=80, published=8080, mode=PortMode.HOST),
        Port(target=90, published=8000),
        Port(target=91, published=8001),
        Port(target=70, published=7000, name="x", balance=Balance.LEAST_CONNECTIONS),
        Port(target=81, published=8082),
    )


def test_a_port_that_two_files_publish_for_different_targets_names_both() -> None:
    assert refused(service("ports: ['80:80']"), service("ports: ['80:81']")) == [
        "b.yml:4:13: port 80 is already published at a.yml:4:13; publish one of them elsewhere"
    ]


def test_logging_of_another_driver_is_replaced() -> None:
    base = service("logging: {driver: json-file, options: {max-file: 9}}")
    same = told(base, service("logging: {options: {max-size: 1m}}")).only.task.run.log
    other = told(base, service("logging: {driver: local}")).only.task.run.log
    assert (same.max_files, same.max_bytes, other.max_files) == (9, 2**20, 2)


def test_a_key_that_says_nothing_changes_nothing() -> None:
    base = service("user: me", "deploy: {replicas: 3}")
    found = told(base, "services: {a: {user: , command: null, deploy: }}", "services: ~").only
    assert (found.task.run.user, found.task.run.args, found.replicas) == ("me", ("x",), 3)


def test_reset_removes_what_stood() -> None:
    base = service(
        "user: me",
        "ports: ['80:80']",
        "environment: {A: 1, B: 2}",
        "deploy:",
        "  update_config: {parallelism: 5}",
    )
    over = service(
        "user: !reset null",
        "ports: !reset []",
        "environment: {A: !reset null}",
        "deploy: {update_config: !reset {}}",
    )
    found = told(base, over).only
    assert (found.task.run.user, found.ports) == ("", ())
    assert found.task.run.env == (("B", "2"),)
    assert found.update.parallelism == 1
    # In a file by itself, it removes just as well.
    assert told(service("user: !reset me", "cap_add: !reset [x]")).only.task.run.user == ""


def test_override_replaces_what_stood() -> None:
    base = service("ports: ['80:80']", "environment: {A: 1}", "user: me")
    found = told(base, service("ports: !override ['81:81']", "environment: !override [B=2]")).only
    assert [port.published for port in found.ports] == [81]
    assert (found.task.run.env, found.task.run.user) == ((("B", "2"),), "me")
    assert told(service("user: !override you")).only.task.run.user == "you"


def test_errors_name_the_file_that_the_value_came_from() -> None:
    base = service("deploy: {replicas: x}", "stop_grace_period: 10")
    over = service("deploy: {update_config: {order: x}}", "environment: ['A=${A:?why}']")
    assert refused(base, over) == [
        "a.yml:4:24: replicas: 'x' is not a whole number",
        "a.yml:5:24: stop_grace_period: '10' has no unit; write '10s' if seconds are meant",
        "b.yml:4:37: order must be 'stop-first' or 'start-first', but this is 'x'",
        "b.yml:5:22: variable 'A' must be set: why; set it in the environment",
    ]


def test_what_only_the_whole_shows_is_told_where_it_stands() -> None:
    base = service("environment: {A: '{{.Nope}}'}")
    over = service("deploy: {labels: {A: b}}")
    (line,) = refused(base, over)
    assert line.startswith("a.yml:4:22: environment: unknown template {{.Nope}}; known are")


def test_forms_that_do_not_fit_are_refused_with_both_places() -> None:
    assert refused(service("deploy: {replicas: 1}"), service("deploy: [a]"))[0] == (
        "b.yml:4:13: deploy is a list here, but a map at a.yml:4:13, and can't be merged with it; "
        "write it in the same form, or tag it '!override' to replace it"
    )
    # Of a key that is refused anyway, nothing more is said; nor of one that is not ours.
    assert refused(service("volumes: [a:/b]"), service("volumes: {a: b}")) == [
        "engine 'process' can't do 'volumes' (b.yml:4:5): it needs a container engine; remove the "
        "key, or write 'x-engine: docker'"
    ]
    assert told("x-a: 1\n" + service(), "x-a: [b]").only


def test_extension_fields_are_replaced_whole_but_a_service_is_none() -> None:
    first = "x-a: {b: 1}\n" + service("environment: {x-v: 1, W: 1}", "x-e: {a: 1}", name="x-s")
    second = "x-a: {c: 2}\n" + service("x-e: {b: 2}", name="x-s", command="environment: [x-v=2]")
    values = raw_values(texts(first, second), Reading({}, name="shop"))
    assert values["x-a"] == {"c": 2}
    assert values["services"]["x-s"] == {
        "command": "x",
        "environment": {"x-v": "2", "W": 1},
        "x-e": {"b": 2},
    }


def test_networks_in_both_forms_are_merged() -> None:
    top = "networks: {back: }\n"
    found = told(
        top + service("networks: [default]"),
        service("networks: {back: {aliases: [x]}}"),
        service("networks: {back: {aliases: [y, x]}}"),
    ).only
    assert found.task.networks == (
        NetworkUse(network="shop_back", aliases=("a", "x", "y")),
        NetworkUse(network="shop_default", aliases=("a",)),
    )
    (line,) = refused(service("networks: [default]"), service("networks: {back: }"))
    assert line == "b.yml:4:16: network 'back' is not under 'networks:' of the file; add it there"


def test_what_files_say_of_a_network_is_merged() -> None:
    first = """\
        networks:
          default:
            labels: [a=1, b=2]
            driver_opts: {encrypted: ""}
            ipam: {config: [{subnet: 10.9.0.0/24}]}
        """
    second = """\
        networks:
          default:
            labels: {b: 3}
            driver_opts: {mtu: 1400}
            ipam: {config: [{subnet: 10.9.0.0/24, gateway: 10.9.0.9}]}
            internal: true
        """
    assert told(first, second, service()).spec.networks == (
        NetworkSpec(
            name="shop_default",
            labels=(("a", "1"), ("b", "3")),
            options=(("mtu", "1400"),),
            is_encrypted=True,
            is_internal=True,
            subnet="10.9.0.0/24",
            gateway="10.9.0.9",
        ),
    )
    third = "networks: {default: {ipam: {config: [{subnet: 10.8.0.0/24}]}}}"
    assert refused(first, third, service()) == [
        "b.yml:1:38: a network has one subnet, of IPv4 addresses; remove the others"
    ]


def test_no_more_files_than_anybody_keeps_apart() -> None:
    files = [StackText(f"{number}.yml", service()) for number in range(33)]
    with pytest.raises(StackFileError, match=r"^32\.yml:1:1: more than 32 files for one stack"):
        read(files, Reading({}, name="shop"))
    assert read(files[:32], Reading({}, name="shop")).spec.services


def test_files_that_are_too_much_together_are_refused() -> None:
    count = NODE_LIMIT // 1000 // 2 + 1
    big = f"x-b: &b [{', '.join('a' * 1000)}]\nx-c: [{', '.join(['*b'] * count)}]\n"
    other = big.replace("x-", "x-other-")
    assert refused(big + service(), other)[0].startswith("a.yml:1:1: merging the files makes more")


# ------------------------------------------------------------------------- all that is wrong


def test_all_that_is_wrong_is_told_ten_at_a_time() -> None:
    lines = [f"cap_{number}: x" for number in range(12)]
    found = refused(service("frob: 1", "cap_add: [x]", "deploy: {replicas: x, mode: global}"))
    assert [line.partition(":")[2].split(" ")[0] for line in found[:1]] == ["4:5:"]
    assert len(found) == 4
    found = refused(service(*lines))
    assert len(found) == 11
    assert found[-1] == "2 more; mend these first"


def test_a_name_that_can_not_be_is_told_once() -> None:
    with pytest.raises(StackFileError) as caught:
        read(texts(service("user: [a]")), Reading({}, fallback_name="a b"))
    assert str(caught.value).startswith("a.yml:1:1: 'a b' can't be a stack's name; use up to")
    assert caught.value.others == ("a.yml:4:11: user must be text, but this is a list",)


def test_a_mistake_that_an_alias_repeats_is_told_once() -> None:
    text = """\
        x-a: &a {command: x, frobnicate: 1}
        services: {a: *a, b: *a}
        """
    assert refused(text) == ["a.yml:1:22: unknown key 'frobnicate' in a service; remove it"]


def test_output_of_compose_itself_is_accepted() -> None:
    found = told(
        """\
        name: other
        services:
          web:
            command: [sleep, "1"]
            deploy: {mode: replicated, replicas: 2, placement: {}, resources: {}}
            entrypoint: null
            environment: {A: null}
            healthcheck: {test: [CMD, x], timeout: 1s, interval: 1m30s, retries: 3}
            networks:
              default: null
            ports:
              - mode: ingress
                target: 80
                published: "8080"
                protocol: tcp
            stop_grace_period: 1m0s
        networks:
          default:
            name: other_default
            ipam: {}
        """
    )
    assert found.only.ports == (Port(target=80, published=8080),)
    assert found.warnings == ()
