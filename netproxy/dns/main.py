"""The DNS process: `python -m skep.netproxy.dns.main`.

A process of its own, in a session of its own, so that names are answered while the netproxy that
feeds it restarts or is replaced. It imports little: there is one on every node.
"""

from __future__ import annotations

import argparse
import fcntl
import gc
import logging
import logging.handlers
import os
import resource
import signal
import socket
import sys
from pathlib import Path

from skep.netproxy.dns.adapters import control
from skep.netproxy.dns.adapters.control import Control
from skep.netproxy.dns.adapters.loop import Loop
from skep.netproxy.dns.adapters.server import Server
from skep.netproxy.dns.adapters.upstream import ResolvConf, Upstream
from skep.netproxy.dns.core.zones import Names

log = logging.getLogger("skep.netproxy.dns")

LOG_LIMIT_BYTES = 1 << 20
READY = b"ready"
IN_USE = 3  # the exit status where another process holds the folder


def parse(arguments: list[str]) -> argparse.Namespace:
    """The options in force."""
    parser = argparse.ArgumentParser(prog="skep-dns", description="names of services, on one node")
    parser.add_argument("--control", type=Path, required=True, help="unix socket to be told by")
    parser.add_argument("--state-dir", type=Path, required=True, help="folder for lock and log")
    parser.add_argument("--resolv-conf", type=Path, default=Path("/etc/resolv.conf"))
    parser.add_argument(
        "--detach",
        action="store_true",
        help="go on in a session of its own; returns once the control socket is there",
    )
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Parse, lock, detach, run; returns the exit status."""
    options = parse(sys.argv[1:] if arguments is None else arguments)
    try:
        for folder in (options.state_dir, options.control.parent):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        options.control, options.state_dir = (
            options.control.absolute(),
            options.state_dir.absolute(),
        )
        ready = _detach() if options.detach else None
        if isinstance(ready, int):
            return ready
        lock = os.open(options.state_dir / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"dns: {options.state_dir} is in use by another process", file=sys.stderr)
            return IN_USE
        _log_to(options.state_dir / "dns.log")
        _allow_files()
        serve(options, ready)
    except OSError as error:
        print(f"dns: {error}", file=sys.stderr)
        return 1
    return 0


class _Ready:
    """The child's end of the pipe to the process that waits for it."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def tell(self) -> None:
        """Let the waiting process go, and have nothing to do with its terminal any more."""
        null = os.open(os.devnull, os.O_RDWR)
        for fd in (0, 1, 2):
            os.dup2(null, fd)
        os.close(null)
        os.write(self._fd, READY)
        os.close(self._fd)


def _detach() -> _Ready | int:
    """Go on in a child, in a session of its own. In the parent, which waits until the child is
    ready or has failed, this is the exit status."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        os.setsid()
        os.chdir("/")
        # Whatever the control process has left open (uvloop does) would stay so with us: a port
        # that it listens on, or the pipe by which it waits for us.
        os.closerange(3, writing)
        os.closerange(writing + 1, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
        return _Ready(writing)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        if pipe.read() == READY:
            return 0
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status) or 1


def _log_to(path: Path) -> None:
    handler = logging.handlers.RotatingFileHandler(
        path, maxBytes=LOG_LIMIT_BYTES, backupCount=1, delay=True
    )
    logging.basicConfig(
        handlers=[handler],
        level=logging.INFO,
        format="at=%(asctime)s level=%(levelname)s from=%(name)s %(message)s",
    )


def _allow_files() -> None:
    """Each scope takes two files, and there may be a thousand scopes."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def serve(options: argparse.Namespace, ready: _Ready | None = None) -> None:
    """Run until told to end. Raises OSError."""
    loop = Loop()
    names = Names()
    upstream = Upstream(loop, ResolvConf(options.resolv_conf))
    server = Server(loop, names, upstream)
    commands = Control(loop, names, server, upstream)
    listener = control.listen(options.control)
    wake_up = _stop_on_signals(loop)
    commands.serve(listener)
    log.info("dns=%s state=started pid=%d", options.control, os.getpid())
    gc.collect()
    gc.freeze()
    if ready is not None:
        ready.tell()

    loop.run()
    # The name goes first: whoever finds it missing starts another process.
    options.control.unlink(missing_ok=True)
    server.close()
    upstream.close()
    # Their end tells control connections that everything else is closed.
    commands.close()
    listener.close()
    signal.set_wakeup_fd(-1)
    for end in wake_up:
        end.close()
    loop.close()
    log.info("dns=%s state=stopped", options.control)


def _stop_on_signals(loop: Loop) -> tuple[socket.socket, socket.socket]:
    """The loop sleeps in epoll, where only a file wakes it. The caller keeps both ends."""
    reading, writing = socket.socketpair()
    for end in (reading, writing):
        end.setblocking(False)
    signal.set_wakeup_fd(writing.fileno(), warn_on_full_buffer=False)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)

    def told(_: int) -> None:
        reading.recv(64)
        loop.stop()

    loop.watch(reading.fileno(), told)
    return reading, writing


if __name__ == "__main__":
    sys.exit(main())
