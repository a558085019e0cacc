"""What a benchmark's rows say, and what they must not claim."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable

import pytest

from bench.report import Recorded, Row, against, at_most, percentile, run, seconds

SWARM = Recorded(17.9, "Docker Swarm, another day")


def rows(is_quick: bool) -> Iterable[Row]:
    yield at_most("slow", "s", 4.0, 3.0, SWARM)
    yield against("beside", "s", 3.0, ("by hand", 2.0), 2.0)
    yield Row("trials", "", 1.0 if is_quick else 20.0)


def printed(monkeypatch: pytest.MonkeyPatch, *flags: str) -> int:
    monkeypatch.setattr(sys, "argv", ["bench", *flags])
    with pytest.raises(SystemExit) as ended:
        run("none", "no text", rows)
    assert isinstance(ended.value.code, int)
    return ended.value.code


def test_a_row_as_json(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert printed(monkeypatch, "--json", "--quick") == 1
    slow, beside, trials = map(json.loads, capsys.readouterr().out.splitlines())
    assert slow == {
        "metric": "slow",
        "unit": "s",
        "skep": 4.0,
        "peer_name": "recorded",
        "peer": 17.9,
        "ratio": None,
        "aim": "<= 3",
        "ok": False,
        "note": "Docker Swarm, another day",
    }
    assert (beside["peer_name"], beside["ratio"], beside["ok"]) == ("by hand", 1.5, True)
    assert (trials["skep"], trials["ok"]) == (1.0, None)


def test_a_row_in_the_table(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    printed(monkeypatch)
    head, *lines = capsys.readouterr().out.splitlines()
    words = ["metric", "unit", "skep", "peer_name", "peer", "ratio", "aim", "ok", "note"]
    assert head.split() == words
    said = "slow s 4 recorded 17.9 - <= 3 NO Docker Swarm, another day"
    assert lines[0].split() == said.split()


def test_seconds_are_told_as_median_and_p90() -> None:
    times = [float(number) for number in range(20)]
    median, p90 = seconds("it", times, 18.0, SWARM)
    assert (median.metric, median.skep, median.is_ok) == ("it, median of 20", 10.0, None)
    assert (p90.metric, p90.skep, p90.is_ok) == ("it, p90", 18.0, True)
    assert (p90.peer, p90.ratio) == (17.9, None)
    assert percentile([3.0], 0.9) == 3.0
