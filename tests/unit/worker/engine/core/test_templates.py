from __future__ import annotations

import pytest

from skep.domain.base import ServiceId, TaskId
from skep.domain.objects import Task
from skep.domain.session import Assignment
from skep.domain.spec import HealthCheck, RunSpec, ServiceSpec, TaskSpec
from skep.domain.templates import (
    TemplateValues,
    check_templates,
    expand,
    expand_run,
)
from skep.env import Rejected
from skep.worker.engine.core.facts import values_of
from skep.worker.engine.protocol import NodeFacts

VALUES = values_of(
    Assignment(
        task=Task(
            id=TaskId("t1"),
            service_id=ServiceId("s1"),
            service_name="shop_web",
            revision=3,
            slot=2,
            address="127.9.16.1",
        ),
        spec=ServiceSpec(
            name="shop_web",
            task=TaskSpec(run=RunSpec()),
            labels=(("a.b", "dotted"), ("tier", "front")),
        ),
        stack="shop",
    ),
    NodeFacts(node_id="n1", hostname="host-1", address="127.9.0.1", arch="x86_64"),
)


@pytest.mark.parametrize(
    ("text", "expanded"),
    [
        ("plain { text } }}", "plain { text } }}"),
        ("{{.Task.Address}}:80", "127.9.16.1:80"),
        ("{{ .Task.ID }}", "t1"),
        ("{{.Task.Name}}", "shop_web.2.t1"),
        ("{{.Task.Slot}}{{.Task.Slot}}", "22"),
        ("{{.Node.ID}}", "n1"),
        ("{{.Node.Hostname}}", "host-1"),
        ("{{.Node.Address}}", "127.9.0.1"),
        ("{{.Node.Platform.OS}}/{{.Node.Platform.Architecture}}", "linux/x86_64"),
        ("{{.Service.ID}} {{.Service.Name}}", "s1 shop_web"),
        ("{{.Stack.Name}}", "shop"),
        ("{{.Service.Labels.tier}}", "front"),
        ('{{index .Service.Labels "a.b"}}', "dotted"),
        ("{{ index .Service.Labels `a.b` }}", "dotted"),
        ('{{index .Service.Labels "none"}}', ""),
        ("a {{- .Task.Slot -}} b", "a2b"),
        ('{{"{{"}} .State {{"}}"}}', "{{ .State }}"),
        ("{{`{{.State}}`}}", "{{.State}}"),
    ],
)
def test_known_templates(text: str, expanded: str) -> None:
    assert expand(text, VALUES, "f") == expanded


@pytest.mark.parametrize(
    "text",
    ["{{.Task.Adress}}", "{{.Service.Labels}}", "{{}}", "{{.Task.ID", '{{printf "x"}}', "{{ID}}"],
)
def test_unknown_templates_are_refused_with_what_is_known(text: str) -> None:
    with pytest.raises(Rejected) as caught:
        expand("x " + text, VALUES, "spec.task.run.args[1]")
    assert caught.value.field == "spec.task.run.args[1]"
    assert text in str(caught.value)
    assert "{{.Task.ID}}" in str(caught.value) or "does not close" in str(caught.value)


def test_a_whole_run_is_expanded() -> None:
    run = RunSpec(
        command=("serve", "{{.Task.Address}}"),
        args=("{{.Task.Slot}}",),
        env=(("{{.Task.ID}}", "{{.Task.ID}}"),),
        working_dir="/{{.Task.ID}}",
        health=HealthCheck(test=("CMD", "curl", "http://{{.Task.Address}}/")),
    )
    assert expand_run(run, VALUES) == RunSpec(
        command=("serve", "127.9.16.1"),
        args=("2",),
        env=(("{{.Task.ID}}", "t1"),),
        working_dir="/{{.Task.ID}}",
        health=HealthCheck(test=("CMD", "curl", "http://127.9.16.1/")),
    )


@pytest.mark.parametrize(
    ("run", "field"),
    [
        (RunSpec(command=("a", "{{x}}")), "spec.task.run.command[1]"),
        (RunSpec(args=("{{x}}",)), "spec.task.run.args[0]"),
        (RunSpec(env=(("NAME", "{{x}}"),)), "spec.task.run.env.NAME"),
        (RunSpec(health=HealthCheck(test=("CMD", "{{x}}"))), "spec.task.run.health.test[1]"),
    ],
)
def test_a_spec_is_checked_before_there_is_a_task(run: RunSpec, field: str) -> None:
    with pytest.raises(Rejected) as caught:
        check_templates(run)
    assert caught.value.field == field


def test_every_known_template_has_a_value_before_there_is_a_task() -> None:
    check_templates(RunSpec(command=("{{.Task.Address}} {{.Stack.Name}}",)))
    assert expand("{{.Task.Address}}", TemplateValues(), "f")
