"""`skep registry ...`."""

from __future__ import annotations

import argparse
import sys

from skep.cli import output, rows, session, storagerows
from skep.cli.errors import Exit, Failure
from skep.client import Cluster


def login(options: argparse.Namespace) -> None:
    """Have nodes log in to a registry."""
    if options.password is not None and options.password_stdin:
        raise Failure("--password and --password-stdin exclude each other", Exit.USAGE)
    if options.password_stdin and not options.username:
        raise Failure("--password-stdin needs --username", Exit.USAGE)
    username = options.username or _asked("Username: ", "--username")
    password = _password(options)

    async def script(cluster: Cluster) -> None:
        view = await cluster.registries.login(options.server, username, password)
        print(view.name)
        output.note(
            f"nodes log in to {view.name} as {view.username} from now on; whether it lets them "
            "shows when they ask for an image"
        )

    session.run(options, script)


def _asked(question: str, option: str) -> str:
    if not sys.stdin.isatty():
        raise Failure(f"no terminal to ask at; give {option}", Exit.USAGE)
    print(question, end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().rstrip("\r\n")


def _password(options: argparse.Namespace) -> str:
    if options.password is not None:
        output.note(
            "skep: warning: others on this machine can see --password in the list of processes, "
            "and the shell remembers it; use --password-stdin"
        )
        return str(options.password)
    if options.password_stdin:
        # As with Docker: the end of the line that `echo` and most files have is not meant.
        return sys.stdin.read().removesuffix("\n").removesuffix("\r")
    if not sys.stdin.isatty():
        raise Failure("no terminal to ask at; give --password-stdin", Exit.USAGE)
    import getpass

    return getpass.getpass("Password: ", stream=sys.stderr)


def ls(options: argparse.Namespace) -> None:
    """List the registries that nodes log in to."""
    import time

    async def script(cluster: Cluster) -> None:
        now_s = time.time()
        columns: output.Columns[storagerows.RegistryRow] = (
            ("REGISTRY", lambda row: row.name),
            ("USERNAME", lambda row: row.username),
            ("UPDATED", lambda row: f"{rows.age_text(now_s - row.updated)} ago"),
        )
        views = await cluster.registries.list(is_stale=options.stale)
        shown = list(map(storagerows.registry_row, views))
        output.show(shown, columns, shape=options.format, key="name" if options.quiet else None)

    session.run(options, script)


def logout(options: argparse.Namespace) -> None:
    """Forget how to log in to a registry."""

    async def script(cluster: Cluster) -> None:
        print((await cluster.registries.logout(options.server)).name)

    session.run(options, script)
