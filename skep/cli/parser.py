"""The command line: what can't be understood, and where it is all put together."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from typing import NoReturn

from skep.cli.errors import Exit
from skep.cli.grammar import (
    context,
    execute,
    local,
    look,
    network,
    node,
    service,
    stack,
    storage,
)
from skep.cli.options import Parser, command, loader

_SWITCHES = {"true": True, "1": True, "false": False, "0": False}


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
        found missing, and by the command that doesn't know it."""
        if self.get_default("run") is None:
            return super().parse_known_args(args, namespace)
        known = [name for action in self._actions for name in action.option_strings]
        args = args or ()
        end = self._own(args) if self.get_default("is_rest_command") else len(args)
        args, command = args[:end], args[end:]
        for word in args:
            name = word.partition("=")[0]
            if re.fullmatch("--[a-z0-9-]+|-[A-Za-z]", name) and name not in known:
                self._unknown(name, known)
        self._missed(args, command)
        words, switches = self._switched(args)
        found, rest = super().parse_known_args(words, namespace)
        if command:
            found.rest = command
        for name, is_on in switches.items():
            setattr(found, name, is_on)
        if rest:
            self.error(f"unrecognized arguments: {' '.join(rest)}")
        return found, rest

    def _own(self, words: Sequence[str]) -> int:
        """How many of the words are the command's own: its options, and the first that is none."""
        valued = {
            name for action in self._actions if action.nargs != 0 for name in action.option_strings
        }
        number = 0
        while number < len(words):
            word = words[number]
            number += 1
            if not word.startswith("-") or word == "-":
                break
            # Letters may stand together, and the first that wants a value takes what is left.
            letters = [f"-{letter}" for letter in word[1:]]
            place = next((i for i, each in enumerate(letters) if each in valued), None)
            if word in valued or (word[1] != "-" and place == len(letters) - 1):
                number += 1
        return number

    def _missed(self, own: Sequence[str], rest: Sequence[str]) -> None:
        """Tell of an option that must be given, and was, but as a word of the command to run."""
        given = [word.partition("=")[0] for word in own]
        for action in self._actions:
            names = action.option_strings
            late = [name for name in names if name in rest]
            if action.required and late and not any(name in given for name in names):
                self.error(f"{late[0]} stands in the command to run; give it before '{own[-1]}'")

    def _switched(self, words: Sequence[str]) -> tuple[list[str], dict[str, bool]]:
        """The words with --detach for --detach=false, as Docker's options take it, and what such
        words say: the last one counts."""
        flags = {
            name: action.dest
            for action in self._actions
            if isinstance(action, argparse._StoreTrueAction)
            for name in action.option_strings
        }
        found: list[str] = []
        said: dict[str, bool] = {}
        for word in words:
            name, sign, value = word.partition("=")
            if name not in flags:
                found.append(word)
                continue
            if sign and value.lower() not in _SWITCHES:
                self.error(f"{name}: '{value}' is neither true nor false")
            said[flags[name]] = _SWITCHES[value.lower()] if sign else True
            found.append(name)
        return found, said

    def _unknown(self, name: str, known: Sequence[str]) -> NoReturn:
        from skep.cli import misspelt

        command = self.prog.partition(" ")[2]
        runs = self.get_default("needs_command") is not None
        self.error(misspelt.problem(command, name, known, runs=runs))

    def error(self, message: str) -> NoReturn:
        print(f"skep: error: {message}; see '{self.prog} --help'", file=sys.stderr)
        raise SystemExit(int(Exit.USAGE))


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The options of one call. What follows "--", or the first word of a command that ends with
    another one, is that command, word by word, and never read as options of ours. Exits with 2 for
    what can't be understood."""
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
        if rest := vars(options).pop("rest", ()):
            # This command has begun before the "--", which is a word of it.
            tail = [*rest, *words[cut:]]
        options.command = [*options.command, *tail]
        if not options.command and options.needs_command:
            parser.error("what to run is missing; add it at the end, as in: -- sleep 3600")
    return options


def build() -> Parser:
    """The whole command line."""
    top = _Parser(prog="skep", description="Run services across machines, and keep them running.")
    top.add_argument("--version", action=_Version, nargs=0, help="say which release this is")
    commands = top.add_subparsers(metavar="COMMAND", required=True)
    parts = (local, node, service, stack, network, storage, execute, look, context)
    for part in parts:
        part.add(commands)
    command(commands, "version", "version.show", "say which release this is")
    return top
