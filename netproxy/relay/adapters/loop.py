"""The event loop of a relay worker: epoll, timers, and nothing else.

Written out because of what it is measured by, new connections per second: asyncio spends as much on
one connection as the kernel does. Sockets of connections are watched edge-triggered, once, from
their first moment to their last, so that a connection costs two calls of epoll_ctl; their handlers
know by themselves whether there may be more to read. `watch` is for everything else, and as simple
as can be.
"""

from __future__ import annotations

import heapq
import itertools
import select
import time
from collections.abc import Callable

READABLE = select.EPOLLIN
WRITABLE = select.EPOLLOUT
ENDED = select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR
FAILED = select.EPOLLERR
# One read mask for all connections: RDHUP says that an end follows what can be read.
WATCH_READING = select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLET
WATCH_BOTH = WATCH_READING | select.EPOLLOUT
# Events per turn, so that timers and what was put off come about in time.
EVENTS_PER_TURN = 512
# Cancelled timers stay in the heap until they are due; more of them than of live ones are removed.
HEAP_SLACK = 1024


class Timer:
    """A call that is to come."""

    __slots__ = ("_loop", "at", "run")

    def __init__(self, loop: Loop, at: float, run: Callable[[], object]) -> None:
        self._loop = loop
        self.at = at
        self.run: Callable[[], object] | None = run

    def cancel(self) -> None:
        """It won't be called; idempotent."""
        if self.run is not None:
            self.run = None
            self._loop.timer_cancelled()


class Loop:
    """Calls what is watched when something happens, until stopped. An exception of a handler ends
    the loop, and with it the process, which the netproxy starts anew."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._handlers: dict[int, Callable[[int], object]] = {}
        self._timers: list[tuple[float, int, Timer]] = []
        self._cancelled = 0
        self._order = itertools.count()
        self._soon: list[Callable[[], object]] = []
        self._is_stopped = False

    def now(self) -> float:
        """Seconds on a clock that only goes forward."""
        return time.monotonic()

    def watch(self, fd: int, on_readable: Callable[[], None]) -> None:
        """Call whenever `fd` can be read, again and again until it has been read."""
        self.attach(fd, lambda _: on_readable(), READABLE)

    def unwatch(self, fd: int) -> None:
        """End what `watch` began; call it before closing. Unknown ones are passed over."""
        if self._handlers.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def call_later(self, delay_s: float, run: Callable[[], object]) -> Timer:
        """Call once, after so many seconds; the answer has `cancel()`."""
        timer = Timer(self, time.monotonic() + delay_s, run)
        heapq.heappush(self._timers, (timer.at, next(self._order), timer))
        return timer

    def soon(self, run: Callable[[], object]) -> None:
        """Call once, after everything else has had its turn."""
        self._soon.append(run)

    def attach(self, fd: int, handler: Callable[[int], object], mask: int) -> None:
        """Call with the events of `fd`. A late event of an earlier file with the same number is
        possible: handlers must bear being called for nothing."""
        self._epoll.register(fd, mask)
        self._handlers[fd] = handler

    def hand_over(self, fd: int, handler: Callable[[int], object]) -> None:
        """Another handler for what is attached. What was told before is not told again."""
        self._handlers[fd] = handler

    def modify(self, fd: int, mask: int) -> None:
        """Other events; those that are there already are told once more."""
        self._epoll.modify(fd, mask)

    def forget(self, fd: int) -> None:
        """`fd` is about to be closed, and no other process has it: that takes it out of epoll."""
        self._handlers.pop(fd, None)

    def timer_cancelled(self) -> None:
        """Called by timers. Keeps the heap in proportion."""
        self._cancelled += 1
        if self._cancelled > HEAP_SLACK and self._cancelled > len(self._timers) // 2:
            self._timers = [entry for entry in self._timers if entry[2].run is not None]
            heapq.heapify(self._timers)
            self._cancelled = 0

    def stop(self) -> None:
        """End after this turn."""
        self._is_stopped = True

    def run(self) -> None:
        """Until `stop` is called."""
        poll, handler_of = self._epoll.poll, self._handlers.get
        while not self._is_stopped:
            for fd, events in poll(self._timeout_s(), EVENTS_PER_TURN):
                handler = handler_of(fd)
                if handler is not None:
                    handler(events)
            if self._soon:
                put_off, self._soon = self._soon, []
                for run in put_off:
                    run()
            if self._timers:
                self._run_due()

    def _timeout_s(self) -> float | None:
        if self._soon:
            return 0.0
        if not self._timers:
            return None
        return max(0.0, self._timers[0][0] - time.monotonic())

    def _run_due(self) -> None:
        now = time.monotonic()
        while self._timers and self._timers[0][0] <= now:
            _, _, timer = heapq.heappop(self._timers)
            run, timer.run = timer.run, None
            if run is None:
                self._cancelled -= 1
            else:
                run()
