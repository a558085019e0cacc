from __future__ import annotations

import pytest

from skep.stackfile.interpolate import DEPTH_LIMIT, BadVariable, interpolate

ENVIRON = {"A": "a", "EMPTY": "", "MSG": "say"}


@pytest.mark.parametrize(
    ("text", "expected", "unset"),
    [
        ("plain", "plain", ()),
        ("$A-$A", "a-a", ()),
        ("${A}b", "ab", ()),
        ("$$A $${A}", "$A ${A}", ()),
        ("${NO}x$NO", "x", ("NO",)),
        ("${NO:-d}", "d", ()),
        ("${EMPTY:-d}", "d", ()),
        ("${EMPTY-d}", "", ()),
        ("${NO-d}", "d", ()),
        ("${NO:-}", "", ()),
        ("${A:-d}", "a", ()),
        ("${A:+yes}", "yes", ()),
        ("${EMPTY:+yes}", "", ()),
        ("${EMPTY+yes}", "yes", ()),
        ("${NO+yes}", "", ()),
        ("${A:?why}", "a", ()),
        ("${EMPTY?why}", "", ()),
        ("${NO:-${A}-${EMPTY:-x}}", "a-x", ()),
        ("${A:-${NO:?never asked}}", "a", ()),
        ("${A:-$NO}", "a", ()),
        ("${NO:-http://h:80/?q}", "http://h:80/?q", ()),
        ("{{.Task.Address}}:${A}", "{{.Task.Address}}:a", ()),
    ],
)
def test_variables(text: str, expected: str, unset: tuple[str, ...]) -> None:
    found = interpolate(text, ENVIRON)
    assert (found.text, tuple(found.unset)) == (expected, unset)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("${NO:?give a tag}", "variable 'NO' must be set: give a tag"),
        ("${NO?${MSG} it}", "must be set: say it"),
        ("${EMPTY:?}", "variable 'EMPTY' must be set; set it"),
        ("${A", "never closed"),
        ("${NO:-${A}", "never closed"),
        ("$(date)", "write '$$'"),
        ("cost: 5$", "write '$$'"),
        ("${}", "write '$$'"),
        ("${1}", "write '$$'"),
        ("${A!x}", "followed by '!'"),
        ("${A:=x}", "followed by ':'"),
        ("${A:-" * (DEPTH_LIMIT + 1) + "}" * (DEPTH_LIMIT + 1), "deep"),
    ],
)
def test_what_is_refused(text: str, part: str) -> None:
    with pytest.raises(BadVariable) as caught:
        interpolate(text, ENVIRON)
    assert part in str(caught.value)


@pytest.mark.parametrize(
    ("text", "position"),
    [
        ("a ${NO:-${A} b", 2),
        ("a $A ${NO:-${A!}}", 11),
        ("a $A ${NO:-$}", 11),
        ("$$ ${A} ${NO:?${A}}", 8),
    ],
)
def test_what_is_refused_is_known_by_its_dollar_sign(text: str, position: int) -> None:
    with pytest.raises(BadVariable) as caught:
        interpolate(text, ENVIRON)
    assert caught.value.position == position


def test_an_unset_variable_is_known_by_its_first_dollar_sign() -> None:
    assert interpolate("$A ${NO:-${B}} $B $$C $C", ENVIRON).unset == {"B": 9, "C": 22}
