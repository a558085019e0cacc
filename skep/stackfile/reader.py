"""Typed reading of nodes: each `Place` knows where it stands, so that its errors can say so."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from skep.domain.base import Pairs, pairs
from skep.stackfile import keys, nodes, values
from skep.stackfile.errors import Mark, StackFileError, at, error_at
from skep.stackfile.interpolate import BadVariable, interpolate

T = TypeVar("T")

_NULLS = frozenset({"", "~", "null", "Null", "NULL"})
_TRUTHS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}


@dataclass(frozen=True)
class Source:
    """What one parse reads from, and where it says what is odd but no error."""

    file: str
    folder: str
    environ: Mapping[str, str]
    warn: Callable[[str], None]


@dataclass(frozen=True)
class Place:
    """A node, the path that led to it ("services.web.ports[0]") and the engine it is for."""

    node: nodes.Node
    path: str
    source: Source
    engine: str = "process"

    # ------------------------------------------------------------------------------- errors

    def error(self, text: str, mark: Mark | None = None) -> StackFileError:
        """An error at this place, or at `mark`."""
        return error_at(self.source.file, mark or self.node.mark, text, field=self.path)

    def where(self) -> str:
        """This place as file:line:column."""
        return at(self.source.file, self.node.mark)

    def needs_container(self, what: str, advice: str, mark: Mark | None = None) -> StackFileError:
        """An error for what this engine can't do."""
        mark = mark or self.node.mark
        where = at(self.source.file, mark)
        return StackFileError(
            f"engine '{self.engine}' can't do '{what}' ({where}): it needs a container engine; "
            f"{advice}",
            file=self.source.file,
            mark=mark,
            field=self.path,
        )

    def _expected(self, what: str) -> StackFileError:
        name = self.path.rpartition(".")[2] or "the file"
        found = {nodes.Mapping: "a map", nodes.Sequence: "a list"}.get(type(self.node))
        return self.error(f"{name} must be {what}, but this is {found or self._quoted()}")

    def _quoted(self) -> str:
        assert isinstance(self.node, nodes.Scalar)
        text = self.node.text
        return "nothing" if self.is_null else f"'{text[:40]}{'…' if len(text) > 40 else ''}'"

    # ------------------------------------------------------------------------------ shapes

    @property
    def is_null(self) -> bool:
        """Whether nothing stands here."""
        node = self.node
        return isinstance(node, nodes.Scalar) and node.is_plain and node.text in _NULLS

    @property
    def is_scalar(self) -> bool:
        """Whether this is text, a number or a truth."""
        return isinstance(self.node, nodes.Scalar)

    @property
    def is_list(self) -> bool:
        """Whether this is a list."""
        return isinstance(self.node, nodes.Sequence)

    def items(self) -> list[Place]:
        """The places in a list."""
        if not isinstance(self.node, nodes.Sequence):
            raise self._expected("a list")
        return [
            Place(node, f"{self.path}[{number}]", self.source, self.engine)
            for number, node in enumerate(self.node.items)
        ]

    def entries(self) -> list[tuple[nodes.Scalar, Place]]:
        """The keys of a map with the places of their values."""
        if not isinstance(self.node, nodes.Mapping):
            raise self._expected("a map")
        prefix = f"{self.path}." if self.path else ""
        return [
            (key, Place(value, f"{prefix}{key.text}", self.source, self.engine))
            for key, value in self.node.entries
        ]

    def fields(self, section: keys.Section) -> dict[str, Place]:
        """The fields of a section that say something. Raises for every key it doesn't support."""
        found = {}
        for key, value in self.entries():
            if key.text in section.supported or key.text in section.extensions:
                if not value.is_null:
                    found[key.text] = value
            elif not self._is_ignored(key, section):
                raise value._refused(key, section)
        return found

    def _is_ignored(self, key: nodes.Scalar, section: keys.Section) -> bool:
        # Extension fields are for other programs and for anchors; but a near miss of one of ours
        # is surely meant for us.
        return key.text.startswith("x-") and not keys.did_you_mean(key.text, section.extensions)

    def _refused(self, key: nodes.Scalar, section: keys.Section) -> StackFileError:
        word = key.text
        if word in section.container:
            return self.needs_container(word, "remove the key", key.mark)
        if word in section.later:
            advice = section.later[word] or "remove the key"
            return self.error(f"'{word}' is not supported yet; {advice}", key.mark)
        hint = keys.did_you_mean(word, section.known()) or "; remove it"
        return self.error(f"unknown key '{word[:60]}' in {section.name}{hint}", key.mark)

    # ----------------------------------------------------------------------------- scalars

    def text(self) -> str:
        """A scalar's text with its variables put in."""
        if not isinstance(self.node, nodes.Scalar) or self.is_null:
            raise self._expected("text")
        return self.interpolated(self.node.text)

    def interpolated(self, text: str) -> str:
        """Any text with its variables put in, as if it stood here."""
        try:
            result, unset = interpolate(text, self.source.environ)
        except BadVariable as error:
            raise self.error(str(error)) from None
        for name in unset:
            self.source.warn(f"{self.where()}: variable '{name}' is not set; it becomes empty")
        if "\0" in result:
            raise self.error("a NUL character came in by a variable; no program can take it")
        return result

    def parsed(self, parse: Callable[[str], T]) -> T:
        """A scalar read by one of `skep.stackfile.values`."""
        text = self.text().strip()
        try:
            return parse(text)
        except values.BadValue as error:
            name = self.path.rpartition(".")[2]
            raise self.error(f"{name}: {error}") from None

    def integer(self, minimum: int, maximum: int) -> int:
        """A whole number within bounds that belong to it."""
        return self.parsed(lambda text: values.integer(text, minimum, maximum))

    def truth(self) -> bool:
        """True or false."""
        return self.choice(_TRUTHS, shown="true or false")

    def choice(self, of: Mapping[str, T], *, shown: str = "") -> T:
        """One of a few words."""
        word = self.text().strip()
        if word.lower() not in of:
            name = self.path.rpartition(".")[2]
            listed = shown or " or ".join(f"'{choice}'" for choice in of)
            raise self.error(f"{name} must be {listed}, but this is '{word[:40]}'")
        return of[word.lower()]

    # --------------------------------------------------------------------------- compounds

    def words(self) -> tuple[str, ...]:
        """A command: a list taken as it is, or a line that is split as a shell would."""
        if self.is_scalar:
            return self.parsed(values.words)
        return self.texts()

    def texts(self) -> tuple[str, ...]:
        """A list of texts."""
        return tuple(item.text() for item in self.items())

    def variables(self, fallback: Mapping[str, str]) -> Pairs:
        """Names and values, as a map or as a list of "name=value". A name alone takes its value
        from `fallback`, and is left out where that has none."""
        found: dict[str, str] = {}
        for name, value in self._named_values():
            if value is not None:
                found[name] = value
            elif name in fallback:
                found[name] = fallback[name]
        return pairs(found)

    def labels(self) -> Pairs:
        """Names and values, as a map or as a list of "name=value"; a name alone has no value."""
        return pairs({name: value or "" for name, value in self._named_values()})

    def _named_values(self) -> list[tuple[str, str | None]]:
        rows: list[tuple[str, str | None]] = []
        if self.is_list:
            for item in self.items():
                name, sign, value = item.text().partition("=")
                rows.append((item._checked_name(name), value if sign else None))
        else:
            for key, place in self.entries():
                name = place._checked_name(key.text)
                rows.append((name, None if place.is_null else place.text()))
        return rows

    def _checked_name(self, name: str) -> str:
        if not name or "=" in name or "\0" in name:
            raise self.error("a name must stand before '='; write NAME=value")
        return name
