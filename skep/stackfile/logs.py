"""`logging:` of a service."""

from __future__ import annotations

from skep.domain.base import Pairs
from skep.domain.spec import DOCKER, LogPolicy
from skep.stackfile import keys, values
from skep.stackfile.reader import SAY_DOCKER, Place

_OWN_DRIVERS = ("json-file", "local")


ReadLog = tuple[LogPolicy, str, Pairs]


def read_log(place: Place) -> ReadLog:
    """How much output is kept on the node; or which of the engine's drivers takes it instead, with
    its options."""
    fields = place.fields(keys.LOGGING)
    driver = fields.read("driver", Place.text, "local")
    if driver not in _OWN_DRIVERS:
        if place.engine != DOCKER:
            raise fields["driver"].error(
                f"log driver '{driver[:40]}' is not supported; logs stay on the node: leave "
                f"'driver' out, or {SAY_DOCKER}"
            )
        none: Pairs = ()
        return LogPolicy(), driver, fields.read("options", Place.labels, none)
    default = LogPolicy()
    options = fields.get("options")
    if options is None:
        return default, "", ()
    but = _notes(options) if place.engine == DOCKER else frozenset()
    found = options.fields(keys.LOG_OPTIONS, but)
    return (
        LogPolicy(
            max_bytes=found.read("max-size", _log_bytes, default.max_bytes),
            max_files=found.read("max-file", lambda at: at.integer(1, 1000), default.max_files),
        ),
        "",
        (),
    )


def _notes(place: Place) -> frozenset[str]:
    """Options of Docker's own drivers that say nothing of how much is kept."""
    found = [key.text for key, _ in place.entries() if key.text in keys.LOG_NOTES]
    if found:
        shown = ", ".join(f"'{name}'" for name in found)
        place.warn(f"{shown}: changes nothing here, where output is kept by Skep itself")
    return frozenset(found)


def _log_bytes(place: Place) -> int:
    size = place.parsed(values.size_bytes)
    if size == 0:
        raise place.error("max-size must be more than 0")
    return size
