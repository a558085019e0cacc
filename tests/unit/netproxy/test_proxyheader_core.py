"""The PROXY protocol: what is written, what is read back, and what is refused."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skep.domain.address import Address
from skep.netproxy.core.proxyheader import (
    V2_SIGNATURE,
    Parsed,
    ProxyHeaderError,
    ProxyVersion,
    encode,
    parse,
)

HEX_V4 = "0d0a0d0a000d0a515549540a 21 11 000c 0a010203 c0a80001 dc04 01bb"
HEX_V6 = (
    "0d0a0d0a000d0a515549540a 21 21 0024"
    "20010db8000000000000000000000001 20010db80000000000000000000000ff 0001 ffff"
)
HEX_LOCAL = "0d0a0d0a000d0a515549540a 20 00 0000"
VERSIONS: tuple[ProxyVersion, ...] = ("v1", "v2")


def v2(command: int, family: int, body: bytes, length: int | None = None) -> bytes:
    count = len(body) if length is None else length
    return V2_SIGNATURE + bytes((command, family)) + count.to_bytes(2, "big") + body


@pytest.mark.parametrize(
    ("version", "source", "destination", "data"),
    [
        (
            "v1",
            ("10.1.2.3", 56324),
            ("192.168.0.1", 443),
            b"PROXY TCP4 10.1.2.3 192.168.0.1 56324 443\r\n",
        ),
        ("v1", ("2001:DB8:0::1", 0), ("::", 65535), b"PROXY TCP6 2001:db8::1 :: 0 65535\r\n"),
        ("v2", ("10.1.2.3", 56324), ("192.168.0.1", 443), bytes.fromhex(HEX_V4)),
        ("v2", ("2001:db8::1", 1), ("2001:db8::ff", 65535), bytes.fromhex(HEX_V6)),
        # Two families, or none.
        ("v1", ("10.1.2.3", 1), ("::1", 2), b"PROXY UNKNOWN\r\n"),
        ("v1", ("", 1), ("", 2), b"PROXY UNKNOWN\r\n"),
        ("v2", ("10.1.2.3", 1), ("::1", 2), bytes.fromhex(HEX_LOCAL)),
        ("v2", ("@socket", 1), ("10.1.2.3", 2), bytes.fromhex(HEX_LOCAL)),
        # An IPv4 client of a socket for both, and a zone.
        (
            "v1",
            ("::ffff:10.1.2.3", 56324),
            ("192.168.0.1", 443),
            b"PROXY TCP4 10.1.2.3 192.168.0.1 56324 443\r\n",
        ),
        ("v1", ("fe80::1%eth0", 1), ("fe80::2%3", 2), b"PROXY TCP6 fe80::1 fe80::2 1 2\r\n"),
    ],
)
def test_what_is_written(
    version: ProxyVersion, source: Address, destination: Address, data: bytes
) -> None:
    assert encode(version, source, destination) == data


@pytest.mark.parametrize(
    ("data", "parsed"),
    [
        (
            b"PROXY TCP4 255.255.255.255 0.0.0.0 65535 0\r\n",
            (("255.255.255.255", 65535), ("0.0.0.0", 0)),
        ),
        (b"PROXY TCP6 FFFF::1 ::ffff:1.2.3.4 1 2\r\n", (("ffff::1", 1), ("::ffff:102:304", 2))),
        (b"PROXY UNKNOWN\r\n", (None, None)),
        (b"PROXY UNKNOWN \r\n", (None, None)),
        (b"PROXY UNKNOWN " + b"\xff" * 91 + b"\r\n", (None, None)),
        (b"PROXY UNKNOWN a\nb\rc\r\n", (None, None)),
        (bytes.fromhex(HEX_V4), (("10.1.2.3", 56324), ("192.168.0.1", 443))),
        (bytes.fromhex(HEX_V6), (("2001:db8::1", 1), ("2001:db8::ff", 65535))),
        (bytes.fromhex(HEX_LOCAL), (None, None)),
        # LOCAL: whatever family and addresses are there are passed over.
        (v2(0x20, 0x11, bytes(5)), (None, None)),
        (v2(0x20, 0xFF, b""), (None, None)),
        # UDP, TLVs behind the addresses, unspecified family or transport, UNIX sockets.
        (v2(0x21, 0x12, bytes(range(12))), (("0.1.2.3", 0x0809), ("4.5.6.7", 0x0A0B))),
        (
            v2(0x21, 0x11, bytes(12) + b"\x04\x00\x01x" + b"\xe0\x00\x00"),
            (("0.0.0.0", 0), ("0.0.0.0", 0)),
        ),
        (v2(0x21, 0x11, bytes(520)), (("0.0.0.0", 0), ("0.0.0.0", 0))),
        (v2(0x21, 0x00, b""), (None, None)),
        (v2(0x21, 0x01, bytes(12)), (None, None)),
        (v2(0x21, 0x10, bytes(12)), (None, None)),
        (v2(0x21, 0x31, bytes(216)), (None, None)),
    ],
)
def test_what_is_read(data: bytes, parsed: tuple[Address | None, Address | None]) -> None:
    for rest in (b"", b"GET / HTTP/1.1\r\n\r\n", V2_SIGNATURE):
        got = parse(data + rest)
        assert got is not None
        assert got.length == len(data)
        assert tuple(map(normal, (got.source, got.destination))) == tuple(map(normal, parsed))
    check_prefixes(data)


def normal(
    address: Address | None,
) -> tuple[ipaddress.IPv4Address | ipaddress.IPv6Address, int] | None:
    """Pythons differ in how they write a mapped address."""
    return None if address is None else (ipaddress.ip_address(address[0]), address[1])


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n",
        b"PROXY\r\n",
        b"proxy TCP4",
        b"PROXY  TCP4",
        b"PROXY TCP5",
        b"PROXY UNKNOWNX\r\n",
        b"PROXY UNKNOWN\n",
        b"PROXY TCP4 10.1.2.3 10.1.2.4 1 2 \r\n",
        b"PROXY TCP4 10.1.2.3 10.1.2.4 1\r\n",
        b"PROXY TCP4 10.1.2.3  10.1.2.4 1 2\r\n",
        b"PROXY TCP4 10.1.2.3\t10.1.2.4 1 2\r\n",
        b"PROXY TCP4 10.1.2.3 10.1.2.4 1 2\n\r\n",
        b"PROXY TCP4 10.1.2.3 10.1.2.4 1 2\r\r\n",
        b"PROXY TCP4 10.1.2.03 10.1.2.4 1 2\r\n",
        b"PROXY TCP4 10.1.2 10.1.2.4 1 2\r\n",
        b"PROXY TCP4 10.1.2.256 10.1.2.4 1 2\r\n",
        b"PROXY TCP4 ::1 ::2 1 2\r\n",
        b"PROXY TCP6 10.1.2.3 10.1.2.4 1 2\r\n",
        b"PROXY TCP6 ::1%lo ::2 1 2\r\n",
        b"PROXY TCP6 ::1::2 ::2 1 2\r\n",
        b"PROXY TCP6 ::00001 ::2 1 2\r\n",
        b"PROXY TCP4 10.1.2.3 10.1.2.4 01 2\r\n",
        b"PROXY TCP4 10.1.2.3 10.1.2.4 +1 2\r\n",
        b"PROXY TCP4 10.1.2.3 10.1.2.4 -1 2\r\n",
        b"PROXY TCP4 10.1.2.3 10.1.2.4 1_0 2\r\n",
        b"PROXY TCP4 10.1.2.3 10.1.2.4 65536 2\r\n",
        b"PROXY TCP4 10.1.2.3 10.1.2.4 1 \xb2\r\n",
        b"PROXY TCP4 10.1.2.3 10.1.2.4 1 \r\n",
        b"PROXY UNKNOWN " + b"x" * 92 + b"\r\n",
        b"PROXY TCP4 " + b"1" * (107 - 11),
        v2(0x31, 0x11, bytes(12)),
        v2(0x11, 0x11, bytes(12)),
        v2(0x22, 0x11, bytes(12)),
        v2(0x21, 0x41, bytes(12)),
        v2(0x21, 0x13, bytes(12)),
        v2(0x21, 0x11, bytes(11)),
        v2(0x21, 0x21, bytes(35)),
        v2(0x21, 0x31, bytes(215)),
        v2(0x21, 0x11, b"", 520 + 1),
        V2_SIGNATURE[:-1] + b"\r",
    ],
)
def test_what_is_refused(data: bytes) -> None:
    with pytest.raises(ProxyHeaderError):
        parse(data)


def test_what_can_become_no_header_is_refused_at_once() -> None:
    for data in (b"G", b"PROXY T\r", V2_SIGNATURE + b"\x11", V2_SIGNATURE + b"\x21\x41"):
        with pytest.raises(ProxyHeaderError) as refused:
            parse(data)
        assert refused.value.why


ports = st.integers(0, 65535)
families = st.sampled_from((st.ip_addresses(v=4), st.ip_addresses(v=6)))


@st.composite
def ends(draw: st.DrawFn) -> tuple[Address, Address]:
    of = draw(families)
    return (str(draw(of)), draw(ports)), (str(draw(of)), draw(ports))


def check_prefixes(data: bytes) -> None:
    for count in range(len(data)):
        assert parse(data[:count]) is None


@given(st.sampled_from(VERSIONS), ends(), st.binary(max_size=40))
def test_what_was_written_is_read_back(
    version: ProxyVersion, of: tuple[Address, Address], rest: bytes
) -> None:
    source, destination = of
    data = encode(version, source, destination)
    if any(
        isinstance(ip := ipaddress.ip_address(text), ipaddress.IPv6Address) and ip.ipv4_mapped
        for text, _ in of
    ):
        return  # told as IPv4, which has its own test
    expected = Parsed(source=source, destination=destination, length=len(data))
    assert parse(data + rest) == expected
    check_prefixes(data)


@given(st.binary(max_size=200))
def test_no_bytes_do_worse_than_be_refused(data: bytes) -> None:
    read_or_refuse(data)
    for start in (b"PROXY TCP4 ", b"PROXY TCP6 ", b"PROXY UNKNOWN", V2_SIGNATURE + b"\x21"):
        read_or_refuse(start + data)
        read_or_refuse(start + data + b"\r\n")


@given(st.sampled_from(VERSIONS), ends(), st.data())
def test_a_damaged_header_is_read_whole_or_refused(
    version: ProxyVersion, of: tuple[Address, Address], data: st.DataObject
) -> None:
    damaged = bytearray(encode(version, *of))
    for _ in range(data.draw(st.integers(1, 3))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    read_or_refuse(bytes(damaged))


def read_or_refuse(data: bytes) -> None:
    """And whatever is read is addresses, within the data, and doesn't hang on what follows."""
    try:
        parsed = parse(data)
    except ProxyHeaderError:
        return
    if parsed is None:
        return
    assert 0 < parsed.length <= len(data)
    assert (parsed.source is None) == (parsed.destination is None)
    for address in (parsed.source, parsed.destination):
        if address is not None:
            ipaddress.ip_address(address[0])
            assert 0 <= address[1] <= 65535
    assert parse(data[: parsed.length]) == parsed
    check_prefixes(data[: parsed.length])
