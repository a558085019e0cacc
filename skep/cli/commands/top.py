"""`skep top`: a cluster's state on a board that follows it."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Coroutine, Iterator

from skep import client
from skep.cli import contextfile, session
from skep.cli.board import State, render
from skep.cli.changes import Change, Sight
from skep.cli.commands.events import read_all
from skep.cli.screen import Screen
from skep.client import Cluster
from skep.domain.control import ServiceView
from skep.domain.objects import Node, Task

# What a person can follow, and a manager answers without noticing.
DRAW_PERIOD_S = 0.25
# Durations on the board grow also where nothing happens.
QUIET_PERIOD_S = 1.0
LOOK_DEADLINE_S = 1.5
RETRY_DELAY_S = 1.0
# As many as a tall terminal has lines; those that happened before the board was there, too.
CHANGES_SHOWN = 100

_UNREACHABLE = (client.Unavailable, client.OutcomeUnknown)


def top(options: argparse.Namespace) -> None:
    """Show the board until its user ends it; elsewhere than on a terminal, show it once."""
    target = contextfile.target(options)
    title = target.context or (target.cluster if target.managers is None else "cluster")

    async def script(cluster: Cluster) -> None:
        if options.once or not can_be_live():
            await once(cluster, title)
        else:
            await live(cluster, title, "q ends this")

    session.run(options, script)


def can_be_live() -> bool:
    """Whether there is a terminal that can show a board."""
    return sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb"


async def once(cluster: Cluster, title: str) -> None:
    """Print the board as plain text."""
    look = _Look(cluster, title, "")
    look.sight = Sight((await read_all(cluster))[1])
    await look.refresh()
    print("\n".join(render(look.state())))


async def live(cluster: Cluster, title: str, hint: str) -> None:
    """Show the board until its user ends it. A signal that ends the process does so after the
    terminal is as it was."""
    look = _Look(cluster, title, hint)
    stop = asyncio.Event()
    ended_by: list[signal.Signals] = []
    is_coloured = not os.environ.get("NO_COLOR")

    with Screen() as screen:

        def draw() -> None:
            columns, lines = screen.size()
            screen.draw(render(look.state(), columns, lines, is_coloured=is_coloured))

        def end(by: signal.Signals) -> None:
            ended_by.append(by)
            stop.set()

        def suspend() -> None:
            screen.leave()
            os.kill(os.getpid(), signal.SIGSTOP)
            # Here it goes on, once it is in the foreground again.
            screen.enter()
            draw()

        def typed() -> None:
            keys = screen.keys()
            if not keys or set(keys) & set(b"qQ\x03\x04"):
                stop.set()

        handlers: dict[signal.Signals, Callable[[], None]] = {
            signal.SIGINT: stop.set,
            signal.SIGTERM: lambda: end(signal.SIGTERM),
            signal.SIGHUP: lambda: end(signal.SIGHUP),
            signal.SIGTSTP: suspend,
            signal.SIGWINCH: draw,
        }
        with _handling(handlers), _reading(screen, typed):
            await _until(stop, look.follow(), look.paint(draw))
    for by in ended_by:
        signal.signal(by, signal.SIG_DFL)
        os.kill(os.getpid(), by)


async def _until(stop: asyncio.Event, *work: Coroutine[None, None, None]) -> None:
    """Do this work until the user has had enough; its errors are the caller's."""
    tasks = [asyncio.create_task(each) for each in (*work, stop.wait())]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in done:
        task.result()


@contextlib.contextmanager
def _handling(handlers: dict[signal.Signals, Callable[[], None]]) -> Iterator[None]:
    loop = asyncio.get_running_loop()
    for number, handler in handlers.items():
        loop.add_signal_handler(number, handler)
    try:
        yield
    finally:
        for number in handlers:
            loop.remove_signal_handler(number)


@contextlib.contextmanager
def _reading(screen: Screen, typed: Callable[[], None]) -> Iterator[None]:
    loop = asyncio.get_running_loop()
    if not screen.has_keys:
        yield
        return
    loop.add_reader(sys.stdin.fileno(), typed)
    try:
        yield
    finally:
        loop.remove_reader(sys.stdin.fileno())


class _Look:
    """What is known of the cluster, kept up to date."""

    def __init__(self, cluster: Cluster, title: str, hint: str) -> None:
        self._cluster = cluster
        self._title = title
        self._hint = hint
        self._views: tuple[ServiceView, ...] = ()
        self._leader = ""
        self._changes: deque[Change] = deque(maxlen=CHANGES_SHOWN)
        self._changed = asyncio.Event()
        self._trouble = "asking the managers"
        self.sight = Sight()

    def state(self) -> State:
        """What there is to show."""
        return State(
            title=self._title,
            now_ns=time.time_ns(),
            leader=self._leader,
            views=self._views,
            nodes=tuple(self.sight.all(Node)),
            tasks=tuple(self.sight.all(Task)),
            changes=tuple(self._changes),
            trouble=self._trouble,
            hint=self._hint,
        )

    async def follow(self) -> None:
        """Take in every change, for good; a cluster that can't be reached is asked again."""
        seen: int | None = None
        while True:
            try:
                version, rows = await read_all(self._cluster)
                self.sight.read(rows)
                self._changed.set()
                begin = max(0, version - CHANGES_SHOWN) if seen is None else seen
                async for event in self._cluster.watch(from_version=begin):
                    if event.is_resync:
                        self.sight.read((await read_all(self._cluster))[1])
                    elif (change := self.sight.take(event, has_steps=False)) is not None:
                        self._changes.append(change)
                    seen = event.version
                    if event.action is not None or event.is_resync:
                        self._changed.set()
            except _UNREACHABLE as error:
                self._trouble = str(error)
                await asyncio.sleep(RETRY_DELAY_S)

    async def paint(self, draw: Callable[[], None]) -> None:
        """Draw when something has changed, but not more often than one can follow."""
        loop = asyncio.get_running_loop()
        draw()
        while True:
            self._changed.clear()
            began = loop.time()
            await self._refresh_in_sight(draw)
            draw()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), QUIET_PERIOD_S)
            await asyncio.sleep(max(0.0, began + DRAW_PERIOD_S - loop.time()))

    async def _refresh_in_sight(self, draw: Callable[[], None]) -> None:
        """Refresh; a board that waits for an answer says so, and its clock goes on."""
        refreshing = asyncio.create_task(self.refresh())
        try:
            while not (await asyncio.wait([refreshing], timeout=QUIET_PERIOD_S))[0]:
                self._trouble = self._trouble or "outdated: the managers don't answer"
                draw()
        finally:
            refreshing.cancel()
        refreshing.result()

    async def refresh(self) -> None:
        """Read what no change tells: how far services are, and who leads."""
        try:
            await self._read(is_stale=False)
            self._trouble = ""
        except _UNREACHABLE as error:
            self._trouble = f"outdated: {error}"
            with contextlib.suppress(*_UNREACHABLE):
                await self._read(is_stale=True)

    async def _read(self, *, is_stale: bool) -> None:
        of = self._cluster
        found = await of.nodes.snapshot(is_stale=is_stale, deadline_s=LOOK_DEADLINE_S)
        self._leader = next((n.name for n in found.nodes if n.id == found.leader_id), "")
        self._views = await of.services.list(is_stale=is_stale, deadline_s=LOOK_DEADLINE_S)
