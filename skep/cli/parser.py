"""The command line: what can't be understood, and where it is all put together."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from typing import NoReturn

from skep.cli.errors import Exit
from skep.cli.grammar import context, local, look, node, service, stack
from skep.cli.options import Parser, command, loader


class _Version(argparse.Action):
    """Does what the version command does."""

    def __call__(self, parser: Parser, namespace: argparse.Namespace, *_: object) -> None:
        loader("version.show")(namespace)
        parser.exit()


class _Parser(argparse.ArgumentParser):
    """Errors are one line, like all of ours, and name a misspelt option first."""

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """As always; but an unknown option is told before an option that it was meant to be is
        found missing."""
        if self.get_default("run") is not None:
            known = [name for action in self._actions for name in action.option_strings]
            for word in args or ():
                name = word.partition("=")[0]
                if re.fullmatch("--[a-z-]+", name) and name not in known:
                    self._unknown(name, known)
        return super().parse_known_args(args, namespace)

    def _unknown(self, name: str, known: Sequence[str]) -> NoReturn:
        import difflib

        close = difflib.get_close_matches(name, known, 1)
        hint = f"; did you mean {close[0]}" if close else ""
        self.error(f"unrecognized arguments: {name}{hint}")

    def error(self, message: str) -> NoReturn:
        print(f"skep: error: {message}; see '{self.prog} --help'", file=sys.stderr)
        raise SystemExit(int(Exit.USAGE))


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The options of one call. What follows "--" is a command for a service, word by word, and
    never read as options of ours. Exits with 2 for what can't be understood."""
    words = list(arguments)
    if words[:1] == ["__complete"]:
        # Asked by completion scripts at each key, and nothing for people to see.
        return argparse.Namespace(run=loader("completion.names"), words=words[1:])
    cut = words.index("--") if "--" in words else len(words)
    parser = build()
    options = parser.parse_args(words[:cut])
    tail = words[cut + 1 :]
    timeout_s = getattr(options, "timeout", None)
    if timeout_s is not None and timeout_s <= 0 and not options.detach:
        parser.error("--timeout 0 leaves no time to wait; use --detach, which doesn't wait")
    if not hasattr(options, "command") and tail:
        parser.error(f"this takes no command: -- {' '.join(tail)}")
    if hasattr(options, "command"):
        options.command = [*options.command, *tail]
        if not options.command and options.needs_command:
            parser.error("what to run is missing; add it after '--', as in: -- sleep 3600")
    return options


def build() -> Parser:
    """The whole command line."""
    top = _Parser(prog="skep", description="Run services across machines, and keep them running.")
    top.add_argument("--version", action=_Version, nargs=0, help="say which release this is")
    commands = top.add_subparsers(metavar="COMMAND", required=True)
    for part in (local, node, service, stack, look, context):
        part.add(commands)
    command(commands, "version", "version.show", "say which release this is")
    return top
