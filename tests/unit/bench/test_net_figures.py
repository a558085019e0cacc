"""The network benchmark's own arithmetic, on what its load generators really print."""

from __future__ import annotations

import json
import os

import pytest

from bench.net.figures import (
    BULK,
    KEPT,
    NEW,
    Aims,
    BadOutput,
    Load,
    Reading,
    compare,
    parse_iperf,
    parse_wrk,
    percentile_rows,
    skipped,
)
from bench.net.load import descendants
from bench.net.manager import Plan, Series, addresses
from bench.net.updates import series_rows

WRK = """\
Running 1s test @ http://10.0.1.21:8080/
  1 threads and 32 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     1.30ms    2.71ms  30.27ms   90.02%
    Req/Sec    20.20k     3.66k   25.70k    60.00%
  20129 requests in 1.00s, 4.26MB read
{more}Requests/sec:  20047.20
Transfer/sec:      4.24MB
"""


def test_a_run_of_wrk() -> None:
    assert parse_wrk(WRK.format(more="")) == (20047.2, 20129.0, "")


def test_errors_of_wrk_are_told() -> None:
    text = WRK.format(
        more="  Socket errors: connect 0, read 3, write 0, timeout 1\n"
        "  Non-2xx or 3xx responses: 5\n"
    )
    assert parse_wrk(text)[2] == (
        "Socket errors: connect 0, read 3, write 0, timeout 1; Non-2xx or 3xx responses: 5"
    )


@pytest.mark.parametrize(
    "text",
    ["", "unable to connect to 10.0.0.1:80 Connection refused", WRK.replace("20129", "0")],
)
def test_no_answer_is_no_result_of_wrk(text: str) -> None:
    with pytest.raises(BadOutput, match="wrk"):
        parse_wrk(text.format(more=""))


def test_a_run_of_iperf() -> None:
    end = {"sum_received": {"bits_per_second": 8e9, "bytes": 1_500_000_000}}
    assert parse_iperf(json.dumps({"start": {}, "end": end})) == (8.0, 1.5, "")


@pytest.mark.parametrize(
    "text",
    [
        "",
        json.dumps({"error": "the server is busy running a test", "end": {}}),
        json.dumps({"end": {"sum_received": {"bits_per_second": 0, "bytes": 0}}}),
    ],
)
def test_nothing_received_is_no_result_of_iperf(text: str) -> None:
    with pytest.raises(BadOutput, match="iperf3"):
        parse_iperf(text)


def test_ratios_are_of_neighbours_and_their_median_counts() -> None:
    """The machine is ten times as slow in one round, which changes nothing about a ratio; the
    ratio of the medians would be another."""
    direct = [reading(1000.0, 10.0), reading(100.0, 10.0), reading(200.0, 20.0)]
    ours = [reading(900.0, 12.0), reading(80.0, 11.0), reading(190.0, 30.0)]
    rate, cpu = compare("path", {KEPT: ours}, ("direct", {KEPT: direct}), {KEPT: Aims(0.9, 1.1)})
    assert (rate.metric, rate.unit) == ("path: kept-alive requests", "1/s")
    assert (rate.skep, rate.peer_name, rate.peer) == (190.0, "direct", 200.0)
    assert (rate.ratio, rate.aim, rate.is_ok) == (0.9, ">= 0.9x", True)
    assert rate.note == "ratios: median 0.9, 0.8 to 0.95"
    assert (cpu.metric, cpu.unit) == ("path: CPU per request", "us")
    assert cpu.skep == pytest.approx(12.0)
    assert cpu.peer == pytest.approx(10.0)
    assert cpu.ratio == pytest.approx(1.2)
    assert (cpu.aim, cpu.is_ok) == ("<= 1.1x", False)


@pytest.mark.parametrize(("share", "is_ok"), [(0.97, False), (0.98, True)])
def test_a_rate_below_its_bound_is_missed(share: float, is_ok: bool) -> None:
    ours, direct = [reading(share * 1000.0, 1.0)], [reading(1000.0, 1.0)]
    rate, cpu = compare("path", {NEW: ours}, ("direct", {NEW: direct}), {NEW: Aims(0.98)})
    assert rate.is_ok is is_ok
    assert (cpu.aim, cpu.is_ok) == ("-", None)


def test_errors_are_told_once_whoever_had_them() -> None:
    ours = [reading(1.0, 1.0, "read 3"), reading(1.0, 1.0, "read 3")]
    direct = [reading(1.0, 1.0), reading(1.0, 1.0, "timeout 1")]
    rate, _ = compare("path", {NEW: ours}, ("direct", {NEW: direct}), {NEW: Aims()})
    assert rate.note.endswith("; read 3; timeout 1")


@pytest.mark.parametrize(
    ("load", "shown"), [(KEPT, 20.0), (NEW, 20.0), (BULK, pytest.approx(20e-6))]
)
def test_cpu_has_the_unit_of_its_load(load: Load, shown: float) -> None:
    each = [Reading(rate=1.0, pieces=100.0, cpu_s=0.002)]
    _, cpu = compare("path", {load: each}, ("direct", {load: each}), {load: Aims()})
    assert cpu.skep == shown


def test_times_are_told_in_ms_with_their_bound() -> None:
    times_s = [number / 1000 for number in range(1, 101)]
    median, high = percentile_rows("change", times_s, 0.99, 99.0)
    assert (median.metric, median.skep, median.is_ok) == ("change, median of 100", 50.5, None)
    assert (high.metric, high.skep, high.aim, high.is_ok) == ("change, p99", 100.0, "<= 99", False)


def test_a_series_has_its_cpu_beside_it() -> None:
    median, high, cpu = series_rows("attach", Series(times_s=(0.004,), cpu_s=0.003), 0.9, 10.0)
    assert (median.skep, high.skep, high.is_ok) == (4.0, 4.0, True)
    assert (cpu.metric, cpu.unit, cpu.skep) == ("attach, CPU of one node", "ms", 3.0)
    assert list(series_rows("attach", Series(), 0.9, 10.0)) == []


def test_what_is_skipped_has_no_figure_and_its_reason() -> None:
    row = skipped("relay", "not installed: wrk")
    assert (row.skep, row.is_ok, row.note) == (None, None, "skipped: not installed: wrk")


def test_addresses_of_one_cluster_are_all_different() -> None:
    plan = Plan(address="", nodes=(("a", "1"), ("b", "2")), sockets=(), services=1000, big=1000)
    given = addresses(plan)
    assert len(given) == len(set(given)) > 5000


def test_descendants_begin_with_the_process_itself() -> None:
    assert descendants(os.getpid())[0] == os.getpid()


def reading(rate: float, cpu_us: float, errors: str = "") -> Reading:
    return Reading(rate=rate, pieces=1000.0, cpu_s=cpu_us * 1000.0 / 1e6, errors=errors)
