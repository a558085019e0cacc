"""One service of a stack file to a `ServiceSpec`."""

from __future__ import annotations

import re
from dataclasses import replace as with_place
from typing import NamedTuple

from skep.domain.base import replace
from skep.domain.container import ContainerSpec
from skep.domain.spec import (
    DOCKER,
    ENGINES,
    EndpointMode,
    ExposedPort,
    NetworkUse,
    PortMode,
    ServiceSpec,
    TaskSpec,
    UpdateOrder,
    UpdatePolicy,
)
from skep.domain.validate import check_service
from skep.env import Rejected
from skep.stackfile import deploy, keys, nodes
from skep.stackfile.container import read_container
from skep.stackfile.errors import StackFileError
from skep.stackfile.files import Files, uses_of
from skep.stackfile.mounts import read_mounts
from skep.stackfile.networks import Networks
from skep.stackfile.ports import PlacedPort, read_exposed, read_ports
from skep.stackfile.reader import Fields, Place
from skep.stackfile.run import NO_TEST, read_run
from skep.stackfile.volumes import Volumes

# Where the fields of a spec stand in a file, the longer ones first.
_PLACES = (
    ("task.run.command", "entrypoint"),
    ("task.run.args", "command"),
    ("task.run.env", "environment"),
    ("task.run.health.test", "healthcheck.test"),
    ("task.run.health", "healthcheck"),
    ("task.run.working_dir", "working_dir"),
    ("task.run.stop_signal", "stop_signal"),
    ("task.run.image", "image"),
    ("task.run.mounts", "volumes"),
    ("task.run.configs", "configs"),
    ("task.run.secrets", "secrets"),
    ("task.run.container.dns_options", "dns_opt"),
    ("task.run.container.shm_bytes", "shm_size"),
    ("task.run.container.memory_swap_bytes", "memswap_limit"),
    ("task.run.container.memory_swappiness", "mem_swappiness"),
    ("task.run.container.cpu_realtime_period", "cpu_rt_period"),
    ("task.run.container.cpu_realtime_runtime", "cpu_rt_runtime"),
    ("task.run.container.cgroupns_mode", "cgroup"),
    ("task.run.container.block_weight", "blkio_config.weight"),
    ("task.run.container.block_limits", "blkio_config"),
    ("task.run.container.device_requests", "gpus"),
    ("task.run.container.storage_options", "storage_opt"),
    ("task.run.container.log_driver", "logging.driver"),
    ("task.run.container.log_options", "logging.options"),
    *((f"task.run.container.{name}", name) for name in ContainerSpec.__struct_fields__),
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


class Parts(NamedTuple):
    """What a stack's services may name."""

    stack_name: str
    networks: Networks
    volumes: Volumes
    configs: Files
    secrets: Files


def read_service(place: Place, name: str, parts: Parts) -> ReadService:
    """The service at this place, under its full name, in a stack with these parts. What is wrong is
    added to the problems, and has its default in the answer."""
    problems = place.source.problems
    before = problems.count
    place = with_engine(place)
    fields = place.fields(keys.SERVICE)
    deployed = fields.section("deploy", keys.DEPLOY)
    deployed.read("mode", deploy.check_mode, None)
    no_ports: list[PlacedPort] = []
    ports = fields.read("ports", read_ports, no_ports)
    mode = deployed.read("endpoint_mode", lambda at: _endpoint_mode(at, ports), EndpointMode.VIP)
    none_exposed: tuple[ExposedPort, ...] = ()
    spec = ServiceSpec(
        name=name,
        task=_task(place, fields, deployed, name, parts),
        labels=deployed.read("labels", Place.labels, ()),
        replicas=deploy.replicas(fields, deployed),
        ports=tuple(port for port, _ in ports),
        update=deployed.read("update_config", deploy.update_policy, UpdatePolicy()),
        rollback=deployed.read("rollback_config", deploy.rollback_policy, UpdatePolicy()),
        endpoint_mode=mode,
        exposed=fields.read("expose", read_exposed, none_exposed),
    )
    if place.engine != DOCKER:
        fields.read("labels", _container_labels, None)
    if problems.count == before:
        _check_whole(place, spec)
        _warn(deployed, spec, ports)
    return ReadService(spec, ports)


def _task(place: Place, fields: Fields, deployed: Fields, name: str, parts: Parts) -> TaskSpec:
    resources = deployed.section("resources", keys.RESOURCES)
    reserved = resources.section("reservations", keys.RESERVATIONS)
    limits, reservations = deploy.with_plain_amounts(
        fields,
        deploy.resources(resources.section("limits", keys.LIMITS)),
        deploy.resources(reserved),
    )
    run = read_run(place, fields)
    short_name = name.removeprefix(f"{parts.stack_name}_")
    no_uses: tuple[NetworkUse, ...] = ()
    used = no_uses
    if place.engine == DOCKER:
        container = read_container(place, fields, reserved)
        if not container.network_mode:
            used = place.attempt(
                lambda _: parts.networks.uses(fields.get("networks"), short_name), no_uses
            )
            container, used = _as_in_swarm(place, parts.networks, container, used)
        elif "networks" in fields:
            place.source.problems.add(
                fields["networks"].error(
                    f"network_mode '{container.network_mode}' is a network of each node alone; "
                    "remove it, or 'networks'"
                )
            )
        run = replace(
            run,
            container=container,
            mounts=read_mounts(fields, parts.volumes),
            configs=uses_of(fields, "configs", parts.configs),
            secrets=uses_of(fields, "secrets", parts.secrets),
        )
    else:
        used = place.attempt(
            lambda _: parts.networks.uses(fields.get("networks"), short_name), no_uses
        )
    return TaskSpec(
        run=run,
        engine=place.engine,
        limits=limits,
        reservations=reservations,
        restart=deploy.restarts(fields, deployed),
        placement=deploy.placement(deployed.get("placement"), fields.get("platform")),
        networks=used,
    )


def _as_in_swarm(
    place: Place, networks: Networks, container: ContainerSpec, used: tuple[NetworkUse, ...]
) -> tuple[ContainerSpec, tuple[NetworkUse, ...]]:
    """The external networks `host`, `none` and `bridge` are what `network_mode` says as well."""
    modes = [use.network for use in used if networks.is_of_the_node(use.network)]
    if not modes:
        return container, used
    if len(used) > 1:
        place.source.problems.add(
            place.error(
                f"network '{modes[0]}' is one of each node alone, and a service on it can be on no "
                "other; remove the others"
            )
        )
    return replace(container, network_mode=modes[0]), ()


def with_engine(place: Place) -> Place:
    """The place with the engine that its own `x-engine` names, if it has one."""
    if isinstance(place.node, nodes.Mapping):
        for key, value in place.entries():
            if key.text == "x-engine" and not value.is_null:
                return with_place(place, engine=value.attempt(_engine, place.engine))
    return place


def _engine(place: Place) -> str:
    word = place.text()
    if word not in ENGINES:
        known = " and ".join(f"'{each}'" for each in ENGINES)
        raise place.error(f"there is no engine '{word[:40]}'; there are {known}")
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
