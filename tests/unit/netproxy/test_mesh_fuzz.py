"""What strangers send to a mesh port: whatever it is, it is read whole or refused."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skep.domain.base import ClusterId, ServiceId, TaskId
from skep.netproxy.relay.core.mesh import (
    DATAGRAM_MAGIC,
    DATAGRAM_VERSION,
    HEADER_LIMIT_BYTES,
    MAGIC,
    PREFIX_BYTES,
    VERSION,
    DatagramHeader,
    DatagramKind,
    MeshHeader,
    MeshRefused,
    MeshStatus,
    encode_datagram,
    encode_header,
    parse_datagram,
    read_body,
    read_prefix,
)

CLUSTER = ClusterId("c")
# Text with several bytes a character takes the most room on the wire.
names = st.text(max_size=40)
ports = st.integers(0, 65535)

leaves = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | names
values = st.recursive(
    leaves | st.binary(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names, inner, max_size=4),
    max_leaves=10,
)
stream_headers = st.builds(
    MeshHeader,
    cluster_id=st.just(CLUSTER),
    service_id=names.map(ServiceId),
    port=ports,
    task_id=st.none() | names.map(TaskId),
    client=names,
)
datagram_headers = st.builds(
    DatagramHeader,
    kind=st.sampled_from(DatagramKind),
    cluster_id=st.just(CLUSTER),
    service_id=names.map(ServiceId),
    port=ports,
    task_id=names.map(TaskId),
    client=names,
)


def read_stream(data: bytes) -> MeshHeader | MeshStatus:
    """As a relay does: the prefix, then as many bytes as it says."""
    try:
        length = read_prefix(data[:PREFIX_BYTES].ljust(PREFIX_BYTES, b"\0"))
        return read_body(data[PREFIX_BYTES : PREFIX_BYTES + length], CLUSTER)
    except MeshRefused as refusal:
        return refusal.status


def read_datagram(data: bytes) -> tuple[DatagramHeader, bytes] | MeshStatus:
    """Bytes and views on a buffer must come to the same."""
    results: list[tuple[DatagramHeader, bytes] | MeshStatus] = []
    for form in (data, memoryview(bytearray(data))):
        try:
            header, payload = parse_datagram(form, CLUSTER)
            results.append((header, bytes(payload)))
        except MeshRefused as refusal:
            results.append(refusal.status)
    assert results[0] == results[1]
    return results[0]


@st.composite
def mutated(draw: st.DrawFn, of: Callable[[st.DrawFn], bytes]) -> bytes:
    """Some bytes changed, taken out or put in."""
    data = bytearray(of(draw))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(data)))
        data[at : at + draw(st.integers(0, 2))] = draw(st.binary(max_size=3))
    return bytes(data)


def nested(count: int) -> bytes:
    """A field of a later release, `count` arrays deep: small on the wire, deep to read."""
    return b"\x81\xa1x" + b"\x91" * count + b"\xc0"


def framed(magic: bytes, version: int, body: bytes) -> bytes:
    return magic + bytes((version,)) + len(body).to_bytes(2, "big") + body


@given(stream_headers, st.binary(max_size=20))
def test_a_stream_header_survives(header: MeshHeader, rest: bytes) -> None:
    assert read_stream(encode_header(header) + rest) == header


@given(datagram_headers, st.binary(max_size=2000))
def test_a_datagram_survives(header: DatagramHeader, payload: bytes) -> None:
    data = encode_datagram(header, payload)
    assert read_datagram(data) == (header, payload)
    for count in range(len(data) - len(payload)):
        assert isinstance(read_datagram(data[:count]), MeshStatus)


@given(st.binary(max_size=HEADER_LIMIT_BYTES + 20))
def test_random_bytes(data: bytes) -> None:
    for magic, version in ((MAGIC, VERSION), (DATAGRAM_MAGIC, DATAGRAM_VERSION)):
        for form in (data, magic + data, framed(magic, version, data)):
            read_stream(form)
            read_datagram(form)


@given(values, st.sampled_from((*MeshHeader.__struct_fields__, "kind", "new")))
def test_a_field_of_any_shape(value: object, name: str) -> None:
    stream = {"cluster_id": "c", "service_id": "s", "port": 1, "task_id": "t", "client": ""}
    for fields, magic, version in (
        (stream, MAGIC, VERSION),
        ({**stream, "kind": "to_task"}, DATAGRAM_MAGIC, DATAGRAM_VERSION),
    ):
        data = framed(magic, version, msgspec.msgpack.encode({**fields, name: value}))
        got = read_stream(data) if magic == MAGIC else read_datagram(data)
        if name == "new":
            assert not isinstance(got, MeshStatus), "fields of later releases are passed over"
        elif name == "port" and type(value) is not int:
            assert got is MeshStatus.MALFORMED


@given(mutated(lambda draw: encode_header(draw(stream_headers))))
def test_a_damaged_stream_header(data: bytes) -> None:
    read_stream(data)


@given(mutated(lambda draw: encode_datagram(draw(datagram_headers), draw(st.binary(max_size=9)))))
def test_a_damaged_datagram(data: bytes) -> None:
    read_datagram(data)


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(nested(HEADER_LIMIT_BYTES - 4), id="arrays a thousand deep"),
        pytest.param(b"\x81\xaacluster_id\xa1\xff", id="text that is no text"),
        pytest.param(b"\x81\xa1\xff\xa1c", id="a name that is no text"),
        pytest.param(b"\xc1", id="a byte that msgpack has no use for"),
        pytest.param(b"\xdf\xff\xff\xff\xff", id="a map of four thousand million fields"),
        pytest.param(msgspec.msgpack.encode([1, 2]), id="no map"),
    ],
)
def test_bodies_that_once_did_or_might_do_worse(body: bytes) -> None:
    assert read_stream(framed(MAGIC, VERSION, body)) is MeshStatus.MALFORMED
    assert read_datagram(framed(DATAGRAM_MAGIC, DATAGRAM_VERSION, body)) is MeshStatus.MALFORMED
