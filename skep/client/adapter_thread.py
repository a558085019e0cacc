"""A loop on a thread of its own, for callers without one: what `skep.client.sync` is built on.

One rule keeps it free of deadlocks: the loop's thread runs no code of the caller's. What a caller
hands over to be called back is called in the caller's own thread, and may use the client itself.
"""

from __future__ import annotations

import asyncio
import collections
import concurrent.futures
import contextlib
import enum
import os
import threading
import weakref
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine, Generator
from typing import Any, Generic, TypeVar

N = TypeVar("N")
T = TypeVar("T")

# Enough to keep a reader busy while more is under way; a slower one slows its stream down.
ROOM = 64

# Of what a callback is told, the newest; it must not pile up behind one that takes its time.
NEWS_KEPT = 64

# Cancelled calls end within milliseconds. Whatever doesn't must not keep a program from ending.
CLOSE_LIMIT_S = 5.0

Goodbye = Callable[[], Awaitable[None]]


class _Phase(enum.Enum):
    OPEN = "open"
    CLOSED = "closed"
    # The interpreter ends: what daemon threads still wait for comes no more.
    EXITING = "exiting"


class _Shared:
    """What the thread and its owner both hold, so that the thread doesn't keep its owner alive."""

    def __init__(self, goodbye: Goodbye) -> None:
        self.loop = asyncio.new_event_loop()
        self.loop.set_exception_handler(_report)
        self.goodbye = goodbye
        self.ending = asyncio.Event()
        self.phase = _Phase.OPEN
        self.pid = os.getpid()
        # Between the look at the phase and the handing over, the loop must not end. Reentrant:
        # the collector may close a forgotten iterator at any line, also of a thread that has it.
        self.lock = threading.RLock()
        self.thread = threading.Thread(target=_serve, args=(self,), name="skep-client", daemon=True)


class _Call(Generic[T]):
    """A coroutine made in one thread and run in the loop's. It is here before it is handed over,
    so that there is something to cancel at whatever line Ctrl-C comes."""

    def __init__(self, coroutine: Coroutine[Any, Any, T]) -> None:
        self.future: concurrent.futures.Future[T] = concurrent.futures.Future()
        self._coroutine = coroutine
        self._task: asyncio.Task[T] | None = None

    def begin(self) -> None:
        """In the loop's thread: run it."""
        self._task = asyncio.get_running_loop().create_task(self._coroutine)
        self._task.add_done_callback(self._finish)

    def cancel(self) -> None:
        """In the loop's thread, or where it was never handed over: see that it ends."""
        if self._task is None:
            self._coroutine.close()
        else:
            self._task.cancel()

    def _finish(self, task: asyncio.Task[T]) -> None:
        if task.cancelled():
            self.future.cancel()
        elif (error := task.exception()) is not None:
            self.future.set_exception(error)
        else:
            self.future.set_result(task.result())


