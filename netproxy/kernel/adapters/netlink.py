"""A netlink socket in one network namespace: many requests in one system call, typed answers.

pyroute2 reads the answers. Requests and the socket are our own: its own socket has an event loop
to each and sends one request at a time, and it took 0.3 ms to make a request. Requests of one call
are all carried out by the kernel before the call returns, whatever happens to this process
meanwhile: what is made and tagged by one call is never found without its tag.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterator, Sequence

# Acknowledgements of one batch must fit in the receive buffer.
BATCH = 64
RECEIVE_BUFFER_BYTES = 1 << 20
RECEIVE_BYTES = 1 << 17
# The kernel answers before it returns from the request; this is for what we can't imagine.
ANSWER_TIMEOUT_S = 10.0
DUMP_ATTEMPTS = 5

SOL_NETLINK = 270
NETLINK_CAP_ACK, NETLINK_EXT_ACK, NETLINK_GET_STRICT_CHK = 10, 11, 12
NLMSG_ERROR, NLMSG_DONE = 2, 3
NLM_F_REQUEST, NLM_F_ACK, NLM_F_DUMP = 0x1, 0x4, 0x300
NLM_F_DUMP_INTR, NLM_F_CAPPED, NLM_F_ACK_TLVS = 0x10, 0x100, 0x200
NLMSGERR_ATTR_MSG = 1

_HEADER = struct.Struct("=IHHII")
HEADER_BYTES = _HEADER.size
_ERROR = struct.Struct("=i")
_ATTRIBUTE = struct.Struct("=HH")
_NUMBER_MASK = 0x3FFF  # beside it there are flags

Message = bytearray
"""One request, ready but for its sequence number."""


def message(number: int, flags: int, fields: bytes, attributes: bytes = b"") -> Message:
    """A request: its type's number, flags, the fields that all of its type have, attributes."""
    length = _HEADER.size + len(fields) + len(attributes)
    header = _HEADER.pack(length, number, flags | NLM_F_REQUEST | NLM_F_ACK, 0, 0)
    return bytearray(b"".join((header, fields, attributes)))


def attribute(number: int, value: bytes) -> bytes:
    """One attribute of a request."""
    padding = b"\0" * (-len(value) % 4)
    return _ATTRIBUTE.pack(_ATTRIBUTE.size + len(value), number) + value + padding


def attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The attributes of an answer, by number."""
    at = 0
    while at + _ATTRIBUTE.size <= len(data):
        length, number = _ATTRIBUTE.unpack_from(data, at)
        if length < _ATTRIBUTE.size:
            break
        yield number & _NUMBER_MASK, data[at + _ATTRIBUTE.size : at + length]
        at += (length + 3) & ~3


class Netlink:
    """A socket of the namespace in which the calling thread is when it is made.

    It keeps that namespace alive until it is closed. Not for several threads at once. `family` is
    which part of the kernel it speaks to.
    """

    def __init__(self, family: int = socket.NETLINK_ROUTE) -> None:
        self._socket = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, family
        )
        self._sequence = 0
        try:
            for option in (NETLINK_CAP_ACK, NETLINK_EXT_ACK, NETLINK_GET_STRICT_CHK):
                self._socket.setsockopt(SOL_NETLINK, option, 1)
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
            self._socket.settimeout(ANSWER_TIMEOUT_S)
            self._socket.bind((0, 0))
        except OSError:
            self._socket.close()
            raise

    def close(self) -> None:
        """Let go of the namespace; idempotent."""
        self._socket.close()

    def cookie(self) -> int:
        """The number by which the kernel knows this namespace, never used again for another."""
        raw = self._socket.getsockopt(socket.SOL_SOCKET, 71, 8)  # SO_NETNS_COOKIE
        return int.from_bytes(raw, "little" if struct.pack("=H", 1)[0] else "big")

    def attempt(self, requests: Sequence[Message]) -> list[OSError | None]:
        """Have the kernel carry out all requests in order, each whatever became of the others;
        what became of each. Raises OSError where the socket itself fails."""
        results: list[OSError | None] = []
        for start in range(0, len(requests), BATCH):
            results.extend(self._batch(requests[start : start + BATCH]))
        return results

    def ask(self, requests: Sequence[Message], *, but_for: Sequence[int] = ()) -> None:
        """Have all requests carried out; raises the first OSError whose number isn't among
        `but_for`. Later requests are carried out all the same."""
        for result in self.attempt(requests):
            if result is not None and result.errno not in but_for:
                raise result

    def _batch(self, requests: Sequence[Message]) -> list[OSError | None]:
        first = self._sequence + 1
        self._sequence += len(requests)
        for sequence, request in enumerate(requests, first):
            struct.pack_into("=I", request, 8, sequence)
        self._socket.send(b"".join(requests))
        results: list[OSError | None] = [None] * len(requests)
        missing = set(range(first, first + len(requests)))
        while missing:
            for number, flags, sequence, body in self._receive():
                if number == NLMSG_ERROR and sequence in missing:
                    missing.discard(sequence)
                    results[sequence - first] = _error(flags, body)
        return results

    def dump(self, request: Message) -> list[bytes]:
        """All answers to a request, whole messages, consistent with one another. Raises OSError."""
        for _ in range(DUMP_ATTEMPTS):
            answers = self._dump(request, NLM_F_DUMP)
            if answers is not None:
                return answers
        raise OSError(errno.EINTR, "the namespace changes too quickly to be listed")

    def get(self, request: Message) -> bytes | None:
        """The one answer to a request; None where there is no such thing. Raises OSError."""
        try:
            answers = self._dump(request, 0)
        except OSError as error:
            if error.errno in (errno.ENODEV, errno.ENOENT):
                return None
            raise
        return answers[0] if answers else None

    def _dump(self, request: Message, flags: int) -> list[bytes] | None:
        self._sequence += 1
        asked = struct.unpack_from("=H", request, 6)[0] & ~NLM_F_ACK | flags
        if not flags:
            asked |= NLM_F_ACK
        struct.pack_into("=HI", request, 6, asked, self._sequence)
        self._socket.send(request)
        answers: list[bytes] = []
        is_whole = True
        while True:
            for number, got, sequence, body in self._receive(with_header=True):
                if sequence != self._sequence:
                    continue
                is_whole = is_whole and not got & NLM_F_DUMP_INTR
                if number == NLMSG_ERROR:
                    error = _error(got, body[_HEADER.size :])
                    if error is not None:
                        raise error
                    return answers
                if number == NLMSG_DONE:
                    return answers if is_whole else None
                answers.append(body)

    def _receive(self, *, with_header: bool = False) -> Iterator[tuple[int, int, int, bytes]]:
        data = self._socket.recv(RECEIVE_BYTES)
        offset = 0
        while offset + _HEADER.size <= len(data):
            length, number, flags, sequence, _ = _HEADER.unpack_from(data, offset)
            start = offset if with_header else offset + _HEADER.size
            yield number, flags, sequence, data[start : offset + length]
            offset += (length + 3) & ~3


def _error(flags: int, body: bytes) -> OSError | None:
    code = -_ERROR.unpack_from(body)[0]
    if code == 0:
        return None
    text = os.strerror(code)
    said = _said(flags, body)
    return OSError(code, f"{text}: {said}" if said else text)


def _said(flags: int, body: bytes) -> str:
    """What the kernel says beside the number, which it does only sometimes."""
    if not flags & NLM_F_ACK_TLVS:
        return ""
    offset = _ERROR.size + _HEADER.size
    if not flags & NLM_F_CAPPED:
        length = _HEADER.unpack_from(body, _ERROR.size)[0]
        offset = _ERROR.size + ((length + 3) & ~3)
    for number, text in attributes(body[offset:]):
        if number == NLMSGERR_ATTR_MSG:
            return text.rstrip(b"\0").decode(errors="replace")
    return ""
