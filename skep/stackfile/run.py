"""What a service runs: the command, its environment, its health check and its output."""

from __future__ import annotations

import posixpath

from skep.domain.spec import HealthCheck, LogPolicy, RunSpec
from skep.domain.validate import MIN_HEALTH_TIME_NS
from skep.stackfile import keys, values
from skep.stackfile.deploy import COUNT_LIMIT
from skep.stackfile.reader import Fields, Place

NO_TEST = ("NONE",)


def read_run(place: Place, fields: Fields) -> RunSpec:
    """What the service at this place runs."""
    problems = place.source.problems
    before = problems.count
    none: tuple[str, ...] = ()
    command = fields.read("entrypoint", Place.words, none)
    args = fields.read("command", Place.words, none)
    if problems.count == before:
        place.attempt(lambda at: _check_command(at, fields, (*command, *args)), None)
    default = RunSpec()
    return RunSpec(
        image=fields.read("image", Place.text, ""),
        command=command,
        args=args,
        env=fields.read("environment", lambda at: at.variables(place.source.environ), ()),
        working_dir=fields.read("working_dir", _folder, ""),
        user=fields.read("user", Place.text, ""),
        stop_signal=fields.read(
            "stop_signal", lambda at: at.parsed(values.signal_name), default.stop_signal
        ),
        stop_grace_ns=fields.read("stop_grace_period", Place.duration, default.stop_grace_ns),
        health=fields.read("healthcheck", _health, None),
        log=fields.read("logging", _log, default.log),
    )


def _check_command(place: Place, fields: Fields, words: tuple[str, ...]) -> None:
    """Refuse a service with nothing to run; tell that an image beside a command isn't used."""
    image = fields.get("image")
    if not words:
        if image:
            raise image.needs_container(
                "image alone", "add a 'command' that runs on the node itself"
            )
        raise place.error("nothing to run; add 'command'")
    if not words[0]:
        raise place.error("the first word of a command is the program; it can't be empty")


def _folder(place: Place) -> str:
    """A folder, from the one that the stack file is in."""
    text = place.text()
    if not place.source.folder or "{{" in text:
        return text
    return posixpath.normpath(posixpath.join(place.source.folder, text))


def _health(place: Place) -> HealthCheck:
    fields = place.fields(keys.HEALTHCHECK)
    if "disable" in fields and fields["disable"].attempt(Place.truth, True):
        return HealthCheck(test=NO_TEST)
    if "test" not in fields:
        raise place.needs_container(
            "healthcheck without test", "the image would bring the test; add 'test'"
        )
    if "start_interval" in fields and "start_period" not in fields:
        fields["start_interval"].warn(
            "start_interval is the pace within the start period; without start_period, the first "
            "test comes after a whole interval"
        )
    default = HealthCheck(test=NO_TEST)
    return HealthCheck(
        test=fields.read("test", _test, NO_TEST),
        interval_ns=_health_time(fields, "interval", default.interval_ns),
        timeout_ns=_health_time(fields, "timeout", default.timeout_ns),
        start_period_ns=fields.read("start_period", Place.duration, default.start_period_ns),
        start_interval_ns=_health_time(fields, "start_interval", default.start_interval_ns),
        retries=fields.read("retries", lambda at: at.integer(1, COUNT_LIMIT), default.retries),
    )


def _health_time(fields: Fields, key: str, default: int) -> int:
    return fields.read(key, lambda at: at.duration(MIN_HEALTH_TIME_NS), default)


def _test(place: Place) -> tuple[str, ...]:
    if place.is_scalar:
        return ("CMD-SHELL", place.text())
    test = place.texts()
    kind = test[0] if test else ""
    if kind == "NONE" and len(test) == 1:
        return test
    if kind == "CMD" and len(test) > 1 and test[1]:
        return test
    if kind == "CMD-SHELL" and len(test) == 2:
        return test
    raise place.error(
        "test must be a line for the shell, or a list that begins with 'CMD' (program and "
        "arguments), 'CMD-SHELL' (one line) or 'NONE' (nothing more)"
    )


def _log(place: Place) -> LogPolicy:
    fields = place.fields(keys.LOGGING)
    driver = fields.read("driver", Place.text, "local")
    if driver not in ("json-file", "local"):
        raise fields["driver"].error(
            f"log driver '{driver[:40]}' is not supported; logs stay on the node: leave 'driver' "
            "out"
        )
    options = fields.section("options", keys.LOG_OPTIONS)
    default = LogPolicy()
    return LogPolicy(
        max_bytes=options.read("max-size", _log_bytes, default.max_bytes),
        max_files=options.read("max-file", lambda at: at.integer(1, 1000), default.max_files),
    )


def _log_bytes(place: Place) -> int:
    size = place.parsed(values.size_bytes)
    if size == 0:
        raise place.error("max-size must be more than 0")
    return size
