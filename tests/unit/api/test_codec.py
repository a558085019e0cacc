"""Wire and back, for every type; and what the codec refuses, naming the field."""

from __future__ import annotations

import enum
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from skep.api import (
    attach_pb2,
    codec,
    control_pb2,
    endpoints_pb2,
    execution_pb2,
    objects_pb2,
    session_pb2,
)
from skep.domain import base
from skep.domain.base import NodeId, ServiceId, Struct, TaskId
from skep.domain.control import CreateServiceRequest, GetRequest
from skep.domain.endpoints import Endpoint, EndpointUpdate, ServiceEndpoints
from skep.domain.objects import Node, Request, Service, Task
from skep.domain.session import AssignmentSet
from skep.domain.spec import Port, RunSpec, ServiceSpec, TaskSpec
from skep.env import Rejected
from tests.support.domain import all_structs, any_of

MODULES = (objects_pb2, session_pb2, endpoints_pb2, control_pb2, execution_pb2, attach_pb2)
# Rows that never leave the database.
UNSENT = {Request}
ON_WIRE = [kind for kind in all_structs() if kind not in UNSENT]

deep = settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow], database=None
)


def _as_sent(of: Any) -> Any:
    """What the wire can't tell apart: a repeated field is never absent, only empty."""
    if isinstance(of, Service) and of.ports is None:
        of = base.replace(of, ports=())
    if isinstance(of, tuple):
        return tuple(_as_sent(each) for each in of)
    if not isinstance(of, Struct):
        return of
    fields = msgspec.structs.fields(of)
    return base.replace(of, **{f.name: _as_sent(getattr(of, f.name)) for f in fields})


@pytest.mark.parametrize("kind", ON_WIRE, ids=lambda kind: kind.__name__)
@deep
@given(data=st.data())
def test_every_object_survives_the_wire(kind: type[Struct], data: st.DataObject) -> None:
    value = data.draw(any_of(kind))
    assert codec.decode(kind, codec.encode(value)) == _as_sent(value)


@pytest.mark.parametrize("kind", all_structs(), ids=lambda kind: kind.__name__)
@deep
@given(data=st.data())
def test_every_object_survives_the_disk(kind: type[Struct], data: st.DataObject) -> None:
    value = data.draw(any_of(kind))
    assert base.decode(kind, base.encode(value)) == value


def test_every_object_has_its_message_and_every_message_its_object() -> None:
    sent = {kind.__name__ for kind in ON_WIRE}
    messages = {name for module in MODULES for name in module.DESCRIPTOR.message_types_by_name}
    assert messages == sent


@pytest.mark.parametrize("kind", ON_WIRE, ids=lambda kind: kind.__name__)
def test_an_object_and_its_message_have_the_same_fields(kind: type[Struct]) -> None:
    descriptor = codec.to_wire(_least(kind)).DESCRIPTOR
    fields = {field.name for field in msgspec.structs.fields(kind)}
    assert set(descriptor.fields_by_name) == fields


def _least(kind: type[Struct]) -> Struct:
    """An object with nothing but what it must have."""
    samples: dict[Any, Any] = {int: 0, float: 0.0, str: "", bytes: b""}
    values: dict[str, Any] = {}
    for field in msgspec.structs.fields(kind):
        if field.required:
            of = getattr(field.type, "__supertype__", field.type)
            if isinstance(of, type) and issubclass(of, Struct):
                values[field.name] = _least(of)
            elif isinstance(of, type) and issubclass(of, enum.Enum):
                values[field.name] = next(iter(of))
            else:
                values[field.name] = samples.get(of, ())
    return kind(**values)


@pytest.mark.parametrize("kind", ON_WIRE, ids=lambda kind: kind.__name__)
def test_what_is_absent_on_the_wire_has_the_domain_s_default(kind: type[Struct]) -> None:
    least = _least(kind)
    message = codec.to_wire(least)
    for field in msgspec.structs.fields(kind):
        if not field.required:
            message.ClearField(field.name)
    assert codec.from_wire(kind, message) == _as_sent(least)


SPEC = ServiceSpec(name="web", task=TaskSpec(run=RunSpec(command=("web",))))