class LoopThread:
    """Runs coroutines for other threads, any number at once. `goodbye` is awaited at the end,
    when nothing else runs any more."""

    def __init__(self, goodbye: Goodbye) -> None:
        self._shared = _Shared(goodbye)
        self._shared.thread.start()
        self._finalizer = weakref.finalize(self, _abandon, self._shared)

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """The coroutine's result. Whatever interrupts the wait (KeyboardInterrupt) cancels it.
        Raises RuntimeError after `close` and after a fork."""
        call = _Call(coroutine)
        try:
            self._hand_over(call)
            return call.future.result()
        except concurrent.futures.CancelledError:
            raise self._ended() from None
        finally:
            self._let_go(call)

    def run_telling(
        self,
        start: Callable[[Callable[[N], None]], Coroutine[Any, Any, T]],
        tell: Callable[[N], None] | None,
    ) -> T:
        """The result of the coroutine that `start` makes; what it passes to the function it is
        given goes to `tell`, in this thread. What `tell` raises ends it. Raises as `run`."""
        news: collections.deque[N] = collections.deque(maxlen=NEWS_KEPT)
        changed = threading.Event()

        def note(item: N) -> None:
            news.append(item)
            changed.set()

        with contextlib.closing(self._taking(_Call(start(note)), news, changed)) as taking:
            while True:
                try:
                    item = next(taking)
                except StopIteration as end:
                    result: T = end.value
                    return result
                if tell is not None:
                    tell(item)

    def iterate(self, source: AsyncIterator[N]) -> Generator[N, None, None]:
        """What `source` yields, fetched a little ahead; begun at the first `next`. Closing this
        generator, as leaving a `for` does, closes the source. Raises as `run`."""
        items: collections.deque[N] = collections.deque()
        changed = threading.Event()
        room = asyncio.Semaphore(ROOM)

        async def pump() -> None:
            try:
                async for item in source:
                    await room.acquire()
                    items.append(item)
                    changed.set()
            finally:
                if isinstance(source, AsyncGenerator):
                    await source.aclose()

        with contextlib.closing(self._taking(_Call(pump()), items, changed)) as taking:
            for item in taking:
                self._in_loop(room.release)
                yield item

    def close(self) -> None:
        """Cancel what runs, say goodbye and end the thread; idempotent, and harmless in a fork."""
        self._finalizer.detach()
        _end(self._shared, _Phase.CLOSED)
        _join(self._shared)

    def _taking(
        self, call: _Call[T], items: collections.deque[N], changed: threading.Event
    ) -> Generator[N, None, T]:
        """Each of the items as they come, then the call's result."""
        call.future.add_done_callback(lambda _: changed.set())
        try:
            self._hand_over(call)
            while True:
                changed.wait()
                changed.clear()
                # In this order: what came before the end must not be left behind.
                is_done = call.future.done()
                while items:
                    yield items.popleft()
                    self._check_fork()
                if is_done:
                    return call.future.result()
        except concurrent.futures.CancelledError:
            raise self._ended() from None
        finally:
            self._let_go(call)

    def _hand_over(self, call: _Call[T]) -> None:
        try:
            self._check_fork()
        except RuntimeError:
            call.cancel()
            raise
        if not self._in_loop(call.begin):
            call.cancel()
            raise self._ended()

    def _let_go(self, call: _Call[T]) -> None:
        # In a fork the loop is a copy that nobody runs, but its descriptors are the parent's.
        if not call.future.done() and os.getpid() == self._shared.pid:
            self._in_loop(call.cancel)

    def _in_loop(self, action: Callable[[], None]) -> bool:
        """Have the loop's thread do it; False once the end has begun, which cancels everything."""
        with self._shared.lock:
            is_open = self._shared.phase is _Phase.OPEN
            if is_open:
                self._shared.loop.call_soon_threadsafe(action)
        return is_open

    def _check_fork(self) -> None:
        if os.getpid() != self._shared.pid:
            raise RuntimeError(
                "this connection belongs to the process that this one was forked from; "
                "fork first and connect then, or start processes by spawn"
            )

    def _ended(self) -> BaseException:
        if self._shared.phase is _Phase.EXITING:
            # Ends a daemon thread without a word; nobody is left to read a traceback.
            return SystemExit()
        return RuntimeError("this connection is closed")


def _serve(shared: _Shared) -> None:
    """The thread's life."""
    asyncio.set_event_loop(shared.loop)
    try:
        shared.loop.run_until_complete(_until_ended(shared))
    finally:
        shared.loop.close()


async def _until_ended(shared: _Shared) -> None:
    await shared.ending.wait()
    me = asyncio.current_task()
    while others := [task for task in asyncio.all_tasks() if task is not me]:
        for task in others:
            task.cancel()
        _, stuck = await asyncio.wait(others, timeout=CLOSE_LIMIT_S)
        if stuck:
            break
    await shared.goodbye()
    await shared.loop.shutdown_asyncgens()


def _abandon(shared: _Shared) -> None:
    """Nobody holds the connection any more, or the interpreter ends."""
    # Before interpreters call what was registered for their end, they mark the main thread so.
    is_exit = not threading.main_thread().is_alive()
    _end(shared, _Phase.EXITING if is_exit else _Phase.CLOSED)
    if is_exit:
        # Elsewhere this may be any thread at any line, which must not wait.
        _join(shared)


def _end(shared: _Shared, phase: _Phase) -> None:
    if os.getpid() != shared.pid:
        return
    with shared.lock:
        if shared.phase is not _Phase.OPEN:
            return
        shared.phase = phase
        shared.loop.call_soon_threadsafe(shared.ending.set)


def _join(shared: _Shared) -> None:
    if os.getpid() == shared.pid and threading.current_thread() is not shared.thread:
        shared.thread.join(2 * CLOSE_LIMIT_S)


def _report(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """All but one thing: gRPC wakes every loop of the process for each event, and those that come
    too late to take it find nothing to read."""
    if not isinstance(context.get("exception"), BlockingIOError):
        loop.default_exception_handler(context)
