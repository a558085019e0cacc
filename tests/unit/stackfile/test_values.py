from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from skep.stackfile import values

S = 1_000_000_000


@pytest.mark.parametrize(
    ("parse", "text", "expected"),
    [
        (values.duration_ns, "1m30s", 90 * S),
        (values.duration_ns, "0", 0),
        (values.duration_ns, "0s", 0),
        (values.duration_ns, "1.5h", 5400 * S),
        (values.duration_ns, ".5s", S // 2),
        (values.duration_ns, "1.s", S),
        (values.duration_ns, "100ms", S // 10),
        (values.duration_ns, "3us2ns", 3002),
        (values.duration_ns, "3µs", 3000),
        (values.size_bytes, "100M", 100 * 2**20),
        (values.size_bytes, "1.5G", 3 * 2**29),
        (values.size_bytes, "64kb", 65536),
        (values.size_bytes, "1GiB", 2**30),
        (values.size_bytes, "512", 512),
        (values.size_bytes, "10b", 10),
        (values.cpu_nano, "0.50", S // 2),
        (values.cpu_nano, "2", 2 * S),
        (values.cpu_nano, ".25", S // 4),
        (values.cpu_nano, "0.000000001", 1),
        (values.port, "22", 22),
        (values.port_range, "8000-8002", range(8000, 8003)),
        (values.port_range, "65535", range(65535, 65536)),
        (values.signal_name, "SIGINT", "SIGINT"),
        (values.signal_name, "term", "SIGTERM"),
        (values.signal_name, "9", "SIGKILL"),
        (values.words, "sh -c 'a  b'", ("sh", "-c", "a  b")),
        (values.words, "a {{.Task.Slot}}", ("a", "{{.Task.Slot}}")),
        (values.words, "a '{{ .Task.Slot }}'", ("a", "{{ .Task.Slot }}")),
        (values.words, "", ()),
    ],
)
def test_good_values(parse: Callable[[str], Any], text: str, expected: object) -> None:
    assert parse(text) == expected


@pytest.mark.parametrize(
    ("parse", "text", "part"),
    [
        (values.duration_ns, "10", "write '10s'"),
        (values.duration_ns, "", "is not a duration"),
        (values.duration_ns, "1 m", "is not a duration"),
        (values.duration_ns, "-1s", "is not a duration"),
        (values.duration_ns, "1d", "is not a duration"),
        (values.duration_ns, "s", "is not a duration"),
        (values.duration_ns, ".s", "is not a duration"),
        (values.duration_ns, "1s!", "is not a duration"),
        (values.duration_ns, "٣s", "is not a duration"),
        (values.duration_ns, "9999999h", "too long"),
        (values.size_bytes, "lots", "is not a size"),
        (values.size_bytes, "-1M", "is not a size"),
        (values.size_bytes, "1 0M", "is not a size"),
        (values.size_bytes, "1X", "is not a size"),
        (values.size_bytes, "99999999P", "too large"),
        (values.cpu_nano, "half", "is not a number of CPUs"),
        (values.cpu_nano, ".", "is not a number of CPUs"),
        (values.cpu_nano, "1e3", "is not a number of CPUs"),
        (values.cpu_nano, "0.0000000001", "round it"),
        (values.port, "0", "ports are 1 to 65535"),
        (values.port, "65536", "ports are 1 to 65535"),
        (values.port, "http", "is not a port number"),
        (values.port_range, "9-8", "backwards"),
        (values.port_range, "9-", "is not a port number"),
        (values.signal_name, "SIGNOPE", "is not a signal"),
        (values.signal_name, "77", "is not a signal"),
        (values.words, "sh -c 'open", "balance its quotes"),
        (values.words, "a {{ .Task.Slot }}", "put the template in quotes"),
    ],
)
def test_bad_values(parse: Callable[[str], Any], text: str, part: str) -> None:
    with pytest.raises(values.BadValue) as caught:
        parse(text)
    assert part in str(caught.value)


@pytest.mark.parametrize("text", ["1_0", " 1", "1.0", "0x10", "", "1" * 30])
def test_odd_integers(text: str) -> None:
    with pytest.raises(values.BadValue):
        values.integer(text, 0, 100)
