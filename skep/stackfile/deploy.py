"""What stands under `deploy:`, but for the number of replicas and the labels."""

from __future__ import annotations

from skep.domain.base import replace
from skep.domain.constraints import parse_constraint
from skep.domain.spec import (
    EndpointMode,
    FailureAction,
    Placement,
    Platform,
    Resources,
    RestartCondition,
    RestartPolicy,
    UpdateOrder,
    UpdatePolicy,
)
from skep.domain.validate import (
    MIN_CPU_NANO,
    MIN_HEALTH_TIME_NS,
    MIN_MEMORY_BYTES,
    PREFERENCE,
    REPLICAS_LIMIT,
)
from skep.env import Rejected
from skep.stackfile import keys, values
from skep.stackfile.reader import Fields, Place

COUNT_LIMIT = 2**31 - 1

CONDITIONS = {
    "none": RestartCondition.NONE,
    "on-failure": RestartCondition.ON_FAILURE,
    "any": RestartCondition.ANY,
}
ENDPOINT_MODES = {mode.value: mode for mode in EndpointMode}
ACTIONS = {action.value: action for action in FailureAction}
ORDERS = {"stop-first": UpdateOrder.STOP_FIRST, "start-first": UpdateOrder.START_FIRST}
# The variants that an architecture has anyway, so that naming one asks for nothing.
_ONLY_VARIANTS = {("arm64", "v8"), ("aarch64", "v8"), ("amd64", "v1"), ("x86_64", "v1")}


def check_mode(place: Place) -> None:
    """Refuse modes that a service can't have yet."""
    word = place.text()
    if word in ("global", "replicated-job", "global-job"):
        raise place.error(f"mode '{word}' is not supported yet; use 'replicated'")
    place.choice({"replicated": True})


def endpoint_mode(place: Place) -> EndpointMode:
    """What the service's name stands for."""
    return place.choice(ENDPOINT_MODES)


def update_policy(place: Place) -> UpdatePolicy:
    """An `update_config`; what it leaves out has its default."""
    return _policy(place.fields(keys.UPDATE_CONFIG), ACTIONS)


def rollback_policy(place: Place) -> UpdatePolicy:
    """A `rollback_config`."""
    fields = place.fields(keys.ROLLBACK_CONFIG)
    action = fields.get("failure_action")
    if action and action.attempt(Place.text, "").strip().lower() == "rollback":
        place.source.problems.add(
            action.error(
                "failure_action can't be 'rollback' here: a rollback that fails has nothing to go "
                "back to; use 'pause' or 'continue'"
            )
        )
        fields = Fields({key: at for key, at in fields.found.items() if key != "failure_action"})
    return _policy(fields, {key: word for key, word in ACTIONS.items() if key != "rollback"})


def _policy(fields: Fields, actions: dict[str, FailureAction]) -> UpdatePolicy:
    default = UpdatePolicy()
    return UpdatePolicy(
        parallelism=fields.read(
            "parallelism", lambda at: at.integer(0, REPLICAS_LIMIT), default.parallelism
        ),
        delay_ns=fields.read("delay", Place.duration, default.delay_ns),
        monitor_ns=fields.read("monitor", Place.duration, default.monitor_ns),
        max_failure_ratio=fields.read(
            "max_failure_ratio", lambda at: at.parsed(values.ratio), default.max_failure_ratio
        ),
        failure_action=fields.read(
            "failure_action", lambda at: at.choice(actions), default.failure_action
        ),
        order=fields.read("order", lambda at: at.choice(ORDERS), default.order),
        healthy_deadline_ns=fields.read(
            "x-healthy-deadline",
            lambda at: at.duration(MIN_HEALTH_TIME_NS),
            default.healthy_deadline_ns,
        ),
    )


def resources(fields: Fields) -> Resources:
    """Limits or reservations. As in Docker, an amount of 0 limits and reserves nothing."""
    return Resources(
        cpu_nano=fields.read("cpus", _cpu_nano, None),
        memory_bytes=fields.read("memory", _memory_bytes, None),
        pids=fields.read("pids", lambda at: at.integer(0, COUNT_LIMIT) or None, None),
    )


def with_plain_amounts(
    fields: Fields, limits: Resources, reservations: Resources
) -> tuple[Resources, Resources]:
    """Limits and reservations with those that a service says by Compose's older keys. What is said
    twice must be the same."""
    for key, name, path in (
        ("cpus", "cpu_nano", "limits.cpus"),
        ("mem_limit", "memory_bytes", "limits.memory"),
        ("pids_limit", "pids", "limits.pids"),
        ("mem_reservation", "memory_bytes", "reservations.memory"),
    ):
        amount = fields.read(key, _PLAIN[name], None)
        if amount is None:
            continue
        of = limits if path.startswith("limits") else reservations
        if getattr(of, name) not in (None, amount):
            fields[key].source.problems.add(
                fields[key].error(f"deploy.resources.{path} says something else; remove one")
            )
        changed = replace(of, **{name: amount})
        limits, reservations = (changed, reservations) if of is limits else (limits, changed)
    return limits, reservations


def _pids(place: Place) -> int | None:
    # As in Docker, -1 and 0 are no limit.
    found = place.integer(-1, COUNT_LIMIT)
    return found if found > 0 else None


def replicas(fields: Fields, deployed: Fields) -> int:
    """How many tasks a service has, by `deploy.replicas` or the older `scale`."""

    def read(place: Place) -> int:
        return place.integer(0, REPLICAS_LIMIT)

    found = deployed.read("replicas", read, 1)
    scale = fields.read("scale", read, None)
    if scale is None:
        return found
    if "replicas" in deployed and found != scale:
        fields["scale"].source.problems.add(
            fields["scale"].error("deploy.replicas says something else; remove one")
        )
    return scale


