"""Whatever stands in a file: a StackSpec, or a StackFileError that names its place."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, TypeVar

from hypothesis import given, settings
from hypothesis import strategies as st

from skep.stackfile import StackFileError, decode, keys, parse

SECTIONS = [value for value in vars(keys).values() if isinstance(value, keys.Section)]
KNOWN = sorted({key for section in SECTIONS for key in section.supported | section.extensions})
WORDS = [
    *KNOWN, "8080:80", "1m30s", "100M", "0.5", "any", "tcp", "CMD", "NONE", "true", "null", "",
    "${A}", "${B:-x}", "$", "{{.Task.Slot}}", "a == b", "A=1", "65536", "-1", "1-9:1-9", "<<",
]  # fmt: skip

scalars = st.sampled_from(WORDS) | st.text(max_size=8) | st.integers() | st.none() | st.booleans()
words = st.sampled_from(KNOWN) | st.text(max_size=6)
trees = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(words, inner, max_size=6),
    max_leaves=30,
)
services = st.dictionaries(st.sampled_from(sorted(keys.SERVICE.supported)), trees, max_size=6)
stacks = st.fixed_dictionaries({"services": st.dictionaries(words, services, max_size=3)})
yaml_text = st.text(alphabet="abc:-[]{}&*!|>'\"%#@`?, \n\t$\0\x85\ud800é0", max_size=80)


T = TypeVar("T")


def outcome(attempt: Callable[[], T]) -> T | StackFileError:
    try:
        return attempt()
    except StackFileError as error:
        return error


def check(text: str) -> None:
    found = outcome(lambda: parse(text, file="f", name="s", environ={"A": "1"}))
    if isinstance(found, StackFileError):
        assert min(found.line, found.column) >= 1
        assert f"f:{found.line}:{found.column}" in str(found)
    else:
        hash(found)


@given(yaml_text | st.text())
@settings(max_examples=300)
def test_any_text(text: str) -> None:
    check(text)


@given(stacks | trees)
@settings(max_examples=300)
def test_any_tree(tree: Any) -> None:
    check(json.dumps(tree, ensure_ascii=False))


@given(st.binary())
def test_any_bytes(data: bytes) -> None:
    text = outcome(lambda: decode(data, file="f"))
    if isinstance(text, str):
        check(text)
