"""What is remembered of a namespace is of that one alone."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from skep.netproxy.kernel.adapters import netns
from skep.netproxy.kernel.adapters.known import Known
from tests.support.netns import needs_namespaces

pytestmark = needs_namespaces()
DEADLINE_S = 20.0


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "namespace"


def test_it_is_known_until_it_is_forgotten(path: Path) -> None:
    known: Known[str] = Known()
    netns.make(path, lambda: None)
    try:
        assert known.get(str(path)) is None
        known.set(str(path), "this one")
        assert known.get(str(path)) == "this one"
        known.forget(str(path))
        assert known.get(str(path)) is None
    finally:
        netns.remove(path)


def test_another_one_of_the_same_name_and_number_is_not_known(path: Path) -> None:
    knowing: dict[int, Known[str]] = {}
    until = time.monotonic() + DEADLINE_S
    while True:
        netns.make(path, lambda: None)
        try:
            known = knowing.setdefault(path.stat().st_ino, Known())
            assert known.get(str(path)) is None
            if known.names():
                return
            known.set(str(path), "the first one of this number")
        finally:
            netns.remove(path)
        assert time.monotonic() < until, "no number came back"
