"""Load on published ports, by the strictest client there is: one connection per request, no retry.

Not every client is quick: some connect and speak late, some send their request in two parts. So
there are always requests under way that a drain must wait for.

Whatever keeps a request from being answered in full is a failure, noted with its time, so that it
can be found again in the logs of whoever dropped it.
"""

from __future__ import annotations

import asyncio
import itertools
import re
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import TracebackType

FIRST_PART, SECOND_PART = b"GET / HTTP/1.1\r\nHost: lo", b"ad\r\nConnection: close\r\n\r\n"

# Every so-manieth request is one of a slow client. The numbers are primes, so that each node gets
# some of each kind.
LATE_EVERY, HALTING_EVERY = 7, 5
SLOW_S = 0.25

# A server that drains may take its time, but an answer that takes this long is as good as none.
TIMEOUT_S = 10.0

# Requests under way at once; what is due beyond them waits, and is sent late, not dropped.
CLIENTS = 64

# Failures that a report shows; they are all counted.
SHOWN_LIMIT = 20


@dataclass(frozen=True)
class Asked:
    """One request, and `why` there was no whole answer; empty if there was."""

    at: datetime
    address: str
    local_port: int
    connected_s: float
    after_s: float
    why: str

    def __str__(self) -> str:
        when = self.at.strftime("%H:%M:%S.%f")[:-3]
        return (
            f"{when} {self.address} from port {self.local_port}: {self.why or 'answered'} after "
            f"{self.after_s:.3f} s (connected after {self.connected_s:.3f} s)"
        )


@dataclass
class Report:
    """What came of it. `answered_by` counts the first lines of the answers."""

    asked: Counter[str] = field(default_factory=Counter)
    answered_by: Counter[str] = field(default_factory=Counter)
    failures: list[Asked] = field(default_factory=list)
    slowest: Asked | None = None
    lasted_s: float = 0.0

    @property
    def total(self) -> int:
        """Requests that were sent."""
        return self.asked.total()

    def versions(self) -> set[str]:
        """The releases that answered."""
        return self._told(r"version (\S+)")

    def nodes(self) -> set[str]:
        """The nodes whose replicas answered."""
        return self._told(r" on (\w+)")

    def _told(self, pattern: str) -> set[str]:
        found = (re.search(pattern, line) for line in self.answered_by)
        return {match.group(1) for match in found if match}

    def __str__(self) -> str:
        head = f"{self.total} requests in {self.lasted_s:.1f} s, {len(self.failures)} failed"
        shown = [*map(str, self.failures[:SHOWN_LIMIT]), f"the slowest one: {self.slowest}"]
        return "\n".join([head, *shown])

    def note(self, asked: Asked) -> None:
        """One more is over."""
        if self.slowest is None or asked.after_s > self.slowest.after_s:
            self.slowest = asked
        if asked.why:
            self.failures.append(asked)


class Load:
    """Sends `per_s` requests a second, to each of `addresses` in turn, from entry to exit of the
    `async with`; the report is complete after that. For no longer than `limit_s`."""

    def __init__(
        self,
        addresses: Sequence[str],
        *,
        per_s: float,
        limit_s: float = 300.0,
    ) -> None:
        self.report = Report()
        self._addresses = tuple(addresses)
        self._per_s = per_s
        self._limit_s = limit_s
        self._is_over = False
        self._numbers = itertools.count()
        self._clients: list[asyncio.Task[None]] = []
        self._began = 0.0

    async def __aenter__(self) -> Load:
        self._began = time.monotonic()
        self._clients = [asyncio.create_task(self._client()) for _ in range(CLIENTS)]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._is_over = True
        await asyncio.gather(*self._clients)
        self.report.lasted_s = time.monotonic() - self._began

    async def _client(self) -> None:
        while True:
            number = next(self._numbers)
            due_s = self._began + number / self._per_s
            if due_s > self._began + self._limit_s:
                return
            await asyncio.sleep(max(0.0, due_s - time.monotonic()))
            if self._is_over:
                return
            await self._ask(number)

    async def _ask(self, number: int) -> None:
        address = self._addresses[number % len(self._addresses)]
        host, _, port = address.rpartition(":")
        at, began = datetime.now(UTC), time.monotonic()
        local_port, connected_s = 0, 0.0
        self.report.asked[address] += 1
        why, writer = "", None
        try:
            async with asyncio.timeout(TIMEOUT_S):
                reader, writer = await asyncio.open_connection(host, int(port))
                connected_s = time.monotonic() - began
                local_port = writer.get_extra_info("sockname")[1]
                await asyncio.sleep(SLOW_S if number % LATE_EVERY == 0 else 0)
                writer.write(FIRST_PART)
                await asyncio.sleep(SLOW_S if number % HALTING_EVERY == 0 else 0)
                writer.write(SECOND_PART)
                answer = await reader.read(-1)
            why = self._read(answer)
        except TimeoutError:
            why = "no answer in time"
        except OSError as error:
            why = f"{type(error).__name__}: {error}"
        finally:
            if writer is not None:
                writer.close()
        after_s = time.monotonic() - began
        self.report.note(Asked(at, address, local_port, connected_s, after_s, why))

    def _read(self, answer: bytes) -> str:
        """Why this is no whole answer; empty if it is one."""
        head, end, body = answer.partition(b"\r\n\r\n")
        if not end:
            return f"cut short after {len(answer)} bytes"
        length = re.search(rb"(?i)content-length: *(\d+)", head)
        if not head.startswith(b"HTTP/1.1 200 ") or length is None:
            return f"answered {head[:60]!r}"
        if len(body) != int(length.group(1)):
            return f"body cut short at {len(body)} bytes of {int(length.group(1))}"
        self.report.answered_by[body.partition(b"\n")[0].decode()] += 1
        return ""
