"""Single values out of text: durations, sizes, amounts of CPU, ports. All raise BadValue.

The forms are Docker's: Go's durations ("1m30s"), sizes in powers of 1024 ("100M"), CPUs as a
decimal number of cores ("0.5").
"""

from __future__ import annotations

import ipaddress
import re
import shlex
from fractions import Fraction

from skep.domain import signals
from skep.env import Rejected

_UNITS_NS = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,
    "\u03bcs": 1_000,  # The Greek letter looks the same as the micro sign above.
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60_000_000_000,
    "h": 3_600_000_000_000,
}
_DURATION_PART = re.compile(r"([0-9]{1,18}(?:\.[0-9]{0,18})?|\.[0-9]{1,18})(ns|us|µs|μs|ms|s|m|h)")
_SIZE = re.compile(r"([0-9]{1,18}(?:\.[0-9]{1,18})?) ?([kKmMgGtTpP]?)(?:i?[bB])?")
_SIZE_LETTERS = " kmgtp"
_CPUS = re.compile(r"[0-9]{0,9}(?:\.[0-9]{0,18})?")
_INTEGER = re.compile(r"[+-]?[0-9]{1,18}")
_FILE_MODE = re.compile(r"(?:0[oO]?)?([0-7]{1,4})")
_RATIO = re.compile(r"(?:[0-9]{1,18}(?:\.[0-9]{0,30})?|\.[0-9]{1,30})(?:[eE][+-]?[0-9]{1,3})?")
_PLATFORM = re.compile(r"[a-z0-9_.-]{1,32}")
# As Go names them; anything else alone is an architecture.
_SYSTEMS = frozenset({"linux", "windows", "darwin", "freebsd", "netbsd", "openbsd"})
_INT64_MAX = 2**63 - 1
PORT_MAX = 65535


# One way only to match a name, so that a long bad one costs no time.
FILE_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_.-]*[A-Za-z0-9])?")
NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_-]*[A-Za-z0-9])?")
DNS_NAME = re.compile(
    r"(?=.{1,253}\Z)[A-Za-z0-9](?:[A-Za-z0-9_-]*[A-Za-z0-9])?"
    r"(?:\.[A-Za-z0-9](?:[A-Za-z0-9_-]*[A-Za-z0-9])?)*"
)


class BadValue(ValueError):
    """The text is not such a value; says which form is meant."""


def duration_ns(text: str) -> int:
    """Nanoseconds in one of Go's durations, such as "1m30s" or "500ms"; "0" needs no unit."""
    if text in ("0", "+0"):
        return 0
    total = Fraction(0)
    position = 0
    while found := _DURATION_PART.match(text, position):
        number = found.group(1)
        total += (
            Fraction("0" + number if number.startswith(".") else number.rstrip("."))
            * (_UNITS_NS[found.group(2)])
        )
        position = found.end()
    if position == 0 or position != len(text):
        if _INTEGER.fullmatch(text):
            raise BadValue(f"'{text}' has no unit; write '{text}s' if seconds are meant")
        raise BadValue(f"'{text[:40]}' is not a duration; write one like '10s', '1m30s' or '500ms'")
    if total > _INT64_MAX:
        raise BadValue(f"'{text}' is too long; the longest duration is 2562047h")
    return int(total)


def duration_text(ns: int) -> str:
    """A duration as it is written, "1m30s" for instance; read again, it is the same."""
    parts = []
    for unit in ("h", "m", "s", "ms", "us", "ns"):
        count, ns = divmod(ns, _UNITS_NS[unit])
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts) or "0s"


def size_bytes(text: str) -> int:
    """Bytes in a size such as "100M", "1.5GiB" or "512"; K is 1024, as in Docker."""
    found = _SIZE.fullmatch(text)
    if not found:
        raise BadValue(f"'{text[:40]}' is not a size; write one like '100M', '1.5G' or '64k'")
    letter = found.group(2).lower() or " "
    total = int(Fraction(found.group(1)) * 1024 ** _SIZE_LETTERS.index(letter))
    if total > _INT64_MAX:
        raise BadValue(f"'{text}' is too large")
    return total


def size_text(size: int) -> str:
    """A size as it is written, "100M" for instance; read again, it is the same."""
    power = 0
    while power < 5 and size and size % 1024 == 0:
        size //= 1024
        power += 1
    return f"{size}{' KMGTP'[power].strip()}"


def cpu_text(nano: int) -> str:
    """A number of cores as it is written; read again, it is the same."""
    return f"{nano // 10**9}.{nano % 10**9:09}".rstrip("0").rstrip(".")


