"""What must not pass the API, and what a view must not tell of the past."""

from __future__ import annotations

import pytest

from skep.domain.base import replace
from skep.domain.constraints import is_met, parse_constraint
from skep.domain.control import UpdateNodeRequest
from skep.domain.objects import Node, Request, TaskStatus
from skep.domain.spec import Resources, RestartPolicy, RunSpec, ServiceSpec, TaskSpec
from skep.domain.states import DesiredState, TaskState
from skep.domain.validate import LONGEST_NS, check_labels, check_service
from skep.env import Rejected
from skep.manager.control.actor import _once
from skep.manager.control.core.views import service_view
from skep.manager.store.core.tables import Tables
from skep.manager.store.core.transaction import Transaction
from tests.unit.manager.build import node, service, task

RUN = RunSpec(args=("true",))


@pytest.mark.parametrize("labels", [(("", "x"),), (("a b", "x"),), (("a", "\x1b[31m"),)])
def test_a_label_that_can_not_be_shown_is_refused(labels: tuple[tuple[str, str], ...]) -> None:
    with pytest.raises(Rejected):
        check_labels(labels, "labels")


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        (
            TaskSpec(
                run=RUN,
                limits=Resources(memory_bytes=1 << 30),
                reservations=Resources(memory_bytes=2 << 30),
            ),
            "spec.task.reservations.memory_bytes",
        ),
        (
            TaskSpec(run=RUN, restart=RestartPolicy(delay_ns=LONGEST_NS + 1)),
            "spec.task.restart.delay_ns",
        ),
    ],
)
def test_amounts_out_of_bounds_are_refused(spec: TaskSpec, field: str) -> None:
    with pytest.raises(Rejected) as caught:
        check_service(ServiceSpec(name="web", task=spec))
    assert caught.value.field == field


def test_a_network_is_a_constraint_on_an_address() -> None:
    row = node()
    row = replace(row, description=replace(row.description, address="10.1.2.3"))
    assert is_met(parse_constraint("node.ip == 10.0.0.0/8"), row)
    assert not is_met(parse_constraint("node.ip != 10.0.0.0/8"), row)
    assert not is_met(parse_constraint("node.ip == 11.0.0.0/8"), row)


def test_a_request_id_is_not_used_for_another_request() -> None:
    tx = Transaction(Tables(), 1)

    def ask(ref: str) -> Node:
        request = UpdateNodeRequest(request_id="r", ref=ref)
        return _once(tx, "m", request, Node, node)

    assert ask("n1") == ask("n1")
    with pytest.raises(Rejected, match="another request"):
        ask("n2")
    assert tx.get(Request, "r") is not None


def test_what_failed_under_an_older_spec_is_history() -> None:
    failed = TaskStatus(state=TaskState.FAILED, error="of old")
    old = task("t1", revision=1, status=failed, desired_state=DesiredState.SHUTDOWN)
    tables = Tables()
    tables.put(old)
    now = replace(service("s1"), task_revision=2)
    view = service_view(tables, now)
    assert (view.given_up, view.problems) == (0, ())
    view = service_view(tables, replace(now, task_revision=1))
    assert view.given_up == 1
    assert view.problems[0].endswith("of old")
