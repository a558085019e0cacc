"""Network namespaces that are held by a file, and work that is done inside them.

A thread that has entered a namespace is never used for anything else: it ends with its work.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

CLONE_NEWNET = 0x40000000
MS_BIND, MNT_DETACH = 0x1000, 2
NS_GET_NSTYPE = 0xB703
OWN = Path("/proc/thread-self/ns/net")
SYSCTL = Path("/proc/sys/net")

# Loaded once for all: looking it up again is what makes a first call slow.
_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> None:
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")


def in_thread(work: Callable[[], T]) -> T:
    """What `work` returns or raises, in a thread that ends with it."""
    results: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(work())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run, name="netns")
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]


def enter(path: Path) -> None:
    """Put the calling thread into a namespace, for good. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        _check(_libc.setns(fd, CLONE_NEWNET), f"enter {path}")
    finally:
        os.close(fd)


def enter_new() -> None:
    """Put the calling thread into a new namespace, for good. Raises OSError."""
    _check(_libc.unshare(CLONE_NEWNET), "make a network namespace")


def inside(path: Path, work: Callable[[], T]) -> T:
    """What `work` returns or raises in that namespace. Raises OSError where it can't be entered."""

    def enter_and_work() -> T:
        enter(path)
        return work()

    return in_thread(enter_and_work)


def make(path: Path, work: Callable[[], T]) -> T:
    """Make a namespace that the file holds, and return what `work` does inside. Raises OSError.

    The file may be there, when a process died between making it and mounting the namespace on it.
    """
    os.close(os.open(path, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o444))

    def make_and_work() -> T:
        enter_new()
        source, target = os.fsencode(OWN), os.fsencode(path)
        _check(_libc.mount(source, target, b"none", MS_BIND, None), f"mount on {path}")
        return work()

    return in_thread(make_and_work)


def is_namespace(path: Path) -> bool:
    """Whether the file holds a network namespace."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return fcntl.ioctl(fd, NS_GET_NSTYPE) == CLONE_NEWNET
    except OSError:
        return False  # any other file
    finally:
        os.close(fd)


def remove(path: Path) -> None:
    """Let go of the namespace, and remove the file; both may be gone. Raises OSError.

    The namespace itself ends when no process and no socket is left in it.
    """
    while _libc.umount2(os.fsencode(path), MNT_DETACH) == 0:
        pass  # as often as it was mounted
    code = ctypes.get_errno()
    if code not in (errno.EINVAL, errno.ENOENT):
        raise OSError(code, f"unmount {path}: {os.strerror(code)}")
    path.unlink(missing_ok=True)


@contextlib.contextmanager
def opened(path: Path) -> Iterator[int]:
    """The file descriptor by which the kernel takes a namespace in a request."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


def sysctl(name: str, value: int | str) -> None:
    """Set a switch of the calling thread's namespace ("ipv4/ip_forward"). Raises OSError.

    A switch that this kernel hasn't is one of a part that it hasn't: nothing is to be done.
    """
    with contextlib.suppress(FileNotFoundError):
        fd = os.open(SYSCTL / name, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, str(value).encode())
        finally:
            os.close(fd)
