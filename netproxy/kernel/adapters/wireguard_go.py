"""wireguard-go: a process that has one WireGuard device, for kernels that have none of their own.

It lives as long as its device: it ends when that is removed, and the device goes with it when it
dies. It is found again by the device's name. One that hangs does neither, and is killed.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from skep.netproxy.kernel.adapters import messages, netns
from skep.netproxy.kernel.adapters.sandbox import Sandbox
from skep.netproxy.kernel.core import tunnel as core
from skep.netproxy.kernel.core.tunnel import Change, Device

PROGRAM = "wireguard-go"
# Where it has its sockets, which is not for us to choose.
SOCKETS = Path("/var/run/wireguard")
PROC = Path("/proc")
# It starts in 20 ms; this is for what we can't imagine.
START_S = 10.0
# It answers in one ms, and nothing else can be done meanwhile: one that takes longer hangs.
ANSWER_S = 1.0
# It ends some ms after its device; then it is killed, which takes no time where the kernel is well.
END_S, KILLED_S, LOOK_PERIOD_S = 0.5, 5.0, 0.01
ANSWER_BYTES = 1 << 16
GET = "get=1\n\n"


class Unanswered(OSError):
    """It hangs, or is about to end, or isn't there: another one must take its place."""


class ProgramDriver:
    """Has one process for each device; see `wireguard.Driver`."""

    means, kind = PROGRAM, "tun"

    def make(self, sandbox: Sandbox, name: str) -> None:
        """See `Driver.make`: it starts where the calling thread is, and detaches itself."""
        try:
            done = subprocess.run(
                (PROGRAM, name),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                cwd="/",
                # With LOG_LEVEL it would keep our pipe, and be waited for as long as it runs.
                env={"PATH": os.environ.get("PATH", os.defpath)},
                start_new_session=True,
                text=True,
                timeout=START_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise OSError(errno.ETIMEDOUT, f"{PROGRAM} did not start in {START_S:g} s") from None
        if done.returncode != 0:
            said = done.stdout.strip().splitlines()
            raise OSError(errno.EIO, f"{PROGRAM}: {said[-1] if said else done.returncode}")
        # The process that goes on looks for its device where it is itself: once it has answered,
        # it has found it.
        _ask(name, GET)
        with netns.opened(sandbox.place.tunnel) as fd:
            index = messages.index_named(sandbox.host, name)
            sandbox.host.ask([messages.move_link(index, fd)])

    def tell(self, sandbox: Sandbox, name: str, step: Change) -> None:
        """See `Driver.tell`."""
        _ask(name, core.request_of(step, sandbox.place.wireguard_port))

    def read(self, sandbox: Sandbox, name: str) -> Device:
        """See `Driver.read`."""
        try:
            return core.parse_device(_ask(name, GET))
        except Unanswered:
            raise
        except (OSError, ValueError) as error:
            raise Unanswered(errno.EPROTO, f"{PROGRAM}: {error}") from error

    def end(self, name: str) -> None:
        """See `Driver.end`."""
        end(name)


def end(name: str) -> None:
    """See that there is no process for a device that has been removed, nor its socket. The calling
    thread must be in the node's own namespace, as the process is. Raises OSError."""
    began = time.monotonic()
    while pids := list(_processes(name)):
        took_s = time.monotonic() - began
        if took_s > END_S + KILLED_S:
            raise OSError(errno.ETIMEDOUT, f"{PROGRAM} ({pids[0]}) can't be killed")
        if took_s > END_S:
            for pid in pids:
                _kill(pid, name)
        time.sleep(LOOK_PERIOD_S)
    (SOCKETS / f"{name}.sock").unlink(missing_ok=True)


def _processes(name: str) -> Iterator[int]:
    for pid in os.listdir(PROC):
        if pid.isdigit() and _is_for(int(pid), name):
            yield int(pid)


def _is_for(pid: int, name: str) -> bool:
    with contextlib.suppress(OSError):  # it has ended
        command = (PROC / str(pid) / "cmdline").read_bytes().split(b"\0")
        if os.path.basename(command[0]) == PROGRAM.encode() and command[1:] == [name.encode(), b""]:
            return os.path.samefile(PROC / str(pid) / "ns/net", netns.OWN)
    return False


def _kill(pid: int, name: str) -> None:
    with contextlib.suppress(ProcessLookupError):
        fd = os.pidfd_open(pid)
        try:
            # Its number may have been given to another one since it was found.
            if _is_for(pid, name):
                signal.pidfd_send_signal(fd, signal.SIGKILL)
        finally:
            os.close(fd)


def _ask(name: str, request: str) -> str:
    """Its answer. Raises Unanswered, and OSError where it refuses."""
    try:
        answer = _answer(name, request)
        told, _, code = answer.strip().rpartition("errno=")
        number = abs(int(code))
    except (OSError, ValueError) as error:
        raise Unanswered(errno.ETIMEDOUT, f"{PROGRAM}: {error}") from error
    if number:
        raise OSError(number, f"{PROGRAM}: {os.strerror(number)}")
    return told


def _answer(name: str, request: str) -> str:
    with socket.socket(socket.AF_UNIX) as link:
        link.settimeout(ANSWER_S)
        link.connect(str(SOCKETS / f"{name}.sock"))
        link.sendall(request.encode())
        answer = ""
        while not answer.endswith("\n\n"):
            data = link.recv(ANSWER_BYTES)
            if not data:
                raise OSError(errno.EPIPE, "it broke off")
            answer += data.decode()
    return answer
