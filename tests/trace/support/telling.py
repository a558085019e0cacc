"""What the traces share."""

from __future__ import annotations

import textwrap

import pytest

from tests.trace.support.stage import Stage


@pytest.fixture
def stage() -> Stage:
    """Two nodes, and nothing on them."""
    stage = Stage()
    stage.register("n1")
    stage.register("n2")
    return stage


def tells(stage: Stage, expected: str) -> None:
    """Compare what has happened since the last time."""
    assert stage.story() == textwrap.dedent(expected).strip("\n")
