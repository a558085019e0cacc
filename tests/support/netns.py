"""Several nodes on one machine: network namespaces with an underlay between them.

A `Lab` has one namespace per node, all on a bridge in a namespace of its own, so that nothing of
it is visible to the machine or to tests that run beside it. Namespaces are named by their file;
what runs in one is either a function, in a thread of its own, or a process.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import secrets
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pytest

T = TypeVar("T")

FOLDER = Path("/run/netns")
UNDERLAY_PREFIX = 24
CLONE_NEWNET = 0x40000000
COMMAND_TIMEOUT_S = 30.0


def run_in(namespace: Path, work: Callable[..., T], *args: Any) -> T:
    """What `work(*args)` returns or raises in the namespace, in a thread that ends with it."""
    libc = ctypes.CDLL(None, use_errno=True)
    results: list[T] = []
    errors: list[BaseException] = []

    def enter_and_work() -> None:
        try:
            fd = os.open(namespace, os.O_RDONLY | os.O_CLOEXEC)
            try:
                if libc.setns(fd, CLONE_NEWNET) != 0:
                    code = ctypes.get_errno()
                    raise OSError(code, os.strerror(code), str(namespace))
            finally:
                os.close(fd)
            results.append(work(*args))
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=enter_and_work, name=f"in {namespace.name}")
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]


class Lab:
    """Nodes "n1", "n2" … with the addresses 10.200.0.1, 10.200.0.2 … on their eth0."""

    def __init__(self, nodes: int, mtu: int = 1500) -> None:
        self.name = f"skt-{secrets.token_hex(4)}"
        self.nodes = tuple(f"n{number}" for number in range(1, nodes + 1))
        self._mtu = mtu
        self._processes: list[subprocess.Popen[str]] = []

    def make(self) -> None:
        """Make the namespaces and the underlay; `remove` must follow even when this raises."""
        switch = f"{self.name}-sw"
        _ip("netns", "add", switch)
        _ip("-n", switch, "link", "add", "br0", "mtu", str(self._mtu), "type", "bridge")
        # Where the machine filters bridged frames, its rules would be asked for each of ours.
        run_in(FOLDER / switch, _let_bridges_alone)
        _ip("-n", switch, "link", "set", "br0", "up")
        for number, node in enumerate(self.nodes, 1):
            inside, port, mtu = f"{self.name}-{node}", f"p{number}", str(self._mtu)
            _ip("netns", "add", inside)
            _ip(
                *("-n", switch, "link", "add", port, "mtu", mtu, "master", "br0", "up"),
                *("type", "veth", "peer", "eth0", "mtu", mtu, "netns", inside),
            )
            address = f"{self.address(node)}/{UNDERLAY_PREFIX}"
            _ip("-n", inside, "addr", "add", address, "dev", "eth0")
            _ip("-n", inside, "link", "set", "lo", "up")
            _ip("-n", inside, "link", "set", "eth0", "up")
            # Asked for by name, a port carries packets at once, else up to a second later.
            _ip("-n", switch, "link", "show", port)

    def address(self, node: str) -> str:
        """The node's address on the underlay."""
        return f"10.200.0.{self.nodes.index(node) + 1}"

    def path(self, node: str) -> Path:
        """The file of the node's namespace."""
        return FOLDER / f"{self.name}-{node}"

    def run(self, node: str, work: Callable[..., T], *args: Any) -> T:
        """What `work(*args)` returns or raises on the node; see `run_in`."""
        return run_in(self.path(node), work, *args)

    def start(self, namespace: Path, *command: str) -> subprocess.Popen[str]:
        """A process in that namespace, a node's or any other; killed with the lab at the latest.

        Its output is text in pipes; its mounts and files are those of the machine.
        """

        def start() -> subprocess.Popen[str]:
            pipe = subprocess.PIPE
            return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True)

        # A process is where the thread is that starts it, and so is there from its first moment.
        process = run_in(namespace, start)
        self._processes.append(process)
        return process

    def command(self, namespace: Path, *command: str) -> str:
        """What a command prints in that namespace; raises AssertionError where it fails."""
        result = self.attempt(namespace, *command)
        assert result.returncode == 0, f"{command}: {result.stderr or result.stdout}"
        return result.stdout

    def attempt(self, namespace: Path, *command: str) -> subprocess.CompletedProcess[str]:
        """How a command ends in that namespace."""
        return run_in(namespace, _run, command)

    def cut(self, node: str, *, is_cut: bool = True) -> None:
        """Take the node off the underlay, or put it back."""
        port = f"p{self.nodes.index(node) + 1}"
        _ip("-n", f"{self.name}-sw", "link", "set", port, "down" if is_cut else "up")

    def remove(self) -> None:
        """End what `start` has started and remove every namespace; idempotent."""
        for process in self._processes:
            process.kill()
            process.communicate()
        self._processes.clear()
        for path in FOLDER.glob(f"{self.name}-*"):
            _ip("netns", "delete", path.name)


@contextlib.contextmanager
def lab(nodes: int, mtu: int = 1500) -> Iterator[Lab]:
    """A lab of so many nodes, removed at the end."""
    made = Lab(nodes, mtu)
    try:
        made.make()
        yield made
    finally:
        made.remove()


def why_not() -> str:
    """Why this machine can't have a `Lab`; "" where it can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    probe = (
        "ip link add skt-b type bridge && ip link add skt-v type veth peer skt-w && "
        "ip link add skt-x type vxlan id 1 local 127.0.0.1 dstport 4789"
    )
    result = _run(["unshare", "--net", "sh", "-ec", probe])
    return f"no namespaces, veth or VXLAN here: {result.stderr}" if result.returncode else ""


def needs_namespaces() -> pytest.MarkDecorator:
    """For `pytestmark`: skip where there can be no `Lab`."""
    reason = why_not()
    return pytest.mark.skipif(bool(reason), reason=reason)


def _let_bridges_alone() -> None:
    for path in Path("/proc/sys/net/bridge").glob("bridge-nf-call-*"):
        path.write_text("0")


def _ip(*args: str) -> None:
    result = _run(["ip", *args])
    assert result.returncode == 0, f"ip {' '.join(args)}: {result.stderr}"


def _run(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, capture_output=True, text=True, timeout=COMMAND_TIMEOUT_S, check=False
    )
