"""One service of a stack file to a `ServiceSpec`."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import NamedTuple

from skep.domain.spec import (
    EndpointMode,
    ExposedPort,
    NetworkUse,
    PortMode,
    RestartPolicy,
    ServiceSpec,
    TaskSpec,
    UpdateOrder,
    UpdatePolicy,
)
from skep.domain.validate import REPLICAS_LIMIT, check_service
from skep.env import Rejected
from skep.stackfile import deploy, keys, nodes
from skep.stackfile.errors import StackFileError
from skep.stackfile.networks import Networks
from skep.stackfile.ports import PlacedPort, read_exposed, read_ports
from skep.stackfile.reader import Fields, Place
from skep.stackfile.run import NO_TEST, read_run

ENGINES = {"process": "process"}

# Where the fields of a spec stand in a file, the longer ones first.
_PLACES = (
    ("task.run.command", "entrypoint"),
    ("task.run.args", "command"),
    ("task.run.env", "environment"),
    ("task.run.health.test", "healthcheck.test"),
    ("task.run.health", "healthcheck"),
    ("task.run.working_dir", "working_dir"),
    ("task.run.log", "logging"),
    ("task.limits", "deploy.resources.limits"),
    ("task.reservations.memory_bytes", "deploy.resources.reservations.memory"),
    ("task.reservations.cpu_nano", "deploy.resources.reservations.cpus"),
    ("task.reservations", "deploy.resources.reservations"),
    ("task.restart", "deploy.restart_policy"),
    ("task.placement", "deploy.placement"),
    ("task.networks", "networks"),
    ("endpoint_mode", "deploy.endpoint_mode"),
    ("exposed", "expose"),
    ("labels", "deploy.labels"),
    ("update", "deploy.update_config"),
    ("rollback", "deploy.rollback_config"),
)


class ReadService(NamedTuple):
    """A service, and where its ports stand, for clashes between services."""

    spec: ServiceSpec
    ports: list[PlacedPort]


def read_service(place: Place, name: str, networks: Networks) -> ReadService:
    """The service at this place, under its full name, in a stack with these networks. What is wrong
    is added to the problems, and has its default in the answer."""
    problems = place.source.problems
    before = problems.count
    place = _with_engine(place)
    fields = place.fields(keys.SERVICE)
    deployed = fields.section("deploy", keys.DEPLOY)
    deployed.read("mode", deploy.check_mode, None)
    no_ports: list[PlacedPort] = []
    ports = fields.read("ports", read_ports, no_ports)
    mode = deployed.read("endpoint_mode", lambda at: _endpoint_mode(at, ports), EndpointMode.VIP)
    none_exposed: tuple[ExposedPort, ...] = ()
    short_name = name.removeprefix(f"{networks.stack_name}_")
    no_uses: tuple[NetworkUse, ...] = ()
    used = place.attempt(lambda _: networks.uses(fields.get("networks"), short_name), no_uses)
    resources = deployed.section("resources", keys.RESOURCES)
    task = TaskSpec(
        run=read_run(place, fields),
        engine=place.engine,
        limits=deploy.resources(resources.section("limits", keys.LIMITS)),
        reservations=deploy.resources(resources.section("reservations", keys.RESERVATIONS)),
        restart=deployed.read("restart_policy", deploy.restart_policy, RestartPolicy()),
        placement=deploy.placement(deployed.get("placement"), fields.get("platform")),
        networks=used,
    )
    spec = ServiceSpec(
        name=name,
        task=task,
        labels=deployed.read("labels", Place.labels, ()),
        replicas=deployed.read("replicas", lambda at: at.integer(0, REPLICAS_LIMIT), 1),
        ports=tuple(port for port, _ in ports),
        update=deployed.read("update_config", deploy.update_policy, UpdatePolicy()),
        rollback=deployed.read("rollback_config", deploy.rollback_policy, UpdatePolicy()),
        endpoint_mode=mode,
        exposed=fields.read("expose", read_exposed, none_exposed),
    )
    fields.read("labels", _container_labels, None)
    if problems.count == before:
        _check_whole(place, spec)
        _warn(deployed, spec, ports)
    return ReadService(spec, ports)


def _with_engine(place: Place) -> Place:
    for key, value in place.entries():
        if key.text == "x-engine" and not value.is_null:
            return replace(place, engine=value.attempt(_engine, place.engine))
    return place


def _engine(place: Place) -> str:
    word = place.text()
    if word not in ENGINES:
        raise place.error(f"there is no engine '{word[:40]}' yet; the one there is: 'process'")
    return word


def _endpoint_mode(place: Place, ports: list[PlacedPort]) -> EndpointMode:
    mode = deploy.endpoint_mode(place)
    published = next((at for port, at in ports if port.mode is PortMode.INGRESS), None)
    if mode is EndpointMode.DNSRR and published is not None:
        raise place.error(
            f"a service in mode 'dnsrr' can't publish ports on every node, but one is published at "
            f"{published.where()}; give that port 'mode: host', or use 'vip'"
        )
    return mode


def _container_labels(place: Place) -> None:
    place.labels()
    place.warn(
        "labels here are a container's, and there is none; use deploy.labels to label the service"
    )


def _warn(deployed: Fields, spec: ServiceSpec, ports: list[PlacedPort]) -> None:
    """Tell what the service may not expect of its updates."""
    health = spec.task.run.health
    has_health = health is not None and health.test != NO_TEST
    for key in ("update_config", "rollback_config"):
        deploy.warn_of_unwatched(deployed.section(key, keys.UPDATE_CONFIG), has_health)
    held = [at for port, at in ports if port.mode is PortMode.HOST]
    if held and UpdateOrder.START_FIRST in (spec.update.order, spec.rollback.order):
        held[0].warn(
            "start-first, but the old task holds this port of its node: it is stopped first"
        )


def _check_whole(place: Place, spec: ServiceSpec) -> None:
    """What only the finished spec shows, by the rules the cluster itself goes by."""
    try:
        check_service(spec, spec.name)
    except Rejected as error:
        if error.field.startswith(f"{spec.name}.ports"):
            # Ports that clash are told with both their places, by whoever looks at all services.
            return
        text = str(error).removeprefix(f"{error.field}: ")
        field = error.field.removeprefix(f"{spec.name}.")
        place.source.problems.add(_blamed(place, field, text))


def _blamed(place: Place, field: str, text: str) -> StackFileError:
    """The error, at the place that the field of a spec was read from."""
    for prefix, path in _PLACES:
        rest = field.removeprefix(prefix)
        if rest == field:
            continue
        for name in path.split("."):
            place = _child(place, name)
        last = re.match(r"\[([0-9]+)\]|\.([^\[\].]+)", rest)
        if last:
            place = _child(place, last[1] or last[2])
        return place.error(f"{path}: {text}")
    return place.error(text)


def _child(place: Place, name: str) -> Place:
    """What stands under a name or a number; the place itself if that can't be told."""
    if place.is_list:
        items = place.items()
        if name.isdecimal() and int(name) < len(items):
            return items[int(name)]
        for item in items:
            node = item.node
            if isinstance(node, nodes.Scalar) and node.text.partition("=")[0] == name:
                return item
    elif not place.is_scalar:
        for key, value in place.entries():
            if key.text == name:
                return value
    return place
