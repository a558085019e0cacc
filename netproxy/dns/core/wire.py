"""DNS messages as bytes: what a query asks, and the answers that Skep gives (RFC 1035, 6891).

Written by hand, since a general library spends ten times as long on each query. Reading is strict:
a stub resolver sends exactly one question and at most one OPT record, so whatever is more, less or
compressed is refused. Nothing here raises anything but `BadQuery`, whatever the bytes are.

Every record that we make has a time to live of 0. Tasks come and go within seconds, and a resolver
that kept an answer would send its client to an address that is nobody's, or by then somebody
else's. An answer costs a few tens of microseconds on the same machine, so a cache gains nothing.
For the same reason a negative answer carries no SOA record: without one nobody may keep it.
"""

from __future__ import annotations

import enum
import struct

from msgspec import Struct

HEADER_BYTES = 12
# A question has at most 255 + 4 bytes; the rest is room for EDNS options such as padding.
QUERY_LIMIT_BYTES = 4096
MESSAGE_LIMIT_BYTES = 65535
NAME_LIMIT_BYTES = 255
LABEL_LIMIT_BYTES = 63
# What UDP carries to a resolver that names no size (RFC 1035), and the most that we send to one
# that does: these packets never leave the machine, so fragments are no concern.
PLAIN_UDP_BYTES = 512
LARGEST_UDP_BYTES = 4096
# The size that we name: what passes everywhere unfragmented, as the DNS flag day of 2020 has it.
OUR_UDP_BYTES = 1232
# An A record of ours: a pointer to the question's name, type, class, ttl, length, address.
A_RECORD_BYTES = 16

_HEADER = struct.Struct("!HHHHHH")
_COUNTS = struct.Struct("!HHHHH")  # the header behind the id
_TYPE_AND_CLASS = struct.Struct("!HH")
_OPT = struct.Struct("!xHHBBHH")
_OPT_FIXED_BYTES = _OPT.size
_A_RECORD_HEAD = struct.pack("!HHHIH", 0xC00C, 1, 1, 0, 4)
_PTR_RECORD_HEAD = struct.pack("!HHHI", 0xC00C, 12, 1, 0)

_IS_ANSWER, _OPCODE, _IS_AUTHORITATIVE = 0x8000, 0x7800, 0x0400
_IS_TRUNCATED, _WANTS_RECURSION, _HAS_RECURSION = 0x0200, 0x0100, 0x0080

CLASS_IN = 1


class Type(enum.IntEnum):
    """Record types that are told apart; any other is just a number."""

    A = 1
    PTR = 12
    AAAA = 28
    OPT = 41
    IXFR = 251
    AXFR = 252
    ANY = 255


class Rcode(enum.IntEnum):
    """How a query went; the numbers are the wire's."""

    NOERROR = 0
    FORMERR = 1
    SERVFAIL = 2
    NXDOMAIN = 3
    NOTIMP = 4
    REFUSED = 5
    BADVERS = 16


class BadQuery(Exception):
    """The bytes are no query that is answered by its meaning.

    `answer` is what to send back, None where that would be wrong: to an answer, or to less than a
    header.
    """

    def __init__(self, why: str, answer: bytes | None) -> None:
        super().__init__(why)
        self.why = why
        self.answer = answer


class Query(Struct, frozen=True, gc=False):
    """One question. `name` is in lower case, without the dot at its end; a byte that could not
    stand in a name of ours is shown as in a zone file, so that it never equals one.

    `udp_bytes` is the largest answer that the client takes over UDP.
    """

    raw: bytes
    flags: int
    name: str
    type: int
    question: bytes
    udp_bytes: int
    has_opt: bool


