"""YAML text to a tree of nodes that remember their places.

Scalars stay text. YAML 1.1 would turn `22:22` into 1342, `no` into false and `1.10` into 1.1; which
of text, number or truth is meant is known only where a value is read. Anchors, aliases and merge
keys (`<<`) work; a key that stands twice in one mapping is an error.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

import yaml

from skep.domain.control import STACK_FILE_LIMIT_BYTES
from skep.stackfile.errors import Mark, StackFileError, at, error_at

# The deepest key of a real stack file stands at depth 8; recursion stays far from Python's limit.
DEPTH_LIMIT = 32

# Aliases make a small file grow without bound ("billion laughs"); 1 MiB of plain YAML holds fewer
# nodes than this, so that only what aliases multiply is ever refused.
NODE_LIMIT = 600_000

# Each variable's place is kept; a scalar with more dollar signs than this is data, not a text.
DOLLAR_LIMIT = 1000

RESET = "reset"
OVERRIDE = "override"

_LINE_BREAK = re.compile("\r\n|[\n\r\x85\u2028\u2029]")  # YAML 1.1, 5.4
_NULLS = frozenset({"", "~", "null", "Null", "NULL"})
_UNPRINTABLE = re.compile(
    "[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]"  # YAML 1.1, 5.1
)
_PLAIN_TAGS = frozenset(
    f"tag:yaml.org,2002:{kind}" for kind in ("str", "int", "float", "bool", "null", "map", "seq")
) | {"!"}
_MERGE_TAGS = {"!reset": RESET, "!override": OVERRIDE}
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True, slots=True)
class Scalar:
    """Text. `is_plain` tells `null` from `"null"`. `dollars` are the places of its dollar signs,
    where each could be found."""

    mark: Mark
    text: str
    is_plain: bool = True
    size: int = 1
    tag: str = ""
    dollars: tuple[Mark, ...] = ()
    # Why its variables couldn't be put in; whoever needs the text raises this.
    error: StackFileError | None = None

    @property
    def is_null(self) -> bool:
        """Whether nothing stands here."""
        return self.is_plain and self.text in _NULLS


@dataclass(frozen=True, slots=True)
class Sequence:
    """A list. The tag of a node, RESET or OVERRIDE, is for merging files."""

    mark: Mark
    items: tuple[Node, ...]
    size: int
    tag: str = ""


@dataclass(frozen=True, slots=True)
class Mapping:
    """Keys and values in the file's order, what merge keys bring last. `size` counts what the
    node holds with every alias written out."""

    mark: Mark
    entries: tuple[tuple[Scalar, Node], ...]
    size: int
    tag: str = ""


Node = Scalar | Sequence | Mapping


def compose(text: str, file: str) -> Node:
    """The tree of the one document in `text`. Raises StackFileError."""
    size_bytes = len(text.encode("utf-8", "surrogatepass"))
    if size_bytes > STACK_FILE_LIMIT_BYTES:
        raise error_at(
            Mark(1, 1, file),
            f"the file has {size_bytes} bytes, but a stack file may have no more than "
            f"{STACK_FILE_LIMIT_BYTES}; split it into several stacks",
        )
    found = _UNPRINTABLE.search(text)
    if found:
        before = text[: found.start()]
        mark = Mark(before.count("\n") + 1, found.start() - before.rfind("\n"), file)
        raise error_at(mark, f"character {found.group()!r} is not allowed in YAML; remove it")
    try:
        return _Composer(file, text).document()
    except yaml.MarkedYAMLError as error:
        where = error.problem_mark or error.context_mark
        mark = Mark(where.line + 1, where.column + 1, file) if where else Mark(1, 1, file)
        mark = min(mark, _end(text, file))
        words = ", ".join(part for part in (error.context, error.problem) if part)
        raise error_at(mark, f"not YAML: {words}") from None
    except yaml.YAMLError as error:
        raise error_at(Mark(1, 1, file), f"not YAML: {error}") from None


def _end(text: str, file: str) -> Mark:
    """Where the last visible character of a text ends; what is missing is missing there."""
    lines = text.rstrip().split("\n")
    return Mark(len(lines), len(lines[-1]) + 1, file)


class _Composer:
    """Builds nodes from the parser's events."""

    def __init__(self, file: str, text: str) -> None:
        self._file = file
        self._text = text
        self._events: Iterator[yaml.Event] = yaml.parse(text, Loader=_LOADER)
        self._anchors: dict[str, Node] = {}
        self._open_anchors: set[str] = set()

    def document(self) -> Node:
        """The only document."""
        next(self._events)  # StreamStart
        if isinstance(next(self._events), yaml.StreamEndEvent):
            raise error_at(Mark(1, 1, self._file), "the file is empty; it needs 'services:'")
        node = self._node(next(self._events), 0)
        next(self._events)  # DocumentEnd
        after = next(self._events)
        if not isinstance(after, yaml.StreamEndEvent):
            raise error_at(self._mark(after), "a second document begins; a stack file has one")
        return node

    def _node(self, event: yaml.Event, depth: int) -> Node:
        mark = self._mark(event)
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event.anchor, mark)
        assert isinstance(event, yaml.NodeEvent), event
        if depth > DEPTH_LIMIT:
            raise error_at(mark, f"nested more than {DEPTH_LIMIT} deep; flatten it")
        tag = getattr(event, "tag", None)
        if tag is not None and tag not in _PLAIN_TAGS and tag not in _MERGE_TAGS:
            raise error_at(mark, f"tag '{tag}' is not supported; remove it")
        merge_tag = _MERGE_TAGS.get(tag or "", "")
        anchor = event.anchor
        if anchor is not None:
            self._open_anchors.add(anchor)
        node: Node
        if isinstance(event, yaml.ScalarEvent):
            is_plain = not event.style and (
                bool(merge_tag) or tag in (None, "tag:yaml.org,2002:null")
            )
            dollars = self._dollars(event)
            node = Scalar(mark, event.value, is_plain, tag=merge_tag, dollars=dollars)
        elif isinstance(event, yaml.SequenceStartEvent):
            node = self._sequence(mark, depth)
        else:
            node = self._mapping(mark, depth)
        if merge_tag and not isinstance(node, Scalar):
            node = replace(node, tag=merge_tag)
        if anchor is not None:
            self._open_anchors.discard(anchor)
            self._anchors[anchor] = node
        return node

    def _alias(self, name: str | None, mark: Mark) -> Node:
        assert name is not None
        if name in self._open_anchors:
            raise error_at(mark, f"'*{name}' stands inside '&{name}' itself")
        if name not in self._anchors:
            raise error_at(mark, f"'*{name}' has no '&{name}' before it")
        return self._anchors[name]

    def _sequence(self, mark: Mark, depth: int) -> Sequence:
        items = []
        size = 1
        while not isinstance(event := next(self._events), yaml.SequenceEndEvent):
            item = self._node(event, depth + 1)
            size = self._grown(size, item, mark)
            items.append(item)
        return Sequence(mark, tuple(items), size)

    def _mapping(self, mark: Mark, depth: int) -> Mapping:
        entries: dict[str, tuple[Scalar, Node]] = {}
        merge: tuple[Scalar, Node] | None = None
        size = 1
        while not isinstance(event := next(self._events), yaml.MappingEndEvent):
            key = self._node(event, depth + 1)
            if not isinstance(key, Scalar) or not key.text:
                raise error_at(key.mark, "a key must be a word, not a list or a map")
            value = self._node(next(self._events), depth + 1)
            size = self._grown(size + 1, value, mark)
            is_merge = key.text == "<<" and key.is_plain
            known = merge if is_merge else entries.get(key.text)
            if known:
                first = at(known[0].mark)
                raise error_at(
                    key.mark,
                    f"key '{key.text}' stands here for the second time (first: {first}); "
                    "remove one",
                )
            if is_merge:
                merge = (key, value)
            else:
                entries[key.text] = (key, value)
        if merge:
            for base in self._merged(merge[1]):
                for key, value in base.entries:
                    if key.text not in entries:
                        entries[key.text] = (key, value)
                        size = self._grown(size + 1, value, mark)
        return Mapping(mark, tuple(entries.values()), size)

    def _merged(self, node: Node) -> list[Mapping]:
        """The mappings a merge key names; of two that hold one key, the first wins."""
        candidates = node.items if isinstance(node, Sequence) else (node,)
        found = []
        for candidate in candidates:
            if not isinstance(candidate, Mapping):
                raise error_at(node.mark, "'<<' takes a map or a list of maps")
            found.append(candidate)
        return found

    def _grown(self, size: int, child: Node, mark: Mark) -> int:
        size += child.size
        if size > NODE_LIMIT:
            raise error_at(mark, f"aliases blow this up to more than {NODE_LIMIT} nodes")
        return size

    def _mark(self, event: yaml.Event) -> Mark:
        where = event.start_mark
        assert where is not None, event
        return Mark(where.line + 1, where.column + 1, self._file)

    def _dollars(self, event: yaml.ScalarEvent) -> tuple[Mark, ...]:
        """Where each dollar sign of a scalar stands, which folding and escapes make hard to tell
        from the scalar's own place; nothing where they can't be told apart."""
        count = event.value.count("$")
        if not 0 < count <= DOLLAR_LIMIT or event.start_mark is None or event.end_mark is None:
            return ()
        start = event.start_mark
        raw = self._text[start.index : event.end_mark.index]
        if raw.count("$") != count:
            return ()
        marks = []
        for number, line in enumerate(_LINE_BREAK.split(raw)):
            shift = start.column if number == 0 else 0
            marks += [
                Mark(start.line + 1 + number, shift + column + 1, self._file)
                for column, char in enumerate(line)
                if char == "$"
            ]
        return tuple(marks)