@pytest.mark.parametrize(
    ("path", "field"),
    [
        (("spec",), "spec"),
        (("spec", "task"), "spec.task"),
        (("spec", "task", "run"), "spec.task.run"),
    ],
)
def test_an_absent_part_is_refused_by_its_path(path: tuple[str, ...], field: str) -> None:
    message: Any = codec.to_wire(CreateServiceRequest(request_id="r", spec=SPEC))
    holder = message
    for name in path[:-1]:
        holder = getattr(holder, name)
    holder.ClearField(path[-1])
    with pytest.raises(Rejected) as caught:
        codec.decode(CreateServiceRequest, message.SerializeToString())
    assert caught.value.field == field
    assert str(caught.value) == f"{field}: required, but absent"


def test_an_unknown_or_missing_enum_is_refused_by_its_path() -> None:
    message: Any = codec.to_wire(CreateServiceRequest(request_id="r", spec=SPEC))
    message.spec.ports.add().target = 80
    message.spec.ports.add().protocol = 99
    with pytest.raises(Rejected) as caught:
        codec.decode(CreateServiceRequest, message.SerializeToString())
    assert caught.value.field == "spec.ports[1].protocol"
    assert str(caught.value) == "spec.ports[1].protocol: 99 is not a known Protocol"
    # A node without a role is none; a port without a protocol has the usual one.
    node: Any = objects_pb2.Node(id="n1", description=objects_pb2.NodeDescription(hostname="n1"))
    with pytest.raises(Rejected, match="role: required, but absent"):
        codec.from_wire(Node, node)


@deep
@given(data=st.binary(max_size=200))
@pytest.mark.parametrize(
    "kind", [CreateServiceRequest, AssignmentSet, Task, GetRequest], ids=lambda kind: kind.__name__
)
def test_garbage_is_refused_or_read_but_never_anything_else(
    kind: type[Struct], data: bytes
) -> None:
    try:
        value = codec.decode(kind, data)
    except Rejected:
        return
    assert isinstance(value, kind)


@deep
@given(data=st.data())
def test_a_damaged_message_is_refused_or_read_but_never_anything_else(data: st.DataObject) -> None:
    whole = bytearray(codec.encode(data.draw(any_of(AssignmentSet))))
    if not whole:
        return
    whole[data.draw(st.integers(0, len(whole) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        codec.decode(AssignmentSet, bytes(whole[: data.draw(st.integers(0, len(whole)))]))
    except Rejected:
        return


def test_a_type_without_a_message_is_a_programmer_s_error() -> None:
    with pytest.raises(LookupError, match="Request has no message"):
        codec.encode(Request(id="r", method="m", answer=b""))


@pytest.mark.parametrize("text", ["\ud800", "a\udcff"])
def test_text_that_no_wire_can_carry_is_refused_by_its_path(text: str) -> None:
    spec = base.replace(SPEC, task=TaskSpec(run=RunSpec(working_dir=text)))
    with pytest.raises(Rejected) as caught:
        codec.encode(CreateServiceRequest(request_id="r", spec=spec))
    assert caught.value.field == "spec.task.run.working_dir"


def test_what_no_wire_can_carry_is_found_inside_lists() -> None:
    spec = base.replace(SPEC, ports=(Port(target=1), Port(target=2**64)))
    with pytest.raises(Rejected, match=r"spec\.ports\[1\]\.target: Value out of range") as caught:
        codec.encode(CreateServiceRequest(request_id="r", spec=spec))
    assert caught.value.field == "spec.ports[1].target"


def test_a_number_that_no_wire_can_carry_is_refused_by_its_path() -> None:
    spec = base.replace(SPEC, replicas=2**63)
    with pytest.raises(Rejected) as caught:
        codec.encode(CreateServiceRequest(request_id="r", spec=spec))
    assert caught.value.field == "spec.replicas"


def test_an_endpoint_that_is_told_again_is_the_very_same_object() -> None:
    def told(*addresses: str) -> tuple[Endpoint, ...]:
        endpoints = tuple(
            Endpoint(task_id=TaskId(f"t{at}"), node_id=NodeId("n"), address=at) for at in addresses
        )
        service = ServiceEndpoints(service_id=ServiceId("s"), name="web", endpoints=endpoints)
        update = EndpointUpdate(from_version=1, version=2, services=(service,))
        return codec.decode(EndpointUpdate, codec.encode(update)).services[0].endpoints

    first = told("10.0.0.1", "10.0.0.2")
    again = told("10.0.0.2", "10.0.0.3")
    assert [each.address for each in again] == ["10.0.0.2", "10.0.0.3"]
    assert again[0] is first[1]
