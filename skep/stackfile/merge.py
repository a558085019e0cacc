"""Several files to one tree, by Compose's rules (compose-spec, 13-merge).

Maps are merged key by key, lists appended, all else replaced; a command, an entrypoint and a health
test are replaced whole. Variables and labels are merged by name in whichever form, ports by what
they publish, subnets by themselves. A key that says nothing changes nothing; `!reset` removes what
stood, `!override` replaces it, and extension fields are replaced whole. Every node keeps its own
place, so that errors name the file it came from.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from skep.stackfile import keys, nodes
from skep.stackfile.errors import Problems, at, error_at
from skep.stackfile.nodes import OVERRIDE, RESET, Mapping, Node, Scalar, Sequence
from skep.stackfile.ports import short_ports
from skep.stackfile.values import BadValue

Path = tuple[str, ...]

_REPLACED = {("command",), ("entrypoint",), ("healthcheck", "test")}
_BY_NAME = {
    ("environment",),
    ("labels",),
    ("deploy", "labels"),
    ("annotations",),
    ("sysctls",),
    ("storage_opt",),
}
_OF_OBJECT_BY_NAME = {("labels",), ("driver_opts",)}
_OBJECTS = ("networks", "volumes", "configs", "secrets")
# One or several, in two forms.
_LISTED = {("dns",), ("dns_search",), ("dns_opt",), ("env_file",), ("label_file",), ("tmpfs",)}
_SUBNETS = ("ipam", "config")
_PORTS = ("ports",)
_BY_TARGET = {("volumes",), ("devices",), ("configs",), ("secrets",)}
_NETWORKS = ("networks",)
_LOGGING = ("logging",)


def settled(node: Node) -> Node:
    """A single file's tree without what it resets."""
    if isinstance(node, Scalar):
        return replace(node, tag="") if node.tag else node
    if isinstance(node, Sequence):
        items = tuple(settled(item) for item in node.items if item.tag != RESET)
        return _sequence(node, items)
    entries = tuple((key, settled(value)) for key, value in node.entries if value.tag != RESET)
    return _mapping(node, entries)


def merged(base: Node, over: Node, problems: Problems, path: Path = ()) -> Node:
    """A settled tree with what `over` says put over it."""
    if over.tag == OVERRIDE:
        return settled(over)
    over_is_null = isinstance(over, Scalar) and over.is_null
    if over_is_null or (isinstance(base, Scalar) and base.is_null):
        return base if over_is_null else settled(over)
    within = path[2:] if path[:1] == ("services",) else ()
    if within in _REPLACED:
        return settled(over)
    base, over = (_in_one_form(node, path, within) for node in (base, over))
    if isinstance(base, Mapping) and isinstance(over, Mapping):
        if within == _LOGGING and not _is_same_driver(base, over):
            return settled(over)
        return _merged_maps(base, over, problems, path)
    if isinstance(base, Sequence) and isinstance(over, Sequence):
        return _merged_lists(base, over, problems, path)
    if type(base) is not type(over) and _is_read(path):
        name = path[-1] if path else "the file"
        problems.add(
            error_at(
                over.mark,
                f"{name} is {_kind(over)} here, but {_kind(base)} at {at(base.mark)}, and can't be "
                "merged with it; write it in the same form, or tag it '!override' to replace it",
            )
        )
    return settled(over)


def _in_one_form(node: Node, path: Path, within: Path) -> Node:
    if _is_by_name(path) or within == _NETWORKS:
        return _named(node, is_name=within == _NETWORKS)
    return _as_list(node) if within in _LISTED else node


def _merged_lists(base: Sequence, over: Sequence, problems: Problems, path: Path) -> Sequence:
    within = path[2:] if path[:1] == ("services",) else ()
    if within == _PORTS:
        return _merged_ports(base, over, problems, path)
    if within in _BY_TARGET:
        return _merged_by_target(base, over, within[0])
    if path[:1] == _NETWORKS and path[2:] == _SUBNETS:
        return _merged_subnets(base, over, problems, path)
    return _sequence(base, (*base.items, *settled_items(over)))


def _is_by_name(path: Path) -> bool:
    """Whether this is a map of names that somebody chose, in one of two forms."""
    top, within = path[:1], path[2:]
    return (top == ("services",) and within in _BY_NAME) or (
        bool(top) and top[0] in _OBJECTS and within in _OF_OBJECT_BY_NAME
    )


def settled_items(node: Sequence) -> tuple[Node, ...]:
    """What a list holds, without what it resets."""
    return tuple(settled(item) for item in node.items if item.tag != RESET)


def _merged_maps(base: Mapping, over: Mapping, problems: Problems, path: Path) -> Mapping:
    entries = {key.text: (key, value) for key, value in base.entries}
    by_name = _is_by_name(path)
    for key, value in over.entries:
        known = entries.get(key.text)
        if value.tag == RESET:
            entries.pop(key.text, None)
        elif known is None or by_name or (key.text.startswith("x-") and path != ("services",)):
            # A variable without a value takes the environment's, which is a word of its own; what
            # belongs to other programs has no rules that are known here.
            entries[key.text] = (key, settled(value))
        else:
            found = merged(known[1], value, problems, (*path, key.text))
            entries[key.text] = (key if found.mark == value.mark else known[0], found)
    return _mapping(base, tuple(entries.values()))


