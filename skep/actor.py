"""The shell round a core: a bounded inbox, one message at a time, effects carried out in order.

An actor is three pieces. The `Mailbox` is where others leave messages; it outlives the actor, so
that a restart neither loses what waits nor repeats what was begun. The `Actor` handles one message
after the other. Who restarts it is in `skep.supervisor`.

A message that an actor dies over counts as handled: it is not delivered again, since nobody knows
how far it got. Truth lives in the store, and the next incarnation starts from there.
"""

from __future__ import annotations

import asyncio
import enum
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from skep.env import Env, Retryable

M = TypeVar("M")
T = TypeVar("T")
K = TypeVar("K", bound=Hashable)

# Deep enough for a burst from a thousand nodes; more would only hide that the actor is behind.
DEFAULT_INBOX_LIMIT = 4096


class InboxFull(Retryable):
    """The actor is behind; slow down and try again."""


class Overflow(enum.Enum):
    """What a full inbox does with one more message."""

    REFUSE = "refuse"  # `tell` raises InboxFull
    WAIT = "wait"  # `put` waits for room; `tell` raises InboxFull
    COALESCE = "coalesce"  # a waiting message of the same key is replaced, so it can't overflow
    # by repetition; distinct keys beyond the limit are refused


class Mailbox(Generic[M]):
    """A bounded inbox with a stated policy.

    With COALESCE, `key` says which messages stand for the same thing: the newest replaces the one
    that waits, at the place in the queue where that one stood.
    """

    def __init__(
        self,
        name: str,
        limit: int = DEFAULT_INBOX_LIMIT,
        overflow: Overflow = Overflow.REFUSE,
        key: Callable[[M], Hashable] | None = None,
    ) -> None:
        assert limit > 0
        assert (key is not None) == (overflow is Overflow.COALESCE)
        self.name = name
        self.limit = limit
        self._overflow = overflow
        self._key = key
        self._waiting: OrderedDict[Hashable, M] = OrderedDict()
        self._serial = 0
        self._takers: deque[asyncio.Future[None]] = deque()
        self._givers: deque[asyncio.Future[None]] = deque()
        self.deepest = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def tell(self, message: M) -> None:
        """Leave a message; never waits. Raises InboxFull."""
        key = self._key_of(message)
        if key not in self._waiting and len(self._waiting) >= self.limit:
            raise InboxFull(f"{self.name}: {self.limit} messages are waiting")
        self._waiting[key] = message
        self.deepest = max(self.deepest, len(self._waiting))
        _wake_one(self._takers)

    async def put(self, message: M) -> None:
        """Leave a message, waiting for room; only where the policy is WAIT."""
        assert self._overflow is Overflow.WAIT, self.name
        while len(self._waiting) >= self.limit:
            await self._wait_in(self._givers)
        self.tell(message)

    async def take(self) -> M:
        """The oldest message, once there is one. Cancelling this loses nothing."""
        while not self._waiting:
            await self._wait_in(self._takers)
        _, message = self._waiting.popitem(last=False)
        _wake_one(self._givers)
        return message

    def _key_of(self, message: M) -> Hashable:
        if self._key is not None:
            return self._key(message)
        self._serial += 1
        return self._serial

    async def _wait_in(self, queue: deque[asyncio.Future[None]]) -> None:
        future: asyncio.Future[None] = asyncio.Future()
        queue.append(future)
        try:
            await future
        except asyncio.CancelledError:
            if future in queue:
                queue.remove(future)
            elif not future.cancelled():
                # It was this waiter's turn; whoever is next must not sleep through it.
                _wake_one(queue)
            raise


def _wake_one(queue: deque[asyncio.Future[None]]) -> None:
    while queue:
        future = queue.popleft()
        if not future.done():
            future.set_result(None)
            return