def parse_query(data: bytes) -> Query:
    """The question in `data`. Raises BadQuery."""
    if len(data) < HEADER_BYTES:
        raise BadQuery(f"{len(data)} bytes are less than a header", None)
    _, flags, questions, answers, authorities, additional = _HEADER.unpack_from(data)
    if flags & _IS_ANSWER:
        raise BadQuery("it is an answer", None)
    if flags & _OPCODE:
        raise BadQuery("an operation other than a query", _headless(data, flags, Rcode.NOTIMP))
    try:
        if questions != 1 or answers or authorities or additional > 1:
            raise ValueError("not exactly one question")
        if len(data) > QUERY_LIMIT_BYTES:
            raise ValueError(f"longer than {QUERY_LIMIT_BYTES} bytes")
        name, end = _read_name(data, HEADER_BYTES)
        kind, klass = _TYPE_AND_CLASS.unpack_from(data, end)
        end += _TYPE_AND_CLASS.size
        udp_bytes, version = _read_opt(data, end) if additional else (PLAIN_UDP_BYTES, 0)
        if not additional and len(data) != end:
            raise ValueError("bytes after the question")
        if kind == Type.OPT:
            raise ValueError("OPT is no type to ask for")
    except (ValueError, IndexError, struct.error) as error:
        raise BadQuery(str(error), _headless(data, flags, Rcode.FORMERR)) from None
    query = Query(data, flags, name, kind, data[HEADER_BYTES:end], udp_bytes, additional == 1)
    if version:
        raise BadQuery(f"EDNS version {version}", failure(query, Rcode.BADVERS))
    if klass != CLASS_IN or kind in (Type.AXFR, Type.IXFR):
        raise BadQuery(f"class {klass}, type {kind}", failure(query, Rcode.REFUSED))
    return query


def _read_name(data: bytes, at: int) -> tuple[str, int]:
    """The name at `at` and where it ends. Raises ValueError, IndexError."""
    labels = []
    begin = at
    while length := data[at]:
        if length > LABEL_LIMIT_BYTES:
            raise ValueError("a compressed name, or a label that is too long")
        at += 1
        label = data[at : at + length]
        if b"." in label or b"\\" in label:
            label = label.replace(b"\\", b"\\\\").replace(b".", b"\\.")
        labels.append(label)
        at += length
        if at - begin >= NAME_LIMIT_BYTES:
            raise ValueError(f"a name of more than {NAME_LIMIT_BYTES} bytes")
    return b".".join(labels).lower().decode("latin-1"), at + 1


def _read_opt(data: bytes, at: int) -> tuple[int, int]:
    """The client's UDP size and EDNS version. Raises ValueError, IndexError, struct.error."""
    if data[at] != 0:
        raise ValueError("an additional record that is not OPT")
    kind, udp_bytes, _, version, _, length = _OPT.unpack_from(data, at)
    if kind != Type.OPT:
        raise ValueError("an additional record that is not OPT")
    if at + _OPT_FIXED_BYTES + length != len(data):
        raise ValueError("OPT is shorter or longer than it says")
    return min(max(udp_bytes, PLAIN_UDP_BYTES), LARGEST_UDP_BYTES), version


# ------------------------------------------------------------------------------------- answers


def failure(query: Query, rcode: Rcode) -> bytes:
    """An answer that says why there is none, on behalf of nobody's zone."""
    return _assemble(query, 0, rcode, b"", 0)


def truncated(query: Query) -> bytes:
    """An answer that says only: ask again over TCP."""
    return _assemble(query, _IS_TRUNCATED, Rcode.NOERROR, b"", 0)


def unknown(query: Query) -> bytes:
    """The name does not exist, for any type; with authority."""
    return _assemble(query, _IS_AUTHORITATIVE, Rcode.NXDOMAIN, b"", 0)


def empty(query: Query) -> bytes:
    """The name exists and has nothing of this type.

    For AAAA this matters: stub resolvers take NXDOMAIN for the whole name, the A records included.
    """
    return _assemble(query, _IS_AUTHORITATIVE, Rcode.NOERROR, b"", 0)


