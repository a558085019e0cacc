"""One Docker engine for all tests of this folder; each leaves it as it found it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.dockerd import Dockerd, dockerd, why_not


@pytest.fixture(scope="session")
def engine() -> Iterator[Dockerd]:
    if reason := why_not():
        pytest.skip(reason)
    with dockerd() as made:
        yield made
