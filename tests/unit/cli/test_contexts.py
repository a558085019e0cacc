"""Names for clusters, and which cluster a command means."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from skep.cli import contextfile, parser
from skep.cli.contexts import Config, Context, Given, Target, addresses, choose, read, write
from skep.cli.errors import Exit, Failure
from tests.unit.cli.shell import Shell, columns
from tests.unit.client import fake

PROD = Context(managers=("10.0.0.1:7410", "10.0.0.2:7410"))
LAB = Context(managers=("10.9.0.1:7410",))
CONFIG = Config(current="prod", contexts={"prod": PROD, "lab": LAB})

FULL = Given(
    managers_address="1.1.1.1:1",
    context="lab",
    env_address="2.2.2.2:2",
    env_context="lab",
)


def without(*names: str) -> Given:
    return Given(
        **{name: getattr(FULL, name) for name in Given.__struct_fields__ if name not in names}
    )


@pytest.mark.parametrize(
    ("given", "target"),
    [
        (FULL, Target(managers=("1.1.1.1:1",), why="--managers-address")),
        (
            without("managers_address"),
            Target(managers=LAB.managers, context="lab", why="--context"),
        ),
        (
            Given(cluster="tools", env_address="2.2.2.2:2", env_context="lab"),
            Target(cluster="tools", why="--cluster"),
        ),
        (
            without("managers_address", "context"),
            Target(managers=("2.2.2.2:2",), why="$SKEP_ADDRESS"),
        ),
        (
            Given(env_context="lab"),
            Target(managers=LAB.managers, context="lab", why="$SKEP_CONTEXT"),
        ),
        (Given(), Target(managers=PROD.managers, context="prod", why="the context in use")),
        (Given(context="default"), Target(why="--context")),
    ],
)
def test_options_go_before_the_environment_and_that_before_the_file(
    given: Given, target: Target
) -> None:
    assert choose(given, lambda: CONFIG) == target


def test_without_anything_it_is_the_local_cluster() -> None:
    assert choose(Given(), Config).cluster == "default"


def test_the_file_is_not_read_where_it_does_not_matter() -> None:
    def broken() -> Config:
        raise Failure("broken")

    for given in (Given(managers_address="a:1"), Given(cluster="x"), Given(env_address="a:1")):
        choose(given, broken)
    with pytest.raises(Failure, match="broken"):
        choose(Given(), broken)


def test_two_clusters_at_once_are_refused() -> None:
    with pytest.raises(Failure, match="name two clusters"):
        choose(Given(context="lab", cluster="tools"), lambda: CONFIG)


def test_the_file_survives_the_way_to_the_disk() -> None:
    assert read(write(CONFIG), "config.json") == CONFIG


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "/c.json: not a file of contexts: "),
        (b"[]", "/c.json: not a file of contexts: "),
        (b'{"contexts": {}}', "missing required field `format`"),
        (b'{"format": 1, "contexts": {"a": {"managers": 3}}}', "$.contexts[...].managers"),
        (b'{"format": 2, "unheard": "of"}', "written by a newer skep (format 2, this one knows 1)"),
        (b'{"format": 1, "current": "a"}', "the context in use, 'a', is not in it"),
    ],
)
def test_a_broken_file_is_one_clear_error(data: bytes, says: str) -> None:
    with pytest.raises(Failure) as error:
        read(data, "/c.json")
    assert says in str(error.value)
    assert str(error.value).startswith("/c.json: ")


def test_addresses() -> None:
    assert addresses("a:1, b:2,") == ("a:1", "b:2")
    for wrong in ("a", "a:", ":1", "a:x", "a:\u0661", ","):
        with pytest.raises(Failure) as error:
            addresses(wrong)
        assert error.value.code is Exit.USAGE


@pytest.mark.parametrize(
    ("line", "suffix"),
    [
        ("", ""),
        ("--cluster lab", " --cluster lab"),
        ("--context prod", " --context prod"),
        ("--managers-address h:1,i:2", " --managers-address h:1,i:2"),
    ],
)
def test_the_next_command_is_about_the_same_cluster(line: str, suffix: str) -> None:
    assert contextfile.suffix(parser.parse(["node", "ls", *line.split()])) == suffix


# ------------------------------------------------------------------------ the commands


@pytest.fixture
def config(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = shell.folder / "conf" / "config.json"
    monkeypatch.setenv("SKEP_CONFIG", str(path))
    monkeypatch.delenv("SKEP_ADDRESS")
    monkeypatch.delenv("SKEP_CONTEXT", raising=False)
    return path


def test_a_context_from_birth_to_death(shell: Shell, config: Path) -> None:
    there = ",".join(fake.ADDRESSES)
    assert shell.skep(f"context create prod --managers-address {there}") == 0
    assert shell.out == "prod\n"
    assert stat.S_IMODE(config.stat().st_mode) == 0o600
    assert stat.S_IMODE(config.parent.stat().st_mode) == 0o700
    assert [entry.name for entry in config.parent.iterdir()] == ["config.json"]
    assert shell.skep("node ls") == 2
    assert shell.skep("node ls --context prod") == 0
    assert shell.skep("context use prod") == 0
    assert shell.skep("node ls") == 0
    assert shell.skep("context ls") == 0
    rows = [columns(line) for line in shell.out.splitlines()]
    assert rows == [
        ["NAME", "MANAGERS"],
        ["default", "(the local cluster)"],
        ["prod *", ", ".join(fake.ADDRESSES)],
    ]
    assert shell.skep("context show") == 0
    assert shell.out.startswith("context prod (from the context in use)\n  127.32.0.1:4000\n")
    assert shell.skep("context rm prod") == 5
    assert "is in use; use another one first: skep context use default" in shell.err
    assert shell.skep("context use default") == 0
    assert shell.skep("context rm prod") == 0
    assert [row["name"] for row in shell.rows("context ls")] == ["default"]


def test_contexts_are_removed_all_or_none(shell: Shell, config: Path) -> None:
    shell.skep("context create a --managers-address h:1")
    assert shell.skep("context rm a nope") == 2
    assert "there is no context 'nope'; there are default, a" in shell.err
    assert shell.skep("context ls -q") == 0
    assert shell.out.split() == ["default", "a"]


@pytest.mark.parametrize(
    ("line", "code", "says"),
    [
        ("create a --managers-address h:1", 5, "there is a context 'a' already"),
        ("create default --managers-address h:1", 5, "is the local cluster"),
        ("create a/b --managers-address h:1", 2, "can't be a context's name"),
        ("create b --managers-address h", 2, "'h' is not an address"),
        ("create b", 2, "--managers-address"),
        ("use b", 2, "there is no context 'b'"),
        ("rm default", 5, "always there"),
        ("show --context nope", 2, "there is no context 'nope' (from --context)"),
    ],
)
def test_what_is_refused(shell: Shell, config: Path, line: str, code: int, says: str) -> None:
    shell.skep("context create a --managers-address h:1")
    assert shell.skep(f"context {line}") == code
    assert says in shell.err


def test_unreachable_managers_are_named_with_their_context(shell: Shell, config: Path) -> None:
    shell.skep(f"context create prod --managers-address {','.join(fake.ADDRESSES)}")
    shell.world.transport.down = set(fake.ADDRESSES)
    assert shell.skep("node ls --context prod") == 4
    assert shell.err.startswith("skep: error: context 'prod': no manager at ")
    assert "'skep context show' says where" in shell.err


def test_a_broken_file_is_named(shell: Shell, config: Path) -> None:
    config.parent.mkdir()
    config.write_text("{")
    assert shell.skep("node ls") == 1
    assert shell.err.startswith(f"skep: error: {config}: not a file of contexts: ")
    assert shell.skep("context create a --managers-address h:1") == 1
    assert config.read_text() == "{"


def test_what_goes_before_the_context_in_use_is_said(
    shell: Shell, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SKEP_ADDRESS", "h:1")
    assert shell.skep("context use default") == 0
    assert "$SKEP_ADDRESS is set here, and goes before it" in shell.err
    assert os.environ["SKEP_ADDRESS"] == "h:1"
    assert shell.skep("context show") == 0
    assert shell.out == "no context (from $SKEP_ADDRESS)\n  h:1\n"
