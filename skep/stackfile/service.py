"""One service of a stack file to a `ServiceSpec`."""

from __future__ import annotations

import posixpath
from dataclasses import replace
from typing import NamedTuple

from skep.domain.base import Pairs
from skep.domain.constraints import parse_constraint
from skep.domain.control import LABEL_LIMIT
from skep.domain.spec import (
    HealthCheck,
    LogPolicy,
    Placement,
    Resources,
    RestartCondition,
    RestartPolicy,
    RunSpec,
    ServiceSpec,
    TaskSpec,
)
from skep.domain.validate import (
    MIN_CPU_NANO,
    MIN_HEALTH_TIME_NS,
    MIN_MEMORY_BYTES,
    REPLICAS_LIMIT,
    check_service,
)
from skep.env import Rejected
from skep.stackfile import keys, values
from skep.stackfile.ports import PlacedPort, read_ports
from skep.stackfile.reader import Place

COUNT_LIMIT = 2**31 - 1

ENGINES = {"process": "process"}
_CONDITIONS = {
    "none": RestartCondition.NONE,
    "on-failure": RestartCondition.ON_FAILURE,
    "any": RestartCondition.ANY,
}


class ReadService(NamedTuple):
    """A service, and where its ports stand, for clashes between services."""

    spec: ServiceSpec
    ports: list[PlacedPort]


def read_service(place: Place, name: str) -> ReadService:
    """The service at this place, under its full name."""
    for key, value in place.entries():
        if key.text == "x-engine":
            engine = _engine(value)
            place = replace(place, engine=engine)
    fields = place.fields(keys.SERVICE)
    deploy = fields["deploy"].fields(keys.DEPLOY) if "deploy" in fields else {}
    mode = deploy.get("mode")
    if mode:
        _check_mode(mode)
    ports = read_ports(fields["ports"]) if "ports" in fields else []
    resources = deploy["resources"].fields(keys.RESOURCES) if "resources" in deploy else {}
    restart = deploy.get("restart_policy")
    placement = deploy.get("placement")
    task = TaskSpec(
        run=_run(place, fields),
        engine=place.engine,
        limits=_resources(resources.get("limits"), keys.LIMITS),
        reservations=_resources(resources.get("reservations"), keys.RESERVATIONS),
        restart=_restart(restart) if restart else RestartPolicy(),
        placement=_placement(placement) if placement else Placement(),
    )
    spec = ServiceSpec(
        name=name,
        task=task,
        labels=_labels(deploy["labels"]) if "labels" in deploy else (),
        replicas=deploy["replicas"].integer(0, REPLICAS_LIMIT) if "replicas" in deploy else 1,
        ports=tuple(port for port, _ in ports),
    )
    _check_whole(place, spec)
    return ReadService(spec, ports)


def _check_whole(place: Place, spec: ServiceSpec) -> None:
    """What only the finished spec shows, by the rules the cluster itself goes by."""
    try:
        check_service(spec, spec.name)
    except Rejected as error:
        raise place.error(str(error)) from None


def _engine(place: Place) -> str:
    word = place.text()
    if word not in ENGINES:
        raise place.error(f"there is no engine '{word[:40]}' yet; the one there is: 'process'")
    return word


def _check_mode(place: Place) -> None:
    word = place.text()
    if word in ("global", "replicated-job", "global-job"):
        raise place.error(f"mode '{word}' is not supported yet; use 'replicated'")
    place.choice({"replicated": True})


def _run(place: Place, fields: dict[str, Place]) -> RunSpec:
    command = fields["entrypoint"].words() if "entrypoint" in fields else ()
    args = fields["command"].words() if "command" in fields else ()
    if not command and not args:
        if "image" in fields:
            raise fields["image"].needs_container(
                "image alone", "add a 'command' that runs on the node itself"
            )
        raise place.error("nothing to run; add 'command'")
    program = (command or args)[0]
    if not program:
        raise place.error("the first word of a command is the program; it can't be empty")
    grace = fields.get("stop_grace_period")
    signal = fields.get("stop_signal")
    environment = fields.get("environment")
    health = fields.get("healthcheck")
    log = fields.get("logging")
    defaults = RunSpec()
    return RunSpec(
        image=fields["image"].text() if "image" in fields else "",
        command=command,
        args=args,
        env=environment.variables(place.source.environ) if environment else (),
        working_dir=_folder(fields["working_dir"]) if "working_dir" in fields else "",
        user=fields["user"].text() if "user" in fields else "",
        stop_signal=signal.parsed(values.signal_name) if signal else defaults.stop_signal,
        stop_grace_ns=grace.parsed(values.duration_ns) if grace else defaults.stop_grace_ns,
        health=_health(health) if health else None,
        log=_log(log) if log else LogPolicy(),
    )


