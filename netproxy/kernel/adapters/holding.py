"""One process at a time for what a node has in the kernel, wherever its state folder is."""

from __future__ import annotations

import fcntl
import os

from skep.env import Rejected
from skep.netproxy.kernel.adapters.place import HostPlace


def hold(place: HostPlace) -> int:
    """The descriptor that holds the node until it is closed, at the latest by the process's end.

    It is of the node's folder, which is made where it is missing. Raises Rejected while another
    process has it, and OSError.
    """
    place.home.mkdir(parents=True, exist_ok=True, mode=0o700)
    fd = os.open(place.home, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        raise Rejected(
            f"another netproxy of node {place.node} runs on this machine, and has {place.home}; "
            "stop that one first, or give this node an id of its own"
        ) from None
    return fd
