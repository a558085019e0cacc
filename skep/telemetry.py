"""What every process of Skep shows of itself: metrics over HTTP, loop stalls, collector pauses.

Only mains use this; it is made of process-wide things (the default registry, the garbage
collector's callbacks) that a simulated process must not touch. Scrapes are answered in a thread of
Prometheus' own, which only reads numbers that the loop writes.
"""

from __future__ import annotations

import asyncio
import gc
import socket  # noqa: TID251 - what answers scrapes is no part of the loop, nor of the seams
import socketserver
import threading  # noqa: TID251 - the same
import time  # noqa: TID251 - a collection is timed wherever it strikes, in any thread, without a loop

from prometheus_client import REGISTRY, Counter, Gauge
from prometheus_client.exposition import MetricsHandler

from skep.domain.address import parse_address
from skep.env import Env

# Four looks a second cost nothing that shows; a stall is what delays one by more than this.
LOOK_PERIOD_S = 0.25
STALL_S = 0.05


class _Server(socketserver.ThreadingMixIn, socketserver.TCPServer):
    """As Prometheus' own, which asks for the name of its address first: with a name server that
    doesn't answer, a process would wait for ten seconds before it does anything."""

    allow_reuse_address = True
    daemon_threads = True


class _Server6(_Server):
    address_family = socket.AF_INET6


def serve(address: str) -> None:
    """Answer scrapes at "ip:port" until the process ends; "" is for not at all.

    Raises Rejected for what is no address, OSError when the port is taken. Whether the address
    may be listened on is for the caller to ask (`skep.domain.address.refuse_open_listener`).
    """
    if address:
        host, port = parse_address(address)
        kind = _Server6 if ":" in host else _Server
        server = kind((host, port), MetricsHandler.factory(REGISTRY))
        threading.Thread(target=server.serve_forever, name="metrics", daemon=True).start()


def watch_loop(env: Env) -> asyncio.Task[None]:
    """Count how often, and for how long, the loop is late. Cancel the task to end it."""
    stalls = Counter("skep_loop_stalls", "Times that the event loop was late.")
    seconds = Counter("skep_loop_stall_seconds", "How late it was, in all.")
    longest = Gauge("skep_loop_stall_longest_seconds", "How late it was, at most.")
    longest_s = 0.0

    async def watch() -> None:
        nonlocal longest_s
        while True:
            due = env.now() + LOOK_PERIOD_S
            await env.clock.sleep(LOOK_PERIOD_S)
            late_s = env.now() - due
            if late_s > STALL_S:
                stalls.inc()
                seconds.inc(late_s)
                longest_s = max(longest_s, late_s)
                longest.set(longest_s)

    return env.spawn("telemetry/loop", watch())


def watch_gc() -> None:
    """Time every garbage collection from now on."""
    pauses = Counter("skep_gc_pauses", "Garbage collections.", ("generation",))
    seconds = Counter("skep_gc_pause_seconds", "How long they took, in all.", ("generation",))
    longest = Gauge("skep_gc_pause_longest_seconds", "How long one took, at most.")
    counts = [pauses.labels(str(generation)) for generation in range(3)]
    totals = [seconds.labels(str(generation)) for generation in range(3)]
    began_s = longest_s = 0.0

    def observe(phase: str, about: dict[str, int]) -> None:
        nonlocal began_s, longest_s
        if phase == "start":
            began_s = time.perf_counter()
            return
        pause_s = time.perf_counter() - began_s
        counts[about["generation"]].inc()
        totals[about["generation"]].inc(pause_s)
        if pause_s > longest_s:
            longest_s = pause_s
            longest.set(pause_s)

    gc.callbacks.append(observe)