def _folder(place: Place) -> str:
    """A folder, from the one that the stack file is in."""
    text = place.text()
    if not place.source.folder or "{{" in text:
        return text
    return posixpath.normpath(posixpath.join(place.source.folder, text))


def _health(place: Place) -> HealthCheck:
    fields = place.fields(keys.HEALTHCHECK)
    if "disable" in fields and fields["disable"].truth():
        return HealthCheck(test=("NONE",))
    if "test" not in fields:
        raise place.needs_container(
            "healthcheck without test", "the image would bring the test; add 'test'"
        )
    found = HealthCheck(test=_test(fields["test"]))
    times = {}
    for key, name, minimum in (
        ("interval", "interval_ns", MIN_HEALTH_TIME_NS),
        ("timeout", "timeout_ns", MIN_HEALTH_TIME_NS),
        ("start_period", "start_period_ns", 0),
        ("start_interval", "start_interval_ns", MIN_HEALTH_TIME_NS),
    ):
        if key in fields:
            times[name] = fields[key].parsed(values.duration_ns)
            if times[name] < minimum:
                raise fields[key].error(f"{key} must be 1ms or longer")
    retries = fields["retries"].integer(1, COUNT_LIMIT) if "retries" in fields else found.retries
    return HealthCheck(test=found.test, retries=retries, **times)


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
    driver = fields.get("driver")
    if driver and driver.text() not in ("json-file", "local"):
        raise driver.error(
            f"log driver '{driver.text()[:40]}' is not supported; logs stay on the node: leave "
            "'driver' out"
        )
    options = fields["options"].fields(keys.LOG_OPTIONS) if "options" in fields else {}
    policy = LogPolicy()
    size = options.get("max-size")
    max_bytes = size.parsed(values.size_bytes) if size else policy.max_bytes
    if size and max_bytes == 0:
        raise size.error("max-size must be more than 0")
    files = options.get("max-file")
    return LogPolicy(
        max_bytes=max_bytes, max_files=files.integer(1, 1000) if files else policy.max_files
    )


def _labels(place: Place) -> Pairs:
    labels = place.labels()
    if len(labels) > LABEL_LIMIT:
        raise place.error(f"{len(labels)} labels, but {LABEL_LIMIT} is the limit; use fewer")
    return labels


def _resources(place: Place | None, section: keys.Section) -> Resources:
    if place is None or place.is_null:
        return Resources()
    fields = place.fields(section)
    cpus, memory, pids = (fields.get(key) for key in ("cpus", "memory", "pids"))
    # As in Docker, an amount of 0 sets no limit and reserves nothing.
    cpu_nano = (cpus.parsed(values.cpu_nano) or None) if cpus else None
    if cpus and cpu_nano is not None and cpu_nano < MIN_CPU_NANO:
        raise cpus.error("cpus must be 0.001 or more; nothing could start with less")
    memory_bytes = (memory.parsed(values.size_bytes) or None) if memory else None
    if memory and memory_bytes is not None and memory_bytes < MIN_MEMORY_BYTES:
        raise memory.error("memory must be 4M or more; nothing could start with less")
    return Resources(
        cpu_nano=cpu_nano,
        memory_bytes=memory_bytes,
        pids=(pids.integer(0, COUNT_LIMIT) or None) if pids else None,
    )


def _restart(place: Place) -> RestartPolicy:
    fields = place.fields(keys.RESTART_POLICY)
    policy = RestartPolicy()
    condition, delay, attempts, window = (
        fields.get(key) for key in ("condition", "delay", "max_attempts", "window")
    )
    # As in Swarm, max_attempts 0 never gives up, and window 0 looks at the whole past.
    return RestartPolicy(
        condition=condition.choice(_CONDITIONS) if condition else policy.condition,
        delay_ns=delay.parsed(values.duration_ns) if delay else policy.delay_ns,
        max_attempts=(attempts.integer(0, COUNT_LIMIT) or None) if attempts else None,
        window_ns=(window.parsed(values.duration_ns) or None) if window else None,
    )


def _placement(place: Place) -> Placement:
    fields = place.fields(keys.PLACEMENT)
    if "constraints" not in fields:
        return Placement()
    for item in fields["constraints"].items():
        try:
            parse_constraint(item.text())
        except Rejected as error:
            raise item.error(str(error)) from None
    return Placement(constraints=tuple(text.strip() for text in fields["constraints"].texts()))
