"""A relay worker's process: `python -m skep.netproxy.relay.main --control-fd N`.

It is started by its netproxy and ends with it, when the control socket closes; signals to end are
the netproxy's to understand. There may be many of these, so that little is loaded: no asyncio, no
gRPC.
"""

from __future__ import annotations

import argparse
import gc
import logging
import signal
import socket
import sys

from skep.netproxy.relay.adapters.control import Control
from skep.netproxy.relay.adapters.loop import Loop
from skep.netproxy.relay.adapters.worker import Worker
from skep.netproxy.relay.core.protocol import Start

# Connections leave no cycles behind, so that there is little to find, and looking is a pause.
COLLECT_AFTER = 50_000


def serve(connection: socket.socket) -> None:
    """Work until the netproxy is gone; then everything that is open is reset."""
    loop = Loop()
    workers: list[Worker] = []

    def on_start(place: Start) -> Worker:
        workers.append(Worker(loop, place))
        return workers[-1]

    connection.setblocking(False)
    control = Control(loop, connection, on_start)
    gc.collect()
    gc.freeze()
    gc.set_threshold(COLLECT_AFTER, 20, 20)
    loop.run()
    for worker in workers:
        worker.cut()
    del control


def main(arguments: list[str] | None = None) -> int:
    """Parse and run."""
    parser = argparse.ArgumentParser(prog="skep-netproxy-relay")
    parser.add_argument("--control-fd", type=int, required=True)
    parser.add_argument("--name", default="relay", help="for logs")
    options = parser.parse_args(arguments)
    logging.basicConfig(
        stream=sys.stderr,
        level=logging.INFO,
        format="at=%(asctime)s level=%(levelname)s from=%(name)s "
        f"worker={options.name} %(message)s",
    )
    # To a whole group of processes, or to all of a service, they are sent at once.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    serve(socket.socket(fileno=options.control_fd))
    return 0


if __name__ == "__main__":
    sys.exit(main())
