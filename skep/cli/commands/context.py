"""`skep context ...`."""

from __future__ import annotations

import argparse
import os

import msgspec

from skep.cli import contextfile, contexts, output


class ContextRow(msgspec.Struct, frozen=True, kw_only=True):
    """A context. The local cluster's has no managers: its processes are looked up."""

    name: str
    current: bool
    managers: list[str]


def ls(options: argparse.Namespace) -> None:
    """List contexts, the local cluster's first."""
    config = contextfile.load()
    shown = [ContextRow(name=contexts.LOCAL, current=config.current is None, managers=[])]
    shown += [
        ContextRow(name=name, current=name == config.current, managers=list(of.managers))
        for name, of in sorted(config.contexts.items())
    ]
    columns: output.Columns[ContextRow] = (
        ("NAME", lambda row: f"{row.name} *" if row.current else row.name),
        ("MANAGERS", lambda row: ", ".join(row.managers) or "(the local cluster)"),
    )
    output.show(shown, columns, shape=options.format, key="name" if options.quiet else None)


def create(options: argparse.Namespace) -> None:
    """Add a context."""
    managers = contexts.addresses(options.managers_address)
    contextfile.change(lambda config: contexts.create(config, options.name, managers))
    print(options.name)


def use(options: argparse.Namespace) -> None:
    """Set the context in use."""
    contextfile.change(lambda config: contexts.use(config, options.name))
    print(options.name)
    for name in ("SKEP_ADDRESS", "SKEP_CONTEXT"):
        if os.environ.get(name):
            output.note(f"skep: note: ${name} is set here, and goes before it")


def show(options: argparse.Namespace) -> None:
    """Say which cluster commands mean, here and now."""
    target = contextfile.target(options)
    if options.format != "table":
        output.write(msgspec.to_builtins(target), shape=options.format)
        return
    named = f"context {target.context}" if target.context else f"local cluster {target.cluster}"
    if target.managers is not None and not target.context:
        named = "no context"
    print(f"{named} (from {target.why})")
    if target.managers is not None:
        print("\n".join(f"  {address}" for address in target.managers))


def rm(options: argparse.Namespace) -> None:
    """Remove contexts, all or none."""

    contextfile.change(lambda config: contexts.remove(config, options.names))
    print("\n".join(options.names))
