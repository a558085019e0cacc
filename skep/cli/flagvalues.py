"""What the text of one option of `service create` and `service update` means. Pure.

All raise Failure, with the option's name, what is wrong with its text, and what to write instead.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from skep.cli.errors import Exit, Failure
from skep.domain.base import Pairs, pairs
from skep.domain.spec import (
    EndpointMode,
    ExposedPort,
    FailureAction,
    LogPolicy,
    NetworkUse,
    Port,
    PortMode,
    Protocol,
    ProxyProtocol,
    RestartCondition,
    UpdateOrder,
)
from skep.stackfile import values
from skep.stackfile.ports import exposed_ports, short_ports

T = TypeVar("T")

Reading = tuple[str, str, Callable[[str], Any]]
"""An option, the field it sets, and how its text is read."""

_COUNT_LIMIT = 2**31 - 1
_RATIO = re.compile(r"(?:0|1)?(?:\.[0-9]{1,9})?|1(?:\.0{1,9})?")
_SPREAD = re.compile(r"spread=(\S.*)")
_PORT_KEYS = (
    *("published", "target", "mode", "protocol"),
    *("proxy-protocol", "accept-proxy-protocol"),
)
_TRUTHS = {"true": True, "1": True, "false": False, "0": False}


def _count(text: str) -> int:
    return _whole(text, 1)


def _count_from_zero(text: str) -> int:
    return _whole(text, 0)


def _whole(text: str, minimum: int) -> int:
    if text.isascii() and text.isdigit() and len(text) > len(str(_COUNT_LIMIT)):
        raise values.BadValue(f"'{text}' is too large; the limit is {_COUNT_LIMIT}")
    return values.integer(text, minimum, _COUNT_LIMIT)


def _shell_test(line: str) -> tuple[str, str]:
    if not line.strip():
        raise values.BadValue("the command is empty; --no-healthcheck turns the check off")
    return "CMD-SHELL", line


def choice(*known: T) -> Callable[[str], T]:
    """One of these values of an enum, by the names that Docker's options have for them."""
    names = {str(each.value).replace("_", "-"): each for each in known}  # type: ignore[attr-defined]

    def parse(text: str) -> T:
        if text not in names:
            *others, last = names
            raise values.BadValue(f"'{text}' is not one of {', '.join(others)} and {last}")
        return names[text]

    return parse


def _ratio(text: str) -> float:
    if not text or not _RATIO.fullmatch(text) or text == "." or float(text) > 1:
        raise values.BadValue(f"'{text}' is not a share; write a number from 0 to 1, such as 0.25")
    return float(text)


def _amount(parse: Callable[[str], int]) -> Callable[[str], int | None]:
    """As in a stack file, an amount of 0 means none."""
    return lambda text: parse(text) or None


RUN: tuple[Reading, ...] = (
    ("image", "image", str),
    ("entrypoint", "command", values.words),
    ("workdir", "working_dir", str),
    ("user", "user", str),
    ("stop_signal", "stop_signal", values.signal_name),
    ("stop_grace_period", "stop_grace_ns", values.duration_ns),
)
HEALTH: tuple[Reading, ...] = (
    ("health_cmd", "test", _shell_test),
    ("health_interval", "interval_ns", values.duration_ns),
    ("health_timeout", "timeout_ns", values.duration_ns),
    ("health_start_period", "start_period_ns", values.duration_ns),
    ("health_start_interval", "start_interval_ns", values.duration_ns),
    ("health_retries", "retries", _count),
)
SERVICE: tuple[Reading, ...] = (("endpoint_mode", "endpoint_mode", choice(*EndpointMode)),)
RESTART: tuple[Reading, ...] = (
    ("restart_condition", "condition", choice(*RestartCondition)),
    ("restart_delay", "delay_ns", values.duration_ns),
    ("restart_max_attempts", "max_attempts", _amount(_count_from_zero)),
    ("restart_window", "window_ns", _amount(values.duration_ns)),
)
LIMITS: tuple[Reading, ...] = (
    ("limit_cpu", "cpu_nano", _amount(values.cpu_nano)),
    ("limit_memory", "memory_bytes", _amount(values.size_bytes)),
    ("limit_pids", "pids", _amount(_count_from_zero)),
)
RESERVATIONS: tuple[Reading, ...] = (
    ("reserve_cpu", "cpu_nano", _amount(values.cpu_nano)),
    ("reserve_memory", "memory_bytes", _amount(values.size_bytes)),
)
PLACEMENT: tuple[Reading, ...] = (
    ("replicas_max_per_node", "max_replicas_per_node", _amount(_count_from_zero)),
)


