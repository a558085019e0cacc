"""Stack files at the command line: several of them, their variables, and what they mean."""

from __future__ import annotations

import io
import json
import sys
from typing import Any

import pytest

from tests.unit.cli.shell import STACK, Shell

OVER = "services: {web: {deploy: {replicas: 5}}, clock: {command: 'tick ${SPEED:-1}'}}"


def stdin(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))


def config(shell: Shell, line: str) -> Any:
    assert shell.skep(f"stack config --format json {line}") == 0, shell.err
    return json.loads(shell.out)


@pytest.mark.parametrize("flag", ["-c", "-f", "--compose-file", "--file"])
def test_later_files_are_merged_over_earlier_ones(shell: Shell, flag: str) -> None:
    first, second = shell.file(STACK), shell.file(OVER, "over.yml")
    assert shell.skep(f"stack deploy -d {flag} {first} {flag} {second}") == 0, shell.err
    rows = {row["name"]: row for row in shell.rows("service ls")}
    assert sorted(map(str, rows)) == ["shop_clock", "shop_web"]
    assert "5" in str(rows["shop_web"])


def test_the_same_files_again_change_nothing(shell: Shell) -> None:
    line = f"-c {shell.file(STACK)} -c {shell.file(OVER, 'over.yml')}"
    assert shell.skep(f"stack deploy -d {line}") == 0
    assert shell.skep(f"stack deploy -d {line}") == 0
    assert shell.err == "unchanged shop_web\nunchanged shop_clock\n"
    # Nor does the one file that means the same.
    assert shell.skep(f"stack config {line}") == 0
    assert shell.skep(f"stack deploy -d -c {shell.file(shell.out, 'whole.yml')}") == 0
    assert shell.err == "unchanged shop_web\nunchanged shop_clock\n"


def test_config_prints_what_the_files_mean(shell: Shell) -> None:
    line = f"-c {shell.file(STACK)} -c {shell.file(OVER, 'over.yml')}"
    assert shell.skep(f"stack config {line}") == 0
    assert shell.err == ""
    assert shell.out == (
        "name: shop\n"
        "services:\n"
        "  web:\n"
        "    command:\n"
        "    - serve\n"
        "    ports:\n"
        "    - target: 80\n"
        "      published: 8080\n"
        "      protocol: tcp\n"
        "      mode: ingress\n"
        "    deploy:\n"
        "      mode: replicated\n"
        "      replicas: 5\n"
        "  clock:\n"
        "    command:\n"
        "    - tick\n"
        "    - '1'\n"
        "    deploy:\n"
        "      mode: replicated\n"
        "      replicas: 1\n"
    )
    assert config(shell, line)["services"]["clock"]["command"] == ["tick", "1"]
    found = config(shell, f"--no-interpolate {line} other")
    assert found["name"] == "other"
    assert found["services"]["clock"] == {"command": "tick ${SPEED:-1}"}
    assert shell.world.transport.calls == []


def test_quiet_config_only_checks(shell: Shell) -> None:
    assert shell.skep(f"stack config -q -c {shell.file(STACK)}") == 0
    assert (shell.out, shell.err) == ("", "")
    path = shell.file("services: {a: {comand: x}}")
    assert shell.skep(f"stack config -q -c {path}") == 2
    assert shell.skep(f"stack config -q --no-interpolate -c {path}") == 0
    assert shell.skep(f"stack config -q --no-interpolate -c {shell.file('[a]')}") == 2
    assert shell.skep("stack config") == 2


def test_all_that_is_wrong_is_told_a_line_each(shell: Shell) -> None:
    first = shell.file(STACK)
    second = shell.file("services:\n  web: {deploy: {replicas: x}, user: [a]}\n", "over.yml")
    assert shell.skep(f"stack deploy -c {first} -c {second}") == 2
    assert shell.err == (
        f"skep: error: {second}:2:28: replicas: 'x' is not a whole number\n"
        f"skep: error: {second}:2:38: user must be text, but this is a list\n"
    )
    assert [call[1].rpartition("/")[2] for call in shell.world.transport.calls] == ["GetCluster"]
    assert shell.skep(f"up {second}") == 2
    assert len(shell.err.splitlines()) == 3


def test_stdin_is_read_once(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    stdin(monkeypatch, OVER)
    assert config(shell, f"-c {shell.file(STACK)} -c -")["services"]["web"]["deploy"] == {
        "mode": "replicated",
        "replicas": 5,
    }
    assert shell.skep("stack config -c - -c -") == 2
    assert shell.err == "skep: error: '-', which is stdin, can be read only once; name a file\n"
    stdin(monkeypatch, STACK)
    assert shell.skep("stack config -c -") == 2
    assert shell.err.startswith("skep: error: stdin:1:1: the stack has no name")


def test_a_file_from_powershell_is_read(shell: Shell) -> None:
    (shell.folder / "shop.yml").write_bytes(STACK.encode("utf-16"))
    assert config(shell, f"-c {shell.folder}/shop.yml")["name"] == "shop"


def test_variables_beside_the_first_file_are_read(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    (shell.folder / "sub").mkdir()
    first = shell.file("services: {a: {command: '$A $B', environment: [C]}}")
    shell.file("A=dot\nB=dot\nC=${A}c", ".env")
    shell.file("A=sub", "sub/.env")
    second = shell.file("services: {a: {user: $A}}", "sub/over.yml")
    monkeypatch.setenv("B", "shell")
    assert config(shell, f"-c {first} -c {second}")["services"]["a"] == {
        "command": ["dot", "shell"],
        "environment": {"C": "dotc"},
        "user": "dot",
        "deploy": {"mode": "replicated", "replicas": 1},
    }
    # A named file is read instead of it, and the last one counts.
    env = f"--env-file {shell.file('A=one', 'one.env')} --env-file {shell.file('A=${A}2', 'two')}"
    assert config(shell, f"-c {first} {env}")["services"]["a"]["command"] == ["one2", "shell"]


def test_variables_that_can_not_be_read_are_refused(shell: Shell) -> None:
    first = shell.file(STACK)
    assert shell.skep(f"stack deploy -c {first} --env-file /nowhere/x") == 2
    assert shell.err == "skep: error: /nowhere/x: No such file or directory\n"
    path = shell.file("A='1", "bad.env")
    assert shell.skep(f"stack deploy -c {first} --env-file {path}") == 2
    assert shell.err == f"skep: error: {path}:1:3: the quote ' is never closed; add another\n"
    assert shell.skep(f"stack deploy -c {shell.folder}") == 2
    assert shell.err == f"skep: error: {shell.folder}: Is a directory\n"


def test_what_is_odd_is_told_before_the_deploy(shell: Shell) -> None:
    path = shell.file(
        "services:\n  a: {command: x, deploy: {update_config: {order: start-first}}}\n"
    )
    assert shell.skep(f"stack deploy -d -c {path}") == 0
    first, second, third = shell.err.splitlines()
    assert first.startswith(f"skep: warning: {path}:2:51: start-first without a healthcheck")
    assert (second, third) == ("created network shop_default", "created shop_a")


def test_what_a_manager_refuses_names_the_file_that_the_service_is_in(shell: Shell) -> None:
    assert shell.skep("service create --name api -p 8081:80 -- serve") == 0
    second = shell.file("services:\n  more: {command: x, ports: ['8081:80']}\n", "over.yml")
    assert shell.skep(f"stack deploy -c {shell.file(STACK)} -c {second}") == 5
    assert shell.err.startswith(f"skep: error: {second}:2:3: service 'shop_more': port 8081/tcp is")
