"""A loop whose time is virtual and whose order is drawn from a seed.

Nothing here waits: when no callback is ready, time jumps to the next timer. Callbacks that are
ready at the same moment run in an order that the seed decides, so that a hidden dependence on order
shows in some seed, and that seed shows it again.

Every callback belongs to an `Owner` (one life of one simulated process) by way of its context. An
owner can be held, as SIGSTOP would hold it, or killed: then nothing of it ever runs again, not even
its finally-blocks, just as after a power cut.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import enum
import gc
import heapq
import itertools
import logging
import random
import zlib
from collections import deque
from collections.abc import Callable, Coroutine, Generator
from typing import Any, TypeVar

from tests.sim.trace import Trace

T = TypeVar("T")

# Not zero: code that takes an early time for "never" must show.
START_S = 1_000.0
# A finally-block that awaits is closed once more for each await; none of ours has as many.
CLOSE_ATTEMPTS = 20
# Like asyncio's own bookkeeping: rebuilding the heap pays once most of it is cancelled timers.
HEAP_REBUILD_MINIMUM = 200


class WorldHalted(Exception):
    """Nothing is scheduled any more, and the main coroutine still waits."""


class UnhandledErrors(Exception):
    """Errors that nobody looked at: in callbacks, or in tasks that nobody awaited."""


class OwnerState(enum.Enum):
    """Whether an owner's callbacks run."""

    RUNNING = "running"
    HELD = "held"
    DEAD = "dead"


class Owner:
    """One life of one simulated process: all that it scheduled, held or killed as one."""

    def __init__(self, loop: SimulatedLoop, name: str) -> None:
        self.name = name
        self.state = OwnerState.RUNNING
        self.tasks: dict[SimulatedTask[Any], None] = {}
        self._loop = loop
        loop.owners.append(self)
        self._held: list[asyncio.Handle] = []
        self._context = contextvars.Context()
        self._context.run(_OWNER.set, self)

    @property
    def is_dead(self) -> bool:
        """Whether this life has ended."""
        return self.state is OwnerState.DEAD

    def context(self) -> contextvars.Context:
        """A context in which everything that is scheduled belongs to this owner."""
        return self._context.copy()

    def hold(self) -> None:
        """Stop the process as SIGSTOP would: what is due waits."""
        if self.state is OwnerState.RUNNING:
            self.state = OwnerState.HELD

    def resume(self) -> None:
        """Let a held process go on; what was due meanwhile is due now."""
        if self.state is OwnerState.HELD:
            self.state = OwnerState.RUNNING
            held, self._held = self._held, []
            self._loop._ready.extend(held)

    def kill(self) -> None:
        """End this life. Its tasks stay as they are, suspended for good."""
        self.state = OwnerState.DEAD
        self._held.clear()

    def admits(self, handle: asyncio.Handle) -> bool:
        """Whether a due callback may run now; a held owner keeps it for later."""
        if self.state is OwnerState.HELD:
            self._held.append(handle)
        return self.state is OwnerState.RUNNING


_OWNER: contextvars.ContextVar[Owner | None] = contextvars.ContextVar("owner", default=None)


def current_owner() -> Owner | None:
    """The process whose code is running, or None for the world's own."""
    return _OWNER.get()


class SimulatedTask(asyncio.Task[T]):
    """A task that hashes by its number, so that a set of tasks has the same order in each run."""

    def __init__(self, coro: Coroutine[Any, Any, T], *, serial: int, **options: Any) -> None:
        self._serial = serial
        super().__init__(coro, **options)

    def __hash__(self) -> int:
        return self._serial

    def abandon(self) -> None:
        """Give the frames of a suspended task back, without a word and without the loop."""
        self._log_destroy_pending = False
        waited_for = getattr(self, "_fut_waiter", None)
        if waited_for is not None:
            # It was about to learn of an error there; nobody else will.
            waited_for._log_traceback = False
        coro = self.get_coro()
        assert coro is not None
        for _ in range(CLOSE_ATTEMPTS):
            if self.done() or getattr(coro, "cr_frame", None) is None:
                return
            with contextlib.suppress(BaseException):
                coro.close()


