"""Files of variables, by Compose's rules."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skep.stackfile import StackFileError, read_dotenv


def variables(text: str, **environ: str) -> dict[str, str]:
    return read_dotenv(text, file=".env", environ=environ, warn=lambda line: None)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", {}),
        ("A=1\nB = 2 \r\n\n  # note\nC=", {"A": "1", "B": "2", "C": ""}),
        ("export A=1", {"A": "1"}),
        ("A: 1", {"A": "1"}),
        ("A=a b # note", {"A": "a b"}),
        ("A=a#b", {"A": "a#b"}),
        ("A= #b", {"A": ""}),
        ("A='x $B # \\n'  # note", {"A": "x $B # \\n"}),
        ('A="x\\n\\"y\\"" # note', {"A": 'x\n"y"'}),
        ("A='it\\'s \\t'", {"A": "it's \\t"}),
        ("A='1\n2'\nB=3", {"A": "1\n2", "B": "3"}),
        ("A=1\nB=${A}2\nC=${D:-d}", {"A": "1", "B": "12", "C": "d"}),
        ('B="${A:-a}\\$A"', {"B": "a$A"}),
        ("A=1\nA=2", {"A": "2"}),
        ("A=1=2", {"A": "1=2"}),
        ("A", {}),
        ("A.b-c=1", {"A.b-c": "1"}),
    ],
)
def test_what_is_read(text: str, expected: dict[str, str]) -> None:
    assert variables(text) == expected


def test_the_environment_wins_inside_values() -> None:
    assert variables("A=1\nB=$A", A="env") == {"A": "1", "B": "env"}


def test_an_unset_variable_is_told_once_with_its_place() -> None:
    lines: list[str] = []
    read_dotenv("A=1\nB=$NO\nC=$NO", file=".env", environ={}, warn=lines.append)
    assert lines == [".env:2:3: variable 'NO' is not set; it becomes empty"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A=1\n=2", ".env:2:1: no variable; write NAME=value, or '#' before a comment"),
        ("A=1\nB x", ".env:2:3: '=' is missing after 'B'"),
        ("A='1", ".env:1:3: the quote ' is never closed; add another"),
        ('A="1\n', '.env:1:3: the quote " is never closed; add another'),
        ("A='1'2", ".env:1:6: something follows the closing quote; remove it"),
        ("A=$(x)", ".env:1:3: '$' is not followed by a variable's name; write '$$'"),
        ("A=" + "x" * 2**20, ".env:1:1: more than 1048576 characters"),
    ],
)
def test_what_is_refused(text: str, expected: str) -> None:
    with pytest.raises(StackFileError) as caught:
        variables(text)
    assert str(caught.value).startswith(expected)


@given(st.text(alphabet="AB=:'\"\\$#{} \n\t-export", max_size=60) | st.text())
def test_any_text(text: str) -> None:
    caught: StackFileError | None = None
    try:
        assert all(variables(text))
    except StackFileError as error:
        caught = error
    if caught:
        assert f".env:{caught.line}:{caught.column}" in str(caught)
