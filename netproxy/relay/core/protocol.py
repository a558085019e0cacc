"""What the netproxy and its relay workers say to each other over a unix socket.

    netproxy -> worker   Start once, then Opened, Apply and Drain in any order
    worker -> netproxy   Applied for each Apply, a Report before it and whenever counts have changed

Each message is one frame: its length (4 bytes), then msgpack. Listening sockets travel beside the
`Opened` that names them, in its order. Every Apply is in force as a whole before its Applied is
sent: no connection that is made from then on, or that is being made, reaches a task that the
listeners don't name.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Literal, NamedTuple, TypeVar

import msgspec

from skep.domain.base import ClusterId, ServiceId, Struct, TaskId
from skep.domain.spec import Balance

Address = tuple[str, int]
"""An IP address as text, and a port. (What `skep.domain.address` has is too heavy to load here.)"""

TCP, UDP = "tcp", "udp"


class Key(NamedTuple):
    """What a listener is known by: TCP and UDP have ports of their own."""

    host: str
    port: int
    protocol: str = TCP

    @property
    def address(self) -> Address:
        """Where it listens."""
        return self.host, self.port


_LENGTH = struct.Struct("!I")
# 200,000 endpoints are about 16 MiB. More than this is not a cluster but a mistake.
FRAME_LIMIT_BYTES = 64 * 1024 * 1024
# Linux takes no more than 253 files with one message (SCM_MAX_FD).
SOCKETS_PER_FRAME = 128

ProxyVersion = Literal["", "v1", "v2"]
"""Which PROXY protocol header is sent, if any."""


class Candidate(Struct, frozen=True, kw_only=True):
    """A task that may be given a connection. `mesh_address` None: it is on this node."""

    task_id: TaskId
    address: str
    mesh_address: Address | None = None


class Listener(Struct, frozen=True, kw_only=True):
    """One address that is listened on, and the tasks behind it at their port `target`.

    `sends_proxy`: a PROXY header with the client's address comes first in what the task is sent.
    `accepts_proxy`: each client must begin with such a header, whose addresses are then the ones
    that are told to the task.
    """

    host: str
    port: int
    protocol: str = TCP
    service_id: ServiceId
    service_name: str
    target: int
    balance: Balance = Balance.ROUND_ROBIN
    candidates: tuple[Candidate, ...] = ()
    sends_proxy: ProxyVersion = ""
    accepts_proxy: bool = False

    @property
    def key(self) -> Key:
        """What it is known by."""
        return Key(self.host, self.port, self.protocol)


class Start(Struct, frozen=True, kw_only=True, tag=True):
    """Who this worker works for. `task_source` is the address that connections to tasks come
    from; `connection_limit` is for this worker alone."""

    cluster_id: ClusterId
    task_source: str
    mesh: Address
    connection_limit: int
    report_period_s: float


class Opened(Struct, frozen=True, kw_only=True, tag=True):
    """Sockets that are bound to these addresses; used from the next Apply on, until they are
    removed. Those of the mesh address are never removed."""

    addresses: tuple[Key, ...]


class Apply(Struct, frozen=True, kw_only=True, tag=True):
    """Listeners that are new or differ from what was applied before, and the ones that are gone.
    Answered by Applied with the same `number`."""

    number: int
    changed: tuple[Listener, ...] = ()
    removed: tuple[Key, ...] = ()


class Drain(Struct, frozen=True, tag=True):
    """Accept nothing more. Open connections go on."""


class Applied(Struct, frozen=True, kw_only=True, tag=True):
    """The Apply of this number is in force, all but `errors` (text for a person)."""

    number: int
    errors: tuple[str, ...] = ()


class Count(Struct, frozen=True, kw_only=True):
    """What has been counted since the worker's start for one service by one way in. `latencies`
    are by bucket, see `skep.netproxy.relay.core.counts`."""

    service_name: str
    way: str
    connections: int = 0
    active: int = 0
    from_client: int = 0
    from_task: int = 0
    ejections: int = 0
    connect_s: float = 0.0
    latencies: tuple[int, ...] = ()
    errors: dict[str, int] = msgspec.field(default_factory=dict)


class Report(Struct, frozen=True, kw_only=True, tag=True):
    """The counts that have changed since the last report, those that were `forgotten`, and what
    the worker holds: `connections` (those that are being made included) and `buffered_bytes`."""

    counts: tuple[Count, ...] = ()
    forgotten: tuple[tuple[str, str], ...] = ()
    connections: int = 0
    buffered_bytes: int = 0


Command = Start | Opened | Apply | Drain
Answer = Applied | Report

M = TypeVar("M", Command, Answer)

encode_message = msgspec.msgpack.Encoder().encode


class FrameError(Exception):
    """What came is no frame of this protocol."""


def frame(message: Command | Answer) -> bytes:
    """The message as it travels."""
    body = encode_message(message)
    assert len(body) <= FRAME_LIMIT_BYTES, len(body)
    return _LENGTH.pack(len(body)) + body


class Frames:
    """Cuts what is received into the bodies of frames."""

    def __init__(self) -> None:
        self._data = bytearray()

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The bodies that are whole by now. Raises FrameError."""
        self._data += data
        while len(self._data) >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._data)
            if length > FRAME_LIMIT_BYTES:
                raise FrameError(f"a frame of {length} bytes")
            end = _LENGTH.size + length
            if len(self._data) < end:
                return
            body = bytes(self._data[_LENGTH.size : end])
            del self._data[:end]
            yield body


_commands: msgspec.msgpack.Decoder[Command] = msgspec.msgpack.Decoder(Command)
_answers: msgspec.msgpack.Decoder[Answer] = msgspec.msgpack.Decoder(Answer)


def read_command(body: bytes) -> Command:
    """A message to a worker. Raises FrameError."""
    try:
        return _commands.decode(body)
    except msgspec.MsgspecError as error:
        raise FrameError(str(error)) from None


def read_answer(body: bytes) -> Answer:
    """A message from a worker. Raises FrameError."""
    try:
        return _answers.decode(body)
    except msgspec.MsgspecError as error:
        raise FrameError(str(error)) from None
