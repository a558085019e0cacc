"""A web server for the example: every answer names the replica and the node that gave it.

    python3 web.py ADDRESS:PORT             serve until SIGTERM, then drain
    python3 web.py --probe ADDRESS:PORT     exit 0 if a server answers there (its health check)

With VERSION in its environment it names that as well, so that one can watch an update.

On SIGTERM it takes no more connections, answers every request under way, and exits with 0.
"""

import os
import signal
import socket
import sys

PROBE_TIMEOUT_S = 2
HEAD_LIMIT_BYTES = 16 * 1024
# When draining: a moment for connections that the kernel has already accepted, another for new ones
# that haven't said anything yet, and an end to requests that never come in whole.
ACCEPT_S = 0.1
FIRST_WORD_S = 1
DRAIN_LIMIT_S = 20


def who() -> str:
    """This replica's name, by what the engine tells each task of itself."""
    service = os.environ.get("SKEP_SERVICE_NAME", "web")
    slot = os.environ.get("SKEP_TASK_SLOT", "0")
    node = os.environ.get("SKEP_NODE_NAME") or socket.gethostname()
    version = os.environ.get("VERSION")
    return f"{service}.{slot} on {node}" + (f", version {version}" if version else "")


def probe(host: str, port: int) -> int:
    """Ask the server as a client would."""
    try:
        with socket.create_connection((host, port), timeout=PROBE_TIMEOUT_S) as connection:
            connection.sendall(b"GET / HTTP/1.1\r\nHost: probe\r\nConnection: close\r\n\r\n")
            status = connection.recv(64).split(b" ")[1:2]
    except OSError as error:
        print(f"no answer: {error}")
        return 1
    print(f"answered {status}")
    return 0 if status == [b"200"] else 1


async def serve(host: str, port: int) -> None:
    """Serve, and drain."""
    import asyncio

    body = f"Hello from {who()}\n".encode()
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    states: dict[asyncio.Task[None], str] = {}  # "new", "busy" or "idle"
    writers: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        states[task], writers[task] = "new", writer
        try:
            is_last = False
            while not is_last:
                try:
                    first = await reader.readexactly(1)
                    states[task] = "busy"
                    head = first + await reader.readuntil(b"\r\n\r\n")
                except (asyncio.IncompleteReadError, asyncio.LimitOverrunError):
                    return
                lines = head.lower().split(b"\r\n")
                is_old = lines[0].endswith(b"http/1.0")
                is_last = stop.is_set() or is_old or b"connection: close" in lines
                writer.write(
                    b"HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\n"
                    + f"Content-Length: {len(body)}\r\n".encode()
                    + (b"Connection: close\r\n" if is_last else b"")
                    + b"\r\n"
                    + (b"" if head.startswith(b"HEAD") else body)
                )
                await writer.drain()
                states[task] = "idle"
        except ConnectionError:
            return
        finally:
            del states[task], writers[task]
            writer.close()

    server = await asyncio.start_server(
        answer, host, port, limit=HEAD_LIMIT_BYTES, backlog=1024, reuse_address=True
    )
    print(f"{who()}: serving on {host}:{port}", flush=True)
    await stop.wait()
    await asyncio.sleep(ACCEPT_S)
    server.close()
    await drain(states, writers)
    print(f"{who()}: drained", flush=True)


async def drain(states: dict, writers: dict) -> None:
    """Close what waits for nothing, and wait for the answers that are under way."""
    import asyncio

    for unneeded, limit_s in (({"idle"}, FIRST_WORD_S), ({"idle", "new"}, DRAIN_LIMIT_S)):
        for task, state in states.items():
            if state in unneeded:
                writers[task].close()
        if states:
            await asyncio.wait(list(states), timeout=limit_s)


def main(arguments: list[str]) -> int:
    """Parse and run."""
    host, _, port = (arguments or [""])[-1].rpartition(":")
    if not host or not port.isdigit():
        print(__doc__, file=sys.stderr)
        return 2
    if arguments[0] == "--probe":
        return probe(host, int(port))
    import asyncio

    asyncio.run(serve(host, int(port)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
