"""`service create` and `service update`: options to a spec. Pure."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from skep.cli import containerflags, flagvalues
from skep.cli.errors import Exit, Failure
from skep.cli.flagvalues import given, named_values
from skep.domain.base import Pairs, pairs, replace
from skep.domain.spec import (
    PROCESS,
    EndpointMode,
    ExposedPort,
    HealthCheck,
    NetworkUse,
    Placement,
    Port,
    PortMode,
    RunSpec,
    ServiceSpec,
    TaskSpec,
)
from skep.stackfile import values

# How many of what there is are named to whoever wants to remove what there isn't.
NAMED_LIMIT = 10

# Options of `service update` that say nothing of what runs.
_OF_THE_COMMAND = frozenset(
    {
        "run",
        "needs_command",
        "is_rest_command",
        "ref",
        "cluster",
        "managers_address",
        "context",
        "origin",
    }
    | {"detach", "timeout", "quiet", "rollback"}
)

Edit = Callable[[ServiceSpec], ServiceSpec]


def created(options: argparse.Namespace, engine: str = PROCESS) -> ServiceSpec:
    """The spec that `service create` asks for, run by this engine. Raises Failure."""
    networks = flagvalues.networks("--network", options.network)
    networks, mode = containerflags.split_networks(networks)
    run = RunSpec(
        env=named_values("--env", options.env),
        **containerflags.command_of(options, engine),
        **containerflags.created(options, mode),
    )
    spec = ServiceSpec(
        name=options.name,
        labels=named_values("--label", options.label),
        ports=flagvalues.ports("--publish", options.publish),
        exposed=flagvalues.exposed("--expose", options.expose),
        task=TaskSpec(
            run=run,
            engine=engine,
            placement=Placement(
                constraints=tuple(options.constraint),
                preferences=flagvalues.preferences("--placement-pref", options.placement_pref),
            ),
            networks=networks,
        ),
    )
    return _described(options)(spec)


def edited(options: argparse.Namespace) -> Edit:
    """What `service update` asks for, as a change of any spec. Raises Failure; so does the change,
    when the spec doesn't have what is to be removed."""
    command = _command(options)
    lists = _lists(options)
    describe = _described(options)
    contain = containerflags.edited(options)

    def edit(spec: ServiceSpec) -> ServiceSpec:
        task = spec.task
        task = replace(
            task,
            run=contain(replace(task.run, **command)),
            force_update=task.force_update + (1 if options.force else 0),
        )
        return describe(lists(replace(spec, task=task)))

    return edit


def is_empty(options: argparse.Namespace) -> bool:
    """Whether `service update` was given nothing that describes a service."""
    given = (value for name, value in vars(options).items() if name not in _OF_THE_COMMAND)
    # A 0 is a value.
    return all(value is None or value is False or value == [] for value in given)


def _command(options: argparse.Namespace) -> dict[str, Any]:
    """A command after "--" is all that runs; --args keep the entrypoint, as Docker's do."""
    if options.command and options.args is not None:
        raise Failure("--args and a command after '--' exclude each other", Exit.USAGE)
    if options.command:
        return {"command": (), "args": tuple(options.command)}
    if options.args is not None:
        return {"args": flagvalues.read("--args", options.args, values.words)}
    return {}


# --------------------------------------------------------------- what is added and removed


def _lists(options: argparse.Namespace) -> Edit:
    env = named_values("--env-add", options.env_add)
    labels = named_values("--label-add", options.label_add)
    ports = flagvalues.ports("--publish-add", options.publish_add)
    ports_gone = flagvalues.ports("--publish-rm", options.publish_rm)
    exposed = flagvalues.exposed("--expose-add", options.expose_add)
    exposed_gone = flagvalues.exposed("--expose-rm", options.expose_rm)
    networks = flagvalues.networks("--network-add", options.network_add)
    spreads = flagvalues.preferences("--placement-pref-add", options.placement_pref_add)
    spreads_gone = flagvalues.preferences("--placement-pref-rm", options.placement_pref_rm)

    def edit(spec: ServiceSpec) -> ServiceSpec:
        run, placement = spec.task.run, spec.task.placement
        constraints = _changed(
            "--constraint-rm", placement.constraints, options.constraint_add, options.constraint_rm
        )
        placement = replace(
            placement,
            constraints=constraints,
            preferences=_changed(
                "--placement-pref-rm", placement.preferences, spreads, spreads_gone
            ),
        )
        run = replace(run, env=_merged("--env-rm", run.env, env, options.env_rm))
        return replace(
            spec,
            task=replace(
                spec.task,
                run=run,
                placement=placement,
                networks=_on(spec.task.networks, networks, options.network_rm),
            ),
            labels=_merged("--label-rm", spec.labels, labels, options.label_rm),
            ports=_published(spec.ports, ports, ports_gone),
            exposed=_exposed(spec.exposed, exposed, exposed_gone),
        )

    return edit


def _merged(flag: str, old: Pairs, added: Pairs, removed: Sequence[str]) -> Pairs:
    names = [name for name, _ in old]
    for name in removed:
        if name not in names:
            raise _not_there(flag, name, names)
    kept = ((name, value) for name, value in old if name not in removed)
    return pairs((*kept, *added))