def cpu_nano(text: str) -> int:
    """Billionths of a core in a decimal number of cores."""
    if not _CPUS.fullmatch(text) or not re.search("[0-9]", text):
        raise BadValue(f"'{text[:40]}' is not a number of CPUs; write one like '0.5' or '2'")
    whole, _, part = text.partition(".")
    amount = Fraction(f"{whole or 0}.{part or 0}") * 1_000_000_000
    if amount.denominator != 1:
        raise BadValue(f"'{text}' is finer than a billionth of a CPU; round it")
    return int(amount)


def integer(text: str, minimum: int, maximum: int) -> int:
    """A decimal integer within the two bounds, which belong to it."""
    if not _INTEGER.fullmatch(text):
        raise BadValue(f"'{text[:40]}' is not a whole number")
    number = _decimal(text)
    if not minimum <= number <= maximum:
        raise BadValue(f"{number} is out of range; it must be {minimum} to {maximum}")
    return number


def _decimal(text: str) -> int:
    digits = text.lstrip("+-")
    if digits != "0" and digits.startswith("0"):
        # YAML 1.1 reads 010 as 8, YAML 1.2 and most people as 10.
        raise BadValue(f"'{text}' begins with 0, which some read as octal; write it without")
    return int(text)


def file_mode(text: str) -> int:
    """Who may read and write a file, in octal digits, as everybody writes it: "0440" or "440"."""
    found = _FILE_MODE.fullmatch(text)
    if not found:
        raise BadValue(f"'{text[:40]}' is no mode of a file; write one like 0440")
    return int(found[1], 8)


def ratio(text: str) -> float:
    """A share between 0 and 1, both of which belong to it."""
    if text.endswith("%"):
        raise BadValue(f"'{text[:40]}' is a percentage; write 0.25 for 25%")
    if not _RATIO.fullmatch(text) or not 0 <= float(text) <= 1:
        raise BadValue(f"'{text[:40]}' is not a share between 0 and 1; write one like '0.25'")
    return float(text)


def platform(text: str) -> tuple[str, str, str]:
    """Operating system, architecture and variant in "linux/arm/v7", "linux/amd64", "linux" or
    "amd64"; what isn't said is empty."""
    parts = text.lower().split("/")
    if len(parts) > 3 or not all(_PLATFORM.fullmatch(part) for part in parts):
        raise BadValue(f"'{text[:40]}' is not a platform; write one like 'linux/amd64'")
    if len(parts) == 1 and parts[0] not in _SYSTEMS:
        return "", parts[0], ""
    system, arch, variant = (*parts, "", "")[:3]
    return system, arch, variant


def port(text: str) -> int:
    """A port number."""
    if not _INTEGER.fullmatch(text):
        raise BadValue(f"'{text[:40]}' is not a port number")
    number = _decimal(text)
    if not 1 <= number <= PORT_MAX:
        raise BadValue(f"port {number} is out of range; ports are 1 to {PORT_MAX}")
    return number


def port_range(text: str) -> range:
    """Ports in "80" or "8000-8009"; the last one belongs to it."""
    first_text, dash, last_text = text.partition("-")
    first = port(first_text)
    last = port(last_text) if dash else first
    if last < first:
        raise BadValue(f"range '{text}' runs backwards; write the smaller port first")
    return range(first, last + 1)


def ipv4(text: str) -> str:
    """An IPv4 address."""
    try:
        return str(ipaddress.IPv4Address(text))
    except ValueError:
        raise BadValue(f"'{text[:40]}' is not an IPv4 address; write one like '10.1.2.1'") from None


def subnet(text: str) -> ipaddress.IPv4Network:
    """A subnet of IPv4 addresses."""
    first, slash, _ = text.partition("/")
    try:
        if not slash:
            raise ValueError
        found = ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise BadValue(f"'{text[:50]}' is not a subnet; write one like '10.1.2.0/24'") from None
    if not isinstance(found, ipaddress.IPv4Network):
        raise BadValue(f"'{text[:50]}' is IPv6, which is not there yet; use one like '10.1.2.0/24'")
    if str(found.network_address) != first:
        raise BadValue(f"'{text[:50]}' is not where a subnet begins; write '{found}' if that is it")
    return found


def signal_name(text: str) -> str:
    """The full name of a signal given as "SIGTERM", "TERM" or "15"."""
    try:
        return signals.signal_name(signals.parse_signal(text, ""))
    except Rejected:
        raise BadValue(
            f"'{text[:40]}' is not a signal; write one like 'SIGTERM' or 'SIGINT'"
        ) from None


def words(text: str) -> tuple[str, ...]:
    """A command line's words, by the shell's rules for quotes; nothing else of a shell."""
    try:
        found = tuple(shlex.split(text))
    except ValueError as error:
        raise BadValue(
            f"this command line can't be split ({str(error).lower()}); balance its quotes, or "
            "write it as a list"
        ) from None
    for word in found:
        if word.count("{{") != word.count("}}"):
            raise BadValue(
                f"a space cuts a template at '{word}'; put the template in quotes, or leave the "
                "spaces inside its braces out"
            )
    return found