def _policy(prefix: str, *actions: FailureAction) -> tuple[Reading, ...]:
    return (
        (f"{prefix}_parallelism", "parallelism", _count_from_zero),
        (f"{prefix}_delay", "delay_ns", values.duration_ns),
        (f"{prefix}_monitor", "monitor_ns", values.duration_ns),
        (f"{prefix}_max_failure_ratio", "max_failure_ratio", _ratio),
        (f"{prefix}_failure_action", "failure_action", choice(*actions)),
        (f"{prefix}_order", "order", choice(*UpdateOrder)),
        (f"{prefix}_healthy_deadline", "healthy_deadline_ns", values.duration_ns),
    )


UPDATE = _policy("update", *FailureAction)
# There is nothing that a rollback could be rolled back to.
ROLLBACK = _policy("rollback", FailureAction.PAUSE, FailureAction.CONTINUE)


def given(options: Any, readings: Iterable[Reading]) -> dict[str, Any]:
    """New values, by field, for the options that were given."""
    found = {}
    for option, name, parse in readings:
        text = getattr(options, option)
        if text is not None:
            found[name] = read(f"--{option.replace('_', '-')}", text, parse)
    return found


def read(flag: str, text: str, parse: Callable[[str], T]) -> T:
    """The value in an option's text."""
    try:
        return parse(text)
    except values.BadValue as error:
        raise Failure(f"{flag}: {error}", Exit.USAGE) from None


def named_values(flag: str, texts: Iterable[str], *, least: str = "NAME=VALUE") -> Pairs:
    """Pairs out of texts such as "NAME=VALUE"."""
    found = {}
    for text in texts:
        name, sign, value = text.partition("=")
        if not name or not sign:
            lack = "value" if name else "name"
            raise Failure(f"{flag}: '{text}' has no {lack}; write {least}", Exit.USAGE)
        found[name] = value
    return pairs(found)


def preferences(flag: str, texts: Iterable[str]) -> tuple[str, ...]:
    """What to spread over, out of texts such as "spread=node.labels.zone"."""
    found = []
    for text in texts:
        words = _SPREAD.fullmatch(text.strip())
        if words is None:
            problem = f"'{text}' is no preference; write spread=node.labels.NAME"
            raise Failure(f"{flag}: {problem}", Exit.USAGE)
        found.append(words.group(1))
    return tuple(found)


def log_options(flag: str, texts: Iterable[str]) -> dict[str, Any]:
    """New values, by field of a LogPolicy, out of "max-size=10m" and "max-file=3"."""
    readings: Mapping[str, tuple[str, Callable[[str], int]]] = {
        "max-size": ("max_bytes", values.size_bytes),
        "max-file": ("max_files", _count),
    }
    found: dict[str, Any] = {}
    for name, text in named_values(flag, texts, least="max-size=SIZE or max-file=N"):
        if name not in readings:
            raise Failure(f"{flag}: '{name}' is not one of {', '.join(readings)}", Exit.USAGE)
        field, parse = readings[name]
        found[field] = read(f"{flag} {name}", text, parse)
    assert found.keys() <= set(LogPolicy.__struct_fields__)
    return found


# ---------------------------------------------------------------------------------- ports


def ports(flag: str, texts: Iterable[str]) -> tuple[Port, ...]:
    """Ports in their short form ("8080:80/tcp") or their long one ("published=8080,target=80")."""
    found: list[Port] = []
    for text in texts:
        found += read(flag, text, _long_port if "=" in text else short_ports)
    return tuple(found)