def _named(node: Node, *, is_name: bool) -> Node:
    """A list of "name=value" (or with `is_name` of names) as a map; what is no such list as it
    is, for its reader to refuse."""
    if not isinstance(node, Sequence):
        return node
    entries: dict[str, tuple[Scalar, Node]] = {}
    for item in node.items:
        if not isinstance(item, Scalar) or item.is_null or item.error:
            return node
        name, sign, text = (item.text, "", "") if is_name else item.text.partition("=")
        value = Scalar(item.mark, text, is_plain=not sign, tag=item.tag)
        entries[name] = (Scalar(item.mark, name), value)
    return _mapping(Mapping(node.mark, (), 1, node.tag), tuple(entries.values()), tag=node.tag)


def _is_same_driver(base: Mapping, over: Mapping) -> bool:
    drivers = [_text(node, "driver") for node in (base, over)]
    return "" in drivers or drivers[0] == drivers[1]


def _merged_ports(base: Sequence, over: Sequence, problems: Problems, path: Path) -> Sequence:
    """Ports of both files; one that publishes the same as one of `base` takes its place."""
    rows: list[Node] = []
    places: dict[Path, int] = {}
    for key, node in _ports(base.items):
        places.setdefault(key, len(rows))
        rows.append(node)
    for key, node in _ports(settled_items(over)):
        place = places.get(key)
        if place is None:
            rows.append(node)
        elif isinstance(rows[place], Mapping) and isinstance(node, Mapping):
            rows[place] = merged(rows[place], node, problems, (*path, "[]"))
        else:
            rows[place] = node
    return _sequence(base, tuple(rows))


def _merged_subnets(base: Sequence, over: Sequence, problems: Problems, path: Path) -> Sequence:
    """Subnets of both files; what is said twice of one is merged."""
    rows = list(base.items)
    for node in settled_items(over):
        subnet = _text(node, "subnet") if isinstance(node, Mapping) else ""
        for place, row in enumerate(rows):
            if subnet and isinstance(row, Mapping) and _text(row, "subnet") == subnet:
                rows[place] = merged(row, node, problems, (*path, "[]"))
                break
        else:
            rows.append(node)
    return _sequence(base, tuple(rows))


def _as_list(node: Node) -> Node:
    return Sequence(node.mark, (node,), 1 + node.size) if isinstance(node, Scalar) else node


def _merged_by_target(base: Sequence, over: Sequence, key: str) -> Sequence:
    """Mounts, devices or files of both; one at the target of one of `base` takes its place."""
    rows: dict[str, Node] = {}
    for node in (*base.items, *settled_items(over)):
        rows[_target(node, key)] = node
    return _sequence(base, tuple(rows.values()))


def _target(node: Node, key: str) -> str:
    if isinstance(node, Mapping):
        return _text(node, "target") or _text(node, "source")
    if not isinstance(node, Scalar):
        return str(node.mark)
    parts = node.text.split(":")
    is_path = key in ("volumes", "devices") and len(parts) > 1 and parts[1].startswith("/")
    return parts[1] if is_path else parts[0]


def _ports(items: tuple[Node, ...]) -> Iterator[tuple[Path, Node]]:
    """Each port with what tells it from others: target, published, protocol, host's address."""
    for item in items:
        if isinstance(item, Mapping):
            protocol = _text(item, "protocol").lower() or "tcp"
            published, target = _text(item, "published"), _text(item, "target")
            yield (target, published, protocol, _text(item, "host_ip")), item
        elif isinstance(item, Scalar):
            try:
                ports = short_ports(item.text.strip())
            except BadValue:
                yield (item.text,), item
                continue
            for port in ports:
                target, protocol = str(port.target), port.protocol.value
                published = "" if port.published is None else str(port.published)
                text = f"{published}{':' if published else ''}{target}/{protocol}"
                single = item if len(ports) == 1 else replace(item, text=text, is_plain=False)
                yield (target, published, protocol, ""), single
        else:
            yield ("", str(item.mark)), item


def _text(node: Mapping, name: str) -> str:
    for key, value in node.entries:
        if key.text == name and isinstance(value, Scalar) and not value.is_null:
            return value.text
    return ""


def _kind(node: Node) -> str:
    return {Mapping: "a map", Sequence: "a list", Scalar: "a single value"}[type(node)]


def _is_read(path: Path) -> bool:
    """Whether the key is one that Skep reads; of others it says more than that they don't fit."""
    if path[:1] == ("services",):
        return len(path) < 3 or path[2] in keys.SERVICE.supported
    return not path or path[0] in keys.TOP.supported


def _sequence(like: Sequence, items: tuple[Node, ...]) -> Sequence:
    return Sequence(like.mark, items, _bounded(like, 1 + sum(item.size for item in items)))


def _mapping(like: Mapping, entries: tuple[tuple[Scalar, Node], ...], tag: str = "") -> Mapping:
    size = 1 + sum(1 + value.size for _, value in entries)
    return Mapping(like.mark, entries, _bounded(like, size), tag)


def _bounded(like: Node, size: int) -> int:
    if size > nodes.NODE_LIMIT:
        text = f"merging the files makes more than {nodes.NODE_LIMIT} nodes; use less of them"
        raise error_at(like.mark, text)
    return size