def restarts(fields: Fields, deployed: Fields) -> RestartPolicy:
    """`deploy.restart_policy`, or what the older `restart` says where that is absent."""
    restart = fields.get("restart")
    if "restart_policy" in deployed:
        if restart is not None:
            restart.warn("'restart' changes nothing beside deploy.restart_policy; remove it")
        return deployed.read("restart_policy", restart_policy, RestartPolicy())
    return restart.attempt(_restart, RestartPolicy()) if restart else RestartPolicy()


def _restart(place: Place) -> RestartPolicy:
    word, colon, count = place.text().strip().partition(":")
    known = {
        "no": RestartCondition.NONE,
        "false": RestartCondition.NONE,
        "always": RestartCondition.ANY,
        "unless-stopped": RestartCondition.ANY,
        "on-failure": RestartCondition.ON_FAILURE,
    }
    condition = known.get(word)
    is_counted = condition is RestartCondition.ON_FAILURE and bool(colon)
    if condition is None or (colon and not is_counted):
        raise place.error(
            f"restart must be 'no', 'always', 'unless-stopped', 'on-failure' or 'on-failure:3', "
            f"but this is '{place.text()[:40]}'"
        )
    attempts = place.parsed(lambda _: values.integer(count, 0, COUNT_LIMIT)) if is_counted else 0
    return RestartPolicy(condition=condition, max_attempts=attempts or None)


def _cpu_nano(place: Place) -> int | None:
    nano = place.parsed(values.cpu_nano)
    if 0 < nano < MIN_CPU_NANO:
        raise place.error("cpus must be 0.001 or more; nothing could start with less")
    return nano or None


def _memory_bytes(place: Place) -> int | None:
    size = place.parsed(values.size_bytes)
    if 0 < size < MIN_MEMORY_BYTES:
        raise place.error("memory must be 4M or more; nothing could start with less")
    return size or None


_PLAIN = {"cpu_nano": _cpu_nano, "memory_bytes": _memory_bytes, "pids": _pids}


def restart_policy(place: Place) -> RestartPolicy:
    """A `restart_policy`. As in Swarm, max_attempts 0 never gives up, and window 0 looks at the
    whole past."""
    fields = place.fields(keys.RESTART_POLICY)
    default = RestartPolicy()
    return RestartPolicy(
        condition=fields.read("condition", lambda at: at.choice(CONDITIONS), default.condition),
        delay_ns=fields.read("delay", Place.duration, default.delay_ns),
        max_attempts=fields.read(
            "max_attempts", lambda at: at.integer(0, COUNT_LIMIT) or None, None
        ),
        window_ns=fields.read("window", lambda at: at.duration() or None, None),
    )


def placement(place: Place | None, platform: Place | None) -> Placement:
    """Where the tasks may run: `deploy.placement`, and the service's `platform`."""
    fields = (
        place.attempt(lambda at: at.fields(keys.PLACEMENT), Fields({})) if place else Fields({})
    )
    # As in Swarm, 0 is no limit.
    most = fields.read(
        "max_replicas_per_node", lambda at: at.integer(0, REPLICAS_LIMIT) or None, None
    )
    return Placement(
        constraints=fields.read("constraints", _constraints, ()),
        preferences=fields.read("preferences", _preferences, ()),
        max_replicas_per_node=most,
        platforms=platform.attempt(_platforms, ()) if platform else (),
    )


def _constraints(place: Place) -> tuple[str, ...]:
    return tuple(item.attempt(_constraint, "") for item in place.items())


def _constraint(place: Place) -> str:
    text = place.text().strip()
    try:
        parse_constraint(text)
    except Rejected as error:
        raise place.error(str(error)) from None
    return text


def _preferences(place: Place) -> tuple[str, ...]:
    found: list[str] = []
    for item in place.items():
        found += item.several(_preference)
    return tuple(found)


def _preference(place: Place) -> list[str]:
    before = place.source.problems.count
    spread = place.fields(keys.PREFERENCE).get("spread")
    if spread is None:
        if place.source.problems.count > before:
            return []
        raise place.error("a preference needs 'spread', as in 'spread: node.labels.zone'")
    text = spread.text().strip()
    if text.lower() == "node.id":
        spread.warn("tasks are spread over nodes anyway; remove this")
        return []
    if not PREFERENCE.fullmatch(text):
        raise spread.error(f"'{text[:40]}' is nothing to spread over; write node.labels.NAME")
    return [text]


def _platforms(place: Place) -> tuple[Platform, ...]:
    system, arch, variant = place.parsed(values.platform)
    if variant and (arch, variant) not in _ONLY_VARIANTS:
        place.warn(f"variant '{variant[:40]}' is not looked at: any {arch} node may run this")
    return (Platform(os=system, arch=arch),)


def warn_of_unwatched(fields: Fields, has_health: bool) -> None:
    """Tell where an update promises more than it can keep without a health check."""
    if has_health:
        return
    order, monitor = fields.get("order"), fields.get("monitor")
    if order and order.text().strip().lower() == "start-first":
        order.warn(
            "start-first without a healthcheck: a new task counts as ready once its process runs, "
            "so requests may fail during an update; add 'healthcheck'"
        )
    if monitor and monitor.duration() > 0:
        monitor.warn(
            "monitor without a healthcheck sees only tasks that end, not those that fail to serve; "
            "add 'healthcheck'"
        )
