"""Messages as bytes: what is refused, what answers look like, and that nothing ever breaks."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skep.netproxy.dns.core import wire
from skep.netproxy.dns.core.answer import Answerer
from skep.netproxy.dns.core.protocol import whole
from skep.netproxy.dns.core.wire import BadQuery, Query, Rcode
from skep.netproxy.dns.core.zones import Names
from tests.unit.netproxy.dns.support import (
    ANY,
    A,
    Message,
    encoded,
    query,
    read,
    record,
    scope,
    zone,
)

LONGEST = ".".join(["a" * 63] * 3 + ["b" * 61])  # 255 bytes on the wire


def refusal(data: bytes) -> Message | None:
    with pytest.raises(BadQuery) as caught:
        wire.parse_query(data)
    return None if caught.value.answer is None else read(caught.value.answer)


def patched(data: bytes, at: int, value: bytes) -> bytes:
    return data[:at] + value + data[at + len(value) :]


def test_a_query_is_read() -> None:
    data = query("Web.NET", identifier=7)
    parsed = wire.parse_query(data)
    assert (parsed.name, parsed.type, parsed.udp_bytes, parsed.has_opt) == (
        "web.net",
        A,
        512,
        False,
    )
    # As it came, since some clients check the case that they have sent.
    assert parsed.question == encoded("Web.NET") + b"\0\1\0\1"


@pytest.mark.parametrize(("said", "taken"), [(0, 512), (100, 512), (1400, 1400), (65535, 4096)])
def test_the_udp_size_is_taken_within_bounds(said: int, taken: int) -> None:
    data = query("web", udp=1)
    assert (
        wire.parse_query(patched(data, len(data) - 8, struct.pack("!H", said))).udp_bytes == taken
    )


def test_a_byte_that_is_no_part_of_names_never_makes_one_of_ours() -> None:
    one_label = query("x")[:12] + b"\x09tasks.web\0\0\1\0\1"
    assert wire.parse_query(one_label).name == "tasks\\.web"
    assert wire.parse_query(query("w\\eb")).name == "w\\\\eb"


def test_the_longest_name_is_read_and_a_longer_one_is_not() -> None:
    assert len(encoded(LONGEST)) == 255
    assert wire.parse_query(query(LONGEST)).name == LONGEST
    assert wire.encode_name(LONGEST) == encoded(LONGEST)
    message = refusal(query(LONGEST + "b"))
    assert message is not None
    assert message.rcode == Rcode.FORMERR
    with pytest.raises(ValueError, match="at most"):
        wire.encode_name(LONGEST + "b")


GOOD = query("web")
GOOD_OPT = query("web", udp=1232)
TOO_LONG = (
    query("web")[:10]
    + b"\0\1"
    + encoded("web")
    + b"\0\1\0\1"
    + struct.pack("!xHHIH", 41, 1232, 0, 5000)
    + bytes(5000)
)


@pytest.mark.parametrize(
    ("data", "rcode"),
    [
        pytest.param(patched(GOOD, 4, b"\0\0"), Rcode.FORMERR, id="no question"),
        pytest.param(patched(GOOD, 4, b"\0\2"), Rcode.FORMERR, id="two questions"),
        pytest.param(patched(GOOD, 6, b"\0\1"), Rcode.FORMERR, id="an answer in a question"),
        pytest.param(patched(GOOD, 8, b"\0\1"), Rcode.FORMERR, id="an authority"),
        pytest.param(patched(GOOD, 10, b"\0\1"), Rcode.FORMERR, id="no OPT though it says so"),
        pytest.param(patched(GOOD_OPT, 10, b"\0\2"), Rcode.FORMERR, id="two additional records"),
        pytest.param(patched(GOOD_OPT, 10, b"\0\0"), Rcode.FORMERR, id="more than it says"),
        pytest.param(GOOD + b"\0", Rcode.FORMERR, id="a byte too many"),
        pytest.param(GOOD_OPT + b"\0", Rcode.FORMERR, id="a byte behind OPT"),
        pytest.param(GOOD[:-1], Rcode.FORMERR, id="a byte too few"),
        pytest.param(GOOD[:14], Rcode.FORMERR, id="half a name"),
        pytest.param(GOOD[:12], Rcode.FORMERR, id="a header alone"),
        pytest.param(patched(GOOD, 12, b"\xc0\x0c"), Rcode.FORMERR, id="a compressed name"),
        pytest.param(patched(GOOD, 12, b"\x40"), Rcode.FORMERR, id="a reserved label"),
        pytest.param(TOO_LONG, Rcode.FORMERR, id="a query of 5 kB"),
        pytest.param(query("web", 41), Rcode.FORMERR, id="OPT as a question"),
        pytest.param(patched(GOOD_OPT, 21, b"\3"), Rcode.FORMERR, id="OPT with a name"),
        pytest.param(patched(GOOD_OPT, 22, b"\0\1"), Rcode.FORMERR, id="another record than OPT"),
        pytest.param(patched(GOOD_OPT, 27, b"\1"), Rcode.BADVERS, id="EDNS version 1"),
        pytest.param(query("web", flags=0x2800), Rcode.NOTIMP, id="an update"),
        pytest.param(query("web", flags=0x1000), Rcode.NOTIMP, id="a status query"),
        pytest.param(query("web", 252), Rcode.REFUSED, id="AXFR"),
        pytest.param(query("web", 251), Rcode.REFUSED, id="IXFR"),
        pytest.param(patched(GOOD, len(GOOD) - 2, b"\0\3"), Rcode.REFUSED, id="class CHAOS"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_so(data: bytes, rcode: int) -> None:
    message = refusal(data)
    assert message is not None
    assert (message.rcode, message.identifier, message.answers) == (rcode, 0x1234, ())


def test_what_must_not_be_answered_is_not() -> None:
    for data in (b"", bytes(11), query("web", flags=0x8180)):
        assert refusal(data) is None


def records(count: int) -> bytes:
    return b"".join(wire.a_record(bytes((10, 0, n >> 8, n & 255))) for n in range(count))


def test_an_answer_has_the_question_and_no_time_to_live() -> None:
    message = read(wire.addresses(wire.parse_query(query("WEB", udp=1232)), records(2), 512))
    assert message.question == ("WEB", 1, 1)
    assert message.answers == (("WEB", A, 0, "10.0.0.0"), ("WEB", A, 0, "10.0.0.1"))
    assert (message.is_authoritative, message.is_truncated, message.has_opt) == (True, False, True)


@pytest.mark.parametrize("udp", [0, 512, 1232])
@pytest.mark.parametrize("limit", [512, 1232, 4096])
def test_an_answer_fills_the_limit_and_says_what_is_missing(udp: int, limit: int) -> None:
    parsed = wire.parse_query(query("web", udp=udp))
    whole = wire.addresses(parsed, records(200), 65535)
    for count in range(0, 256, 5):
        answer = wire.addresses(parsed, records(count), limit)
        message = read(answer)
        assert len(answer) <= limit
        assert message.is_truncated == (len(message.answers) < count)
        assert not message.is_truncated or len(answer) > limit - 16
    assert len(read(whole).answers) == 200


def test_more_than_tcp_carries_is_cut_too() -> None:
    answer = wire.addresses(wire.parse_query(query("web")), records(5000), 65535)
    assert len(answer) <= 65535
    assert read(answer).is_truncated


def test_a_pointer() -> None:
    message = read(wire.pointer(wire.parse_query(query("2.0.0.10.in-addr.arpa", 12)), "web.net"))
    assert message.answers == (("2.0.0.10.in-addr.arpa", 12, 0, "web.net"),)


def reply_to(data: bytes, flags: int = 0x8180, identifier: int = 9) -> bytes:
    return struct.pack("!2H", identifier, flags) + data[4:]


def test_a_reply_is_known_by_id_and_question() -> None:
    asked = wire.parse_query(query("Example.org"))
    good = reply_to(query("eXample.org"))
    assert wire.read_reply(asked, 9, good) == wire.Reply(0, False)
    assert wire.read_reply(asked, 9, reply_to(query("example.org"), 0x8383)) == wire.Reply(3, True)
    for bad in (
        b"",
        good[:11],
        reply_to(query("example.org"), identifier=8),
        reply_to(query("example.org"), flags=0x0100),
        reply_to(query("example.com")),
        reply_to(query("example.org", 97)),
        patched(good, 4, b"\0\0"),
        patched(good, 4, b"\0\2"),
    ):
        assert wire.read_reply(asked, 9, bad) is None
    # One that fails may leave the question out.
    headless = struct.pack("!6H", 9, 0x8181, 0, 0, 0, 0)
    assert wire.read_reply(asked, 9, headless) == wire.Reply(Rcode.FORMERR, False)


def test_frames() -> None:
    buffer = bytearray(wire.frame(b"abc") + wire.frame(b"") + b"\0\5xy")
    assert wire.unframe(buffer, 10) == [b"abc", b""]
    assert buffer == b"\0\5xy"
    with pytest.raises(BadQuery):
        wire.unframe(buffer, 4)


# --------------------------------------------------------------------------------------- fuzzing


def answerer() -> tuple[Answerer, Names]:
    names = Names()
    many = record("many", *(f"10.0.1.{n}" for n in range(200)))
    zones = zone("net", record("web", "10.0.0.2"), record("none"), many, subnets=("10.0.0.0/16",))
    names.change_networks(1, (whole(zones),), (), is_whole=True)
    names.put_scope(scope("s", "net", search=("stack",), forwards=True))
    return Answerer(names), names


def check_answer(data: bytes, *, is_udp: bool) -> None:
    answers, names = answerer()
    answer = answers.respond(names.views["s"], data, is_udp=is_udp)
    if isinstance(answer, Query):
        # What leaves is what came, and passes for a question with anyone.
        assert answer.raw == data
    elif answer is not None:
        message = read(answer)
        assert message.identifier == int.from_bytes(data[:2], "big")
        assert len(answer) <= (4096 if is_udp else 65535)


LABELS = st.sampled_from(["web", "none", "many", "net", "stack", "tasks", "x" * 63, "2", "10"])
NAMES = st.one_of(st.lists(LABELS, max_size=4).map(".".join), st.just("2.0.0.10.in-addr.arpa"))
QUERIES = st.builds(
    lambda name, kind, flags, udp: query(name, kind, flags=flags, udp=udp),
    NAMES,
    st.sampled_from([A, 12, 28, ANY, 41, 252, 65]),
    st.sampled_from([0, 0x0100, 0x0110, 0x2800, 0x8180]),
    st.sampled_from([0, 1, 512, 1232, 65535]),
)


@given(st.binary(max_size=600), st.booleans())
def test_any_bytes_are_answered_or_dropped(data: bytes, is_udp: bool) -> None:
    check_answer(data, is_udp=is_udp)


@given(QUERIES, st.booleans())
def test_any_query_is_answered(data: bytes, is_udp: bool) -> None:
    check_answer(data, is_udp=is_udp)


@given(QUERIES, st.lists(st.tuples(st.integers(0, 300), st.integers(0, 255)), max_size=6),
       st.integers(0, 300), st.binary(max_size=12), st.booleans())  # fmt: skip
def test_a_damaged_query_is_answered_or_dropped(
    data: bytes, changes: list[tuple[int, int]], cut: int, tail: bytes, is_udp: bool
) -> None:
    damaged = bytearray(data)
    for at, value in changes:
        damaged[at % len(damaged)] = value
    check_answer(bytes(damaged[: max(cut, 1)]) + tail, is_udp=is_udp)


@given(QUERIES, st.integers(0, 65535), st.binary(max_size=100))
def test_any_reply_is_read_or_passed_over(data: bytes, identifier: int, reply: bytes) -> None:
    try:
        asked = wire.parse_query(data)
    except BadQuery:
        return
    wire.read_reply(asked, identifier, reply)
    wire.read_reply(asked, identifier, reply_to(data, identifier=identifier) + reply)


@given(st.binary(max_size=300), st.integers(0, 100))
def test_any_stream_is_cut_into_messages_or_refused(data: bytes, limit: int) -> None:
    buffer = bytearray(data)
    try:
        messages = wire.unframe(buffer, limit)
    except BadQuery:
        return
    assert b"".join(map(wire.frame, messages)) + bytes(buffer) == data