class Reply(Generic[T]):
    """Where the answer to an `ask` goes. Answering twice, or too late, is harmless."""

    def __init__(self) -> None:
        self._future: asyncio.Future[T] = asyncio.Future()

    def set(self, answer: T) -> None:
        """Answer."""
        if not self._future.done():
            self._future.set_result(answer)

    def fail(self, error: BaseException) -> None:
        """Answer with an error."""
        if not self._future.done():
            self._future.set_exception(error)

    async def wait(self) -> T:
        """The answer, or the error raised."""
        return await self._future


async def ask(env: Env, mailbox: Mailbox[M], make: Callable[[Reply[T]], M], deadline_s: float) -> T:
    """Send the message that `make` builds round a reply, and wait for the answer.

    Raises TimeoutError after `deadline_s` (the message may still be handled), InboxFull, or what
    the actor answered with.
    """
    reply: Reply[T] = Reply()
    mailbox.tell(make(reply))
    return await env.clock.within(deadline_s, reply.wait())


@dataclass
class ActorStats:
    """What metrics show of an actor."""

    handled: int = 0
    restarts: int = 0


class Actor(Generic[M]):
    """One message at a time. Subclasses say what a message does in `handle`.

    An exception out of `handle` ends this incarnation; the supervisor decides what follows.
    """

    def __init__(self, env: Env, mailbox: Mailbox[M]) -> None:
        self.env = env
        self.mailbox = mailbox
        self.stats = ActorStats()

    async def started(self) -> None:
        """Runs before the first message: load what is needed from the store."""

    async def stopped(self) -> None:
        """Runs after the last message, whatever ended it: cancel timers, close what is open."""

    async def handle(self, message: M) -> None:
        """Do what one message asks."""
        raise AssertionError("handle must be defined")

    async def run(self) -> None:
        """Handle messages until cancelled."""
        try:
            await self.started()
            while True:
                message = await self.mailbox.take()
                await self.env.turn()
                self.stats.handled += 1
                await self.handle(message)
        finally:
            await self.stopped()


@dataclass
class _KeyState:
    is_running: bool = False
    is_hinted: bool = False


@dataclass
class KeyedQueue(Generic[K]):
    """Work by key: many hints for one key are one run, and one key never runs twice at once.

    `work(key)` is called for each hinted key, up to `width` keys at a time. A hint that comes
    while its key runs makes it run once more afterwards. An error of `work` goes to `on_error`
    and the key is forgotten; who hints it again, retries.
    """

    env: Env
    name: str
    work: Callable[[K], Awaitable[None]]
    on_error: Callable[[K, Exception], None]
    width: int = 1
    _keys: dict[K, _KeyState] = field(default_factory=dict)
    _ready: deque[K] = field(default_factory=deque)
    _running: set[asyncio.Task[None]] = field(default_factory=set)
    _is_closed: bool = False

    def __len__(self) -> int:
        return len(self._keys)

    def hint(self, key: K) -> None:
        """Something about `key` may have changed."""
        state = self._keys.setdefault(key, _KeyState())
        if state.is_hinted or self._is_closed:
            return
        state.is_hinted = True
        if not state.is_running:
            self._ready.append(key)
            self._start_some()

    def close(self) -> None:
        """Cancel what runs and take no more hints."""
        self._is_closed = True
        for task in tuple(self._running):
            task.cancel()

    def _start_some(self) -> None:
        while self._ready and len(self._running) < self.width:
            key = self._ready.popleft()
            self._keys[key] = _KeyState(is_running=True)
            task = self.env.spawn(f"{self.name}:{key}", self._run_one(key))
            self._running.add(task)
            task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        if not self._is_closed:
            self._start_some()

    async def _run_one(self, key: K) -> None:
        try:
            await self.env.turn()
            # Whatever was hinted until now, this run sees.
            self._keys[key].is_hinted = False
            await self.work(key)
        except Exception as error:
            self.on_error(key, error)
        finally:
            state = self._keys.pop(key)
            if state.is_hinted and not self._is_closed:
                self._keys[key] = _KeyState(is_hinted=True)
                self._ready.append(key)
