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


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("service update web --env FOO=1", "did you mean --env-add; see"),
        ("service update web --publish=80", "did you mean --publish-add; see"),
        ("service create --name x --env-add A=1 -- y", "did you mean --env"),
        ("service create --name x --limit 1 -- y", "did you mean --limit-cpu or --limit-memory or"),
        ("service create --name x --update 1 -- y", "did you mean one of --update-..."),
        ("service create --name x --replica 1 -- y", "did you mean --replicas"),
        ("service create --name x --isolation y -- y", "'--isolation' is not supported yet"),
        ("network create --ipv6 x", "'--ipv6' is not supported yet"),
        ("network rm -f x", "'-f' is not supported yet"),
        ("secret create --driver x y z", "'--driver' is not supported yet"),
        ("config create --labl a=b x y", "did you mean --label; see"),
        ("service create --name x --mode global -- y", "'--mode' is not supported yet"),
        ("service create --name x -t -- y", "unrecognized arguments: -t"),
        ("service update web --network foo", "did you mean --network-add; see"),
        ("service update web --cap-add foo", "'--cap-add' is not supported yet"),
        ("node ls --filter name=w1", "'--filter' is not supported yet"),
        ("node ls -f x", "'-f' is not supported yet"),
        ("service ps -x web", "unrecognized arguments: -x"),
        ("service ls web", "unrecognized arguments: web"),
        ("service ls --frobnicate", "unrecognized arguments: --frobnicate"),
        (
            "service update x python3 -m http.server",
            "unrecognized arguments: -m; options of the command to run come after '--'",
        ),
        ("service rm web --detach=maybe", "--detach: 'maybe' is neither true nor false"),
    ],
)
def test_an_unknown_option_is_told_with_what_is_meant(shell: Shell, line: str, says: str) -> None:
    command = " ".join(line.split()[:2])
    assert shell.skep(line) == 2
    assert says in shell.err
    assert shell.err.endswith(f"; see 'skep {command} --help'\n")
    assert shell.err.count("\n") == 1
    assert ("did you mean" in shell.err) == ("did you mean" in says)


@pytest.mark.parametrize(
    ("words", "is_detached"),
    [
        ("--detach", True),
        ("--detach=true", True),
        ("-d=1", True),
        ("--detach=false", False),
        ("--detach=False --detach", True),
        ("-d --detach=0", False),
    ],
)
def test_a_switch_may_be_said_to_be_on_or_off(words: str, is_detached: bool) -> None:
    options = parser.parse(["service", "rm", *words.split(), "web"])
    assert (options.detach, options.refs) == (is_detached, ["web"])


@pytest.mark.parametrize(
    ("line", "same"),
    [
        ("service list -q", "service ls -q"),
        ("node remove w1", "node rm w1"),
        ("stack up -c x.yml", "stack deploy -c x.yml"),
        ("service create --name x -u me -w / y", "service create --name x --user me --workdir / y"),
    ],
)
def test_other_words_for_the_same(line: str, same: str) -> None:
    found, meant = (vars(parser.parse(each.split())) for each in (line, same))
    for options in (found, meant):
        options["run"] = options["run"].__qualname__, options["run"].__closure__[0].cell_contents
    assert found == meant
