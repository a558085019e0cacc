"""Programs run inside tasks, from the client's side."""

from __future__ import annotations

from skep.api import codec
from skep.client.calls import DELAY_LIMIT_S, FIRST_DELAY_S, Caller
from skep.client.errors import OutcomeUnknown, ServerError, Unavailable, from_call
from skep.domain.base import Struct
from skep.domain.control import LogStream
from skep.domain.execution import (
    ExecInput,
    ExecMessage,
    ExecOutput,
    ExecRequest,
    ExecSpec,
    TerminalSize,
)
from skep.env import CallError, Rejected, Stream, StreamBroken

SERVICE = "skep.v1.Execution"
_GONE = "the connection is lost, and with it the program"


class ExecResult(Struct, frozen=True, kw_only=True):
    """How a program ended that was run inside a task, and all that it wrote. `exit_code` is
    128 + signal for one that a signal ended."""

    exit_code: int
    stdout: bytes = b""
    stderr: bytes = b""


class Execution:
    """A program that runs inside a task. It is killed when this is closed before its end."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self.exit_code: int | None = None

    async def send(self, data: bytes) -> None:
        """More input. Raises OutcomeUnknown when the connection is lost."""
        await self._send(ExecInput(data=data))

    async def end_input(self) -> None:
        """There is no more input."""
        await self._send(ExecInput(is_end=True))

    async def resize(self, rows: int, columns: int) -> None:
        """Its terminal has this size now, in characters."""
        await self._send(ExecInput(size=TerminalSize(rows=rows, columns=columns)))

    async def receive(self) -> ExecOutput | None:
        """Some of its output; None after its end, when `exit_code` is known. Raises Refused for a
        program that could not be started, and OutcomeUnknown when the connection is lost."""
        while self.exit_code is None:
            told = await _received(self._stream)
            self.exit_code = told.exit_code
            if told.data:
                return told
        return None

    async def close(self) -> None:
        """Let go of it; idempotent."""
        await self._stream.close()

    async def _send(self, given: ExecInput) -> None:
        try:
            await self._stream.send(codec.encode(ExecMessage(input=given)))
        except CallError as error:
            raise from_call(error) from None
        except StreamBroken as error:
            raise OutcomeUnknown(f"{_GONE}: {error}") from None


async def execute(caller: Caller, task: str, spec: ExecSpec) -> Execution:
    """See `Tasks.start_exec`."""
    request = ExecMessage(request=ExecRequest(task=task, spec=spec))
    ends_at = caller.clock.now() + caller.deadline_s
    delay_s = FIRST_DELAY_S
    while True:
        stream = await caller.open("Exec", request, service=SERVICE)
        try:
            await _received(stream)
            return Execution(stream)
        except Unavailable:
            # Nothing was done: there is no leader as yet, or its node is late.
            await stream.close()
            if caller.clock.now() >= ends_at:
                raise
            caller.turn_away()
            await caller.clock.sleep(delay_s)
            delay_s = min(2 * delay_s, DELAY_LIMIT_S)
        except BaseException:
            await stream.close()
            raise


async def run(caller: Caller, task: str, spec: ExecSpec) -> ExecResult:
    """See `Tasks.exec`."""
    execution = await execute(caller, task, spec)
    parts: dict[LogStream, list[bytes]] = {stream: [] for stream in LogStream}
    try:
        while (told := await execution.receive()) is not None:
            parts[told.stream].append(told.data)
    finally:
        await execution.close()
    assert execution.exit_code is not None
    return ExecResult(
        exit_code=execution.exit_code,
        stdout=b"".join(parts[LogStream.STDOUT]),
        stderr=b"".join(parts[LogStream.STDERR]),
    )


async def _received(stream: Stream) -> ExecOutput:
    try:
        frame = await stream.receive()
    except CallError as error:
        raise from_call(error) from None
    except StreamBroken as error:
        raise OutcomeUnknown(f"{_GONE}: {error}") from None
    if frame is None:
        raise OutcomeUnknown(_GONE)
    try:
        return codec.decode(ExecOutput, frame)
    except Rejected as error:
        raise ServerError(f"the program's output can't be read: {error}") from None
