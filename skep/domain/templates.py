"""Templates in a service's spec, such as `{{.Task.Address}}`, as Docker Swarm writes them.

Only what a task may need to know is there: fields, `index` on labels, `vip` for the virtual address
of a service (which Docker doesn't have, since its containers can always ask a name server), and
string literals (`{{"{{"}}` is how two braces are written). What is unknown is refused with the
whole list of what is known, so that a typing error never reaches a running task as an empty string.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from skep.domain.base import Pairs, Struct, lookup, pairs, replace
from skep.domain.spec import HealthCheck, RunSpec
from skep.env import Rejected


class TemplateValues(Struct, frozen=True, kw_only=True):
    """What templates of one task may name. `vips` are the virtual addresses of services, by the
    names that `wanted_vips` found."""

    task_id: str = "task"
    task_name: str = "service.1.task"
    task_slot: str = "1"
    task_address: str = "127.0.0.1"
    node_id: str = "node"
    node_hostname: str = "node"
    node_address: str = "127.0.0.1"
    node_os: str = "linux"
    node_arch: str = "x86_64"
    service_id: str = "service"
    service_name: str = "service"
    service_labels: Pairs = ()
    stack_name: str = ""
    vips: Pairs = ()


FIELDS: dict[str, Callable[[TemplateValues], str]] = {
    ".Node.Address": lambda v: v.node_address,
    ".Node.Hostname": lambda v: v.node_hostname,
    ".Node.ID": lambda v: v.node_id,
    ".Node.Platform.Architecture": lambda v: v.node_arch,
    ".Node.Platform.OS": lambda v: v.node_os,
    ".Service.ID": lambda v: v.service_id,
    ".Service.Name": lambda v: v.service_name,
    ".Stack.Name": lambda v: v.stack_name,
    ".Task.Address": lambda v: v.task_address,
    ".Task.ID": lambda v: v.task_id,
    ".Task.Name": lambda v: v.task_name,
    ".Task.Slot": lambda v: v.task_slot,
}
LABELS = ".Service.Labels"
KNOWN = (
    ", ".join("{{" + name + "}}" for name in FIELDS)
    + ', {{.Service.Labels.KEY}}, {{index .Service.Labels "KEY"}}, {{vip "SERVICE"}}'
)

_ACTION = re.compile(r"\{\{(?P<trim_left>-\s)?(?P<body>.*?)(?P<trim_right>\s-)?\}\}", re.DOTALL)
_INDEX = re.compile(r"index\s+\.Service\.Labels\s+(?P<key>\"[^\"]*\"|`[^`]*`)")
_VIP = re.compile(r"vip\s+(?P<name>\"[^\"\\{}]+\"|`[^`{}]+`)")
# Stands for every virtual address where only the form of templates is looked at.
_ANY_VIP = "127.0.0.1"
_LITERAL = re.compile(r"\"(?P<text>[^\"\\]*)\"|`(?P<raw>[^`]*)`")


def expand(text: str, values: TemplateValues, field: str) -> str:
    """The text with its templates replaced; raises Rejected for a template nobody knows, and for a
    service whose virtual address isn't among the values."""
    if "{{" not in text:
        return text
    parts: list[str] = []
    position = 0
    trim_next = False
    for match in _actions(text, field):
        before = text[position : match.start()]
        before = before.lstrip() if trim_next else before
        parts.append(before.rstrip() if match["trim_left"] else before)
        parts.append(_evaluate(match["body"].strip(), match.group(), values, field))
        trim_next = match["trim_right"] is not None
        position = match.end()
    rest = text[position:]
    parts.append(rest.lstrip() if trim_next else rest)
    return "".join(parts)


def _actions(text: str, field: str) -> Iterator[re.Match[str]]:
    position = 0
    while (start := text.find("{{", position)) >= 0:
        match = _match_action(text, start, field)
        yield match
        position = match.end()


def _match_action(text: str, start: int, field: str) -> re.Match[str]:
    # A literal may hold the closing braces, so it is tried before the search for them.
    literal = re.compile(
        r"\{\{(?P<trim_left>-\s)?\s*(?P<body>\"[^\"\\]*\"|`[^`]*`)\s*(?P<trim_right>\s-)?\}\}"
    ).match(text, start)
    match = literal or _ACTION.match(text, start)
    if match is None:
        raise Rejected(
            f'{field}: "{text[start : start + 40]}" opens a template and does not close it; '
            'write {{"{{"}} for two braces',
            field=field,
        )
    return match