class SimulatedLoop(asyncio.BaseEventLoop):
    """See the module's text. `trace`, when set to a detailed one, sees every callback."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.virtual_now = START_S
        self.problems: list[str] = []
        self.owners: list[Owner] = []
        self.step_trace: Trace | None = None
        self.after_each: list[Callable[[], None]] = []
        self.order_digest = 0
        self._order = random.Random(f"order:{seed}")
        self._serials = itertools.count(1)
        self._tasks: dict[SimulatedTask[Any], None] = {}
        self._ready: deque[asyncio.Handle]
        self._scheduled: list[asyncio.TimerHandle]
        self._timer_cancelled_count: int
        self._clock_resolution = 1e-9
        self.set_exception_handler(self._note_problem)

    def time(self) -> float:
        return self.virtual_now

    def create_task(self, coro: Any, *, name: Any = None, context: Any = None, **_: Any) -> Any:
        task: SimulatedTask[Any] = SimulatedTask(
            coro, serial=next(self._serials), loop=self, name=name, context=context
        )
        owner = _OWNER.get() if context is None else context.get(_OWNER)
        place = self._tasks if owner is None else owner.tasks
        place[task] = None
        task.add_done_callback(lambda done: place.pop(done, None), context=contextvars.Context())
        return task

    def run_in_executor(  # type: ignore[override]
        self, executor: Any, func: Any, *args: Any
    ) -> Any:
        raise RuntimeError(f"a thread for {func} would break out of the simulated world")

    def _run_once(self) -> None:
        self._collect_due()
        batch = list(self._ready)
        self._ready.clear()
        if len(batch) > 1:
            self._order.shuffle(batch)
        self.order_digest = zlib.crc32(
            b"%d %.9f" % (len(batch), self.virtual_now), self.order_digest
        )
        for handle in batch:
            if handle._cancelled:
                continue
            owner: Owner | None = handle._context.get(_OWNER)  # type: ignore[attr-defined]
            if owner is None or owner.admits(handle):
                if self.step_trace is not None:
                    self.step_trace.note("step", _describe(handle))
                handle._run()
        for check in self.after_each:
            check()
        # As in asyncio: the last handle must not keep a finished task's frames alive.
        handle = None  # type: ignore[assignment]

    def _collect_due(self) -> None:
        scheduled = self._scheduled
        if self._timer_cancelled_count * 2 > len(scheduled) > HEAP_REBUILD_MINIMUM:
            live = [timer for timer in scheduled if not timer._cancelled]
            for timer in scheduled:
                timer._scheduled = not timer._cancelled  # type: ignore[attr-defined]
            heapq.heapify(live)
            self._scheduled = scheduled = live
            self._timer_cancelled_count = 0
        while scheduled and (scheduled[0]._cancelled or not self._is_later(scheduled[0])):
            timer = heapq.heappop(scheduled)
            timer._scheduled = False  # type: ignore[attr-defined]
            if timer._cancelled:
                self._timer_cancelled_count -= 1
            else:
                self._ready.append(timer)

        if not self._ready:
            raise WorldHalted("nothing is scheduled: the simulated world has come to a halt")

    def _is_later(self, timer: asyncio.TimerHandle) -> bool:
        """Whether a timer lies ahead; with nothing else to do, time jumps to it."""
        if timer.when() <= self.virtual_now:
            return False
        if self._ready:
            return True
        self.virtual_now = timer.when()
        return False

    def _write_to_self(self) -> None:
        pass

    def _note_problem(self, _: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        about = context.get("task") or context.get("future") or context.get("handle")
        name = about.get_name() if isinstance(about, asyncio.Task) else type(about).__name__
        self.problems.append(f"{context['message']}: {name}: {error!r}")
        del error, about

    def dispose(self) -> None:
        """End the world: owners' tasks are dropped as they stand, the others are cancelled."""
        for owner in self.owners:
            owner.kill()
        leftover = list(self._tasks)
        for task in leftover:
            task.cancel()
        if leftover:
            self.run_until_complete(_settle(leftover))
        # What finally-blocks still say of a world that is gone is nobody's news.
        disabled = logging.root.manager.disable
        logging.disable(logging.CRITICAL)
        for owner in self.owners:
            for task in list(owner.tasks):
                task.abandon()
            owner.tasks.clear()
        logging.disable(disabled)
        self.close()


async def _settle(tasks: list[SimulatedTask[Any]]) -> None:
    await asyncio.gather(*tasks, return_exceptions=True)


def _describe(handle: asyncio.Handle) -> str:
    callback = handle._callback  # type: ignore[attr-defined]
    if callback is None:
        return "-"
    of = getattr(callback, "__self__", None)
    if isinstance(of, asyncio.Task):
        return of.get_name()
    return getattr(callback, "__qualname__", type(callback).__name__)


@contextlib.contextmanager
def _quiet_collector() -> Generator[None]:
    """Collect cycles only at the end: when they go must not depend on what ran before."""
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.collect()
        gc.enable()
        gc.unfreeze()


def run(seed: int, main: Coroutine[Any, Any, T]) -> T:
    """The result of `main` in a world of its own.

    Raises what `main` raises, WorldHalted, or UnhandledErrors for errors that nobody looked at.
    """
    loop = SimulatedLoop(seed)
    with _quiet_collector():
        try:
            result = loop.run_until_complete(main)
        finally:
            loop.dispose()
    if loop.problems:
        raise UnhandledErrors("\n".join(loop.problems))
    return result
