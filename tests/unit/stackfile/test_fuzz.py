"""Whatever stands in files: a StackSpec, or a StackFileError that names its place."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any, TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skep.env import Rejected
from skep.stackfile import Reading, StackFileError, StackText, decode, keys, raw_values, read
from skep.stackfile.interpolate import BadVariable, interpolate
from tests.unit.stackfile.files import refused

SECTIONS = [value for value in vars(keys).values() if isinstance(value, keys.Section)]
KNOWN = sorted({key for section in SECTIONS for key in section.known()})
WORDS = [
    *KNOWN, "8080:80", "1m30s", "100M", "0.5", "any", "tcp", "CMD", "NONE", "true", "null", "",
    "${A}", "${B:-x}", "$", "{{.Task.Slot}}", "a == b", "A=1", "65536", "-1", "1-9:1-9", "<<",
    "start-first", "rollback", "host", "node.labels.zone", "linux/amd64", "default", "$B",
    "overlay", "10.1.2.0/24", "10.1.2.1", "udp", "dnsrr", "v2", "a:/b:ro", "/a:/b", "./a:/b", "/a",
    "nginx:1", "bind", "tmpfs", "always", "x=1", "a:1.2.3.4", "CHOWN", "0440", "all", "gpu",
]  # fmt: skip

scalars = st.sampled_from(WORDS) | st.text(max_size=8) | st.integers() | st.none() | st.booleans()
words = st.sampled_from(KNOWN) | st.text(max_size=6)
trees = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(words, inner, max_size=6),
    max_leaves=30,
)
services = st.dictionaries(
    st.sampled_from(sorted(keys.SERVICE.supported | keys.SERVICE.container)), trees, max_size=6
)
names = st.sampled_from(["a", "b"]) | words
networks = st.dictionaries(
    names,
    st.dictionaries(st.sampled_from(sorted(keys.NETWORK.supported)), trees, max_size=6),
    max_size=3,
)


def objects(section: keys.Section) -> st.SearchStrategy[dict[str, Any]]:
    """What may stand at the top under `volumes` and the like."""
    fields = st.dictionaries(st.sampled_from(sorted(section.supported)), trees, max_size=4)
    return st.dictionaries(names, fields, max_size=3)


stacks = st.fixed_dictionaries(
    {"services": st.dictionaries(names, services, max_size=3)},
    optional={
        "networks": networks,
        "x-engine": st.just("docker"),
        "volumes": objects(keys.VOLUME),
        "configs": objects(keys.CONFIG),
        "secrets": objects(keys.SECRET),
    },
)
yaml_text = st.text(alphabet="abc:-[]{}&*!|>'\"%#@`?, \n\t$\0\x85\ud800é0", max_size=80)
TAGGED = ["!reset", "!override", "!!str", "&x", "!reset &x"]

T = TypeVar("T")


def outcome(attempt: Callable[[], T]) -> T | StackFileError:
    try:
        return attempt()
    except StackFileError as error:
        return error


def check(*files: str) -> None:
    texts = [StackText(f"f{number}", text) for number, text in enumerate(files)]
    warnings: list[str] = []
    reading = Reading({"A": "1"}, name="s", warn=warnings.append)
    for found in (
        outcome(lambda: read(texts, reading)),
        outcome(lambda: raw_values(texts, reading)),
    ):
        if isinstance(found, StackFileError):
            assert min(found.line, found.column) >= 1
            assert f"{found.file}:{found.line}:{found.column}" in str(found)
            assert found.file in [text.file for text in texts]
            assert len(found.others) <= 10
        elif not isinstance(found, dict):
            hash(found.spec)
    assert all(line.startswith("f") for line in warnings)
    assert len({line.partition(" ")[2] for line in warnings if "is not set" in line}) == len(
        [line for line in warnings if "is not set" in line]
    )


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


@given(stacks, stacks | trees, st.lists(st.tuples(st.integers(0, 40), st.sampled_from(TAGGED))))
@settings(max_examples=300)
def test_any_trees_that_are_merged(first: Any, second: Any, tags: list[tuple[int, str]]) -> None:
    parts = json.dumps(second, ensure_ascii=False).split(": ")
    for place, tag in tags:
        parts[place % len(parts)] = f"{tag} {parts[place % len(parts)]}"
    check(json.dumps(first, ensure_ascii=False), ": ".join(parts))


@given(st.text(alphabet="$${}:-?+AB x", max_size=60) | st.text())
@settings(max_examples=500)
def test_any_variables(text: str) -> None:
    position = None
    try:
        found = interpolate(text, {"A": "1", "E": ""})
    except BadVariable as error:
        position = error.position
    else:
        assert all(text[at] == "$" for at in found.unset.values())
        if "$" not in text:
            assert found.text == text
    if position is not None:
        assert text[position] == "$"


# ------------------------------------------------------------------------------- bounds

DEEP = "{a: " * 10_000
BOMB = "\n".join(
    ["x0: &x0 {" + ", ".join(f"k{n}: a" for n in range(10)) + "}"]
    + [
        f"x{n}: &x{n} {{" + ", ".join(f"k{k}: *x{n - 1}" for k in range(10)) + "}"
        for n in range(1, 10)
    ]
)


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ((DEEP,), "nested more than 32 deep"),
        (("[" * 100_000,), "nested more than 32 deep"),
        ((BOMB,), "aliases blow this up"),
        (("services: {a: {command: x}}", BOMB), "aliases blow this up"),
        (("services: {a: {command: '" + "${A:-" * 20_000 + "'}}",), "nested more than 16 deep"),
        (("services: {a: {command: '" + "$" * 1_000_001 + "'}}",), "write '$$' for a dollar sign"),
        (("services: {a: {command: [" + "$A, " * 200_000 + "]}}",), "it can't be empty"),
        (("a: 1\nb: 2\na: 3",), "f0:3:1: key 'a' stands here for the second time (first: f0:1:1)"),
        (("x: 1", "a: 1\na: 3"), "f1:2:1: key 'a' stands here for the second time (first: f1:1:1)"),
    ],
)
def test_what_could_take_for_ever_is_over_soon(files: tuple[str, ...], expected: str) -> None:
    begun = time.process_time()
    texts = [StackText(f"f{number}", text) for number, text in enumerate(files)]
    with pytest.raises(Rejected) as caught:
        read(texts, Reading({"A": ""}, name="s"))
    # Seconds on a slow machine; without the bounds, hours.
    assert time.process_time() - begun < 20
    assert expected in str(caught.value)


def test_mistakes_without_end_are_told_in_ten_lines() -> None:
    text = "services:\n" + "".join(f"  a{n}: {{command: x, frob{n}: 1}}\n" for n in range(5000))
    assert len(refused(text)) == 11
