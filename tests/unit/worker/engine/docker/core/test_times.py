"""Times as the engine writes them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skep.domain.base import SECOND_NS
from skep.worker.engine.docker.core.times import parse_time_ns

NEW_YEAR_NS = 1_767_225_600 * SECOND_NS


@pytest.mark.parametrize(
    ("text", "ns"),
    [
        ("1970-01-01T00:00:01Z", SECOND_NS - NEW_YEAR_NS),
        ("1969-12-31T23:30:01-00:30", SECOND_NS - NEW_YEAR_NS),
        ("2026-01-01T00:00:01.000000002Z", SECOND_NS + 2),
        ("2026-01-01T00:00:01Z", SECOND_NS),
        ("2026-01-01T00:00:01z", SECOND_NS),
        ("2026-01-01T00:00:01.5Z", 1_500_000_000),
        ("2026-01-01T02:00:01.25+02:00", 1_250_000_000),
        ("2025-12-31T22:00:01.25-02:00", 1_250_000_000),
        ("2025-12-31T22:00:01-02:00", SECOND_NS),
    ],
)
def test_times(text: str, ns: int) -> None:
    assert parse_time_ns(text) == NEW_YEAR_NS + ns


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "2026-01-01",
        "2026-01-01T00:00:01",
        "2026-13-01T0Z",
        "2026-13-01T00:00:00Z",
        "2026-01-01T00:00:00+24:00",
        "٢٠٢٦-01-01T00:00:00Z",
        "0001-01-01T00:00:00Z",
    ],
)
def test_what_is_no_time(text: str) -> None:
    assert parse_time_ns(text) is None


@given(st.from_regex(r"\A\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)\Z"))
def test_whatever_looks_like_a_time_is_read_or_not(text: str) -> None:
    parse_time_ns(text)
