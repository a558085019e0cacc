"""What is written reads as the same stack again."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from skep.cli.output import to_yaml
from skep.domain import spec
from skep.domain.base import pairs, replace
from skep.domain.spec import StackSpec
from skep.stackfile import Reading, StackText, raw_values, read, stack_values
from skep.stackfile.nodes import compose
from skep.stackfile.writer import tree_values
from tests.unit.stackfile.files import service, texts, told
from tests.unit.stackfile.test_stack import FULL

NS = st.integers(0, 10**6) | st.sampled_from([10**9, 90 * 10**9, 3661 * 10**9, 10**9 + 1])
SOME_NS = NS.map(lambda ns: ns + 10**6)
TEXT = st.text(
    st.characters(codec="utf-8", exclude_characters="\0", exclude_categories=["Cs"]), max_size=8
).map(lambda text: text.replace("{{", ""))
WORD = st.sampled_from(
    ["$A", "no", "null", "22:22", "${", "~", "a b", "-", "{{.Task.Slot}}", "010"]
)
FULL_TEXT = (TEXT | WORD).filter(bool)
NAME = st.from_regex(r"[a-z0-9](-?[a-z0-9]){0,5}", fullmatch=True)
WORDS = st.lists(FULL_TEXT, max_size=3).map(tuple)
VARIABLES = st.dictionaries(
    st.sampled_from(["A", "<<", "x-a", "$A", "null", "a b", "1"]), TEXT | WORD, max_size=3
).map(pairs)
LABELS = st.dictionaries(
    st.sampled_from(["A", "<<", "x-a", "$A"]), WORD | st.just(""), max_size=2
).map(pairs)
ZONES = st.sampled_from(["node.labels.zone", "node.labels.a$b"])

policies = st.builds(
    spec.UpdatePolicy,
    parallelism=st.integers(0, 100),
    delay_ns=NS,
    monitor_ns=NS,
    max_failure_ratio=st.floats(0, 1),
    failure_action=st.sampled_from([spec.FailureAction.PAUSE, spec.FailureAction.CONTINUE]),
    order=st.sampled_from(spec.UpdateOrder),
    healthy_deadline_ns=SOME_NS,
)
amounts = st.builds(
    spec.Resources,
    cpu_nano=st.none() | st.integers(10**6, 10**10),
    memory_bytes=st.none() | st.sampled_from([2**22, 2**30 + 1, 100 * 2**20]),
    pids=st.none(),
)
health = st.builds(
    spec.HealthCheck,
    test=st.one_of(
        st.just(("NONE",)),
        FULL_TEXT.map(lambda line: ("CMD-SHELL", line)),
        st.tuples(st.just("CMD"), FULL_TEXT),
    ),
    interval_ns=SOME_NS,
    timeout_ns=SOME_NS,
    retries=st.integers(1, 9),
    start_period_ns=NS,
    start_interval_ns=SOME_NS,
)
runs = st.builds(
    spec.RunSpec,
    image=TEXT,
    command=WORDS,
    args=WORDS.filter(bool),
    env=VARIABLES,
    working_dir=st.sampled_from(["", "/", "/srv/$a"]),
    user=TEXT,
    stop_signal=st.sampled_from(["SIGTERM", "SIGINT"]),
    stop_grace_ns=NS,
    health=st.none() | health,
    log=st.builds(spec.LogPolicy, max_bytes=st.integers(1, 2**40), max_files=st.integers(1, 1000)),
)
tasks = st.builds(
    spec.TaskSpec,
    run=runs,
    limits=amounts.map(lambda found: spec.Resources(pids=5, cpu_nano=found.cpu_nano)),
    reservations=amounts.map(lambda found: spec.Resources(memory_bytes=found.memory_bytes)),
    restart=st.builds(
        spec.RestartPolicy,
        condition=st.sampled_from(spec.RestartCondition),
        delay_ns=NS,
        max_attempts=st.none() | st.integers(1, 9),
        window_ns=st.none() | SOME_NS,
    ),
    placement=st.builds(
        spec.Placement,
        constraints=st.sampled_from([(), ("node.labels.a == $b", "node.role!=manager")]),
        preferences=st.lists(ZONES, max_size=2).map(tuple),
        max_replicas_per_node=st.none() | st.integers(1, 9),
        platforms=st.sampled_from(
            [(), (spec.Platform(os="linux", arch="amd64"),), (spec.Platform(arch="arm"),)]
        ),
    ),
)


NETWORKS = ["default", "s_default", "front", "s_front", "s_s_front", "null", "x-a"]
exposed = st.builds(
    spec.ExposedPort, target=st.integers(1, 65535), protocol=st.sampled_from(spec.Protocol)
)
modes = st.sampled_from(spec.EndpointMode)
proxying = st.fixed_dictionaries(
    {
        "proxy_protocol": st.sampled_from(spec.ProxyProtocol),
        "accepts_proxy_protocol": st.booleans(),
    }
)


@st.composite
def stacks(draw: st.DrawFn) -> StackSpec:
    services: list[spec.ServiceSpec] = []
    made = draw(st.sets(st.sampled_from(NETWORKS)) if draw(st.booleans()) else st.just(set()))
    made = made or {"s_default"}
    outer = draw(st.sets(st.sampled_from(NETWORKS), max_size=2)) - made
    for name in draw(st.lists(NAME, min_size=1, max_size=2, unique=True)):
        taken = draw(st.lists(st.integers(1, 65535), max_size=3, unique=True))
        ports = tuple(
            spec.Port(
                target=draw(st.integers(1, 65535)),
                published=draw(st.sampled_from([None, port])),
                balance=draw(st.sampled_from(spec.Balance))
                if is_ingress
                else spec.Balance.ROUND_ROBIN,
                name=draw(TEXT),
                mode=spec.PortMode.INGRESS if is_ingress else spec.PortMode.HOST,
                protocol=protocol,
                **(draw(proxying) if protocol is spec.Protocol.TCP else {}),
            )
            for port in taken
            for is_ingress in [draw(st.booleans())]
            for protocol in [draw(st.sampled_from(spec.Protocol))]
        )
        if services:
            ports = ()
        services.append(
            spec.ServiceSpec(
                name=f"s_{name}",
                task=replace(draw(tasks), networks=draw(uses(name, sorted([*made, *outer])))),
                labels=draw(LABELS),
                replicas=draw(st.integers(0, 9)),
                ports=ports,
                update=draw(policies),
                rollback=draw(policies),
                endpoint_mode=draw(modes) if not ports else spec.EndpointMode.VIP,
                exposed=draw(st.lists(exposed, max_size=2, unique=True).map(tuple)),
            )
        )
    used = {use.network for service in services for use in service.task.networks}
    return StackSpec(
        name="s",
        services=tuple(services),
        networks=tuple(draw(network(name)) for name in sorted(made & used)),
    )


@st.composite
def uses(draw: st.DrawFn, short_name: str, names: list[str]) -> tuple[spec.NetworkUse, ...]:
    chosen = draw(st.lists(st.sampled_from(names), min_size=1, max_size=3, unique=True))
    more = st.lists(st.sampled_from(["x", "y.z", "W-1"]), max_size=2, unique=True)
    return tuple(
        spec.NetworkUse(network=name, aliases=(short_name, *draw(more))) for name in sorted(chosen)
    )


@st.composite
def network(draw: st.DrawFn, name: str) -> spec.NetworkSpec:
    subnet = draw(st.sampled_from(["", "10.1.2.0/24"]))
    return spec.NetworkSpec(
        name=name,
        subnet=subnet,
        gateway=draw(st.sampled_from(["", "10.1.2.9"])) if subnet else "",
        is_internal=draw(st.booleans()),
        is_attachable=draw(st.booleans()),
        is_encrypted=draw(st.booleans()),
        labels=draw(LABELS),
        options=draw(LABELS),
    )


def again(text: str) -> StackSpec:
    return read([StackText("again.yml", text)], Reading({}, folder="/elsewhere")).spec


def written(values: Any) -> list[str]:
    return [
        to_yaml(values, shows_all=False),
        to_yaml(values, shows_all=True),
        json.dumps(values, ensure_ascii=False).replace("\x7f", "\\u007f"),
    ]


def test_signs_that_end_lines_in_unicode_are_read_as_they_were_written() -> None:
    text = "a\x85b\u2028\u2029ü"
    for shows_all in (False, True):
        assert yaml.safe_load(to_yaml([text], shows_all=shows_all)) == [text]


@given(stacks())
@settings(max_examples=150, deadline=None)
def test_any_stack_reads_as_it_was_written(stack: StackSpec) -> None:
    yaml_text, wide_text, _ = written(stack_values(stack))
    assert again(yaml_text) == stack
    assert again(wide_text) == stack


def test_a_file_with_every_key_reads_as_it_was_written() -> None:
    found = told(FULL, TZ="UTC").spec
    for text in written(stack_values(found)):
        assert again(text) == found


def test_only_what_is_said_is_written_in_one_form() -> None:
    found = told(
        service(
            "environment: [B=$$2, A=1]",
            "healthcheck: {test: probe, interval: 90s}",
            "deploy: {resources: {limits: {cpus: '0.50', memory: 102400k}}}",
            "ports: ['81:80']",
        )
    )
    assert stack_values(found.spec) == {
        "name": "shop",
        "services": {
            "a": {
                "command": ["x"],
                "environment": {"A": "1", "B": "$$2"},
                "healthcheck": {"test": "probe", "interval": "1m30s"},
                "ports": [{"target": 80, "published": 81, "protocol": "tcp", "mode": "ingress"}],
                "deploy": {
                    "mode": "replicated",
                    "replicas": 1,
                    "resources": {"limits": {"cpus": "0.5", "memory": "100M"}},
                },
            }
        },
    }


def test_networks_are_written_by_their_keys() -> None:
    found = told(
        """\
        networks:
          front: {internal: true}
          named: {name: backbone}
          out: {external: true, name: front}
          default: {external: true, name: shop_default}
        services:
          a: {command: x, networks: [front, named, out]}
          b: {command: x, networks: {front: {aliases: [bee, b]}}}
          c: {command: x}
        """
    ).spec
    values = stack_values(found)
    assert values["networks"] == {
        "front": {"internal": True},
        "backbone": {"name": "backbone"},
        "front_": {"external": True, "name": "front"},
        "shop_default": {"external": True},
    }
    services = values["services"]
    assert services["a"]["networks"] == {"front": None, "backbone": None, "front_": None}
    assert services["b"]["networks"] == {"front": {"aliases": ["bee"]}}
    assert services["c"]["networks"] == {"shop_default": None}
    for text in written(values):
        assert read([StackText("again.yml", text)], Reading({})).spec == found


def test_the_default_network_is_written_only_where_something_is_said_of_it() -> None:
    assert "networks" not in stack_values(told(service()).spec)
    values = stack_values(told("networks: {default: {attachable: true}}\n" + service()).spec)
    assert values["networks"] == {"default": {"attachable": True}}
    assert "networks" not in values["services"]["a"]


def test_without_variables_put_in_the_files_still_mean_the_same() -> None:
    files = (
        FULL,
        service("user: ${U:-me}", "ports: ['82:82']", command="command: x $$y ${A}", name="web"),
    )
    reading = Reading({"A": "a"}, name="shop", folder="/srv")
    values = raw_values(texts(*files), reading)
    assert values["services"]["web"]["user"] == "${U:-me}"
    for text in written(values):
        found = read([StackText("again.yml", text)], reading).spec
        assert found == read(texts(*files), reading).spec


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "[1, -1, 0, 010, -0, 1_0, 0x1, 1.5, '1']",
            [1, -1, 0, "010", "-0", "1_0", "0x1", "1.5", "1"],
        ),
        ("[true, True, no, null, ~, '', 'null']", [True, "True", "no", None, None, "", "null"]),
    ],
)
def test_plain_values_come_out_as_they_went_in(text: str, expected: list[object]) -> None:
    assert tree_values(compose(text, "f")) == expected
