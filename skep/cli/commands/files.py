"""`skep config ...` and `skep secret ...`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import Any

from skep.cli import filters, output, rows, session, storagerows
from skep.cli.errors import Exit, Failure
from skep.client import Cluster
from skep.domain.base import Pairs
from skep.domain.storage import CONFIG_LIMIT_BYTES, SECRET_LIMIT_BYTES, ConfigSpec, SecretSpec

STDIN = "-"


def create_config(options: argparse.Namespace) -> None:
    """Create a config, and print its id."""
    data, labels = _data(options.file, CONFIG_LIMIT_BYTES), _labels(options)
    spec = ConfigSpec(name=options.name, data=data, labels=labels)

    async def script(cluster: Cluster) -> None:
        print((await cluster.configs.create(spec)).config.id)

    session.run(options, script)


def create_secret(options: argparse.Namespace) -> None:
    """Create a secret, and print its id."""
    data, labels = _data(options.file, SECRET_LIMIT_BYTES), _labels(options)
    spec = SecretSpec(name=options.name, data=data, labels=labels)

    async def script(cluster: Cluster) -> None:
        print((await cluster.secrets.create(spec)).id)

    session.run(options, script)


def _data(path: str, limit: int) -> bytes:
    """What a file, or stdin, holds: one byte more than allowed is enough to be refused."""
    if path == STDIN:
        if sys.stdin.isatty():
            output.note("reading from the terminal; end with Ctrl-D")
        return sys.stdin.buffer.read(limit + 1)
    try:
        with open(path, "rb") as file:
            data = file.read(limit + 1)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise Failure(f"{path}: {why}", Exit.USAGE) from None
    if len(data) > limit:
        # Said here, where the whole size isn't known, rather than by a manager that got a part.
        raise Failure(
            f"{path}: more than {limit} bytes ({limit // 1024} KiB), which is the limit", Exit.USAGE
        )
    return data


def _labels(options: argparse.Namespace) -> Pairs:
    from skep.cli.flagvalues import named_values

    return named_values("--label", options.label, least="KEY=VALUE")


def ls_configs(options: argparse.Namespace) -> None:
    """List configs."""
    wanted = filters.read(options.filter, filters.FILE_KEYS)

    async def script(cluster: Cluster) -> None:
        views = await filters.of_stacks(
            wanted, lambda stack: cluster.configs.list(stack=stack, is_stale=options.stale)
        )
        _show(filters.files(map(storagerows.config_row, views), wanted), options)

    session.run(options, script)


def ls_secrets(options: argparse.Namespace) -> None:
    """List secrets."""
    wanted = filters.read(options.filter, filters.FILE_KEYS)

    async def script(cluster: Cluster) -> None:
        views = await filters.of_stacks(
            wanted, lambda stack: cluster.secrets.list(stack=stack, is_stale=options.stale)
        )
        _show(filters.files(map(storagerows.secret_row, views), wanted), options)

    session.run(options, script)


def _show(found: Sequence[storagerows.FileRow], options: argparse.Namespace) -> None:
    import time

    now_s = time.time()
    columns: list[tuple[str, output.Reader[storagerows.FileRow]]] = [
        ("ID", lambda row: row.id if options.no_trunc else output.short_id(row.id)),
        ("NAME", lambda row: row.name),
        ("CREATED", lambda row: f"{rows.age_text(now_s - row.created)} ago"),
        ("UPDATED", lambda row: f"{rows.age_text(now_s - row.updated)} ago"),
        ("SERVICES", lambda row: str(row.services)),
    ]
    output.show(found, columns, shape=options.format, key="id" if options.quiet else None)


def inspect_configs(options: argparse.Namespace) -> None:
    """Show configs with their data, or single fields."""

    async def get(cluster: Cluster, ref: str) -> Any:
        return await cluster.configs.get(ref)

    _inspect(options, get, storagerows.docker_config, storagerows.config_text)


def inspect_secrets(options: argparse.Namespace) -> None:
    """Show what may be shown of secrets, or single fields."""

    async def get(cluster: Cluster, ref: str) -> Any:
        return await cluster.secrets.get(ref)

    _inspect(options, get, storagerows.docker_secret, storagerows.secret_text)


def _inspect(
    options: argparse.Namespace,
    get: Callable[[Cluster, str], Any],
    docker: Callable[[Any], dict[str, Any]],
    pretty_text: Callable[..., str],
) -> None:
    from skep.cli import gotemplate

    template = gotemplate.asked(options)

    async def script(cluster: Cluster) -> None:
        views = [await get(cluster, ref) for ref in options.refs]
        if options.pretty:
            from skep.cli import pretty

            print("\n\n".join(pretty_text(view, pretty.text_of) for view in views))
        elif template is not None:
            for view in views:
                print(gotemplate.fill(template, docker(view), rows.plain(view)))
        else:
            output.write([rows.plain(view) for view in views], shape=options.format)

    session.run(options, script)


def rm_configs(options: argparse.Namespace) -> None:
    """Remove configs."""

    async def script(cluster: Cluster) -> None:
        for ref in options.refs:
            print((await cluster.configs.remove(ref)).name, flush=True)

    session.run(options, script)


def rm_secrets(options: argparse.Namespace) -> None:
    """Remove secrets."""

    async def script(cluster: Cluster) -> None:
        for ref in options.refs:
            print((await cluster.secrets.remove(ref)).name, flush=True)

    session.run(options, script)
