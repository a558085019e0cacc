"""`{{vip "web"}}`: which names a spec asks for, and what stands for them."""

from __future__ import annotations

import pytest

from skep.domain.spec import HealthCheck, RunSpec
from skep.domain.templates import TemplateValues, check_templates, expand, expand_run, wanted_vips
from skep.env import Rejected

RUN = RunSpec(
    command=("serve", '{{ vip "web" }}:80'),
    args=("{{vip `db`}}", '{{vip "web"}}', '{{"{{"}}vip "no"{{"}}"}}'),
    env=(("API", 'http://{{vip "api"}}/{{.Task.Slot}}'),),
    health=HealthCheck(test=("CMD-SHELL", 'probe {{- vip "cache" -}} 80')),
)
VALUES = TemplateValues(
    vips=(("api", "10.0.1.4"), ("cache", "10.0.1.5"), ("db", "10.0.1.3"), ("web", "10.0.1.2"))
)


def test_the_names_that_a_spec_asks_for_are_found_each_once() -> None:
    assert wanted_vips(RUN) == ("web", "db", "api", "cache")
    assert wanted_vips(RunSpec(args=("{{.Task.ID}}", "vip"))) == ()


def test_addresses_stand_for_names() -> None:
    found = expand_run(RUN, VALUES)
    assert found.command == ("serve", "10.0.1.2:80")
    assert found.args == ("10.0.1.3", "10.0.1.2", '{{vip "no"}}')
    assert found.env == (("API", "http://10.0.1.4/1"),)
    assert found.health is not None
    assert found.health.test == ("CMD-SHELL", "probe10.0.1.580")


def test_a_name_without_an_address_is_refused_where_it_stands() -> None:
    with pytest.raises(Rejected, match=r"^spec\.task\.run\.args\[0\]: there is no virtual .*'db'"):
        expand_run(RUN, TemplateValues(vips=VALUES.vips[3:]))


def test_any_name_may_be_in_a_spec_but_not_any_form() -> None:
    check_templates(RUN)
    for text in ("{{vip}}", '{{vip ""}}', "{{vip web}}", '{{vip "a" "b"}}', '{{vip "a"'):
        with pytest.raises(Rejected) as caught:
            check_templates(RunSpec(args=("x", text)))
        assert caught.value.field == "spec.task.run.args[1]"
    with pytest.raises(Rejected, match=r'\{\{vip "SERVICE"\}\}'):
        expand("{{.Nope}}", VALUES, "f")
