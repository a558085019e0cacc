"""What a service runs: the command, its environment and its health check."""

from __future__ import annotations

import posixpath

from skep.domain.base import Pairs, pairs
from skep.domain.spec import DOCKER, HealthCheck, RunSpec
from skep.domain.validate import MIN_HEALTH_TIME_NS
from skep.stackfile import keys, values
from skep.stackfile.deploy import COUNT_LIMIT
from skep.stackfile.envfiles import read_env_files
from skep.stackfile.logs import ReadLog, read_log
from skep.stackfile.reader import SAY_DOCKER, Fields, Place

NO_TEST = ("NONE",)


def read_run(place: Place, fields: Fields) -> RunSpec:
    """What the service at this place runs, but for what only containers have."""
    problems = place.source.problems
    before = problems.count
    none: tuple[str, ...] = ()
    is_container = place.engine == DOCKER
    command = fields.read("entrypoint", _entrypoint if is_container else Place.words, none)
    args = fields.read("command", Place.words, none)
    if problems.count == before:
        check = _check_image if is_container else _check_command
        place.attempt(lambda at: check(at, fields, (*command, *args)), None)
    default = RunSpec()
    plain: ReadLog = (default.log, "", ())
    log, _, _ = fields.read("logging", read_log, plain)
    return RunSpec(
        image=fields.read("image", _image, ""),
        command=command,
        args=args,
        env=_environment(place, fields),
        working_dir=fields.read("working_dir", _folder, ""),
        user=fields.read("user", Place.text, ""),
        # A container without one has its image's.
        stop_signal=fields.read(
            "stop_signal",
            lambda at: at.parsed(values.signal_name),
            "" if is_container else default.stop_signal,
        ),
        stop_grace_ns=fields.read("stop_grace_period", Place.duration, default.stop_grace_ns),
        health=fields.read("healthcheck", _health, None),
        log=log,
    )


def _image(place: Place) -> str:
    return place.text().strip() if place.engine == DOCKER else place.text()


def _environment(place: Place, fields: Fields) -> Pairs:
    """What the service's own lines say comes before what its files do."""
    from_files: dict[str, str] = fields.read("env_file", read_env_files, {})
    own: Pairs = fields.read("environment", lambda at: at.variables(place.source.environ), ())
    return pairs(from_files | dict(own))


def _entrypoint(place: Place) -> tuple[str, ...]:
    """An empty one takes away the image's, which is not the same as leaving it out."""
    return place.words() or ("",)


def _check_image(place: Place, fields: Fields, words: tuple[str, ...]) -> None:
    """Refuse a container without an image; tell that nothing is built."""
    build = fields.get("build")
    if "image" not in fields:
        if build:
            raise build.error(
                "a cluster builds no images, since each of its nodes must be able to get them; "
                "build it, push it to a registry, and name it with 'image'"
            )
        raise place.error("engine 'docker' runs images, and none is named; add 'image'")
    if build:
        build.warn("nothing is built here: each node gets the image from its registry")


def _check_command(place: Place, fields: Fields, words: tuple[str, ...]) -> None:
    """Refuse a service with nothing to run."""
    image = fields.get("image")
    if not words:
        if image:
            raise image.needs_container(
                "image alone",
                f"{SAY_DOCKER} to run the image, or add a 'command' that runs on the node itself",
            )
        raise place.error("nothing to run; add 'command'")
    if not words[0]:
        raise place.error("the first word of a command is the program; it can't be empty")


def _folder(place: Place) -> str:
    """A folder; of a process that has the node's files before it, from the one that the stack file
    is in."""
    text = place.text()
    if place.engine == DOCKER or not place.source.folder or "{{" in text:
        return text
    return posixpath.normpath(posixpath.join(place.source.folder, text))


def _health(place: Place) -> HealthCheck:
    fields = place.fields(keys.HEALTHCHECK)
    if "disable" in fields and fields["disable"].attempt(Place.truth, True):
        return HealthCheck(test=NO_TEST)
    if "test" not in fields and place.engine != DOCKER:
        raise place.needs_container(
            "healthcheck without test",
            f"the image would bring the test; add 'test', or {SAY_DOCKER}",
        )
    if "start_interval" in fields and "start_period" not in fields:
        fields["start_interval"].warn(
            "start_interval is the pace within the start period; without start_period, the first "
            "test comes after a whole interval"
        )
    default = HealthCheck(test=NO_TEST)
    return HealthCheck(
        test=fields.read("test", _test, ()),
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
