"""Reading a container's output from its engine.

What is there already comes by one request that ends; a reader that follows goes on with another,
which stays open. When that one ends (with its container, with the engine, or for no reason), what
may have been missed is read from where the reader stood, and that decides whether there is an end.
So an engine's restart costs a follower nothing.
"""

from __future__ import annotations

import enum

import aiodocker
import aiohttp
import msgspec

from skep.domain.base import SECOND_NS, Pairs
from skep.domain.control import LogLine
from skep.env import Env, Rejected, Retryable
from skep.worker.engine.core.lines import read_position, write_position
from skep.worker.engine.docker.adapters.request import (
    ANSWER_SILENCE_S,
    Request,
    begin,
    broken,
    read,
)
from skep.worker.engine.docker.core.frames import Frames, TerminalFrames
from skep.worker.engine.docker.core.loglines import LogLines, Mark
from skep.worker.engine.protocol import LogChunk, LogQuery

# As the process engine's: a page must not hold the loop for more than a millisecond.
PAGE_BYTES = 32 * 1024
PAGE_LINES = 200
# Between two looks at a container that writes nothing and hasn't ended, such as one that has yet to
# be started, and at an engine that is away.
RETRY_S = 0.5
_NOT_FOUND = 404
# What engines answer for a driver that keeps nothing here.
_UNREADABLE = 501
_UNREADABLE_WORDS = "does not support reading"


class _Phase(enum.Enum):
    """What is being read."""

    NOTHING = "nothing: history is to be read next"
    HISTORY = "what is there"
    FOLLOWED = "what comes"
    QUIET = "nothing, for a moment"
    END = "nothing any more"


class _State(msgspec.Struct, frozen=True, rename="pascal"):
    status: str = ""


class _Config(msgspec.Struct, frozen=True, rename="pascal"):
    tty: bool = False


class _LogConfig(msgspec.Struct, frozen=True, rename="pascal"):
    type: str = ""


class _HostConfig(msgspec.Struct, frozen=True, rename="pascal"):
    log_config: _LogConfig = _LogConfig()


class _Container(msgspec.Struct, frozen=True, rename="pascal"):
    id: str
    state: _State = _State()
    config: _Config = _Config()
    host_config: _HostConfig = _HostConfig()

    @property
    def is_over(self) -> bool:
        """Whether it writes no more, ever."""
        return self.state.status in ("exited", "dead", "removing")


