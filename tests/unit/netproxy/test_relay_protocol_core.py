"""What the netproxy and its relay workers tell each other, and what they count."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skep.domain.base import ClusterId, ServiceId, TaskId, replace
from skep.netproxy.relay.core.counts import AllCounts
from skep.netproxy.relay.core.head import HeadRefused, MeshHead, ProxyHead, proxy_header
from skep.netproxy.relay.core.mesh import MeshHeader, encode_header
from skep.netproxy.relay.core.plan import Change, Plan
from skep.netproxy.relay.core.protocol import (
    FRAME_LIMIT_BYTES,
    UDP,
    Applied,
    Apply,
    Candidate,
    Count,
    Drain,
    FrameError,
    Frames,
    Key,
    Listener,
    Opened,
    Report,
    Start,
    frame,
    read_answer,
    read_command,
)
from skep.netproxy.relay.core.totals import Totals

WEB = Listener(
    host="127.33.0.7",
    port=80,
    service_id=ServiceId("id-web"),
    service_name="web",
    target=8080,
    candidates=(
        Candidate(task_id=TaskId("t1"), address="127.0.16.1"),
        Candidate(task_id=TaskId("t2"), address="::1", mesh_address=("127.0.0.2", 7946)),
    ),
    sends_proxy="v2",
    accepts_proxy=True,
)
COMMANDS = (
    Start(
        cluster_id=ClusterId("c"),
        task_source="127.0.0.1",
        mesh=("127.0.0.1", 7946),
        connection_limit=9,
        report_period_s=1.0,
    ),
    Opened(addresses=(Key("::1", 80), Key("::1", 80, UDP))),
    Apply(number=3, changed=(WEB,), removed=(Key("127.0.0.1", 81, UDP),)),
    Drain(),
)


@given(st.integers(1, 40))
def test_frames_come_whole_however_they_are_cut(size: int) -> None:
    data = b"".join(frame(command) for command in COMMANDS)
    frames = Frames()
    parts = (data[start : start + size] for start in range(0, len(data), size))
    assert tuple(read_command(b) for part in parts for b in frames.feed(part)) == COMMANDS


def test_answers_survive_the_journey() -> None:
    count = Count(service_name="web", way="mesh", active=1, latencies=(1, 2), errors={"x": 1})
    for answer in (Applied(number=1, errors=("no",)), Report(counts=(count,), connections=2)):
        [body] = Frames().feed(frame(answer))
        assert read_answer(body) == answer


def test_what_is_no_frame_is_refused() -> None:
    with pytest.raises(FrameError, match="a frame of"):
        list(Frames().feed((FRAME_LIMIT_BYTES + 1).to_bytes(4, "big")))
    for read in (read_command, read_answer):
        with pytest.raises(FrameError):
            read(b"\xc1")


def test_workers_are_told_what_changed() -> None:
    other = replace(WEB, port=81)
    plan = Plan()
    assert plan.update((WEB, other)) == Change(changed=(WEB, other))
    assert plan.update((WEB, other)) == Change()
    moved = replace(WEB, target=9)
    assert plan.update((moved,)) == Change(changed=(moved,), removed=(other.key,))
    assert plan.whole() == Change(changed=(moved,))


# -------------------------------------------------------------------------------------- counting


def test_only_what_changed_is_reported_and_what_is_gone_is_forgotten() -> None:
    counts = AllCounts()
    web = counts.of("web", "ingress")
    web.connections = web.active = 1
    web.connected(0.000_2)
    web.connected(99.0)
    [reported] = counts.changed()
    assert (reported.connections, reported.latencies[1], reported.latencies[-1]) == (1, 1, 1)
    assert counts.changed() == ()
    counts.forget(())
    assert counts.forgotten() == ()  # one connection is open still
    web.active = 0
    counts.forget(("web",))
    assert counts.of("web", "ingress") is web
    counts.forget(())
    assert counts.forgotten() == (("web", "ingress"),)
    assert counts.changed() == ()


def reported(**numbers: int) -> Report:
    counts = AllCounts().of("web", "ingress")
    for name, number in numbers.items():
        setattr(counts, name, number)
    return Report(counts=(counts.snapshot(),), connections=numbers.get("active", 0))


def test_totals_outlive_the_workers_that_counted_them() -> None:
    totals = Totals()
    totals.reported(0, reported(connections=5, active=2))
    totals.reported(1, reported(connections=7, active=1))
    assert (totals.of("web", "ingress").connections, totals.connections) == (12, 3)
    totals.lost(0)
    assert totals.of("web", "ingress").active == 1
    totals.reported(0, reported(connections=1, active=1))
    web = totals.of("web", "ingress")
    assert (web.connections, web.active, totals.connections) == (13, 2, 2)
    totals.forget(frozenset())
    assert totals.of("web", "ingress").connections == 13  # it has open ones
    totals.reported(1, Report(forgotten=(("web", "ingress"),)))
    totals.reported(0, Report(forgotten=(("web", "ingress"),)))
    totals.lost(1)
    totals.forget(frozenset(("web",)))
    assert totals.of("web", "ingress").connections == 13


# ----------------------------------------------------------------------- what is said beforehand


def test_a_mesh_head_is_read_to_the_byte() -> None:
    header = MeshHeader(cluster_id=ClusterId("c"), service_id=ServiceId("s"), port=80)
    data, head = encode_header(header) + b"data", MeshHead(ClusterId("c"))
    at, is_whole = 0, False
    while not is_whole:
        part = data[at : at + min(3, head.wants_bytes)]
        at += len(part)
        is_whole = head.take(part)
    assert head.header == header
    assert data[at:] == b"data"


@pytest.mark.parametrize("version", ["v1", "v2"])
@pytest.mark.parametrize("size", [1, 7, 500])
def test_a_proxy_head_is_read_and_what_follows_is_kept(version: str, size: int) -> None:
    header = proxy_header(version, ("10.0.0.1", 5), ("10.0.0.2", 80))  # type: ignore[arg-type]
    data, head, at = header + b"data", ProxyHead(), 0
    while not head.take(data[at : at + min(size, head.wants_bytes)]):
        at += size
    assert (head.source, head.destination) == (("10.0.0.1", 5), ("10.0.0.2", 80))
    assert head.rest == data[len(header) : at + size]


def test_no_proxy_header_is_refused() -> None:
    with pytest.raises(HeadRefused):
        ProxyHead().take(b"GET / HTTP/1.1\r\n")
    assert proxy_header("", ("10.0.0.1", 5), ("10.0.0.2", 80)) == b""