def _long_port(text: str) -> list[Port]:
    fields: dict[str, str] = {}
    for part in text.split(","):
        name, _, value = part.partition("=")
        if name not in _PORT_KEYS or name in fields or not value:
            raise values.BadValue(
                f"'{part}' is not understood; write it like 'published=8080,target=80,mode=host', "
                f"of {', '.join(_PORT_KEYS)}, each once"
            )
        fields[name] = value
    if "target" not in fields:
        raise values.BadValue("a port needs target=, the port that the service listens on")
    port = Port(
        target=values.port(fields["target"]),
        published=values.port(fields["published"]) if "published" in fields else None,
        protocol=_protocol(fields.get("protocol", "tcp")),
        mode=choice(*PortMode)(fields.get("mode", PortMode.INGRESS.value)),
        proxy_protocol=choice(*ProxyProtocol)(fields.get("proxy-protocol", "none")),
        accepts_proxy_protocol=truth(fields.get("accept-proxy-protocol", "false")),
    )
    if port.protocol is Protocol.UDP and _is_proxied(port):
        raise values.BadValue("the PROXY protocol is for connections, and UDP has none")
    return [port]


def truth(text: str) -> bool:
    """Whether a text says so. Raises BadValue."""
    if text.lower() not in _TRUTHS:
        raise values.BadValue(f"'{text}' is neither true nor false")
    return _TRUTHS[text.lower()]


def _is_proxied(port: Port) -> bool:
    return port.proxy_protocol is not ProxyProtocol.NONE or port.accepts_proxy_protocol


def _protocol(text: str) -> Protocol:
    # The short form knows which protocols there are, and what to say of the others.
    return short_ports(f"1/{text}")[0].protocol


def port_text(port: Port) -> str:
    """A port in the form that its option takes."""
    if port.mode is PortMode.INGRESS and not _is_proxied(port):
        outside = "" if port.published is None else f"{port.published}:"
        return f"{outside}{port.target}/{port.protocol.value}"
    outside = "" if port.published is None else f"published={port.published},"
    sends = port.proxy_protocol
    return (
        f"{outside}target={port.target},mode={port.mode.value},protocol={port.protocol.value}"
        + ("" if sends is ProxyProtocol.NONE else f",proxy-protocol={sends.value}")
        + (",accept-proxy-protocol=true" if port.accepts_proxy_protocol else "")
    )


def is_meant(port: Port, removed: Port) -> bool:
    """Whether a port is the one to remove: both of its sides if both were given, else any."""
    if port.protocol is not removed.protocol:
        return False
    if removed.published is None:
        return removed.target in (port.published, port.target)
    return (port.published, port.target) == (removed.published, removed.target)


def exposed(flag: str, texts: Iterable[str]) -> tuple[ExposedPort, ...]:
    """Ports for other services: "80", "53/udp" or "8000-8009", each once."""
    found: dict[ExposedPort, None] = {}
    for text in texts:
        found |= dict.fromkeys(read(flag, text, exposed_ports))
    return tuple(found)


def exposed_text(port: ExposedPort) -> str:
    """An exposed port in the form that its option takes."""
    return f"{port.target}/{port.protocol.value}"


# ------------------------------------------------------------------------------- networks


def networks(flag: str, texts: Iterable[str]) -> tuple[NetworkUse, ...]:
    """Networks by name ("front"), or with other names of the service there
    ("name=front,alias=www,alias=shop"). Of one that comes twice, the last word counts."""
    found: dict[str, NetworkUse] = {}
    for text in texts:
        use = read(flag, text, _network_use)
        found.pop(use.network, None)
        found[use.network] = use
    return tuple(found.values())


def _network_use(text: str) -> NetworkUse:
    if "=" not in text:
        if not text or "," in text:
            raise values.BadValue(f"'{text}' is no network's name; give the option several times")
        return NetworkUse(network=text)
    names: list[str] = []
    aliases: list[str] = []
    for part in text.split(","):
        key, _, value = part.partition("=")
        if key not in ("name", "alias") or not value or (key == "name" and names):
            raise values.BadValue(
                f"'{part}' is not understood; write it like 'name=front,alias=www,alias=shop', "
                "the name once"
            )
        (names if key == "name" else aliases).append(value)
    if not names:
        raise values.BadValue("a network needs name=, and each alias= is the service's there")
    return NetworkUse(network=names[0], aliases=tuple(dict.fromkeys(aliases)))