def addresses(query: Query, records: bytes, limit_bytes: int) -> bytes:
    """The A records in `records` (made by `a_record`), as many as fit into `limit_bytes`.

    Where some don't, the answer says that it is truncated, and still carries the others: the C
    library musl came to TCP only in 2022, and older ones make do with what UDP brings.
    """
    room = limit_bytes - HEADER_BYTES - len(query.question) - query.has_opt * _OPT_FIXED_BYTES
    fits = max(room, 0) // A_RECORD_BYTES * A_RECORD_BYTES
    flags = _IS_AUTHORITATIVE
    if len(records) > fits:
        flags |= _IS_TRUNCATED
        records = records[:fits]
    return _assemble(query, flags, Rcode.NOERROR, records, len(records) // A_RECORD_BYTES)


def pointer(query: Query, name: str) -> bytes:
    """A PTR record. Raises ValueError where `name` is no name."""
    encoded = encode_name(name)
    record = _PTR_RECORD_HEAD + len(encoded).to_bytes(2, "big") + encoded
    return _assemble(query, _IS_AUTHORITATIVE, Rcode.NOERROR, record, 1)


def a_record(address: bytes) -> bytes:
    """The record of one IPv4 address (4 bytes), behind the one question of an answer."""
    assert len(address) == 4
    return _A_RECORD_HEAD + address


def _assemble(query: Query, flags: int, rcode: Rcode, records: bytes, count: int) -> bytes:
    flags |= _IS_ANSWER | _HAS_RECURSION | (query.flags & _WANTS_RECURSION) | (rcode & 15)
    counts = _COUNTS.pack(flags, 1, count, 0, query.has_opt)
    if not query.has_opt:
        return query.raw[:2] + counts + query.question + records
    opt = _OPT.pack(Type.OPT, OUR_UDP_BYTES, rcode >> 4, 0, 0, 0)
    return query.raw[:2] + counts + query.question + records + opt


def _headless(data: bytes, flags: int, rcode: Rcode) -> bytes:
    """An answer without the question, which could not be read."""
    flags = _IS_ANSWER | (flags & (_OPCODE | _WANTS_RECURSION)) | rcode
    return _HEADER.pack(int.from_bytes(data[:2], "big"), flags, 0, 0, 0, 0)


def encode_name(name: str) -> bytes:
    """A name (with or without the dot at its end) as it travels. Raises ValueError."""
    encoded = bytearray()
    for label in name.removesuffix(".").split("."):
        part = label.encode("ascii")
        if not 0 < len(part) <= LABEL_LIMIT_BYTES:
            raise ValueError(f"{name!r}: a label has 1 to {LABEL_LIMIT_BYTES} characters")
        encoded += bytes((len(part),)) + part
    if len(encoded) >= NAME_LIMIT_BYTES:
        raise ValueError(f"{name!r}: a name has at most {NAME_LIMIT_BYTES} bytes")
    return bytes(encoded) + b"\0"


# ---------------------------------------------------------------------------------- forwarding


def with_id(message: bytes, identifier: int) -> bytes:
    """The same message under another id."""
    return identifier.to_bytes(2, "big") + message[2:]


def id_of(message: bytes) -> int:
    """The id of a message that has at least a header's first two bytes."""
    return int.from_bytes(message[:2], "big")


class Reply(Struct, frozen=True):
    """What matters of another server's answer to a query that was passed on."""

    rcode: int
    is_truncated: bool


def read_reply(query: Query, identifier: int, data: bytes) -> Reply | None:
    """What `data` says, None where it is no answer to that query under that id.

    A server that fails may leave the question out; one that has an answer may not.
    """
    if len(data) < HEADER_BYTES:
        return None
    found, flags, questions, _, _, _ = _HEADER.unpack_from(data)
    if found != identifier or not flags & _IS_ANSWER or flags & _OPCODE:
        return None
    reply = Reply(flags & 15, bool(flags & _IS_TRUNCATED))
    if questions == 0 and reply.rcode not in (Rcode.NOERROR, Rcode.NXDOMAIN):
        return reply
    echoed = data[HEADER_BYTES : HEADER_BYTES + len(query.question)]
    is_ours = echoed[:-4].lower() == query.question[:-4].lower() and (
        echoed[-4:] == query.question[-4:]
    )
    return reply if questions == 1 and is_ours else None


# ------------------------------------------------------------------------------------- framing


def frame(message: bytes) -> bytes:
    """A message as TCP carries it."""
    assert len(message) <= MESSAGE_LIMIT_BYTES
    return len(message).to_bytes(2, "big") + message


def unframe(buffer: bytearray, limit_bytes: int) -> list[bytes]:
    """Take the whole messages from the front of `buffer`.

    Raises BadQuery (without an answer) where one is longer than `limit_bytes`.
    """
    messages = []
    while len(buffer) >= 2:
        length = int.from_bytes(buffer[:2], "big")
        if length > limit_bytes:
            raise BadQuery(f"a message of {length} bytes over TCP", None)
        if len(buffer) < 2 + length:
            break
        messages.append(bytes(buffer[2 : 2 + length]))
        del buffer[: 2 + length]
    return messages
