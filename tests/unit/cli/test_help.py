"""What `--help` says, and the words of Docker's that are no options of ours."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator

import pytest

from skep.cli import parser
from tests.unit.cli.shell import Shell


def commands(of: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    yield of
    for action in of._actions:
        if isinstance(action, argparse._SubParsersAction):
            for each in action.choices.values():
                yield from commands(each)


def text(shell: Shell, line: str) -> str:
    assert shell.skep(f"{line} --help") == 0
    return " ".join(shell.out.split())


@pytest.mark.parametrize("line", ["service create", "service update"])
def test_every_option_that_describes_a_service_is_explained(line: str) -> None:
    (command,) = (each for each in commands(parser.build()) if each.prog == f"skep {line}")
    assert [a.option_strings for a in command._actions if a.option_strings and not a.help] == []


def test_defaults_are_told_where_they_apply(shell: Shell) -> None:
    told = text(shell, "service create")
    for says in (
        "--update-parallelism N tasks replaced at the same time; 0: all (default: 1)",
        "--update-healthy-deadline DURATION a new task not healthy by then has failed "
        "(default: 5m)",
        "(default: stop-first)",
        "--rollback-failure-action pause|continue what to do when more have failed "
        "(default: pause)",
        "--health-interval DURATION the time between checks (default: 30s)",
        "--log-opt NAME=VALUE max-size or max-file: how much output is kept "
        "(default: max-size=10M, max-file=2)",
    ):
        assert says in told
    # What an update isn't told stays as it is.
    told = text(shell, "service update")
    assert "--update-parallelism N tasks replaced at the same time; 0: all --" in told
    assert re.search(r"--env-rm NAME a variable to remove --", told)