def _changed(
    flag: str, old: Sequence[str], added: Iterable[str], removed: Iterable[str]
) -> tuple[str, ...]:
    """A list of expressions. Blanks make no difference between two of them."""
    found = {_squeezed(text): text for text in old}
    for text in removed:
        if _squeezed(text) not in found:
            raise _not_there(flag, text, old)
    gone = {_squeezed(text) for text in removed}
    kept = {key: text for key, text in found.items() if key not in gone}
    for text in added:
        kept.setdefault(_squeezed(text), text)
    return tuple(kept.values())


def _squeezed(text: str) -> str:
    return re.sub(r"\s*([=!]=)\s*", r"\1", text.strip())


def _published(
    old: Sequence[Port], added: Sequence[Port], removed: Iterable[Port]
) -> tuple[Port, ...]:
    kept = list(old)
    for gone in removed:
        if not any(flagvalues.is_meant(port, gone) for port in old):
            texts = [flagvalues.port_text(port) for port in old]
            raise _not_there("--publish-rm", flagvalues.port_text(gone), texts)
        kept = [port for port in kept if not flagvalues.is_meant(port, gone)]
    taken = {(port.published, port.protocol) for port in added if port.published is not None}
    kept = [p for p in kept if (p.published, p.protocol) not in taken and p not in added]
    return (*kept, *added)


def _exposed(
    old: Sequence[ExposedPort], added: Iterable[ExposedPort], removed: Iterable[ExposedPort]
) -> tuple[ExposedPort, ...]:
    for gone in removed:
        if gone not in old:
            texts = [flagvalues.exposed_text(port) for port in old]
            raise _not_there("--expose-rm", flagvalues.exposed_text(gone), texts)
    kept = (port for port in old if port not in removed)
    return tuple(dict.fromkeys((*kept, *added)))


def _on(
    old: Sequence[NetworkUse], added: Sequence[NetworkUse], removed: Sequence[str]
) -> tuple[NetworkUse, ...]:
    """The networks to be on; what is said anew of one takes the place of what was said."""
    names = [use.network for use in old]
    for name in removed:
        if name not in names:
            raise _not_there("--network-rm", name, names)
    anew = {use.network: use for use in added}
    kept = [anew.pop(use.network, use) for use in old if use.network not in removed]
    return (*kept, *anew.values())


def _not_there(flag: str, what: str, there: Sequence[str]) -> Failure:
    shown = ", ".join(there[:NAMED_LIMIT])
    if len(there) > NAMED_LIMIT:
        shown += f" and {len(there) - NAMED_LIMIT} more"
    return Failure(f"{flag}: there is no '{what}'; it has {shown or 'none'}", Exit.USAGE)


# ------------------------------------------------------------------- what both commands have


def _described(options: argparse.Namespace) -> Edit:
    """The changes that options which both commands have ask for; what isn't given stays."""
    service, run, health, restart, limits, reservations, placement, update, rollback = (
        given(options, readings)
        for readings in (
            flagvalues.SERVICE,
            flagvalues.RUN,
            flagvalues.HEALTH,
            flagvalues.RESTART,
            flagvalues.LIMITS,
            flagvalues.RESERVATIONS,
            flagvalues.PLACEMENT,
            flagvalues.UPDATE,
            flagvalues.ROLLBACK,
        )
    )
    log = flagvalues.log_options("--log-opt", options.log_opt)

    def describe(spec: ServiceSpec) -> ServiceSpec:
        task = spec.task
        found = _health(task.run.health, health, is_off=options.no_healthcheck)
        task = replace(
            task,
            run=replace(task.run, health=found, log=replace(task.run.log, **log), **run),
            restart=replace(task.restart, **restart),
            limits=replace(task.limits, **limits),
            reservations=replace(task.reservations, **reservations),
            placement=replace(task.placement, **placement),
        )
        found_spec = replace(
            spec,
            task=task,
            replicas=spec.replicas if options.replicas is None else options.replicas,
            update=replace(spec.update, **update),
            rollback=replace(spec.rollback, **rollback),
            **service,
        )
        _check_mode(found_spec)
        return found_spec

    return describe


def _check_mode(spec: ServiceSpec) -> None:
    """As in Swarm, a port that every node listens on needs a virtual address behind it."""
    published = [port for port in spec.ports if port.mode is PortMode.INGRESS]
    if spec.endpoint_mode is EndpointMode.DNSRR and published:
        text = flagvalues.port_text(published[0])
        raise Failure(
            f"in endpoint mode dnsrr no port can be published on every node, but {text} is; "
            "publish it with mode=host, or use --endpoint-mode vip",
            Exit.USAGE,
        )


def _health(
    old: HealthCheck | None, changes: dict[str, Any], *, is_off: bool
) -> HealthCheck | None:
    if is_off:
        if changes:
            raise Failure("--no-healthcheck and --health-... exclude each other", Exit.USAGE)
        return HealthCheck(test=("NONE",))
    if not changes:
        return old
    if (old is None or old.test == ("NONE",)) and "test" not in changes:
        raise Failure("there is no health check to change; add --health-cmd", Exit.USAGE)
    return replace(old, **changes) if old else HealthCheck(**changes)