class ContainerLog:
    """See `skep.worker.engine.protocol.LogReader`. Made by `open_log`."""

    def __init__(self, docker: aiodocker.Docker, env: Env, container: str, query: LogQuery) -> None:
        self._docker = docker
        self._env = env
        self._container = container
        self._query = query
        place = read_position(query.position)
        self._has_begun = place is not None
        self._lines = LogLines(Mark(*(place or (query.since_ns or 0, 0))))
        self._frames: Frames | TerminalFrames = Frames()
        self._phase = _Phase.NOTHING
        self._is_over = False
        self._response: aiohttp.ClientResponse | None = None

    async def open(self) -> None:
        """Read the first lines, which is where it begins. Raises Rejected for a container that
        isn't there or whose output can't be read, Retryable."""
        asked_ns = self._env.wall()
        try:
            await self._begin_history()
            await self._fill()
        except BaseException:
            self.close()
            raise
        if not self._has_begun:
            # Where nothing is there as yet, whatever comes has a later time than the question.
            ready = self._lines.ready
            first_ns = ready[0].mark.time_ns if ready else max(asked_ns, self._lines.mark.time_ns)
            self._lines.mark = Mark(first_ns)
            self._has_begun = True

    @property
    def position(self) -> str:
        """See `LogReader.position`."""
        return write_position((self._lines.mark.time_ns, self._lines.mark.count))

    async def read(self) -> LogChunk:
        """See `LogReader.read`."""
        try:
            if self._phase is _Phase.NOTHING:
                await self._begin_history()
            await self._fill()
        except Retryable:
            if not self._query.is_follow:
                raise
            self._rest()
        lines: list[LogLine] = []
        size = 0
        while self._lines.ready and size < PAGE_BYTES and len(lines) < PAGE_LINES:
            line = self._lines.pop()
            lines.append(line)
            size += len(line.text)
        is_end = self._phase is _Phase.END and not lines
        return LogChunk(lines=tuple(lines), position=self.position, is_end=is_end)

    async def more(self) -> None:
        """See `LogReader.more`."""
        while not self._lines.ready:
            match self._phase:
                case _Phase.FOLLOWED:
                    try:
                        await self._take_some()
                    except Retryable:
                        self._rest()
                case _Phase.QUIET:
                    await self._env.clock.sleep(RETRY_S)
                    self._phase = _Phase.NOTHING
                case _:
                    return

    def close(self) -> None:
        """See `LogReader.close`."""
        if self._response is not None:
            self._response.close()
            self._response = None

    async def _fill(self) -> None:
        """Get a page of what is there already, or all of it. What comes isn't waited for."""
        while self._phase is _Phase.HISTORY and len(self._lines.ready) < PAGE_LINES:
            await self._take_some()

    async def _take_some(self) -> None:
        """Take what the stream has next. Safe to cancel."""
        if self._phase is _Phase.FOLLOWED and self._response is None:
            await self._request(is_follow=True)
        assert self._response is not None
        try:
            data = await self._response.content.readany()
        except (TimeoutError, aiohttp.ClientError) as error:
            raise broken(Request("logs"), error) from error
        if data:
            for message in self._frames.take(data):
                self._lines.take(message)
        else:
            self._ended()

    def _ended(self) -> None:
        """The present stream is at its end."""
        self.close()
        if self._phase is _Phase.FOLLOWED:
            self._rest()
            return
        for message in self._frames.rest():
            self._lines.take(message)
        is_final = self._is_over or not self._query.is_follow
        self._lines.finish(is_final=is_final)
        self._phase = _Phase.END if is_final else _Phase.FOLLOWED

    def _rest(self) -> None:
        """Look again in a moment."""
        self.close()
        self._phase = _Phase.QUIET

    async def _begin_history(self) -> None:
        container = await self._inspect()
        if container is None:
            if not self._has_begun:
                raise Rejected("its container is gone, and its output with it")
            self._phase = _Phase.END
            return
        self._is_over = container.is_over
        self._is_tty = container.config.tty
        self._driver = container.host_config.log_config.type
        await self._request(is_follow=False)
        self._phase = _Phase.HISTORY

    async def _inspect(self) -> _Container | None:
        try:
            answer = await read(self._docker, f"containers/{self._container}/json")
        except aiodocker.DockerError as error:
            if error.status == _NOT_FOUND:
                return None
            raise Retryable(f"its output: {error.message}") from error
        return msgspec.json.decode(answer, type=_Container)

    async def _request(self, *, is_follow: bool) -> None:
        self.close()
        request = Request(
            f"containers/{self._container}/logs",
            params=self._params(is_follow=is_follow),
            silence_s=None if is_follow else ANSWER_SILENCE_S,
        )
        self._lines.read_anew()
        self._frames = TerminalFrames() if self._is_tty else Frames()
        try:
            self._response = await begin(self._docker, request)
        except aiodocker.DockerError as error:
            if error.status == _UNREADABLE or _UNREADABLE_WORDS in error.message:
                raise Rejected(
                    f"its log driver {self._driver!r} keeps no output on its node; read it where "
                    "that driver sends it"
                ) from error
            raise Retryable(f"its output: {error.message}") from error

    def _params(self, *, is_follow: bool) -> Pairs:
        params = {"stdout": "1", "stderr": "1", "timestamps": "1", "follow": str(int(is_follow))}
        if self._has_begun or is_follow or self._query.since_ns is not None:
            seconds, rest = divmod(self._lines.mark.since_ns, SECOND_NS)
            params["since"] = f"{seconds}.{rest:09}"
        if not self._has_begun and not is_follow and self._query.tail is not None:
            params["tail"] = str(self._query.tail)
        return tuple(params.items())


async def open_log(
    docker: aiodocker.Docker, env: Env, container: str, query: LogQuery
) -> ContainerLog:
    """A reader of one container's output. Raises Rejected where there is none to be had,
    Retryable."""
    log = ContainerLog(docker, env, container, query)
    await log.open()
    return log


__all__ = ["ContainerLog", "open_log"]
