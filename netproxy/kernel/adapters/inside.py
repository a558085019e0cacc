"""Runs functions in network namespaces.

A thread that has entered another namespace is of no use for anything else, so each call gets one
of its own, which ends with it. Nothing is kept open: an open socket would keep a namespace, and
the links in it, alive after its task.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
K = TypeVar("K")

_CLONE_NEWNET = 0x40000000
# Each mostly waits for the kernel, some 16 ms; this many at once keep a node's cores busy enough.
PARALLEL_LIMIT = 16


def run_inside(namespace: str | None, work: Callable[[], T]) -> T:
    """What `work` returns or raises in the namespace with that file (None: this process's own).

    Blocks. Raises OSError where there is no such namespace.
    """
    return _run(work, None if namespace is None else lambda: _enter(namespace))


def run_in_new(work: Callable[[], T]) -> T:
    """The same in an empty namespace that goes with the call."""
    return _run(work, _enter_new)


def run_each(jobs: Iterable[tuple[K, Callable[[], T]]]) -> list[tuple[K, T]]:
    """The jobs' results, in order, side by side. They may not raise; blocks until all are done."""
    listed = list(jobs)
    if len(listed) < 2:
        return [(key, job()) for key, job in listed]
    workers = min(PARALLEL_LIMIT, len(listed))
    with ThreadPoolExecutor(workers, thread_name_prefix="namespaces") as pool:
        results = pool.map(lambda job: job[1](), listed)
        return [(key, result) for (key, _), result in zip(listed, results, strict=True)]


def identity(namespace: str | None) -> tuple[int, int]:
    """Tells a namespace from another one with the same file name. Raises OSError."""
    found = os.stat(namespace or "/proc/thread-self/ns/net")
    return found.st_dev, found.st_ino


def exists(namespace: str) -> bool:
    """Whether there still is a file of that name."""
    return os.path.exists(namespace)


def _run(work: Callable[[], T], enter: Callable[[], None] | None) -> T:
    if enter is None:
        return work()
    results: list[T] = []
    errors: list[BaseException] = []

    def enter_and_work() -> None:
        try:
            enter()
            results.append(work())
        # It is the caller's, whatever it is; the thread has nobody else to tell.
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=enter_and_work, name="inside")
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]


def _enter(namespace: str) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    fd = os.open(namespace, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if libc.setns(fd, _CLONE_NEWNET) != 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code), namespace)
    finally:
        os.close(fd)


def _enter_new() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNET) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"a new network namespace: {os.strerror(code)}")
