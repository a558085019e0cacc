"""Times as the API writes them."""

from __future__ import annotations

import re
from datetime import datetime

from skep.domain.base import SECOND_NS

_TIME = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d+))?([Zz]|[+-]\d\d:\d\d)", re.ASCII)


def parse_time_ns(text: str) -> int | None:
    """A time by RFC 3339 in nanoseconds since the epoch; None for Go's zero and for what is no
    time."""
    found = _TIME.fullmatch(text)
    if found is None:
        return None
    seconds, fraction, zone = found.groups()
    try:
        moment = datetime.fromisoformat(seconds + ("+00:00" if zone in "Zz" else zone))
    except ValueError:
        return None
    if moment.year == 1:
        return None
    return int(moment.timestamp()) * SECOND_NS + int((fraction or "0").ljust(9, "0")[:9])
