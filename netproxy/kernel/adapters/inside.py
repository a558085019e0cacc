"""Runs functions in many network namespaces, side by side, or in one that goes with the call.

Nothing is kept open: an open socket would keep a namespace, and the links in it, alive after its
task.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from skep.netproxy.kernel.adapters import netns

T = TypeVar("T")
K = TypeVar("K")

# Each mostly waits for the kernel, some 16 ms; this many at once keep a node's cores busy enough.
PARALLEL_LIMIT = 16


def run_inside(namespace: str | None, work: Callable[[], T]) -> T:
    """What `work` returns or raises in the namespace with that file (None: this process's own).

    Blocks. Raises OSError where there is no such namespace.
    """
    return work() if namespace is None else netns.inside(Path(namespace), work)


def run_in_new(work: Callable[[], T]) -> T:
    """The same in an empty namespace that goes with the call."""

    def make_and_work() -> T:
        netns.enter_new()
        return work()

    return netns.in_thread(make_and_work)


def run_each(jobs: Iterable[tuple[K, Callable[[], T]]]) -> list[tuple[K, T]]:
    """The jobs' results, in order, side by side. They may not raise; blocks until all are done."""
    listed = list(jobs)
    if len(listed) < 2:
        return [(key, job()) for key, job in listed]
    workers = min(PARALLEL_LIMIT, len(listed))
    with ThreadPoolExecutor(workers, thread_name_prefix="namespaces") as pool:
        results = pool.map(lambda job: job[1](), listed)
        return [(key, result) for (key, _), result in zip(listed, results, strict=True)]


def identity(namespace: str) -> tuple[int, int, int]:
    """Tells a namespace from another one with the same file name. Raises OSError.

    The kernel gives the inode number of one that is gone to the next one, which may well be that of
    a task that is attached once more. But a number is free only some milliseconds after its
    namespace, so that the two are not of the same time.
    """
    found = os.stat(namespace)
    return found.st_dev, found.st_ino, found.st_ctime_ns


def exists(namespace: str) -> bool:
    """Whether there still is a file of that name."""
    return os.path.exists(namespace)
