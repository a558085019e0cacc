"""What `--filter` keeps of lists."""

from __future__ import annotations

import re

import pytest

from tests.unit.cli.shell import STACK, Shell


@pytest.fixture
def lists(shell: Shell) -> Shell:
    assert shell.skep(f"stack deploy -c {shell.file(STACK)} shop") == 0
    for name, labels in (("api", "-l team=shop -l tier=1"), ("apis", "-l team=pay")):
        assert shell.skep(f"service create --name {name} {labels} -- serve") == 0
    return shell


def names(lists: Shell, line: str) -> list[object]:
    return [row["name"] for row in lists.rows(line)]


@pytest.mark.parametrize(
    ("filters", "kept"),
    [
        ("", "api apis shop_clock shop_web"),
        ("--filter name=api", "api apis"),
        ("-f name=apis -f name=shop_w", "apis shop_web"),
        ("-f name=web", ""),
        ("-f label=team", "api apis"),
        ("-f label=team=shop", "api"),
        ("-f label=team -f label=tier=1", "api"),
        ("-f label=team=pay -f label=tier=1", ""),
        ("-f name=apis -f label=team=shop", ""),
    ],
)
def test_services(lists: Shell, filters: str, kept: str) -> None:
    assert names(lists, f"service ls {filters}") == kept.split()


def test_services_of_a_stack_and_by_id(lists: Shell) -> None:
    assert names(lists, "stack services shop -f name=shop_w") == ["shop_web"]
    (row,) = lists.rows("service ls -f name=shop_web")
    assert names(lists, f"service ls -f id={row['id']}") == ["shop_web"]


def test_tasks(lists: Shell) -> None:
    rows = lists.rows("stack ps shop")
    nodes = {str(row["node"]) for row in rows}
    assert len(nodes) > 1
    for node in nodes:
        kept = lists.rows(f"stack ps shop -f node={node}")
        assert kept == [row for row in rows if row["node"] == node]
        assert lists.rows(f"node ps {node} -f name=shop_web") == [
            row for row in kept if str(row["name"]).startswith("shop_web")
        ]
    assert names(lists, "service ps shop_web -f name=shop_web.2") == ["shop_web.2"]
    assert names(lists, f"service ps shop_clock -f id={rows[0]['id']}") == [
        row["name"] for row in rows[:1] if row["name"] == "shop_clock.1"
    ]


def test_tasks_by_what_is_wanted_of_them(lists: Shell) -> None:
    assert lists.skep("service update api --env-add A=1") == 0
    before = lists.rows("service ps api")
    wanted = lists.rows("service ps api -f desired-state=running")
    ended = lists.rows("service ps api -f desired-state=shutdown")
    assert len(before) == len(wanted) + len(ended)
    assert len(wanted) == 1
    assert ended
    both = "service ps api -f desired-state=running -f desired-state=shutdown"
    assert lists.rows(both) == before


@pytest.mark.parametrize(
    ("line", "code", "says"),
    [
        ("service ls -f web", 2, "--filter 'web' is not known; write one of name=, id=, label="),
        ("service ps web -f label=x", 2, "write one of name=, id=, node=, desired-state="),
        ("stack ps shop -f desired-state=up", 2, "'up' is not one of ready, running, shutdown"),
        ("node ps w1 -f colour=red", 2, "write one of name="),
        ("service ps api -f node=nope", 1, "no node 'nope'"),
    ],
)
def test_mistakes(lists: Shell, line: str, code: int, says: str) -> None:
    assert lists.skep(line) == code
    assert re.fullmatch(r"skep: error: [^\n]+\n", lists.err)
    assert says in lists.err