def _evaluate(body: str, action: str, values: TemplateValues, field: str) -> str:
    if body in FIELDS:
        return FIELDS[body](values)
    if literal := _LITERAL.fullmatch(body):
        return literal["text"] if literal["text"] is not None else literal["raw"]
    if index := _INDEX.fullmatch(body):
        return lookup(values.service_labels, index["key"][1:-1]) or ""
    if vip := _VIP.fullmatch(body):
        return _vip(vip["name"][1:-1], values, field)
    if body.startswith(LABELS + ".") and body[len(LABELS) + 1 :].isidentifier():
        return lookup(values.service_labels, body[len(LABELS) + 1 :]) or ""
    raise Rejected(
        f"{field}: unknown template {action}; known are {KNOWN}; "
        'write {{"{{"}} for two braces that are not a template',
        field=field,
    )


def _vip(name: str, values: TemplateValues, field: str) -> str:
    found = lookup(values.vips, name)
    if found is None:
        raise Rejected(
            f"{field}: there is no virtual address for '{name}': none of this task's networks has "
            "a service of that name in mode vip; ask 'skep network why' what the name stands for",
            field=field,
        )
    return found


def expand_health(
    health: HealthCheck, values: TemplateValues, field: str = "spec.task.run.health"
) -> HealthCheck:
    """The health check with the templates in its test replaced. Raises Rejected."""
    test = tuple(expand(part, values, f"{field}.test[{i}]") for i, part in enumerate(health.test))
    return replace(health, test=test)


def expand_run(run: RunSpec, values: TemplateValues, field: str = "spec.task.run") -> RunSpec:
    """The spec with the templates in command, args, environment and health test replaced, and those
    in the sources of mounts and in a container's hostname, labels and extra hosts.

    Raises Rejected for a template nobody knows.
    """

    def each(parts: tuple[str, ...], name: str) -> tuple[str, ...]:
        return tuple(expand(part, values, f"{field}.{name}[{i}]") for i, part in enumerate(parts))

    health, container = run.health, run.container
    sources = each(tuple(mount.source for mount in run.mounts), "mounts")
    return replace(
        run,
        command=each(run.command, "command"),
        args=each(run.args, "args"),
        env=tuple((name, expand(value, values, f"{field}.env.{name}")) for name, value in run.env),
        health=None if health is None else expand_health(health, values, f"{field}.health"),
        mounts=tuple(
            replace(mount, source=source) for mount, source in zip(run.mounts, sources, strict=True)
        ),
        container=replace(
            container,
            hostname=expand(container.hostname, values, f"{field}.container.hostname"),
            labels=tuple(
                (name, expand(value, values, f"{field}.container.labels.{name}"))
                for name, value in container.labels
            ),
            extra_hosts=each(container.extra_hosts, "container.extra_hosts"),
        ),
    )


def wanted_vips(run: RunSpec, field: str = "spec.task.run") -> tuple[str, ...]:
    """The services whose virtual addresses `expand_run` needs, by the names that the templates have
    for them, each once. Raises Rejected for a template that isn't closed."""
    texts = [*run.command, *run.args, *(value for _, value in run.env)]
    texts += run.health.test if run.health else ()
    texts += [mount.source for mount in run.mounts]
    texts += [run.container.hostname, *(value for _, value in run.container.labels)]
    texts += run.container.extra_hosts
    found: dict[str, None] = {}
    for text in texts:
        for match in _actions(text, field):
            if vip := _VIP.fullmatch(match["body"].strip()):
                found[vip["name"][1:-1]] = None
    return tuple(found)


def check_templates(run: RunSpec, field: str = "spec.task.run") -> None:
    """Raise Rejected for templates that would be refused on any node."""
    any_vips = pairs((name, _ANY_VIP) for name in _names_in(run))
    expand_run(run, TemplateValues(vips=any_vips), field)


def _names_in(run: RunSpec) -> tuple[str, ...]:
    try:
        return wanted_vips(run)
    except Rejected:
        # What isn't closed is told with its place by whoever expands.
        return ()
