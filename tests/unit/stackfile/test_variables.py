"""Variables in whole files: where they count, and which place is told."""

from __future__ import annotations

import pytest

from tests.unit.stackfile.files import refused, service, told

SCRIPT = """\
services:
  a:
    environment:
      NOTE: >
        folded
        text $$ and ${%s

      WIDE: "\\
        one $$ \\
        two ${%s"
    command:
      - sh
      - -c
      - |
        echo $$HOME
        é echo  ${%s
"""


def test_one_warning_per_variable_at_its_very_place() -> None:
    found = told(SCRIPT % ("ONE}", "TWO}", "ONE}$THREE"))
    assert found.warnings == (
        "a.yml:6:21: variable 'ONE' is not set; it becomes empty",
        "a.yml:10:13: variable 'TWO' is not set; it becomes empty",
        "a.yml:16:23: variable 'THREE' is not set; it becomes empty",
    )
    assert found.only.task.run.args == ("sh", "-c", "echo $HOME\né echo  \n")
    assert found.only.task.run.env == (("NOTE", "folded text $ and \n"), ("WIDE", "one $ two "))


def test_errors_are_at_the_dollar_sign_too() -> None:
    assert refused(SCRIPT % ("A:?}", "B!}", "C")) == [
        "a.yml:6:21: variable 'A' must be set; set it in the environment",
        "a.yml:10:13: '${B' is followed by '!'; write '${NAME}', '${NAME:-default}' or "
        "'${NAME:?message}'",
        "a.yml:16:17: '${' is never closed; add '}', or write '$$' for a dollar sign",
    ]


def test_a_variable_inside_a_default_has_its_own_place() -> None:
    found = told(service("user: x${A:-${B}}"))
    assert found.warnings == ("a.yml:4:17: variable 'B' is not set; it becomes empty",)


def test_windows_line_ends_move_no_place() -> None:
    found = told((SCRIPT % ("ONE}", "TWO}", "THREE}")).replace("\n", "\r\n"))
    assert [line.partition(" ")[0] for line in found.warnings] == [
        "a.yml:6:21:",
        "a.yml:10:13:",
        "a.yml:16:17:",
    ]


def test_keys_hold_no_variables() -> None:
    found = told(service("environment: {$A: $A}"), A="a").only
    assert found.task.run.env == (("$A", "a"),)
    assert "unknown key '$A'" in refused(service("$A: 1"), A="user")[0]


def test_extension_fields_are_left_alone_but_for_what_is_taken_from_them() -> None:
    text = """\
        x-log: &log {max-file: "${N}"}
        x-other: $(date) $NOPE
        services:
          x-a:
            command: x
            x-note: $(date) $NOPE
            environment: {x-b: $N}
            logging: {options: *log}
            x-engine: ${ENGINE}
        """
    found = told(text, N="7", ENGINE="process")
    assert found.only.task.run.log.max_files == 7
    assert found.only.task.run.env == (("x-b", "7"),)
    assert found.warnings == ()


def test_a_service_may_be_called_like_a_map_of_names() -> None:
    found = told(service("x-note: $NOPE", name="labels"))
    assert (found.only.name, found.warnings) == ("shop_labels", ())


def test_where_dollar_signs_can_not_be_told_apart_the_scalar_is_named() -> None:
    found = told(service('user: "\\x24$A $B"'))
    assert found.warnings == ("a.yml:4:11: variable 'B' is not set; it becomes empty",)
    assert found.only.task.run.user == "$A "


def test_what_is_empty_is_a_value() -> None:
    assert told(service("environment: {A: $E}"), E="", A="env").only.task.run.env == (("A", ""),)
    assert told(service("user: $E"), E="null").only.task.run.user == "null"
    assert refused(service("deploy: {replicas: $E}"), E="") == [
        "a.yml:4:24: replicas: '' is not a whole number"
    ]


@pytest.mark.parametrize(
    ("line", "environ", "expected"),
    [
        ("user: $A", {"A": "\udcff"}, "a.yml:4:11: holds bytes that are not UTF-8"),
        ("environment: [A]", {"A": "\udcff"}, "a.yml:4:18: holds bytes that are not UTF-8"),
        ('user: "\\0"', {}, "a.yml:4:11: holds a NUL character, which no program can take"),
    ],
)
def test_what_no_program_can_take(line: str, environ: dict[str, str], expected: str) -> None:
    assert expected in refused(service(line), **environ)[0]


@pytest.mark.parametrize(
    "text", ["no", "on", "22:22", "0o777", "1_000", "010", "1.10", "~x", "1e3"]
)
def test_a_scalar_is_what_is_written(text: str) -> None:
    found = told(service(f"environment: {{A: {text}}}", f"user: {text}")).only.task.run
    assert (found.env, found.user) == ((("A", text),), text)
